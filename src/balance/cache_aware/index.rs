//! Which blocks of prompts each target's cache should hold by now: what was sent there, least recently used out.
//!
//! One table leads from a block's hash to the set of its holders, so that one walk along a prompt's chain tells for all
//! targets how much of it they hold. Beside it each holder has a shadow of its cache: a list by use, as long as the cache has
//! blocks. Of a prompt the tail is put in before the head, so it is also the tail that goes first.
//!
//! A block costs 16 bytes and its place in two tables, some 50 bytes in all; a prompt's blocks cost nothing to look up but
//! the look.

use hashbrown::HashTable;
use smallvec::SmallVec;

/// No slot, no entry.
const NONE: u32 = u32::MAX;
/// Targets of one word of a set.
const WORD: usize = 64;

/// What all targets hold.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Entries by hash.
    table: HashTable<u32>,
    /// The hash of each entry; of one that is free, the next that is.
    hashes: Vec<u64>,
    /// The holders of each entry, `words` words each.
    holders: Vec<u64>,
    words: usize,
    free: Option<u32>,
    shadows: Vec<Shadow>,
}

/// One target's cache, as it should be.
#[derive(Debug, Default)]
struct Shadow {
    /// Slots by entry.
    table: HashTable<u32>,
    slots: Vec<Slot>,
    newest: Option<u32>,
    oldest: Option<u32>,
    free: Option<u32>,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    entry: u32,
    newer: u32,
    /// Of a slot that is free, the next that is.
    older: u32,
    /// The request that put it here.
    by: u32,
}

/// How many of a prompt's first blocks each target holds, by the target's place.
pub(super) type Matched = SmallVec<[u32; 16]>;

impl Index {
    /// Makes room for a target at this place, with a cache of so many blocks. What it holds is kept as far as it fits.
    pub(super) fn resize(&mut self, place: usize, capacity: usize) {
        if self.shadows.len() <= place {
            self.shadows.resize_with(place + 1, Shadow::default);
            self.widen((place + 1).div_ceil(WORD));
        }
        if let Some(shadow) = self.shadows.get_mut(place) {
            shadow.capacity = capacity;
            self.evict(place);
        }
    }

    /// Blocks that the target at this place holds.
    #[cfg(test)]
    pub(super) fn held(&self, place: usize) -> usize {
        self.shadows.get(place).map_or(0, |s| s.table.len())
    }

    /// Blocks it can hold.
    pub(super) fn capacity(&self, place: usize) -> usize {
        self.shadows.get(place).map_or(0, |s| s.capacity)
    }

    /// For each place how many of the prompt's first blocks are held there.
    pub(super) fn matched(&self, blocks: &[u64]) -> Matched {
        let places = self.shadows.len();
        let mut matched = Matched::from_elem(0, places);
        let mut alive: SmallVec<[u64; 4]> = SmallVec::from_elem(u64::MAX, self.words);
        let mut last = 0;
        for (i, hash) in blocks.iter().enumerate() {
            let holders = self.find(*hash).and_then(|entry| self.holders_of(entry));
            let mut any = 0;
            for (w, word) in alive.iter_mut().enumerate() {
                let held = holders.and_then(|h| h.get(w)).copied().unwrap_or(0);
                let mut lost = *word & !held;
                *word &= held;
                any |= *word;
                while lost != 0 {
                    let place = w * WORD + lost.trailing_zeros() as usize;
                    if let Some(count) = matched.get_mut(place) {
                        *count = i as u32;
                    }
                    lost &= lost - 1;
                }
            }
            if any == 0 {
                return matched;
            }
            last = i + 1;
        }
        for (place, count) in matched.iter_mut().enumerate() {
            let word = alive.get(place / WORD).copied().unwrap_or(0);
            if word >> (place % WORD) & 1 == 1 {
                *count = last as u32;
            }
        }
        matched
    }

    /// Puts a prompt into the cache of the target at this place: what is there already is used again. `by` tells whose request
    /// it is that brings what is new.
    pub(super) fn insert(&mut self, place: usize, blocks: &[u64], by: u32) {
        if self.capacity(place) == 0 {
            return;
        }
        for hash in blocks.iter().rev() {
            let entry = self.entry(*hash);
            if let Some(word) = self.word(entry, place) {
                *word |= 1 << (place % WORD);
            }
            if let Some(shadow) = self.shadows.get_mut(place) {
                shadow.touch(entry, by);
            }
        }
        self.evict(place);
    }

    /// Takes back what this request brought and nobody has used since: it was never computed.
    pub(super) fn undo(&mut self, place: usize, blocks: &[u64], by: u32) {
        for hash in blocks {
            let Some(entry) = self.find(*hash) else {
                continue;
            };
            let shadow = self.shadows.get_mut(place);
            if shadow.is_some_and(|shadow| shadow.remove_of(entry, by)) {
                self.unhold(entry, place);
            }
        }
    }

    /// Forgets all that the target at this place held.
    pub(super) fn forget(&mut self, place: usize) {
        let capacity = self.capacity(place);
        self.resize(place, 0);
        // Its memory goes, too.
        if let Some(shadow) = self.shadows.get_mut(place) {
            *shadow = Shadow {
                capacity,
                ..Shadow::default()
            };
        }
    }

    fn evict(&mut self, place: usize) {
        self.shorten(place, self.capacity(place));
    }

    /// Forgets what was used longest ago, until no more than so many blocks are left.
    pub(super) fn shorten(&mut self, place: usize, blocks: usize) {
        while let Some(shadow) = self.shadows.get_mut(place)
            && shadow.table.len() > blocks
        {
            let Some(entry) = shadow.remove_oldest() else {
                return;
            };
            self.unhold(entry, place);
        }
    }

    fn unhold(&mut self, entry: u32, place: usize) {
        if let Some(word) = self.word(entry, place) {
            *word &= !(1 << (place % WORD));
        }
        let holders = self.holders_of(entry).unwrap_or_default();
        if holders.iter().all(|word| *word == 0) {
            self.drop_entry(entry);
        }
    }

    fn drop_entry(&mut self, entry: u32) {
        let Some(hash) = self.hashes.get_mut(entry as usize) else {
            return;
        };
        let found = self.table.find_entry(*hash, |e| *e == entry);
        if let Ok(found) = found {
            found.remove();
        }
        *hash = u64::from(self.free.unwrap_or(NONE));
        self.free = Some(entry);
    }

    fn find(&self, hash: u64) -> Option<u32> {
        let same = |entry: &u32| self.hashes.get(*entry as usize) == Some(&hash);
        self.table.find(hash, same).copied()
    }

    /// The entry of this hash, made if it is not there.
    fn entry(&mut self, hash: u64) -> u32 {
        if let Some(entry) = self.find(hash) {
            return entry;
        }
        let entry = match self.free {
            Some(entry) => {
                let slot = self.hashes.get_mut(entry as usize);
                let next = slot.map_or(NONE, |slot| std::mem::replace(slot, hash) as u32);
                self.free = (next != NONE).then_some(next);
                entry
            }
            None => {
                grow(&mut self.hashes, 1);
                grow(&mut self.holders, self.words);
                self.hashes.push(hash);
                self.holders.extend(std::iter::repeat_n(0, self.words));
                (self.hashes.len() - 1) as u32
            }
        };
        let hashes = &self.hashes;
        let hash_of = |entry: &u32| hashes.get(*entry as usize).copied().unwrap_or(0);
        self.table.insert_unique(hash, entry, hash_of);
        entry
    }

    fn holders_of(&self, entry: u32) -> Option<&[u64]> {
        let from = entry as usize * self.words;
        self.holders.get(from..from + self.words)
    }

    fn word(&mut self, entry: u32, place: usize) -> Option<&mut u64> {
        self.holders
            .get_mut(entry as usize * self.words + place / WORD)
    }

    /// Makes every set of holders so many words long.
    fn widen(&mut self, words: usize) {
        if words <= self.words {
            return;
        }
        let mut wide = Vec::with_capacity(self.hashes.len() * words);
        for entry in 0..self.hashes.len() {
            let old = self.holders_of(entry as u32).unwrap_or_default();
            wide.extend_from_slice(old);
            wide.extend(std::iter::repeat_n(0, words - old.len()));
        }
        (self.holders, self.words) = (wide, words);
    }
}

impl Shadow {
    /// Puts an entry to the front.
    fn touch(&mut self, entry: u32, by: u32) {
        let known = self.find(entry);
        let slot = match known {
            Some(slot) => {
                self.unlink(slot);
                slot
            }
            None => self.take_slot(entry, by),
        };
        let newest = self.newest.replace(slot);
        if let Some(s) = self.slots.get_mut(slot as usize) {
            if known.is_some() && s.by != by {
                // Another counts on it: it is not for the first to take back.
                s.by = NONE;
            }
            (s.newer, s.older) = (NONE, newest.unwrap_or(NONE));
        }
        match newest.and_then(|newest| self.slots.get_mut(newest as usize)) {
            Some(older) => older.newer = slot,
            None => self.oldest = Some(slot),
        }
    }

    fn take_slot(&mut self, entry: u32, by: u32) -> u32 {
        let fresh = Slot {
            entry,
            newer: NONE,
            older: NONE,
            by,
        };
        let slot = match self.free {
            Some(slot) => {
                let old = self.slots.get_mut(slot as usize);
                let next = old.map_or(NONE, |old| std::mem::replace(old, fresh).older);
                self.free = (next != NONE).then_some(next);
                slot
            }
            None => {
                grow(&mut self.slots, 1);
                self.slots.push(fresh);
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        let hash_of = |slot: &u32| slots.get(*slot as usize).map_or(0, |s| scatter(s.entry));
        self.table.insert_unique(scatter(entry), slot, hash_of);
        slot
    }

    /// Removes an entry that this request brought and nobody else has used.
    fn remove_of(&mut self, entry: u32, by: u32) -> bool {
        let slot = self.find(entry).filter(|slot| {
            let slot = self.slots.get(*slot as usize);
            slot.is_some_and(|slot| slot.by == by)
        });
        slot.map(|slot| self.remove(slot)).is_some()
    }

    fn remove_oldest(&mut self) -> Option<u32> {
        let slot = self.oldest?;
        let entry = self.slots.get(slot as usize)?.entry;
        self.remove(slot);
        Some(entry)
    }

    fn remove(&mut self, slot: u32) {
        self.unlink(slot);
        let Some(s) = self.slots.get_mut(slot as usize) else {
            return;
        };
        s.older = self.free.unwrap_or(NONE);
        self.free = Some(slot);
        let found = self.table.find_entry(scatter(s.entry), |s| *s == slot);
        if let Ok(found) = found {
            found.remove();
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Some(Slot { newer, older, .. }) = self.slots.get(slot as usize).copied() else {
            return;
        };
        match self.slots.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = (older != NONE).then_some(older),
        }
        match self.slots.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = (newer != NONE).then_some(newer),
        }
    }

    fn find(&self, entry: u32) -> Option<u32> {
        let same = |slot: &u32| {
            let slot = self.slots.get(*slot as usize);
            slot.is_some_and(|slot| slot.entry == entry)
        };
        self.table.find(scatter(entry), same).copied()
    }
}

/// A hash of an entry's number (Fibonacci hashing, Knuth volume 3, 6.4), mixed down to where tables look.
fn scatter(entry: u32) -> u64 {
    let product = u64::from(entry).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ (product >> 32)
}

/// Makes room for `more` in steps of an eighth: memory is what blocks cost.
fn grow<T>(list: &mut Vec<T>, more: usize) {
    if list.len() + more > list.capacity() {
        list.reserve_exact(more.max(list.len() / 8).max(64));
    }
}

#[cfg(test)]
mod tests;
