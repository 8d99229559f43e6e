//! Certificates: read before a configuration comes into force and again when their files change, and how they stand.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Control;
use crate::acme::Standing;
use crate::model::{Config, Listener};
use crate::tls::{Files, Identity, Leaf, Origin, ServerFiles};

/// How often their files are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Whose certificate it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A gateway's.
    Gateway(Arc<str>),
    /// A listener's.
    Listener(Arc<str>),
}

/// How a certificate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Whose it is.
    pub whose: Shown,
    /// Where it comes from, as it was configured: a file, or "acme".
    pub source: String,
    /// How its order stands, if it is ordered.
    pub order: Option<Standing>,
    /// What it says; `None` while its file cannot be read, or it has not been issued.
    pub leaf: Option<Leaf>,
}

impl CertificateStatus {
    fn of(whose: Shown, identity: &Identity, order: Option<Standing>) -> Self {
        Self {
            whose,
            source: match &identity.files().origin {
                Origin::Files { certificate, .. } => certificate.display().to_string(),
                Origin::Ordered(_) => "acme".to_owned(),
            },
            order,
            leaf: identity.leaf(),
        }
    }
}

/// The handles of listeners' own certificates, in the order of the configuration.
pub(super) fn of_listeners(config: &Config, files: &Files) -> Vec<(Listener, Arc<Identity>)> {
    let own = config.listeners.iter();
    let own = own.filter_map(|l| Some((l.clone(), files.identity(ServerFiles::of_listener(l)?))));
    own.collect()
}

/// Reads what is named for the first time. What cannot be read is told of, and comes when it can be.
pub(super) async fn load_new(files: &Arc<Files>) {
    if !files.is_loaded() {
        visit(files, Files::load_new).await;
    }
}

async fn visit(files: &Arc<Files>, work: fn(&Files) -> Result<(), Vec<String>>) {
    let files = files.clone();
    // It waits for the disk.
    let done = tokio::task::spawn_blocking(move || work(&files)).await;
    for wrong in done.into_iter().filter_map(Result::err).flatten() {
        log::error!("{wrong}");
    }
}

impl Control {
    /// The listener's own certificate, if it has one. There is one handle for as long as anybody holds it.
    pub fn listener_identity(&self, listener: &Listener) -> Option<Arc<Identity>> {
        let files = ServerFiles::of_listener(listener)?;
        Some(self.registry.tls.identity(files))
    }

    /// Every certificate that clients may be shown, those of gateways first.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let snapshot = self.snapshot();
        let of_gateways = snapshot.gateways.iter().filter_map(|gateway| {
            let identity = gateway.identity.as_ref()?;
            Some(CertificateStatus::of(
                Shown::Gateway(gateway.name.clone()),
                identity,
                self.order(&gateway.name),
            ))
        });
        let of_listeners = of_listeners(self.resources().config(), &self.registry.tls);
        let of_listeners = of_listeners.into_iter().map(|(listener, identity)| {
            let whose = Shown::Listener(listener.name.into());
            CertificateStatus::of(whose, &identity, None)
        });
        of_gateways.chain(of_listeners).collect()
    }

    /// Reads all of their files again.
    pub(super) async fn renew_certificates(&self) {
        visit(&self.registry.tls, Files::load_all).await;
    }

    /// Reads files that have changed. Runs until it is dropped.
    pub async fn keep_certificates(&self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if !self.registry.tls.is_empty() {
                visit(&self.registry.tls, Files::load_changed).await;
            }
        }
    }
}
