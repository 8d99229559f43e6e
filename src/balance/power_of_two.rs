//! Two targets at random, and the less loaded of them.

use super::{Ask, Guard, Policy, Target, draw, settle, weights};

/// The power of two choices (Mitzenmacher 1996): nearly as even as asking everybody, without everybody's load being read, and
/// requests that arrive together do not all run to the same target.
///
/// Both are drawn by weight, without putting the first back. The lower in-flight per weight wins; between equals the
/// one whose first byte came sooner lately; between equals in that too, or strangers, the one drawn first, so idle
/// targets share by weight.
#[derive(Debug, Default)]
pub struct PowerOfTwo;

impl Policy for PowerOfTwo {
    fn pick(&self, targets: &[Target], ask: &Ask<'_>) -> Option<(usize, Guard)> {
        let mut weights = weights(targets, ask);
        settle(targets, &mut weights, |weights| {
            let first = draw(weights, rand::random())?;
            let mut rest = weights.to_vec();
            *rest.get_mut(first)? = 0.0;
            let Some(second) = draw(&rest, rand::random()) else {
                return Some(first);
            };
            let better = is_better(targets, weights, second, first).unwrap_or(false);
            Some(if better { second } else { first })
        })
    }
}

/// Whether `a` goes before `b`.
fn is_better(targets: &[Target], weights: &[f64], a: usize, b: usize) -> Option<bool> {
    let load = |i: usize| Some(targets.get(i)?.state.in_flight() as f64 / weights.get(i)?);
    let (load_a, load_b) = (load(a)?, load(b)?);
    if load_a != load_b {
        return Some(load_a < load_b);
    }
    let pace = |i: usize| targets.get(i)?.state.smoothed_first_byte();
    Some(pace(a)? < pace(b)?)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::balance::tests::{any, targets};

    #[test]
    fn of_two_the_less_loaded_and_then_the_quicker() {
        let two = targets(&[1, 1]);
        let busy = two[0].state.try_hold().unwrap();
        for _ in 0..50 {
            assert_eq!(PowerOfTwo.pick(&two, &any()).unwrap().0, 1);
        }
        drop(busy);
        two[0]
            .state
            .first_byte(Duration::from_millis(10), Instant::now());
        two[1]
            .state
            .first_byte(Duration::from_millis(500), Instant::now());
        for _ in 0..50 {
            assert_eq!(PowerOfTwo.pick(&two, &any()).unwrap().0, 0);
        }
    }

    #[test]
    fn load_is_per_weight() {
        let two = targets(&[4, 1]);
        let _held: Vec<_> = (0..3).map(|_| two[0].state.try_hold()).collect();
        let _one = two[1].state.try_hold();
        // 3/4 against 1/1.
        for _ in 0..50 {
            assert_eq!(PowerOfTwo.pick(&two, &any()).unwrap().0, 0);
        }
    }

    #[test]
    fn one_alone_is_chosen() {
        let one = targets(&[7]);
        assert_eq!(PowerOfTwo.pick(&one, &any()).unwrap().0, 0);
    }
}
