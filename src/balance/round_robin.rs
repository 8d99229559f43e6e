//! Smooth weighted round robin: each target in turn, in proportion to its weight, without bursts.

use std::sync::Mutex;

use super::{Guard, Policy, Target};

/// The algorithm nginx uses for its upstreams: at each pick every usable target gains its weight, the highest wins and pays
/// the total. Weights 5, 1, 1 give a a b a c a a and not a a a a a b c.
#[derive(Debug, Default)]
pub struct RoundRobin {
    // Held for one pass over the targets, never across an await.
    credit: Mutex<Vec<i64>>,
}

impl Policy for RoundRobin {
    fn pick(&self, targets: &[Target], usable: &dyn Fn(usize) -> bool) -> Option<(usize, Guard)> {
        let mut credit = self
            .credit
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        credit.resize(targets.len(), 0);
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (i, (target, credit)) in targets.iter().zip(credit.iter_mut()).enumerate() {
            if !usable(i) {
                continue;
            }
            *credit += i64::from(target.weight);
            total += i64::from(target.weight);
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((i, *credit));
            }
        }
        let (chosen, _) = best?;
        if let Some(credit) = credit.get_mut(chosen) {
            *credit -= total;
        }
        drop(credit);
        targets
            .get(chosen)
            .map(|target| (chosen, Guard::hold(&target.state)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavy_targets_are_spread_and_shares_are_exact() {
        let targets: Vec<Target> = [5, 1, 1]
            .map(|weight| Target {
                weight,
                state: Default::default(),
            })
            .into();
        let policy = RoundRobin::default();
        let picks: Vec<usize> = (0..7)
            .filter_map(|_| policy.pick(&targets, &|_| true))
            .map(|(i, _)| i)
            .collect();
        assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn unusable_targets_are_passed_over() {
        let targets: Vec<Target> = [1, 1, 1]
            .map(|weight| Target {
                weight,
                state: Default::default(),
            })
            .into();
        let policy = RoundRobin::default();
        for _ in 0..6 {
            let (i, _) = policy.pick(&targets, &|i| i != 1).unwrap();
            assert_ne!(i, 1);
        }
        assert!(policy.pick(&targets, &|_| false).is_none());
    }
}
