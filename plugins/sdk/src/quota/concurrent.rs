//! Places that are held at the same time.
//!
//! A place is held from its reservation until its lease ends, however it ends. Invariant: never are more held than the limit that was asked
//! last, unless that was lowered meanwhile. When a place becomes free nobody knows, so the times it tells are guesses.

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Denied, Standing};

/// When to come again.
const GUESS: Duration = Duration::from_secs(1);

/// Places that threads share.
#[derive(Debug)]
pub(super) struct Concurrent {
    held: AtomicU64,
}

impl Concurrent {
    pub(super) fn new() -> Self {
        Self {
            held: AtomicU64::new(0),
        }
    }

    /// Takes `places` of `limit`.
    pub(super) fn reserve(&self, limit: u64, places: u64) -> Result<Standing, Denied> {
        let take = |held: u64| {
            let after = held.checked_add(places)?;
            (places == 0 || after <= limit).then_some(after)
        };
        let taken = self
            .held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        match taken {
            Ok(before) => Ok(stands(limit, before.saturating_add(places))),
            Err(held) => Err(Denied {
                standing: stands(limit, held),
                retry_after: (places <= limit).then_some(GUESS),
            }),
        }
    }

    /// Gives `places` back.
    pub(super) fn give_back(&self, places: u64) {
        let free = |held: u64| Some(held.saturating_sub(places));
        // Cannot fail: `free` always has an answer.
        let _ = self
            .held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, free);
    }

    /// How it stands.
    pub(super) fn standing(&self, limit: u64) -> Standing {
        stands(limit, self.held())
    }

    /// How many places are held.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }
}

fn stands(limit: u64, held: u64) -> Standing {
    Standing {
        limit,
        remaining: limit.saturating_sub(held),
        reset: if held == 0 { Duration::ZERO } else { GUESS },
    }
}
