//! What time it is, for limits.
//!
//! Limits compare times only with each other, so a time is nanoseconds since some origin of the clock's. Invariant: a clock never goes back.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A clock that never goes back.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Nanoseconds since the clock's origin.
    fn now(&self) -> u64;
}

/// The system's monotonic clock, from when it was made.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        nanoseconds(self.0.elapsed())
    }
}

/// A clock that stands still until it is moved, for tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Lets this much time pass.
    pub fn advance(&self, by: Duration) {
        let passed = |now: u64| Some(now.saturating_add(nanoseconds(by)));
        // Cannot fail: there is always a next time.
        let _ = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, passed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A duration in nanoseconds, of at most 584 years.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
