//! JSON as YAML that can be given back to `tollgate apply`.
//!
//! Texts are plain only where no reader of YAML can take them for anything else. A `${` is written `$${`, since `apply` would fill it in.

use serde_json::{Map, Value};

/// The fields that a document begins with.
const FIRST: [&str; 2] = ["kind", "name"];

/// A document of its own, with a line end.
pub(super) fn document(fields: &Map<String, Value>) -> String {
    let first = FIRST.iter().filter_map(|name| fields.get_key_value(*name));
    let rest = fields
        .iter()
        .filter(|(name, _)| !FIRST.contains(&name.as_str()));
    let mut text = String::new();
    table(first.chain(rest), 0, &mut text);
    match text.is_empty() {
        true => "{}\n".to_owned(),
        false => text,
    }
}

fn table<'v>(
    fields: impl Iterator<Item = (&'v String, &'v Value)>,
    depth: usize,
    text: &mut String,
) {
    for (index, (name, value)) in fields.enumerate() {
        if index > 0 || !text.ends_with("- ") {
            *text += &"  ".repeat(depth);
        }
        *text += &scalar(name, name);
        text.push(':');
        below(value, depth, text);
    }
}

/// What stands after a key: on the same line, or as a block under it.
fn below(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            table(fields.iter(), depth + 1, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            for item in items {
                *text += &"  ".repeat(depth);
                element(item, depth, text);
            }
        }
        value => {
            *text += &format!(" {}\n", flat(value));
        }
    }
}

fn element(item: &Value, depth: usize, text: &mut String) {
    match item {
        Value::Object(fields) if !fields.is_empty() => {
            text.push_str("- ");
            table(fields.iter(), depth + 1, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('-');
            below(item, depth + 1, text);
        }
        item => *text += &format!("- {}\n", flat(item)),
    }
}

fn flat(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text, &text.replace("${", "$${")),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// A text as it is if it can be plain, else what is to be `written` for it in quotes.
fn scalar(text: &str, written: &str) -> String {
    let words = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let is_word = words.contains(&text.to_lowercase().as_str());
    match begins && text.chars().all(safe) && !is_word {
        true => text.to_owned(),
        false => quoted(written),
    }
}

/// As JSON writes it, with every character escaped that YAML does not let stand.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let mut escaped = String::new();
    for char in json.chars() {
        match char {
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                escaped += &format!("\\u{:04x}", u32::from(char));
            }
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::Format;
    use crate::config::foreign::read;

    fn any_json() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            any::<String>(),
            "[a-z0-9.:/ #&*!-]{0,12}",
            Just("null".to_owned()),
            Just("$${X} ${Y".to_owned()),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    /// With `${` as `apply` reads it back; names of fields are not filled in.
    fn unescaped(value: Value) -> Value {
        match value {
            Value::String(text) => text.replace("$${", "${").into(),
            Value::Array(items) => items.into_iter().map(unescaped).collect(),
            Value::Object(fields) => {
                let fields = fields.into_iter();
                let fields = fields.map(|(name, value)| (name, unescaped(value)));
                fields.collect::<Map<_, _>>().into()
            }
            other => other,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any_json()) {
            let fields = Map::from_iter([("a".to_owned(), value)]);
            let text = document(&fields);
            let back = read("text", &text, Format::Yaml);
            let back = back.map_err(|wrong| TestCaseError::fail(format!("{wrong}\n{text}")))?;
            prop_assert_eq!(unescaped(back), Value::Object(fields), "{}", text);
        }
    }

    #[test]
    fn it_looks_as_people_write_it() {
        let value = json!({"kind": "service", "models": ["Qwen/Qwen3-8B"], "targets": [{"url": "http://a:1", "weight": 2}],
            "labels": {}, "timeouts": {"total": null}, "owner": "no", "name": "a", "version": "1.0", "plugins": [], "list": [[1, 2]]});
        let text = document(value.as_object().unwrap());
        let wanted = "kind: service\nname: a\nlabels: {}\nlist:\n-\n  - 1\n  - 2\nmodels:\n- Qwen/Qwen3-8B\nowner: \"no\"\nplugins: []\n\
            targets:\n- url: \"http://a:1\"\n  weight: 2\ntimeouts:\n  total: null\nversion: \"1.0\"\n";
        assert_eq!(text, wanted);
    }
}
