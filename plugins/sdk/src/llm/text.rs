//! JSON strings, at the speed of memory: where one ends, whether it is well formed, what it says.
//!
//! Two ways to pass over a string. [`skip`] looks only for its end; [`Strict`] also refuses what RFC 8259
//! refuses: control characters, unknown escapes, lone surrogates, bytes that are not UTF-8. Both find the
//! same end, and both can stop after any byte and go on with the next chunk.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use wide::u8x32;

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
/// Most strings end at their first quote: that is looked for, and the backslashes before it counted. Where it turns
/// out to be escaped there are usually more, so from there on blocks of 64 bytes are judged as a whole.
#[inline]
pub(super) fn skip(text: &[u8], escaped: bool) -> Skipped<'_> {
    let Some(at) = quote(text) else {
        return Skipped::Open {
            escaped: ends_escaping(text, escaped),
        };
    };
    let before = text.get(..at).unwrap_or_default();
    let after = text.get(at + 1..).unwrap_or_default();
    match ends_escaping(before, escaped) {
        false => Skipped::Closed(after),
        true => skip_in_blocks(after),
    }
}

/// [`skip`] for text in which quotes are escaped; its first byte is not.
fn skip_in_blocks(mut rest: &[u8]) -> Skipped<'_> {
    let mut escaped = false;
    while let Some((block, tail)) = rest.split_first_chunk::<64>() {
        let (quotes, slashes) = masks(block);
        let (literal, carry) = escaped_in(slashes, escaped);
        let closing = quotes & !literal;
        if closing != 0 {
            let end = closing.trailing_zeros() as usize + 1;
            return Skipped::Closed(rest.get(end..).unwrap_or_default());
        }
        escaped = carry;
        rest = tail;
    }
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

/// Where in a block the quotes and the backslashes are: bit i stands for byte i.
#[inline]
fn masks(block: &[u8; 64]) -> (u64, u64) {
    let (mut quotes, mut slashes) = (0, 0);
    for (i, part) in block.as_chunks::<32>().0.iter().enumerate() {
        let part = u8x32::new(*part);
        let at = 32 * i;
        quotes |= u64::from(part.simd_eq(u8x32::splat(b'"')).to_bitmask()) << at;
        slashes |= u64::from(part.simd_eq(u8x32::splat(b'\\')).to_bitmask()) << at;
    }
    (quotes, slashes)
}

/// Which bytes of a block are escaped, given its backslashes and whether its first byte is; and whether the byte after the block is. In a run of
/// backslashes every other one escapes, beginning with the first that is not escaped itself: subtracting the runs from a pattern of
/// odd bits makes the borrow find where each ends (Langdale and Lemire, Parsing Gigabytes of JSON per Second, 2019, section 3.1.1).
#[inline]
fn escaped_in(slashes: u64, first: bool) -> (u64, bool) {
    const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;
    let first = u64::from(first);
    let may_escape = slashes & !first;
    let ends = (((may_escape << 1) | ODD).wrapping_sub(may_escape)) ^ ODD;
    (ends ^ (slashes | first), (ends & slashes) >> 63 != 0)
}

/// Whether the byte after `text` is escaped: `text` ends in an odd number of backslashes. `escaped` says so of its
/// first byte, which then is no backslash that escapes.
#[inline]
fn ends_escaping(text: &[u8], escaped: bool) -> bool {
    let run = text.iter().rev().take_while(|&&b| b == b'\\').count();
    let whole = run == text.len();
    (run - usize::from(whole && escaped && run > 0)) % 2 == 1 || (escaped && text.is_empty())
}

/// The first `"`. The call into memchr costs more than most keys and roles are long, so the first sixteen bytes are
/// compared here, eight at a time.
#[inline]
fn quote(text: &[u8]) -> Option<usize> {
    let Some((first, rest)) = text.split_first_chunk::<8>() else {
        return text.iter().position(|&b| b == b'"');
    };
    if let Some(at) = in_word(u64::from_le_bytes(*first)) {
        return Some(at);
    }
    let Some((second, rest)) = rest.split_first_chunk::<8>() else {
        return rest.iter().position(|&b| b == b'"').map(|at| at + 8);
    };
    if let Some(at) = in_word(u64::from_le_bytes(*second)) {
        return Some(at + 8);
    }
    memchr(b'"', rest).map(|at| at + 16)
}

/// The first byte of a little-endian word that is `"`.
#[inline]
fn in_word(word: u64) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The lowest set bit is exact; a borrow can only set bits above a true one.
    let differs = word ^ (ONES * b'"' as u64);
    let hit = differs.wrapping_sub(ONES) & !differs & HIGH;
    (hit != 0).then_some((hit.trailing_zeros() / 8) as usize)
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
        fn skipping_finds_the_same_end_as_walking(text in "[\\\\\"x]{0,300}|(\\\\\"[a-z]{0,9}){0,60}\\\\{0,70}\"?", escaped: bool) {
            let found = match skip(text.as_bytes(), escaped) {
                Skipped::Closed(after) => Ok(text.len() - after.len()),
                Skipped::Open { escaped } => Err(escaped),
            };
            prop_assert_eq!(found, plainly(text.as_bytes(), escaped));
        }
    }
}
