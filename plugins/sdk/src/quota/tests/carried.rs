//! One process goes on where another stopped counting, whatever their clocks show.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Carried, Limit, Local, ManualClock, Period, Quota, Recent, Rule};

const SECOND: Duration = Duration::from_secs(1);

fn limit(id: &str, rule: Rule) -> Limit {
    Limit {
        id: id.into(),
        rule,
    }
}

fn window(limit_: u64, seconds: u64) -> Limit {
    let window = Duration::from_secs(seconds);
    limit(
        "window",
        Rule::Window {
            limit: limit_,
            window,
        },
    )
}

/// Two processes whose clocks are far apart, and a way from one to the other.
fn two() -> (Arc<ManualClock>, Local, Arc<ManualClock>, Local) {
    let (one, other) = (
        Arc::new(ManualClock::at(1_000_000)),
        Arc::new(ManualClock::at(1_000_000)),
    );
    one.advance(Duration::from_secs(100_000));
    other.advance(Duration::from_secs(200_000));
    let (old, new) = (
        Local::with_clock(one.clone()),
        Local::with_clock(other.clone()),
    );
    (one, old, other, new)
}

fn carry(old: &Local, new: &Local) {
    let text = serde_json::to_string(&old.recent()).unwrap();
    new.resume(&serde_json::from_str::<Vec<Carried>>(&text).unwrap());
}

#[test]
fn a_window_gives_back_at_the_same_times() {
    let (one, old, other, new) = two();
    let limit = window(3, 60);
    for _ in 0..3 {
        old.reserve(&limit, "a", 1).unwrap().keep();
        one.advance(10 * SECOND);
    }
    carry(&old, &new);
    for _ in 0..3 {
        for (clock, quota) in [(&one, &old), (&other, &new)] {
            let denied = quota.reserve(&limit, "a", 1).unwrap_err();
            let wait = denied.retry_after.unwrap();
            clock.advance(wait - Duration::from_nanos(1));
            assert!(quota.reserve(&limit, "a", 1).is_err());
            clock.advance(Duration::from_nanos(1));
            quota.reserve(&limit, "a", 1).unwrap().keep();
        }
        assert_eq!(old.standing(&limit, "a"), new.standing(&limit, "a"));
    }
    assert_eq!(new.standing(&limit, "b").remaining, 3);
}

#[test]
fn a_large_window_holds_as_much() {
    let (one, old, _, new) = two();
    let limit = window(100_000, 3_600);
    for _ in 0..2_000 {
        old.reserve(&limit, "a", 7).unwrap().keep();
        one.advance(SECOND);
    }
    carry(&old, &new);
    assert_eq!(new.standing(&limit, "a"), old.standing(&limit, "a"));
    assert_eq!(new.standing(&limit, "a").remaining, 100_000 - 14_000);
}

#[test]
fn a_bucket_is_as_empty() {
    let (one, old, other, new) = two();
    let limit = limit(
        "bucket",
        Rule::Bucket {
            rate: 0.5,
            burst: 5,
        },
    );
    old.reserve(&limit, "a", 5).unwrap().keep();
    one.advance(3 * SECOND);
    carry(&old, &new);
    assert_eq!(new.standing(&limit, "a"), old.standing(&limit, "a"));
    assert!(new.reserve(&limit, "a", 2).is_err());
    other.advance(SECOND);
    new.reserve(&limit, "a", 2).unwrap().keep();
}

/// A rule that has changed meanwhile counts by its own measure from then on.
#[test]
fn another_rule_goes_on_with_what_was_used() {
    let (_, old, _, new) = two();
    old.reserve(&window(10, 60), "a", 4).unwrap().keep();
    carry(&old, &new);
    assert_eq!(new.standing(&window(5, 60), "a").remaining, 1);
    let bucket = Rule::Bucket {
        rate: 1.0,
        burst: 10,
    };
    assert_eq!(new.standing(&limit("window", bucket), "a").remaining, 6);
}

#[test]
fn places_and_months_are_not_recent() {
    let (_, old, _, _) = two();
    let places = limit("places", Rule::Concurrent { limit: 3 });
    let _held = old.reserve(&places, "a", 1).unwrap();
    let month = Rule::Calendar {
        limit: 10,
        period: Period::Month,
    };
    old.reserve(&limit("month", month), "a", 1).unwrap().keep();
    drop(old.reserve(&window(3, 60), "a", 1).unwrap());
    assert_eq!(old.recent(), vec![]);
}

#[test]
fn what_is_told_can_be_read_again() {
    let told = Carried {
        limit: "l".into(),
        who: "w".into(),
        recent: Recent::Bucket {
            rate: 0.1,
            burst: 3,
            full_in: 7,
        },
    };
    let text = serde_json::to_string(&told).unwrap();
    assert_eq!(serde_json::from_str::<Carried>(&text).unwrap(), told);
}

#[test]
fn a_budget_is_adjusted_in_its_period_only() {
    let (clock, quota, ..) = two();
    let month = limit(
        "month",
        Rule::Calendar {
            limit: 100,
            period: Period::Month,
        },
    );
    quota.reserve(&month, "a", 10).unwrap().keep();
    let [mut held] = <[_; 1]>::try_from(quota.export()).unwrap();
    quota.adjust(&held, 20);
    assert_eq!(quota.standing(&month, "a").remaining, 70);
    quota.adjust(&held, -25);
    assert_eq!(quota.standing(&month, "a").remaining, 95);
    quota.adjust(&held, -25);
    assert_eq!(quota.standing(&month, "a").remaining, 100);
    held.who = "b".into();
    quota.adjust(&held, 40);
    assert_eq!(quota.standing(&month, "b").remaining, 60);
    clock.advance(Duration::from_secs(40 * 86_400));
    quota.adjust(&held, 40);
    assert_eq!(quota.standing(&month, "b").remaining, 100);
}
