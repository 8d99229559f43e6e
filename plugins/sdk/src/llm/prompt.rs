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
mod json;

use std::ops::Range;
use std::sync::Arc;

use chain::Chain;
use json::{Members, elements, first_byte, is_space, next_of_interest, string_end};
use smallvec::SmallVec;

/// The shortest and the longest block, and what its length is a multiple of, in bytes.
pub const BLOCK_BYTES: Range<usize> = 32..4097;

/// Strings longer than this may be files.
const FILE: usize = 256;
/// Members of a message that are put in order; one with more is taken as it stands.
const MEMBERS: usize = 16;

/// The beginning of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The hash of each whole block, chained. What is left after the last whole block has none.
    pub blocks: Arc<[u64]>,
    /// Length of the canonical text, in bytes.
    pub bytes: usize,
}

/// The parts of a request, in the order in which a template has them.
const PARTS: [&[u8]; 10] = [
    b"chat_template",
    b"chat_template_kwargs",
    b"documents",
    b"tools",
    b"functions",
    b"system",
    b"instructions",
    b"messages",
    b"prompt",
    b"input",
];

/// What keeps prompts apart that are otherwise the same: engines never share between these.
const REALMS: [&[u8]; 3] = [b"cache_salt", b"lora_path", b"adapter_id"];

/// Reads the prompt of a request for `model` whose body is `body`, in blocks of `block` bytes (see [`BLOCK_BYTES`]; rounded down to
/// a multiple of 32). The body should have passed [`peek`](super::peek::peek): of one that is no JSON object nothing is read, and of one that
/// is broken further in, anything may be.
pub fn prompt(body: &[u8], model: &str, block: usize) -> Prompt {
    if first_byte(body) != Some(b'{') {
        return Prompt::default();
    }
    let mut parts: [Option<&[u8]>; PARTS.len()] = [None; PARTS.len()];
    let mut realms: [Option<&[u8]>; REALMS.len()] = [None; REALMS.len()];
    for (key, value) in Members::of(body) {
        let known = PARTS.iter().position(|name| *name == key);
        if let Some(slot) = known.and_then(|i| parts.get_mut(i)) {
            *slot = Some(value);
        }
        let realm = REALMS.iter().position(|name| *name == key);
        if let Some(slot) = realm.and_then(|i| realms.get_mut(i)) {
            *slot = Some(value);
        }
    }
    let mut chain = Chain::new(block.clamp(BLOCK_BYTES.start, BLOCK_BYTES.end), body.len());
    chain.begin(&[model.as_bytes()]);
    for realm in realms {
        chain.begin(&[realm.unwrap_or_default()]);
    }
    for (name, value) in PARTS.iter().zip(parts) {
        if let Some(value) = value.filter(|value| *value != b"null") {
            chain.feed(name);
            part(&mut chain, value);
        }
    }
    chain.finish()
}

/// One part: a list of messages, or whatever else it is.
fn part(chain: &mut Chain, value: &[u8]) {
    let inside = value.strip_prefix(b"[").unwrap_or_default();
    if first_byte(inside) != Some(b'{') {
        return text(chain, value);
    }
    for element in elements(value) {
        message(chain, element);
    }
}

/// One message: who says it first, then what is said, then the rest as it was written.
fn message(chain: &mut Chain, element: &[u8]) {
    let members: SmallVec<[_; MEMBERS]> = Members::of(element).take(MEMBERS + 1).collect();
    if members.len() > MEMBERS || first_byte(element) != Some(b'{') {
        return text(chain, element);
    }
    const FIRST: [&[u8]; 4] = [b"role", b"name", b"tool_call_id", b"content"];
    let place = |key: &[u8]| {
        let known = FIRST.iter().position(|name| *name == key);
        known.unwrap_or(FIRST.len())
    };
    chain.feed(b"{");
    for turn in 0..=FIRST.len() {
        for (key, value) in members.iter().filter(|(key, _)| place(key) == turn) {
            chain.feed(key);
            chain.feed(b":");
            text(chain, value);
        }
    }
}

/// A value as it stands, without white space between its parts, and with a digest for each file in it.
fn text(chain: &mut Chain, value: &[u8]) {
    let mut rest = value;
    // Whether the string before was a key that announces a file.
    let mut announced = false;
    loop {
        let (plain, from) = rest.split_at(next_of_interest(rest));
        chain.feed(plain);
        match from {
            [] => return,
            [b'"', ..] => {
                let (string, after) = from.split_at(string_end(from));
                let is_key = first_byte(after) == Some(b':');
                let is_file = !is_key && string.len() > FILE;
                if is_file && (announced || string.starts_with(b"\"data:")) {
                    chain.digest(string);
                } else {
                    chain.feed(string);
                }
                announced = is_key && matches!(string, b"\"data\"" | b"\"file_data\"");
                rest = after;
            }
            [_, after @ ..] => {
                let spaces = after.iter().take_while(|byte| is_space(**byte)).count();
                rest = after.get(spaces..).unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests;
