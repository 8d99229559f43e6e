//! Decisions over days of made-up demand, and what holds of all of them.

use std::time::Duration;

use proptest::prelude::*;
use tollgate::model::{Actuator, Scaling, ScalingMetric, Switch};
use tollgate::scale::decide::{Measured, Memory, decide};
use tollgate::scale::signals::{Reading, Signals};

fn settings() -> Scaling {
    Scaling {
        role: tollgate::model::Role::Both,
        min: 0,
        max: 20,
        metric: ScalingMetric::InFlight,
        target: 8.0,
        window: Duration::from_secs(60),
        up_delay: Duration::from_secs(30),
        down_delay: Duration::from_secs(600),
        grace: Duration::from_secs(600),
        hold: Switch::Off,
        actuator: Actuator::None,
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn measured(value: f64) -> Measured {
    Measured {
        value: Some(value),
        came: u64::from(value > 0.0),
        in_flight: u64::from(value > 0.0),
        ready: u32::MAX,
    }
}

/// A change, when it was decided.
#[derive(Debug)]
struct Change {
    at: u64,
    from: u32,
    to: u32,
    reason: String,
}

/// Replays a demand of requests in flight, second by second.
fn replay(scaling: &Scaling, seconds: u64, demand: impl Fn(u64) -> u64) -> (Vec<Change>, Vec<u32>) {
    let (mut signals, mut memory) = (Signals::default(), Memory::beginning(0, "beginning"));
    let (mut changes, mut desired) = (Vec::new(), Vec::new());
    let mut came = 0;
    for second in 0..seconds {
        let in_flight = demand(second);
        came += in_flight;
        let reading = Reading {
            came,
            in_flight,
            ..Reading::default()
        };
        signals.add(reading, at(second), scaling);
        let from = memory.desired();
        let seen = signals.measure(scaling, from);
        let decision = decide(scaling, &seen, &mut memory, at(second));
        if decision.changed {
            changes.push(Change {
                at: second,
                from,
                to: decision.desired,
                reason: decision.reason,
            });
        }
        desired.push(decision.desired);
    }
    (changes, desired)
}

/// The same noise for the same second, up to this.
fn noise(second: u64, most: u64) -> u64 {
    let mut x = second.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x ^ (x >> 27)) % (most + 1)
}

const DAY: u64 = 86_400;

/// A day: a wave that is 60 at its height, an hour of nothing at night, bursts of ten seconds, and noise over all of it.
fn busy(second: u64) -> u64 {
    let of_day = second % DAY;
    if of_day < 3_600 {
        return 0;
    }
    let turn = of_day as f64 / DAY as f64 * std::f64::consts::TAU;
    let wave = (34.0 - 26.0 * turn.cos()) as u64;
    let burst = if of_day % 5_000 < 10 { 40 } else { 0 };
    (wave + burst + noise(second, 10)).saturating_sub(5)
}

#[test]
fn two_days_of_demand_make_few_changes_and_each_says_why() {
    let scaling = settings();
    let (changes, desired) = replay(&scaling, 2 * DAY, busy);
    let told = || {
        changes
            .iter()
            .map(|c| format!("{c:?}\n"))
            .collect::<String>()
    };
    // Up and down once a day, a replica at a time or a little more, and to none at night.
    assert!((20..=60).contains(&changes.len()), "{}", told());
    let turns = changes.windows(2).filter(|pair| match pair {
        [a, b] => (a.to > a.from) != (b.to > b.from),
        _ => false,
    });
    // There are 34 bursts; a few of them are worth a replica, which goes again.
    assert!(turns.count() <= 16, "it flaps:\n{}", told());
    for pair in changes.windows(2) {
        let [a, b] = pair else { continue };
        let turns_back = a.to > a.from && b.to < b.from;
        assert!(!turns_back || b.at - a.at >= 600, "{b:?} follows {a:?}");
    }
    for change in &changes {
        let says = |text: &str| change.reason.contains(text);
        let is_first = change.from == 0 && says("a request came");
        let number = format!("than {}", change.from);
        assert!(
            is_first || (says("in_flight is") && says(&number)),
            "{change:?}"
        );
    }
    assert_eq!(desired.iter().max(), Some(&8), "{}", told());
    assert_eq!(desired[3_599], 0);
    assert_eq!(
        desired[DAY as usize + 3_000],
        0,
        "at night there is nothing to do"
    );
    let short = (0..2 * DAY).filter(|second| {
        let have = u64::from(desired[*second as usize]) * 8;
        have * 3 / 2 < busy(*second)
    });
    // Bursts are over before anything could be done, and mornings begin with a few.
    assert!(short.count() < 2_000, "{}", told());
}

/// Demand that swings about a boundary does not swing the replicas.
#[test]
fn what_swings_within_the_tolerance_changes_nothing() {
    let swing = |second: u64| if second % 400 < 200 { 31 } else { 35 };
    let (changes, _) = replay(&settings(), 20_000, swing);
    let after = changes.iter().filter(|change| change.at > 200);
    assert_eq!(after.count(), 0, "{changes:#?}");
}

#[test]
fn the_first_replica_starts_at_once_and_says_so() {
    let (scaling, mut memory) = (settings(), Memory::beginning(0, "none"));
    let quiet = decide(&scaling, &measured(0.0), &mut memory, at(1));
    assert!(!quiet.changed && quiet.desired == 0);
    let asked = Measured {
        value: Some(0.1),
        came: 1,
        ..Measured::default()
    };
    let first = decide(&scaling, &asked, &mut memory, at(2));
    assert_eq!((first.desired, first.changed), (1, true));
    assert!(first.reason.contains("a request came"), "{}", first.reason);
}

/// Fewer arrivals than one in a window, and one long stream: it is not cut down to nothing.
#[test]
fn who_is_served_keeps_the_last_replica() {
    let scaling = Scaling {
        metric: ScalingMetric::Rps,
        ..settings()
    };
    let mut memory = Memory::beginning(1, "one");
    let streaming = Measured {
        value: Some(0.0),
        came: 0,
        in_flight: 1,
        ready: 1,
    };
    for second in 0..5_000 {
        assert_eq!(
            decide(&scaling, &streaming, &mut memory, at(second)).desired,
            1
        );
    }
    let idle = Measured {
        in_flight: 0,
        ..streaming
    };
    let last = (5_000..5_700).map(|second| decide(&scaling, &idle, &mut memory, at(second)));
    assert_eq!(last.last().map(|last| last.desired), Some(0));
}

/// A delay counts from the moment at which the intent began: what was done in between does not begin it anew.
#[test]
fn delays_count_from_the_change_of_intent() {
    let (scaling, mut memory) = (settings(), Memory::beginning(4, "four"));
    for second in 0..=100 {
        assert!(!decide(&scaling, &measured(32.0), &mut memory, at(second)).changed);
    }
    let mut up = (101..).map(|second| {
        (
            second,
            decide(&scaling, &measured(80.0), &mut memory, at(second)),
        )
    });
    let (second, more) = up.find(|(_, decision)| decision.changed).unwrap();
    assert_eq!((second, more.desired), (131, 8), "doubled at the most");
    // The rest follows when the window has seen what this came to.
    let (second, rest) = up.find(|(_, decision)| decision.changed).unwrap();
    assert_eq!((second, rest.desired), (191, 10));
}

/// A moment of less demand begins the wait anew.
#[test]
fn an_intent_must_hold_without_a_break() {
    let (scaling, mut memory) = (settings(), Memory::beginning(4, "four"));
    for second in 0..3_000 {
        let value = if second % 29 == 0 { 32.0 } else { 48.0 };
        assert!(!decide(&scaling, &measured(value), &mut memory, at(second)).changed);
    }
}

#[test]
fn times_scale_what_there_is() {
    let scaling = Scaling {
        metric: ScalingMetric::Ttft,
        target: 0.5,
        up_delay: Duration::ZERO,
        ..settings()
    };
    let slow = |ready| Measured {
        value: Some(0.75),
        came: 1,
        in_flight: 1,
        ready,
    };
    let mut memory = Memory::beginning(4, "four");
    assert!(
        !decide(&scaling, &slow(3), &mut memory, at(0)).changed,
        "one still starts"
    );
    let more = decide(&scaling, &slow(4), &mut memory, at(1));
    assert_eq!(more.desired, 6);
    assert!(more.reason.contains("ttft is 0.750 s"), "{}", more.reason);
    let silent = Measured {
        value: None,
        ..slow(6)
    };
    assert!(
        !decide(&scaling, &silent, &mut memory, at(2)).changed,
        "nothing is known"
    );
}

#[test]
fn new_bounds_hold_at_once() {
    let mut memory = Memory::beginning(9, "nine");
    let scaling = Scaling {
        max: 5,
        ..settings()
    };
    assert_eq!(
        decide(&scaling, &measured(72.0), &mut memory, at(0)).desired,
        5
    );
    let scaling = Scaling {
        min: 7,
        ..settings()
    };
    let more = decide(&scaling, &measured(0.0), &mut memory, at(1));
    assert_eq!(more.desired, 7);
    assert!(more.reason.contains("between 7 and 20"), "{}", more.reason);
}

fn any_settings() -> impl Strategy<Value = Scaling> {
    let metric = prop_oneof![
        Just(ScalingMetric::InFlight),
        Just(ScalingMetric::Rps),
        Just(ScalingMetric::Queue),
        Just(ScalingMetric::Ttft),
        Just(ScalingMetric::Tokens),
    ];
    (0..5u32, 0..30u32, metric, 0.1..20.0f64, 0..90u64, 0..900u64).prop_map(
        |(min, more, metric, target, up, down)| Scaling {
            min,
            max: (min + more).max(1),
            metric,
            target,
            up_delay: at(up),
            down_delay: at(down),
            ..settings()
        },
    )
}

fn any_measured() -> impl Strategy<Value = Measured> {
    let value = proptest::option::weighted(0.9, prop_oneof![Just(0.0), 0.0..400.0f64]);
    (value, 0..3u64, 0..3u64, 0..40u32).prop_map(|(value, came, in_flight, ready)| Measured {
        value,
        came,
        in_flight,
        ready,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is measured: within the bounds, in bounded steps, no sooner than the delays, and never without a word.
    #[test]
    fn decisions_keep_bounds_steps_and_delays(
        scaling in any_settings(),
        runs in proptest::collection::vec((any_measured(), 1..200u64), 1..30),
    ) {
        let mut memory = Memory::beginning(scaling.min, "beginning");
        let (mut now, mut last) = (0, None);
        for (seen, length) in runs {
            for _ in 0..length {
                now += 1;
                let from = memory.desired();
                let decision = decide(&scaling, &seen, &mut memory, at(now));
                let to = decision.desired;
                prop_assert!((scaling.min..=scaling.max).contains(&to));
                prop_assert_eq!(decision.changed, from != to);
                prop_assert!(!decision.reason.is_empty());
                if !decision.changed {
                    continue;
                }
                prop_assert!(to <= (2 * from).max(from + 4) && to >= from / 2);
                if let Some((before, more)) = last
                    && (to > from) != more
                    && from > 0
                {
                    // The other direction's intent began after the last change.
                    let delay = if to > from { scaling.up_delay } else { scaling.down_delay };
                    prop_assert!(at(now - before) >= delay);
                }
                last = Some((now, to > from));
            }
        }
    }

    /// More of it never comes to fewer.
    #[test]
    fn more_demand_never_comes_to_fewer(
        scaling in any_settings(),
        present in 0..30u32,
        low in 0.0..300.0f64,
        more in 0.0..300.0f64,
    ) {
        let scaling = Scaling {
            up_delay: Duration::ZERO,
            down_delay: Duration::ZERO,
            ..scaling
        };
        let present = present.clamp(scaling.min, scaling.max);
        let of = |value| {
            let mut memory = Memory::beginning(present, "beginning");
            decide(&scaling, &measured(value), &mut memory, at(1)).desired
        };
        prop_assert!(of(low) <= of(low + more));
    }
}
