//! Native names from foreign ones, always the same from the same.

use super::fields::{Notes, quoted};
use crate::model::Name;

/// The native name nearest to a foreign one, with a note on the field it goes to; `None`, refused, if nothing of it is allowed.
pub(super) fn adapt(text: &str, to: &str, path: &str, notes: &mut Notes) -> Option<String> {
    if Name::new(text).is_ok() {
        notes.taken(path, format!("`{to}` = {}", quoted(text)));
        return Some(text.to_owned());
    }
    match Name::from_any(text, "") {
        Some(name) => {
            let message = format!(
                "{} is no name here: `{to}` = {}",
                quoted(text),
                quoted(name.as_str())
            );
            notes.adapted(path, message);
            Some(name.as_str().to_owned())
        }
        None => {
            let message = format!("nothing of {} can be part of a name", quoted(text));
            notes.refused(path, message);
            None
        }
    }
}

/// A name that can be the first label of a host, from any text: `Qwen/Qwen2.5-7B` is `qwen2-5-7b`.
pub(super) fn label(text: &str) -> Option<String> {
    let last = text.rsplit('/').find(|part| !part.is_empty())?;
    let mut name = String::new();
    for c in last.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    name.truncate(41);
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

/// `name` with `-suffix`, within the length of names.
pub(super) fn with_suffix(name: &str, suffix: &str) -> String {
    let kept: String = name.chars().take(62 - suffix.len().min(40)).collect();
    format!("{kept}-{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_alike() {
        for (text, name) in [
            ("Qwen/Qwen2.5-7B", Some("qwen2-5-7b")),
            (
                "NousResearch/Llama-2-7b-chat-hf",
                Some("llama-2-7b-chat-hf"),
            ),
            ("a//", Some("a")),
            ("--__é", None),
            ("", None),
        ] {
            assert_eq!(label(text).as_deref(), name, "{text}");
        }
        let long = with_suffix(&"a".repeat(63), "model");
        assert_eq!(long.len(), 63);
        assert!(Name::new(&long).is_ok());
    }
}
