//! What is known of engines and their caches. All of it is read when it is asked for.

use prometheus::{GaugeVec, IntCounterVec};

use super::declare::{Declarations, add, counters, numbers};

/// Its declarations.
pub struct EngineMetrics {
    /// Requests that engines say they compute.
    pub running: GaugeVec,
    /// Requests that engines say wait in them.
    pub waiting: GaugeVec,
    /// How full engines say their caches are.
    pub kv_usage: GaugeVec,
    /// Seconds of computing prompts that are before the next.
    pub pending: GaugeVec,
    /// Tokens of a prompt a target computes in a second.
    pub rate: GaugeVec,
    /// Cached tokens that were foretold, of requests whose engine reported them.
    pub expected: IntCounterVec,
    /// Those that were reported.
    pub reported: IntCounterVec,
    /// The sum of the differences.
    pub error: IntCounterVec,
    /// Tokens that caches hold, as their events tell.
    pub kv_held: GaugeVec,
    /// Events of caches.
    pub kv_events: IntCounterVec,
    /// How many times some of them were lost.
    pub kv_gaps: IntCounterVec,
}

impl EngineMetrics {
    pub(super) fn new(r: &mut Declarations) -> EngineMetrics {
        let target = &["upstream", "target"][..];
        let mut gauge = |name, help| add(r, numbers(name, help, target));
        let running = gauge(
            "tollgate_engine_running",
            "Requests the target's engine computes, as it says itself",
        );
        let waiting = gauge(
            "tollgate_engine_waiting",
            "Requests that wait in the target's engine, as it says itself",
        );
        let kv_usage = gauge(
            "tollgate_engine_kv_usage",
            "How full the engine's KV cache is, from 0 to 1, as it says itself",
        );
        let pending = gauge(
            "tollgate_target_pending_seconds",
            "Computing of prompts that is before the next request there, as cache_aware reckons it",
        );
        let rate = gauge(
            "tollgate_target_prefill_tokens_per_second",
            "Tokens of prompts the target computes in a second, as its answers taught cache_aware",
        );
        let kv_held = gauge(
            "tollgate_kv_held_tokens",
            "Tokens in the target's KV cache, as far as the events it publishes tell (`kv_events`)",
        );
        let mut counter = |name, help| add(r, counters(name, help, target));
        let kv_events = counter(
            "tollgate_kv_events_total",
            "Events of the target's KV cache that were heard",
        );
        let kv_gaps = counter(
            "tollgate_kv_event_gaps_total",
            "How many times events of the target's KV cache were lost or not understood",
        );
        let upstream = &["upstream"][..];
        let mut counter = |name, help| add(r, counters(name, help, upstream));
        EngineMetrics {
            running,
            waiting,
            kv_usage,
            pending,
            rate,
            kv_held,
            kv_events,
            kv_gaps,
            expected: counter(
                "tollgate_cached_tokens_expected_total",
                "Cached tokens of prompts as cache_aware foretold them, where engines report them",
            ),
            reported: counter(
                "tollgate_cached_tokens_reported_total",
                "Cached tokens of the same prompts as engines reported them",
            ),
            error: counter(
                "tollgate_cached_tokens_error_total",
                "How far these were off, whichever way, summed over requests",
            ),
        }
    }
}
