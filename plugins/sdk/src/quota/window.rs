//! The sliding window: a log of admissions, no older than the window.
//!
//! Invariant: in no half-open window of the length, at whatever nanosecond it begins, do admissions come to more than the limit. It holds because
//! an admission is judged against all that is younger than the length, the last one of any window against all others in it.
//! What is settled to more than was reserved is added when it is settled; that much may stand above the limit.
//!
//! With a limit of at most [`EXACT`] each admission leaves at its own time. Beyond that, admissions of the same 64th of the window
//! (or less) are one entry that leaves as its last part does: up to a 64th of the window too late, never too early. A counter holds at most
//! [`ENTRIES`] entries of 16 bytes: 2 KiB when full, 56 bytes and no heap when nothing was admitted yet.
//!
//! Time is nanoseconds since an origin. What is asked at an earlier time than was asked before is judged at that time.

use std::collections::VecDeque;
use std::time::Duration;

use super::clock::nanoseconds;
use super::{Denied, Standing};

/// The highest limit whose admissions are kept apart.
pub(super) const EXACT: u64 = 64;

/// The most entries of one counter.
pub(super) const ENTRIES: usize = 128;

/// How much in how many nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) limit: u64,
    pub(super) length: u64,
}

impl Bounds {
    /// A window longer than 584 years is one of 584 years.
    pub(super) fn new(limit: u64, window: Duration) -> Self {
        let length = nanoseconds(window);
        Self { limit, length }
    }

    /// Whether two admissions may be one entry: always at the same time, and with a large limit in the same slot. A slot is the largest
    /// power of two of nanoseconds within a 64th of the window, so that a window touches at most 129 of them.
    fn together(&self, one: u64, other: u64) -> bool {
        let slot = (self.length / 64).max(1).ilog2();
        one == other || (self.limit > EXACT && one >> slot == other >> slot)
    }

    /// How long something admitted at `at` still counts at `now`; 0 when it does not.
    fn left(&self, at: u64, now: u64) -> u64 {
        self.length.saturating_sub(now.saturating_sub(at))
    }
}

/// Admissions at about the same time.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When the last of them was.
    at: u64,
    amount: u64,
}

/// What was admitted within a window's length.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// By time; no two with the same.
    entries: VecDeque<Entry>,
    /// The sum of all entries.
    used: u64,
    /// The latest time anything was asked.
    latest: u64,
    /// Marks below this are of entries that have left.
    gone: u64,
}

impl Window {
    /// A window in which `used` was admitted just now.
    pub(super) fn with_used(bounds: Bounds, now: u64, used: u64) -> Self {
        let mut window = Self::default();
        window.pass(bounds, now);
        window.admit(bounds, used);
        window
    }

    /// Takes `amount` at `now`; the mark is for [`settle`](Self::settle).
    pub(super) fn reserve(
        &mut self,
        bounds: Bounds,
        now: u64,
        amount: u64,
    ) -> Result<(u64, Standing), Denied> {
        let late = self.pass(bounds, now);
        if amount > bounds.limit.saturating_sub(self.used) {
            return Err(Denied {
                standing: self.stands(bounds, late),
                retry_after: self.room_in(bounds, amount).map(|wait| after(wait, late)),
            });
        }
        self.admit(bounds, amount);
        Ok((self.latest, self.stands(bounds, late)))
    }

    /// What was reserved under `mark` came to `used`. What is left over is given back unless the admission has left the window already; what is
    /// more is admitted now, whatever the limit.
    pub(super) fn settle(&mut self, bounds: Bounds, now: u64, mark: u64, reserved: u64, used: u64) {
        self.pass(bounds, now);
        if used > reserved {
            self.admit(bounds, used - reserved);
        } else if mark >= self.gone {
            self.give_back(mark, reserved - used);
        }
    }

    /// How it stands at `now`.
    pub(super) fn standing(&mut self, bounds: Bounds, now: u64) -> Standing {
        let late = self.pass(bounds, now);
        self.stands(bounds, late)
    }

    /// What counts at `now`.
    pub(super) fn used(&mut self, bounds: Bounds, now: u64) -> u64 {
        self.pass(bounds, now);
        self.used
    }

    /// What counts at `now`: how long ago it was admitted, and how much.
    pub(super) fn recent(&mut self, bounds: Bounds, now: u64) -> Vec<(u64, u64)> {
        self.pass(bounds, now);
        let entries = self.entries.iter();
        entries
            .map(|entry| (self.latest - entry.at, entry.amount))
            .collect()
    }

    /// Goes on from what another window admitted until `now`, as [`recent`](Self::recent) tells it; what this one admitted is forgotten.
    pub(super) fn resume(&mut self, bounds: Bounds, now: u64, admitted: &[(u64, u64)]) {
        *self = Self::default();
        for (age, amount) in admitted {
            self.pass(bounds, now.saturating_sub(*age));
            self.admit(bounds, *amount);
        }
        self.pass(bounds, now);
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Lets time pass up to `now` and drops what has left the window. Returns by how much `now` is behind the latest time, to which everything
    /// is judged: what was dropped for a later asker must not be missing for an earlier one.
    #[inline(never)]
    fn pass(&mut self, bounds: Bounds, now: u64) -> u64 {
        self.latest = self.latest.max(now);
        while let Some(first) = self.entries.front().copied() {
            if bounds.left(first.at, self.latest) > 0 {
                break;
            }
            self.entries.pop_front();
            self.used -= first.amount;
            self.gone = first.at.saturating_add(1);
        }
        self.latest - now
    }

    /// Adds what is used from the latest time on. A sum beyond `u64` stays at its maximum.
    fn admit(&mut self, bounds: Bounds, amount: u64) {
        let amount = amount.min(u64::MAX - self.used);
        if amount == 0 {
            return;
        }
        self.used += amount;
        let (now, full) = (self.latest, self.entries.len() >= ENTRIES);
        match self.entries.back_mut() {
            Some(last) if full || bounds.together(last.at, now) => {
                last.at = now;
                last.amount += amount;
            }
            _ => self.entries.push_back(Entry { at: now, amount }),
        }
    }

    /// Takes back some of the entry that has the admission at `mark`: the first that is not older, since entries only grow younger.
    fn give_back(&mut self, mark: u64, amount: u64) {
        let before = |entry: &Entry| entry.at < mark;
        // Mostly it was admitted just now.
        let last = self.entries.len().saturating_sub(1);
        let at = match self.entries.get(last.wrapping_sub(1)) {
            Some(last_but_one) if before(last_but_one) => last,
            _ => self.entries.partition_point(before),
        };
        let Some(entry) = self.entries.get_mut(at) else {
            return;
        };
        let back = amount.min(entry.amount);
        entry.amount -= back;
        self.used -= back;
        // Nobody can want anything of an empty entry, and with small limits there must be room for as many entries as the limit.
        if entry.amount == 0 {
            self.entries.remove(at);
        }
    }

    /// How long after the latest time there is room for `amount`.
    fn room_in(&self, bounds: Bounds, amount: u64) -> Option<u64> {
        let mut excess = self.used.saturating_sub(bounds.limit.checked_sub(amount)?);
        for entry in &self.entries {
            excess = excess.saturating_sub(entry.amount);
            if excess == 0 {
                return Some(bounds.left(entry.at, self.latest));
            }
        }
        Some(0)
    }

    fn stands(&self, bounds: Bounds, late: u64) -> Standing {
        let left = |last: &Entry| after(bounds.left(last.at, self.latest), late);
        Standing {
            limit: bounds.limit,
            remaining: bounds.limit.saturating_sub(self.used),
            reset: self.entries.back().map(left).unwrap_or_default(),
        }
    }
}

fn after(wait: u64, late: u64) -> Duration {
    Duration::from_nanos(wait.saturating_add(late))
}
