//! Places that are held, against a list of who holds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{Lease, Limit, Local, ManualClock, Quota, Rule};

fn places(limit: u64) -> Limit {
    Limit {
        id: "places".into(),
        rule: Rule::Concurrent { limit },
    }
}

fn counting() -> Local {
    Local::with_clock(Arc::new(ManualClock::default()))
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(u64),
    /// Which lease ends, and how.
    End(usize, u8),
    /// The limit is now another.
    Limit(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4_u64).prop_map(Step::Reserve),
        4 => (any::<usize>(), 0..4_u8).prop_map(|(lease, how)| Step::End(lease, how)),
        1 => (0..12_u64).prop_map(Step::Limit),
    ];
    vec(step, 1..200)
}

proptest! {
    #[test]
    fn a_place_is_held_until_its_lease_ends(steps in steps()) {
        let quota = counting();
        let (mut limit, mut held) = (5, Vec::<(Lease, u64)>::new());
        for step in steps {
            let sum: u64 = held.iter().map(|(_, amount)| amount).sum();
            match step {
                Step::Reserve(amount) => match quota.reserve(&places(limit), "who", amount) {
                    Ok(lease) => {
                        prop_assert!(amount == 0 || sum + amount <= limit);
                        held.push((lease, amount));
                    }
                    Err(denied) => {
                        prop_assert!(amount > 0 && sum + amount > limit);
                        let wait = (amount <= limit).then_some(Duration::from_secs(1));
                        prop_assert_eq!(denied.retry_after, wait);
                    }
                },
                Step::End(_, _) if held.is_empty() => {}
                Step::End(lease, how) => {
                    let (lease, amount) = held.swap_remove(lease % held.len());
                    match how {
                        0 => drop(lease),
                        1 => lease.keep(),
                        2 => lease.settle(amount),
                        _ => lease.settle(amount * 7 + 1),
                    }
                }
                Step::Limit(now) => limit = now,
            }
            let sum: u64 = held.iter().map(|(_, amount)| amount).sum();
            let standing = quota.standing(&places(limit), "who");
            prop_assert_eq!(standing.remaining, limit.saturating_sub(sum));
            prop_assert_eq!(standing.reset.is_zero(), sum == 0);
        }
    }
}

#[test]
fn never_are_more_held_than_there_are_places_and_all_come_back() {
    let (quota, limit) = (counting(), places(5));
    let (held, most, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let Ok(lease) = quota.reserve(&limit, "who", 1) else {
                        refused.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    let now = held.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    std::thread::yield_now();
                    held.fetch_sub(1, Ordering::SeqCst);
                    drop(lease);
                }
            });
        }
    });
    assert!(most.into_inner() <= 5);
    assert_eq!(quota.standing(&limit, "who").remaining, 5);
    assert!(refused.into_inner() < 16_000);
}

#[test]
fn places_are_nothing_that_another_rule_counts() {
    let quota = counting();
    let window = Limit {
        rule: Rule::Window {
            limit: 5,
            window: Duration::from_secs(60),
        },
        ..places(0)
    };
    let held = quota.reserve(&places(5), "who", 3).unwrap();
    quota.reserve(&window, "who", 5).unwrap().keep();
    drop(held);
    assert_eq!(quota.standing(&window, "who").remaining, 0);
    // Nor does what was used take a place for ever.
    assert_eq!(quota.standing(&places(5), "who").remaining, 5);
    assert_eq!(quota.export(), []);
}

#[test]
fn a_lease_goes_to_another_thread() {
    let quota = counting();
    let lease: Box<dyn std::any::Any + Send> =
        Box::new(quota.reserve(&places(1), "who", 1).unwrap());
    assert!(quota.reserve(&places(1), "who", 1).is_err());
    std::thread::spawn(move || drop(lease)).join().unwrap();
    assert!(quota.reserve(&places(1), "who", 1).is_ok());
}

/// Every order in which two threads' steps can happen.
#[cfg(loom)]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::super::super::concurrent::Concurrent;

    #[test]
    fn loom_the_last_place_goes_to_one_and_comes_back() {
        loom::model(|| {
            let places = Arc::new(Concurrent::new());
            let other = places.clone();
            let thread = thread::spawn(move || {
                let taken = other.reserve(1, 1).is_ok();
                if taken {
                    other.give_back(1);
                }
                taken
            });
            let mine = places.reserve(1, 1).is_ok();
            let theirs = thread.join().unwrap();
            assert!(mine || theirs);
            assert_eq!(places.held(), u64::from(mine));
        });
    }
}
