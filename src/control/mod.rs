//! The one path by which configuration comes into force: read → compile → warm → swap.
//!
//! A failure anywhere leaves what was in force as it was.

mod resolve;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::model::Config;
use crate::snapshot::{Registry, Snapshot, compile};
use crate::telemetry::Metrics;

/// Holds the configuration in force and everything that outlives it.
pub struct Control {
    current: ArcSwap<Snapshot>,
    metrics: Arc<Metrics>,
    ready: AtomicBool,
}

impl Control {
    /// Compiles a first configuration and resolves its targets' names, each at most for `patience`. A name that
    /// does not resolve is looked up again in the background; until then its target takes no requests.
    pub async fn start(config: &Config, metrics: Arc<Metrics>, patience: Duration) -> Control {
        let registry = Registry::default();
        let snapshot = compile(config, 1, &registry, &metrics);
        resolve::all(&snapshot, patience).await;
        metrics.config_revision.set(1);
        metrics.config_reloads.with_label_values(&["ok"]).inc();
        Control {
            current: ArcSwap::from_pointee(snapshot),
            metrics,
            ready: AtomicBool::new(false),
        }
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

    /// Brings the gauges that are read from live state up to date, before a scrape.
    pub fn observe(&self) {
        self.metrics.target_up.reset();
        self.metrics.target_in_flight.reset();
        for upstream in &self.snapshot().upstreams {
            for target in &upstream.targets {
                let labels = &[&*upstream.name, &*target.label];
                let takes = target.url.is_local() || target.state.resolved();
                self.metrics
                    .target_up
                    .with_label_values(labels)
                    .set(i64::from(takes));
                let in_flight = target.state.in_flight() as i64;
                self.metrics
                    .target_in_flight
                    .with_label_values(labels)
                    .set(in_flight);
            }
        }
    }
}
