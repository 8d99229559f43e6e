//! Counting in this process: many threads, many users, changing rules.

use std::sync::Arc;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::super::{Limit, Local, ManualClock, Quota, Rule, Who};
use super::{Numbers, ns};

const MINUTE: Duration = Duration::from_secs(60);

fn at_most(id: &str, limit: u64, window: Duration) -> Limit {
    Limit {
        id: id.into(),
        rule: Rule::Window { limit, window },
    }
}

fn bucket(id: &str, rate: f64, burst: u64) -> Limit {
    Limit {
        id: id.into(),
        rule: Rule::Bucket { rate, burst },
    }
}

fn counting() -> (Arc<ManualClock>, Local) {
    let clock = Arc::new(ManualClock::default());
    (clock.clone(), Local::with_clock(clock))
}

/// How many of `each` requests of each of 16 threads that begin at once are admitted.
fn storm(quota: &Local, limit: &Limit, each: usize) -> usize {
    let begin = Barrier::new(16);
    std::thread::scope(|scope| {
        let ask = || {
            begin.wait();
            let leases: Vec<_> = (0..each)
                .filter_map(|_| quota.reserve(limit, "who", 1).ok())
                .collect();
            let admitted = leases.len();
            leases.into_iter().for_each(super::super::Lease::keep);
            admitted
        };
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    })
}

#[test]
fn a_thousand_at_once_get_fifteen() {
    let (_, quota) = counting();
    for round in 0..10 {
        let window = at_most(&format!("{round}/window"), 15, MINUTE);
        assert_eq!(storm(&quota, &window, 63), 15);
        assert_eq!(
            storm(&quota, &bucket(&format!("{round}/bucket"), 0.25, 15), 63),
            15
        );
    }
}

#[test]
fn a_storm_by_the_system_s_clock_gets_no_more() {
    let quota = Local::new();
    assert_eq!(storm(&quota, &at_most("limit", 15, MINUTE * 60), 63), 15);
}

/// Ten minutes of arrivals at random: admissions, checked one against all.
fn ten_minutes(limit: u64, largest: u64, pause: Duration) {
    let (clock, quota) = counting();
    let rule = at_most("limit", limit, MINUTE);
    let (mut numbers, mut now, mut admitted, mut refused) = (Numbers(limit + 1), 0, Vec::new(), 0);
    while now < ns(MINUTE * 10) {
        let wait = numbers.below(2 * ns(pause));
        now += wait;
        clock.advance(Duration::from_nanos(wait));
        let amount = 1 + numbers.below(largest);
        match quota.reserve(&rule, "who", amount) {
            Ok(lease) => {
                lease.keep();
                admitted.push((now, amount));
            }
            Err(denied) => {
                refused += 1;
                if numbers.below(4) == 0 {
                    let wait = denied.retry_after.unwrap();
                    clock.advance(wait - Duration::from_nanos(1));
                    if limit <= 64 {
                        assert!(quota.reserve(&rule, "who", amount).is_err());
                    }
                    clock.advance(Duration::from_nanos(1));
                    now += ns(wait);
                    quota.reserve(&rule, "who", amount).unwrap().keep();
                    admitted.push((now, amount));
                }
            }
        }
    }
    assert!(
        refused > 20 && admitted.len() > 20,
        "the limit was not tried"
    );
    for (begin, _) in &admitted {
        let inside = admitted
            .iter()
            .filter(|(at, _)| (*begin..begin + ns(MINUTE)).contains(at));
        let sum: u64 = inside.map(|(_, amount)| amount).sum();
        assert!(sum <= limit, "{sum} in the minute from {begin}");
    }
}

#[test]
fn no_minute_of_ten_holds_more_than_fifteen() {
    ten_minutes(15, 1, Duration::from_secs(2));
    ten_minutes(15, 1, Duration::from_millis(100));
    ten_minutes(15, 5, Duration::from_secs(1));
}

#[test]
fn no_minute_of_ten_holds_more_than_a_trillion() {
    ten_minutes(
        1_000_000_000_000,
        50_000_000_000,
        Duration::from_millis(400),
    );
    ten_minutes(10_000, 300, Duration::from_millis(150));
}

#[test]
fn leases_give_back_what_was_not_used() {
    let (_, quota) = counting();
    for limit in [at_most("window", 10, MINUTE), bucket("bucket", 1.0, 10)] {
        let remaining = || quota.standing(&limit, "who").remaining;
        let (lease, standing) =
            { quota.take_at(&limit, &Who::new("who"), 6, Instant::now(), false) }.unwrap();
        assert_eq!((standing.remaining, remaining()), (4, 4));
        lease.settle(2);
        assert_eq!(remaining(), 8);
        quota.reserve(&limit, "who", 5).unwrap().keep();
        assert_eq!(remaining(), 3);
        drop(quota.reserve(&limit, "who", 3).unwrap());
        assert_eq!(remaining(), 3);
        quota.reserve(&limit, "who", 1).unwrap().settle(9);
        assert_eq!(remaining(), 0);
        assert_eq!(quota.standing(&limit, "another").remaining, 10);
    }
}

#[test]
fn what_is_taken_for_good_is_not_given_back() {
    let (_, quota) = counting();
    for limit in [at_most("window", 10, MINUTE), bucket("bucket", 1.0, 10)] {
        let taken = quota.take_at(&limit, &Who::new("who"), 6, Instant::now(), true);
        let (lease, standing) = taken.unwrap();
        assert_eq!((lease.reserved(), standing.remaining), (6, 4));
        drop(lease);
        assert_eq!(quota.charge(&limit, "who", 3).unwrap().remaining, 1);
        let denied = quota.charge(&limit, "who", 2).unwrap_err();
        assert_eq!(denied.wait(), denied.retry_after.unwrap());
        let never = quota.charge(&limit, "who", 11).unwrap_err();
        assert_eq!(never.retry_after, None);
        assert_eq!(never.wait(), never.standing.reset);
        assert_eq!(quota.standing(&limit, "who").remaining, 1);
    }
    let places = Limit {
        id: "places".into(),
        rule: Rule::Concurrent { limit: 1 },
    };
    // Nobody has a place for good.
    quota.charge(&places, "who", 1).unwrap();
    assert_eq!(quota.standing(&places, "who").remaining, 1);
}

#[test]
fn what_was_used_outlives_a_change_of_the_rule() {
    let (clock, quota) = counting();
    let left = |limit: &Limit| {
        let told = quota.standing(limit, "who").remaining;
        // Asking changes no rule; reserving does.
        let amount = u64::from(told > 0);
        drop(quota.reserve(limit, "who", amount));
        assert_eq!(quota.standing(limit, "who").remaining, told);
        told
    };
    quota
        .reserve(&at_most("a", 10, MINUTE), "who", 8)
        .unwrap()
        .keep();
    assert_eq!(left(&at_most("a", 20, MINUTE)), 12);
    assert_eq!(left(&at_most("a", 5, MINUTE)), 0);
    clock.advance(Duration::from_secs(30));
    assert_eq!(left(&at_most("a", 10, MINUTE * 2)), 2);
    clock.advance(Duration::from_secs(60));
    assert_eq!(left(&at_most("a", 10, MINUTE * 2)), 2);
    // Another kind of rule goes on from how much is missing.
    assert_eq!(left(&bucket("a", 1.0, 30)), 22);
    clock.advance(Duration::from_secs(3));
    assert_eq!(left(&bucket("a", 100.0, 30)), 25);
    assert_eq!(left(&bucket("a", 0.001, 3)), 0);
    assert_eq!(left(&at_most("a", 4, MINUTE)), 1);
}

#[test]
fn who_uses_nothing_any_more_takes_no_room() {
    let (clock, quota) = counting();
    let (window, bucket) = (at_most("w", 5, MINUTE), bucket("b", 1.0, 5));
    let visit = |names: std::ops::Range<usize>| {
        for name in names {
            quota.reserve(&window, &name.to_string(), 1).unwrap().keep();
            quota.reserve(&bucket, &name.to_string(), 1).unwrap().keep();
        }
    };
    visit(0..10_000);
    assert_eq!(quota.counters(), 20_000);
    clock.advance(MINUTE);
    // Ten times as many, a minute's worth at a time: there are never many more than two minutes'.
    for minute in 1..10 {
        visit(minute * 10_000..(minute + 1) * 10_000);
        assert!(quota.counters() <= 30_000, "{}", quota.counters());
        clock.advance(MINUTE);
    }
    // Old acquaintances are enough to sweep.
    let held = quota.reserve(&window, "held", 1).unwrap();
    for _ in 0..400 {
        for name in 0..1000 {
            drop(quota.reserve(&window, &name.to_string(), 1));
        }
    }
    assert!(quota.counters() < 2000, "{}", quota.counters());
    held.settle(0);
}

#[test]
fn a_counter_that_is_leased_is_not_idle() {
    let (clock, quota) = counting();
    let limit = at_most("limit", 5, MINUTE);
    let lease = quota.reserve(&limit, "who", 2).unwrap();
    clock.advance(MINUTE);
    for name in 0..10_000 {
        drop(quota.reserve(&limit, &name.to_string(), 1));
    }
    lease.settle(6);
    assert_eq!(quota.standing(&limit, "who").remaining, 1);
}

#[test]
fn a_flood_of_names_stays_within_the_capacity_and_its_own_limit() {
    let (clock, quota) = counting();
    let quota = quota.with_capacity(6400);
    let (calm, flooded) = (at_most("calm", 5, MINUTE), at_most("flooded", 5, MINUTE));
    for name in 0..300 {
        quota.reserve(&calm, &name.to_string(), 5).unwrap().keep();
    }
    for name in 0..50_000 {
        clock.advance(Duration::from_micros(1));
        quota
            .reserve(&flooded, &name.to_string(), 1)
            .unwrap()
            .keep();
        assert!(quota.counters() <= 6400);
    }
    assert_eq!(quota.counters(), 6400);
    let kept = |name: &i32| quota.standing(&calm, &name.to_string()).remaining == 0;
    assert_eq!((0..300).filter(kept).count(), 300);
    // Of the flood the latest are likelier to be there than the first.
    let there = |names: std::ops::Range<usize>| {
        let there = |name: &usize| quota.standing(&flooded, &name.to_string()).remaining == 4;
        names.filter(there).count()
    };
    assert!(there(49_000..50_000) > 900);
    assert!(there(0..1000) < 100);
}

#[test]
fn a_lease_outlives_its_counter() {
    let (_, quota) = counting();
    let quota = quota.with_capacity(1);
    let limit = at_most("limit", 5, MINUTE);
    let leases: Vec<_> = (0..1000)
        .map(|name| quota.reserve(&limit, &name.to_string(), 1).unwrap())
        .collect();
    assert_eq!(quota.counters(), 64);
    leases.into_iter().for_each(|lease| lease.settle(3));
    assert_eq!(quota.counters(), 64);
}

#[test]
fn what_can_never_be_had_leaves_nothing_behind() {
    let (_, quota) = counting();
    for limit in [at_most("window", 3, MINUTE), bucket("bucket", 1.0, 3)] {
        for name in 0..100 {
            let denied = quota.reserve(&limit, &name.to_string(), 4).unwrap_err();
            assert_eq!((denied.retry_after, denied.standing.remaining), (None, 3));
        }
    }
    assert_eq!(quota.counters(), 0);
}
