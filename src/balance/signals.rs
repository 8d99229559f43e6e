//! What a target's engine says of itself, as far as it was asked lately.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::Kv;
use super::served::Listed;

/// What an engine told when it was last asked. What it did not tell is unknown, never nought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Requests it computes now.
    pub running: Option<f64>,
    /// Requests that wait in it.
    pub waiting: Option<f64>,
    /// How full its KV cache is, from 0.0 to 1.0.
    pub kv_usage: Option<f64>,
    /// Tokens its KV cache has room for.
    pub cache_tokens: Option<u64>,
    /// Tokens of one block of it.
    pub block_tokens: Option<u64>,
    /// The adapters that are loaded or waited for.
    pub adapters: Vec<String>,
    /// Prompt tokens it has computed since it began: going back means that it began anew.
    pub prompt_tokens: Option<f64>,
}

/// One target's, kept with its state.
#[derive(Debug, Default)]
pub struct Signals {
    told: ArcSwapOption<(Instant, Told)>,
    cache_tokens: AtomicU64,
    resets: AtomicU32,
    listed: Listed,
    kv: Kv,
}

impl Signals {
    /// Replaces what was told before. Returns whether the engine has begun anew since.
    pub fn tell(&self, told: Told, now: Instant) -> bool {
        let before = self.told.load();
        let count = |told: &Told| told.prompt_tokens;
        let before = before.as_ref().and_then(|before| count(&before.1));
        let anew = matches!((before, count(&told)), (Some(before), Some(now)) if now < before);
        let tokens = told.cache_tokens.unwrap_or(0);
        self.cache_tokens.store(tokens, Ordering::Relaxed);
        self.told.store(Some((now, told).into()));
        if anew {
            self.reset();
        }
        anew
    }

    /// What was told within this time.
    pub fn told(&self, now: Instant, within: Duration) -> Option<Told> {
        let told = self.told.load();
        let (at, told) = &**told.as_ref()?;
        (now.saturating_duration_since(*at) <= within).then(|| told.clone())
    }

    /// Tokens the engine's KV cache has room for, if it ever told.
    pub fn cache_tokens(&self) -> Option<u64> {
        let tokens = self.cache_tokens.load(Ordering::Relaxed);
        (tokens > 0).then_some(tokens)
    }

    /// The models it lists.
    pub fn listed(&self) -> &Listed {
        &self.listed
    }

    /// What events tell of its cache.
    pub fn kv(&self) -> &Kv {
        &self.kv
    }

    /// The engine has lost what it had cached.
    pub fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    /// How many times it did.
    pub fn resets(&self) -> u32 {
        self.resets.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_is_not_told_and_a_count_that_goes_back_is_a_new_beginning() {
        let signals = Signals::default();
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let told = |tokens, count| Told {
            cache_tokens: tokens,
            prompt_tokens: count,
            ..Told::default()
        };
        assert!(!signals.tell(told(Some(1000), Some(50.0)), now));
        assert_eq!(signals.cache_tokens(), Some(1000));
        assert!(signals.told(now + second, second).is_some());
        assert!(signals.told(now + 2 * second, second).is_none());
        // One that says nothing of it has not begun anew.
        assert!(!signals.tell(told(None, None), now));
        assert!(!signals.tell(told(None, Some(70.0)), now));
        assert!(!signals.tell(told(None, Some(70.0)), now));
        assert!(signals.tell(told(None, Some(3.0)), now));
        assert_eq!((signals.resets(), signals.cache_tokens()), (1, None));
    }
}
