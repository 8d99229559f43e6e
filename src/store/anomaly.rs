//! Does a key's last hour leave what it usually does?
//!
//! The measure is the modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993): 0.6745·(x − median) / MAD, where
//! MAD is the median of the distances from the median. Unlike mean and deviation, neither is moved by the outliers that are looked for. An
//! hour is an anomaly if it is far above two things: the whole history, and the same time of day on earlier days, so that a daily
//! rhythm is none. What a key does only once a week looks like one. Pure.
//!
//! Invariant: a key that does less than before, or very little, is never an anomaly.

use std::ops::Range;
use std::time::SystemTime;

use super::usage;

/// Scores above this are anomalies. 3.5 is usual for one look; this looks at every key every hour.
pub const THRESHOLD: f64 = 6.0;
/// Whole hours a history needs before the last one.
pub const LEAST_HOURS: usize = 24;
/// Requests the last hour needs.
pub const LEAST_REQUESTS: u64 = 20;
/// Expected value of MAD over the standard deviation, for normal values.
const NORMAL: f64 = 0.6745;
const DAY: usize = 24;
/// Longest history, in hours: 400 days.
const LONGEST: u32 = 400 * 24;

/// What a key did in an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Exchanges.
    pub requests: u64,
    /// Exchanges with an error, as in [`Row::errors`](super::Row::errors).
    pub errors: u64,
    /// Tokens of requests and answers.
    pub tokens: u64,
}

/// What a key did, hour by hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Whose key it is.
    pub gateway: String,
    /// The key's name; empty for requests without a key.
    pub key: String,
    /// Every whole hour since the key's first one, or since the beginning of the time that was asked for. The last is the one to judge.
    pub hours: Vec<Activity>,
}

/// What left the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// How many requests.
    Requests,
    /// Which share of them had an error.
    Errors,
    /// How many tokens.
    Tokens,
}

/// An hour that is far from the usual.
#[derive(Clone, Debug, PartialEq)]
pub struct Anomaly {
    /// Whose key it is.
    pub gateway: String,
    /// The key's name.
    pub key: String,
    /// What left the usual.
    pub what: What,
    /// What it was in the last hour: a number of requests or tokens, or a share from 0 to 1.
    pub value: f64,
    /// The median it was compared with.
    pub usual: f64,
    /// The modified z-score; the smaller one of two.
    pub score: f64,
}

/// Everything that left the usual in the last hour of these histories.
pub fn anomalies(histories: &[History]) -> Vec<Anomaly> {
    histories.iter().flat_map(judge).collect()
}

/// What left the usual in the last hour of a key.
fn judge(history: &History) -> Vec<Anomaly> {
    let Some((last, past)) = history.hours.split_last() else {
        return Vec::new();
    };
    if past.len() < LEAST_HOURS || last.requests < LEAST_REQUESTS {
        return Vec::new();
    }
    let share = |hour: &Activity| {
        // An hour without requests has no share.
        (hour.requests > 0).then(|| hour.errors as f64 / hour.requests as f64)
    };
    let asked = last.requests as f64;
    // The least that counts as the usual distance, so that a flat history does not make an anomaly of everything: for counts, what
    // chance does to independent requests, and a tenth; for shares, what chance does to as many requests, and two in a hundred.
    let requests = |median: f64| median.sqrt().max(median / 10.0).max(1.0);
    let tokens = |median: f64| (median / 10.0).max(1.0);
    let errors = |median: f64| (median * (1.0 - median) / asked).sqrt().max(0.02);
    let looks = [
        (
            What::Requests,
            look(last, past, |hour| Some(hour.requests as f64), requests),
        ),
        (What::Errors, look(last, past, share, errors)),
        (
            What::Tokens,
            look(last, past, |hour| Some(hour.tokens as f64), tokens),
        ),
    ];
    let found = looks.into_iter().filter_map(|(what, seen)| {
        let (value, usual, score) = seen?;
        (score > THRESHOLD).then(|| Anomaly {
            gateway: history.gateway.clone(),
            key: history.key.clone(),
            what,
            value,
            usual,
            score,
        })
    });
    found.collect()
}

/// The last hour's value, the usual one and the score; nothing if too few hours have a value.
fn look(
    last: &Activity,
    past: &[Activity],
    value: impl Fn(&Activity) -> Option<f64>,
    floor: impl Fn(f64) -> f64,
) -> Option<(f64, f64, f64)> {
    let x = value(last)?;
    let all: Vec<f64> = past.iter().filter_map(&value).collect();
    if all.len() < LEAST_HOURS {
        return None;
    }
    // An hour more or less, since nobody is that punctual; today's last hour is no other day's.
    let earlier = past.iter().rev().enumerate().filter(|(index, _)| {
        let ago = index + 1;
        ago >= DAY - 1 && matches!(ago % DAY, 0 | 1 | 23)
    });
    let same: Vec<f64> = earlier.filter_map(|(_, hour)| value(hour)).collect();
    let (usual, score) = score(x, all, &floor)?;
    match self::score(x, same, &floor) {
        Some(other) if other.1 < score => Some((x, other.0, other.1)),
        _ => Some((x, usual, score)),
    }
}

/// The median and the modified z-score; nothing without values.
fn score(x: f64, values: Vec<f64>, floor: impl Fn(f64) -> f64) -> Option<(f64, f64)> {
    let distances = values.clone();
    let usual = median(values)?;
    let distances = distances.into_iter().map(|value| (value - usual).abs());
    let mad = median(distances.collect())?.max(NORMAL * floor(usual));
    Some((usual, NORMAL * (x - usual) / mad))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    match values.len() % 2 {
        0 => Some((values.get(values.len() / 2 - 1)? + upper) / 2.0),
        _ => Some(upper),
    }
}

/// The whole hours before a time, in seconds since 1970: from the first's start to the last's end.
pub(super) fn window(until: SystemTime, hours: u32) -> Range<i64> {
    let end = usage::floor(usage::milliseconds(until)) / 1000;
    end - i64::from(hours.min(LONGEST)) * 3600..end
}

impl History {
    /// A history of nothing, in a window, of a key whose first hour is this.
    pub(super) fn new(gateway: String, key: String, window: &Range<i64>, first: i64) -> Self {
        let seconds = window.end - first.max(window.start);
        let hours = usize::try_from(seconds / 3600).unwrap_or(0);
        Self {
            gateway,
            key,
            hours: vec![Activity::default(); hours],
        }
    }

    /// What it did in an hour of the window.
    pub(super) fn set(&mut self, window: &Range<i64>, hour: i64, activity: Activity) {
        let ago = usize::try_from((window.end - hour) / 3600).unwrap_or(0);
        let index = self.hours.len().checked_sub(ago);
        if let Some(slot) = index.and_then(|index| self.hours.get_mut(index)) {
            *slot = activity;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history from requests an hour, each of 100 tokens and none with an error.
    fn history(requests: impl IntoIterator<Item = u64>) -> History {
        let hours = requests.into_iter().map(|requests| Activity {
            requests,
            errors: 0,
            tokens: requests * 100,
        });
        History {
            gateway: "main".into(),
            key: "ci".into(),
            hours: hours.collect(),
        }
    }

    fn found(history: &History) -> Vec<What> {
        let found = anomalies(std::slice::from_ref(history));
        found.into_iter().map(|anomaly| anomaly.what).collect()
    }

    /// Between -1 and 1, the same each time.
    fn noise(hour: u64) -> f64 {
        let mixed = (hour + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 40) as f64 / (1 << 23) as f64 - 1.0
    }

    fn around(mean: f64, hour: u64) -> u64 {
        (mean * (1.0 + 0.2 * noise(hour))) as u64
    }

    #[test]
    fn a_steady_key_stays_what_it_is() {
        for hours in 25..400 {
            let steady = history((0..hours).map(|hour| around(500.0, hour)));
            assert_eq!(found(&steady), [], "{hours}");
            let flat = history((0..hours).map(|_| 500));
            assert_eq!(found(&flat), [], "{hours}");
        }
    }

    #[test]
    fn a_spike_is_found_with_what_is_usual() {
        let mut hours: Vec<u64> = (0..200).map(|hour| around(500.0, hour)).collect();
        hours.push(2_500);
        let found = anomalies(&[history(hours)]);
        assert_eq!(found[0].what, What::Requests);
        assert_eq!(found[0].value, 2_500.0);
        assert!((found[0].usual - 500.0).abs() < 50.0, "{found:?}");
        assert!(found[0].score > THRESHOLD);
        assert_eq!(found[1].what, What::Tokens);
        assert_eq!(found.len(), 2);
    }

    /// Longer than a spike: while it is not the rule, it is still an anomaly.
    #[test]
    fn outliers_of_the_past_do_not_hide_the_next_one() {
        let mut hours: Vec<u64> = (0..200).map(|hour| around(500.0, hour)).collect();
        hours.extend([5_000; 10]);
        assert_eq!(found(&history(hours)), [What::Requests, What::Tokens]);
    }

    /// Nothing at night, a thousand an hour by day: no hour of the second day or later is new.
    #[test]
    fn a_daily_rhythm_is_usual() {
        let by_day = |hour: u64| match hour % 24 {
            9..=16 => around(1_000.0, hour),
            _ => 0,
        };
        for hours in 25..500 {
            assert_eq!(found(&history((0..hours).map(by_day))), [], "{hours}");
        }
        // The same at midnight is not.
        let mut night: Vec<u64> = (0..24 * 7).map(by_day).collect();
        night.push(1_000);
        assert_eq!(found(&history(night)), [What::Requests, What::Tokens]);
        // And five times as much by day is not.
        let mut day: Vec<u64> = (0..24 * 7 + 12).map(by_day).collect();
        day.push(5_000);
        assert_eq!(found(&history(day)), [What::Requests, What::Tokens]);
    }

    #[test]
    fn slow_growth_is_usual() {
        for hours in 25..1_000_u64 {
            let growing = history((0..hours).map(|hour| around(100.0 + hour as f64 * 2.0, hour)));
            assert_eq!(found(&growing), [], "{hours}");
        }
    }

    #[test]
    fn a_new_key_is_not_judged() {
        for hours in 0..24 {
            let mut hours = vec![1; hours];
            hours.push(100_000);
            assert_eq!(found(&history(hours.clone())), [], "{}", hours.len());
        }
        let mut hours = vec![1; 24];
        hours.push(100_000);
        assert_eq!(found(&history(hours)), [What::Requests, What::Tokens]);
    }

    #[test]
    fn a_quiet_key_may_do_a_little_and_not_a_lot() {
        let mut hours = vec![0; 500];
        hours.push(19);
        assert_eq!(found(&history(hours.clone())), []);
        hours.push(20);
        assert_eq!(found(&history(hours)), [What::Requests, What::Tokens]);
    }

    #[test]
    fn less_than_usual_is_no_anomaly() {
        let mut hours: Vec<u64> = (0..200).map(|hour| around(50_000.0, hour)).collect();
        hours.push(100);
        assert_eq!(found(&history(hours)), []);
    }

    #[test]
    fn errors_are_judged_by_their_share() {
        let mut usual = history((0..100).map(|hour| around(1_000.0, hour)));
        for (hour, activity) in (0..).zip(&mut usual.hours) {
            activity.errors = (activity.requests as f64 * 0.02 * (1.0 + noise(hour))) as u64;
        }
        assert_eq!(found(&usual), []);
        let mut failing = usual.clone();
        failing.hours.last_mut().unwrap().errors = 500;
        let anomalies = anomalies(&[failing]);
        assert_eq!(anomalies[0].what, What::Errors);
        assert!((anomalies[0].value - 0.5).abs() < 0.2, "{anomalies:?}");
        // More errors, because there are more requests, are no larger share.
        let mut busy = usual.clone();
        *busy.hours.last_mut().unwrap() = Activity {
            requests: 20_000,
            errors: 600,
            tokens: 100_000,
        };
        assert_eq!(found(&busy), [What::Requests]);
    }

    #[test]
    fn tokens_can_leave_alone() {
        let mut history = history((0..100).map(|hour| around(1_000.0, hour)));
        history.hours.last_mut().unwrap().tokens *= 20;
        assert_eq!(found(&history), [What::Tokens]);
    }

    /// By hand: median 3, distances 2 1 0 1 97, their median 1 (the floor is off); 0.6745 · 97.
    #[test]
    fn the_score_is_that_of_the_book() {
        let values = vec![1.0, 2.0, 3.0, 4.0, 100.0];
        let (usual, score) = score(100.0, values, |_| 0.0).unwrap();
        assert_eq!(usual, 3.0);
        assert!((score - 65.4265).abs() < 1e-9);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
