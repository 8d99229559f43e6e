//! What an exchange used, how it is added up, and how a question about it is split.
//!
//! Two things are kept: each exchange's record, and sums by hour and by whom. A question is answered from the sums for its whole hours
//! and from records for the broken hours at its ends, so that it is exact and still costs little. Pure; the stores use it.
//!
//! Invariant: a record is in the sums of its own hour, by the start of the exchange, and nowhere else.

use std::ops::{AddAssign, Range};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Longest name of a model that is kept, in bytes: clients choose them. Longer ones are cut.
pub const MODEL_BYTES: usize = 128;
/// The model of what a gateway's clients asked for when they had named too many models in the hour.
pub const OTHER: &str = "(other)";
/// Milliseconds in an hour.
pub(super) const HOUR: i64 = 3_600_000;
/// Status of an exchange whose client left: its own doing, so no error.
const CLIENT_LEFT: u16 = 499;
/// Most money one exchange can cost, about a million units: so that no sum of untrue reports can overflow.
const MOST_COST: u64 = 1 << 40;

/// What one exchange used.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageRecord {
    /// When the request came.
    pub at: SystemTime,
    /// The gateway.
    pub gateway: Arc<str>,
    /// The key's name; empty if there was none.
    pub key: Arc<str>,
    /// The service that answered; empty if none did.
    pub service: Arc<str>,
    /// The model as the client named it; empty if it did not. At most [`MODEL_BYTES`] of it are kept.
    pub model: Arc<str>,
    /// The status of the answer; 499 if the client left before.
    pub status: u16,
    /// Tokens of the request, `cached` among them. More than 2³²−1 count as that, here and below.
    pub input: u64,
    /// Tokens of the request that the engine had in its cache.
    pub cached: u64,
    /// Tokens of the answer.
    pub output: u64,
    /// The tokens are our estimate, not the engine's report.
    pub estimated: bool,
    /// From the request to the end of the answer.
    pub duration: Duration,
    /// From the request to the first byte of the answer; `None` if none came.
    pub first_byte: Option<Duration>,
    /// What it cost, in millionths of a unit of money; `None` if it has no price.
    pub cost: Option<u64>,
}

/// What usage is grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The key's name.
    Key,
    /// The model as clients named it.
    Model,
    /// The service.
    Service,
    /// The gateway.
    Gateway,
    /// The day, as `2026-01-31`, in UTC.
    Day,
}

/// A question about usage.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// What is a group.
    pub by: By,
    /// Exchanges that began at this time or later, to the millisecond.
    pub since: SystemTime,
    /// Exchanges that began before this time.
    pub until: SystemTime,
    /// Only this gateway's.
    pub gateway: Option<String>,
    /// Only this key's.
    pub key: Option<String>,
}

/// What a group used.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The group's name; empty for exchanges without one.
    pub name: String,
    /// Exchanges.
    pub requests: u64,
    /// Exchanges with a status of 400 or more, except 499 (the client left).
    pub errors: u64,
    /// Tokens of requests, cached ones among them.
    pub input_tokens: u64,
    /// Tokens of requests that engines had in their cache.
    pub cached_tokens: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// Cost in units of money.
    pub cost: f64,
}

impl UsageRecord {
    /// Bounds the length of its name.
    pub(super) fn bound(&mut self) {
        if self.model.len() > MODEL_BYTES {
            let end = self.model.floor_char_boundary(MODEL_BYTES);
            self.model = self.model.get(..end).unwrap_or_default().into();
        }
    }

    /// When it began, in milliseconds since 1970.
    pub(super) fn milliseconds(&self) -> i64 {
        milliseconds(self.at)
    }

    /// The hour it belongs to, in seconds since 1970.
    pub(super) fn hour(&self) -> i64 {
        floor(self.milliseconds()) / 1000
    }

    pub(super) fn sums(&self) -> Sums {
        let tokens = |count: u64| i64::from(u32::try_from(count).unwrap_or(u32::MAX));
        Sums {
            requests: 1,
            errors: i64::from(failed(self.status)),
            input: tokens(self.input),
            cached: tokens(self.cached),
            output: tokens(self.output),
            cost: self.price().unwrap_or(0),
            duration: microseconds(self.duration),
        }
    }

    pub(super) fn price(&self) -> Option<i64> {
        let cost = self.cost?.min(MOST_COST);
        Some(i64::try_from(cost).unwrap_or(i64::MAX))
    }
}

/// Whether a status counts as an error.
pub(super) fn failed(status: u16) -> bool {
    status >= 400 && status != CLIENT_LEFT
}

/// A duration in whole microseconds, of at most a year.
pub(super) fn microseconds(duration: Duration) -> i64 {
    let duration = duration.min(Duration::from_hours(365 * 24));
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970; 0 for any time before.
pub(super) fn milliseconds(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default().as_millis();
    // Year 10000, far from any overflow.
    i64::try_from(since).map_or(253_402_300_800_000, |ms| ms.min(253_402_300_800_000))
}

/// The start of the hour a time is in, both in milliseconds.
pub(super) fn floor(at: i64) -> i64 {
    at - at.rem_euclid(HOUR)
}

/// The first start of an hour that is not before a time, both in milliseconds.
pub(super) fn ceil(at: i64) -> i64 {
    floor(at + HOUR - 1)
}

/// What is added up. Amounts are bounded where records come in, so that sums of billions of them fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) requests: i64,
    pub(super) errors: i64,
    pub(super) input: i64,
    pub(super) cached: i64,
    pub(super) output: i64,
    /// In millionths.
    pub(super) cost: i64,
    /// In microseconds.
    pub(super) duration: i64,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        let add = |sum: &mut i64, amount| *sum = sum.saturating_add(amount);
        add(&mut self.requests, other.requests);
        add(&mut self.errors, other.errors);
        add(&mut self.input, other.input);
        add(&mut self.cached, other.cached);
        add(&mut self.output, other.output);
        add(&mut self.cost, other.cost);
        add(&mut self.duration, other.duration);
    }
}

impl Sums {
    pub(super) fn row(&self, name: String) -> Row {
        let count = |sum: i64| u64::try_from(sum).unwrap_or(0);
        Row {
            name,
            requests: count(self.requests),
            errors: count(self.errors),
            input_tokens: count(self.input),
            cached_tokens: count(self.cached),
            output_tokens: count(self.output),
            cost: self.cost as f64 / 1e6,
        }
    }
}

/// What sums are kept by. The hour comes first, so that old ones are together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Group {
    /// Seconds since 1970.
    pub(super) hour: i64,
    pub(super) gateway: Arc<str>,
    pub(super) key: Arc<str>,
    pub(super) service: Arc<str>,
    pub(super) model: Arc<str>,
}

impl Group {
    /// Where a record counts; its model may be [`OTHER`].
    pub(super) fn of(record: &UsageRecord, model: Arc<str>) -> Self {
        Self {
            hour: record.hour(),
            gateway: record.gateway.clone(),
            key: record.key.clone(),
            service: record.service.clone(),
            model,
        }
    }

    /// Whether a record counts here under the name its model has.
    pub(super) fn has(&self, record: &UsageRecord) -> bool {
        let same = |a: &Arc<str>, b: &Arc<str>| Arc::ptr_eq(a, b) || a == b;
        same(&self.key, &record.key)
            && same(&self.gateway, &record.gateway)
            && same(&self.service, &record.service)
            && same(&self.model, &record.model)
            && self.hour == record.hour()
    }
}

impl By {
    /// What a group is called.
    pub(super) fn name(self, group: &Group) -> String {
        match self {
            By::Key => group.key.to_string(),
            By::Model => group.model.to_string(),
            By::Service => group.service.to_string(),
            By::Gateway => group.gateway.to_string(),
            By::Day => jiff::Timestamp::from_second(group.hour)
                .map(|at| at.strftime("%Y-%m-%d").to_string())
                .unwrap_or_default(),
        }
    }
}

/// Where the answer to a question is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Hours that count whole, in seconds since 1970.
    pub(super) hours: Range<i64>,
    /// Records that count one by one, in milliseconds since 1970. None of the two crosses the start of an hour.
    pub(super) edges: [Range<i64>; 2],
}

impl Plan {
    /// For milliseconds `since..until`, where records of hours before `records_from` are gone: such an hour counts whole.
    pub(super) fn new(since: i64, until: i64, records_from: i64) -> Self {
        let (first, last) = (ceil(since), floor(until));
        let (mut hours, edges) = if since >= until {
            (0..0, [0..0, 0..0])
        } else if first <= last {
            (first..last, [since..first, last..until])
        } else {
            // Both ends are in the same hour. Its start is where it can join as a whole.
            (floor(since)..floor(since), [since..until, 0..0])
        };
        let edges = edges.map(|edge| {
            if edge.is_empty() {
                return 0..0;
            }
            if floor(edge.start) >= records_from {
                return edge;
            }
            hours.start = hours.start.min(floor(edge.start));
            hours.end = hours.end.max(ceil(edge.end));
            0..0
        });
        Self {
            hours: hours.start / 1000..hours.end / 1000,
            edges,
        }
    }
}

/// The order in which rows are shown.
pub(super) fn sort(by: By, rows: &mut [Row]) {
    rows.sort_by(|a, b| {
        let requests = match by {
            By::Day => std::cmp::Ordering::Equal,
            _ => b.requests.cmp(&a.requests),
        };
        requests.then_with(|| a.name.cmp(&b.name))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In hours and quarters, to be readable.
    fn plan(since: f64, until: f64, records_from: f64) -> (Range<f64>, Vec<Range<f64>>) {
        let ms = |hours: f64| (hours * HOUR as f64) as i64;
        let Plan { hours, edges } = Plan::new(ms(since), ms(until), ms(records_from));
        let hours = hours.start as f64 / 3600.0..hours.end as f64 / 3600.0;
        let edges = edges.into_iter().filter(|edge| !edge.is_empty());
        let edge =
            |edge: Range<i64>| edge.start as f64 / HOUR as f64..edge.end as f64 / HOUR as f64;
        (hours, edges.map(edge).collect())
    }

    #[test]
    fn only_broken_hours_are_counted_by_records() {
        assert_eq!(plan(1.0, 4.0, 0.0), (1.0..4.0, vec![]));
        assert_eq!(plan(1.25, 4.5, 0.0), (2.0..4.0, vec![1.25..2.0, 4.0..4.5]));
        assert_eq!(plan(1.25, 4.0, 0.0), (2.0..4.0, vec![1.25..2.0]));
        assert_eq!(plan(1.25, 1.5, 0.0).1, [1.25..1.5]);
        assert!(plan(1.25, 1.5, 0.0).0.is_empty());
        // Two broken hours side by side, and none between.
        let (hours, edges) = plan(1.25, 2.5, 0.0);
        assert!(hours.is_empty());
        assert_eq!(edges, [1.25..2.0, 2.0..2.5]);
        let (hours, edges) = plan(4.0, 4.0, 0.0);
        assert!(hours.is_empty() && edges.is_empty());
        let (hours, edges) = plan(4.5, 1.5, 0.0);
        assert!(hours.is_empty() && edges.is_empty());
    }

    #[test]
    fn an_hour_without_its_records_counts_whole() {
        assert_eq!(plan(1.25, 4.5, 2.0), (1.0..4.0, vec![4.0..4.5]));
        assert_eq!(plan(1.25, 4.5, 5.0), (1.0..5.0, vec![]));
        assert_eq!(plan(1.25, 1.5, 2.0), (1.0..2.0, vec![]));
        assert_eq!(plan(1.25, 2.5, 2.0), (1.0..2.0, vec![2.0..2.5]));
        assert_eq!(plan(1.25, 2.5, 9.0), (1.0..3.0, vec![]));
    }
}
