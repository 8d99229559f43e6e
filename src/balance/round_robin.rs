//! Smooth weighted round robin: each target in turn, in proportion to its weight, without bursts.

use std::sync::Mutex;

use super::{Ask, Guard, Policy, Target, settle, weights};

/// The algorithm nginx uses for its upstreams: at each pick every usable target gains its weight, the highest wins and
/// pays the total. Weights 5, 1, 1 give a a b a c a a and not a a a a a b c.
#[derive(Debug, Default)]
pub struct RoundRobin {
    // Held for one pass over the targets, never across an await.
    credit: Mutex<Vec<f64>>,
}

impl Policy for RoundRobin {
    fn pick(&self, targets: &[Target], ask: &Ask<'_>) -> Option<(usize, Guard)> {
        let mut weights = weights(targets, ask);
        let mut credit = self
            .credit
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        credit.resize(targets.len(), 0.0);
        let picked = settle(targets, &mut weights, |weights| leader(&credit, weights))?;
        pay(&mut credit, &weights, picked.0);
        Some(picked)
    }
}

/// Whose turn it is: the most credit once everybody has gained its weight. Those of weight 0 do not take part.
pub(super) fn leader(credit: &[f64], weights: &[f64]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, (credit, weight)) in credit.iter().zip(weights).enumerate() {
        let gained = credit + weight;
        if *weight > 0.0 && best.is_none_or(|(_, most)| gained > most) {
            best = Some((i, gained));
        }
    }
    best.map(|(i, _)| i)
}

/// Everybody gains its weight; the chosen one pays the total.
pub(super) fn pay(credit: &mut [f64], weights: &[f64], chosen: usize) {
    for (credit, weight) in credit.iter_mut().zip(weights) {
        *credit += weight;
    }
    if let Some(credit) = credit.get_mut(chosen) {
        *credit -= weights.iter().sum::<f64>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Usable;
    use crate::balance::tests::{any, targets};

    #[test]
    fn heavy_targets_are_spread_and_shares_are_exact() {
        let targets = targets(&[5, 1, 1]);
        let policy = RoundRobin::default();
        let picks: Vec<usize> = (0..7)
            .filter_map(|_| policy.pick(&targets, &any()))
            .map(|(i, _)| i)
            .collect();
        assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn a_slow_starter_gets_its_part_of_a_share() {
        let targets = targets(&[2, 2]);
        let policy = RoundRobin::default();
        let usable = |i: usize| Usable::Yes(if i == 1 { 0.25 } else { 1.0 });
        let ask = Ask {
            usable: &usable,
            key: None,
            prompt: None,
            patient: false,
        };
        let second = (0..1_000)
            .filter_map(|_| policy.pick(&targets, &ask))
            .filter(|(i, _)| *i == 1)
            .count();
        assert_eq!(second, 200);
    }
}
