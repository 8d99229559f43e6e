//! What all connections of one engine share.
//!
//! Owns the slots, the prefix cache, the fault plan, the recorded requests and the counters of every
//! worker, and adds the counters up. The plain fast path touches none of the locks here.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;

use super::cache::{PrefixCache, block_names, tokens_in};
use super::clock;
use super::config::EngineConfig;
use super::counters::{Counters, PATHS};
use super::plan::FaultPlan;
use super::text::Pool;
use super::transfer::{TransferState, Transfers};

/// The common state of one engine.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: EngineConfig,
    pub(super) pool: Pool,
    /// One permit per running request; fair, so the queue is first come, first served.
    pub(super) slots: Option<Arc<Semaphore>>,
    pub(super) cache: Option<Mutex<PrefixCache>>,
    /// Held while a prompt is computed: prompts are computed one after the other. When the last one's time was over.
    pub(super) prefill: tokio::sync::Mutex<Option<tokio::time::Instant>>,
    pub(super) plan: FaultPlan,
    pub(super) counters: Vec<Arc<Counters>>,
    recorded: Mutex<VecDeque<RecordedRequest>>,
    record: AtomicUsize,
    instant_replies: bool,
    started_at: u64,
    /// What it holds for others, if it shares requests.
    pub(super) transfers: Option<Arc<Transfers>>,
    /// Where it listens.
    pub(super) address: OnceLock<SocketAddr>,
}

/// A request as it arrived.
#[derive(Debug, Clone, Serialize)]
pub struct RecordedRequest {
    /// Nanoseconds since 1970 when its body was complete.
    pub time: u64,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers in order, names as they were spelled.
    pub headers: Vec<(String, String)>,
    /// Length of the body.
    pub body_bytes: u64,
    /// SHA-256 of the body, in hexadecimal.
    pub body_sha256: String,
}

/// The engine's counts at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EngineState {
    /// Requests whose head arrived. Control, health and metrics requests are not counted.
    pub started: u64,
    /// Those that hold a slot now.
    pub running: i64,
    /// Those that wait for a slot, or for their prompt's turn, now.
    pub waiting: i64,
    /// Those that were answered in full, errors included.
    pub finished: u64,
    /// Those whose client left before the end of the answer.
    pub aborted: u64,
    /// Those that a fault broke off.
    pub broken: u64,
    /// When a client last left, in nanoseconds since 1970.
    pub last_abort: Option<u64>,
    /// Connections accepted.
    pub connections: u64,
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Those of them found in the prefix cache.
    pub cached_tokens: u64,
    /// Tokens produced.
    pub generated_tokens: u64,
    /// Blocks the prefix cache holds.
    pub cache_blocks: usize,
    /// Seconds of prefill done.
    pub prefill_seconds: f64,
    /// By how many seconds the ends of prefill came late, in the mean. More than a few milliseconds mean
    /// that the machine, not the model, sets the pace.
    pub late_mean: f64,
    /// The worst of them.
    pub late_max: f64,
    /// Seconds since the engine started.
    pub uptime: f64,
    /// Requests by path.
    pub paths: BTreeMap<&'static str, u64>,
    /// What it computed for others, and fetched from them.
    pub transfers: TransferState,
}

impl Shared {
    pub(super) fn new(config: EngineConfig) -> Self {
        let instant_replies = config.ttft.is_zero()
            && config.itl.is_zero()
            && config.cache_blocks == 0
            && config.prefill_rate == 0
            && config.transfer.is_none();
        let engine = format!("engine-{:x}", clock::unix_nanos());
        Self {
            pool: Pool::new(config.seed),
            slots: (config.max_running > 0).then(|| Arc::new(Semaphore::new(config.max_running))),
            cache: (config.cache_blocks > 0)
                .then(|| Mutex::new(PrefixCache::new(config.cache_blocks))),
            prefill: tokio::sync::Mutex::default(),
            plan: FaultPlan::default(),
            counters: (0..config.threads.max(1)).map(|_| Arc::default()).collect(),
            recorded: Mutex::default(),
            record: AtomicUsize::new(config.record),
            instant_replies,
            started_at: clock::unix_nanos(),
            transfers: { config.transfer.clone() }.map(|config| Transfers::new(config, engine)),
            address: OnceLock::new(),
            config,
        }
    }

    /// Whether a reply may be written at once, without queue, cache, faults or recording.
    pub(super) fn is_instant(&self) -> bool {
        self.instant_replies
            && self.record.load(Relaxed) == 0
            && self.plan.is_empty()
            && self
                .slots
                .as_ref()
                .is_none_or(|slots| slots.available_permits() > 0)
    }

    pub(super) fn records(&self) -> bool {
        self.record.load(Relaxed) > 0
    }

    pub(super) fn set_record(&self, keep: usize) {
        self.record.store(keep, Relaxed);
        let mut recorded = lock(&self.recorded);
        let surplus = recorded.len().saturating_sub(keep);
        recorded.drain(..surplus);
    }

    pub(super) fn push_record(&self, request: RecordedRequest) {
        let mut recorded = lock(&self.recorded);
        while recorded.len() >= self.record.load(Relaxed).max(1) {
            recorded.pop_front();
        }
        recorded.push_back(request);
    }

    pub(super) fn requests(&self) -> Vec<RecordedRequest> {
        lock(&self.recorded).iter().cloned().collect()
    }

    /// Adds up one count of all workers.
    pub(super) fn sum(&self, read: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(|counters| read(counters)).sum()
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address.get().copied().unwrap_or(self.config.address)
    }

    pub(super) fn running(&self) -> i64 {
        self.counters
            .iter()
            .map(|counters| counters.running.load(Relaxed))
            .sum()
    }

    pub(super) fn waiting(&self) -> i64 {
        self.counters
            .iter()
            .map(|counters| counters.waiting.load(Relaxed))
            .sum()
    }

    pub(super) fn state(&self) -> EngineState {
        let last_abort = self
            .counters
            .iter()
            .map(|c| c.last_abort.load(Relaxed))
            .max();
        let paths = PATHS.iter().enumerate().map(|(k, name)| {
            (
                *name,
                self.sum(|c| c.paths.get(k).map_or(0, |count| count.load(Relaxed))),
            )
        });
        let uptime = clock::unix_nanos().saturating_sub(self.started_at);
        let seconds = |nanos| Duration::from_nanos(nanos).as_secs_f64();
        let prefills = self.sum(|c| c.prefill.counts.iter().map(|n| n.load(Relaxed)).sum());
        let latest = self.counters.iter().map(|c| c.latest.load(Relaxed)).max();
        EngineState {
            started: self.sum(|c| c.started.load(Relaxed)),
            running: self.running(),
            waiting: self.waiting(),
            finished: self.sum(|c| c.finished.load(Relaxed)),
            aborted: self.sum(|c| c.aborted.load(Relaxed)),
            broken: self.sum(|c| c.broken.load(Relaxed)),
            last_abort: last_abort.filter(|time| *time > 0),
            connections: self.sum(|c| c.connections.load(Relaxed)),
            prompt_tokens: self.sum(|c| c.prompt_tokens.load(Relaxed)),
            cached_tokens: self.sum(|c| c.cache_hits.load(Relaxed)),
            generated_tokens: self.sum(|c| c.generated_tokens.load(Relaxed)),
            cache_blocks: self.cache.as_ref().map_or(0, |cache| lock(cache).len()),
            prefill_seconds: seconds(self.sum(|c| c.prefill.nanos.load(Relaxed))),
            late_mean: seconds(self.sum(|c| c.late.load(Relaxed))) / prefills.max(1) as f64,
            late_max: seconds(latest.unwrap_or_default()),
            uptime: seconds(uptime),
            paths: paths.filter(|(_, count)| *count > 0).collect(),
            transfers: { self.transfers.as_ref() }
                .map(|transfers| transfers.state())
                .unwrap_or_default(),
        }
    }

    /// Counts, faults, recorded requests and idle cache blocks are gone; open requests go on.
    pub(super) fn reset(&self) {
        self.plan.replace(Vec::new());
        lock(&self.recorded).clear();
        if let Some(cache) = &self.cache {
            lock(cache).clear();
        }
        for counters in &self.counters {
            counters.reset();
        }
    }
}

/// A lock whose holder cannot leave it half changed: a panic elsewhere does not matter.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A prompt's blocks in the cache, pinned until dropped.
#[derive(Debug)]
pub(super) struct Lease<'s> {
    shared: &'s Shared,
    names: Vec<u64>,
    /// How many of them were there before.
    hits: usize,
    computed: bool,
    /// Prompt tokens that need not be computed.
    pub(super) cached: usize,
}

impl<'s> Lease<'s> {
    /// Looks the prompt up. Its last token is always computed, as engines do.
    pub(super) fn take(shared: &'s Shared, counters: &Counters, prompt: &str) -> Self {
        let mut lease = Self {
            shared,
            names: Vec::new(),
            hits: 0,
            computed: false,
            cached: 0,
        };
        if let Some(cache) = &shared.cache {
            let size = shared.config.block_size.max(1);
            lease.names = block_names(prompt.as_bytes(), size);
            let (hits, pinned) = lock(cache).pin(&lease.names);
            lease.names.truncate(pinned);
            lease.hits = hits;
            let tokens = tokens_in(prompt.len());
            lease.cached = (hits * size).min(tokens.saturating_sub(1) / size * size);
            counters.cache_queries.fetch_add(tokens as u64, Relaxed);
            counters.cache_hits.fetch_add(lease.cached as u64, Relaxed);
        }
        lease
    }

    /// The prompt was computed: its blocks stay when the request ends.
    pub(super) fn computed(&mut self) {
        self.computed = true;
    }

    /// Keeps the blocks of the prompt with its reply too, for the next turn of a conversation.
    pub(super) fn remember(self, conversation: &str) {
        if let Some(cache) = &self.shared.cache {
            let names = block_names(conversation.as_bytes(), self.shared.config.block_size);
            let mut cache = lock(cache);
            let (_, pinned) = cache.pin(&names);
            cache.release(names.get(..pinned).unwrap_or_default());
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(cache) = &self.shared.cache {
            let held = if self.computed {
                self.names.len()
            } else {
                self.hits
            };
            let (held, unfinished) = self
                .names
                .split_at_checked(held)
                .unwrap_or((&self.names, &[]));
            let mut cache = lock(cache);
            cache.discard(unfinished);
            cache.release(held);
        }
    }
}
