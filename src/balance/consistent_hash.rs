//! The same key to the same target, as long as that target has not more than its share to do.

use super::{Ask, Guard, Policy, Target, settle, weights};

/// How much more than its share of all requests in flight a target may hold.
const SLACK: f64 = 1.25;

/// Weighted rendezvous hashing with bounded loads.
///
/// Each target scores `weight / -ln(u)`, with `u` in (0, 1) hashed from target and key, and the highest score wins
/// (Thaler and Ravishankar 1998; the weighted form after Schindelhauer and Schomaker 2005). Unlike a ring it keeps no
/// table that a change of targets or weights would have to rebuild, its shares are the weights exactly, and when a target
/// leaves, only its own keys move, each to its second choice.
///
/// A target that holds `ceil(1.25 · (requests in flight + 1) · weight / total weight)` is passed over for
/// the next by score (consistent hashing with bounded loads: Mirrokni, Thorup and Zadimoghaddam 2018), so a
/// popular key cannot drown one target. There always is one below its bound, for the bounds add up to more than all
/// requests. Both totals are over the targets that may be chosen now, those at their own limit not among them.
///
/// A request without a key goes anywhere, by weight, within the same bounds.
#[derive(Debug, Default)]
pub struct ConsistentHash;

impl Policy for ConsistentHash {
    fn pick(&self, targets: &[Target], ask: &Ask<'_>) -> Option<(usize, Guard)> {
        let mut weights = weights(targets, ask);
        let key = ask.key.unwrap_or_else(rand::random);
        let total: f64 = weights.iter().sum();
        let in_flight: usize = targets
            .iter()
            .zip(&weights)
            .filter(|(_, weight)| **weight > 0.0)
            .map(|(target, _)| target.state.in_flight())
            .sum();
        // Who is at its bound, or reaches it through another request meanwhile, is struck out of these.
        let mut within = weights.clone();
        while let Some(chosen) = highest(targets, &within, key) {
            let weight = within.get_mut(chosen)?;
            let bound = bound(in_flight, *weight / total);
            let target = targets.get(chosen)?;
            if let Some(guard) = target.state.try_hold_below(bound) {
                return Some((chosen, guard));
            }
            *weight = 0.0;
        }
        // Everybody filled up while this was looking.
        settle(targets, &mut weights, |weights| {
            highest(targets, weights, key)
        })
    }
}

/// The most a target of this share may hold once one more request is placed.
fn bound(in_flight: usize, share: f64) -> usize {
    // What rounding adds to a whole number is not another request.
    ((SLACK * (in_flight + 1) as f64 * share) - 1e-9).ceil() as usize
}

/// The target this key belongs to, among those with a weight.
fn highest(targets: &[Target], weights: &[f64], key: u64) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, (target, weight)) in targets.iter().zip(weights).enumerate() {
        if *weight > 0.0 {
            let score = weight / -unit(mixed(target.id ^ mixed(key))).ln();
            if best.is_none_or(|(_, highest)| score > highest) {
                best = Some((i, score));
            }
        }
    }
    best.map(|(i, _)| i)
}

/// A hash that is the same in every process and version: FNV-1a, its bits then mixed.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    mixed(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

/// Every bit of the result depends on every bit of `x` (the finaliser of SplitMix64, Steele et al. 2014).
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Strictly between 0 and 1, from the upper 52 bits: half a step more than a whole number of steps.
fn unit(hash: u64) -> f64 {
    ((hash >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::Usable;
    use crate::balance::tests::targets;

    fn all(_: usize) -> Usable {
        Usable::Yes(1.0)
    }

    fn without(gone: usize) -> impl Fn(usize) -> Usable {
        move |i| {
            if i == gone {
                Usable::No
            } else {
                Usable::Yes(1.0)
            }
        }
    }

    /// Where each key goes when it is alone.
    fn owners(targets: &[Target], keys: u64, usable: &dyn Fn(usize) -> Usable) -> Vec<usize> {
        (0..keys)
            .map(|key| {
                let ask = Ask {
                    usable,
                    key: Some(key),
                    prompt: None,
                    patient: false,
                };
                ConsistentHash.pick(targets, &ask).unwrap().0
            })
            .collect()
    }

    /// Where each key goes when all of them stay.
    fn placed(targets: &[Target], keys: u64, usable: &dyn Fn(usize) -> Usable) -> Vec<usize> {
        let mut held = Vec::new();
        for key in 0..keys {
            let ask = Ask {
                usable,
                key: Some(key),
                prompt: None,
                patient: false,
            };
            held.push(ConsistentHash.pick(targets, &ask).unwrap());
        }
        held.iter().map(|(i, _)| *i).collect()
    }

    fn moved(before: &[usize], after: &[usize]) -> f64 {
        let moved = before.iter().zip(after).filter(|(a, b)| a != b).count();
        moved as f64 / before.len() as f64
    }

    #[test]
    fn a_key_keeps_its_target_and_only_the_leavers_keys_move() {
        for n in [3, 5, 10, 30] {
            let targets = targets(&vec![1; n]);
            let before = owners(&targets, 20_000, &all);
            assert_eq!(before, owners(&targets, 20_000, &all));
            for gone in 0..n.min(5) {
                let after = owners(&targets, 20_000, &without(gone));
                for (before, after) in before.iter().zip(&after) {
                    assert!(before == after || *before == gone);
                }
                let moved = moved(&before, &after);
                assert!(moved <= 2.0 / n as f64, "{n} targets: {moved}");
            }
        }
    }

    #[test]
    fn few_keys_move_under_load_too() {
        for n in [3, 5, 10] {
            let targets = targets(&vec![1; n]);
            let before = placed(&targets, 20_000, &all);
            let after = placed(&targets, 20_000, &without(1));
            let moved = moved(&before, &after);
            eprintln!(
                "under load, {n} targets: {:.4} of {:.4}",
                moved,
                2.0 / n as f64
            );
            assert!(moved <= 2.0 / n as f64, "{n} targets: {moved}");
        }
    }

    #[test]
    fn one_popular_key_does_not_drown_its_target() {
        let targets = targets(&[1, 1, 1, 1]);
        let mut held = Vec::new();
        for _ in 0..1_000 {
            let ask = Ask {
                usable: &all,
                key: Some(7),
                prompt: None,
                patient: false,
            };
            held.push(ConsistentHash.pick(&targets, &ask).unwrap());
            let most = targets.iter().map(|t| t.state.in_flight()).max().unwrap();
            assert!(most <= (1.25 * held.len() as f64 / 4.0).ceil() as usize);
        }
    }

    #[test]
    fn the_hash_is_what_it_always_was() {
        assert_eq!(stable_hash(b""), mixed(0xcbf2_9ce4_8422_2325));
        assert_eq!(stable_hash(b"a"), mixed(0xaf63_dc4c_8601_ec8c));
        let owners = owners(&targets(&[1, 1, 1]), 8, &all);
        assert_eq!(owners, [1, 0, 0, 1, 0, 1, 2, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Requests come and go in any order over any weights: nobody is ever placed beyond the bound of that moment,
        /// everybody is placed, and in the end nothing is held.
        #[test]
        fn the_bound_holds(
            weights in proptest::collection::vec(1u32..20, 1..8),
            steps in proptest::collection::vec((any::<bool>(), 0u64..6, any::<usize>()), 1..300),
            down in any::<usize>(),
        ) {
            let targets = targets(&weights);
            let down = (weights.len() > 1).then(|| down % weights.len());
            let usable = |i: usize| if Some(i) == down { Usable::No } else { Usable::Yes(1.0) };
            let total: u32 = weights.iter().enumerate()
                .filter(|(i, _)| Some(*i) != down).map(|(_, w)| w).sum();
            let mut held = Vec::new();
            for (comes, key, place) in steps {
                if comes || held.is_empty() {
                    let ask = Ask { usable: &usable, key: Some(key), prompt: None, patient: false };
                    let before = held.len();
                    let (i, guard) = ConsistentHash.pick(&targets, &ask).unwrap();
                    held.push(guard);
                    let share = f64::from(weights[i]) / f64::from(total);
                    let bound = (1.25 * (before + 1) as f64 * share - 1e-9).ceil() as usize;
                    prop_assert!(targets[i].state.in_flight() <= bound);
                    prop_assert_ne!(Some(i), down);
                } else {
                    held.swap_remove(place % held.len());
                }
            }
            drop(held);
            prop_assert!(targets.iter().all(|t| t.state.in_flight() == 0));
        }
    }
}
