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
#[cfg(test)]
mod tests;
mod window;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

pub use carried::{Carried, Recent};
pub use clock::{Clock, ManualClock, SystemClock};
pub use local::Local;

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
    pub id: Arc<str>,
    /// What it allows.
    pub rule: Rule,
}

/// How a limit stands for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The limit, or the burst.
    pub limit: u64,
    /// What is left of it now.
    pub remaining: u64,
    /// When all of it is back, if nothing more is used.
    pub reset: Duration,
}

impl Standing {
    /// The names that OpenAI uses for requests: the limit, what remains, and the reset.
    pub const REQUESTS: [HeaderName; 3] = [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ];
    /// Its names for tokens.
    pub const TOKENS: [HeaderName; 3] = [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ];

    /// For the client, by these names: the reset in whole seconds, not too early.
    pub fn put(&self, names: [HeaderName; 3], put: &mut impl FnMut(HeaderName, HeaderValue)) {
        for (name, value) in names.into_iter().zip(self.values()) {
            put(name, number(value));
        }
    }

    /// What lines of an HTTP/1 head begin with that tell the same of requests.
    pub const REQUEST_LINES: [&str; 3] = [
        "x-ratelimit-limit-requests: ",
        "x-ratelimit-remaining-requests: ",
        "x-ratelimit-reset-requests: ",
    ];
    /// And of tokens.
    pub const TOKEN_LINES: [&str; 3] = [
        "x-ratelimit-limit-tokens: ",
        "x-ratelimit-remaining-tokens: ",
        "x-ratelimit-reset-tokens: ",
    ];

    /// The same as such lines, each with its line break.
    pub fn write(&self, beginnings: [&str; 3], lines: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        for (beginning, value) in beginnings.into_iter().zip(self.values()) {
            for part in [beginning, digits.format(value), "\r\n"] {
                lines.extend_from_slice(part.as_bytes());
            }
        }
    }

    fn values(&self) -> [u64; 3] {
        let begun = u64::from(self.reset.subsec_nanos() > 0);
        let reset = self.reset.as_secs().saturating_add(begun);
        [self.limit, self.remaining, reset]
    }

    /// The same as a list.
    pub fn headers(&self, names: [HeaderName; 3]) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::with_capacity(names.len());
        self.put(names, &mut |name, value| headers.push((name, value)));
        headers
    }
}

/// A number as a header. The small ones, which most are, are there already.
fn number(value: u64) -> HeaderValue {
    static SMALL: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
        let mut digits = String::new();
        let ends: Vec<usize> = (0..=3600)
            .map(|number| {
                digits += &number.to_string();
                digits.len()
            })
            .collect();
        // One text for all of them, for as long as the process lives: copies of them are not counted.
        let digits: &'static str = Box::leak(digits.into_boxed_str());
        let begins = std::iter::once(0).chain(ends.iter().copied());
        let texts = begins
            .zip(&ends)
            .filter_map(|(from, to)| digits.get(from..*to));
        texts.map(HeaderValue::from_static).collect()
    });
    let small = usize::try_from(value).ok().and_then(|at| SMALL.get(at));
    small.cloned().unwrap_or_else(|| {
        let mut digits = itoa::Buffer::new();
        // In one piece of memory of its own size, which the conversion from a number would not be.
        HeaderValue::from_str(digits.format(value)).unwrap_or_else(|_| value.into())
    })
}

/// Why nothing was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// How it stands.
    pub standing: Standing,
    /// When the same amount can be had, if nobody takes it before; `None` if never, being more than the limit.
    pub retry_after: Option<Duration>,
}

/// Where limits are counted. The one in this process is [`Local`]; a shared one can take its place.
pub trait Quota: Send + Sync {
    /// Takes `amount` from a limit for `who`, or nothing.
    ///
    /// # Errors
    /// [`Denied`] when less than that is left.
    fn reserve(&self, limit: &Limit, who: &str, amount: u64) -> Result<Lease, Denied>;

    /// The same for who has just looked at the clock, at `now`.
    ///
    /// # Errors
    /// [`Denied`] when less than that is left.
    fn reserve_at(
        &self,
        limit: &Limit,
        who: &str,
        amount: u64,
        now: Instant,
    ) -> Result<Lease, Denied> {
        let _ = now;
        self.reserve(limit, who, amount)
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

/// Reserves of several limits at once: all of it, or none. Each is a limit, who asks, and how much.
///
/// They are taken one after the other, so for a moment somebody else may be refused because of what is about to be given back; nobody is ever
/// admitted beyond a limit.
///
/// # Errors
/// The index of the first that refused, and why. What was reserved before it is given back.
pub fn reserve_all(
    quota: &dyn Quota,
    wanted: &[(&Limit, &str, u64)],
) -> Result<Vec<Lease>, (usize, Denied)> {
    let mut leases = Vec::with_capacity(wanted.len());
    for (index, (limit, who, amount)) in wanted.iter().enumerate() {
        // Leases that are dropped give back.
        let lease = quota.reserve(limit, who, *amount);
        leases.push(lease.map_err(|denied| (index, denied))?);
    }
    Ok(leases)
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
    standing: Standing,
}

impl Lease {
    /// What a quota gives out.
    pub fn new(of: Arc<dyn Settle>, mark: u64, reserved: u64, standing: Standing) -> Self {
        Self {
            of: Some(of),
            mark,
            reserved,
            standing,
        }
    }

    /// How the limit stood right after the reservation.
    pub fn standing(&self) -> Standing {
        self.standing
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
