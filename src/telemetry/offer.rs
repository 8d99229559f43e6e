//! What requests are counted with: the metrics of a gateway, of a service, and of a service as one gateway offers it.
//!
//! Each exists once for its names, whatever the number of revisions that hold it, and takes its series with it when the last of them is gone. Nothing is
//! resolved before it is first used: a configuration may hold ten thousand services of which few are asked.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use prometheus::{Histogram, IntCounter, IntGauge};

use super::metrics::{COMMON, Metrics};
use super::owned::{Counters, Owned, Owner, locked};

/// The metrics of one service as one gateway offers it.
pub struct OfferMetrics {
    metrics: Arc<Metrics>,
    gateway: Arc<str>,
    name: Arc<str>,
    service: Owned<ServiceMetrics>,
    handles: OnceLock<Handles>,
    legs: OnceLock<[Histogram; 2]>,
    /// Those of [`COMMON`], in its order.
    codes: [OnceLock<IntCounter>; COMMON.len()],
    all_codes: Counters<u16>,
}

/// Resolved handles.
pub struct Handles {
    /// See [`Metrics`]; seconds.
    pub duration: Histogram,
    /// Seconds.
    pub overhead: Histogram,
    /// Seconds.
    pub first_token: Histogram,
    /// Seconds.
    pub inter_token: Histogram,
    /// Tokens of prompts, cached ones included.
    pub input: IntCounter,
    /// Tokens of prompts that an engine found in its cache.
    pub cached: IntCounter,
    /// Tokens generated.
    pub output: IntCounter,
    /// Requests of the service being served, all gateways together.
    pub in_flight: IntGauge,
}

const DIRECTIONS: [&str; 3] = ["input", "cached", "output"];

impl OfferMetrics {
    /// Those of this service in this gateway: the same as in the revisions before, if any of them is still held.
    pub fn of(metrics: &Arc<Metrics>, gateway: &Arc<str>, service: &Arc<str>) -> Owned<Self> {
        let identity = (gateway.clone(), service.clone());
        metrics.offers.hold(identity, || Self {
            metrics: metrics.clone(),
            gateway: gateway.clone(),
            name: service.clone(),
            service: ServiceMetrics::of(metrics, service),
            handles: OnceLock::new(),
            legs: OnceLock::new(),
            codes: std::array::from_fn(|_| OnceLock::new()),
            all_codes: Counters::new(&metrics.requests, &[gateway, service]),
        })
    }

    /// The handles, resolved at the first call.
    pub fn handles(&self) -> &Handles {
        self.handles.get_or_init(|| {
            let m = &self.metrics;
            let offer = &[&*self.gateway, &*self.name];
            let [input, cached, output] = DIRECTIONS.map(|direction| {
                let labels = &[&*self.gateway, &*self.name, direction];
                m.tokens.with_label_values(labels)
            });
            Handles {
                duration: m.duration.with_label_values(offer),
                overhead: m.overhead.with_label_values(offer),
                first_token: m.first_token.with_label_values(offer),
                inter_token: m.inter_token.with_label_values(offer),
                input,
                cached,
                output,
                in_flight: self.service.in_flight().clone(),
            }
        })
    }

    /// Counts a retry. `reason` is one of a closed set of words.
    pub fn retried(&self, reason: &'static str) {
        self.service.retries.of(reason).inc();
    }

    /// Counts that a request is handed to another service.
    pub fn fell_back(&self, to: &OfferMetrics, reason: &'static str) {
        let fallback = [self.name.clone(), to.name.clone(), reason.into()];
        let [from, into, why] = &fallback;
        let labels = &[&**from, &**into, &**why];
        self.metrics.fallbacks.with_label_values(labels).inc();
        // It tells of two services, and is gone with either.
        let mut known = locked(&self.metrics.fallen_back);
        for name in [from, into] {
            let own = known.entry(name.clone()).or_default();
            own.insert(fallback.clone());
        }
    }

    /// Counts a copy of a request. `result` is one of a closed set of words.
    pub fn copied(&self, result: &'static str) {
        self.service.copies.of(result).inc();
    }

    /// How long prefill takes, and decode's first byte; seconds. Resolved at the first call.
    pub fn legs(&self) -> &[Histogram; 2] {
        self.legs.get_or_init(|| {
            let offer = &[&*self.gateway, &*self.name];
            [&self.metrics.prefill, &self.metrics.decode].map(|legs| legs.with_label_values(offer))
        })
    }

    /// Counts a request that is not split although its upstream has prefill and decode apart. `reason` is one of a closed set of words.
    pub fn undivided(&self, reason: &'static str) {
        self.service.undivided.of(reason).inc();
    }

    /// Counts a request that went to a target nobody trusts.
    pub fn panicked(&self) {
        let labels = &[&*self.name];
        let resolve = || self.metrics.panics.with_label_values(labels);
        self.service.panics.get_or_init(resolve).inc();
    }

    /// Notes how long a request waited in the queue.
    pub fn waited(&self, wait: std::time::Duration) {
        let labels = &[&*self.name];
        let resolve = || self.metrics.queue_wait.with_label_values(labels);
        let waits = self.service.waits.get_or_init(resolve);
        waits.observe(wait.as_secs_f64());
    }

    /// Counts one answered request.
    pub fn answered(&self, status: u16) {
        let place = COMMON.iter().position(|code| *code == status);
        match place.and_then(|place| self.codes.get(place)) {
            Some(slot) => slot.get_or_init(|| self.all_codes.of(status)).inc(),
            None => self.all_codes.of(status).inc(),
        }
    }
}

impl Owner for OfferMetrics {
    fn withdraw(&self) {
        self.all_codes.withdraw();
        if self.legs.get().is_some() {
            let offer = &[&*self.gateway, &*self.name];
            for seconds in [&self.metrics.prefill, &self.metrics.decode] {
                let _ = seconds.remove_label_values(offer);
            }
        }
        if self.handles.get().is_none() {
            return;
        }
        let m = &self.metrics;
        let offer = &[&*self.gateway, &*self.name];
        for seconds in [&m.duration, &m.overhead, &m.first_token, &m.inter_token] {
            let _ = seconds.remove_label_values(offer);
        }
        for direction in DIRECTIONS {
            let labels = &[&*self.gateway, &*self.name, direction];
            let _ = m.tokens.remove_label_values(labels);
        }
    }
}

/// The metrics of a service, all gateways together.
pub(super) struct ServiceMetrics {
    metrics: Arc<Metrics>,
    name: Arc<str>,
    in_flight: OnceLock<IntGauge>,
    waits: OnceLock<Histogram>,
    panics: OnceLock<IntCounter>,
    retries: Counters<&'static str>,
    copies: Counters<&'static str>,
    undivided: Counters<&'static str>,
}

/// What is counted of fallbacks: from, to and why, by each of the two services.
pub(super) type FallenBack = HashMap<Arc<str>, BTreeSet<[Arc<str>; 3]>>;

impl ServiceMetrics {
    fn of(metrics: &Arc<Metrics>, name: &Arc<str>) -> Owned<Self> {
        let identity = ("".into(), name.clone());
        metrics.services.hold(identity, || Self {
            name: name.clone(),
            in_flight: OnceLock::new(),
            waits: OnceLock::new(),
            panics: OnceLock::new(),
            retries: Counters::new(&metrics.retries, &[name]),
            copies: Counters::new(&metrics.copies, &[name]),
            undivided: Counters::new(&metrics.undivided, &[name]),
            metrics: metrics.clone(),
        })
    }

    fn in_flight(&self) -> &IntGauge {
        let resolve = || self.metrics.in_flight.with_label_values(&[&*self.name]);
        self.in_flight.get_or_init(resolve)
    }
}

impl Owner for ServiceMetrics {
    fn withdraw(&self) {
        let (m, own) = (&self.metrics, &[&*self.name]);
        let _ = m.in_flight.remove_label_values(own);
        let _ = m.queue_wait.remove_label_values(own);
        let _ = m.panics.remove_label_values(own);
        self.retries.withdraw();
        self.copies.withdraw();
        self.undivided.withdraw();
        let mut known = locked(&m.fallen_back);
        for fallback in known.remove(&self.name).unwrap_or_default() {
            let [from, to, why] = &fallback;
            let _ = m.fallbacks.remove_label_values(&[&**from, &**to, &**why]);
            let other = if *from == self.name { to } else { from };
            if let Some(own) = known.get_mut(other) {
                own.remove(&fallback);
            }
        }
    }
}

/// What is counted of a gateway's requests that reach no service.
pub struct GatewayMetrics {
    rejections: Counters<&'static str>,
    unserved: Counters<u16>,
}

impl GatewayMetrics {
    /// Those of the gateway of this name; of no gateway at all if it is empty.
    pub fn of(metrics: &Arc<Metrics>, name: &Arc<str>) -> Owned<Self> {
        let (none, identity) = ("".into(), (name.clone(), "".into()));
        metrics.gateways.hold(identity, || Self {
            rejections: Counters::new(&metrics.rejections, &[name]),
            unserved: Counters::new(&metrics.requests, &[name, &none]),
        })
    }

    /// Counts an answer of ours. `code` is one of the closed set of error codes.
    pub fn rejected(&self, code: &'static str) {
        self.rejections.of(code).inc();
    }

    /// Counts a request that reached no service.
    pub fn unserved(&self, status: u16) {
        self.unserved.of(status).inc();
    }
}

impl Owner for GatewayMetrics {
    fn withdraw(&self) {
        self.rejections.withdraw();
        self.unserved.withdraw();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn names() -> (Arc<str>, Arc<str>) {
        ("main".into(), "qwen".into())
    }

    #[test]
    fn series_go_with_the_last_who_holds_them_and_begin_anew() {
        let metrics = Arc::new(Metrics::new());
        let (gateway, service) = names();
        let count = || {
            let offer = OfferMetrics::of(&metrics, &gateway, &service);
            let other = OfferMetrics::of(&metrics, &gateway, &"other".into());
            let own = GatewayMetrics::of(&metrics, &gateway);
            offer.answered(200);
            offer.answered(418);
            offer.handles().input.inc();
            offer.handles().in_flight.set(1);
            offer.retried("connect");
            offer.copied("answered");
            offer.panicked();
            offer.legs()[0].observe(1.0);
            offer.undivided("short");
            offer.waited(std::time::Duration::from_secs(1));
            offer.fell_back(&other, "429");
            other.answered(200);
            own.rejected("model_not_found");
            own.unserved(404);
            (offer, other, own)
        };
        let nothing = metrics.render();
        let (offer, other, own) = count();
        let again = OfferMetrics::of(&metrics, &gateway, &service);
        again.answered(200);
        drop(offer);
        let text = metrics.render();
        let counted = "tollgate_requests_total{code=\"200\",gateway=\"main\",service=\"qwen\"} 2";
        assert!(text.contains(counted), "{text}");
        drop(again);
        let text = metrics.render();
        assert!(!text.contains("qwen"), "{text}");
        assert!(text.contains("service=\"other\"} 1"), "{text}");
        drop((other, own));
        let told = |text: &str| text.lines().filter(|l| l.contains('{')).count();
        assert_eq!(told(&metrics.render()), told(&nothing));
        let _held = count();
        assert!(metrics.render().contains(&counted.replace("} 2", "} 1")));
        assert_eq!(metrics.offers.len(), 2);
    }

    #[test]
    fn a_fallback_is_gone_with_the_service_it_led_to() {
        let metrics = Arc::new(Metrics::new());
        let (gateway, service) = names();
        let from = OfferMetrics::of(&metrics, &gateway, &service);
        for name in ["one", "two"] {
            let to = OfferMetrics::of(&metrics, &gateway, &name.into());
            from.fell_back(&to, "429");
            from.fell_back(&to, "429");
            let counted = format!("from=\"qwen\",reason=\"429\",to=\"{name}\"}} 2");
            assert!(metrics.render().contains(&counted));
        }
        assert!(!metrics.render().contains("fallbacks_total{"));
        assert!(
            locked(&metrics.fallen_back)
                .values()
                .all(BTreeSet::is_empty)
        );
    }

    /// Some give an owner up while others take it: nobody counts with series that are no longer shown.
    #[test]
    fn nobody_loses_series_that_are_still_held() {
        let metrics = Arc::new(Metrics::new());
        let (gateway, service) = names();
        let start = Barrier::new(4);
        let lasting = std::thread::scope(|threads| {
            let churn = || {
                start.wait();
                for _ in 0..5_000 {
                    let offer = OfferMetrics::of(&metrics, &gateway, &service);
                    offer.answered(200);
                    offer.answered(299);
                }
            };
            for _ in 0..3 {
                threads.spawn(churn);
            }
            start.wait();
            OfferMetrics::of(&metrics, &gateway, &service)
        });
        let before = lasting.all_codes.of(299).get();
        lasting.answered(299);
        let told = format!(
            "code=\"299\",gateway=\"main\",service=\"qwen\"}} {}",
            before + 1
        );
        assert!(metrics.render().contains(&told), "{}", metrics.render());
        drop(lasting);
        assert!(!metrics.render().contains("qwen"));
    }
}
