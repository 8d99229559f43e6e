//! What no diagnostic may show, beyond what the types of fields already say.
//!
//! A secret may stand in a field that was mistyped, or in a file whose syntax is wrong, so that no field is known. Names
//! tell there. A bare reference to the environment shows nothing and stays readable.

use tollgate_sdk::document::{Node, Span, Value, holds_credential};

/// Whether a field of this name may hold a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '_'], "");
    let words = [
        "apikey",
        "token",
        "secret",
        "password",
        "passwd",
        "authorization",
        "credential",
    ];
    words.iter().any(|word| name.contains(word))
}

/// Adds the text of every field with a telling name, and URLs that hold a credential.
pub fn mask_by_name(node: &Node, masked: &mut Vec<Span>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| mask_by_name(item, masked)),
        Value::Table(entries) => {
            for (key, value) in entries {
                match value.value {
                    Value::String(_) if is_secret_name(&key.text) => masked.push(value.span),
                    _ => mask_by_name(value, masked),
                }
            }
        }
        Value::String(text) if holds_credential(text) => masked.push(node.span),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
}

/// The same for a text that is no tree: the rest of every line after a telling name and `=` or `:`.
pub fn mask_lines(text: &str, masked: &mut Vec<Span>) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let telling = line.match_indices(['=', ':']).find(|(at, _)| {
            let before = line.get(..*at).unwrap_or_default();
            is_secret_name(before)
        });
        if let Some((at, _)) = telling {
            let rest = line.get(at + 1..).unwrap_or_default();
            let spaces = rest.len() - rest.trim_start().len();
            masked.push(Span::new(
                start + at + 1 + spaces,
                start + line.trim_end().len(),
            ));
        }
        start += line.len();
    }
    // A credential in a URL.
    for (at, _) in text.match_indices("://") {
        let rest = text.get(at + 3..).unwrap_or_default();
        let host = rest.find(|c: char| c == '/' || c == '"' || c == '\'' || c.is_whitespace());
        let host = rest.get(..host.unwrap_or(rest.len())).unwrap_or_default();
        if let Some(end) = host.rfind('@') {
            masked.push(Span::new(at + 3, at + 3 + end));
        }
    }
}

/// Takes out what is one bare reference, `"${NAME}"`.
pub fn keep_references(text: &str, masked: &mut Vec<Span>) {
    masked.retain(|span| {
        let typed = text.get(span.start..span.end).unwrap_or_default();
        let inner = typed
            .trim_matches(['"', '\''])
            .strip_prefix("${")
            .and_then(|t| t.strip_suffix('}'));
        !inner.is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
    });
}
