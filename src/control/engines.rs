//! What is known of engines and their caches, for whoever shows it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_sdk::llm::peek::{PeekError, peek};
use tollgate_sdk::llm::prompt::prompt;

use super::Control;
use super::status::id;
use crate::balance::{Ask, CachePlace, KvStatus, Prompted, Told, Usable};
use crate::snapshot::{Snapshot, Target, Upstream};
use crate::telemetry::EngineMetrics;
use crate::telemetry::Page;

/// What is older is stale: several readings have failed.
const STALE: Duration = Duration::from_secs(10);

/// What an engine told of itself last.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// What it told.
    pub told: Told,
    /// The models it listed last.
    pub models: Vec<Arc<str>>,
    /// Whether what it told is old.
    pub stale: bool,
}

impl EngineStatus {
    pub(super) fn of(target: &Target, now: Instant) -> Option<EngineStatus> {
        let signals = target.state.signals();
        let told = signals.told(now, Duration::MAX);
        let models = signals.listed().models();
        if told.is_none() && models.is_none() {
            return None;
        }
        Some(EngineStatus {
            models: models.map(|models| models.to_vec()).unwrap_or_default(),
            stale: signals.told(now, STALE).is_none(),
            told: told.unwrap_or_default(),
        })
    }
}

/// What a request would cost at each target of an upstream.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The prompt's length in tokens, as reckoned.
    pub tokens: f64,
    /// What a second of work that is done twice costs.
    pub price: f64,
    /// Every target with its terms.
    pub targets: Vec<TargetCost>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct TargetCost {
    /// Its id.
    pub id: String,
    /// Whether it may be chosen now.
    pub usable: bool,
    /// Tokens it computes in a second.
    pub rate: f64,
    /// The terms.
    pub terms: crate::balance::Terms,
}

/// Why nothing can be explained.
#[derive(Debug)]
pub enum Unexplained {
    /// No upstream, and no service with targets of its own, has this name.
    Unknown,
    /// Its policy does not reckon costs.
    OtherPolicy,
    /// The body is no request.
    Body(PeekError),
}

impl Control {
    /// What a request with this body would cost at each target of an upstream, or of a service with targets of its own.
    ///
    /// # Errors
    /// When there is nothing to explain.
    pub fn explain(&self, upstream: &str, body: &[u8]) -> Result<Explanation, Unexplained> {
        let snapshot = self.snapshot();
        let mut upstreams = snapshot.upstreams.iter();
        let upstream = upstreams.find(|known| &*known.name == upstream);
        let upstream = upstream.ok_or(Unexplained::Unknown)?;
        let policy = upstream.policy.cache_aware();
        let policy = policy.ok_or(Unexplained::OtherPolicy)?;
        let peek = peek(body).map_err(Unexplained::Body)?;
        let model = peek.model.as_ref().map_or("", |model| &model.value);
        let block = upstream.policy.reads_prompts().unwrap_or(1);
        let prompt = prompt(body, model, block);
        let now = Instant::now();
        let usable = |i: usize| usable(upstream, i, now);
        let ask = Ask {
            usable: &usable,
            key: None,
            prompt: Some(Prompted {
                prompt: &prompt,
                streamed: peek.stream == Some(true),
            }),
            patient: false,
        };
        let explained = policy.explain(&upstream.view, &ask);
        let targets = upstream.targets.iter().enumerate();
        let known = targets.zip(explained.terms.iter().zip(&explained.rates));
        let targets = known.map(|((i, target), (terms, rate))| TargetCost {
            id: id(target),
            usable: usable(i) != Usable::No && !target.state.at_limit(),
            rate: *rate,
            terms: *terms,
        });
        Ok(Explanation {
            tokens: explained.tokens,
            price: explained.price,
            targets: targets.collect(),
        })
    }
}

fn usable(upstream: &Upstream, index: usize, now: Instant) -> Usable {
    let Some(target) = upstream.targets.get(index) else {
        return Usable::No;
    };
    if !target.url.is_local() && !target.state.resolved() {
        return Usable::No;
    }
    let share = target.health.standing(now).share();
    share.map_or(Usable::No, Usable::Yes)
}

/// Writes what is known now. What is stale is left out.
pub(super) fn observe(snapshot: &Snapshot, metrics: &EngineMetrics, page: &mut Page) {
    let now = Instant::now();
    let told = |target: &Target| target.state.signals().told(now, STALE);
    type Figure = fn(&Told) -> Option<f64>;
    let figures: [(_, Figure); 3] = [
        (&metrics.running, |told| told.running),
        (&metrics.waiting, |told| told.waiting),
        (&metrics.kv_usage, |told| told.kv_usage),
    ];
    for (declared, figure) in figures {
        let mut gauges = page.gauges(declared);
        for (upstream, target) in targets(snapshot) {
            if let Some(value) = told(target).as_ref().and_then(figure) {
                gauges.add(&[&upstream.name, &target.label], value);
            }
        }
    }
    type Learned = fn(&CachePlace) -> Option<f64>;
    let learned: [(_, Learned); 2] = [
        (&metrics.pending, |place| Some(place.pending())),
        (&metrics.rate, CachePlace::rate),
    ];
    for (declared, figure) in learned {
        let mut gauges = page.gauges(declared);
        for upstream in &snapshot.upstreams {
            let places = upstream.policy.cache_aware().map(|policy| policy.places());
            let places = places.unwrap_or_default().iter();
            for (target, place) in upstream.targets.iter().zip(places) {
                if let Some(value) = figure(place) {
                    gauges.add(&[&upstream.name, &target.label], value);
                }
            }
        }
    }
    foretold(snapshot, metrics, page);
    listened(snapshot, metrics, page);
}

/// What the events of caches tell.
fn listened(snapshot: &Snapshot, metrics: &EngineMetrics, page: &mut Page) {
    let heard =
        || targets(snapshot).filter_map(|(u, t)| Some((u, t, t.state.signals().kv().status()?)));
    let mut gauges = page.gauges(&metrics.kv_held);
    for (upstream, target, told) in heard() {
        gauges.add(&[&upstream.name, &target.label], told.tokens as f64);
    }
    let figures: [(_, fn(&KvStatus) -> u64); 2] = [
        (&metrics.kv_events, |told| told.events),
        (&metrics.kv_gaps, |told| told.gaps),
    ];
    for (declared, figure) in figures {
        let mut counters = page.counters(declared);
        for (upstream, target, told) in heard() {
            counters.add(&[&upstream.name, &target.label], figure(&told) as f64);
        }
    }
}

fn foretold(snapshot: &Snapshot, metrics: &EngineMetrics, page: &mut Page) {
    let policies = || {
        let upstreams = snapshot.upstreams.iter();
        upstreams.filter_map(|u| Some((&u.name, u.policy.cache_aware()?.caches().foretold())))
    };
    let figures: [(_, fn(&crate::balance::Foretold) -> u64); 3] = [
        (&metrics.expected, |told| told.expected),
        (&metrics.reported, |told| told.reported),
        (&metrics.error, |told| told.error),
    ];
    for (declared, figure) in figures {
        let mut counters = page.counters(declared);
        for (name, told) in policies() {
            counters.add(&[name], figure(&told) as f64);
        }
    }
}

fn targets(snapshot: &Snapshot) -> impl Iterator<Item = (&Upstream, &Target)> {
    let upstreams = snapshot.upstreams.iter();
    upstreams.flat_map(|upstream| upstream.targets.iter().map(move |t| (&**upstream, t)))
}
