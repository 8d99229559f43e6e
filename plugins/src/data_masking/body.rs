//! Masking bodies that are there as a whole.
//!
//! Of JSON every string is masked but those that only name things; another text is masked as one. Where something was masked, the
//! probabilities of its tokens go too: they would spell it out.

use std::ops::Range;

use super::mask::Masker;
use crate::json::{self, Kind, Step, Visit};

/// Names of strings that are ids and words of a protocol, which masking would break.
const NAMES: [&str; 14] = [
    "id",
    "object",
    "type",
    "role",
    "model",
    "finish_reason",
    "stop_reason",
    "stop_sequence",
    "tool_call_id",
    "call_id",
    "item_id",
    "response_id",
    "previous_response_id",
    "system_fingerprint",
];

/// Names of strings that carry files: a number found in them is chance.
const FILES: [&str; 5] = ["data", "url", "b64_json", "file_data", "signature"];

/// Values that spell the text out, token by token.
const SPELLED: [&str; 2] = ["logprobs", "prompt_logprobs"];

/// The body with everything masked, or `None` if there is nothing to mask. What is no UTF-8 is no text.
pub(super) fn mask(masker: &Masker, body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let mut strings = Strings {
        text,
        masker,
        edits: Vec::new(),
        spelled: Vec::new(),
    };
    if json::walk(text, &mut strings).is_err() {
        return masker.whole(text);
    }
    if strings.edits.is_empty() {
        return None;
    }
    let mut edits = strings.edits;
    edits.extend(strings.spelled);
    edits.sort_by_key(|(range, _)| range.start);
    Some(json::splice(text, &edits))
}

/// Whether the value at the end of a path spells a text out.
pub(super) fn is_spelled(path: &[Step<'_>]) -> bool {
    matches!(path.last(), Some(Step::Key(key)) if SPELLED.contains(&&**key))
}

/// Whether the string at the end of a path is a text.
pub(super) fn is_text(path: &[Step<'_>], text: &str) -> bool {
    if let [.., Step::Key(of), Step::Key(name)] = path
        && of == "function"
        && name == "name"
    {
        // What a tool is called by; a piece of it held back would be another tool.
        return false;
    }
    match path.last() {
        Some(Step::Key(key)) if NAMES.contains(&&**key) => false,
        Some(Step::Key(key)) if FILES.contains(&&**key) => !is_file(text),
        _ => true,
    }
}

/// Base 64, by itself or in a data URL.
fn is_file(text: &str) -> bool {
    let of_file = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    let content = match text.strip_prefix("data:") {
        Some(rest) => rest.split_once(";base64,").map(|(_, content)| content),
        None => Some(text).filter(|text| text.len() >= 64),
    };
    content.is_some_and(|content| content.bytes().all(of_file))
}

struct Strings<'a> {
    text: &'a str,
    masker: &'a Masker,
    edits: Vec<(Range<usize>, String)>,
    spelled: Vec<(Range<usize>, String)>,
}

impl<'a> Visit<'a> for Strings<'a> {
    fn enter(&mut self, path: &[Step<'a>]) -> bool {
        !is_spelled(path)
    }

    fn leaf(&mut self, path: &[Step<'a>], kind: Kind, range: Range<usize>) {
        if matches!(kind, Kind::Object | Kind::Array) {
            self.spelled.push((range, "null".into()));
            return;
        }
        if kind != Kind::Text {
            return;
        }
        let text = json::decode(self.text.get(range.clone()).unwrap_or_default());
        if is_text(path, &text)
            && let Some(masked) = self.masker.whole(&text)
        {
            self.edits.push((range, json::quote(&masked)));
        }
    }
}
