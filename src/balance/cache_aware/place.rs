//! What is learned of the targets of one upstream, across revisions: what they hold, how fast they compute, how much work is before
//! them.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::index::Index;
use crate::balance::{Prompts, Signals};
use crate::model;

/// What a cache is taken to hold while nobody knows: rather too much, which costs little, than too little.
const UNKNOWN_CACHE: u64 = 2_000_000;
/// What is learned of a rate weighs this much beside what was known.
const WEIGHT: f64 = 0.3;
/// Samples further from the others' than this are taken for that.
const OUTLIER: f64 = 4.0;

/// All that is known of one upstream's caches.
#[derive(Debug, Default)]
pub struct Caches {
    // Held while a prompt is looked up and put in; never across an await.
    pub(super) index: Mutex<Index>,
    places: Mutex<Places>,
    /// Tokens in a byte of prompt.
    pub(super) tokens: Prompts,
    requests: AtomicU32,
    /// Cached tokens as they were foretold and as engines reported them, of the requests whose engine did.
    pub(super) foretold: AtomicU64,
    pub(super) reported: AtomicU64,
    /// The sum of how far each was off.
    pub(super) missed: AtomicU64,
}

#[derive(Debug, Default)]
struct Places {
    by_target: HashMap<Arc<str>, Weak<Place>>,
    free: BTreeSet<usize>,
    count: usize,
}

/// How well cached tokens were foretold, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foretold {
    /// What we expected.
    pub expected: u64,
    /// What engines reported.
    pub reported: u64,
    /// The sum over requests of the difference, whichever way.
    pub error: u64,
}

impl Caches {
    /// The place of the target of this name, kept for as long as anybody holds it.
    pub fn place(self: &Arc<Self>, target: &Arc<str>, now: Instant) -> Arc<Place> {
        let mut places = lock(&self.places);
        let known = places.by_target.get(target).and_then(Weak::upgrade);
        if let Some(place) = known {
            return place;
        }
        let number = places.free.pop_first().unwrap_or_else(|| {
            places.count += 1;
            places.count - 1
        });
        let place = Arc::new(Place {
            caches: self.clone(),
            number,
            target: target.clone(),
            pending: AtomicU64::new(0),
            pace: AtomicU64::new(0),
            scale: AtomicU64::new(1.0_f64.to_bits()),
            seen_resets: AtomicU32::new(0),
            warm_since: Mutex::new(now),
            unstreamed: Mutex::default(),
        });
        let weak = Arc::downgrade(&place);
        places.by_target.insert(target.clone(), weak);
        place
    }

    /// How well what engines hold was foretold so far.
    pub fn foretold(&self) -> Foretold {
        Foretold {
            expected: self.foretold.load(Ordering::Relaxed),
            reported: self.reported.load(Ordering::Relaxed),
            error: self.missed.load(Ordering::Relaxed),
        }
    }

    /// Tokens of one of our blocks of text, as far as that is known.
    pub(super) fn tokens_of_block(&self, settings: &model::CacheAware) -> f64 {
        let many = 1_usize << 20;
        self.tokens.tokens(many) as f64 / many as f64 * f64::from(settings.block)
    }

    /// A number for a request, another than those of late.
    pub(super) fn number(&self) -> u32 {
        self.requests.fetch_add(1, Ordering::Relaxed) % (u32::MAX - 1)
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }
}

/// One target of the upstream.
#[derive(Debug)]
pub struct Place {
    pub(super) caches: Arc<Caches>,
    pub(super) number: usize,
    target: Arc<str>,
    /// Microseconds of computing prompts that are before it.
    pending: AtomicU64,
    /// Seconds a token takes, as the bits of an f64; 0: not known yet.
    pace: AtomicU64,
    /// What answers taught about the size of its cache, as a factor: the bits of an f64.
    scale: AtomicU64,
    seen_resets: AtomicU32,
    /// When it last held nothing.
    warm_since: Mutex<Instant>,
    pub(super) unstreamed: Mutex<Vec<(Instant, Arc<AtomicU64>)>>,
}

impl Place {
    /// Seconds of computing prompts that are before it.
    pub fn pending(&self) -> f64 {
        self.pending.load(Ordering::SeqCst) as f64 / 1e6
    }

    /// Tokens it computes in a second, if that is known.
    pub fn rate(&self) -> Option<f64> {
        let pace = f64::from_bits(self.pace.load(Ordering::Relaxed));
        (pace > 0.0).then(|| 1.0 / pace)
    }

    /// Since when it holds anything.
    pub(super) fn warm_since(&self) -> Instant {
        *lock(&self.warm_since)
    }

    /// As if it had held nothing last at this time.
    #[cfg(test)]
    pub(super) fn warmed_at(&self, at: Instant) {
        *lock(&self.warm_since) = at;
    }

    /// Charges it with work, until [`Place::release`].
    pub(super) fn charge(&self, micros: u64) {
        self.pending.fetch_add(micros, Ordering::SeqCst);
    }

    /// Takes back what is left of a charge.
    pub(super) fn release(&self, charge: &AtomicU64) {
        let micros = charge.swap(0, Ordering::SeqCst);
        self.pending.fetch_sub(micros, Ordering::SeqCst);
    }

    /// A charge whose end nobody will tell: it ends at this time, if it has not before.
    pub(super) fn until(&self, end: Instant, charge: &Arc<AtomicU64>) {
        lock(&self.unstreamed).push((end, charge.clone()));
    }

    /// Ends the charges whose time is over.
    pub(super) fn settle(&self, now: Instant) {
        let mut unstreamed = lock(&self.unstreamed);
        unstreamed.retain(|(end, charge)| {
            if *end <= now {
                self.release(charge);
            }
            // Those that ended otherwise are nobody's any more.
            *end > now && Arc::strong_count(charge) > 1
        });
    }

    /// Learns from a prompt that was computed with nothing before it. `usual` is what the upstream's targets do.
    pub(super) fn computed(&self, seconds_a_token: f64, usual: f64) {
        if !(seconds_a_token.is_finite() && seconds_a_token > 0.0) {
            return;
        }
        let sample = seconds_a_token.clamp(usual / OUTLIER, usual * OUTLIER);
        let learn = |bits: u64| {
            let old = f64::from_bits(bits);
            let new = match old > 0.0 {
                true => old + (sample - old) * WEIGHT,
                false => sample,
            };
            Some(new.to_bits())
        };
        let order = Ordering::Relaxed;
        let _ = self.pace.fetch_update(order, order, learn);
    }

    /// Learns the size of its cache from how much more or less of a prompt was cached than expected.
    pub(super) fn held(&self, expected: f64, reported: f64, slack: f64) {
        let factor = match reported - expected {
            off if off > slack => 1.02,
            off if off < -slack => 0.98,
            _ => return,
        };
        let learn = |bits: u64| {
            let scale = (f64::from_bits(bits) * factor).clamp(0.25, 4.0);
            Some(scale.to_bits())
        };
        let order = Ordering::Relaxed;
        let _ = self.scale.fetch_update(order, order, learn);
    }

    /// Makes its part of the index as long as its cache is now taken to be, and empty if its engine began anew.
    pub(super) fn follow(
        &self,
        index: &mut Index,
        signals: &Signals,
        settings: &model::CacheAware,
        now: Instant,
    ) {
        let resets = signals.resets();
        if self.seen_resets.swap(resets, Ordering::Relaxed) != resets {
            index.forget(self.number);
            *lock(&self.warm_since) = now;
        }
        let tokens = settings.cache_tokens.or(signals.cache_tokens());
        let learned = match tokens {
            Some(_) if settings.cache_tokens.is_some() => 1.0,
            _ => f64::from_bits(self.scale.load(Ordering::Relaxed)),
        };
        let tokens = tokens.unwrap_or(UNKNOWN_CACHE) as f64 * learned;
        let of_block = self.caches.tokens_of_block(settings).max(0.01);
        let blocks = tokens / of_block;
        let present = index.capacity(self.number) as f64;
        if (blocks - present).abs() > present * 0.05 {
            index.resize(self.number, blocks.min(1e8) as usize);
        }
        if let Some(held) = signals.kv().take_cut() {
            // What is on its way was put in here, and is told of when it is computed.
            let rate = self.rate().unwrap_or(f64::from(settings.prefill_rate));
            let held = held as f64 + self.pending() * rate;
            index.shorten(self.number, (held / of_block).ceil() as usize);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.caches.index).forget(self.number);
        let mut places = lock(&self.caches.places);
        // Another may stand for the same target already.
        let gone = |place: &Weak<Place>| place.strong_count() == 0;
        if places.by_target.get(&self.target).is_some_and(gone) {
            places.by_target.remove(&self.target);
        }
        places.free.insert(self.number);
    }
}

/// The middle one of the rates that are known, as seconds a token.
pub(super) fn usual(places: &[Arc<Place>]) -> Option<f64> {
    let mut paces: Vec<f64> = places.iter().filter_map(|place| place.rate()).collect();
    paces.sort_by(f64::total_cmp);
    paces.get(paces.len() / 2).map(|rate| 1.0 / rate)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Twice as long as computing should take: whatever is not done by then is nobody's pending work.
pub(super) fn surely_over(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(2.0 * seconds).unwrap_or(Duration::from_secs(3600))
}
