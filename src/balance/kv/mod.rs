//! What the events of a target's engines tell of its KV cache: how much it holds, when it drops something, when it is emptied.
//!
//! Which texts it holds they do not tell: they name tokens, and only the engine knows how it makes tokens of text. So the shadow stays what was sent there;
//! events say when it is longer than the cache can be.

mod held;
mod sequence;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use held::Held;
pub use held::{Block, Event};
pub use sequence::{Sequence, Step};

/// A source is silent if it tells nothing of this many tokens that were sent to be computed.
const TELLING: u64 = 8_192;

/// How the source of events stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// It cannot be reached, was not reached yet, or what it says is not understood.
    #[default]
    Lost,
    /// It is listened to and has told nothing although prompts were computed.
    Silent,
    /// It is listened to.
    Connected,
}

impl Source {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::Connected => "connected",
        }
    }
}

/// One target's, kept with its state.
#[derive(Debug, Default)]
pub struct Kv {
    // One for each rank. Held for one batch, never across an await.
    ranks: Mutex<Vec<Rank>>,
    /// One more than the tokens to which the shadow is to be cut; 0: it need not be.
    cut: AtomicU64,
    /// Tokens that were sent to be computed since anything was told or listened to.
    untold: AtomicU64,
    events: AtomicU64,
    gaps: AtomicU64,
}

#[derive(Debug, Default)]
struct Rank {
    source: Source,
    held: Held,
    heard: Option<Instant>,
}

/// How it stands, for whoever shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KvStatus {
    /// The worst of its ranks.
    pub source: Source,
    /// Events since the process began.
    pub events: u64,
    /// How many times some were missed for good.
    pub gaps: u64,
    /// Blocks its caches hold, as far as was told.
    pub blocks: u64,
    /// Tokens of these.
    pub tokens: u64,
    /// Whether that is all that they hold.
    pub whole: bool,
    /// When it was heard last.
    pub heard: Option<Instant>,
}

impl Kv {
    /// From now on so many ranks are listened to; what was told before is forgotten.
    pub fn listen(&self, ranks: usize) {
        let mut now = Vec::new();
        now.resize_with(ranks, Rank::default);
        *self.lock() = now;
        self.cut.store(0, Ordering::Relaxed);
    }

    /// How the source of a rank stands from now on.
    pub fn set_source(&self, rank: usize, source: Source) {
        if let Some(rank) = self.lock().get_mut(rank) {
            rank.source = source;
        }
    }

    /// A rank is listened to. One that was silent has still to tell something.
    pub fn connected(&self, rank: usize) {
        let mut ranks = self.lock();
        if let Some(rank) = ranks.get_mut(rank).filter(|r| r.source == Source::Lost) {
            rank.source = Source::Connected;
        }
        self.untold.store(0, Ordering::Relaxed);
    }

    /// Takes in what one batch told of a rank's cache. `room`: tokens it has room for, if that is known. Returns whether it was emptied.
    pub fn take(&self, rank: usize, events: &[Event], room: Option<u64>) -> bool {
        self.events
            .fetch_add(events.len() as u64, Ordering::Relaxed);
        self.untold.store(0, Ordering::Relaxed);
        let mut ranks = self.lock();
        let many = ranks.len().max(1) as u64;
        let Some(rank) = ranks.get_mut(rank) else {
            return false;
        };
        rank.source = Source::Connected;
        rank.heard = Some(Instant::now());
        let (mut dropped, mut emptied) = (false, false);
        for event in events {
            dropped |= matches!(event, Event::Removed(_));
            emptied |= matches!(event, Event::Cleared);
            rank.held.apply(event);
        }
        rank.held.settle(room.map(|room| room / many));
        if dropped && ranks.iter().all(|rank| rank.held.is_whole()) {
            let tokens: u64 = ranks.iter().map(|rank| rank.held.tokens()).sum();
            self.cut.store(tokens.saturating_add(1), Ordering::Relaxed);
        }
        emptied
    }

    /// Something was missed for good: what a rank told is of no use. `whole`: it begins anew, and what it tells from now on is all it has.
    pub fn forget(&self, rank: usize, whole: bool) {
        if let Some(rank) = self.lock().get_mut(rank) {
            rank.held = Held::new(whole);
        }
    }

    /// Counts that.
    pub fn missed(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    /// So many tokens were sent to be computed.
    pub fn sent(&self, tokens: u64) {
        self.untold.fetch_add(tokens, Ordering::Relaxed);
    }

    /// Whether it should have told something by now.
    pub fn is_overdue(&self) -> bool {
        self.untold.load(Ordering::Relaxed) >= TELLING
    }

    /// The most tokens that the shadow may have, once after the engine dropped something.
    pub fn take_cut(&self) -> Option<u64> {
        // Most often there is none.
        if self.cut.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.cut.swap(0, Ordering::Relaxed).checked_sub(1)
    }

    /// How it stands; `None` if no events are listened for.
    pub fn status(&self) -> Option<KvStatus> {
        let ranks = self.lock();
        let worst = |source: Source| ranks.iter().any(|rank| rank.source == source);
        ranks.first()?;
        let source = [Source::Lost, Source::Silent];
        let source = source.into_iter().find(|source| worst(*source));
        Some(KvStatus {
            source: source.unwrap_or(Source::Connected),
            events: self.events.load(Ordering::Relaxed),
            gaps: self.gaps.load(Ordering::Relaxed),
            blocks: ranks.iter().map(|rank| rank.held.blocks()).sum(),
            tokens: ranks.iter().map(|rank| rank.held.tokens()).sum(),
            whole: ranks.iter().all(|rank| rank.held.is_whole()),
            heard: ranks.iter().filter_map(|rank| rank.heard).max(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Rank>> {
        self.ranks
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(hashes: &[u64]) -> Event {
        Event::Stored(Block {
            hashes: hashes.to_vec(),
            size: 16,
        })
    }

    fn removed(hashes: &[u64]) -> Event {
        Event::Removed(hashes.to_vec())
    }

    #[test]
    fn the_shadow_is_cut_when_something_is_dropped_and_all_is_known() {
        let kv = Kv::default();
        assert_eq!(kv.status(), None);
        kv.listen(1);
        kv.take(0, &[stored(&[1, 2, 3]), removed(&[1])], None);
        // What it held before is not known.
        assert_eq!(kv.take_cut(), None);
        kv.forget(0, true);
        kv.take(0, &[stored(&[1, 2, 3])], None);
        assert_eq!(kv.take_cut(), None);
        kv.take(0, &[removed(&[1]), stored(&[4])], None);
        assert_eq!((kv.take_cut(), kv.take_cut()), (Some(48), None));
        let status = kv.status().unwrap();
        assert_eq!((status.blocks, status.tokens, status.events), (3, 48, 5));
        // Two ranks, of one of which not all is known.
        kv.listen(2);
        kv.forget(0, true);
        kv.take(0, &[stored(&[1, 2, 3]), removed(&[2])], None);
        assert_eq!(kv.take_cut(), None);
        assert_eq!(kv.status().unwrap().source, Source::Lost);
        assert!(!kv.status().unwrap().whole);
        assert!(kv.take(1, &[Event::Cleared], None));
        kv.take(0, &[removed(&[3])], None);
        assert_eq!(kv.take_cut(), Some(16));
        kv.listen(0);
        assert_eq!(kv.status(), None);
    }

    #[test]
    fn who_tells_nothing_of_what_was_sent_is_overdue() {
        let kv = Kv::default();
        kv.listen(1);
        kv.sent(TELLING - 1);
        assert!(!kv.is_overdue());
        kv.sent(1);
        assert!(kv.is_overdue());
        kv.take(0, &[stored(&[1])], None);
        assert!(!kv.is_overdue());
    }
}
