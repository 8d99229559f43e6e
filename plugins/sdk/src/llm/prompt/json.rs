//! Steps through JSON that has been checked: where a string or value ends, the members of an object, the elements of
//! an array. What is broken ends early, at the end of the bytes at the latest.

use memchr::memchr2;

/// White space between values.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// The first byte that is not white space.
pub(super) fn first_byte(text: &[u8]) -> Option<u8> {
    text.iter().copied().find(|byte| !is_space(*byte))
}

/// The offset after a string that begins here with its quote.
pub(super) fn string_end(text: &[u8]) -> usize {
    let mut at = 1;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let Some(found) = memchr2(b'"', b'\\', rest) else {
            return text.len();
        };
        match rest.get(found) {
            Some(b'"') => return at + found + 1,
            // What is escaped is one byte or, for `\u`, harmless.
            _ => at += found + 2,
        }
    }
}

/// The offset of the first quote or white space.
pub(super) fn next_of_interest(text: &[u8]) -> usize {
    find(text, |byte| byte == b'"' || byte <= b' ')
}

/// The offset of the first byte that is `wanted`, or the end. Sixteen at a time, so that the compiler makes vectors of it.
#[inline(always)]
fn find(text: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    let (blocks, _) = text.as_chunks::<16>();
    let none = |block: &&[u8; 16]| !block.iter().fold(false, |any, byte| any | wanted(*byte));
    let passed = blocks.iter().take_while(none).count() * 16;
    let rest = text.get(passed..).unwrap_or_default();
    let found = rest.iter().position(|byte| wanted(*byte));
    found.map_or(text.len(), |at| passed + at)
}

/// The offset after a value that begins here.
fn value_end(text: &[u8]) -> usize {
    match text.first() {
        Some(b'"') => string_end(text),
        Some(b'{' | b'[') => container_end(text),
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']') || is_space(*byte);
            text.iter().position(ends).unwrap_or(text.len())
        }
    }
}

fn container_end(text: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        // Brackets and braces differ in one bit.
        at += find(rest, |byte| {
            byte == b'"' || matches!(byte | 0x20, b'{' | b'}')
        });
        match text.get(at) {
            None => return text.len(),
            Some(b'"') => at += string_end(text.get(at..).unwrap_or_default()),
            Some(b'{' | b'[') => (depth, at) = (depth + 1, at + 1),
            Some(_) => {
                (depth, at) = (depth.saturating_sub(1), at + 1);
                if depth == 0 {
                    return at;
                }
            }
        }
    }
}

/// The members of an object: names as written, without quotes, and values as written.
pub(super) struct Members<'b> {
    rest: &'b [u8],
}

impl<'b> Members<'b> {
    /// Of the object that is all of `text` but for white space; none if that is no object.
    pub(super) fn of(text: &'b [u8]) -> Members<'b> {
        let rest = text.trim_ascii_start().strip_prefix(b"{");
        Members {
            rest: rest.unwrap_or_default(),
        }
    }
}

impl<'b> Iterator for Members<'b> {
    type Item = (&'b [u8], &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let key = after(self.rest, b',');
        if key.first() != Some(&b'"') {
            return None;
        }
        let (key, rest) = key.split_at(string_end(key));
        let (value, rest) = split_value(after(rest, b':'))?;
        self.rest = rest;
        let key = key.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        Some((key, value))
    }
}

/// The elements of an array, as written.
pub(super) fn elements(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let rest = text.trim_ascii_start().strip_prefix(b"[");
    let mut rest = rest.unwrap_or_default();
    std::iter::from_fn(move || {
        let (value, left) = split_value(after(rest, b','))?;
        rest = left;
        Some(value)
    })
}

/// What follows white space and one of these, if it is there.
fn after(text: &[u8], separator: u8) -> &[u8] {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(&[separator]).unwrap_or(text);
    text.trim_ascii_start()
}

/// A value and what follows it; none if none begins here.
fn split_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = value_end(text);
    (end > 0).then(|| text.split_at(end))
}
