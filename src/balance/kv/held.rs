//! The blocks that one engine's cache holds, by the hashes that the engine gives them.
//!
//! Bounded: what holds more than [`MOST`] blocks is not kept count of.

use std::collections::HashMap;

/// Blocks that are kept count of: of 16 tokens each, 32 million tokens.
const MOST: usize = 1 << 21;

/// What happened to a cache. Blocks that stand elsewhere than in the device's memory are not told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Blocks came in.
    Stored(Block),
    /// Blocks went, by their hashes.
    Removed(Vec<u64>),
    /// All went.
    Cleared,
}

/// Blocks that came in together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The hash of each.
    pub hashes: Vec<u64>,
    /// Tokens of each.
    pub size: u32,
}

/// What one cache holds, as far as it told.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Tokens of each block.
    blocks: HashMap<u64, u32>,
    tokens: u64,
    /// Whether it held nothing else when it began to tell, or what it held is gone by now.
    whole: bool,
    /// Tokens that came in since.
    stored: u64,
}

impl Held {
    /// Of nothing told yet; `whole`: it holds nothing.
    pub(super) fn new(whole: bool) -> Held {
        Held {
            whole,
            ..Held::default()
        }
    }

    /// Takes in one event. A block that is held already and one that is not known are no mistakes: what was there before is not told.
    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Stored(block) => {
                for hash in &block.hashes {
                    if self.blocks.insert(*hash, block.size).is_none() {
                        self.tokens += u64::from(block.size);
                        self.stored += u64::from(block.size);
                    }
                }
                if self.blocks.len() > MOST {
                    *self = Held::new(false);
                }
            }
            Event::Removed(hashes) => {
                for hash in hashes {
                    let size = self.blocks.remove(hash).unwrap_or(0);
                    self.tokens = self.tokens.saturating_sub(u64::from(size));
                }
            }
            Event::Cleared => *self = Held::new(true),
        }
    }

    /// Once twice as much came in as there is room for, what was there before is gone or too little to count.
    pub(super) fn settle(&mut self, room: Option<u64>) {
        if room.is_some_and(|room| room > 0 && self.stored >= room.saturating_mul(2)) {
            self.whole = true;
        }
    }

    /// Whether it holds what was told and nothing else.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Tokens it holds.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Blocks it holds.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(hashes: impl IntoIterator<Item = u64>, size: u32) -> Event {
        Event::Stored(Block {
            hashes: hashes.into_iter().collect(),
            size,
        })
    }

    #[test]
    fn each_block_counts_once_and_what_is_not_known_not_at_all() {
        let mut held = Held::new(true);
        held.apply(&stored([1, 2, 3], 16));
        held.apply(&stored([3, 4], 16));
        assert_eq!((held.blocks(), held.tokens()), (4, 64));
        held.apply(&Event::Removed(vec![1, 1, 9]));
        assert_eq!((held.blocks(), held.tokens()), (3, 48));
        held.apply(&Event::Cleared);
        assert_eq!(
            (held.blocks(), held.tokens(), held.is_whole()),
            (0, 0, true)
        );
    }

    #[test]
    fn what_was_before_is_gone_when_twice_the_room_came_in() {
        let mut held = Held::default();
        held.apply(&stored(0..12, 16));
        held.settle(None);
        held.settle(Some(100));
        assert!(!held.is_whole());
        held.apply(&Event::Removed((0..6).collect()));
        held.apply(&stored(20..21, 16));
        held.settle(Some(100));
        assert!(held.is_whole());
    }

    #[test]
    fn more_than_can_be_counted_is_given_up() {
        let mut held = Held::new(true);
        held.apply(&stored(0..=MOST as u64, 16));
        assert_eq!((held.blocks(), held.is_whole()), (0, false));
    }
}
