//! What time it is, for limits.
//!
//! Most limits compare times only with each other, so a time is nanoseconds since some origin of the clock's. Those of the calendar ask for
//! the time of day besides. Invariant: a clock never goes back; the time of day may, when somebody sets it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock that never goes back, and the time of day.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Nanoseconds since the clock's origin.
    fn now(&self) -> u64;

    /// What [`now`](Self::now) was at an instant that has just passed.
    fn at(&self, instant: Instant) -> u64 {
        let _ = instant;
        self.now()
    }

    /// Since the beginning of 1970, UTC.
    fn unix(&self) -> Duration;
}

/// The system's monotonic clock, and its time of day.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

/// How long before it was made a system's clock began: what another process counted then has a time on it, too. 10 years.
const BEFORE: u64 = 10 * 366 * 86_400 * 1_000_000_000;

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> u64 {
        nanoseconds(instant.saturating_duration_since(self.0)).saturating_add(BEFORE)
    }

    fn unix(&self) -> Duration {
        // A clock before 1970 was never set.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}

/// A clock that stands still until it is moved, for tests. Its time of day begins with 1970 unless it is told.
#[derive(Debug, Default)]
pub struct ManualClock {
    passed: AtomicU64,
    begin: Duration,
}

impl ManualClock {
    /// A clock that stands at so many seconds since 1970, UTC.
    pub fn at(unix: u64) -> Self {
        Self {
            passed: AtomicU64::new(0),
            begin: Duration::from_secs(unix),
        }
    }

    /// Lets this much time pass.
    pub fn advance(&self, by: Duration) {
        let passed = |now: u64| Some(now.saturating_add(nanoseconds(by)));
        // Cannot fail: there is always a next time.
        let _ = self
            .passed
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, passed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    fn unix(&self) -> Duration {
        self.begin.saturating_add(Duration::from_nanos(self.now()))
    }
}

/// A duration in nanoseconds, of at most 584 years.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(duration.subsec_nanos()))
}
