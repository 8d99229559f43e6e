//! The target with the fewest requests in flight for its weight.

use std::sync::Mutex;

use super::{Guard, Policy, Target};

/// Compares in-flight per weight; ties go round. Choosing and counting are one step under a short lock, so that
/// two requests that arrive together do not both see the same idle target.
#[derive(Debug, Default)]
pub struct LeastConnections {
    // Held for one pass over the targets, never across an await. The value is where the last pass ended.
    last: Mutex<usize>,
}

impl Policy for LeastConnections {
    fn pick(&self, targets: &[Target], usable: &dyn Fn(usize) -> bool) -> Option<(usize, Guard)> {
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let n = targets.len();
        let mut best: Option<(usize, &Target, u64, u64)> = None;
        for step in 1..=n {
            let i = (*last + step) % n;
            let Some(target) = targets.get(i).filter(|_| usable(i)) else {
                continue;
            };
            // One more request here, compared crosswise: (a + 1) / wa < (b + 1) / wb.
            let load = target.state.in_flight() as u64 + 1;
            let weight = u64::from(target.weight);
            if best.is_none_or(|(_, _, least, w)| load * w < least * weight) {
                best = Some((i, target, load, weight));
            }
        }
        let (chosen, target, _, _) = best?;
        *last = chosen;
        Some((chosen, Guard::hold(&target.state)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(weights: &[u32]) -> Vec<Target> {
        weights
            .iter()
            .map(|&weight| Target {
                weight,
                state: Default::default(),
            })
            .collect()
    }

    #[test]
    fn held_requests_follow_the_weights_and_are_given_back() {
        let targets = targets(&[3, 1]);
        let policy = LeastConnections::default();
        let held: Vec<_> = (0..8)
            .filter_map(|_| policy.pick(&targets, &|_| true))
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
            .filter_map(|_| policy.pick(&targets, &|_| true))
            .map(|(i, _)| i)
            .collect();
        assert_eq!(picks, [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn simultaneous_picks_never_pile_up() {
        let targets = std::sync::Arc::new(targets(&[1, 1, 1, 1]));
        let policy = std::sync::Arc::new(LeastConnections::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (targets, policy) = (targets.clone(), policy.clone());
                std::thread::spawn(move || {
                    (0..100)
                        .filter_map(|_| policy.pick(&targets, &|_| true))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let held: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        for target in targets.iter() {
            assert_eq!(target.state.in_flight(), 100);
        }
        drop(held);
    }
}
