//! The configuration file, read again: on a signal, on request, or because it has changed.
//!
//! What the new file says is compiled and its names are looked up before anything is swapped; a file with a mistake changes nothing. What only a new
//! process can change (listeners, threads, where state is kept) stays as it was, and is told of.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::Control;
use super::change;
use super::events::Touched;
use crate::config::{self, Action, Fate, Loaded, ResourceKind, Set, take_kept};
use crate::model::Config;
use crate::telemetry::supervisor;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long names of new targets may take to resolve before the file comes into force all the same.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a reload came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The revision in force.
    pub revision: u64,
    /// What is different.
    pub changes: Vec<Touched>,
    /// What only a restart brings into force.
    pub after_restart: Vec<String>,
    /// What the file's author should look at.
    pub warnings: String,
}

/// Why a file did not come into force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The process was not started from a file.
    #[error("this process has no configuration file")]
    NoFile,
    /// The file has mistakes: all of them, with their places.
    #[error("{0}")]
    Mistakes(String),
    /// What is kept could not be read.
    #[error("{0}")]
    Store(crate::store::StoreError),
    /// Another process is about to take over, which has read the file.
    #[error("another process is taking over, which reads the file itself")]
    HandingOver,
    /// The reload broke down.
    #[error("the reload broke down")]
    Broken,
}

impl Control {
    /// Reads the file again and brings it into force.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let told = self.is_ready() && !self.is_still();
        if told {
            supervisor::reloading();
        }
        let changing = self.book.changing();
        let done = self.try_reload().await;
        if done.is_ok() {
            self.renew_certificates().await;
        }
        drop(changing);
        if told {
            supervisor::ready();
        }
        let result = if done.is_ok() { "ok" } else { "refused" };
        let counter = &self.metrics.config_reloads;
        counter.with_label_values(&[result]).inc();
        self.tell_of_reload(&done);
        if let Ok(Reloaded { after_restart, .. }) = &done
            && !after_restart.is_empty()
        {
            let fields = after_restart.join(", ");
            log::warn!("only a restart brings into force: {fields}");
        }
        done
    }

    async fn try_reload(&self) -> Result<Reloaded, ReloadError> {
        let file = self.file.clone().ok_or(ReloadError::NoFile)?;
        let _tended = self.tended.lock().await;
        if self.is_still() {
            return Err(ReloadError::HandingOver);
        }
        let present = self.resources();
        let store = self.store.clone();
        // Both wait for the disk.
        let read = tokio::task::spawn_blocking(move || {
            let Loaded { config, warnings } =
                config::load(&file).map_err(|wrong| ReloadError::Mistakes(wrong.to_string()))?;
            let kept = change::kept(&*store).map_err(ReloadError::Store)?;
            Ok((config, warnings.to_string(), kept))
        });
        let (mut config, warnings, kept) = read.await.map_err(|_| ReloadError::Broken)??;
        let after_restart = keep_process(present.config(), &mut config);
        let mut next = Set::of_file(&config, present.revision + 1, Some(&present));
        for told in take_kept(&mut next, kept, Some(&present)) {
            log::warn!("{told}");
        }
        let fates = different(&present, &next);
        let mut changes: Vec<Touched> = fates.iter().filter_map(Touched::of).collect();
        let was = present.config();
        let tables = [
            (was.server != config.server, "server"),
            (was.acme != config.acme, "acme"),
        ];
        let tables = tables.into_iter().filter(|(differs, _)| *differs);
        changes.splice(0..0, tables.map(|(_, name)| Touched::table(name)));
        if changes.is_empty() {
            return Ok(Reloaded {
                revision: present.revision,
                after_restart,
                warnings,
                ..Reloaded::default()
            });
        }
        let revision = self.next_revision(next.revision).await;
        next.renumber(revision);
        self.bring(next, PATIENCE).await;
        Ok(Reloaded {
            revision,
            changes,
            after_restart,
            warnings,
        })
    }

    /// The revision of a configuration that the store has no part in. The file comes into force without the disk, too.
    async fn next_revision(&self, least: u64) -> u64 {
        let store = self.store.clone();
        let kept = tokio::task::spawn_blocking(move || store.advance(least)).await;
        match kept {
            Ok(Ok(revision)) => revision,
            Ok(Err(error)) => {
                log::error!("the configuration's revision could not be kept: {error}");
                least
            }
            Err(_) => least,
        }
    }

    /// Reloads on SIGHUP and whenever the file has changed and then stood still for a moment. Runs until it is dropped.
    pub async fn keep_reloading(&self) {
        let Some(file) = &self.file else {
            return std::future::pending().await;
        };
        let Ok(mut hangups) = signal(SignalKind::hangup()) else {
            return std::future::pending().await;
        };
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut known, mut last) = (identity(file), identity(file));
        loop {
            let asked = tokio::select! {
                _ = look.tick() => false,
                _ = hangups.recv() => true,
            };
            let now = identity(file);
            // Whoever writes it may not be done: it must look the same twice.
            let settled = now == last && now != known && now.is_some();
            last = now;
            // Once another process serves, it looks.
            if (asked || settled) && !self.is_handed_over() {
                known = now;
                let _ = self.reload().await;
            }
        }
    }
}

/// What tells one version of a file from another, through whatever links lead to it: file systems that are mounted from elsewhere change the link.
fn identity(file: &Path) -> Option<(u64, u64, i64, i64, u64)> {
    let of = |m: Metadata| (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size());
    std::fs::metadata(file).ok().map(of)
}

/// Keeps of the old configuration what the process was built with; returns which fields of the new one wait for a restart.
fn keep_process(old: &Config, new: &mut Config) -> Vec<String> {
    let mut waiting = Vec::new();
    let mut keep = |differs: bool, what: &str| {
        if differs {
            waiting.push(what.to_owned());
        }
    };
    let (was, is) = (&old.server, &new.server);
    keep(was.threads != is.threads, "server.threads");
    keep(was.state != is.state, "server.state");
    keep(
        was.max_connections != is.max_connections,
        "server.max_connections",
    );
    keep(
        was.max_connections_per_address != is.max_connections_per_address,
        "server.max_connections_per_address",
    );
    keep(was.grace != is.grace, "server.grace");
    keep(was.body_memory != is.body_memory, "server.body_memory");
    keep(
        was.header_timeout != is.header_timeout,
        "server.header_timeout",
    );
    keep(was.keep_usage != is.keep_usage, "server.keep_usage");
    keep(
        was.keep_usage_by_hour != is.keep_usage_by_hour,
        "server.keep_usage_by_hour",
    );
    keep(
        was.upgrade_socket != is.upgrade_socket,
        "server.upgrade_socket",
    );
    keep(was.pid_file != is.pid_file, "server.pid_file");
    keep(old.admin != new.admin, "admin");
    keep(old.log != new.log, "log");
    keep(old.listeners != new.listeners, "listener");
    let server = new.server.clone();
    new.server = crate::model::Server {
        trusted_proxies: server.trusted_proxies,
        max_body: server.max_body,
        body_timeout: server.body_timeout,
        ..old.server.clone()
    };
    new.admin = old.admin.clone();
    new.log = old.log.clone();
    new.listeners = old.listeners.clone();
    waiting
}

/// What is different between two sets: every resource that is new, gone or says something else.
fn different(old: &Set, new: &Set) -> Vec<Fate> {
    let mut fates = Vec::new();
    for kind in ResourceKind::ALL {
        let mut tell = |name: &Arc<str>, action: Action| {
            fates.push(Fate {
                kind,
                name: name.clone(),
                action,
                fields: Vec::new(),
            });
        };
        for resource in new.all(kind) {
            match old.get(kind, &resource.name) {
                None => tell(&resource.name, Action::Create),
                Some(before) if Arc::ptr_eq(before, resource) => {}
                Some(before) if before.model == resource.model => {}
                Some(_) => tell(&resource.name, Action::Update),
            }
        }
        for resource in old.all(kind) {
            if new.get(kind, &resource.name).is_none() {
                tell(&resource.name, Action::Delete);
            }
        }
    }
    fates
}
