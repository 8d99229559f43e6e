//! Where the parts of a prompt stand in a request's body: one pass over a body that has been checked.
//!
//! What comes out are ranges of the body, in the order of the canonical text: compact JSON, the members of a message in
//! the template's order. A body that is written so already is one range for each part. Of what is broken, anything may be recorded; it ends at the end of
//! the bytes at the latest.

use std::ops::Range;

use fearless_simd::{Simd, dispatch};
use smallvec::SmallVec;

use crate::llm::text::{self, Skipped};

/// Strings longer than this may be files.
const FILE: usize = 256;
/// Members of a message that are put in order; one with more is taken as it stands.
const MEMBERS: usize = 16;
/// How many parts a template is made of, and how many realms there are.
pub(super) const PARTS: usize = 10;
pub(super) const REALMS: usize = 3;

/// A piece of the canonical text.
#[derive(Clone, Copy)]
pub(super) struct Run {
    from: usize,
    to: usize,
    /// Whether it is a string that holds a file.
    pub(super) file: bool,
}

impl Run {
    pub(super) fn of(self, body: &[u8]) -> &[u8] {
        body.get(self.from..self.to).unwrap_or_default()
    }
}

/// What a body has of a prompt.
#[derive(Default)]
pub(super) struct Found {
    runs: SmallVec<[Run; 32]>,
    /// The runs of each part, in the template's order; none of what is not there.
    parts: [Range<usize>; PARTS],
    /// The values, as they stand, of what keeps prompts apart that are otherwise the same: engines never share between these.
    pub(super) realms: [Range<usize>; REALMS],
}

impl Found {
    /// The canonical text.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> {
        let runs = |part: &Range<usize>| self.runs.get(part.clone()).unwrap_or_default();
        self.parts.iter().flat_map(runs).copied()
    }
}

/// What a member of the request is to the prompt.
enum Role {
    /// A part of it, and which in the template's order.
    Part(usize),
    Realm(usize),
    Nothing,
}

fn role(key: &[u8]) -> Role {
    match key {
        b"\"chat_template\"" => Role::Part(0),
        b"\"chat_template_kwargs\"" => Role::Part(1),
        b"\"documents\"" => Role::Part(2),
        b"\"tools\"" => Role::Part(3),
        b"\"functions\"" => Role::Part(4),
        b"\"system\"" => Role::Part(5),
        b"\"instructions\"" => Role::Part(6),
        b"\"messages\"" => Role::Part(7),
        b"\"prompt\"" => Role::Part(8),
        b"\"input\"" => Role::Part(9),
        b"\"cache_salt\"" => Role::Realm(0),
        b"\"lora_path\"" => Role::Realm(1),
        b"\"adapter_id\"" => Role::Realm(2),
        _ => Role::Nothing,
    }
}

/// The place of a message's member among the others: who says it first, then what is said, then the rest as it was written.
fn place(key: &[u8]) -> u8 {
    match key {
        b"\"role\"" => 0,
        b"\"name\"" => 1,
        b"\"tool_call_id\"" => 2,
        b"\"content\"" => 3,
        _ => 4,
    }
}

/// White space between values.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// Finds the prompt in a body; nothing in one that is no JSON object.
pub(super) fn read(body: &[u8]) -> Found {
    dispatch!(text::level(), simd => Reader { simd, body, at: 0, found: Found::default() }.object())
}

/// Goes through the body. To be inlined whole: see [`text::skip`].
struct Reader<'b, S> {
    simd: S,
    body: &'b [u8],
    at: usize,
    found: Found,
}

impl<'b, S: Simd> Reader<'b, S> {
    /// The request itself.
    #[inline(always)]
    fn object(mut self) -> Found {
        self.space();
        if self.byte() != Some(b'{') {
            return self.found;
        }
        self.at += 1;
        loop {
            self.space();
            if self.byte() != Some(b'"') {
                return self.found;
            }
            let (before, from) = (self.found.runs.len(), self.at);
            let key = self.string();
            let key = role(self.bytes(key));
            self.take(from..self.at, false);
            self.separator(b':');
            let from = self.at;
            match key {
                Role::Part(_) => self.part(),
                _ => self.value(),
            }
            let there = self.bytes(from..self.at) != b"null";
            let parts = &mut self.found.parts;
            match key {
                Role::Part(n) if there => {
                    if let Some(part) = parts.get_mut(n) {
                        *part = before..self.found.runs.len();
                    }
                }
                Role::Realm(n) => {
                    if let Some(realm) = self.found.realms.get_mut(n) {
                        *realm = from..self.at;
                    }
                    self.found.runs.truncate(before);
                }
                // No run lies across `before`: a comma lies between.
                _ => self.found.runs.truncate(before),
            }
            self.space();
            self.at += usize::from(self.byte() == Some(b','));
        }
    }

    /// One part: a list of messages, or whatever else it is. The list's end is left out: a conversation that goes on has none there.
    #[inline(always)]
    fn part(&mut self) {
        let inside = self.rest().strip_prefix(b"[").unwrap_or_default();
        let first = inside.iter().copied().find(|byte| !is_space(*byte));
        if first != Some(b'{') {
            return self.value();
        }
        self.take(self.at..self.at + 1, false);
        self.at += 1;
        loop {
            self.space();
            match self.byte() {
                Some(b'{') => self.message(),
                _ => self.value(),
            }
            self.space();
            if self.byte() != Some(b',') {
                self.at += usize::from(self.byte() == Some(b']'));
                return;
            }
            self.take(self.at..self.at + 1, false);
            self.at += 1;
        }
    }

    /// One message, of which `{` comes next.
    #[inline(always)]
    fn message(&mut self) {
        let from = self.at;
        let (before, last) = (self.found.runs.len(), self.found.runs.last().copied());
        let mut members: SmallVec<[(u8, usize); MEMBERS]> = SmallVec::new();
        let (mut ordered, mut latest, mut comma) = (true, 0, None);
        self.take(from..from + 1, false);
        self.at += 1;
        loop {
            self.space();
            if self.byte() != Some(b'"') {
                break;
            }
            let begin = self.at;
            let place = self.member();
            if members.len() <= MEMBERS {
                members.push((place, begin));
            }
            ordered &= latest <= place;
            latest = place;
            self.space();
            if self.byte() != Some(b',') {
                break;
            }
            comma = Some(self.at);
            self.take(self.at..self.at + 1, false);
            self.at += 1;
        }
        let close = self.at;
        if let (false, true, Some(comma)) = (ordered, members.len() <= MEMBERS, comma) {
            // Written in another order: once more, in this one.
            self.found.runs.truncate(before);
            if let (Some(last), Some(before)) = (last, self.found.runs.last_mut()) {
                *before = last;
            }
            self.take(from..from + 1, false);
            members.sort_by_key(|(place, _)| *place);
            for (nth, (_, begin)) in members.iter().enumerate() {
                if nth > 0 {
                    self.take(comma..comma + 1, false);
                }
                self.at = *begin;
                self.member();
            }
            self.at = close;
        }
        if self.byte() == Some(b'}') {
            self.take(close..close + 1, false);
            self.at += 1;
        }
    }

    /// A member whose name comes next: its place.
    #[inline(always)]
    fn member(&mut self) -> u8 {
        let key = self.string();
        self.take(key.clone(), false);
        self.separator(b':');
        self.value();
        place(self.bytes(key))
    }

    /// The value that comes next.
    #[inline(always)]
    fn value(&mut self) {
        match self.byte() {
            Some(b'"') => {
                let string = self.string();
                let file = self.is_file(&string, false);
                self.take(string, file);
            }
            Some(b'{' | b'[') => self.container(),
            _ => {
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']') || is_space(*byte);
                let length = self.rest().iter().position(ends);
                let to = length.map_or(self.body.len(), |length| self.at + length);
                self.take(self.at..to, false);
                self.at = to;
            }
        }
    }

    /// The object or array that comes next, without white space between its parts.
    #[inline(always)]
    fn container(&mut self) {
        let mut depth = 0_usize;
        // Whether the string before was a key that announces a file.
        let mut announced = false;
        while let Some(byte) = self.byte() {
            match byte {
                b'"' => {
                    let string = self.string();
                    let next = self.rest().iter().find(|byte| !is_space(**byte));
                    let is_key = next == Some(&b':');
                    let file = !is_key && self.is_file(&string, announced);
                    let name = self.bytes(string.clone());
                    announced = is_key && matches!(name, b"\"data\"" | b"\"file_data\"");
                    self.take(string, file);
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ if is_space(byte) => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    let to = self.at + plain(self.rest());
                    self.take(self.at..to, false);
                    self.at = to;
                    continue;
                }
            }
            self.take(self.at..self.at + 1, false);
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    /// A separator with what white space there is about it.
    #[inline(always)]
    fn separator(&mut self, separator: u8) {
        self.space();
        if self.byte() == Some(separator) {
            self.take(self.at..self.at + 1, false);
            self.at += 1;
        }
        self.space();
    }

    /// Passes over the string of which the quote comes next: where it is, quotes included.
    #[inline(always)]
    fn string(&mut self) -> Range<usize> {
        let from = self.at;
        let inside = self.body.get(from + 1..).unwrap_or_default();
        self.at = match text::skip(self.simd, inside, false) {
            Skipped::Closed(after) => self.body.len() - after.len(),
            Skipped::Open { .. } => self.body.len(),
        };
        from..self.at
    }

    /// Whether a string, which is no key, holds a file: `data:` addresses, and what a key announces.
    #[inline(always)]
    fn is_file(&self, string: &Range<usize>, announced: bool) -> bool {
        string.len() > FILE && (announced || self.bytes(string.clone()).starts_with(b"\"data:"))
    }

    /// Records what comes next in the canonical text.
    #[inline(always)]
    fn take(&mut self, range: Range<usize>, file: bool) {
        match self.found.runs.last_mut() {
            Some(last) if last.to == range.start && !last.file && !file => last.to = range.end,
            _ => self.found.runs.push(Run {
                from: range.start,
                to: range.end,
                file,
            }),
        }
    }

    #[inline(always)]
    fn space(&mut self) {
        while self.byte().is_some_and(is_space) {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn byte(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    #[inline(always)]
    fn rest(&self) -> &'b [u8] {
        self.body.get(self.at..).unwrap_or_default()
    }

    #[inline(always)]
    fn bytes(&self, range: Range<usize>) -> &'b [u8] {
        self.body.get(range).unwrap_or_default()
    }
}

/// How many bytes come before the next quote, bracket, brace or white space; one at least. Sixteen at a time, so that the compiler makes vectors of it.
#[inline(always)]
fn plain(text: &[u8]) -> usize {
    // Brackets and braces differ in one bit.
    let other = |byte: u8| byte == b'"' || is_space(byte) || matches!(byte | 0x20, b'{' | b'}');
    let (blocks, _) = text.as_chunks::<16>();
    let none = |block: &&[u8; 16]| !block.iter().fold(false, |any, byte| any | other(*byte));
    let passed = blocks.iter().take_while(none).count() * 16;
    let rest = text.get(passed..).unwrap_or_default();
    let found = rest.iter().position(|byte| other(*byte));
    found.map_or(text.len(), |at| passed + at).max(1)
}
