//! The texts of a request that the model reads.
//!
//! Every string below the fields that hold prompts counts, in whatever shape they are written (text, parts, tool calls, nested lists), but for
//! what only names or carries something else: roles, types, ids, images.

use std::borrow::Cow;
use std::ops::Range;

use crate::json::{self, Kind, Step, Visit};

/// Fields at the top that hold prompts.
pub(super) const PROMPTS: [&str; 6] = [
    "messages",
    "prompt",
    "input",
    "inputs",
    "system",
    "instructions",
];

/// Names of strings that are no text.
pub(super) const NO_TEXT: [&str; 9] = [
    "role",
    "type",
    "id",
    "tool_call_id",
    "call_id",
    "url",
    "data",
    "file_data",
    "media_type",
];

/// Whether `each` holds for every text of a request's body. It is asked in order and no further than the first that it does not hold for.
pub(super) fn all(body: &[u8], each: impl FnMut(&str) -> bool) -> bool {
    // Where it is well formed, which it nearly always is, to check that is ten times as fast as to mend it.
    let text = match std::str::from_utf8(body) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(body),
    };
    let mut texts = Texts {
        text: &text,
        each,
        clean: true,
    };
    let whole = json::walk(&text, &mut texts);
    // What is not JSON, or only begins like it, is one text: nothing hides behind a missing brace.
    texts.clean && (whole.is_ok() || (texts.each)(&text))
}

struct Texts<'a, F> {
    text: &'a str,
    each: F,
    clean: bool,
}

impl<'a, F: FnMut(&str) -> bool> Visit<'a> for Texts<'a, F> {
    fn enter(&mut self, path: &[Step<'a>]) -> bool {
        self.clean && (path.is_empty() || is_prompt(path))
    }

    fn leaf(&mut self, path: &[Step<'a>], kind: Kind, range: Range<usize>) {
        if !self.clean || kind != Kind::Text || !is_prompt(path) || names(path) {
            return;
        }
        let text: Cow<'_, str> = json::decode(self.text.get(range).unwrap_or_default());
        self.clean = (self.each)(&text);
    }
}

fn is_prompt(path: &[Step<'_>]) -> bool {
    // An array at the top is no known request, but a batch of them is not unheard of.
    let field = path.iter().find_map(|step| match step {
        Step::Key(key) => Some(key),
        Step::Index(_) => None,
    });
    field.is_none_or(|field| PROMPTS.contains(&&**field))
}

/// Whether the string at the end only names or carries something.
fn names(path: &[Step<'_>]) -> bool {
    matches!(path.last(), Some(Step::Key(key)) if NO_TEXT.contains(&&**key))
}
