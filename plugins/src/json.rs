//! JSON bodies as text with places: what plugins need to read parts of a body and to replace just those.
//!
//! It owns a scanner over a whole body that builds no tree: it hands out ranges, so that everything that is not replaced stays
//! byte for byte (numbers, key order, white space). It checks the structure, not every letter: whoever gets the body next
//! parses it in full. Depth is bounded, and nothing here panics on any input.
//!
//! Source of the grammar: RFC 8259.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr2};

/// The deepest nesting that is followed.
const MAX_DEPTH: usize = 127;

/// The text is not JSON, as far as was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// The offset of the byte that cannot stand there.
    pub(crate) at: usize,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Object,
    Array,
    Number,
    /// `true`, `false`, `null`.
    Word,
}

/// One member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    /// Its name, escapes resolved.
    pub(crate) key: Cow<'a, str>,
    /// Where its name stands, quotes included.
    pub(crate) name: Range<usize>,
    /// Where its value stands.
    pub(crate) value: Range<usize>,
}

/// A step from a value to one inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Key(Cow<'a, str>),
    Index(usize),
}

/// What a walk finds.
pub(crate) trait Visit<'a> {
    /// An object or array begins at the end of `path`; whether to look into it. If not, [`Visit::leaf`] gets it whole.
    fn enter(&mut self, _path: &[Step<'a>]) -> bool {
        true
    }

    /// A value at the end of `path` that is not looked into.
    fn leaf(&mut self, path: &[Step<'a>], kind: Kind, range: Range<usize>);
}

/// The type of the value at `range`, told by its first byte.
pub(crate) fn kind(text: &str, range: &Range<usize>) -> Kind {
    match text.as_bytes().get(range.start) {
        Some(b'"') => Kind::Text,
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b't' | b'f' | b'n') => Kind::Word,
        _ => Kind::Number,
    }
}

/// Where the one value of a text stands.
pub(crate) fn document(text: &str) -> Result<Range<usize>, Malformed> {
    let mut cursor = Cursor { text, at: 0 };
    let range = cursor.skip(0)?;
    cursor.space();
    match cursor.at == text.len() {
        true => Ok(range),
        false => Err(Malformed { at: cursor.at }),
    }
}

/// The members of the object that begins at `start`.
pub(crate) fn members(text: &str, start: usize) -> Result<Vec<Member<'_>>, Malformed> {
    let mut cursor = Cursor { text, at: start };
    let mut members = Vec::new();
    cursor.expect(b'{')?;
    let mut more = !cursor.closes(b'}');
    while more {
        let name = cursor.name()?;
        let value = cursor.skip(1)?;
        members.push(Member {
            key: decode(text.get(name.clone()).unwrap_or_default()),
            name,
            value,
        });
        more = cursor.more(b'}')?;
    }
    Ok(members)
}

/// The elements of the array that begins at `start`.
pub(crate) fn elements(text: &str, start: usize) -> Result<Vec<Range<usize>>, Malformed> {
    let mut cursor = Cursor { text, at: start };
    let mut elements = Vec::new();
    cursor.expect(b'[')?;
    let mut more = !cursor.closes(b']');
    while more {
        elements.push(cursor.skip(1)?);
        more = cursor.more(b']')?;
    }
    Ok(elements)
}

/// Walks over every value of a text, in order.
pub(crate) fn walk<'a>(text: &'a str, visit: &mut impl Visit<'a>) -> Result<(), Malformed> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.walk(&mut Vec::new(), visit)?;
    cursor.space();
    match cursor.at == text.len() {
        true => Ok(()),
        false => Err(Malformed { at: cursor.at }),
    }
}

/// Replaces ranges, which must be in order and apart; the rest stays.
pub(crate) fn splice(text: &str, edits: &[(Range<usize>, String)]) -> String {
    let more: usize = edits.iter().map(|(_, with)| with.len()).sum();
    let mut out = String::with_capacity(text.len() + more);
    let mut from = 0;
    for (range, with) in edits {
        out.push_str(text.get(from..range.start).unwrap_or_default());
        out.push_str(with);
        from = range.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// `text` as a JSON string, quotes included.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What a string says, given with its quotes. Copied only if it has escapes; what is no escape, or half of a pair, becomes U+FFFD,
/// so that nothing hides behind a parser's refusal.
pub(crate) fn decode(token: &str) -> Cow<'_, str> {
    let inner = token.strip_prefix('"').unwrap_or(token);
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    let Some((plain, mut rest)) = at_slash(inner) else {
        return Cow::Borrowed(inner);
    };
    let mut out = String::with_capacity(inner.len());
    out.push_str(plain);
    loop {
        let mut chars = rest.chars();
        let escape = chars.next();
        rest = chars.as_str();
        out.push(match escape {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('u') => unicode(&mut rest),
            _ => char::REPLACEMENT_CHARACTER,
        });
        let Some((plain, after)) = at_slash(rest) else {
            out.push_str(rest);
            return Cow::Owned(out);
        };
        out.push_str(plain);
        rest = after;
    }
}

/// What stands before the first backslash, and after it.
fn at_slash(text: &str) -> Option<(&str, &str)> {
    let at = memchr(b'\\', text.as_bytes())?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// The character after `\u`, of which `rest` is cut.
fn unicode(rest: &mut &str) -> char {
    let unit = |text: &str| {
        let digits = text.get(..4)?;
        let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| hex)
    };
    let Some(first) = unit(rest) else {
        return char::REPLACEMENT_CHARACTER;
    };
    *rest = rest.get(4..).unwrap_or_default();
    if let 0xD800..=0xDBFF = first {
        let low = rest.strip_prefix("\\u").and_then(unit);
        let Some(low @ 0xDC00..=0xDFFF) = low else {
            return char::REPLACEMENT_CHARACTER;
        };
        *rest = rest.get(6..).unwrap_or_default();
        let code = 0x1_0000 + ((first - 0xD800) << 10) + (low - 0xDC00);
        return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    }
    char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }

    fn malformed<T>(&self) -> Result<T, Malformed> {
        Err(Malformed { at: self.at })
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        self.space();
        if self.byte() != Some(byte) {
            return self.malformed();
        }
        self.at += 1;
        Ok(())
    }

    /// Whether the container that was just opened is empty; if so it is left behind.
    fn closes(&mut self, end: u8) -> bool {
        self.space();
        let closes = self.byte() == Some(end);
        self.at += usize::from(closes);
        closes
    }

    /// Whether another element follows; if not the container is left behind.
    fn more(&mut self, end: u8) -> Result<bool, Malformed> {
        self.space();
        match self.byte() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            _ => self.malformed(),
        }
    }

    /// A member's name and its colon.
    fn name(&mut self) -> Result<Range<usize>, Malformed> {
        self.space();
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name)
    }

    fn string(&mut self) -> Result<Range<usize>, Malformed> {
        let start = self.at;
        self.expect(b'"')?;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            let Some(found) = memchr2(b'"', b'\\', rest) else {
                self.at = self.text.len();
                return self.malformed();
            };
            self.at += found + 1;
            if rest.get(found) == Some(&b'"') {
                return Ok(start..self.at);
            }
            // What is escaped may be the quote; of a longer character the rest is no quote either.
            self.at += 1;
        }
    }

    /// A number or a word.
    fn scalar(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        let of_scalar =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        while self.byte().is_some_and(of_scalar) {
            self.at += 1;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        // What Rust calls a number can also be "-inf".
        let digits = text.strip_prefix('-').unwrap_or(text);
        let number = digits.starts_with(|c: char| c.is_ascii_digit());
        let word = matches!(text, "true" | "false" | "null");
        match word || (number && text.parse::<f64>().is_ok()) {
            true => Ok(()),
            false => Err(Malformed { at: start }),
        }
    }

    /// Passes over a value.
    fn skip(&mut self, depth: usize) -> Result<Range<usize>, Malformed> {
        struct Nothing;
        impl<'a> Visit<'a> for Nothing {
            fn leaf(&mut self, _: &[Step<'a>], _: Kind, _: Range<usize>) {}
        }
        self.space();
        let start = self.at;
        self.value(depth, &mut Vec::new(), &mut Nothing, false)?;
        Ok(start..self.at)
    }

    fn walk(
        &mut self,
        path: &mut Vec<Step<'a>>,
        visit: &mut impl Visit<'a>,
    ) -> Result<(), Malformed> {
        self.value(0, path, visit, true)
    }

    /// Passes over a value and, if `told`, tells of everything inside.
    fn value(
        &mut self,
        depth: usize,
        path: &mut Vec<Step<'a>>,
        visit: &mut impl Visit<'a>,
        told: bool,
    ) -> Result<(), Malformed> {
        self.space();
        if depth > MAX_DEPTH {
            return self.malformed();
        }
        let start = self.at;
        let kind = match self.byte() {
            Some(b'"') => Kind::Text,
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b't' | b'f' | b'n') => Kind::Word,
            Some(_) => Kind::Number,
            None => return self.malformed(),
        };
        let mut inside = false;
        match kind {
            Kind::Text => {
                self.string()?;
            }
            Kind::Number | Kind::Word => self.scalar()?,
            Kind::Object => {
                inside = told && visit.enter(path);
                self.at += 1;
                let mut more = !self.closes(b'}');
                while more {
                    let name = self.name()?;
                    if inside {
                        path.push(Step::Key(decode(self.text.get(name).unwrap_or_default())));
                    }
                    self.value(depth + 1, path, visit, inside)?;
                    if inside {
                        path.pop();
                    }
                    more = self.more(b'}')?;
                }
            }
            Kind::Array => {
                inside = told && visit.enter(path);
                self.at += 1;
                let mut more = !self.closes(b']');
                let mut index = 0;
                while more {
                    if inside {
                        path.push(Step::Index(index));
                    }
                    self.value(depth + 1, path, visit, inside)?;
                    if inside {
                        path.pop();
                    }
                    index += 1;
                    more = self.more(b']')?;
                }
            }
        }
        if told && !inside {
            visit.leaf(path, kind, start..self.at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_decoded_as_a_parser_would() {
        let tokens = [
            r#""plain ä€😀""#,
            r#""a\n\t\r\b\f\"\\\/""#,
            r#""\u0041\u00e4\ud83d\ude00z""#,
            r#""""#,
        ];
        for token in tokens {
            let parsed: String = serde_json::from_str(token).unwrap();
            assert_eq!(decode(token), parsed);
        }
        assert_eq!(decode(r#""a\ud83dz\ude00""#), "a\u{FFFD}z\u{FFFD}");
        assert_eq!(decode(r#""\ud83d\u0041""#), "\u{FFFD}A");
        assert_eq!(decode(r#""\u00""#), "\u{FFFD}00");
        assert_eq!(decode(r#""\u+041""#), "\u{FFFD}+041");
    }

    #[test]
    fn ranges_hold_what_they_say() {
        let text = r#" {"a" : [1, {"b":null} ,"x\"]"], "c\u0064": -1.50e3 } "#;
        let object = document(text).unwrap();
        let members = members(text, object.start).unwrap();
        assert_eq!(members[1].key, "cd");
        assert_eq!(&text[members[1].value.clone()], "-1.50e3");
        let inside = elements(text, members[0].value.start).unwrap();
        let inside: Vec<_> = inside.into_iter().map(|range| &text[range]).collect();
        assert_eq!(inside, ["1", r#"{"b":null}"#, r#""x\"]""#]);
    }

    #[test]
    fn what_is_not_json_is_refused_where_it_ends_to_be() {
        for (text, at) in [
            ("", 0),
            ("{", 1),
            ("{}x", 2),
            (r#"{"a"}"#, 4),
            (r#"{"a":1,}"#, 7),
            ("[1 2]", 3),
            ("[tru]", 1),
            ("[1-]", 1),
            ("[nan]", 1),
            ("[-inf]", 1),
            (r#"["a"#, 3),
            (r#"["\"#, 3),
            (r#""a\"#, 3),
        ] {
            assert_eq!(document(text), Err(Malformed { at }), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(document(&deep).is_err());
        let fits = format!("{}{}", "[".repeat(127), "]".repeat(127));
        assert!(document(&fits).is_ok());
    }

    #[test]
    fn splicing_changes_the_ranges_and_nothing_else() {
        let edits = [(1..2, "X".to_owned()), (3..3, "Y".to_owned())];
        assert_eq!(splice("abcd", &edits), "aXcYd");
        assert_eq!(splice("abcd", &[]), "abcd");
    }
}
