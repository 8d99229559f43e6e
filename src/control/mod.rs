//! The one path by which configuration comes into force: read → checked → stored → compiled → warmed → swapped → announced.
//!
//! A failure anywhere leaves what was in force as it was.

mod books;
mod budgets;
mod certificates;
mod change;
mod conditions;
mod engines;
pub mod events;
mod handover;
mod issuing;
mod keys;
mod observe;
mod probes;
mod reload;
mod replacing;
mod resolve;
mod status;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tollgate_sdk::plugin::Http;

use crate::acme::Issuer;
use crate::config::{Set, take_kept};
use crate::health;
use crate::model::Config;
use crate::snapshot::{Registry, Snapshot, compile};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use crate::tls::Files;

use self::budgets::Budgets;
use self::keys::Tended;

use self::conditions::Book;
use self::events::Events;
pub use certificates::{CertificateStatus, Shown};
pub use change::{Announced, ChangeError, Changed, Edit, Expected, Source, What};
pub use engines::{EngineStatus, Explanation, Unexplained};

use self::handover::Handover;
pub use conditions::{Condition, ConditionKind, GatewayState, LastReload};

pub use handover::{Asked, Counted, UpgradeError, Upgraded, inherit};
pub use keys::Issued;
pub use reload::{ReloadError, Reloaded};
pub use status::{GatewayStatus, QueueStatus, RoleStatus, ServiceStatus, Status, TargetStatus};

/// Holds the configuration in force and everything that outlives it.
pub struct Control {
    current: ArcSwap<Snapshot>,
    /// What the snapshot was compiled from.
    present: ArcSwap<Set>,
    metrics: Arc<Metrics>,
    registry: Registry,
    store: Arc<dyn Store>,
    budgets: Budgets,
    /// Where the configuration was read from.
    file: Option<PathBuf>,
    /// Held while a change is made, so that there is one at a time.
    tended: tokio::sync::Mutex<Tended>,
    /// The targets to be probed.
    probed: watch::Sender<Arc<[health::Group]>>,
    /// What happens.
    events: Arc<Events>,
    /// What is remembered of gateways' conditions.
    book: Book,
    handover: Handover,
    /// Who orders certificates.
    issuer: Arc<Issuer>,
}

impl Control {
    /// Compiles a first configuration, with what the store has, and resolves its targets' names, each at most for `patience`. A name that
    /// does not resolve is looked up again in the background; until then its target takes no requests.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        config: &Config,
        metrics: Arc<Metrics>,
        store: Arc<dyn Store>,
        http: Arc<dyn Http>,
        file: Option<PathBuf>,
        patience: Duration,
    ) -> Result<Control, StoreError> {
        let mut registry = Registry::new(http);
        let folder = file
            .as_deref()
            .and_then(Path::parent)
            .unwrap_or(Path::new("."));
        registry.tls = Arc::new(Files::new(folder.to_path_buf()));
        // Without the disk it begins all the same; the next change finds it or fails.
        let revision = match store.advance(1) {
            Ok(revision) => revision,
            Err(error) => {
                log::error!("the configuration's revision could not be kept: {error}");
                store.revision()? + 1
            }
        };
        let mut set = Set::of_file(config, revision, None);
        for told in take_kept(&mut set, change::kept(&*store)?, None) {
            log::error!("{told}");
        }
        let budgets = Budgets::default();
        budgets.catch_up(&*store, &*registry.offers.quota)?;
        let snapshot = compile(set.config(), revision, &registry, &metrics, None);
        let _listeners = certificates::of_listeners(set.config(), &registry.tls);
        certificates::load_new(&registry.tls).await;
        let orders = metrics.acme_orders.clone();
        let issuer = Issuer::new(registry.tls.clone(), store.clone(), orders);
        issuing::recall(&issuer, &snapshot, set.config());
        resolve::all(&snapshot, patience).await;
        metrics.config_revision.set(revision as i64);
        metrics.config_reloads.with_label_values(&["ok"]).inc();
        let (probed, _) = watch::channel(probes::of(&snapshot));
        Ok(Control {
            current: ArcSwap::from_pointee(snapshot),
            present: ArcSwap::from_pointee(set),
            metrics,
            registry,
            store,
            budgets,
            file,
            tended: tokio::sync::Mutex::default(),
            probed,
            events: Arc::default(),
            book: Book::default(),
            handover: Handover::default(),
            issuer: Arc::new(issuer),
        })
    }

    /// Compiles a set, lets the names of its new targets be looked up, and brings it into force.
    async fn bring(&self, set: Set, patience: Duration) {
        let before = self.snapshot();
        let snapshot = compile(
            set.config(),
            set.revision,
            &self.registry,
            &self.metrics,
            Some(&before),
        );
        certificates::load_new(&self.registry.tls).await;
        resolve::new(&snapshot, &before, patience).await;
        let _ = self.probed.send(probes::of(&snapshot));
        self.metrics.config_revision.set(set.revision as i64);
        self.present.store(Arc::new(set));
        let snapshot = Arc::new(snapshot);
        self.current.store(snapshot.clone());
        // Who waits for a target may find it now.
        for upstream in &snapshot.upstreams {
            upstream.freed.tell();
        }
    }

    /// The configuration in force, resource by resource.
    pub fn resources(&self) -> Arc<Set> {
        self.present.load_full()
    }

    /// Where state is kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The configuration in force. A request takes it once.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The process's metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Keeps target addresses fresh. Runs until it is dropped.
    pub async fn keep_resolving(&self) {
        resolve::forever(self).await;
    }

    /// Probes targets as they are configured. Runs until it is dropped.
    pub async fn keep_probing(&self) {
        let events = self.events.clone();
        let turned = move |watched: &health::Watched, turn, why: Option<&str>| {
            probes::turned(&events, watched, turn, why);
        };
        health::watch(self.probed.subscribe(), turned).await;
    }
}
