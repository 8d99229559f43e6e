//! A first look at a text, which tells most texts that have none of many keywords from those that may.
//!
//! Every keyword's first letters are a window, as long for all as the shortest keyword, at most [`MAX_WINDOW`]. The text is looked at three
//! bytes at a time, and where those stand in no window, or only towards its beginning, as much is skipped as no window can end
//! in. It errs on one side only: what it clears has no keyword. Letter case makes no difference.
//!
//! Source: S. Wu and U. Manber, "A fast algorithm for multi-pattern searching", University of Arizona, TR-94-17 (1994), its shift table.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Bytes that are looked at together.
const BLOCK: usize = 3;
/// The longest window: a longer one is skipped faster, but tells no more.
const MAX_WINDOW: usize = 12;
/// Five bits of each byte of a block: letters keep apart, their case falls away, and the table fits the processor's nearest cache.
const BLOCKS: usize = 1 << 15;
/// Bits for the windows that there are.
const WINDOWS: usize = 1 << 16;

/// What is known of the keywords' beginnings.
#[derive(Debug)]
pub(super) struct Skim {
    window: usize,
    /// How far a window's end is from a block, at least.
    shifts: Vec<u8>,
    /// Which windows there are, by hash.
    known: Vec<bool>,
}

impl Skim {
    /// `None` if a keyword is shorter than a block.
    pub(super) fn new(keywords: &[impl AsRef<[u8]>]) -> Option<Self> {
        let least = { keywords.iter() }
            .map(|keyword| keyword.as_ref().len())
            .min()?;
        let window = least.min(MAX_WINDOW);
        let most = u8::try_from(window.checked_sub(BLOCK)? + 1).ok()?;
        let mut skim = Self {
            window,
            shifts: vec![most; BLOCKS],
            known: vec![false; WINDOWS],
        };
        for keyword in keywords {
            let letters = keyword.as_ref().get(..window)?;
            for (distance, block) in (0_u8..).zip(letters.windows(BLOCK).rev()) {
                let shift = block
                    .first_chunk()
                    .and_then(|block| skim.shifts.get_mut(place(block)));
                if let Some(shift) = shift {
                    *shift = distance.min(*shift);
                }
            }
            if let Some(known) = skim.known.get_mut(hash(letters)) {
                *known = true;
            }
        }
        Some(skim)
    }

    /// Whether the text may have a keyword.
    pub(super) fn may_find(&self, text: &[u8]) -> bool {
        let ahead = self.window - BLOCK;
        let mut rest = text;
        while let Some(block) = rest.get(ahead..).and_then(<[u8]>::first_chunk) {
            let shift = self.shifts.get(place(block)).copied().unwrap_or_default();
            if shift == 0 {
                let window = rest.get(..self.window).unwrap_or_default();
                if self.known.get(hash(window)) != Some(&false) {
                    return true;
                }
            }
            rest = rest.get(usize::from(shift.max(1))..).unwrap_or_default();
        }
        false
    }
}

/// What every ASCII text that matches a pattern has at the match's beginning, but for the case of its letters.
pub(super) fn beginning(pattern: &str) -> Vec<u8> {
    let mut begun = Vec::new();
    if let Ok(parsed) = regex_syntax::parse(pattern) {
        begin(&parsed, &mut begun);
    }
    begun
}

/// Adds what the pattern begins with; whether that is all of it.
fn begin(pattern: &Hir, begun: &mut Vec<u8>) -> bool {
    match pattern.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => {
            begun.extend_from_slice(&literal.0);
            true
        }
        HirKind::Class(Class::Unicode(class)) => {
            let ascii = class.iter().flat_map(|range| range.start()..=range.end());
            let mut letters = ascii.take_while(char::is_ascii).map(|c| c as u8);
            let first = letters.next();
            let one = first.filter(|first| letters.all(|other| fold(other) == fold(*first)));
            begun.extend(one);
            one.is_some()
        }
        HirKind::Capture(capture) => begin(&capture.sub, begun),
        HirKind::Repetition(repetition) if repetition.min > 0 => {
            begin(&repetition.sub, begun);
            false
        }
        HirKind::Concat(parts) => parts.iter().all(|part| begin(part, begun)),
        HirKind::Class(Class::Bytes(_)) | HirKind::Repetition(_) | HirKind::Alternation(_) => false,
    }
}

/// A byte without the bit in which small and capital letters differ.
fn fold(byte: u8) -> u8 {
    byte | 0x20
}

fn place(block: &[u8; BLOCK]) -> usize {
    let [a, b, c] = block.map(|byte| usize::from(byte & 0x1F));
    a << 10 | b << 5 | c
}

fn hash(window: &[u8]) -> usize {
    let folded = window.iter().fold(0_u32, |hash, byte| {
        hash.wrapping_mul(0x9E37_79B1) ^ u32::from(fold(*byte))
    });
    (folded.wrapping_mul(0x85EB_CA6B) >> 16) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skim(keywords: &[&str]) -> Option<Skim> {
        let keywords: Vec<_> = keywords.iter().map(|text| (*text).to_owned()).collect();
        Skim::new(&keywords)
    }

    #[test]
    fn a_keyword_is_never_overlooked() {
        let keywords = [
            "abc",
            "abcab",
            "straße",
            "c++x",
            "aaaa",
            "zzzzzzzzzzzzzzzzzzzz",
        ];
        for chosen in 1..=keywords.len() {
            let chosen = &keywords[keywords.len() - chosen..];
            let skim = skim(chosen).unwrap();
            for keyword in chosen {
                for (before, after) in (0..20).flat_map(|n| [(n, 0), (n, 5)]) {
                    let text = format!("{}{keyword}{}", "a".repeat(before), "b".repeat(after));
                    assert!(skim.may_find(text.as_bytes()), "{text}");
                    let text = format!("{}{}", "cab ".repeat(before), keyword.to_ascii_uppercase());
                    assert!(skim.may_find(text.as_bytes()), "{text}");
                }
            }
        }
    }

    #[test]
    fn clean_texts_are_cleared() {
        let skim = skim(&["forbidden", "secrets"]).unwrap();
        for text in [
            "",
            "se",
            "secret",
            "a long and harmless text about forbearance",
            "forbid",
        ] {
            assert!(!skim.may_find(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn patterns_begin_with_what_they_must() {
        for (pattern, begun) in [
            (r"(?i)\bproject (x|y)", "project "),
            (r"a(bc)+d", "abc"),
            (r"ab?c", "a"),
            (r"(ab|ac)d", ""),
            (r"[ab]c", ""),
            (r"a[b]\d", "ab"),
            (r"ab{0,3}", "a"),
            (r"[a-z]+x", ""),
            (r"\w", ""),
        ] {
            let found = String::from_utf8(beginning(pattern)).unwrap();
            assert_eq!(found.to_ascii_lowercase(), begun, "{pattern}");
        }
    }

    #[test]
    fn short_keywords_are_not_for_it() {
        assert!(skim(&["ab", "abcdef"]).is_none());
        assert!(skim(&["abc"]).is_some());
    }
}
