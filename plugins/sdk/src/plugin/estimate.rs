//! How many tokens a request may take, before anybody knows.
//!
//! It owns the guess that is reserved; the truth comes with the exchange's end. The guess is cheap, not good: a quarter of the body's bytes for
//! the prompt, and for what is generated the most that the request allows.

use crate::llm::peek::Peek;
use crate::llm::usage::Usage;

/// Bytes that are taken for one token.
const BYTES: u64 = 4;

/// What a request is taken to use: of a body of `length` bytes, and `default_output` tokens if it does not say how many it wants at most.
pub fn estimate(peek: Option<&Peek>, length: usize, default_output: u64) -> Usage {
    Usage {
        input: (length as u64).div_ceil(BYTES),
        cached: 0,
        output: peek.and_then(Peek::output_limit).unwrap_or(default_output),
    }
}
