//! Limits: reserve, then settle.
//!
//! A [`Limit`] says how much of something (requests, tokens, thousandths of a cent) may be used in how much time, by whom it is
//! counted. [`Quota::reserve`] takes an amount before it is used and returns a [`Lease`]; when the truth is known the lease is settled
//! to it, and a lease dropped without a word gives all of it back, so that what was refused or never ran is not charged.
//!
//! Four rules. [`Rule::Window`] slides: in no window of that length, wherever it begins, is more admitted than the limit.
//! [`Rule::Bucket`] is a token bucket: a steady rate with a burst. [`Rule::Calendar`] counts anew with every day or month.
//! [`Rule::Concurrent`] counts what is held at the same time. The arithmetic of all is pure; only [`Local`] knows a clock.

mod bucket;
mod calendar;
mod carried;
mod clock;
mod concurrent;
mod counter;
mod local;
mod standing;
#[cfg(test)]
mod tests;
mod who;
mod window;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use carried::{Carried, Recent};
pub use clock::{Clock, ManualClock, SystemClock};
pub use local::Local;
pub use standing::{Lines, Standing, Standings};
pub use who::{User, Who};

/// How much in how much time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// At most `limit` in any `window`.
    Window {
        /// The most that is admitted.
        limit: u64,
        /// The length of the window.
        window: Duration,
    },
    /// `rate` a second, saved up to `burst`.
    Bucket {
        /// What comes back in a second; more than 0.
        rate: f64,
        /// What can be had at once after a rest; at least 1.
        burst: u64,
    },
    /// At most `limit` in every period of the calendar, UTC.
    Calendar {
        /// The most that is admitted.
        limit: u64,
        /// How long it is counted.
        period: Period,
    },
    /// At most `limit` held at the same time. An amount is taken until its lease ends, whatever it is settled to.
    Concurrent {
        /// How many there may be.
        limit: u64,
    },
}

impl Rule {
    /// The most that can ever be had at once.
    pub fn most(&self) -> u64 {
        match *self {
            Self::Window { limit, .. }
            | Self::Calendar { limit, .. }
            | Self::Concurrent { limit } => limit,
            Self::Bucket { burst, .. } => burst,
        }
    }
}

/// A period of the calendar, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

/// What somebody has used of a limit by the calendar: what is to be kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The limit's identity.
    pub limit: Box<str>,
    /// Whose it is.
    pub who: Box<str>,
    /// How long it counts.
    pub period: Period,
    /// When that period began, in seconds since 1970.
    pub start: u64,
    /// What is used of it: of exchanges that are not over, what they reserved.
    pub used: u64,
}

/// A limit with an identity: the same limit of the same owner keeps its state over every change of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Whose it is and which, for instance `gateway/main/rate_limiter/0/per_key/requests`.
    pub id: LimitId,
    /// What it allows.
    pub rule: Rule,
}

/// A limit's identity, with the number it is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitId {
    name: Arc<str>,
    number: u64,
}

impl LimitId {
    /// Whether it is this one; mostly it is the very same.
    fn is(&self, other: &LimitId) -> bool {
        Arc::ptr_eq(&self.name, &other.name) || self == other
    }
}

impl<T: Into<Arc<str>>> From<T> for LimitId {
    /// The number comes from the configuration, so nobody makes two meet on purpose; if they do, the name still tells them apart.
    fn from(name: T) -> Self {
        let name = name.into();
        let (words, rest) = name.as_bytes().as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        let rest = rest.iter().map(|byte| u64::from(*byte));
        let number = words.chain(rest).fold(name.len() as u64, |number, word| {
            (number ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
        });
        Self { name, number }
    }
}

/// Why nothing was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// How it stands.
    pub standing: Standing,
    /// When the same amount can be had, if nobody takes it before; `None` if never, being more than the limit.
    pub retry_after: Option<Duration>,
}

impl Denied {
    /// How long to wait before asking again.
    pub fn wait(&self) -> Duration {
        self.retry_after.unwrap_or(self.standing.reset)
    }
}

/// Where limits are counted. The one in this process is [`Local`]; a shared one can take its place.
pub trait Quota: Send + Sync {
    /// Takes `amount` from a limit for `who`, or nothing. Asked by who has just looked at the clock, at `now`. With the lease comes how the limit
    /// stands right after. What is taken `for_good` is charged whatever becomes of the lease: nothing of it will be given back.
    ///
    /// # Errors
    /// [`Denied`] when less than that is left.
    fn take_at(
        &self,
        limit: &Limit,
        who: &Who<'_>,
        amount: u64,
        now: Instant,
        for_good: bool,
    ) -> Result<(Lease, Standing), Denied>;

    /// Takes `amount` until it is settled, just now.
    ///
    /// # Errors
    /// [`Denied`] when less than that is left.
    fn reserve(&self, limit: &Limit, who: &str, amount: u64) -> Result<Lease, Denied> {
        let (lease, _) = self.take_at(limit, &Who::new(who), amount, Instant::now(), false)?;
        Ok(lease)
    }

    /// Takes `amount` for good, just now.
    ///
    /// # Errors
    /// [`Denied`] when less than that is left.
    fn charge(&self, limit: &Limit, who: &str, amount: u64) -> Result<Standing, Denied> {
        let (_, standing) = self.take_at(limit, &Who::new(who), amount, Instant::now(), true)?;
        Ok(standing)
    }

    /// How a limit stands for `who`.
    fn standing(&self, limit: &Limit, who: &str) -> Standing;

    /// What limits by the calendar hold now: what is to be kept over a restart. Nothing, where counts outlive processes anyway.
    fn export(&self) -> Vec<Held> {
        Vec::new()
    }

    /// Others, or this process's predecessor, counted `by` more, or less, of a period than is known here; if it is over, that changes nothing.
    /// `held.used` is not looked at.
    fn adjust(&self, held: &Held, by: i64) {
        let _ = (held, by);
    }

    /// What other limits have counted lately, for [`resume`](Self::resume) in a process that takes over at once. Places that are held are not
    /// part of it: whoever holds them is still here.
    fn recent(&self) -> Vec<Carried> {
        Vec::new()
    }

    /// Goes on from what another process counted until just now. Once, before the first reservation.
    fn resume(&self, carried: &[Carried]) {
        let _ = carried;
    }
}

/// Something a lease can be settled with.
pub trait Settle: Send + Sync {
    /// What was reserved as `reserved` came to `used`. `mark` is what the quota gave the lease. Called once for every lease, also when both are
    /// the same: the lease is over.
    /// It was at the time `at`, if whoever settles knows.
    fn settle(&self, mark: u64, reserved: u64, used: u64, at: Option<Instant>);
}

/// An amount that is taken until it is settled.
pub struct Lease {
    of: Option<Arc<dyn Settle>>,
    mark: u64,
    reserved: u64,
}

impl Lease {
    /// What a quota gives out.
    pub fn new(of: Arc<dyn Settle>, mark: u64, reserved: u64) -> Self {
        Self {
            of: Some(of),
            mark,
            reserved,
        }
    }

    /// Of which nothing can be given back.
    fn settled(reserved: u64) -> Self {
        Self {
            of: None,
            mark: 0,
            reserved,
        }
    }

    /// What was reserved.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// It came to `used`, which may be more than was reserved.
    pub fn settle(self, used: u64) {
        self.settle_at(used, None);
    }

    /// The same for who has just looked at the clock.
    pub fn settle_at(mut self, used: u64, at: Option<Instant>) {
        if let Some(of) = self.of.take() {
            of.settle(self.mark, self.reserved, used, at);
        }
    }

    /// It came to what was reserved. A place of [`Rule::Concurrent`] is given back by this, too: hold the lease as long as the place.
    pub fn keep(self) {
        let reserved = self.reserved;
        self.settle(reserved);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(of) = self.of.take() {
            of.settle(self.mark, self.reserved, 0, None);
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("reserved", &self.reserved)
            .finish_non_exhaustive()
    }
}
