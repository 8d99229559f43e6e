//! What all policies promise: shares as the weights say, limits kept, counts given back.

use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Targets of these weights, known by their place.
pub(super) fn targets(weights: &[u32]) -> Vec<Target> {
    weights
        .iter()
        .enumerate()
        .map(|(i, &weight)| Target {
            weight,
            id: stable_hash(format!("http://engine-{i}:8000").as_bytes()),
            state: Arc::default(),
        })
        .collect()
}

/// Asks for any target.
pub(super) fn any() -> Ask<'static> {
    Ask {
        usable: &|_| Usable::Yes(1.0),
        key: None,
        prompt: None,
        patient: false,
    }
}

fn policies() -> Vec<Box<dyn Policy>> {
    vec![
        Box::new(RoundRobin::default()),
        Box::new(Random),
        Box::new(LeastConnections::default()),
        Box::new(PowerOfTwo),
        Box::new(ConsistentHash),
    ]
}

const PICKS: usize = 20_000;

/// The largest distance of a target's share from its weight's.
fn distance(counts: &[usize], weights: &[u32]) -> f64 {
    let total: u32 = weights.iter().sum();
    let picks: usize = counts.iter().sum();
    counts
        .iter()
        .zip(weights)
        .map(|(count, weight)| {
            (*count as f64 / picks as f64 - f64::from(*weight) / f64::from(total)).abs()
        })
        .fold(0.0, f64::max)
}

/// `hold` requests stay at a time, each leaving when that many more have come.
fn shares(policy: &dyn Policy, weights: &[u32], hold: usize) -> Vec<usize> {
    let targets = targets(weights);
    let mut counts = vec![0; weights.len()];
    let mut held = std::collections::VecDeque::new();
    for key in 0..PICKS as u64 {
        let ask = Ask {
            key: Some(stable_hash(&key.to_le_bytes())),
            ..any()
        };
        let (i, guard) = policy.pick(&targets, &ask).unwrap();
        counts[i] += 1;
        held.push_back(guard);
        if held.len() > hold {
            held.pop_front();
        }
    }
    drop(held);
    assert!(targets.iter().all(|t| t.state.in_flight() == 0));
    counts
}

#[test]
fn shares_match_the_weights_within_two_percent() {
    for policy in policies() {
        for weights in [
            &[1, 1, 1, 1][..],
            &[5, 3, 1, 1],
            &[10, 1],
            &[1, 2, 3, 4, 5, 6, 7],
        ] {
            for hold in [0, 200, PICKS] {
                let counts = shares(&*policy, weights, hold);
                let distance = distance(&counts, weights);
                eprintln!(
                    "{policy:.0?} {weights:?} holding {hold}: {:.3} %",
                    distance * 100.0
                );
                assert!(distance < 0.02, "{policy:?} {weights:?} {hold}: {counts:?}");
            }
        }
    }
}

#[test]
fn who_is_not_usable_is_never_chosen() {
    for policy in policies() {
        let targets = targets(&[1, 1, 1]);
        let ask = |usable: &dyn Fn(usize) -> Usable| {
            let ask = Ask {
                usable,
                key: Some(3),
                prompt: None,
                patient: false,
            };
            policy.pick(&targets, &ask).map(|(i, _)| i)
        };
        for _ in 0..100 {
            assert_ne!(
                ask(&|i| if i == 1 { Usable::No } else { Usable::Yes(1.0) }),
                Some(1)
            );
            assert_eq!(ask(&|_| Usable::No), None);
            // Who starts slowly and is alone serves.
            assert_eq!(
                ask(&|i| if i == 2 { Usable::Yes(0.0) } else { Usable::No }),
                Some(2)
            );
        }
        assert!(policy.pick(&[], &any()).is_none());
    }
}

#[test]
fn a_full_pool_is_told_from_one_that_is_down() {
    let targets = targets(&[1, 1]);
    assert!(!Random.all_full(&targets, &any()));
    targets.iter().for_each(|t| t.state.set_limit(1));
    let _held: Vec<_> = targets.iter().map(|t| t.state.try_hold()).collect();
    assert!(Random.all_full(&targets, &any()));
    for policy in policies() {
        assert!(policy.pick(&targets, &any()).is_none());
    }
    let down = Ask {
        usable: &|_| Usable::No,
        key: None,
        prompt: None,
        patient: false,
    };
    assert!(!Random.all_full(&targets, &down));
}

/// Poisson arrivals at targets whose answers take 20 ms to 400 ms on average.
#[test]
fn least_connections_is_even_under_uneven_latencies() {
    let latencies = [0.02, 0.05, 0.1, 0.4];
    let targets = targets(&[1; 4]);
    let policy = LeastConnections::default();
    let mut rng = SmallRng::seed_from_u64(3);
    let mut exponential = |mean: f64| -mean * (1.0 - rng.random::<f64>()).ln();
    let mut leaving: BinaryHeap<(std::cmp::Reverse<u64>, usize)> = BinaryHeap::new();
    let mut guards: Vec<Option<Guard>> = Vec::new();
    let (mut now, mut areas, mut worst) = (0.0, [0.0; 4], 0f64);
    let (mut looks, mut sum) = (0, 0.0);
    for request in 0..PICKS {
        let arrival = now + exponential(1.0 / 1_500.0);
        let mut advance = |to: f64| {
            for (area, target) in areas.iter_mut().zip(&targets) {
                *area += target.state.in_flight() as f64 * (to - now);
            }
            now = to;
        };
        while let Some((std::cmp::Reverse(at), who)) = leaving.peek().copied() {
            if at as f64 / 1e9 > arrival {
                break;
            }
            leaving.pop();
            advance(at as f64 / 1e9);
            guards[who] = None;
        }
        advance(arrival);
        let (i, guard) = policy.pick(&targets, &any()).unwrap();
        guards.push(Some(guard));
        let ends = arrival + exponential(latencies[i]);
        leaving.push((std::cmp::Reverse((ends * 1e9) as u64), request));
        if request > 2_000 {
            let loads = targets.iter().map(|t| t.state.in_flight() as f64);
            let (most, all) = loads.fold((0f64, 0.0), |(m, a), n| (m.max(n), a + n));
            looks += 1;
            sum += most / (all / 4.0);
            worst = worst.max(most / (all / 4.0));
        }
    }
    let mean = areas.iter().sum::<f64>() / 4.0;
    let over_time = areas.iter().copied().fold(0.0, f64::max) / mean;
    let seen = sum / f64::from(looks);
    eprintln!("max/mean over time {over_time:.3}, seen by arrivals {seen:.3}, worst {worst:.3}");
    assert!(over_time < 1.2 && seen < 1.2, "{over_time} {seen}");
    guards.clear();
    assert!(targets.iter().all(|t| t.state.in_flight() == 0));
}

#[test]
fn eight_threads_never_exceed_a_limit_and_leave_nothing() {
    for policy in policies() {
        let targets = targets(&[1, 2, 3]);
        let limits = [1, 1, 3];
        for (target, limit) in targets.iter().zip(limits) {
            target.state.set_limit(limit);
        }
        let held: [AtomicUsize; 3] = Default::default();
        let (served, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|threads| {
            for thread in 0..8u64 {
                let (policy, targets, held) = (&policy, &targets, &held);
                let (served, refused, start) = (&served, &refused, &start);
                threads.spawn(move || {
                    start.wait();
                    let mut mine = Vec::new();
                    for n in 0..20_000 {
                        let ask = Ask {
                            key: Some(thread * 20_000 + n),
                            ..any()
                        };
                        match policy.pick(targets, &ask) {
                            Some((i, guard)) => {
                                let now = held[i].fetch_add(1, Ordering::SeqCst) + 1;
                                assert!(now <= limits[i], "{policy:?}: {now} at {i}");
                                served.fetch_add(1, Ordering::Relaxed);
                                mine.push((i, guard));
                            }
                            None => _ = refused.fetch_add(1, Ordering::Relaxed),
                        }
                        if n % 3 == 2 {
                            for (i, guard) in mine.drain(..) {
                                held[i].fetch_sub(1, Ordering::SeqCst);
                                drop(guard);
                            }
                        }
                    }
                    for (i, guard) in mine {
                        held[i].fetch_sub(1, Ordering::SeqCst);
                        drop(guard);
                    }
                });
            }
        });
        eprintln!("{policy:.0?}: {served:?} served, {refused:?} refused");
        assert!(served.into_inner() > 0);
        for target in &targets {
            assert_eq!(target.state.in_flight(), 0);
        }
    }
}
