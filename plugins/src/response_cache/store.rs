//! Answers that are kept, within their memory and their time.
//!
//! It owns the order of use and the count of bytes; it does not know what an answer is to. A store outlives revisions, so what it may hold
//! and how long comes with each call. Invariants: the bytes counted are those of the entries there are; after every
//! [`put`](Store::put) they are within the limit that came with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tollgate_sdk::quota::{Clock, SystemClock};

use super::identity::Identity;

/// What an entry costs besides its body: its places in both maps.
const OVERHEAD: u64 = 256;

/// An answer that can be given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) content_type: HeaderValue,
    pub(super) body: Bytes,
}

impl Answer {
    fn bytes(&self) -> u64 {
        (self.content_type.len() + self.body.len()) as u64 + OVERHEAD
    }
}

/// Answers by identity. The least recently used go first.
pub(super) struct Store {
    clock: Arc<dyn Clock>,
    // Never held across an await, and for no longer than a look takes.
    kept: Mutex<Kept>,
    /// Bytes of answers on their way.
    claimed: AtomicU64,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<Identity, Entry>,
    /// By when they were last used, the oldest first.
    by_use: BTreeMap<u64, Identity>,
    uses: u64,
    bytes: u64,
}

struct Entry {
    answer: Answer,
    /// When it came, by the clock.
    since: u64,
    last_use: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::default()))
    }
}

impl Store {
    /// An empty store that tells the age of answers by this clock.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            kept: Mutex::default(),
            claimed: AtomicU64::new(0),
        }
    }

    /// The answer of this identity and its age. One as old as `ttl` is gone; one older than `wanted` is only passed over.
    pub(super) fn find(
        &self,
        identity: &Identity,
        ttl: Duration,
        wanted: Duration,
    ) -> Option<(Answer, Duration)> {
        let now = self.clock.now();
        let mut kept = self.kept();
        let since = kept.entries.get(identity)?.since;
        let age = Duration::from_nanos(now.saturating_sub(since));
        if age >= ttl {
            kept.remove(identity);
            return None;
        }
        let answer = (age <= wanted).then(|| kept.take_up(identity))??;
        Some((answer, age))
    }

    /// Keeps an answer in place of what was kept, and makes room so that all together take at most `most` bytes.
    pub(super) fn put(&self, identity: Identity, answer: Answer, most: u64) {
        let since = self.clock.now();
        let mut kept = self.kept();
        kept.remove(&identity);
        let bytes = answer.bytes();
        if bytes > most {
            return;
        }
        while kept.bytes + bytes > most {
            let Some((_, oldest)) = kept.by_use.pop_first() else {
                break;
            };
            kept.remove(&oldest);
        }
        let last_use = kept.next_use();
        kept.bytes += bytes;
        kept.by_use.insert(last_use, identity);
        let entry = Entry {
            answer,
            since,
            last_use,
        };
        kept.entries.insert(identity, entry);
    }

    /// Bytes of all that is kept.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.kept().bytes
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// The answer, which is now the last that was used.
    fn take_up(&mut self, identity: &Identity) -> Option<Answer> {
        let now = self.next_use();
        let entry = self.entries.get_mut(identity)?;
        self.by_use.remove(&entry.last_use);
        self.by_use.insert(now, *identity);
        entry.last_use = now;
        Some(entry.answer.clone())
    }

    fn remove(&mut self, identity: &Identity) {
        if let Some(entry) = self.entries.remove(identity) {
            self.by_use.remove(&entry.last_use);
            self.bytes -= entry.answer.bytes();
        }
    }
}

/// Memory for an answer on its way, given back on drop.
pub(super) struct Claim {
    store: Arc<Store>,
    bytes: u64,
}

impl Claim {
    /// Of nothing yet.
    pub(super) fn new(store: &Arc<Store>) -> Self {
        Self {
            store: store.clone(),
            bytes: 0,
        }
    }

    /// Whether there is room to grow to so many bytes, with all answers on their way within `most`.
    pub(super) fn grow(&mut self, bytes: u64, most: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let grown = |claimed: u64| claimed.checked_add(more).filter(|sum| *sum <= most);
        let claimed = &self.store.claimed;
        let fits = claimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        if fits.is_ok() {
            self.bytes += more;
        }
        fits.is_ok()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.store.claimed.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tollgate_sdk::quota::ManualClock;

    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn id(n: u8) -> Identity {
        [n; 32]
    }

    fn answer(bytes: usize) -> Answer {
        Answer {
            content_type: HeaderValue::from_static("text/plain"),
            body: vec![b'x'; bytes].into(),
        }
    }

    fn has(store: &Store, n: u8) -> bool {
        store.find(&id(n), TTL, Duration::MAX).is_some()
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let store = Store::default();
        let one = answer(100).bytes();
        for n in 0..3 {
            store.put(id(n), answer(100), 3 * one);
        }
        assert!(has(&store, 0));
        store.put(id(3), answer(100), 3 * one);
        assert_eq!(
            [0, 1, 2, 3].map(|n| has(&store, n)),
            [true, false, true, true]
        );
        // A larger one takes the room of several; 0 and 2 were looked at before 3.
        store.put(id(4), answer(100 + one as usize), 3 * one);
        assert_eq!(
            [0, 2, 3, 4].map(|n| has(&store, n)),
            [false, false, true, true]
        );
        assert_eq!(store.bytes(), 3 * one);
    }

    #[test]
    fn bytes_are_those_of_what_is_there() {
        let store = Store::default();
        let most = 100_000;
        store.put(id(1), answer(5000), most);
        store.put(id(1), answer(10), most);
        assert_eq!(store.bytes(), answer(10).bytes());
        // One that fits nowhere replaces what it should have replaced by nothing, and pushes nothing else out.
        store.put(id(2), answer(20), most);
        store.put(id(1), answer(100_000), most);
        assert_eq!((has(&store, 1), has(&store, 2)), (false, true));
        // A revision that allows less takes effect with the next.
        store.put(id(3), answer(5), answer(5).bytes());
        assert_eq!((has(&store, 2), has(&store, 3)), (false, true));
        assert_eq!(store.bytes(), answer(5).bytes());
    }

    #[test]
    fn answers_grow_old() {
        let clock = Arc::new(ManualClock::default());
        let store = Store::new(clock.clone());
        store.put(id(1), answer(1), 1000);
        clock.advance(Duration::from_secs(59));
        let (_, age) = store.find(&id(1), TTL, Duration::from_secs(59)).unwrap();
        assert_eq!(age, Duration::from_secs(59));
        // Too old for who asks, but not for others.
        assert!(store.find(&id(1), TTL, Duration::from_secs(58)).is_none());
        assert!(has(&store, 1));
        clock.advance(Duration::from_secs(1));
        assert!(!has(&store, 1));
        assert_eq!(store.bytes(), 0);
    }

    #[test]
    fn claims_are_bounded_together_and_given_back() {
        let store = Arc::new(Store::default());
        let (mut a, mut b) = (Claim::new(&store), Claim::new(&store));
        assert!(a.grow(40, 100) && a.grow(60, 100));
        assert!(!b.grow(41, 100));
        assert!(b.grow(40, 100));
        drop(a);
        assert!(b.grow(100, 100));
        drop(b);
        assert_eq!(store.claimed.load(Ordering::Relaxed), 0);
    }
}
