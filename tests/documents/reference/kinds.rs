//! What a value may be, in words, from its JSON Schema.

use tollgate_sdk::document::Json;

/// Beginnings of patterns, and what a text that matches is called.
const TEXTS: [(&str, &str); 9] = [
    ("^[0-9]+(ms|s|m|h|d)$", "duration"),
    ("^[0-9]+(B|", "size"),
    ("^[a-z0-9](", "name"),
    ("^[hH][tT][tT][pP]", "URL"),
    ("^(https?://", "URL"),
    ("^[A-Za-z]+$", "method"),
    ("^(sha256:)?", "SHA-256 in hexadecimal"),
    ("^[!#$", "header name"),
    ("^/", "path"),
];

/// What may be given: `whole number from 0 to 1000`, `list of names`.
pub(super) fn kind_of(schema: &Json) -> String {
    let mut kinds = Vec::new();
    collect(schema, false, &mut kinds);
    joined(&kinds)
}

/// The words a field takes, each with what it means.
pub(super) fn words_of(schema: &Json) -> Vec<(String, String)> {
    let forms = schema["anyOf"].as_array().into_iter().flatten();
    let mut words = Vec::new();
    for form in forms {
        match (form["const"].as_str(), form["description"].as_str()) {
            (Some(word), Some(means)) => words.push((word.to_owned(), means.to_owned())),
            _ if form["anyOf"].is_array() => words.extend(words_of(form)),
            _ => {}
        }
    }
    words
}

fn joined(kinds: &[String]) -> String {
    match kinds {
        [] => "any value".into(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn collect(schema: &Json, many: bool, kinds: &mut Vec<String>) {
    let mut add = |kind: String| {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    };
    if let Some(forms) = schema["anyOf"].as_array() {
        for form in forms.iter().filter(|form| !is_reference(form)) {
            collect(form, many, kinds);
        }
    } else if let Some(word) = schema.get("const") {
        add(format!("`{word}`"));
    } else if let Some(words) = schema["enum"].as_array() {
        words.iter().for_each(|word| add(format!("`{word}`")));
    } else {
        match schema["type"].as_str() {
            Some("array") => add(format!("list of {}", listed(&schema["items"]))),
            // A secret may stand in a file.
            Some("object") if schema["properties"]["file"].is_object() => {
                add(r#"`{ file = "…" }`"#.into());
            }
            Some("object") => match &schema["additionalProperties"] {
                values @ Json::Object(_) => add(format!("table of {}", listed(values))),
                _ => add(plural("table", many)),
            },
            Some("string") => add(plural(text(schema), many)),
            Some("boolean") => add(plural("boolean", many)),
            Some("integer") => add(plural("whole number", many) + &range(schema)),
            Some("number") => add(plural("number", many) + &range(schema)),
            _ => {}
        }
    }
}

fn listed(schema: &Json) -> String {
    let mut kinds = Vec::new();
    collect(schema, true, &mut kinds);
    match kinds.as_slice() {
        [] => "any values".into(),
        kinds => joined(kinds),
    }
}

/// Whether it only says that a value may come from the environment, which every value may.
fn is_reference(schema: &Json) -> bool {
    let pattern = schema["pattern"].as_str();
    pattern.is_some_and(|pattern| pattern == r"\$\{" || pattern == r"^\$\{[^}]*\}$")
}

fn text(schema: &Json) -> &'static str {
    let pattern = schema["pattern"].as_str().unwrap_or_default();
    let known = TEXTS.iter().find(|(begin, _)| pattern.starts_with(begin));
    match known {
        Some((_, name)) => name,
        None if schema["format"] == "regex" => "regular expression",
        None => "text",
    }
}

fn plural(kind: &str, many: bool) -> String {
    match many {
        true => format!("{kind}s"),
        false => kind.to_owned(),
    }
}

fn range(schema: &Json) -> String {
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) if *min != 0 => format!(" from {min}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use tollgate_sdk::document::json;

    use super::*;

    #[test]
    fn kinds_are_told_in_words() {
        let reference = json!({"type": "string", "pattern": r"^\$\{[^}]*\}$"});
        let number = json!({"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, reference]});
        assert_eq!(kind_of(&number), "whole number from 0 to 9");
        let list =
            json!({"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}});
        assert_eq!(kind_of(&list), "list of texts or tables");
        let word = json!({"anyOf": [{"const": "a", "description": "First."}, {"type": "boolean"}]});
        assert_eq!(kind_of(&word), "`\"a\"` or boolean");
        assert_eq!(words_of(&word), [("a".to_owned(), "First.".to_owned())]);
        assert_eq!(kind_of(&json!({})), "any value");
    }
}
