//! Weights among services: exact in the long run and evenly mixed in the short.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Offer;

/// Offers that share a model name or a rule.
///
/// A counter walks the wheel of all weights by a stride near its golden section and prime to its size, so every full turn gives each offer
/// exactly its share, and any run of requests is close to it.
#[derive(Debug)]
pub struct Split {
    offers: Vec<Arc<Offer>>,
    /// Running totals of the weights, parallel to the offers.
    ends: Vec<u64>,
    total: u64,
    stride: u64,
    turn: AtomicU64,
}

impl Split {
    /// Offers of weight 0 get nothing beside others; when all are 0 they share evenly. `None` without offers.
    pub fn new(offers: Vec<(Arc<Offer>, u64)>) -> Option<Split> {
        let all_zero = offers.iter().all(|(_, weight)| *weight == 0);
        let shares: Vec<(Arc<Offer>, u64)> = offers
            .into_iter()
            .map(|(offer, weight)| (offer, if all_zero { 1 } else { weight }))
            .filter(|(_, weight)| *weight > 0)
            .collect();
        let unit = shares
            .iter()
            .fold(0, |unit, (_, weight)| gcd(unit, *weight));
        if unit == 0 {
            return None;
        }
        let mut total = 0;
        let ends = shares
            .iter()
            .map(|(_, weight)| {
                total += weight / unit;
                total
            })
            .collect();
        Some(Split {
            offers: shares.into_iter().map(|(offer, _)| offer).collect(),
            ends,
            total,
            stride: stride(total),
            turn: AtomicU64::new(0),
        })
    }

    /// The offer whose turn it is.
    pub fn next(&self) -> Option<&Arc<Offer>> {
        if self.total <= 1 {
            return self.offers.first();
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.total;
        let place = turn * self.stride % self.total;
        self.offers
            .get(self.ends.partition_point(|end| *end <= place))
    }

    /// The next of those that somebody may use; if that is none, the one whose turn it is, to be refused by name.
    pub fn next_for(&self, admits: impl Fn(&Offer) -> bool) -> Option<&Arc<Offer>> {
        let first = self.next()?;
        if admits(first) || !self.offers.iter().any(|offer| admits(offer)) {
            return Some(first);
        }
        // One turn of the wheel passes everybody.
        let turns = 0..self.total;
        let mut others = turns.filter_map(|_| self.next());
        others.find(|offer| admits(offer)).or(Some(first))
    }

    /// All offers that get something.
    pub fn offers(&self) -> &[Arc<Offer>] {
        &self.offers
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A number prime to `total`, near 0.618 of it.
fn stride(total: u64) -> u64 {
    let golden = (total as f64 * 0.618_034) as u64;
    (golden.max(1)..=total.max(1))
        .find(|n| gcd(*n, total) == 1)
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::offer;

    fn counts(weights: &[u64], picks: usize) -> Vec<usize> {
        let offers: Vec<_> = weights
            .iter()
            .enumerate()
            .map(|(i, w)| (offer(&format!("s{i}")), *w))
            .collect();
        let split = Split::new(offers).unwrap();
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            let name = split.next().unwrap().service.name.clone();
            counts[name[1..].parse::<usize>().unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn every_full_turn_is_exact() {
        assert_eq!(counts(&[900, 100], 1_000), [900, 100]);
        assert_eq!(counts(&[30, 50, 20], 1_000), [300, 500, 200]);
        assert_eq!(counts(&[997, 3], 3_000), [2_991, 9]);
    }

    #[test]
    fn short_runs_are_close() {
        for start in 1..200 {
            let n = counts(&[1, 1, 2], start);
            let want = start as f64 / 2.0;
            assert!((n[2] as f64 - want).abs() <= 2.0, "{start}: {n:?}");
        }
    }

    #[test]
    fn zero_beside_others_gets_nothing_and_alone_everything() {
        assert_eq!(counts(&[0, 5], 100), [0, 100]);
        assert_eq!(counts(&[0], 10), [10]);
        assert_eq!(counts(&[0, 0], 10), [5, 5]);
        assert!(Split::new(Vec::new()).is_none());
    }
}
