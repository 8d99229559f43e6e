//! Patterns that users write: regular expressions, compiled when they are read so that a mistake is told at the pattern.
//!
//! They run in linear time whatever they are, their size is bounded, and none may match the empty text, which every text contains.

use tollgate_sdk::document::{FromText, Invalid};
use tollgate_sdk::text_in_document;

/// The most memory one pattern may take once compiled.
const MAX_SIZE: usize = 1 << 20;

/// A regular expression that has been found to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// As written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromText for Pattern {
    const EXPECTED: &'static str = "a regular expression";
    const EXAMPLE: &'static str = r"(?i)\bproject x\b";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let built = regex::RegexBuilder::new(text).size_limit(MAX_SIZE).build();
        match built {
            Ok(regex) if regex.is_match("") => {
                Err(Invalid::new("it matches the empty text, and so every text")
                    .help("make it ask for something: for example `+` in place of `*`"))
            }
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(Invalid::new(reason(&error)).help(remedy(text))),
        }
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

text_in_document!(Pattern);

/// The last line of what the parser says; those before draw the place.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too large once compiled".into(),
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            let last = last.trim_start_matches("error: ");
            format!("not a regular expression: {last}")
        }
    }
}

fn remedy(text: &str) -> &'static str {
    let around = ["(?=", "(?!", "(?<=", "(?<!"];
    if around.iter().any(|part| text.contains(part)) {
        "patterns cannot look around: they must run in linear time; use \\b, or match what surrounds it too"
    } else {
        "the syntax is that of Rust's regex crate, for example (?i)\\bproject x\\b"
    }
}

/// A keyword as a regular expression, in any case; as a whole word where it begins and ends with one.
pub(crate) fn keyword(text: &str) -> String {
    let of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let edge = |of_word: bool| if of_word { r"\b" } else { "" };
    let (first, last) = (
        of_word(text.chars().next()),
        of_word(text.chars().next_back()),
    );
    format!("(?i:{}{}{})", edge(first), regex::escape(text), edge(last))
}
