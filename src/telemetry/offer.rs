//! What the hot path counts with: the metrics of one service as one gateway offers it.

use std::sync::{Arc, OnceLock};

use prometheus::{Histogram, IntCounter, IntGauge};

use super::metrics::{COMMON, Metrics, status_label};

/// The handles of one service as one gateway offers it.
pub struct OfferMetrics {
    metrics: Arc<Metrics>,
    gateway: Arc<str>,
    service: Arc<str>,
    handles: OnceLock<Handles>,
    codes: [OnceLock<IntCounter>; COMMON.len()],
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

impl OfferMetrics {
    /// Resolves nothing yet: a configuration may hold ten thousand services of which few are used.
    pub fn new(metrics: Arc<Metrics>, gateway: Arc<str>, service: Arc<str>) -> OfferMetrics {
        OfferMetrics {
            metrics,
            gateway,
            service,
            handles: OnceLock::new(),
            codes: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    /// The handles, resolved at the first call.
    pub fn handles(&self) -> &Handles {
        self.handles.get_or_init(|| {
            let m = &self.metrics;
            let offer = &[&*self.gateway, &*self.service];
            let tokens = |direction| {
                m.tokens
                    .with_label_values(&[&*self.gateway, &*self.service, direction])
            };
            Handles {
                duration: m.duration.with_label_values(offer),
                overhead: m.overhead.with_label_values(offer),
                first_token: m.first_token.with_label_values(offer),
                inter_token: m.inter_token.with_label_values(offer),
                input: tokens("input"),
                cached: tokens("cached"),
                output: tokens("output"),
                in_flight: m.in_flight.with_label_values(&[&*self.service]),
            }
        })
    }

    /// Counts a retry. `reason` is one of a closed set of words.
    pub fn retried(&self, reason: &str) {
        self.metrics
            .retries
            .with_label_values(&[&*self.service, reason])
            .inc();
    }

    /// Counts that a request is handed to another service.
    pub fn fell_back(&self, to: &str, reason: &str) {
        self.metrics
            .fallbacks
            .with_label_values(&[&*self.service, to, reason])
            .inc();
    }

    /// Counts a request that went to a target nobody trusts.
    pub fn panicked(&self) {
        self.metrics
            .panics
            .with_label_values(&[&*self.service])
            .inc();
    }

    /// Notes how long a request waited in the queue.
    pub fn waited(&self, wait: std::time::Duration) {
        let wait = wait.as_secs_f64();
        self.metrics
            .queue_wait
            .with_label_values(&[&*self.service])
            .observe(wait);
    }

    /// Counts one answered request.
    pub fn answered(&self, status: u16) {
        let resolve = || {
            let code = status_label(status);
            self.metrics.requests.with_label_values(&[
                &*self.gateway,
                &*self.service,
                code.as_str(),
            ])
        };
        match COMMON
            .iter()
            .position(|code| *code == status)
            .and_then(|i| self.codes.get(i))
        {
            Some(slot) => slot.get_or_init(resolve).inc(),
            None => resolve().inc(),
        }
    }
}
