//! What every match of a regular expression begins with, as far as that is sure.
//!
//! It owns the reading of a pattern's syntax tree from its front: what stands there by itself, in either case, is a beginning that can be
//! looked for without the pattern's automaton. It says too little rather than too much.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Letters beyond ASCII of which one case is a letter of ASCII: the Kelvin sign and the long s (Unicode's CaseFolding.txt).
pub(super) const FOLDED: [char; 2] = ['\u{212A}', '\u{17F}'];

/// What every match begins with in a text that has none of [`FOLDED`], but for the case of ASCII's letters.
pub(super) fn prefix(pattern: &str) -> Vec<u8> {
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
            let all = class.iter().flat_map(|range| range.start()..=range.end());
            let mut letters = all.filter(|letter| !FOLDED.contains(letter));
            let Some(first) = letters.next().filter(char::is_ascii) else {
                return false;
            };
            let one = letters.all(|other| first.eq_ignore_ascii_case(&other));
            begun.extend(one.then_some(first as u8));
            one
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_begin_with_what_they_must() {
        for (pattern, begun) in [
            (r"(?i)\bproject (x|y)", "project "),
            (r"(?i)\bkeys\b", "keys"),
            (r"a(bc)+d", "abc"),
            (r"ab?c", "a"),
            (r"(ab|ac)d", ""),
            (r"[ab]c", ""),
            (r"[aé]c", ""),
            (r"[@`]c", ""),
            (r"(?i)é", ""),
            (r"a[b]\d", "ab"),
            (r"ab{0,3}", "a"),
            (r"[a-z]+x", ""),
            (r"\w", ""),
            (r"^über", "über"),
        ] {
            let found = String::from_utf8(prefix(pattern)).unwrap();
            assert_eq!(found.to_ascii_lowercase(), begun, "{pattern}");
        }
    }
}
