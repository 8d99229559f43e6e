//! Where records wait for the writer, and how callers and the writer speak to each other.
//!
//! Callers push records and jobs; one writer takes them. A lock is held for a push or for taking a batch, never while anything is
//! written, and no caller holds it across an await. Batches change hands whole, and what the writer has emptied is filled again: a push
//! copies no record but its own and allocates nothing, unless the writer lags. The writer is woken only when it sleeps and would sleep too long.
//!
//! Invariant: `accepted = settled + in hand + waiting`, and the last two together never exceed the capacity.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Health, StoreError, UsageRecord};

/// Something the writer does for a caller.
pub(super) type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// How long a record waits at most, and how many are written at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Records that may wait.
    pub(super) capacity: usize,
    /// So many waiting records are written at once.
    pub(super) batch: usize,
    /// A single one is written after this time.
    pub(super) interval: Duration,
}

/// The meeting place of callers and the writer; `T` is what jobs work on.
pub(super) struct Buffer<T> {
    pace: Pace,
    state: Mutex<State<T>>,
    /// There may be something for the writer.
    work: Condvar,
    /// Something was settled or failed.
    news: Condvar,
}

struct State<T> {
    /// Full batches, the first to be written first.
    full: VecDeque<Vec<UsageRecord>>,
    /// What comes now; never a full batch.
    filling: Vec<UsageRecord>,
    /// An empty one for what comes then.
    spare: Option<Vec<UsageRecord>>,
    /// When the first of those that wait came.
    since: Option<Instant>,
    rest: Rest,
    accepted: u64,
    settled: u64,
    dropped: u64,
    /// Writes that failed since the start.
    failures: u64,
    failure: Option<StoreError>,
    jobs: VecDeque<Job<T>>,
    /// Somebody waits for the records.
    hurry: bool,
    closing: bool,
    ended: bool,
}

/// Whether the writer sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// No: it looks for work before it does.
    Awake,
    /// It will look soon enough for a record that comes now.
    Nap,
    /// Nothing came for a while: a record must wake it.
    Sleep,
}

/// What the writer shall do.
pub(super) struct Work<T> {
    /// First these.
    pub(super) jobs: VecDeque<Job<T>>,
    /// Then these are to be written; empty if it has records in hand.
    pub(super) records: Vec<UsageRecord>,
    /// It is time to write what it has in hand.
    pub(super) write: bool,
    /// It shall end after this.
    pub(super) closing: bool,
}

impl<T> State<T> {
    /// Records that are accepted and not written.
    fn open(&self) -> usize {
        usize::try_from(self.accepted - self.settled).unwrap_or(usize::MAX)
    }

    fn nothing_waits(&self) -> bool {
        self.filling.is_empty() && self.full.is_empty()
    }
}

impl<T> Buffer<T> {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            state: Mutex::new(State {
                full: VecDeque::new(),
                filling: Vec::new(),
                spare: None,
                since: None,
                rest: Rest::Awake,
                accepted: 0,
                settled: 0,
                dropped: 0,
                failures: 0,
                failure: None,
                jobs: VecDeque::new(),
                hurry: false,
                closing: false,
                ended: false,
            }),
            work: Condvar::new(),
            news: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it is held, and counts would still be counts.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record to be written some time. Beyond the capacity it is dropped and counted.
    pub(super) fn push(&self, record: UsageRecord) {
        let mut state = self.lock();
        if state.closing || state.open() >= self.pace.capacity {
            state.dropped += 1;
            return;
        }
        state.accepted += 1;
        if state.nothing_waits() {
            state.since = Some(Instant::now());
        }
        state.filling.push(record);
        let full = state.filling.len() >= self.pace.batch;
        if full {
            let next = state.spare.take().unwrap_or_else(|| self.empty());
            let batch = std::mem::replace(&mut state.filling, next);
            state.full.push_back(batch);
        }
        let wake = match state.rest {
            Rest::Awake => false,
            Rest::Nap => full,
            Rest::Sleep => true,
        };
        if wake {
            // Once is enough.
            state.rest = Rest::Awake;
            drop(state);
            self.work.notify_one();
        }
    }

    /// Room for a batch, but not for one that is larger than any that is used.
    fn empty(&self) -> Vec<UsageRecord> {
        Vec::with_capacity(self.pace.batch.min(self.pace.capacity).min(1_000))
    }

    /// Something to be done soon. After [`close`](Self::close) it is dropped.
    pub(super) fn ask(&self, job: Job<T>) {
        let mut state = self.lock();
        if !state.closing {
            state.jobs.push_back(job);
        }
        drop(state);
        self.work.notify_one();
    }

    /// Waits until what was pushed before is written; `false` if `patience` ends first or, with `once`, if a write fails.
    pub(super) fn flush(&self, patience: Duration, once: bool) -> bool {
        // Bounded, since times that far ahead may not exist.
        let until = Instant::now() + patience.min(Duration::from_hours(24));
        let mut state = self.lock();
        let (goal, failures) = (state.accepted, state.failures);
        while state.settled < goal {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended || once && state.failures > failures {
                return false;
            }
            state.hurry = true;
            self.work.notify_one();
            // A failed write is tried again every so often, whatever the writer's own pause.
            let waited = self.news.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.failures > failures && !once && state.settled < goal {
                let pause = Duration::from_millis(50).min(left);
                let waited = self.news.wait_timeout(state, pause);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        true
    }

    /// What to do next. Waits for it: until `retry` if the writer has records in hand, and not beyond `wake`.
    pub(super) fn next(&self, retry: Option<Instant>, wake: Instant) -> Work<T> {
        let mut state = self.lock();
        // The first wait without records is as long as a record may wait, so that records that come now and then wake nobody.
        let mut rest = Rest::Nap;
        loop {
            let now = Instant::now();
            let due = match retry {
                Some(retry) => Some(retry),
                None if !state.full.is_empty() => Some(now),
                None => state.since.map(|since| since + self.pace.interval),
            };
            let write = state.hurry || state.closing || due.is_some_and(|due| due <= now);
            if write || !state.jobs.is_empty() || wake <= now {
                return self.take(&mut state, write, retry.is_none());
            }
            let until = match (due, rest) {
                (Some(due), _) => due.min(wake),
                (None, Rest::Nap) => wake.min(now + self.pace.interval),
                (None, _) => wake,
            };
            state.rest = if due.is_some() { Rest::Nap } else { rest };
            let waited = self.work.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.rest = Rest::Awake;
            rest = Rest::Sleep;
        }
    }

    fn take(&self, state: &mut State<T>, write: bool, free: bool) -> Work<T> {
        let records = match state.full.pop_front_if(|_| write && free) {
            Some(batch) => batch,
            None if write && free && !state.filling.is_empty() => {
                let next = state.spare.take().unwrap_or_else(|| self.empty());
                std::mem::replace(&mut state.filling, next)
            }
            None => Vec::new(),
        };
        if !records.is_empty() {
            state.since = (!state.nothing_waits()).then(Instant::now);
        }
        // Whoever waits for more than this batch asks again.
        state.hurry &= !write;
        Work {
            jobs: std::mem::take(&mut state.jobs),
            records,
            write,
            closing: state.closing,
        }
    }

    /// So many records that were in hand are written. What held them is empty and is filled again.
    pub(super) fn settled(&self, count: usize, empty: Vec<UsageRecord>) {
        let mut state = self.lock();
        state.settled += count as u64;
        let unused = state.spare.replace(empty);
        state.failure = None;
        drop(state);
        drop(unused);
        self.news.notify_all();
    }

    /// What was in hand could not be written; it stays there. Whether that is new.
    pub(super) fn failed(&self, error: StoreError) -> bool {
        let mut state = self.lock();
        state.failures += 1;
        let new = state.failure.as_ref() != Some(&error);
        state.failure = Some(error);
        drop(state);
        self.news.notify_all();
        new
    }

    /// Ends the writer after one more try to write everything.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    /// There is no writer any more: whoever waits for it learns that.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.failure.get_or_insert(StoreError::Closed);
        state.ended = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        drop(jobs);
        self.news.notify_all();
    }

    /// Records that are accepted and not written.
    pub(super) fn open(&self) -> usize {
        self.lock().open()
    }

    pub(super) fn health(&self) -> Health {
        let state = self.lock();
        let buffered = state.open();
        let slow = buffered.saturating_mul(2) >= self.pace.capacity;
        let reason = match &state.failure {
            Some(failure) => Some(failure.to_string()),
            None => slow.then(|| "usage is recorded faster than it can be written".to_owned()),
        };
        Health {
            ok: reason.is_none(),
            reason,
            buffered,
            dropped: state.dropped,
        }
    }
}
