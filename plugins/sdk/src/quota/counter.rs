//! What one user of one limit has used: a window or a calendar's period behind a lock, a bucket, or places.
//!
//! Leases hold their counter, so that they settle without looking for it. Invariant: a counter's lock is held for arithmetic only,
//! and under it no other lock is taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::bucket::Bucket;
use super::calendar::Calendar;
use super::clock::Clock;
use super::concurrent::Concurrent;
use super::window::{Bounds, Window};
use super::{Denied, Period, Recent, Rule, Settle, Standing};

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
    /// Made for one length of period; the limit is the rule's that is asked last.
    Calendar(Mutex<Calendar>, Period),
    /// The limit is the rule's that is asked last.
    Concurrent(Concurrent),
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
            Rule::Calendar { period, .. } => {
                let calendar = Calendar::new(period, clock.unix(), used);
                State::Calendar(Mutex::new(calendar), period)
            }
            // What was used is not what is held.
            Rule::Concurrent { .. } => State::Concurrent(Concurrent::new()),
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
            (State::Calendar(_, made_for), Rule::Calendar { period, .. }) => made_for == period,
            (State::Concurrent(_), Rule::Concurrent { .. }) => true,
            _ => false,
        }
    }

    /// A counter for another rule, from which as much is missing as from this one. Leases of this one settle with this one, so what they
    /// would give back stays used until time restores it. Places that are held are nothing that time restores: they do not count by another rule.
    pub(super) fn converted(&self, rule: &Rule, now: u64) -> Self {
        let used = match &self.state {
            State::Concurrent(_) => 0,
            _ => self.used(now),
        };
        Self::new(self.clock.clone(), rule, now, used)
    }

    /// Takes `amount` by a rule that [fits](Self::fits); by another the one it was made for counts. A place is only held, so nobody has one that is
    /// taken `for_good`.
    pub(super) fn reserve(
        &self,
        rule: &Rule,
        now: u64,
        amount: u64,
        for_good: bool,
    ) -> Result<(u64, Standing), Denied> {
        match &self.state {
            State::Window(state) => {
                let (bounds, window) = &mut *locked(state);
                follow(bounds, rule);
                window.reserve(*bounds, now, amount)
            }
            State::Bucket { bucket, .. } => bucket.reserve(now, amount),
            State::Calendar(state, _) => {
                let unix = self.clock.unix();
                locked(state).reserve(rule.most(), unix, amount)
            }
            State::Concurrent(places) => {
                let standing = places.reserve(rule.most(), amount)?;
                if for_good {
                    places.give_back(amount);
                }
                Ok((0, standing))
            }
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
            State::Calendar(state, _) => {
                let unix = self.clock.unix();
                locked(state).standing(rule.most(), unix)
            }
            State::Concurrent(places) => places.standing(rule.most()),
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
            State::Calendar(state, _) => {
                let unix = self.clock.unix();
                locked(state).used(unix)
            }
            State::Concurrent(places) => places.held(),
        }
    }

    /// Whether it counts by the calendar: what it has lasts longer than the process may.
    pub(super) fn is_calendar(&self) -> bool {
        matches!(self.state, State::Calendar(..))
    }

    /// The period it counts, when the current one began, and what is used of it; `None` if it does not count by the calendar.
    pub(super) fn held(&self) -> Option<(Period, u64, u64)> {
        let State::Calendar(state, period) = &self.state else {
            return None;
        };
        let (start, used) = locked(state).held(self.clock.unix());
        Some((*period, start, used))
    }

    /// Somebody else used so much more, or less.
    pub(super) fn adjust(&self, start: u64, by: i64) {
        if let State::Calendar(state, _) = &self.state {
            locked(state).adjust(self.clock.unix(), start, by);
        }
    }

    /// What was used lately; `None` if nothing, and for what neither slides nor flows back.
    pub(super) fn recent(&self, now: u64) -> Option<Recent> {
        match &self.state {
            State::Window(state) => {
                let (bounds, window) = &mut *locked(state);
                let admitted = window.recent(*bounds, now);
                let Bounds { limit, length } = *bounds;
                (!admitted.is_empty()).then_some(Recent::Window {
                    limit,
                    length,
                    admitted,
                })
            }
            State::Bucket {
                rate,
                burst,
                bucket,
            } => {
                let full_in = bucket.backlog(now);
                (full_in > 0).then_some(Recent::Bucket {
                    rate: *rate,
                    burst: *burst,
                    full_in,
                })
            }
            State::Calendar(..) | State::Concurrent(_) => None,
        }
    }

    /// What [`recent`](Self::recent) told of another process.
    pub(super) fn resume(&self, now: u64, recent: &Recent) {
        match (&self.state, recent) {
            (State::Window(state), Recent::Window { admitted, .. }) => {
                let (bounds, window) = &mut *locked(state);
                window.resume(*bounds, now, admitted);
            }
            (State::Bucket { bucket, .. }, Recent::Bucket { full_in, .. }) => {
                bucket.delay(now, *full_in);
            }
            _ => {}
        }
    }
}

impl Settle for Counter {
    fn settle(&self, mark: u64, reserved: u64, used: u64, at: Option<Instant>) {
        if let State::Concurrent(places) = &self.state {
            places.give_back(reserved);
            return;
        }
        if used == reserved {
            return;
        }
        let now = at.map_or_else(|| self.clock.now(), |at| self.clock.at(at));
        match &self.state {
            State::Window(state) => {
                let (bounds, window) = &mut *locked(state);
                window.settle(*bounds, now, mark, reserved, used);
            }
            State::Bucket { bucket, .. } => bucket.settle(now, mark, reserved, used),
            State::Calendar(state, _) => {
                let unix = self.clock.unix();
                locked(state).settle(unix, mark, reserved, used);
            }
            State::Concurrent(_) => {}
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
