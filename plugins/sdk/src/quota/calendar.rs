//! Counting in periods of the calendar: days and months, in UTC.
//!
//! It owns the arithmetic of dates and one user's count; what time it is comes by parameter, as seconds since 1970. Invariant: what a period
//! admitted never comes to more than the limit, but for what was settled to more than was reserved, and nothing of one period touches another.
//!
//! Dates are those of the proleptic Gregorian calendar, by the method of Howard Hinnant's "chrono-compatible low-level date algorithms"
//! (`civil_from_days`): years begin with March, so that the leap day is their last. Leap seconds do not exist, as in all Unix time.
//!
//! A clock that is set back by less than [`JITTER`] into an earlier period goes on in the later one, so that nobody gets a period twice; one
//! that is set back further had been wrong, and is believed.

use std::time::Duration;

use super::{Denied, Period, Standing};

const DAY: u64 = 86_400;

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: u64 = 719_468;

/// Days of 400 years.
const ERA: u64 = 146_097;

/// How far, in seconds, a clock may be set back before it is believed.
pub(super) const JITTER: u64 = DAY;

impl Period {
    /// When the period began that holds `unix`; both in seconds since 1970.
    pub fn start(self, unix: u64) -> u64 {
        let day = unix / DAY;
        match self {
            Self::Day => day * DAY,
            Self::Month => day.saturating_sub(day_of_month(day)) * DAY,
        }
    }

    /// When the period after the one that holds `unix` begins.
    pub fn next(self, unix: u64) -> u64 {
        match self {
            Self::Day => self.start(unix).saturating_add(DAY),
            // No month has 32 days, and every one has more than 28.
            Self::Month => self.start(self.start(unix).saturating_add(31 * DAY)),
        }
    }
}

/// Which day of its month a day since 1970 is, from 0.
fn day_of_month(day: u64) -> u64 {
    let of_era = (day + EPOCH) % ERA;
    // Every 4 years one day more than 365 a year, every 100 one less, every 400 one more.
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    of_year - (153 * month + 2) / 5
}

/// What one user used of the current period.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    period: Period,
    /// When the period began.
    start: u64,
    used: u64,
}

impl Calendar {
    /// A count of which `used` was used in the current period.
    pub(super) fn new(period: Period, unix: Duration, used: u64) -> Self {
        Self {
            period,
            start: period.start(unix.as_secs()),
            used,
        }
    }

    /// Takes `amount`; the mark is for [`settle`](Self::settle).
    pub(super) fn reserve(
        &mut self,
        limit: u64,
        unix: Duration,
        amount: u64,
    ) -> Result<(u64, Standing), Denied> {
        self.pass(unix);
        if amount > limit.saturating_sub(self.used) {
            return Err(Denied {
                standing: self.stands(limit, unix),
                retry_after: (amount <= limit).then(|| self.left(unix)),
            });
        }
        self.used = self.used.saturating_add(amount);
        Ok((self.start, self.stands(limit, unix)))
    }

    /// What was reserved under `mark` came to `used`; of another period it changes nothing.
    pub(super) fn settle(&mut self, unix: Duration, mark: u64, reserved: u64, used: u64) {
        self.pass(unix);
        if mark == self.start {
            self.used = self.used.saturating_sub(reserved).saturating_add(used);
        }
    }

    /// How it stands.
    pub(super) fn standing(&mut self, limit: u64, unix: Duration) -> Standing {
        self.pass(unix);
        self.stands(limit, unix)
    }

    /// What is used of the current period.
    pub(super) fn used(&mut self, unix: Duration) -> u64 {
        self.pass(unix);
        self.used
    }

    /// When the current period began, and what is used of it.
    pub(super) fn held(&mut self, unix: Duration) -> (u64, u64) {
        self.pass(unix);
        (self.start, self.used)
    }

    /// So much more, or less, was used in the period that began at `start`, if that is the current one.
    pub(super) fn adjust(&mut self, unix: Duration, start: u64, by: i64) {
        self.pass(unix);
        if start == self.start {
            self.used = self.used.saturating_add_signed(by);
        }
    }

    fn pass(&mut self, unix: Duration) {
        let unix = unix.as_secs();
        let start = self.period.start(unix);
        let set_back = start < self.start && self.start - unix <= JITTER;
        if start != self.start && !set_back {
            self.start = start;
            self.used = 0;
        }
    }

    /// How long the period lasts still.
    fn left(&self, unix: Duration) -> Duration {
        Duration::from_secs(self.period.next(self.start)).saturating_sub(unix)
    }

    fn stands(&self, limit: u64, unix: Duration) -> Standing {
        Standing {
            limit,
            remaining: limit.saturating_sub(self.used),
            reset: self.left(unix),
        }
    }
}
