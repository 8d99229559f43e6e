//! Which models are meant: a name, or all names that begin alike.
//!
//! It owns how a pattern is written in documents and what it stands for. Names are compared byte for byte, as engines compare them.

use std::fmt;

use crate::document::{At, FromKey, FromText, Invalid, Key, Reading};
use crate::text_in_document;

/// One model, or all whose names begin alike. Written as the name, or as the beginning with a `*` at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModelPattern {
    /// One name.
    Exact(String),
    /// Every name that begins so.
    Prefix(String),
}

impl ModelPattern {
    /// Whether it stands for this name.
    pub fn matches(&self, model: &str) -> bool {
        match self {
            Self::Exact(name) => name == model,
            Self::Prefix(prefix) => model.starts_with(prefix.as_str()),
        }
    }
}

impl FromText for ModelPattern {
    const EXPECTED: &'static str = "a model's name";
    const EXAMPLE: &'static str = "Qwen/Qwen3-8B";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let (name, any_rest) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        if text.is_empty() {
            return Err(Invalid::new("a model's name may not be empty")
                .help("write the name, or \"*\" for every model"));
        }
        if name.contains('*') {
            return Err(Invalid::new("`*` may only stand at the end")
                .help("write \"Qwen/*\", or one pattern for each beginning"));
        }
        if name.chars().any(char::is_control) {
            return Err(Invalid::new(
                "control characters are not allowed in a model's name",
            ));
        }
        Ok(match any_rest {
            true => Self::Prefix(name.into()),
            false => Self::Exact(name.into()),
        })
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

text_in_document!(ModelPattern);

impl FromKey for ModelPattern {
    fn read_key(key: &Key, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        match Self::from_text(&key.text) {
            Ok(pattern) => Some(pattern),
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
        "gpt-4o*"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_printed_as_they_are_typed() {
        for model in ["*", "Qwen/*", "gpt 4", "Qwen/Qwen3-8B"] {
            let read = ModelPattern::from_text(model).map(|pattern| pattern.to_text());
            assert_eq!(read.as_deref(), Ok(model));
        }
        for model in ["", "a*b", "**", "a\nb"] {
            assert!(ModelPattern::from_text(model).is_err(), "{model}");
        }
    }

    #[test]
    fn names_are_compared_byte_for_byte() {
        let matches = |pattern, model| ModelPattern::from_text(pattern).unwrap().matches(model);
        assert!(matches("Qwen/*", "Qwen/") && matches("*", "") && matches("a", "a"));
        assert!(!matches("Qwen/*", "qwen/x") && !matches("a", "a-mini") && !matches("a", "b/a"));
    }
}
