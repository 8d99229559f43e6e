//! The prefix cache: which blocks of which prompts the engine still holds.
//!
//! A block is `block_size` tokens; its name is a hash of its bytes chained to the block before it, so
//! a block is found only behind the same prefix. Blocks of running requests are pinned; the others
//! leave least recently used first, the tail of a prompt before its head. Only names are kept.

use std::collections::{BTreeMap, HashMap};

use super::text::hash;

/// Bytes of a prompt's text that count as one token.
pub const TOKEN_BYTES: usize = 4;

/// Tokens in a text of this many bytes.
pub(super) fn tokens_in(bytes: usize) -> usize {
    bytes.div_ceil(TOKEN_BYTES)
}

/// Chained names of the full blocks of a text.
pub(super) fn block_names(text: &[u8], block_size: usize) -> Vec<u64> {
    let bytes = block_size.max(1) * TOKEN_BYTES;
    text.chunks_exact(bytes)
        .scan(0, |previous, block| {
            *previous = hash(*previous, block);
            Some(*previous)
        })
        .collect()
}

#[derive(Debug, Default)]
struct Block {
    pins: u32,
    /// When it was last used; its key in `idle` while nobody pins it.
    tick: u64,
}

/// Block names with their order of use.
#[derive(Debug)]
pub(super) struct PrefixCache {
    capacity: usize,
    blocks: HashMap<u64, Block>,
    idle: BTreeMap<u64, u64>,
    tick: u64,
}

impl PrefixCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            blocks: HashMap::new(),
            idle: BTreeMap::new(),
            tick: 0,
        }
    }

    /// Pins a prompt's blocks, adding those that are missing and fit. Returns how many leading
    /// blocks were there before, and how many are pinned now.
    pub(super) fn pin(&mut self, names: &[u64]) -> (usize, usize) {
        let hits = names
            .iter()
            .take_while(|name| self.blocks.contains_key(name))
            .count();
        for (k, name) in names.iter().enumerate() {
            if !self.blocks.contains_key(name) && !self.make_room() {
                return (hits.min(k), k);
            }
            let block = self.blocks.entry(*name).or_default();
            if block.pins == 0 {
                self.idle.remove(&block.tick);
            }
            block.pins += 1;
        }
        (hits, names.len())
    }

    /// Gives pinned blocks back. The tail becomes the oldest.
    pub(super) fn release(&mut self, names: &[u64]) {
        for name in names.iter().rev() {
            let Some(block) = self.blocks.get_mut(name) else {
                continue;
            };
            block.pins = block.pins.saturating_sub(1);
            if block.pins == 0 {
                self.tick += 1;
                block.tick = self.tick;
                self.idle.insert(self.tick, *name);
            }
        }
    }

    /// Gives pinned blocks back that were never computed: nobody will find them.
    pub(super) fn discard(&mut self, names: &[u64]) {
        for name in names {
            let Some(block) = self.blocks.get_mut(name) else {
                continue;
            };
            block.pins = block.pins.saturating_sub(1);
            if block.pins == 0 {
                self.blocks.remove(name);
            }
        }
    }

    /// Share of the blocks that running requests hold, 0 to 1.
    pub(super) fn usage(&self) -> f64 {
        (self.blocks.len() - self.idle.len()) as f64 / self.capacity.max(1) as f64
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Forgets what nobody pins.
    pub(super) fn clear(&mut self) {
        for name in std::mem::take(&mut self.idle).into_values() {
            self.blocks.remove(&name);
        }
    }

    fn make_room(&mut self) -> bool {
        if self.blocks.len() < self.capacity {
            return true;
        }
        match self.idle.pop_first() {
            Some((_, oldest)) => self.blocks.remove(&oldest).is_some(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(cache: &mut PrefixCache, names: &[u64]) -> usize {
        let (hits, pinned) = cache.pin(names);
        cache.release(&names[..pinned]);
        hits
    }

    #[test]
    fn a_block_counts_only_behind_the_same_prefix() {
        let a = block_names(&[[1u8; 8], [2; 8]].concat(), 2);
        let b = block_names(&[[9u8; 8], [2; 8]].concat(), 2);
        assert_eq!(a.len(), 2);
        assert_ne!(a[1], b[1]);
        assert_eq!(block_names(&[1u8; 15], 2).len(), 1);
    }

    #[test]
    fn the_least_recently_used_leaves_first_and_tails_before_heads() {
        let mut cache = PrefixCache::new(4);
        assert_eq!(run(&mut cache, &[1, 2]), 0);
        assert_eq!(run(&mut cache, &[3, 4]), 0);
        assert_eq!(run(&mut cache, &[1, 2]), 2);
        assert_eq!(run(&mut cache, &[5]), 0);
        // 4, the tail of the older prompt, made room for 5.
        assert_eq!(run(&mut cache, &[3]), 1);
        assert_eq!(cache.len(), 4);
        assert_eq!(run(&mut cache, &[1, 2]), 2);
    }

    #[test]
    fn pinned_blocks_stay() {
        let mut cache = PrefixCache::new(2);
        assert_eq!(cache.pin(&[1, 2]), (0, 2));
        assert_eq!(cache.usage(), 1.0);
        assert_eq!(cache.pin(&[3]), (0, 0));
        cache.release(&[1, 2]);
        assert_eq!(cache.usage(), 0.0);
        assert_eq!(run(&mut cache, &[3]), 0);
        assert_eq!(run(&mut cache, &[1]), 1);
        cache.clear();
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn discarded_blocks_are_not_found_unless_somebody_else_holds_them() {
        let mut cache = PrefixCache::new(4);
        cache.pin(&[1, 2]);
        cache.pin(&[1, 3]);
        cache.discard(&[1, 2]);
        assert_eq!(cache.len(), 2);
        cache.release(&[1, 3]);
        assert_eq!(run(&mut cache, &[1, 2]), 1);
        assert_eq!(run(&mut cache, &[1, 3]), 2);
    }
}
