//! How many tokens a service's engine makes of a byte of a request, learned from what it reports.
//!
//! It owns the guess for prompts whose answer broke off before the engine said how long they were. One atomic word; two
//! reports at the same moment both count.

use std::sync::atomic::{AtomicU64, Ordering};

/// Tokens a byte, before anything is known.
const GUESS: f64 = 0.25;
/// What a new report weighs beside all before it.
const WEIGHT: f64 = 1.0 / 16.0;
const NOTHING: u64 = u64::MAX;

/// The smoothed ratio of prompt tokens to bytes of a request.
#[derive(Debug)]
pub struct Prompts {
    // The bits of an f64; `NOTHING` is none that a ratio has.
    ratio: AtomicU64,
}

impl Default for Prompts {
    fn default() -> Self {
        Prompts {
            ratio: AtomicU64::new(NOTHING),
        }
    }
}

impl Prompts {
    /// A request of so many bytes was reported to be a prompt of so many tokens.
    pub fn learn(&self, bytes: usize, tokens: u64) {
        if bytes == 0 || tokens == 0 {
            return;
        }
        let sample = tokens as f64 / bytes as f64;
        let smoothed = |old: u64| {
            let new = match known(old) {
                Some(ratio) => ratio + (sample - ratio) * WEIGHT,
                None => sample,
            };
            Some(new.to_bits())
        };
        let _ = self
            .ratio
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, smoothed);
    }

    /// How many tokens a request of so many bytes is taken to be.
    pub fn tokens(&self, bytes: usize) -> u64 {
        let ratio = known(self.ratio.load(Ordering::Relaxed)).unwrap_or(GUESS);
        (bytes as f64 * ratio).round() as u64
    }
}

fn known(bits: u64) -> Option<f64> {
    (bits != NOTHING).then(|| f64::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_again_and_again_is_known_to_the_token() {
        let prompts = Prompts::default();
        assert_eq!(prompts.tokens(400), 100);
        for _ in 0..1_000 {
            prompts.learn(83, 7);
        }
        assert_eq!(prompts.tokens(83), 7);
        assert_eq!(prompts.tokens(8_300), 700);
        assert_eq!(prompts.tokens(0), 0);
    }

    #[test]
    fn it_follows_slowly_and_one_stray_report_moves_it_little() {
        let prompts = Prompts::default();
        prompts.learn(1_000, 200);
        prompts.learn(1_000, 1_000);
        assert_eq!(prompts.tokens(1_000), 250);
        for _ in 0..200 {
            prompts.learn(1_000, 1_000);
        }
        assert_eq!(prompts.tokens(1_000), 1_000);
        // Nothing is learned of nothing.
        prompts.learn(0, 50);
        prompts.learn(50, 0);
        assert_eq!(prompts.tokens(1_000), 1_000);
    }
}
