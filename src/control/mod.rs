//! The one path by which configuration comes into force: read → compile → warm → swap.
//!
//! A failure anywhere leaves what was in force as it was.

mod books;
mod budgets;
mod keys;
mod observe;
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

use crate::config::Mistake;
use crate::health;
use crate::model::{Config, Name};
use crate::snapshot::{Registry, Snapshot, compile};
use crate::store::{Change, Store, StoreError};
use crate::telemetry::Metrics;

use self::budgets::Budgets;

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
    probed: watch::Sender<Arc<[health::Group]>>,
    ready: AtomicBool,
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
        budgets::restore(&*store, &*registry.offers.quota)?;
        let snapshot = compile(&state.config, state.revision, &registry, &metrics, None);
        resolve::all(&snapshot, patience).await;
        metrics.config_revision.set(1);
        metrics.config_reloads.with_label_values(&["ok"]).inc();
        let (probed, _) = watch::channel(probes::of(&snapshot));
        Ok(Control {
            current: ArcSwap::from_pointee(snapshot),
            metrics,
            registry,
            store,
            budgets: Budgets::default(),
            file,
            state: tokio::sync::Mutex::new(state),
            probed,
            ready: AtomicBool::new(false),
        })
    }

    /// Compiles what `state` says now, and brings it into force.
    fn swap(&self, state: &mut State) {
        let snapshot = self.compile(&state.config, state.revision);
        self.bring_into_force(snapshot);
    }

    /// Compiles a configuration that is to come into force next.
    fn compile(&self, config: &Config, revision: u64) -> Snapshot {
        let before = self.snapshot();
        compile(
            config,
            revision,
            &self.registry,
            &self.metrics,
            Some(&before),
        )
    }

    fn bring_into_force(&self, snapshot: Snapshot) {
        let _ = self.probed.send(probes::of(&snapshot));
        self.metrics.config_revision.set(snapshot.revision as i64);
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
}
