//! The sliding window against a log of all admissions.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::window::{Bounds, ENTRIES, Window};
use super::ns;

/// What was ever admitted, and when; searched from end to end.
#[derive(Default)]
struct Log(Vec<(u64, u64)>);

impl Log {
    /// What counts in the window that ends, inclusively, at `now`.
    fn used(&self, length: u64, now: u64) -> u64 {
        let young = self.0.iter().filter(|(at, _)| at + length > now);
        young.map(|(_, amount)| amount).sum()
    }

    /// The most that any half-open window holds: a fullest one begins with an admission.
    fn fullest(&self, length: u64) -> u64 {
        let from = |begin: u64| {
            let inside = self
                .0
                .iter()
                .filter(|(at, _)| (begin..begin + length).contains(at));
            inside.map(|(_, amount)| amount).sum()
        };
        self.0
            .iter()
            .map(|(begin, _)| from(*begin))
            .max()
            .unwrap_or(0)
    }
}

/// A lease as the log sees it.
struct Held {
    mark: u64,
    index: usize,
    amount: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Reserve(u64),
    /// One of the leases, and how much of it in thousandths was used.
    Settle(usize, u64),
}

fn steps(longest: u64, largest: u64, most_used: u64) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..=longest).prop_map(Step::Wait),
        1 => (0..=longest / 50).prop_map(Step::Wait),
        4 => (1..=largest).prop_map(Step::Reserve),
        2 => (any::<usize>(), 0..=most_used).prop_map(|(lease, used)| Step::Settle(lease, used)),
    ];
    vec(step, 1..250)
}

/// Whether `amount` is admitted at `now`, without changing anything.
fn would_admit(window: &Window, bounds: Bounds, now: u64, amount: u64) -> bool {
    window.clone().reserve(bounds, now, amount).is_ok()
}

/// Runs the steps, asks `check` about each decision, and returns what was admitted.
fn run(
    bounds: Bounds,
    steps: Vec<Step>,
    mut check: impl FnMut(&Window, &Log, u64, u64, bool),
) -> Log {
    let (mut window, mut log, mut held, mut now) =
        (Window::default(), Log::default(), Vec::<Held>::new(), 0);
    for step in steps {
        match step {
            Step::Wait(time) => now += time,
            Step::Reserve(amount) => {
                let before = window.clone();
                let answer = window.reserve(bounds, now, amount);
                check(&before, &log, now, amount, answer.is_ok());
                match answer {
                    Ok((mark, _)) => {
                        held.push(Held {
                            mark,
                            index: log.0.len(),
                            amount,
                        });
                        log.0.push((now, amount));
                    }
                    Err(denied) => match denied.retry_after {
                        Some(wait) => {
                            assert!(would_admit(&window, bounds, now + ns(wait), amount));
                        }
                        None => assert!(amount > bounds.limit),
                    },
                }
            }
            Step::Settle(_, _) if held.is_empty() => {}
            Step::Settle(lease, part) => {
                let lease = held.swap_remove(lease % held.len());
                let used = lease.amount * part / 1000;
                window.settle(bounds, now, lease.mark, lease.amount, used);
                log.0[lease.index].1 = used.min(lease.amount);
                log.0.push((now, used.saturating_sub(lease.amount)));
            }
        }
        assert!(window.entries() <= ENTRIES);
    }
    log
}

proptest! {
    #[test]
    fn small_limits_decide_as_the_log_does(
        limit in 1..=64_u64,
        length in 1..2000_u64,
        steps in steps(300, 5, 2000),
    ) {
        let bounds = Bounds { limit, length };
        run(bounds, steps, |window, log, now, amount, admitted| {
            let used = log.used(length, now);
            assert_eq!(admitted, used + amount <= limit);
            let standing = window.clone().standing(bounds, now);
            assert_eq!(standing.remaining, limit.saturating_sub(used));
            let back = ns(standing.reset);
            assert_eq!(log.used(length, now + back), 0);
            assert!(back == 0 || log.used(length, now + back - 1) > 0);
            if let Err(denied) = window.clone().reserve(bounds, now, amount)
                && let Some(wait) = denied.retry_after
            {
                // A nanosecond earlier it is refused.
                assert!(log.used(length, now + ns(wait) - 1) + amount > limit);
            }
        });
    }

    #[test]
    fn no_window_holds_more_than_the_limit(
        limit in 1..3000_u64,
        length in 1..5000_u64,
        steps in steps(700, 100, 1000),
    ) {
        let log = run(Bounds { limit, length }, steps, |_, _, _, _, _| {});
        prop_assert!(log.fullest(length) <= limit);
    }

    #[test]
    fn large_limits_are_late_by_a_64th_at_most(
        limit in 65..3000_u64,
        length in 64..50_000_u64,
        steps in steps(2000, 100, 1000),
    ) {
        run(Bounds { limit, length }, steps, |_, log, now, amount, admitted| {
            let patient = log.used(length + length / 64, now) + amount <= limit;
            assert!(admitted || !patient);
        });
    }

    #[test]
    fn what_is_given_back_is_there_again(
        limit in 1..2000_u64,
        amounts in vec((1..50_u64, 0..40_u64), 1..100),
    ) {
        let bounds = Bounds { limit, length: 1_000_000 };
        let (mut window, mut now, mut leases) = (Window::default(), 5, Vec::new());
        for (amount, pause) in amounts {
            now += pause;
            leases.extend(window.reserve(bounds, now, amount).ok().map(|(mark, _)| (mark, amount)));
        }
        let mut used: u64 = leases.iter().map(|(_, amount)| amount).sum();
        for (mark, amount) in leases {
            window.settle(bounds, now, mark, amount, 0);
            used -= amount;
            prop_assert_eq!(window.standing(bounds, now).remaining, limit - used);
        }
        prop_assert_eq!(window.entries(), 0);
    }
}

#[test]
fn the_sixteenth_enters_when_the_first_leaves() {
    let bounds = Bounds::new(15, std::time::Duration::from_secs(60));
    let mut window = Window::default();
    for second in 0..15 {
        window
            .reserve(bounds, second * 1_000_000_000 + 7, 1)
            .unwrap();
    }
    let denied = window.reserve(bounds, 20_000_000_000, 1).unwrap_err();
    assert_eq!(ns(denied.retry_after.unwrap()), 40_000_000_007);
    assert_eq!(denied.standing.remaining, 0);
    assert_eq!(ns(denied.standing.reset), 54_000_000_007);
    assert!(window.reserve(bounds, 60_000_000_006, 1).is_err());
    assert!(window.reserve(bounds, 60_000_000_007, 1).is_ok());
    assert!(window.reserve(bounds, 60_000_000_008, 1).is_err());
}

#[test]
fn what_has_left_gives_nothing_back() {
    let bounds = Bounds {
        limit: 10,
        length: 100,
    };
    let mut window = Window::default();
    let (mark, _) = window.reserve(bounds, 0, 4).unwrap();
    window.reserve(bounds, 100, 10).unwrap();
    window.settle(bounds, 100, mark, 4, 0);
    assert_eq!(window.standing(bounds, 100).remaining, 0);
}

#[test]
fn more_than_was_reserved_counts_from_when_it_is_known() {
    let bounds = Bounds {
        limit: 10,
        length: 100,
    };
    let mut window = Window::default();
    let (mark, _) = window.reserve(bounds, 0, 4).unwrap();
    window.settle(bounds, 60, mark, 4, 13);
    assert_eq!(window.standing(bounds, 60).remaining, 0);
    assert_eq!(window.standing(bounds, 100).remaining, 1);
    assert_eq!(window.standing(bounds, 160).remaining, 10);
}

#[test]
fn a_clock_that_lags_does_not_find_room_that_was_made_later() {
    let bounds = Bounds {
        limit: 1,
        length: 100,
    };
    let mut window = Window::default();
    window.reserve(bounds, 0, 1).unwrap();
    // Drops the admission, without admitting anything.
    window.standing(bounds, 150);
    // Judged, and written down, at 150: in [90, 190) there may be only this one.
    window.reserve(bounds, 90, 1).unwrap();
    let denied = window.reserve(bounds, 195, 1).unwrap_err();
    assert_eq!(ns(denied.retry_after.unwrap()), 55);
    // Whoever lags waits longer by as much.
    let denied = window.reserve(bounds, 185, 1).unwrap_err();
    assert_eq!(ns(denied.retry_after.unwrap()), 65);
}
