//! What is known of tokens, by their hash, for as long as there is room.
//!
//! Invariant: never more than [`MOST`] entries; what was not asked for longest makes room. The locks are held for a look-up only, and
//! there are several, by hash, so that threads seldom meet.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::model::KeyHash;

/// Entries of all parts together.
pub(super) const MOST: usize = 10_000;

const PARTS: usize = 16;

/// A bounded map that forgets what was not used for longest.
pub(super) struct Remembered<V> {
    parts: [Mutex<LruCache<KeyHash, V>>; PARTS],
}

impl<V> Default for Remembered<V> {
    fn default() -> Self {
        let room = NonZeroUsize::new(MOST / PARTS).unwrap_or(NonZeroUsize::MIN);
        Self {
            parts: std::array::from_fn(|_| Mutex::new(LruCache::new(room))),
        }
    }
}

impl<V> Remembered<V> {
    /// Looks at an entry, which may be changed meanwhile.
    pub(super) fn with<R>(&self, hash: &KeyHash, look: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.part(hash)?.get_mut(hash).map(look)
    }

    /// Remembers an entry, in place of what was there.
    pub(super) fn put(&self, hash: KeyHash, value: V) {
        if let Some(mut part) = self.part(&hash) {
            part.put(hash, value);
        }
    }

    /// Forgets an entry.
    pub(super) fn forget(&self, hash: &KeyHash) {
        if let Some(mut part) = self.part(hash) {
            part.pop(hash);
        }
    }

    fn part(&self, hash: &KeyHash) -> Option<MutexGuard<'_, LruCache<KeyHash, V>>> {
        let [first, ..] = hash.0;
        let part = self.parts.get(usize::from(first) % PARTS)?;
        Some(part.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.parts
            .iter()
            .map(|part| part.lock().unwrap().len())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_the_used_stay() {
        let remembered = Remembered::default();
        let hash = |n: u32| KeyHash::of(&n.to_be_bytes());
        remembered.put(hash(0), 0);
        for n in 1..20_000 {
            remembered.put(hash(n), n);
            // Somebody asks for the first all the time.
            assert_eq!(remembered.with(&hash(0), |value| *value), Some(0));
        }
        assert_eq!(remembered.len(), MOST);
        assert_eq!(remembered.with(&hash(19_999), |value| *value), Some(19_999));
        assert_eq!(remembered.with(&hash(1), |value| *value), None);
        remembered.forget(&hash(0));
        assert_eq!(remembered.with(&hash(0), |value| *value), None);
    }
}
