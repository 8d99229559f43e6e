//! What one user of one limit has used: a window behind a lock, or a bucket.
//!
//! Leases hold their counter, so that they settle without looking for it. Invariant: a counter's lock is held for arithmetic only,
//! and under it no other lock is taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bucket::Bucket;
use super::clock::Clock;
use super::window::{Bounds, Window};
use super::{Denied, Rule, Settle, Standing};

/// A counter of a limit for one user.
pub(super) struct Counter {
    clock: Arc<dyn Clock>,
    state: State,
}

enum State {
    /// Judged by whatever rule is asked last; the lease's settling goes by the same.
    Window(Mutex<(Bounds, Window)>),
    /// Made for one rule.
    Bucket {
        rate: f64,
        burst: u64,
        bucket: Bucket,
    },
}

impl Counter {
    /// A counter of which `used` was used just now.
    pub(super) fn new(clock: Arc<dyn Clock>, rule: &Rule, now: u64, used: u64) -> Self {
        let state = match *rule {
            Rule::Window { limit, window } => {
                let bounds = Bounds::new(limit, window);
                State::Window(Mutex::new((bounds, Window::with_used(bounds, now, used))))
            }
            Rule::Bucket { rate, burst } => State::Bucket {
                rate,
                burst,
                bucket: Bucket::new(rate, burst, now, used),
            },
        };
        Self { clock, state }
    }

    /// Whether it can judge by this rule. A window keeps its admissions and judges by any other window.
    pub(super) fn fits(&self, rule: &Rule) -> bool {
        match (&self.state, rule) {
            (State::Window(_), Rule::Window { .. }) => true,
            (State::Bucket { rate, burst, .. }, Rule::Bucket { rate: r, burst: b }) => {
                rate.to_bits() == r.to_bits() && burst == b
            }
            _ => false,
        }
    }

    /// A counter for another rule, from which as much is missing as from this one. Leases of this one settle with this one, so what they
    /// would give back stays used until time restores it.
    pub(super) fn converted(&self, rule: &Rule, now: u64) -> Self {
        Self::new(self.clock.clone(), rule, now, self.used(now))
    }

    /// Takes `amount` by a rule that [fits](Self::fits); by another the one it was made for counts.
    pub(super) fn reserve(
        &self,
        rule: &Rule,
        now: u64,
        amount: u64,
    ) -> Result<(u64, Standing), Denied> {
        match &self.state {
            State::Window(state) => {
                let (bounds, window) = &mut *locked(state);
                follow(bounds, rule);
                window.reserve(*bounds, now, amount)
            }
            State::Bucket { bucket, .. } => bucket.reserve(now, amount),
        }
    }

    /// How it stands by a rule that [fits](Self::fits).
    pub(super) fn standing(&self, rule: &Rule, now: u64) -> Standing {
        match &self.state {
            State::Window(state) => {
                let (bounds, window) = &mut *locked(state);
                follow(bounds, rule);
                window.standing(*bounds, now)
            }
            State::Bucket { bucket, .. } => bucket.standing(now),
        }
    }

    /// How much of it is used.
    pub(super) fn used(&self, now: u64) -> u64 {
        match &self.state {
            State::Window(state) => {
                let (bounds, window) = &mut *locked(state);
                window.used(*bounds, now)
            }
            State::Bucket { bucket, .. } => bucket.used(now),
        }
    }
}

impl Settle for Counter {
    fn settle(&self, mark: u64, reserved: u64, used: u64) {
        if used == reserved {
            return;
        }
        let now = self.clock.now();
        match &self.state {
            State::Window(state) => {
                let (bounds, window) = &mut *locked(state);
                window.settle(*bounds, now, mark, reserved, used);
            }
            State::Bucket { bucket, .. } => bucket.settle(now, mark, reserved, used),
        }
    }
}

/// What is asked last counts.
fn follow(bounds: &mut Bounds, rule: &Rule) {
    if let Rule::Window { limit, window } = *rule {
        *bounds = Bounds::new(limit, window);
    }
}

/// A panic under a lock would be in plain arithmetic; whatever it left is better than no limit at all.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
