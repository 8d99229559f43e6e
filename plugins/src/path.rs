//! Dotted paths into JSON: `a.b`, `messages.0.role`, `messages.*.name`.
//!
//! A number is the place in an array or a key of that name, `*` is every element or member. A dot that belongs to a key is written `\.`.
//! Paths are read once; finding values by them builds no tree.

use std::ops::Range;

use tollgate_sdk::document::{At, FromKey, FromText, Invalid, Key, Reading};
use tollgate_sdk::text_in_document;

use crate::json::{self, Kind, Malformed};

/// A path; it has at least one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DottedPath {
    parts: Vec<String>,
}

impl DottedPath {
    /// Of these parts, if there are any.
    pub(crate) fn new(parts: Vec<String>) -> Option<Self> {
        Some(Self { parts }).filter(|path| !path.parts.is_empty())
    }

    /// Its parts, from the outside in.
    pub(crate) fn parts(&self) -> &[String] {
        &self.parts
    }

    /// Where its values stand in the value at `from`: several if keys repeat or `*` is in it, none if it leads nowhere.
    pub(crate) fn find(
        &self,
        text: &str,
        from: Range<usize>,
    ) -> Result<Vec<Range<usize>>, Malformed> {
        let mut found = vec![from];
        for part in &self.parts {
            let mut inside = Vec::new();
            for value in found {
                step(text, value, part, &mut inside)?;
            }
            found = inside;
        }
        Ok(found)
    }
}

/// The values one part further on.
pub(crate) fn step(
    text: &str,
    from: Range<usize>,
    part: &str,
    found: &mut Vec<Range<usize>>,
) -> Result<(), Malformed> {
    match json::kind(text, &from) {
        Kind::Object => {
            let members = json::members(text, from.start)?.into_iter();
            let meant = members.filter(|member| part == "*" || member.key == part);
            found.extend(meant.map(|member| member.value));
        }
        Kind::Array => {
            let elements = json::elements(text, from.start)?;
            match part.parse::<usize>() {
                _ if part == "*" => found.extend(elements),
                Ok(index) => found.extend(elements.into_iter().nth(index)),
                Err(_) => {}
            }
        }
        Kind::Text | Kind::Number | Kind::Word => {}
    }
    Ok(())
}

impl FromText for DottedPath {
    const EXPECTED: &'static str = "a path to a field";
    const EXAMPLE: &'static str = "messages.0.role";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let mut parts = vec![String::new()];
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match (char, parts.last_mut()) {
                ('.', _) => parts.push(String::new()),
                ('\\', Some(part)) => part.extend(chars.next()),
                (char, Some(part)) => part.push(char),
                (_, None) => {}
            }
        }
        if parts.iter().any(String::is_empty) {
            return Err(Invalid::new("a part of the path is empty")
                .help("write names with one dot between: \"metadata.user\""));
        }
        Ok(Self { parts })
    }

    fn to_text(&self) -> String {
        let part = |part: &String| part.replace('\\', "\\\\").replace('.', "\\.");
        let parts: Vec<_> = self.parts.iter().map(part).collect();
        parts.join(".")
    }
}

impl FromKey for DottedPath {
    fn read_key(key: &Key, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        match Self::from_text(&key.text) {
            Ok(path) => Some(path),
            Err(invalid) => {
                r.error(key.span, at, invalid.message, invalid.help);
                None
            }
        }
    }

    fn key(&self) -> String {
        self.to_text()
    }

    fn example_key() -> &'static str {
        "metadata.user"
    }
}

text_in_document!(DottedPath);

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let path = DottedPath::from_text(path).unwrap();
        let places = path.find(text, json::document(text).unwrap()).unwrap();
        let value = |place: Range<usize>| text[place].to_owned();
        places.into_iter().map(value).collect()
    }

    #[test]
    fn paths_lead_to_values() {
        let text = r#"{"a":{"b.c":1,"0":2},"m":[{"r":"x"},{"r":"y"},3],"a":{"b.c":4}}"#;
        assert_eq!(found(r"a.b\.c", text), ["1", "4"]);
        assert_eq!(found("a.0", text), ["2"]);
        assert_eq!(found("m.1.r", text), [r#""y""#]);
        assert_eq!(found("m.*.r", text), [r#""x""#, r#""y""#]);
        assert!(found("m.r", text).is_empty());
        assert!(found("m.2.r.s", text).is_empty());
    }

    #[test]
    fn paths_are_written_as_they_are_read() {
        for text in ["a", "a.b", r"a\.b.c", r"a\\.b", "m.*.0"] {
            assert_eq!(DottedPath::from_text(text).unwrap().to_text(), text);
        }
        for text in ["", ".a", "a..b", "a."] {
            assert!(DottedPath::from_text(text).is_err(), "{text}");
        }
    }
}
