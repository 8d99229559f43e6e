//! Traces that are made up, each to show a policy's other side.
//!
//! Lengths and load are of the order of Mooncake's trace: eight engines are busy most of the time, and some of the time
//! all of them are.

use clap::ValueEnum;
use tollgate_bench::random::Rng;

use crate::trace::{BLOCK, Line};

/// What the requests of a made-up trace have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Nothing: no block of a prompt is in any other.
    Unique,
    /// A few long beginnings, one of them most of the time.
    Hot,
    /// Crowds that come at the same moment and begin alike.
    Bursts,
}

/// So many requests of this kind.
pub(crate) fn trace(kind: Kind, requests: usize, seed: u64) -> Vec<Line> {
    let mut maker = Maker {
        rng: Rng::new(seed ^ 0x7261_6365),
        next_id: 0,
        now: 0.0,
    };
    let mut lines = Vec::with_capacity(requests);
    match kind {
        Kind::Unique => lines.extend((0..requests).map(|_| maker.unique())),
        Kind::Hot => {
            let beginnings: Vec<Vec<u64>> = (0..8).map(|_| maker.ids(40)).collect();
            lines.extend((0..requests).map(|_| maker.hot(&beginnings)));
        }
        Kind::Bursts => {
            while lines.len() < requests {
                maker.burst(&mut lines);
            }
            lines.truncate(requests);
        }
    }
    lines
}

struct Maker {
    rng: Rng,
    next_id: u64,
    /// Seconds.
    now: f64,
}

impl Maker {
    /// 3.4 requests a second, half of them longer than 6,900 tokens.
    fn unique(&mut self) -> Line {
        self.now += self.rng.interval(3.4);
        let tokens = (6_900.0 * self.rng.normal().exp()).clamp(64.0, 126_000.0) as u64;
        let ids = self.ids(tokens.div_ceil(BLOCK));
        self.line(ids, tokens)
    }

    /// Ten requests a second behind one of eight beginnings of 20,480 tokens; the k-th is asked for as often as
    /// 1/k says, and every question is new.
    fn hot(&mut self, beginnings: &[Vec<u64>]) -> Line {
        self.now += self.rng.interval(10.0);
        let all: f64 = (1..=beginnings.len()).map(|k| 1.0 / k as f64).sum();
        let mut at = self.rng.share() * all;
        let pick = (1..=beginnings.len()).find(|k| {
            at -= 1.0 / *k as f64;
            at < 0.0
        });
        let beginning = beginnings.get(pick.unwrap_or(1) - 1);
        let mut ids = beginning.cloned().unwrap_or_default();
        let question = self.rng.between(200, 4_000);
        let tokens = ids.len() as u64 * BLOCK + question;
        ids.extend(self.ids(question.div_ceil(BLOCK)));
        self.line(ids, tokens)
    }

    /// 16 to 48 requests in one moment that share 4,000 to 12,000 tokens, every ten seconds or so.
    fn burst(&mut self, lines: &mut Vec<Line>) {
        self.now += self.rng.interval(0.1);
        let shared = self.rng.between(8, 24);
        let shared = self.ids(shared);
        for _ in 0..self.rng.between(16, 48) {
            let rest = self.rng.between(100, 2_000);
            let tokens = shared.len() as u64 * BLOCK + rest;
            let mut ids = shared.clone();
            ids.extend(self.ids(rest.div_ceil(BLOCK)));
            lines.push(self.line(ids, tokens));
        }
    }

    fn ids(&mut self, count: u64) -> Vec<u64> {
        let first = self.next_id;
        self.next_id += count;
        (first..self.next_id).collect()
    }

    fn line(&mut self, hash_ids: Vec<u64>, input_length: u64) -> Line {
        Line {
            timestamp: self.now * 1000.0,
            input_length,
            output_length: self.rng.between(1, 700),
            hash_ids,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const KINDS: [Kind; 3] = [Kind::Unique, Kind::Hot, Kind::Bursts];

    #[test]
    fn traces_follow_from_their_seed_and_are_well_formed() {
        for kind in KINDS {
            let lines = trace(kind, 300, 1);
            assert_eq!(lines.len(), 300);
            assert_eq!(lines, trace(kind, 300, 1));
            assert_ne!(lines, trace(kind, 300, 2));
            for pair in lines.windows(2) {
                assert!(pair.first().unwrap().timestamp <= pair.last().unwrap().timestamp);
            }
            for line in &lines {
                assert_eq!(
                    line.input_length.div_ceil(BLOCK),
                    line.hash_ids.len() as u64
                );
                assert!(line.output_length > 0);
            }
        }
    }

    #[test]
    fn each_kind_repeats_as_it_says() {
        let repeated = |kind| {
            let mut seen: HashMap<u64, u32> = HashMap::new();
            for id in trace(kind, 500, 1).iter().flat_map(|line| &line.hash_ids) {
                *seen.entry(*id).or_default() += 1;
            }
            let all: u32 = seen.values().sum();
            f64::from(all - seen.len() as u32) / f64::from(all)
        };
        assert!(repeated(Kind::Unique) == 0.0);
        assert!(repeated(Kind::Hot) > 0.8);
        assert!((0.6..0.95).contains(&repeated(Kind::Bursts)));
    }

    #[test]
    fn one_beginning_is_hotter_than_the_others() {
        let lines = trace(Kind::Hot, 2_000, 1);
        let first = lines
            .iter()
            .filter(|line| line.hash_ids.first() == Some(&0));
        let share = first.count() as f64 / 2_000.0;
        // 1 / (1 + 1/2 + … + 1/8) = 0.368.
        assert!((share - 0.368).abs() < 0.05, "{share}");
    }
}
