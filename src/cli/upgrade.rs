//! `tollgate upgrade`: the running process is replaced by a new one of the program on disk.

use std::process::ExitCode;
use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};
use tollgate_sdk::document::FromText;

use super::remote::Remote;

/// How much longer than the new process the answer may take.
const MORE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(super) struct Asked {
    /// How long the new process may take to get ready, 10m at most.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    patience: Duration,
    #[command(flatten)]
    remote: Remote,
}

fn duration(text: &str) -> Result<Duration, String> {
    Duration::from_text(text).map_err(|wrong| wrong.message)
}

#[allow(clippy::print_stdout, reason = "the command's output")]
pub(super) fn run(asked: &Asked) -> ExitCode {
    let body = json!({"patience": format!("{}ms", asked.patience.as_millis())});
    let patience = asked.patience.saturating_add(MORE);
    let answer = asked
        .remote
        .ask_within(patience, Method::POST, "/v1/upgrade", Some(&body));
    let answer = match answer {
        Ok(answer) => answer,
        Err(message) => {
            eprintln!("tollgate: {message}");
            return ExitCode::FAILURE;
        }
    };
    let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
    let version = answer.get("version").and_then(Value::as_str);
    println!(
        "process {} (version {}) serves in place of process {}",
        number("new"),
        version.unwrap_or("unknown"),
        number("old")
    );
    match number("open") {
        0 => println!("nothing was open"),
        open => println!("{open} open requests end in the old process"),
    }
    ExitCode::SUCCESS
}
