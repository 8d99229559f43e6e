//! The target with the fewest requests in flight for its weight.

use std::sync::Mutex;

use super::round_robin::{leader, pay};
use super::{Ask, Guard, Policy, Target, Weights, settle, weights};

/// Compares in-flight per weight; those that are equal take smooth weighted turns, so idle targets share by weight
/// (nginx's `least_conn` does the same). Choosing and counting are one step under a short lock, so that two
/// requests that arrive together do not both see the same idle target.
#[derive(Debug, Default)]
pub struct LeastConnections {
    // Held for one pass over the targets, never across an await.
    credit: Mutex<Vec<f64>>,
}

impl Policy for LeastConnections {
    fn pick(&self, targets: &[Target], ask: &Ask<'_>) -> Option<(usize, Guard)> {
        let mut weights = weights(targets, ask);
        let mut credit = self
            .credit
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        credit.resize(targets.len(), 0.0);
        let mut tied = Weights::new();
        let picked = settle(targets, &mut weights, |weights| {
            tied = least_loaded(targets, weights);
            leader(&credit, &tied)
        })?;
        pay(&mut credit, &tied, picked.0);
        Some(picked)
    }
}

/// The weights of the least loaded targets; 0 for all others.
fn least_loaded(targets: &[Target], weights: &[f64]) -> Weights {
    let mut loads: Weights = targets
        .iter()
        .zip(weights)
        .map(|(target, weight)| match *weight > 0.0 {
            true => target.state.in_flight() as f64 / weight,
            false => f64::INFINITY,
        })
        .collect();
    let least = loads.iter().copied().fold(f64::INFINITY, f64::min);
    for (load, weight) in loads.iter_mut().zip(weights) {
        *load = if *load == least { *weight } else { 0.0 };
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::{any, targets};

    #[test]
    fn held_requests_follow_the_weights_and_are_given_back() {
        let targets = targets(&[3, 1]);
        let policy = LeastConnections::default();
        let held: Vec<_> = (0..8)
            .filter_map(|_| policy.pick(&targets, &any()))
            .collect();
        assert_eq!(targets[0].state.in_flight(), 6);
        assert_eq!(targets[1].state.in_flight(), 2);
        drop(held);
        assert_eq!(
            targets[0].state.in_flight() + targets[1].state.in_flight(),
            0
        );
    }

    #[test]
    fn idle_targets_take_turns() {
        let targets = targets(&[1, 1, 1]);
        let policy = LeastConnections::default();
        let picks: Vec<usize> = (0..6)
            .filter_map(|_| policy.pick(&targets, &any()))
            .map(|(i, _)| i)
            .collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn simultaneous_picks_never_pile_up() {
        let targets = targets(&[1, 1, 1, 1]);
        let policy = LeastConnections::default();
        let held: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..100)
                            .filter_map(|_| policy.pick(&targets, &any()))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        for target in &targets {
            assert_eq!(target.state.in_flight(), 100);
        }
        drop(held);
    }
}
