//! The token bucket, as the generic cell rate algorithm (ITU-T I.371, its virtual scheduling form).
//!
//! Instead of a level that has to be topped up, it keeps the theoretical arrival time (TAT): when all that was taken will have come back.
//! Each cell taken moves it on by the interval of one cell; how far it lies ahead of now is what is missing. Invariant: it never lies further ahead
//! than the burst takes to come back, but for what was settled to more than was reserved.
//!
//! Giving back moves the TAT back, but only by what time has not restored anyway. Cells come back in the order they were taken,
//! so a lease is marked with the TAT right after it, and what lies between now and there is not restored yet. What leases before it
//! give back would make its mark stale; hence the TAT is kept as all that was taken less all that was given back, and marks are of the first.
//! The last lease is simply taken back. So nothing is lost when leases end in the order they began, or in the opposite one; in between, some of
//! what an early lease gives back after a later one may have to wait for time to restore it. Too much is never given back.
//!
//! The interval is rounded up to a nanosecond, so a rate is never exceeded and kept to within `rate / 10^9` of itself (0.1 % at a million a second); 10^9 a
//! second is the highest. A bucket is at most 2^62 ns (146 years) deep. It has 32 bytes and never allocates.

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Denied, Standing};

/// The furthest ahead a TAT may lie, in nanoseconds: a difference of two is told from its sign.
const LONGEST: u64 = 1 << 62;

/// The rule, in integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    /// In how many nanoseconds one cell comes back.
    interval: u64,
    burst: u64,
}

impl Rate {
    fn new(rate: f64, burst: u64) -> Self {
        let burst = burst.min(LONGEST);
        let longest = LONGEST / burst.max(1);
        let interval = if rate > 0.0 {
            // Saturates.
            (1e9 / rate).ceil() as u64
        } else {
            u64::MAX
        };
        Self {
            interval: interval.clamp(1, longest),
            burst,
        }
    }

    /// How long `cells` take to come back.
    fn cost(&self, cells: u64) -> u64 {
        self.interval.saturating_mul(cells).min(LONGEST)
    }

    /// What taking `cells` costs when `backlog` is still missing.
    fn take(&self, backlog: u64, cells: u64) -> Result<u64, Denied> {
        let (cost, depth) = (self.cost(cells), self.cost(self.burst));
        let over = backlog.saturating_add(cost).saturating_sub(depth);
        // Nothing can be had of an overdrawn bucket too.
        if cells == 0 || (over == 0 && cells <= self.burst) {
            return Ok(cost);
        }
        Err(Denied {
            standing: self.standing(backlog),
            retry_after: (cells <= self.burst).then_some(Duration::from_nanos(over)),
        })
    }

    fn standing(&self, backlog: u64) -> Standing {
        Standing {
            limit: self.burst,
            remaining: self.burst.saturating_sub(self.cells(backlog)),
            reset: Duration::from_nanos(backlog),
        }
    }

    /// How many cells are missing, begun ones included.
    fn cells(&self, backlog: u64) -> u64 {
        backlog.div_ceil(self.interval)
    }
}

/// A bucket that threads share.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// The TAT as of before anything was given back. Wraps around.
    taken: AtomicU64,
    /// All that was given back but by the last lease, in nanoseconds. Wraps around.
    returned: AtomicU64,
}

impl Bucket {
    /// A bucket from which `used` cells are missing; more than the burst is the burst.
    pub(super) fn new(rate: f64, burst: u64, now: u64, used: u64) -> Self {
        let rate = Rate::new(rate, burst);
        // A full one was so long ago: also for a thread that read its clock before this one did.
        let taken = match rate.cost(used.min(rate.burst)) {
            0 => now.wrapping_sub(LONGEST),
            missing => now.wrapping_add(missing),
        };
        Self {
            rate,
            taken: AtomicU64::new(taken),
            returned: AtomicU64::new(0),
        }
    }

    /// Takes `cells` at `now`; the mark is for [`settle`](Self::settle).
    pub(super) fn reserve(&self, now: u64, cells: u64) -> Result<(u64, Standing), Denied> {
        let (mark, backlog) = self.advance(now, |backlog| self.rate.take(backlog, cells))?;
        Ok((mark, self.rate.standing(backlog)))
    }

    /// What was reserved under `mark` came to `used`. What is left over is given back unless time has restored it already; what is more is
    /// taken now, whatever the burst.
    pub(super) fn settle(&self, now: u64, mark: u64, reserved: u64, used: u64) {
        if used > reserved {
            self.delay(now, self.rate.cost(used - reserved));
        } else {
            self.give_back(now, mark, self.rate.cost(reserved - used));
        }
    }

    /// Takes so much that it is full only so many nanoseconds later than it would be.
    pub(super) fn delay(&self, now: u64, by: u64) {
        let take = |backlog| Ok::<_, Denied>(by.min(LONGEST.saturating_sub(backlog)));
        // Cannot fail: `take` does not.
        let _ = self.advance(now, take);
    }

    /// How it stands at `now`.
    pub(super) fn standing(&self, now: u64) -> Standing {
        self.rate.standing(self.backlog(now))
    }

    /// How many cells are missing at `now`.
    pub(super) fn used(&self, now: u64) -> u64 {
        self.rate.cells(self.backlog(now))
    }

    /// In how many nanoseconds after `now` it is full.
    pub(super) fn backlog(&self, now: u64) -> u64 {
        // In this order: what is given back in between makes it look fuller, not emptier.
        let returned = self.returned.load(Ordering::Acquire);
        ahead(self.taken.load(Ordering::Acquire), returned, now)
    }

    /// Moves the TAT on by what `take` says for the backlog. Returns the mark and the backlog after it.
    fn advance<E>(&self, now: u64, take: impl Fn(u64) -> Result<u64, E>) -> Result<(u64, u64), E> {
        loop {
            let returned = self.returned.load(Ordering::Acquire);
            let taken = self.taken.load(Ordering::Acquire);
            let backlog = ahead(taken, returned, now);
            let after = backlog.saturating_add(take(backlog)?);
            if after == backlog {
                return Ok((taken, after));
            }
            // What is given back between the load and the exchange stays given back: this only adds. Unless the TAT was in the past; but then
            // time has restored every lease, and only a clock behind ours gives back anything.
            let next = returned.wrapping_add(now).wrapping_add(after);
            let swapped =
                self.taken
                    .compare_exchange_weak(taken, next, Ordering::AcqRel, Ordering::Acquire);
            if swapped.is_ok() {
                return Ok((next, after));
            }
            pause();
        }
    }

    fn give_back(&self, now: u64, mark: u64, most: u64) {
        loop {
            let returned = self.returned.load(Ordering::Acquire);
            let taken = self.taken.load(Ordering::Acquire);
            let back = most.min(ahead(mark, returned, now));
            if back == 0 {
                return;
            }
            // Marks of leases that are not settled differ: this one is the last, and no mark after it can become stale.
            let (sum, old, new) = if taken == mark {
                (&self.taken, taken, taken.wrapping_sub(back))
            } else {
                (&self.returned, returned, returned.wrapping_add(back))
            };
            let swapped = sum.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire);
            if swapped.is_ok() {
                return;
            }
            pause();
        }
    }
}

/// How far a TAT of `taken` less `returned` lies ahead of `now`; 0 when it does not.
fn ahead(taken: u64, returned: u64, now: u64) -> u64 {
    let distance = taken.wrapping_sub(returned).wrapping_sub(now);
    // Wrapped around: it lies in the past.
    if distance > i64::MAX as u64 {
        0
    } else {
        distance
    }
}

/// Lets the other thread go first.
fn pause() {
    #[cfg(all(test, loom))]
    loom::thread::yield_now();
    #[cfg(not(all(test, loom)))]
    std::hint::spin_loop();
}
