//! Blocks of bytes, and the chain of their hashes.

use super::Prompt;

/// Bytes hashed in one step.
const STEP: usize = 32;
/// Blocks of a prompt that are told apart. What comes after them is counted, but of prompts that are alike so far nobody asks for more.
pub(super) const MOST: usize = 16_384;

/// Takes bytes and hashes each block that is full.
pub(super) struct Chain {
    /// The hash of all blocks so far, or of what was there before the first.
    hash: u64,
    block: usize,
    /// The block that is not full yet.
    open: Vec<u8>,
    hashes: Vec<u64>,
    bytes: usize,
}

impl Chain {
    /// Of blocks of so many bytes, for at most so many bytes in all.
    pub(super) fn new(block: usize, bytes: usize) -> Chain {
        let block = (block / STEP).max(1) * STEP;
        Chain {
            hash: SEED,
            block,
            open: Vec::with_capacity(block),
            hashes: Vec::with_capacity((bytes / block + 1).min(MOST)),
            bytes: 0,
        }
    }

    /// What comes before the first block and is in no block itself.
    pub(super) fn begin(&mut self, word: &[u8]) {
        self.hash = fold(self.hash ^ KEYS[0], hash(SEED, word));
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len();
        if self.hashes.len() >= MOST {
            return;
        }
        if !self.open.is_empty() {
            let missing = self.block - self.open.len();
            let Some((head, rest)) = bytes.split_at_checked(missing) else {
                return self.open.extend_from_slice(bytes);
            };
            self.open.extend_from_slice(head);
            self.hash = link(self.hash, &self.open);
            self.hashes.push(self.hash);
            self.open.clear();
            bytes = rest;
        }
        let left = (MOST - self.hashes.len()).saturating_mul(self.block);
        let bytes = bytes.get(..left).unwrap_or(bytes);
        let blocks = bytes.chunks_exact(self.block);
        self.open.extend_from_slice(blocks.remainder());
        self.hashes.extend(blocks.map(|block| {
            self.hash = link(self.hash, block);
            self.hash
        }));
    }

    /// Feeds what stands for these bytes, however many they are.
    pub(super) fn digest(&mut self, bytes: &[u8]) {
        let (one, two) = (hash(1, bytes), hash(2, bytes));
        self.feed(&one.to_le_bytes());
        self.feed(&two.to_le_bytes());
    }

    pub(super) fn finish(self) -> Prompt {
        Prompt {
            blocks: self.hashes.into(),
            bytes: self.bytes,
        }
    }
}

const SEED: u64 = 0x2545_F491_4F6C_DD1D;
const KEYS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93];

/// The hash of a whole block after those that come to `before`. Blocks are hashed for themselves, so that a processor can work at several, and then joined to what was before.
#[inline(always)]
fn link(before: u64, block: &[u8]) -> u64 {
    let [one, two] = lanes(KEYS, block.as_chunks().0);
    fold(before ^ one, two ^ SEED)
}

/// The hash of any bytes.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let (steps, tail) = bytes.as_chunks();
    let mut last = [0; STEP];
    last.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
    let [one, two] = lanes(lanes(KEYS, steps), &[last]);
    fold(one ^ seed, two ^ bytes.len() as u64)
}

/// Folded multiplication (as in wyhash) in two lanes side by side, each of them sixteen bytes a step.
#[inline(always)]
fn lanes([mut one, mut two]: [u64; 2], steps: &[[u8; STEP]]) -> [u64; 2] {
    let mix = |lane: u64, key: u64, half: &[u8; STEP / 2]| {
        let both = u128::from_le_bytes(*half);
        fold(lane ^ both as u64, key ^ (both >> 64) as u64)
    };
    for step in steps {
        if let [left, right] = step.as_chunks().0 {
            (one, two) = (mix(one, KEYS[0], left), mix(two, KEYS[1], right));
        }
    }
    [one, two]
}

/// Both halves of a product, so that every bit of either factor counts; and one factor, so that it is not lost when the other is zero.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64) ^ a.rotate_left(29)
}
