//! How many tokens a request may take, before anybody knows.
//!
//! It owns the guess that is reserved; the truth comes with the exchange's end. The guess is cheap, not good: a quarter of the body's bytes for
//! the prompt, and for what is generated the most that the request allows.

use tollgate_sdk::llm::peek::{Peek, peek};
use tollgate_sdk::llm::usage::Usage;
use tollgate_sdk::plugin::Exchange;

/// Bytes that are taken for one token.
const BYTES: u64 = 4;

/// What a request is taken to use: of its body as it will be sent, and `default_output` tokens if it does not say how many it wants at most.
pub(crate) fn estimate(x: &Exchange<'_>, default_output: u64) -> Usage {
    let rewritten = x.edits.body.as_ref().and_then(|body| peek(body).ok());
    let peek = rewritten.as_ref().or(x.request.peek);
    Usage {
        input: (x.request.length as u64).div_ceil(BYTES),
        cached: 0,
        output: peek.and_then(Peek::output_limit).unwrap_or(default_output),
    }
}
