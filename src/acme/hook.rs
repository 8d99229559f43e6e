//! The operator's program that writes records of DNS (dns-01).
//!
//! It is called with `present` or `cleanup`, the record's name and its text, after its own arguments. What it says goes to our standard error.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// How long one call may take: it waits until others see the record.
const PATIENCE: Duration = Duration::from_secs(300);

/// A record that was written.
pub(super) struct Record<'h> {
    exec: &'h [String],
    name: String,
    text: String,
}

impl<'h> Record<'h> {
    /// Writes the answer to a challenge for a host.
    pub(super) async fn write(
        exec: &'h [String],
        host: &str,
        text: String,
    ) -> Result<Self, String> {
        let record = Self {
            exec,
            name: format!("_acme-challenge.{host}"),
            text,
        };
        match record.call("present").await {
            Ok(()) => Ok(record),
            Err(why) => {
                // It may have been written in part.
                record.remove().await;
                Err(why)
            }
        }
    }

    /// Takes it away.
    pub(super) async fn remove(self) {
        if let Err(why) = self.call("cleanup").await {
            log::warn!("the record {} may be left behind: {why}", self.name);
        }
    }

    async fn call(&self, verb: &str) -> Result<(), String> {
        let [program, arguments @ ..] = self.exec else {
            return Err("no program is named in acme.challenge".into());
        };
        let mut command = Command::new(program);
        let command = command.args(arguments).args([verb, &self.name, &self.text]);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{program} cannot be run: {error}"))?;
        match timeout(PATIENCE, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("{program} {verb} ended with {status}")),
            Ok(Err(error)) => Err(format!("{program} {verb} cannot be waited for: {error}")),
            Err(_) => Err(format!(
                "{program} {verb} took longer than {} s",
                PATIENCE.as_secs()
            )),
        }
    }
}
