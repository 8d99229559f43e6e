//! What the gateway knows about the wire formats of language models: the few fields it reads from a
//! request ([`peek`]), the edits it makes ([`splice`], [`members`]), server-sent events ([`sse`]), the tokens an
//! answer reports ([`usage`], [`stream`]), the shape of an error ([`dialect`]) and how models are named ([`ModelPattern`]).
//!
//! It owns no I/O and no policy: bytes go in, facts and bytes come out. Everything here that sees a body
//! is a push parser, fed as the bytes arrive, whose result does not depend on where the chunks are cut;
//! its memory is bounded whatever is sent. Nothing is changed that the caller did not ask to change.

pub mod dialect;
pub mod members;
pub mod peek;
pub mod prompt;
pub mod splice;
pub mod sse;
pub mod stream;
pub mod usage;

mod fault;
mod model;
mod number;
mod scan;
mod text;

pub use model::ModelPattern;

#[cfg(any(test, feature = "fuzz"))]
pub mod check;

/// `text` as a JSON string, quotes included.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
