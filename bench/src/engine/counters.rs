//! What the engine counts, and the guard that keeps the counts true.
//!
//! Each worker has its own `Counters`, so counting never moves a cache line between cores; readers
//! add them up. A `Ticket` lives as long as its request: whatever stage it is dropped in, the
//! gauges go back, and a request that was neither finished nor broken on purpose was aborted.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::clock;

/// The paths an engine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    Responses,
    Models,
    Health,
    Metrics,
    Hash,
    Control,
    Unknown,
}

/// Names for per-path counts, in the order of `Endpoint`.
pub(super) const PATHS: [&str; 9] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/models",
    "/health",
    "/metrics",
    "/sim/hash",
    "other",
];

impl Endpoint {
    /// Which path this is; the query is not looked at.
    pub(super) fn of(path: &str) -> Self {
        match path.split_once('?').map_or(path, |(path, _)| path) {
            "/v1/chat/completions" => Self::Chat,
            "/v1/completions" => Self::Completions,
            "/v1/embeddings" => Self::Embeddings,
            "/v1/responses" => Self::Responses,
            "/v1/models" => Self::Models,
            "/health" | "/ping" => Self::Health,
            "/metrics" => Self::Metrics,
            "/sim/hash" => Self::Hash,
            path if path.starts_with("/v1/models/") => Self::Models,
            path if path.starts_with("/sim/hash/") => Self::Hash,
            // Mooncake's bootstrap server, which a real engine has at a port of its own.
            "/query" => Self::Control,
            path if path.starts_with("/sim/") => Self::Control,
            _ => Self::Unknown,
        }
    }

    /// Whether its requests are work rather than questions about the engine.
    pub(super) fn is_work(self) -> bool {
        !matches!(self, Self::Health | Self::Metrics | Self::Control)
    }

    fn index(self) -> Option<usize> {
        match self {
            Self::Control => None,
            Self::Unknown => Some(PATHS.len() - 1),
            known => Some(known as usize),
        }
    }
}

/// One worker's counts.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Counters {
    pub(super) started: AtomicU64,
    pub(super) finished: AtomicU64,
    pub(super) aborted: AtomicU64,
    pub(super) broken: AtomicU64,
    pub(super) running: AtomicI64,
    pub(super) waiting: AtomicI64,
    pub(super) last_abort: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) paths: [AtomicU64; PATHS.len()],
    pub(super) prompt_tokens: AtomicU64,
    pub(super) generated_tokens: AtomicU64,
    pub(super) cache_queries: AtomicU64,
    pub(super) cache_hits: AtomicU64,
    pub(super) stopped: AtomicU64,
    pub(super) cut_short: AtomicU64,
    pub(super) first_token: Histogram,
    pub(super) between_tokens: Histogram,
    pub(super) whole_request: Histogram,
    pub(super) queue: Histogram,
    pub(super) prefill: Histogram,
    /// By how much ends of prefill came late, in nanoseconds: all together, and the worst.
    pub(super) late: AtomicU64,
    pub(super) latest: AtomicU64,
}

const TTFT_BOUNDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const ITL_BOUNDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
const REQUEST_BOUNDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];

impl Default for Counters {
    fn default() -> Self {
        Self {
            started: AtomicU64::default(),
            finished: AtomicU64::default(),
            aborted: AtomicU64::default(),
            broken: AtomicU64::default(),
            running: AtomicI64::default(),
            waiting: AtomicI64::default(),
            last_abort: AtomicU64::default(),
            connections: AtomicU64::default(),
            paths: Default::default(),
            prompt_tokens: AtomicU64::default(),
            generated_tokens: AtomicU64::default(),
            cache_queries: AtomicU64::default(),
            cache_hits: AtomicU64::default(),
            stopped: AtomicU64::default(),
            cut_short: AtomicU64::default(),
            first_token: Histogram::new(TTFT_BOUNDS),
            between_tokens: Histogram::new(ITL_BOUNDS),
            whole_request: Histogram::new(REQUEST_BOUNDS),
            queue: Histogram::new(REQUEST_BOUNDS),
            prefill: Histogram::new(REQUEST_BOUNDS),
            late: AtomicU64::default(),
            latest: AtomicU64::default(),
        }
    }
}

impl Counters {
    pub(super) fn count_path(&self, endpoint: Endpoint) {
        if let Some(count) = endpoint.index().and_then(|index| self.paths.get(index)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// A number that no other request of any engine has.
    pub(super) fn next_id(&self) -> u128 {
        let nth = u128::from(self.started.load(Relaxed));
        let place = std::ptr::from_ref(self) as usize as u128;
        (u128::from(clock::unix_nanos()) << 64) ^ (place << 32) ^ nth
    }

    /// Everything but the gauges back to zero.
    pub(super) fn reset(&self) {
        let totals = [
            &self.started,
            &self.finished,
            &self.aborted,
            &self.broken,
            &self.last_abort,
            &self.connections,
            &self.prompt_tokens,
            &self.generated_tokens,
            &self.cache_queries,
            &self.cache_hits,
            &self.stopped,
            &self.cut_short,
            &self.late,
            &self.latest,
        ];
        for total in totals.into_iter().chain(&self.paths) {
            total.store(0, Relaxed);
        }
        let histograms = [
            &self.first_token,
            &self.between_tokens,
            &self.whole_request,
            &self.queue,
            &self.prefill,
        ];
        for histogram in histograms {
            histogram.reset();
        }
    }
}

/// Durations by size, as Prometheus counts them.
#[derive(Debug)]
pub(super) struct Histogram {
    pub(super) bounds: &'static [f64],
    /// One more than `bounds`; not yet cumulative.
    pub(super) counts: Vec<AtomicU64>,
    pub(super) nanos: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::default()).collect();
        Self {
            bounds,
            counts,
            nanos: AtomicU64::default(),
        }
    }

    pub(super) fn observe(&self, duration: Duration) {
        self.observe_many(duration, 1);
    }

    /// `count` observations that took this long together, each the same.
    pub(super) fn observe_many(&self, total: Duration, count: usize) {
        if count == 0 {
            return;
        }
        let each = total.as_secs_f64() / count as f64;
        let at = self.bounds.partition_point(|bound| *bound < each);
        if let Some(slot) = self.counts.get(at) {
            slot.fetch_add(count as u64, Relaxed);
        }
        if !total.is_zero() {
            self.nanos
                .fetch_add(u64::try_from(total.as_nanos()).unwrap_or(0), Relaxed);
        }
    }

    fn reset(&self) {
        for count in self.counts.iter().chain([&self.nanos]) {
            count.store(0, Relaxed);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reading,
    Waiting,
    Running,
}

/// A request that is being served.
#[derive(Debug)]
pub(super) struct Ticket {
    counters: Arc<Counters>,
    stage: Stage,
    settled: bool,
}

impl Ticket {
    pub(super) fn start(counters: &Arc<Counters>) -> Self {
        counters.started.fetch_add(1, Relaxed);
        Self {
            counters: Arc::clone(counters),
            stage: Stage::Reading,
            settled: false,
        }
    }

    pub(super) fn wait(&mut self) {
        self.enter(Stage::Waiting);
    }

    pub(super) fn run(&mut self) {
        self.enter(Stage::Running);
    }

    /// The whole answer was handed over.
    pub(super) fn finish(mut self) {
        self.settled = true;
        self.counters.finished.fetch_add(1, Relaxed);
    }

    /// A fault ended the answer.
    pub(super) fn break_off(mut self) {
        self.settled = true;
        self.counters.broken.fetch_add(1, Relaxed);
    }

    fn enter(&mut self, stage: Stage) {
        let gauge = |stage| match stage {
            Stage::Reading => None,
            Stage::Waiting => Some(&self.counters.waiting),
            Stage::Running => Some(&self.counters.running),
        };
        if let Some(old) = gauge(self.stage) {
            old.fetch_sub(1, Relaxed);
        }
        if let Some(new) = gauge(stage) {
            new.fetch_add(1, Relaxed);
        }
        self.stage = stage;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.enter(Stage::Reading);
        if !self.settled {
            self.counters.aborted.fetch_add(1, Relaxed);
            self.counters
                .last_abort
                .fetch_max(clock::unix_nanos(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_ticket_is_an_abort_and_gauges_return_to_zero() {
        let counters = Arc::new(Counters::default());
        let mut ticket = Ticket::start(&counters);
        ticket.wait();
        assert_eq!(counters.waiting.load(Relaxed), 1);
        ticket.run();
        assert_eq!(
            (
                counters.waiting.load(Relaxed),
                counters.running.load(Relaxed)
            ),
            (0, 1)
        );
        drop(ticket);
        assert_eq!(counters.running.load(Relaxed), 0);
        assert_eq!(counters.aborted.load(Relaxed), 1);
        Ticket::start(&counters).finish();
        assert_eq!(
            (
                counters.finished.load(Relaxed),
                counters.aborted.load(Relaxed)
            ),
            (1, 1)
        );
    }

    #[test]
    fn paths_have_names() {
        assert_eq!(Endpoint::of("/v1/chat/completions?x=1"), Endpoint::Chat);
        assert_eq!(Endpoint::of("/v1/models/a/b"), Endpoint::Models);
        assert_eq!(Endpoint::of("/sim/hash/deeper"), Endpoint::Hash);
        assert_eq!(Endpoint::of("/sim/state"), Endpoint::Control);
        for (name, endpoint) in PATHS.iter().zip(0..) {
            assert_eq!(Endpoint::of(name).index(), Some(endpoint));
        }
    }

    #[test]
    fn observations_fall_into_their_bucket() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        histogram.observe(Duration::from_millis(100));
        histogram.observe_many(Duration::from_secs(4), 2);
        let counts: Vec<u64> = histogram.counts.iter().map(|c| c.load(Relaxed)).collect();
        assert_eq!(counts, [1, 0, 2]);
    }
}
