//! What a prompt begins with, as hashes: for whoever keeps requests together whose engines can share their work.
//!
//! An engine's prefix cache knows a prompt by all that its template makes of it, in the template's order. So the parts
//! of the request are hashed in that order, whatever order the client wrote them in: what the template itself is made with, the
//! tools, the system prompt, the messages (of each its role first). White space between values does not count, nor do sampling
//! parameters. Images and other files that stand in the request are hashed for themselves and count as one short word, since
//! their bytes say nothing about how many tokens they are.
//!
//! Hashes are chained: a block's is made of its own bytes and of the hash before it, so that equal hashes mean equal
//! beginnings (the scheme of vLLM's automatic prefix caching, there over token ids). They are the same in every process.

mod chain;
mod read;

use std::ops::Range;
use std::sync::Arc;

use chain::Chain;

/// The shortest and the longest block, and what its length is a multiple of, in bytes.
pub const BLOCK_BYTES: Range<usize> = 32..4097;

/// The beginning of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The hash of each whole block, chained. What is left after the last whole block has none.
    pub blocks: Arc<[u64]>,
    /// Length of the canonical text, in bytes.
    pub bytes: usize,
}

/// Reads the prompt of a request for `model` whose body is `body`, in blocks of `block` bytes (see [`BLOCK_BYTES`]; rounded down to
/// a multiple of 32). The body should have passed [`peek`](super::peek::peek): of one that is no JSON object nothing is read, and of one that
/// is broken further in, anything may be.
pub fn prompt(body: &[u8], model: &str, block: usize) -> Prompt {
    let found = read::read(body);
    let mut chain = Chain::new(block.clamp(BLOCK_BYTES.start, BLOCK_BYTES.end), body.len());
    chain.begin(model.as_bytes());
    for realm in &found.realms {
        chain.begin(body.get(realm.clone()).unwrap_or_default());
    }
    for run in found.runs() {
        match run.file {
            true => chain.digest(run.of(body)),
            false => chain.feed(run.of(body)),
        }
    }
    chain.finish()
}

#[cfg(test)]
mod tests;
