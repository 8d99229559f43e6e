//! Every metric, declared once, and the handles the hot path uses.
//!
//! Label values come from configuration only, never from clients. A request looks nothing up by label: an
//! [`OfferMetrics`] (one service as one gateway offers it) resolves its handles on first use and keeps them. What bears names of gateways and services is
//! counted only through its owner in `offer.rs`, which takes it away again.

mod shown;

use std::sync::{Arc, Mutex};

use prometheus::{
    Gauge, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::declare::{
    Declarations, Declared, add, counter, counters, declared, gauge, gauges, histograms, numbers,
    times,
};
use super::engines::EngineMetrics;
use super::offer::{FallenBack, GatewayMetrics, OfferMetrics, ServiceMetrics};
use super::owned::Owners;
use super::times::TimesVec;

/// Statuses that have a slot of their own; others are looked up when they occur.
pub(super) const COMMON: [u16; 24] = [
    200, 201, 202, 204, 206, 301, 302, 304, 400, 401, 403, 404, 405, 408, 409, 413, 422, 429, 499,
    500, 502, 503, 504, 101,
];

const DURATION: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0, 600.0,
];
const OVERHEAD: &[f64] = &[
    0.000_025, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25,
];
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 25.0, 60.0, 120.0,
];
const INTER_TOKEN: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    declared: Vec<Declared>,
    pub(super) offers: Arc<Owners<OfferMetrics>>,
    pub(super) services: Arc<Owners<ServiceMetrics>>,
    pub(super) gateways: Arc<Owners<GatewayMetrics>>,
    pub(super) requests: IntCounterVec,
    pub(super) duration: HistogramVec,
    pub(super) overhead: HistogramVec,
    pub(super) first_token: HistogramVec,
    pub(super) inter_token: HistogramVec,
    pub(super) tokens: IntCounterVec,
    pub(super) in_flight: IntGaugeVec,
    pub(super) rejections: IntCounterVec,
    pub(super) retries: IntCounterVec,
    pub(super) fallbacks: IntCounterVec,
    pub(super) fallen_back: Mutex<FallenBack>,
    pub(super) queue_wait: HistogramVec,
    pub(super) panics: IntCounterVec,
    pub(super) prefill: HistogramVec,
    pub(super) decode: HistogramVec,
    pub(super) undivided: IntCounterVec,
    /// Requests waiting in a service's queue. This one and the others that a [`Page`] shows are declared here and hold nothing.
    pub queue_depth: IntGaugeVec,
    /// How many replicas a service should have.
    pub desired_replicas: IntGaugeVec,
    /// How many it has, by `state`.
    pub replicas: IntGaugeVec,
    /// Streams on which KEDA is told whether a service is active.
    pub scaler_streams: IntGauge,
    /// A target's breaker: 0 closed, 1 half open, 2 open.
    pub breaker_state: IntGaugeVec,
    /// Clients that left before their answer was complete.
    pub client_disconnects: IntCounter,
    /// Whether a target takes requests: 1 or 0.
    pub target_up: IntGaugeVec,
    /// Requests at a target now.
    pub target_in_flight: IntGaugeVec,
    /// Requests at the targets of one role.
    pub role_in_flight: IntGaugeVec,
    /// Number of the configuration in force.
    pub config_revision: IntGauge,
    /// Attempts to bring a configuration into force, by `result` (`ok`, `refused`).
    pub config_reloads: IntCounterVec,
    /// Access-log lines dropped because the writer could not follow.
    pub access_dropped: IntCounter,
    /// Bytes of request bodies held in memory now.
    pub body_memory: IntGauge,
    /// How long keys are still good, in seconds.
    pub key_expiry: GaugeVec,
    /// How long certificates are still good, in seconds.
    pub certificate_expiry: GaugeVec,
    /// Orders of certificates, by `result` (`ok`, `failed`, `rate_limited`).
    pub acme_orders: IntCounterVec,
    /// Connections of clients.
    pub connections: IntGauge,
    /// Those that were turned away.
    pub connections_refused: IntCounterVec,
    /// What TLS handshakes with clients came to.
    pub handshakes: IntCounterVec,
    /// How long plugins took.
    pub plugin_seconds: TimesVec,
    /// How often they broke down.
    pub plugin_errors: IntCounterVec,
    /// Whether what is to be kept can be written: 1 or 0.
    pub store_up: IntGauge,
    /// Usage records that wait to be written.
    pub usage_buffered: IntGauge,
    /// Usage records that were lost because too many waited.
    pub usage_dropped: IntCounter,
    /// How far a key's last hour left its usual: the robust z-score, 0 when it did not.
    pub key_anomaly: GaugeVec,
    /// Copies of requests sent to other services, by result and service; none if the gateway does not offer it.
    pub(super) copies: IntCounterVec,
    /// Exchanges whose `post_response` stage was left out, because too many were in it.
    pub plugins_dropped: IntCounter,
    /// Engines and their caches.
    pub engines: EngineMetrics,
    /// Unix time at which the process started, seconds.
    pub started: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Declares and registers everything.
    pub fn new() -> Metrics {
        let mut declarations = Declarations::default();
        #[cfg(target_os = "linux")]
        let _ = declarations.registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ));
        let r = &mut declarations;
        let offer = &["gateway", "service"][..];
        Metrics {
            requests: add(
                r,
                counters(
                    "tollgate_requests_total",
                    "Requests answered, by status. 499: the client left first",
                    &["gateway", "service", "code"],
                ),
            ),
            duration: add(
                r,
                histograms(
                    "tollgate_request_duration_seconds",
                    "From the request's head to the end of its answer",
                    offer,
                    DURATION,
                ),
            ),
            overhead: add(
                r,
                histograms(
                    "tollgate_overhead_seconds",
                    "Tollgate's own part before the upstream was asked: without the time a client needs to send its body",
                    offer,
                    OVERHEAD,
                ),
            ),
            first_token: add(
                r,
                histograms(
                    "tollgate_time_to_first_token_seconds",
                    "From the request's head to the first body bytes of its answer",
                    offer,
                    FIRST_TOKEN,
                ),
            ),
            inter_token: add(
                r,
                histograms(
                    "tollgate_inter_token_seconds",
                    "Between chunks of a streamed answer",
                    offer,
                    INTER_TOKEN,
                ),
            ),
            tokens: add(
                r,
                counters(
                    "tollgate_tokens_total",
                    "Tokens as the upstreams reported them; cached ones are counted in input too",
                    &["gateway", "service", "direction"],
                ),
            ),
            in_flight: add(
                r,
                gauges("tollgate_in_flight", "Requests being served", &["service"]),
            ),
            rejections: add(
                r,
                counters(
                    "tollgate_rejections_total",
                    "Answers of Tollgate's own, by error code",
                    &["gateway", "code"],
                ),
            ),
            retries: add(
                r,
                counters(
                    "tollgate_retries_total",
                    "Requests sent again to a target of their service, by what failed",
                    &["service", "reason"],
                ),
            ),
            fallbacks: add(
                r,
                counters(
                    "tollgate_fallbacks_total",
                    "Requests handed to another service, by why",
                    &["from", "to", "reason"],
                ),
            ),
            queue_wait: add(
                r,
                histograms(
                    "tollgate_queue_wait_seconds",
                    "Time spent in a service's queue",
                    &["service"],
                    FIRST_TOKEN,
                ),
            ),
            panics: add(
                r,
                counters(
                    "tollgate_panic_picks_total",
                    "Requests sent to the least bad target because none was to be trusted",
                    &["service"],
                ),
            ),
            prefill: add(
                r,
                histograms(
                    "tollgate_prefill_seconds",
                    "How long the prefill of split requests took",
                    offer,
                    FIRST_TOKEN,
                ),
            ),
            decode: add(
                r,
                histograms(
                    "tollgate_decode_first_byte_seconds",
                    "How long the first byte of decode took, from when its target was asked",
                    offer,
                    FIRST_TOKEN,
                ),
            ),
            undivided: add(
                r,
                counters(
                    "tollgate_undivided_total",
                    "Requests served by one target although their upstream has prefill and decode apart, by why: `short`, `batch`, `full`, `unavailable`, `failed`, `nothing` (prefill handed nothing over), `copy`",
                    &["service", "reason"],
                ),
            ),
            queue_depth: add(
                r,
                gauges(
                    "tollgate_queue_depth",
                    "Requests waiting in the service's queue",
                    &["service"],
                ),
            ),
            desired_replicas: add(
                r,
                gauges(
                    "tollgate_desired_replicas",
                    "Replicas that a service which is scaled should have",
                    &["service"],
                ),
            ),
            scaler_streams: add(
                r,
                gauge("tollgate_scaler_streams", "StreamIsActive calls now open"),
            ),
            replicas: add(
                r,
                gauges(
                    "tollgate_replicas",
                    "Replicas that it has: ready, starting or draining",
                    &["service", "state"],
                ),
            ),
            breaker_state: add(
                r,
                gauges(
                    "tollgate_target_breaker_state",
                    "The target's breaker: 0 closed, 1 half open, 2 open",
                    &["upstream", "target"],
                ),
            ),
            client_disconnects: add(
                r,
                counter(
                    "tollgate_client_disconnects_total",
                    "Clients that left before their answer was complete",
                ),
            ),
            target_up: add(
                r,
                gauges(
                    "tollgate_target_up",
                    "Whether the target takes requests",
                    &["upstream", "target"],
                ),
            ),
            target_in_flight: add(
                r,
                gauges(
                    "tollgate_target_in_flight",
                    "Requests at the target",
                    &["upstream", "target"],
                ),
            ),
            role_in_flight: add(
                r,
                gauges(
                    "tollgate_role_in_flight",
                    "Requests at the targets of one role, of upstreams that split requests",
                    &["upstream", "role"],
                ),
            ),
            config_revision: add(
                r,
                gauge(
                    "tollgate_config_revision",
                    "Number of the configuration in force",
                ),
            ),
            config_reloads: add(
                r,
                counters(
                    "tollgate_config_reloads_total",
                    "Attempts to bring a configuration into force",
                    &["result"],
                ),
            ),
            access_dropped: add(
                r,
                counter(
                    "tollgate_access_log_dropped_total",
                    "Access-log lines dropped because the writer could not follow",
                ),
            ),
            key_expiry: add(
                r,
                numbers(
                    "tollgate_key_expiry_seconds",
                    "Seconds until a key ends; negative when it has",
                    &["gateway", "key"],
                ),
            ),
            certificate_expiry: add(
                r,
                numbers(
                    "tollgate_certificate_expiry_seconds",
                    "Seconds until a certificate of a gateway or a listener ends; negative when it has",
                    &["gateway", "listener"],
                ),
            ),
            acme_orders: add(
                r,
                counters(
                    "tollgate_acme_orders_total",
                    "Orders of certificates, by what they came to",
                    &["result"],
                ),
            ),
            connections: add(
                r,
                gauge(
                    "tollgate_connections",
                    "Connections of clients, also those that wait for a request",
                ),
            ),
            connections_refused: add(
                r,
                counters(
                    "tollgate_connections_refused_total",
                    "Connections closed at once: total, address (server.max_connections, max_connections_per_address) or proxy_header (listener.proxy_protocol)",
                    &["reason"],
                ),
            ),
            handshakes: add(
                r,
                counters(
                    "tollgate_tls_handshakes_total",
                    "TLS handshakes with clients: ok, unknown_name, failed or timeout",
                    &["result"],
                ),
            ),
            plugin_seconds: add(
                r,
                times(
                    "tollgate_plugin_seconds",
                    "Time plugins took for a request",
                    "plugin",
                ),
            ),
            plugin_errors: add(
                r,
                counters(
                    "tollgate_plugin_errors_total",
                    "Plugins that panicked or took too long",
                    &["plugin"],
                ),
            ),
            store_up: add(
                r,
                gauge(
                    "tollgate_store_up",
                    "Whether server.state can be written: 1 or 0",
                ),
            ),
            usage_buffered: add(
                r,
                gauge(
                    "tollgate_usage_buffered",
                    "Usage records that wait to be written",
                ),
            ),
            usage_dropped: add(
                r,
                counter(
                    "tollgate_usage_dropped_total",
                    "Usage records lost because too many waited to be written",
                ),
            ),
            key_anomaly: add(
                r,
                numbers(
                    "tollgate_key_anomaly_score",
                    "How far a key's last hour left its own history (robust z-score); absent when it did not",
                    &["gateway", "key", "what"],
                ),
            ),
            copies: add(
                r,
                counters(
                    "tollgate_copies_total",
                    "Copies of requests sent to other services: answered, failed, timeout, unavailable, dropped, skipped",
                    &["service", "result"],
                ),
            ),
            plugins_dropped: add(
                r,
                counter(
                    "tollgate_plugins_dropped_total",
                    "Exchanges whose post_response stage was left out because too many were in it",
                ),
            ),
            body_memory: add(
                r,
                gauge(
                    "tollgate_body_memory_bytes",
                    "Request bodies held in memory",
                ),
            ),
            started: add(
                r,
                declared(Gauge::with_opts(Opts::new(
                    "tollgate_start_time_seconds",
                    "Unix time at which the process started",
                ))),
            ),
            engines: EngineMetrics::new(r),
            fallen_back: Mutex::default(),
            offers: Arc::default(),
            services: Arc::default(),
            gateways: Arc::default(),
            registry: declarations.registry,
            declared: declarations.declared,
        }
    }

    /// Every metric there is, as declared.
    pub fn declared(&self) -> &[Declared] {
        &self.declared
    }

    /// Counts a copy for a service that the request's gateway does not offer.
    pub fn copy_without_service(&self) {
        self.copies.with_label_values(&["", "skipped"]).inc();
    }
}

#[cfg(test)]
mod tests;
