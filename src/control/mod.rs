//! The one path by which configuration comes into force: read → checked → stored → compiled → warmed → swapped → announced.
//!
//! A failure anywhere leaves what was in force as it was.

mod books;
mod budgets;
mod change;
mod conditions;
pub mod events;
mod keys;
mod probes;
mod reload;
mod resolve;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tollgate_sdk::plugin::Http;

use crate::auth::Authority;
use crate::config::{Set, take_kept};
use crate::health::{self, BreakerState};
use crate::model::Config;
use crate::snapshot::{Registry, Snapshot, compile};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

use self::budgets::Budgets;
use self::keys::Tended;

use self::conditions::Book;
use self::events::Events;
pub use change::{Announced, ChangeError, Changed, Edit, Expected, Source, What};

pub use conditions::{Condition, ConditionKind, GatewayState, LastReload};
pub use keys::Issued;
pub use reload::{ReloadError, Reloaded};
pub use status::{GatewayStatus, QueueStatus, ServiceStatus, Status, TargetStatus};

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
    probed: watch::Sender<Arc<[health::Watched]>>,
    /// What happens.
    events: Arc<Events>,
    /// What is remembered of gateways' conditions.
    book: Book,
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
        let registry = Registry::new(http);
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
        budgets::restore(&*store, &*registry.offers.quota)?;
        let snapshot = compile(set.config(), revision, &registry, &metrics);
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
            budgets: Budgets::default(),
            file,
            tended: tokio::sync::Mutex::default(),
            probed,
            events: Arc::default(),
            book: Book::default(),
        })
    }

    /// Compiles a set, lets the names of its new targets be looked up, and brings it into force.
    async fn bring(&self, set: Set, patience: Duration) {
        let snapshot = compile(set.config(), set.revision, &self.registry, &self.metrics);
        resolve::new(&snapshot, patience).await;
        let _ = self.probed.send(probes::of(&snapshot));
        self.metrics.config_revision.set(set.revision as i64);
        self.present.store(Arc::new(set));
        self.current.store(Arc::new(snapshot));
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

    fn observe_keys(&self, snapshot: &Snapshot) {
        let now = SystemTime::now();
        self.metrics.key_expiry.reset();
        for gateway in &snapshot.gateways {
            let keys = gateway.authority.as_ref().and_then(Authority::keys);
            for key in keys.iter().flat_map(|keys| keys.iter()) {
                let Some(end) = key.expires_at.filter(|_| !key.replaced) else {
                    continue;
                };
                let left = match end.duration_since(now) {
                    Ok(left) => left.as_secs_f64(),
                    Err(over) => -over.duration().as_secs_f64(),
                };
                let labels = &[&*gateway.name, &*key.principal.name];
                self.metrics.key_expiry.with_label_values(labels).set(left);
            }
        }
    }

    /// Brings the gauges that are read from live state up to date, before a scrape.
    pub fn observe(&self) {
        let kept = self.store.health();
        self.metrics.store_up.set(i64::from(kept.ok));
        self.metrics.usage_buffered.set(kept.buffered as i64);
        let lost = kept
            .dropped
            .saturating_sub(self.metrics.usage_dropped.get());
        self.metrics.usage_dropped.inc_by(lost);
        let now = Instant::now();
        let metrics = &self.metrics;
        metrics.target_up.reset();
        metrics.target_in_flight.reset();
        metrics.breaker_state.reset();
        let snapshot = self.snapshot();
        for upstream in &snapshot.upstreams {
            for target in &upstream.targets {
                let labels = &[&*upstream.name, &*target.label];
                let reachable = target.url.is_local() || target.state.resolved();
                let takes = reachable && target.health.standing(now).share().is_some();
                metrics
                    .target_up
                    .with_label_values(labels)
                    .set(i64::from(takes));
                let in_flight = target.state.in_flight() as i64;
                metrics
                    .target_in_flight
                    .with_label_values(labels)
                    .set(in_flight);
                let breaker = match target.health.breaker(now) {
                    BreakerState::Closed => 0,
                    BreakerState::HalfOpen => 1,
                    BreakerState::Open => 2,
                };
                metrics.breaker_state.with_label_values(labels).set(breaker);
            }
        }
        self.observe_keys(&snapshot);
        for service in snapshot
            .services
            .iter()
            .filter(|service| service.queue.is_some())
        {
            let depth = service.state.queue.depth() + service.state.room.depth();
            metrics
                .queue_depth
                .with_label_values(&[&*service.name])
                .set(depth as i64);
        }
    }
}
