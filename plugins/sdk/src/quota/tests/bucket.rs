//! The bucket against `governor`, and against a bucket with a level.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::bucket::Bucket;
use super::ns;

/// A rate whose cells come back in a whole number of nanoseconds.
fn rate(interval: u64) -> f64 {
    1e9 / interval as f64
}

/// Whether `cells` are admitted, without keeping them.
fn would_admit(bucket: &Bucket, now: u64, cells: u64) -> bool {
    let answer = bucket.reserve(now, cells);
    if let Ok((mark, _)) = answer {
        bucket.settle(now, mark, cells, 0);
    }
    answer.is_ok()
}

proptest! {
    #[test]
    fn single_cells_pass_as_with_governor(
        interval in prop::sample::select(vec![1_u64, 1000, 40_000, 1_000_000, 500_000_000, 60_000_000_000]),
        burst in 1..50_u32,
        waits in vec(prop_oneof![Just(0_u64), 0..300_u64, 9_000..11_000_u64], 1..200),
    ) {
        let clock = FakeRelativeClock::default();
        let quota = Quota::with_period(Duration::from_nanos(interval)).unwrap()
            .allow_burst(NonZeroU32::new(burst).unwrap());
        let oracle = RateLimiter::direct_with_clock(quota, clock.clone());
        let bucket = Bucket::new(rate(interval), u64::from(burst), 0, 0);
        let mut now = 0;
        for wait in waits {
            // In hundredths of an interval, so that boundaries are hit exactly.
            let wait = interval * wait / 100;
            now += wait;
            clock.advance(Duration::from_nanos(wait));
            prop_assert_eq!(bucket.reserve(now, 1).is_ok(), oracle.check().is_ok());
        }
    }

    #[test]
    fn decides_as_a_bucket_with_a_level(
        interval in prop::sample::select(vec![1_u64, 7, 1000]),
        burst in 1..100_u64,
        steps in vec((0..3000_u64, 0..120_u64), 1..200),
    ) {
        let bucket = Bucket::new(rate(interval), burst, 0, 0);
        let depth = burst * interval;
        let (mut level, mut now) = (depth, 0);
        for (wait, cells) in steps {
            now += wait;
            level = depth.min(level + wait);
            match bucket.reserve(now, cells) {
                Ok(_) => {
                    prop_assert!(cells * interval <= level);
                    level -= cells * interval;
                }
                Err(denied) => {
                    prop_assert!(cells * interval > level);
                    match denied.retry_after {
                        None => prop_assert!(cells > burst),
                        Some(wait) => {
                            prop_assert!(!would_admit(&bucket, now + ns(wait) - 1, cells));
                            prop_assert!(would_admit(&bucket, now + ns(wait), cells));
                        }
                    }
                }
            }
            let standing = bucket.standing(now);
            prop_assert_eq!(standing.remaining, level / interval);
            prop_assert_eq!(ns(standing.reset), depth - level);
        }
    }

    /// Whatever is given back, and whenever: what was used in any time is at most the burst and what came back in it.
    #[test]
    fn giving_back_never_makes_more_than_the_rate(
        interval in 1..20_u64,
        burst in 1..60_u64,
        steps in vec((0..200_u64, 1..60_u64, any::<usize>(), 0..=4_u64, any::<bool>()), 1..150),
    ) {
        let bucket = Bucket::new(rate(interval), burst, 0, 0);
        let (mut now, mut used, mut open) = (0, Vec::<(u64, u64)>::new(), Vec::new());
        for (wait, cells, lease, part, settles) in steps {
            now += wait;
            if settles && !open.is_empty() {
                let (mark, index): (u64, usize) = open.swap_remove(lease % open.len());
                let reserved = used[index].1;
                used[index].1 = reserved * part / 4;
                bucket.settle(now, mark, reserved, used[index].1);
            } else if let Ok((mark, _)) = bucket.reserve(now, cells) {
                open.push((mark, used.len()));
                used.push((now, cells));
            }
        }
        // `rate` was rounded, and so was the interval.
        let interval = rate(interval).recip().mul_add(1e9, 1e-6).floor() as u64;
        for (first, (begin, _)) in used.iter().enumerate() {
            let mut sum = 0;
            for (end, cells) in &used[first..] {
                sum += cells * interval;
                prop_assert!(sum <= burst * interval + end - begin);
            }
        }
    }

    #[test]
    fn what_is_given_back_at_once_is_there_again(
        burst in 1..1000_u64,
        amounts in vec(1..100_u64, 1..40),
        last_first in any::<bool>(),
    ) {
        let bucket = Bucket::new(3.0, burst, 9, 0);
        let mut reserved: Vec<_> = amounts.iter().filter_map(|cells| {
            bucket.reserve(9, *cells).ok().map(|(mark, _)| (mark, *cells))
        }).collect();
        let mut missing: u64 = reserved.iter().map(|(_, cells)| cells).sum();
        if last_first {
            reserved.reverse();
        }
        for (mark, cells) in reserved {
            prop_assert_eq!(bucket.standing(9).remaining, burst - missing);
            bucket.settle(9, mark, cells, 0);
            missing -= cells;
        }
        prop_assert_eq!(bucket.standing(9).remaining, burst);
    }
}

#[test]
fn time_and_settling_restore_a_cell_once() {
    // One cell a second, ten at most.
    let second = 1_000_000_000;
    let bucket = Bucket::new(1.0, 10, 0, 0);
    let (mark, _) = bucket.reserve(0, 10).unwrap();
    // Four have come back by themselves.
    bucket.settle(4 * second, mark, 10, 0);
    assert_eq!(bucket.standing(4 * second).remaining, 10);
    assert!(bucket.reserve(4 * second, 10).is_ok());
    assert!(bucket.reserve(4 * second, 1).is_err());
}

#[test]
fn a_lease_held_past_its_restoring_gives_nothing_back() {
    let second = 1_000_000_000;
    let bucket = Bucket::new(1.0, 20, 0, 0);
    let (first, _) = bucket.reserve(0, 10).unwrap();
    let (second_lease, _) = bucket.reserve(0, 10).unwrap();
    bucket.settle(0, first, 10, 0);
    // Without the first's ten, the second's are restored after ten seconds.
    bucket.reserve(10 * second, 20).unwrap();
    bucket.settle(10 * second, second_lease, 10, 0);
    assert_eq!(bucket.standing(10 * second).remaining, 0);
}

#[test]
fn more_than_was_reserved_is_owed() {
    let second = 1_000_000_000;
    let bucket = Bucket::new(2.0, 10, 0, 0);
    let (mark, _) = bucket.reserve(0, 4).unwrap();
    bucket.settle(0, mark, 4, 30);
    let denied = bucket.reserve(0, 1).unwrap_err();
    assert_eq!(denied.standing.remaining, 0);
    assert_eq!(ns(denied.retry_after.unwrap()), 10 * second + second / 2);
    assert!(bucket.reserve(10 * second + second / 2, 1).is_ok());
}

#[test]
fn a_full_bucket_is_full_for_a_clock_that_lags() {
    let bucket = Bucket::new(1.0, 1, 100, 0);
    assert!(bucket.reserve(90, 1).is_ok());
}

#[test]
fn threads_take_what_there_is() {
    let bucket = Bucket::new(1.0, 500, 0, 0);
    let admitted: u64 = std::thread::scope(|scope| {
        let take = || (0..200).filter(|_| bucket.reserve(0, 1).is_ok()).count() as u64;
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(admitted, 500);
}

/// Every order in which two threads' steps can happen.
#[cfg(loom)]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::Bucket;

    #[test]
    fn loom_the_last_cell_goes_to_one() {
        loom::model(|| {
            let bucket = Arc::new(Bucket::new(1.0, 1, 0, 0));
            let other = bucket.clone();
            let thread = thread::spawn(move || other.reserve(0, 1).is_ok());
            let mine = bucket.reserve(0, 1).is_ok();
            assert!(mine != thread.join().unwrap());
            assert_eq!(bucket.standing(0).remaining, 0);
        });
    }

    #[test]
    fn loom_nothing_is_lost_between_taking_and_giving_back() {
        loom::model(|| {
            let bucket = Arc::new(Bucket::new(1.0, 5, 0, 0));
            let (mark, _) = bucket.reserve(0, 3).unwrap();
            let other = bucket.clone();
            let thread = thread::spawn(move || other.settle(0, mark, 3, 1));
            let (mine, _) = bucket.reserve(0, 2).unwrap();
            thread.join().unwrap();
            assert_eq!(bucket.standing(0).remaining, 2);
            assert!(bucket.reserve(0, 3).is_err());
            bucket.settle(0, mine, 2, 0);
            assert_eq!(bucket.standing(0).remaining, 4);
        });
    }

    #[test]
    fn loom_two_give_back_and_one_owes() {
        loom::model(|| {
            let bucket = Arc::new(Bucket::new(1.0, 10, 0, 0));
            let marks = [(); 2].map(|()| bucket.reserve(0, 3).unwrap().0);
            let threads = [(marks[0], 0), (marks[1], 5)].map(|(mark, used)| {
                let bucket = bucket.clone();
                thread::spawn(move || bucket.settle(0, mark, 3, used))
            });
            threads.into_iter().for_each(|t| t.join().unwrap());
            assert_eq!(bucket.standing(0).remaining, 5);
        });
    }
}
