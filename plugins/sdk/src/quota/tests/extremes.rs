//! Nothing panics, and what is told stays sensible, at the ends of every range.

use std::time::Duration;

use super::super::Period;
use super::super::bucket::Bucket;
use super::super::calendar::Calendar;
use super::super::concurrent::Concurrent;
use super::super::window::{Bounds, Window};

const AMOUNTS: [u64; 8] = [0, 1, 64, 65, u64::MAX / 2, 1 << 63, u64::MAX - 1, u64::MAX];
const LENGTHS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_nanos(63),
    Duration::from_secs(60),
    Duration::from_nanos(u64::MAX),
    Duration::MAX,
];
const RATES: [f64; 10] = [
    0.0,
    -1.0,
    f64::NAN,
    f64::MIN_POSITIVE,
    1e-12,
    1.0,
    1e9,
    1e12,
    f64::MAX,
    f64::INFINITY,
];

#[test]
fn windows_of_any_size() {
    for limit in AMOUNTS {
        for length in LENGTHS {
            let bounds = Bounds::new(limit, length);
            let mut window = Window::default();
            for now in AMOUNTS.into_iter().chain(AMOUNTS.into_iter().rev()) {
                for amount in AMOUNTS {
                    match window.reserve(bounds, now, amount) {
                        Ok((mark, standing)) => {
                            assert!(amount <= limit);
                            window.settle(bounds, now, mark, amount, amount / 2);
                            window.settle(bounds, now, mark, amount, u64::MAX);
                            window.settle(bounds, now, mark, u64::MAX, 0);
                            assert!(standing.remaining <= limit - amount);
                        }
                        Err(denied) => {
                            assert_eq!(denied.retry_after.is_none(), amount > limit);
                            assert!(denied.standing.remaining < amount);
                        }
                    }
                    assert!(window.standing(bounds, now).remaining <= limit);
                }
            }
        }
    }
}

#[test]
fn a_window_of_no_length_holds_nothing() {
    let bounds = Bounds::new(3, Duration::ZERO);
    let mut window = Window::default();
    for _ in 0..10 {
        assert!(window.reserve(bounds, 5, 3).is_ok());
    }
    assert!(window.reserve(bounds, 5, 4).is_err());
}

#[test]
fn a_limit_of_nothing_admits_nothing() {
    let bounds = Bounds::new(0, Duration::from_secs(1));
    let denied = Window::default().reserve(bounds, 0, 1).unwrap_err();
    assert_eq!(denied.retry_after, None);
    let denied = Bucket::new(1.0, 0, 0, 0).reserve(0, 1).unwrap_err();
    assert_eq!(denied.retry_after, None);
}

#[test]
fn buckets_of_any_size() {
    for burst in AMOUNTS {
        for rate in RATES {
            for used in [0, 1, u64::MAX] {
                let bucket = Bucket::new(rate, burst, 1, used);
                for now in AMOUNTS.into_iter().chain(AMOUNTS.into_iter().rev()) {
                    for cells in AMOUNTS {
                        match bucket.reserve(now, cells) {
                            Ok((mark, _)) => {
                                assert!(cells <= burst);
                                bucket.settle(now, mark, cells, cells / 2);
                                bucket.settle(now, mark, cells, u64::MAX);
                                bucket.settle(now, mark, u64::MAX, 0);
                            }
                            Err(denied) => assert!(denied.standing.remaining < cells),
                        }
                        assert!(bucket.standing(now).remaining <= burst);
                        bucket.used(now);
                    }
                }
            }
        }
    }
}

#[test]
fn a_rate_of_nothing_grants_its_burst_once_in_a_lifetime() {
    let bucket = Bucket::new(0.0, 3, 0, 0);
    assert!(bucket.reserve(0, 3).is_ok());
    let year = 365 * 24 * 3600 * 1_000_000_000;
    assert!(bucket.reserve(40 * year, 1).is_err());
}

#[test]
fn calendars_of_any_time() {
    for period in [Period::Day, Period::Month] {
        for unix in AMOUNTS {
            assert!(period.start(unix) <= unix);
            assert!(period.next(unix) > unix || unix > u64::MAX - 32 * 86_400);
        }
        for limit in AMOUNTS {
            let mut calendar = Calendar::new(period, Duration::ZERO, 0);
            for unix in LENGTHS.into_iter().chain(LENGTHS.into_iter().rev()) {
                for amount in AMOUNTS {
                    match calendar.reserve(limit, unix, amount) {
                        Ok((mark, standing)) => {
                            assert!(standing.remaining <= limit - amount);
                            calendar.settle(unix, mark, amount, amount / 2);
                            calendar.settle(unix, mark, u64::MAX, 0);
                            calendar.settle(unix, mark, 0, u64::MAX);
                        }
                        Err(denied) => assert_eq!(denied.retry_after.is_none(), amount > limit),
                    }
                    assert!(calendar.standing(limit, unix).remaining <= limit);
                }
            }
        }
    }
}

#[test]
fn places_in_any_number() {
    for limit in AMOUNTS {
        let places = Concurrent::new();
        for amount in AMOUNTS {
            match places.reserve(limit, amount) {
                Ok(standing) => assert!(standing.remaining <= limit - amount),
                Err(denied) => assert!(denied.standing.remaining < amount),
            }
            assert!(places.held() <= limit);
        }
        places.give_back(u64::MAX);
        assert_eq!(places.standing(limit).remaining, limit);
    }
}
