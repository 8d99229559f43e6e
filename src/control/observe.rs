//! What a scrape is told of live state: read when it is asked for, and kept nowhere.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tollgate_sdk::document::FromNode;

use super::{CertificateStatus, Control, Shown, engines, status};
use crate::auth::Authority;
use crate::health::BreakerState;
use crate::snapshot::{Service, Snapshot, Target};
use crate::telemetry::{Metrics, Page};

impl Control {
    fn certificate_ends(&self, page: &mut Page) {
        let now = jiff::Timestamp::now().as_second();
        let mut gauges = page.gauges(&self.metrics.certificate_expiry);
        for CertificateStatus { whose, leaf, .. } in self.certificates() {
            let Some(leaf) = leaf else { continue };
            let labels = match &whose {
                Shown::Gateway(name) => [&**name, ""],
                Shown::Listener(name) => ["", &**name],
            };
            gauges.add(&labels, (leaf.not_after - now) as f64);
        }
    }

    /// All metrics in Prometheus' text format.
    pub fn metrics_page(&self) -> String {
        let kept = self.store.health();
        let metrics = &self.metrics;
        metrics.store_up.set(i64::from(kept.ok));
        metrics.usage_buffered.set(kept.buffered as i64);
        let lost = kept.dropped.saturating_sub(metrics.usage_dropped.get());
        metrics.usage_dropped.inc_by(lost);
        let snapshot = self.snapshot();
        let mut page = metrics.page();
        targets(&snapshot, metrics, &mut page);
        keys(&snapshot, metrics, &mut page);
        queues(&snapshot, metrics, &mut page);
        replicas(&snapshot, metrics, &mut page);
        roles(&snapshot, metrics, &mut page);
        self.certificate_ends(&mut page);
        engines::observe(&snapshot, &metrics.engines, &mut page);
        page.finish()
    }
}

fn targets(snapshot: &Snapshot, metrics: &Metrics, page: &mut Page) {
    let now = Instant::now();
    let takes = |target: &Target| {
        let reachable = target.url.is_local() || target.state.resolved();
        f64::from(reachable && target.health.standing(now).share().is_some())
    };
    let breaker = |target: &Target| match target.health.breaker(now) {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    };
    let in_flight = |target: &Target| target.state.in_flight() as f64;
    let gauges: [(_, &dyn Fn(&Target) -> f64); 3] = [
        (&metrics.target_up, &takes),
        (&metrics.target_in_flight, &in_flight),
        (&metrics.breaker_state, &breaker),
    ];
    let named = snapshot.upstreams.iter().flat_map(|upstream| {
        let own = upstream.targets.iter();
        own.map(|target| ([&*upstream.name, &*target.label], target))
    });
    // A service with targets of its own may have an upstream's name, and a target may be given twice: then they are one.
    let mut told = HashSet::new();
    let named: Vec<_> = named.filter(|(labels, _)| told.insert(*labels)).collect();
    for (declared, value) in gauges {
        let mut gauges = page.gauges(declared);
        for (labels, target) in &named {
            gauges.add(labels, value(target));
        }
    }
}

/// How long keys last, but for secrets that were replaced.
fn keys(snapshot: &Snapshot, metrics: &Metrics, page: &mut Page) {
    let now = SystemTime::now();
    let mut gauges = page.gauges(&metrics.key_expiry);
    for gateway in &snapshot.gateways {
        let keys = gateway.authority.as_deref().and_then(Authority::keys);
        for key in keys.iter().flat_map(|keys| keys.iter()) {
            let Some(end) = key.expires_at.filter(|_| !key.replaced) else {
                continue;
            };
            let left = match end.duration_since(now) {
                Ok(left) => left.as_secs_f64(),
                Err(over) => -over.duration().as_secs_f64(),
            };
            gauges.add(&[&gateway.name, &key.principal.name], left);
        }
    }
}

/// How many there should be and are, of services that are scaled.
fn replicas(snapshot: &Snapshot, metrics: &Metrics, page: &mut Page) {
    let scaled = snapshot.services.iter().filter(|s| s.scaling().is_some());
    let scaled = scaled.filter_map(|s| Some((&*s.name, s.state.scaled.load_full()?)));
    let scaled: Vec<_> = scaled.collect();
    let mut desired = page.gauges(&metrics.desired_replicas);
    for (name, stands) in &scaled {
        desired.add(&[name], f64::from(stands.desired));
    }
    let mut replicas = page.gauges(&metrics.replicas);
    for (name, stands) in &scaled {
        let states = [
            ("ready", stands.ready),
            ("starting", stands.starting),
            ("draining", stands.draining),
        ];
        for (state, count) in states {
            replicas.add(&[name, state], f64::from(count));
        }
    }
}

/// What targets of each role have to do, of upstreams that split requests.
fn roles(snapshot: &Snapshot, metrics: &Metrics, page: &mut Page) {
    let now = Instant::now();
    let mut gauges = page.gauges(&metrics.role_in_flight);
    for upstream in &snapshot.upstreams {
        for role in status::roles(upstream, now) {
            let word = role.role.value();
            let labels = [&*upstream.name, word.as_str().unwrap_or_default()];
            gauges.add(&labels, role.in_flight as f64);
        }
    }
}

fn queues(snapshot: &Snapshot, metrics: &Metrics, page: &mut Page) {
    let mut gauges = page.gauges(&metrics.queue_depth);
    let waits = |s: &&Arc<Service>| s.queue.is_some() || s.scaling().is_some();
    for service in snapshot.services.iter().filter(waits) {
        let depth = service.state.waiting();
        gauges.add(&[&service.name], depth as f64);
    }
}
