//! Periods of the calendar against days that are counted one by one, and counts against a log of all that was admitted.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::calendar::{Calendar, JITTER};
use super::super::{Held, Limit, Local, ManualClock, Period, Quota, Rule};

const DAY: u64 = 86_400;
/// 2026-02-27 00:00:00 UTC.
const FEBRUARY_27: u64 = 1_772_150_400;

#[test]
fn every_day_of_six_centuries_is_in_its_month() {
    let (mut day, mut year) = (0, 1970);
    while year < 2600 {
        let leap = year % 400 == 0 || (year % 4 == 0 && year % 100 != 0);
        let february = if leap { 29 } else { 28 };
        for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            let (begins, ends) = (day * DAY, (day + length) * DAY);
            for at in day..day + length {
                for second in [at * DAY, at * DAY + 43_210, at * DAY + DAY - 1] {
                    assert_eq!(Period::Month.start(second), begins, "{year}, day {at}");
                    assert_eq!(Period::Month.next(second), ends, "{year}, day {at}");
                    assert_eq!(Period::Day.start(second), at * DAY);
                    assert_eq!(Period::Day.next(second), (at + 1) * DAY);
                }
            }
            day += length;
        }
        year += 1;
    }
    // What `date -u` says of a day that is known.
    assert_eq!(Period::Month.next(FEBRUARY_27), FEBRUARY_27 + 2 * DAY);
}

#[derive(Clone, Debug)]
enum Step {
    /// So many seconds.
    Wait(u64),
    Reserve(u64),
    /// One of the leases, and what it came to.
    Settle(usize, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (0..=20 * DAY).prop_map(Step::Wait),
        2 => (0..=DAY / 3).prop_map(Step::Wait),
        5 => (0..=40_u64).prop_map(Step::Reserve),
        3 => (any::<usize>(), 0..=80_u64).prop_map(|(lease, used)| Step::Settle(lease, used)),
    ];
    vec(step, 1..200)
}

proptest! {
    #[test]
    fn a_period_decides_as_a_log_of_it_does(limit in 0..200_u64, days in any::<bool>(), steps in steps()) {
        let period = if days { Period::Day } else { Period::Month };
        // What was admitted: when, and how much it came to.
        let mut log: Vec<(u64, u64)> = Vec::new();
        let (mut now, mut leases) = (FEBRUARY_27, Vec::new());
        let mut calendar = Calendar::new(period, Duration::from_secs(now), 0);
        for step in steps {
            let used = |log: &[(u64, u64)], now| -> u64 {
                let same = log.iter().filter(|(at, _)| period.start(*at) == period.start(now));
                same.map(|(_, amount)| amount).sum()
            };
            let at = Duration::from_secs(now);
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Reserve(amount) => match calendar.reserve(limit, at, amount) {
                    Ok((mark, standing)) => {
                        leases.push((mark, amount, log.len()));
                        log.push((now, amount));
                        prop_assert!(amount == 0 || used(&log, now) <= limit);
                        prop_assert_eq!(standing.remaining, limit.saturating_sub(used(&log, now)));
                    }
                    Err(denied) => {
                        prop_assert!(used(&log, now) + amount > limit);
                        let then = period.next(now);
                        prop_assert_eq!(denied.standing.reset, Duration::from_secs(then - now));
                        match denied.retry_after {
                            None => prop_assert!(amount > limit),
                            Some(wait) => {
                                let mut later = calendar;
                                prop_assert!(later.reserve(limit, at + wait, amount).is_ok());
                                let mut later = calendar;
                                let early = at + wait - Duration::from_nanos(1);
                                prop_assert!(later.reserve(limit, early, amount).is_err());
                            }
                        }
                    }
                },
                Step::Settle(_, _) if leases.is_empty() => {}
                Step::Settle(lease, used) => {
                    let (mark, amount, index) = leases.swap_remove(lease % leases.len());
                    calendar.settle(at, mark, amount, used);
                    log[index].1 = used;
                }
            }
            prop_assert_eq!(calendar.used(Duration::from_secs(now)), used(&log, now));
        }
    }
}

#[test]
fn a_clock_that_is_set_back_a_little_does_not_grant_a_day_twice() {
    let at = Duration::from_secs;
    let mut calendar = Calendar::new(Period::Day, at(FEBRUARY_27), 0);
    calendar.reserve(10, at(FEBRUARY_27), 10).unwrap();
    let denied = calendar.reserve(10, at(FEBRUARY_27 - 5), 1).unwrap_err();
    assert_eq!(denied.retry_after, Some(at(DAY + 5)));
    assert!(calendar.reserve(10, at(FEBRUARY_27), 1).is_err());
    // A clock that is set right after it was far off is not waited for.
    assert!(
        calendar
            .reserve(10, at(FEBRUARY_27 - JITTER - 1), 10)
            .is_ok()
    );
    assert!(calendar.reserve(10, at(FEBRUARY_27), 10).is_ok());
}

fn monthly(id: &str, limit: u64) -> Limit {
    per(id, limit, Period::Month)
}

fn per(id: &str, limit: u64, period: Period) -> Limit {
    let id = id.into();
    let rule = Rule::Calendar { limit, period };
    Limit { id, rule }
}

fn counting() -> (Arc<ManualClock>, Local) {
    let clock = Arc::new(ManualClock::at(FEBRUARY_27));
    (clock.clone(), Local::with_clock(clock))
}

#[test]
fn a_lease_of_last_month_changes_nothing_of_this() {
    let (clock, quota) = counting();
    let limit = monthly("limit", 100);
    let remaining = || quota.standing(&limit, "who").remaining;
    let cheap = quota.reserve(&limit, "who", 40).unwrap();
    let dear = quota.reserve(&limit, "who", 40).unwrap();
    let now = quota.reserve(&limit, "who", 10).unwrap();
    now.settle(15);
    assert_eq!(remaining(), 5);
    let denied = quota.reserve(&limit, "who", 10).unwrap_err();
    assert_eq!(denied.retry_after, Some(Duration::from_secs(2 * DAY)));
    clock.advance(Duration::from_secs(2 * DAY));
    let of_march = quota.reserve(&limit, "who", 30).unwrap();
    cheap.settle(0);
    dear.settle(1000);
    assert_eq!(remaining(), 70);
    of_march.settle(150);
    assert_eq!(remaining(), 0);
    assert!(quota.reserve(&limit, "who", 1).is_err());
    assert_eq!(quota.standing(&limit, "another").remaining, 100);
}

#[test]
fn what_is_held_survives_a_restart() {
    let (clock, quota) = counting();
    let (month, day) = (monthly("month", 100), per("day", 10, Period::Day));
    quota.reserve(&month, "a", 60).unwrap().keep();
    let running = quota.reserve(&month, "b", 30).unwrap();
    quota.reserve(&day, "a", 4).unwrap().keep();
    drop(quota.reserve(&day, "b", 4).unwrap());
    let window = Rule::Window {
        limit: 5,
        window: Duration::from_secs(60),
    };
    let window = Limit {
        id: "window".into(),
        rule: window,
    };
    quota.reserve(&window, "a", 3).unwrap().keep();

    let mut held = quota.export();
    held.sort_by(|a, b| (&a.limit, &a.who).cmp(&(&b.limit, &b.who)));
    let told = |limit: &str, who: &str, period, start, used| Held {
        limit: limit.into(),
        who: who.into(),
        period,
        start,
        used,
    };
    let february = FEBRUARY_27 - 26 * DAY;
    let expected = [
        told("day", "a", Period::Day, FEBRUARY_27, 4),
        told("month", "a", Period::Month, february, 60),
        told("month", "b", Period::Month, february, 30),
    ];
    assert_eq!(held, expected);
    let text = serde_json::to_string(&held).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Held>>(&text).unwrap(), held);
    drop(running);

    clock.advance(Duration::from_secs(DAY));
    let next = Local::with_clock(clock.clone());
    let restore = |quota: &Local| {
        let held = held.iter();
        held.for_each(|held| quota.adjust(held, i64::try_from(held.used).unwrap()));
    };
    restore(&next);
    assert_eq!(next.standing(&month, "a").remaining, 40);
    assert_eq!(next.standing(&month, "b").remaining, 70);
    // That day is over.
    assert_eq!(next.standing(&day, "a").remaining, 10);
    assert_eq!(next.counters(), 2);
    next.reserve(&month, "a", 20).unwrap().keep();
    assert_eq!(next.standing(&month, "a").remaining, 20);
    clock.advance(Duration::from_secs(DAY));
    let march = Local::with_clock(clock);
    restore(&march);
    assert_eq!(march.counters(), 0);
}

#[test]
fn budgets_are_forgotten_last() {
    let (clock, quota) = counting();
    let quota = quota.with_capacity(6400);
    let budget = monthly("budget", 10);
    for name in 0..200 {
        let lease = quota.reserve(&budget, &name.to_string(), 10);
        lease.unwrap().keep();
    }
    // Of none of these limits there is another counter that could go first.
    for name in 0..50_000 {
        clock.advance(Duration::from_micros(1));
        let limit = Limit {
            id: format!("window {name}").into(),
            rule: Rule::Window {
                limit: 5,
                window: Duration::from_secs(60),
            },
        };
        quota.reserve(&limit, "who", 1).unwrap().keep();
    }
    assert_eq!(quota.counters(), 6400);
    let kept = |name: &i32| quota.standing(&budget, &name.to_string()).remaining == 0;
    assert_eq!((0..200).filter(kept).count(), 200);
}

#[test]
fn a_thousand_at_once_share_one_month() {
    let (_, quota) = counting();
    let limit = monthly("limit", 15);
    let admitted: usize = std::thread::scope(|scope| {
        let ask = || (0..63).filter(|_| reserve_and_keep(&quota, &limit)).count();
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(admitted, 15);
}

fn reserve_and_keep(quota: &Local, limit: &Limit) -> bool {
    let lease = quota.reserve(limit, "who", 1);
    lease.map(super::super::Lease::keep).is_ok()
}

#[test]
fn what_was_used_today_counts_for_the_month_when_that_is_the_rule() {
    let (clock, quota) = counting();
    let (day, month) = (per("id", 10, Period::Day), monthly("id", 100));
    quota.reserve(&day, "who", 7).unwrap().keep();
    // Another limit of the same length is followed at once.
    assert_eq!(
        quota.standing(&per("id", 5, Period::Day), "who").remaining,
        0
    );
    quota.reserve(&month, "who", 1).unwrap().keep();
    clock.advance(Duration::from_secs(DAY));
    assert_eq!(quota.standing(&month, "who").remaining, 92);
}
