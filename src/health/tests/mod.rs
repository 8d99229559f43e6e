//! Standings by example, against a naive twin, and with real sockets.

mod asked;
mod server;
mod storm;
mod twin;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::model;

/// Three failures within a second open it for half a second.
fn breaker() -> model::Breaker {
    model::Breaker {
        failures: 3,
        window: Duration::from_secs(1),
        open: Duration::from_millis(500),
    }
}

const TWO: Thresholds = Thresholds {
    unhealthy_after: 2,
    healthy_after: 2,
};

/// A target and a clock that is moved by hand.
struct Bench {
    health: Arc<TargetHealth>,
    now: Instant,
}

impl Bench {
    fn new(probed: bool) -> Bench {
        let health = Arc::new(TargetHealth::default());
        let now = Instant::now();
        health.configure(probed, Some(&breaker()), now);
        Bench { health, now }
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn standing(&self) -> Standing {
        self.health.standing(self.now)
    }

    fn enter(&self) -> Option<Ticket> {
        self.health.enter(self.now)
    }

    fn fail(&self, failure: Failure) -> Option<Turn> {
        self.enter().unwrap().failed(failure, self.now)
    }

    fn open(&self, failure: Failure) {
        let turns: Vec<_> = (0..3).map(|_| self.fail(failure)).collect();
        assert_eq!(turns, [None, None, Some(Turn::Opened)]);
    }

    fn probed(&self, ok: bool) -> Option<Turn> {
        self.health.probed(ok, &TWO, self.now)
    }
}

#[test]
fn probes_turn_a_target_at_their_thresholds() {
    let mut bench = Bench::new(true);
    let answers = [true, false, true].map(|ok| bench.probed(ok));
    assert_eq!(answers, [None; 3], "not two in a row");
    assert_eq!(bench.standing(), Standing::Unchecked);
    assert_eq!(bench.probed(true), Some(Turn::WentUp));
    assert_eq!(bench.standing(), Standing::Up, "no slow start when new");
    let answers = [false, true, false].map(|ok| bench.probed(ok));
    assert_eq!(answers, [None; 3], "not two in a row");
    assert_eq!(bench.probed(false), Some(Turn::WentDown));
    assert_eq!(bench.standing(), Standing::Down);
    assert_eq!(bench.probed(true), None);
    assert_eq!(bench.probed(true), Some(Turn::WentUp));
    assert_eq!(bench.standing(), Standing::Starting(0.1));
    bench.pass(5_000);
    assert_eq!(bench.standing(), Standing::Starting(0.55));
    bench.pass(5_000);
    assert_eq!(bench.standing(), Standing::Up);
}

#[test]
fn a_new_target_that_does_not_answer_is_down_at_the_threshold() {
    let bench = Bench::new(true);
    assert_eq!(bench.probed(false), None);
    assert_eq!(bench.standing(), Standing::Unchecked);
    assert_eq!(bench.probed(false), Some(Turn::WentDown));
}

#[test]
fn failures_within_the_window_open_and_one_success_closes() {
    let mut bench = Bench::new(false);
    assert_eq!(bench.fail(Failure::Status(500)), None);
    bench.pass(1_001);
    assert_eq!(
        bench.fail(Failure::Status(503)),
        None,
        "the first is forgotten"
    );
    assert_eq!(bench.fail(Failure::Timeout), None);
    assert_eq!(bench.fail(Failure::Connect), Some(Turn::Opened));
    assert!(matches!(bench.standing(), Standing::Open { .. }));
    assert_eq!(bench.health.breaker(bench.now), BreakerState::Open);
    assert!(bench.enter().is_none());
    bench.pass(500);
    assert_eq!(bench.standing(), Standing::HalfOpen { busy: false });
    let mut trial = bench.enter().unwrap();
    assert!(trial.is_trial());
    assert_eq!(bench.standing(), Standing::HalfOpen { busy: true });
    assert!(bench.enter().is_none(), "one at a time");
    assert_eq!(trial.succeeded(bench.now), Some(Turn::Closed));
    assert_eq!(trial.succeeded(bench.now), None);
    assert_eq!(bench.standing(), Standing::Starting(0.1));
    assert_eq!(bench.health.breaker(bench.now), BreakerState::Closed);
    // What breaks in the midst of the answer still counts, once.
    assert_eq!(trial.failed(Failure::Reset, bench.now), None);
    assert_eq!(trial.failed(Failure::Reset, bench.now), None);
    assert_eq!(bench.fail(Failure::Reset), None);
    assert_eq!(bench.fail(Failure::Reset), Some(Turn::Opened));
}

#[test]
fn one_failure_opens_a_half_open_breaker_again_and_no_verdict_frees_its_place() {
    let mut bench = Bench::new(false);
    bench.open(Failure::Timeout);
    bench.pass(500);
    drop(bench.enter().unwrap());
    assert_eq!(bench.standing(), Standing::HalfOpen { busy: false });
    let mut trial = bench.enter().unwrap();
    assert_eq!(trial.failed(Failure::Status(429), bench.now), None);
    assert_eq!(bench.standing(), Standing::HalfOpen { busy: true });
    drop(trial);
    assert_eq!(bench.fail(Failure::Timeout), Some(Turn::Opened));
    let until = bench.now + Duration::from_millis(500);
    assert_eq!(bench.standing(), Standing::Open { until });
}

#[test]
fn what_the_client_did_never_counts() {
    let bench = Bench::new(false);
    for _ in 0..100 {
        for status in [400, 401, 404, 408, 422, 429] {
            assert_eq!(bench.fail(Failure::Status(status)), None);
        }
        drop(bench.enter());
    }
    assert_eq!(bench.standing(), Standing::Up);
}

#[test]
fn a_verdict_from_before_the_last_turn_says_nothing() {
    let mut bench = Bench::new(false);
    let mut stale: Vec<_> = (0..6).map(|_| bench.enter().unwrap()).collect();
    bench.open(Failure::Connect);
    bench.pass(500);
    // Neither closes what opened since, nor opens it again.
    assert_eq!(stale[0].succeeded(bench.now), None);
    assert_eq!(stale[1].failed(Failure::Timeout, bench.now), None);
    assert_eq!(bench.standing(), Standing::HalfOpen { busy: false });
    assert_eq!(
        bench.enter().unwrap().succeeded(bench.now),
        Some(Turn::Closed)
    );
    for ticket in &mut stale[2..] {
        assert_eq!(ticket.failed(Failure::Timeout, bench.now), None);
    }
}

#[test]
fn a_probe_that_reaches_a_target_refutes_that_it_cannot_be_reached() {
    let bench = Bench::new(true);
    bench.probed(true);
    bench.open(Failure::Connect);
    bench.probed(true);
    assert_eq!(bench.standing(), Standing::HalfOpen { busy: false });
    // But not that it answers with errors.
    let bench = Bench::new(true);
    bench.probed(true);
    bench.open(Failure::Status(500));
    bench.probed(true);
    assert!(matches!(bench.standing(), Standing::Open { .. }));
    // Unless it was down meanwhile, and is another process now.
    for ok in [false, false, true, true] {
        bench.probed(ok);
    }
    assert_eq!(bench.standing(), Standing::HalfOpen { busy: false });
}

#[test]
fn cooling_is_shared_and_the_longest_wins() {
    let mut bench = Bench::new(false);
    let until = bench.now + Duration::from_secs(2);
    bench.health.cool(until);
    bench.health.cool(bench.now + Duration::from_secs(1));
    assert_eq!(bench.standing(), Standing::Cooling { until });
    assert_eq!(bench.standing().share(), None);
    bench.pass(1_999);
    assert_eq!(bench.standing(), Standing::Cooling { until });
    bench.pass(1);
    assert_eq!(bench.standing(), Standing::Up);
}

#[test]
fn when_nothing_else_is_left_a_success_counts_and_a_failure_does_not() {
    let mut bench = Bench::new(false);
    bench.open(Failure::Connect);
    let before = bench.standing();
    let mut desperate = bench.health.enter_anyway(bench.now);
    assert_eq!(desperate.failed(Failure::Connect, bench.now), None);
    assert_eq!(bench.standing(), before);
    let mut desperate = bench.health.enter_anyway(bench.now);
    assert_eq!(desperate.succeeded(bench.now), Some(Turn::Closed));
    bench.open(Failure::Connect);
    bench.pass(500);
    let trial = bench.health.enter_anyway(bench.now);
    assert!(trial.is_trial() && !bench.health.enter_anyway(bench.now).is_trial());
}

#[test]
fn settings_may_change_meanwhile() {
    let bench = Bench::new(true);
    for ok in [false, false] {
        bench.probed(ok);
    }
    bench.health.configure(false, Some(&breaker()), bench.now);
    assert_eq!(bench.standing(), Standing::Up, "no longer probed");
    assert_eq!(bench.probed(false), None, "one probe was under way");
    bench.open(Failure::Connect);
    bench.health.configure(true, None, bench.now);
    assert_eq!(bench.standing(), Standing::Unchecked);
    bench.probed(true);
    bench.probed(true);
    for _ in 0..10 {
        assert_eq!(bench.fail(Failure::Connect), None, "its breaker is off");
    }
    assert_eq!(bench.standing(), Standing::Up);
}

#[test]
fn the_least_bad_one_is_tried() {
    let now = Instant::now();
    let soon = now + Duration::from_secs(1);
    let late = now + Duration::from_secs(2);
    let order = [
        Standing::Up,
        Standing::Starting(0.5),
        Standing::HalfOpen { busy: false },
        Standing::Unchecked,
        Standing::HalfOpen { busy: true },
        Standing::Cooling { until: soon },
        Standing::Cooling { until: late },
        Standing::Open { until: soon },
        Standing::Open { until: late },
        Standing::Down,
    ];
    let worst_first = || order.iter().copied().enumerate().rev();
    for best in 0..order.len() {
        assert_eq!(
            least_bad(worst_first().filter(|(i, _)| *i >= best)),
            Some(best)
        );
    }
    assert_eq!(least_bad([]), None);
    let mut tried = [0; 4];
    for _ in 0..4_000 {
        tried[least_bad((0..4).map(|i| (i, Standing::Down))).unwrap()] += 1;
    }
    assert!(tried.iter().all(|n| (800..1_200).contains(n)), "{tried:?}");
}
