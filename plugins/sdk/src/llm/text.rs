//! JSON strings, at the speed of memory: where one ends, whether it is well formed, what it says.
//!
//! Two ways to pass over a string. [`skip`] looks only for its end; [`Strict`] also refuses what RFC 8259
//! refuses: control characters, unknown escapes, lone surrogates, bytes that are not UTF-8. Both find the
//! same end, and both can stop after any byte and go on with the next chunk.

use std::borrow::Cow;
use std::sync::LazyLock;

use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, u8x16, u8x64};
use memchr::memchr2;

/// Why a string is malformed.
pub(super) type Flaw = &'static str;

const CONTROL: Flaw = "control character";
const ESCAPE: Flaw = "invalid escape";
const SURROGATE: Flaw = "lone surrogate";
const UTF8: Flaw = "invalid UTF-8";

/// Strings are checked this many bytes at a time, so that the second look finds them in the L1 cache.
const BLOCK: usize = 4096;

/// What [`skip`] came to.
pub(super) enum Skipped<'a> {
    /// The string ended; these bytes follow its closing quote.
    Closed(&'a [u8]),
    /// The chunk ended first, `escaped` if right after a backslash.
    Open { escaped: bool },
}

/// Passes over the rest of a string whose opening quote is behind. Its content is not looked at.
///
/// To be inlined, with all that calls it, into code made for the vector instructions that `simd` stands for: see [`level`].
#[inline(always)]
pub(super) fn skip<S: Simd>(simd: S, mut text: &[u8], escaped: bool) -> Skipped<'_> {
    if escaped {
        let [_, rest @ ..] = text else {
            return Skipped::Open { escaped };
        };
        text = rest;
    }
    // Keys and roles end here.
    if let Some((head, _)) = text.split_first_chunk::<16>() {
        let head = u8x16::from_slice(simd, head);
        let quotes = head.simd_eq(u8x16::splat(simd, b'"')).to_bitmask();
        let slashes = head.simd_eq(u8x16::splat(simd, b'\\')).to_bitmask();
        let before = (quotes & quotes.wrapping_neg()).wrapping_sub(1);
        if quotes != 0 && slashes & before == 0 {
            let end = quotes.trailing_zeros() as usize + 1;
            return Skipped::Closed(text.get(end..).unwrap_or_default());
        }
    }
    skip_in_blocks(simd, text)
}

/// The vector instructions of this processor.
#[inline]
pub(super) fn level() -> Level {
    static LEVEL: LazyLock<Level> = LazyLock::new(Level::new);
    *LEVEL
}

/// [`skip`], 64 bytes at a time. No block begins inside an escape: when one ends in it, the next begins a byte later, so that
/// blocks do not wait for each other.
#[inline(always)]
fn skip_in_blocks<S: Simd>(simd: S, text: &[u8]) -> Skipped<'_> {
    let quote = u8x64::splat(simd, b'"');
    let slash = u8x64::splat(simd, b'\\');
    let mut rest = text;
    while let Some((block, tail)) = rest.split_first_chunk::<64>() {
        let block = u8x64::from_slice(simd, block);
        let quotes = block.simd_eq(quote).to_bitmask();
        let slashes = block.simd_eq(slash).to_bitmask();
        let closing = quotes & !escaped(slashes);
        if closing != 0 {
            let end = closing.trailing_zeros() as usize + 1;
            return Skipped::Closed(rest.get(end..).unwrap_or_default());
        }
        rest = tail;
        if slashes >> 63 != 0 && odd_run(slashes) {
            let [_, tail @ ..] = rest else {
                return Skipped::Open { escaped: true };
            };
            rest = tail;
        }
    }
    let mut escaped = false;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Skipped::Closed(rest),
            _ => {}
        }
    }
    Skipped::Open { escaped }
}

/// Which bytes of a block are escaped, given its backslashes. In a run of backslashes every other one escapes, beginning with the
/// first: subtracting the runs from a pattern of odd bits makes the borrow find where each ends (Langdale and Lemire,
/// Parsing Gigabytes of JSON per Second, 2019, section 3.1.1).
#[inline(always)]
fn escaped(slashes: u64) -> u64 {
    const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;
    ((slashes << 1) | ODD).wrapping_sub(slashes) ^ ODD ^ slashes
}

/// Whether the byte after a block that ends in a backslash is escaped. Out of line, so that it stays a branch: what is rare is not waited for.
#[cold]
#[inline(never)]
fn odd_run(slashes: u64) -> bool {
    slashes.leading_ones() % 2 == 1
}

/// What a whole string token says, quotes included, if it is nothing but ASCII without escapes.
#[inline]
pub(super) fn plain(token: &[u8]) -> Option<&[u8]> {
    let [b'"', inner @ .., b'"'] = token else {
        return None;
    };
    let plain = inner.iter().fold(true, |plain, &b| {
        plain & (0x20..0x80).contains(&b) & (b != b'\\')
    });
    plain.then_some(inner)
}

/// The value of a whole string token, quotes included; strict.
pub(super) fn decode(token: &[u8]) -> Result<Cow<'_, str>, Flaw> {
    let [b'"', inner @ .., b'"'] = token else {
        return Err("not a string");
    };
    if inner.contains(&b'\\') {
        // Escapes in names are rare enough for the general parser.
        let decoded: Result<String, _> = serde_json::from_slice(token);
        return decoded.map(Cow::Owned).map_err(|_| ESCAPE);
    }
    if inner.iter().any(|&b| b < 0x20) {
        return Err(CONTROL);
    }
    std::str::from_utf8(inner)
        .map(Cow::Borrowed)
        .map_err(|_| UTF8)
}

/// Passes over a string and checks all of it. Start from `default()` for every string.
#[derive(Debug, Default, Clone)]
pub(super) struct Strict {
    escape: Escape,
    /// The beginning of a character whose rest has not come yet.
    partial: [u8; 4],
    partial_len: usize,
}

/// Where in an escape sequence the string stands.
#[derive(Debug, Default, Clone, Copy)]
enum Escape {
    #[default]
    None,
    /// After a backslash; with `low` this must become `\uDC00` to `\uDFFF`.
    Slash { low: bool },
    /// Inside `\uXXXX`.
    Hex { left: u8, value: u16, low: bool },
    /// After a high surrogate: a backslash must follow.
    Pair,
}

impl Strict {
    /// Consumes bytes up to the closing quote, and returns what follows it; `None` when the chunk ended
    /// first.
    pub(super) fn push<'a>(&mut self, mut rest: &'a [u8]) -> Result<Option<&'a [u8]>, Flaw> {
        loop {
            if !matches!(self.escape, Escape::None) {
                let [byte, tail @ ..] = rest else {
                    return Ok(None);
                };
                self.escape = self.escape.step(*byte)?;
                rest = tail;
                continue;
            }
            if rest.is_empty() {
                return Ok(None);
            }
            let block = rest.get(..BLOCK).unwrap_or(rest);
            let (plain, after) = match memchr2(b'"', b'\\', block) {
                Some(at) => rest.split_at_checked(at).unwrap_or((rest, &[])),
                None => rest.split_at_checked(block.len()).unwrap_or((rest, &[])),
            };
            self.plain(plain)?;
            if plain.len() == block.len() {
                rest = after;
                continue;
            }
            if self.partial_len != 0 {
                return Err(UTF8);
            }
            match after {
                [b'"', after @ ..] => return Ok(Some(after)),
                [_, after @ ..] => {
                    self.escape = Escape::Slash { low: false };
                    rest = after;
                }
                [] => return Ok(None),
            }
        }
    }

    /// Checks bytes that are neither quote nor backslash.
    fn plain(&mut self, text: &[u8]) -> Result<(), Flaw> {
        let (least, all) = text
            .iter()
            .fold((u8::MAX, 0u8), |(least, all), &b| (least.min(b), all | b));
        if least < 0x20 {
            return Err(CONTROL);
        }
        if all < 0x80 && self.partial_len == 0 {
            return Ok(());
        }
        self.utf8(text)
    }

    #[cold]
    fn utf8(&mut self, mut text: &[u8]) -> Result<(), Flaw> {
        while self.partial_len != 0 {
            let [byte, tail @ ..] = text else {
                return Ok(());
            };
            *self.partial.get_mut(self.partial_len).ok_or(UTF8)? = *byte;
            self.partial_len += 1;
            text = tail;
            match std::str::from_utf8(self.partial.get(..self.partial_len).unwrap_or_default()) {
                Ok(_) => self.partial_len = 0,
                Err(e) if e.error_len().is_some() => return Err(UTF8),
                Err(_) => {}
            }
        }
        if let Err(e) = std::str::from_utf8(text) {
            let tail = text.get(e.valid_up_to()..).unwrap_or_default();
            let room = self.partial.get_mut(..tail.len());
            match (e.error_len(), room) {
                (None, Some(room)) => room.copy_from_slice(tail),
                _ => return Err(UTF8),
            }
            self.partial_len = tail.len();
        }
        Ok(())
    }
}

impl Escape {
    fn step(self, byte: u8) -> Result<Self, Flaw> {
        match self {
            Escape::None => Ok(Escape::None),
            Escape::Slash { low } => match byte {
                b'u' => Ok(Escape::Hex {
                    left: 4,
                    value: 0,
                    low,
                }),
                _ if low => Err(SURROGATE),
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(Escape::None),
                _ => Err(ESCAPE),
            },
            Escape::Hex { left, value, low } => {
                let digit = char::from(byte).to_digit(16).ok_or(ESCAPE)?;
                let value = (value << 4) | digit as u16;
                match (left, value, low) {
                    (2.., ..) => Ok(Escape::Hex {
                        left: left - 1,
                        value,
                        low,
                    }),
                    (_, 0xDC00..=0xDFFF, true) => Ok(Escape::None),
                    (_, _, true) | (_, 0xDC00..=0xDFFF, false) => Err(SURROGATE),
                    (_, 0xD800..=0xDBFF, false) => Ok(Escape::Pair),
                    _ => Ok(Escape::None),
                }
            }
            Escape::Pair => match byte {
                b'\\' => Ok(Escape::Slash { low: true }),
                _ => Err(SURROGATE),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use fearless_simd::dispatch;
    use proptest::prelude::*;

    use super::*;

    /// Where the string ends, byte by byte.
    fn plainly(text: &[u8], mut escaped: bool) -> Result<usize, bool> {
        for (i, byte) in text.iter().enumerate() {
            match (escaped, byte) {
                (true, _) => escaped = false,
                (false, b'\\') => escaped = true,
                (false, b'"') => return Ok(i + 1),
                _ => {}
            }
        }
        Err(escaped)
    }

    proptest! {
        #[test]
        fn skipping_finds_the_same_end_as_walking(text in "[\\\\\"x]{0,300}|(\\\\\"[a-z]{0,9}){0,60}\\\\{0,70}\"?|x{1000,1200}[\\\\\"x]{0,300}\"?", escaped: bool) {
            let text = text.as_bytes();
            let found = match dispatch!(level(), simd => skip(simd, text, escaped)) {
                Skipped::Closed(after) => Ok(text.len() - after.len()),
                Skipped::Open { escaped } => Err(escaped),
            };
            prop_assert_eq!(found, plainly(text, escaped));
            let found = match dispatch!(Level::baseline(), simd => skip(simd, text, escaped)) {
                Skipped::Closed(after) => Ok(text.len() - after.len()),
                Skipped::Open { escaped } => Err(escaped),
            };
            prop_assert_eq!(found, plainly(text, escaped));
        }
    }
}
