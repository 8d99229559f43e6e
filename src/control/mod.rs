//! The one path by which configuration comes into force: read → compile → warm → swap.
//!
//! A failure anywhere leaves what was in force as it was.

mod books;
mod budgets;
mod handover;
mod keys;
mod probes;
mod reload;
mod resolve;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tollgate_sdk::plugin::Http;

use crate::auth::Authority;
use crate::config::Mistake;
use crate::health::{self, BreakerState};
use crate::model::{Config, Name};
use crate::snapshot::{Registry, Snapshot, compile};
use crate::store::{Change, Store, StoreError};
use crate::telemetry::Metrics;

use self::budgets::Budgets;
use self::handover::Handover;

pub use handover::{Asked, Counted, UpgradeError, Upgraded, inherit};
pub use keys::Issued;
pub use reload::{ReloadError, Reloaded};

/// Holds the configuration in force and everything that outlives it.
pub struct Control {
    current: ArcSwap<Snapshot>,
    metrics: Arc<Metrics>,
    registry: Registry,
    store: Arc<dyn Store>,
    budgets: Budgets,
    /// Where the configuration was read from.
    file: Option<PathBuf>,
    /// What was compiled last. Held while a change is made, so that there is one at a time.
    state: tokio::sync::Mutex<State>,
    /// The targets to be probed.
    probed: watch::Sender<Arc<[health::Watched]>>,
    ready: AtomicBool,
    handover: Handover,
}

/// The configuration as resources.
struct State {
    config: Config,
    /// Keys that stand in the file.
    of_file: HashSet<Name>,
    /// Keys of which it was told that they end soon, and when.
    told: HashSet<(Name, SystemTime)>,
    /// Keys that could not be rotated by themselves, and when that was.
    failed: HashMap<Name, Instant>,
    revision: u64,
}

impl State {
    /// What a file says.
    fn of(config: Config, revision: u64) -> State {
        State {
            of_file: config.keys.iter().map(|key| key.name.clone()).collect(),
            config,
            told: HashSet::new(),
            failed: HashMap::new(),
            revision,
        }
    }
}

/// Why a change was not made.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChangeError {
    /// What was given is wrong.
    Invalid(Vec<Mistake>),
    /// There is one of this name already.
    Exists(Name),
    /// There is none of this name.
    Missing(String),
    /// It is the configuration file's.
    OfFile(Name),
    /// It could not be stored.
    Store(StoreError),
    /// Its secret could not be put where its users look.
    Unwritten(std::io::Error),
    /// Another process is about to take over: it will make changes, in a moment.
    HandingOver,
    /// The change broke down.
    Broken,
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
        let mut state = State::of(config.clone(), 1);
        state.take_stored(store.list("key")?);
        let budgets = Budgets::default();
        budgets.catch_up(&*store, &*registry.offers.quota)?;
        let snapshot = compile(&state.config, state.revision, &registry, &metrics);
        resolve::all(&snapshot, patience).await;
        metrics.config_revision.set(1);
        metrics.config_reloads.with_label_values(&["ok"]).inc();
        let (probed, _) = watch::channel(probes::of(&snapshot));
        Ok(Control {
            current: ArcSwap::from_pointee(snapshot),
            metrics,
            registry,
            store,
            budgets,
            file,
            state: tokio::sync::Mutex::new(state),
            probed,
            ready: AtomicBool::new(false),
            handover: Handover::default(),
        })
    }

    /// Compiles what `state` says now, and brings it into force.
    fn swap(&self, state: &mut State) {
        let snapshot = compile(&state.config, state.revision, &self.registry, &self.metrics);
        let _ = self.probed.send(probes::of(&snapshot));
        self.metrics.config_revision.set(state.revision as i64);
        self.current.store(Arc::new(snapshot));
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

    /// Whether requests are taken: listeners are up and nothing is draining.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Says that requests are taken now, or no longer.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Keeps target addresses fresh. Runs until it is dropped.
    pub async fn keep_resolving(&self) {
        resolve::forever(self).await;
    }

    /// Probes targets as they are configured. Runs until it is dropped.
    pub async fn keep_probing(&self) {
        health::watch(self.probed.subscribe(), probes::turned).await;
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
