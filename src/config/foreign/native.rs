//! Native resources as the text of a configuration file.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Converted;

impl Converted {
    /// The resources as TOML, kind by kind, each field on a line. It may hold secrets, if the document did.
    pub fn to_toml(&self) -> String {
        let mut kinds: BTreeMap<&str, Vec<&Map<String, Value>>> = BTreeMap::new();
        for resource in &self.resources {
            kinds.entry(resource.kind).or_default().push(&resource.body);
        }
        let mut text = String::new();
        for (kind, bodies) in kinds {
            for body in bodies {
                text += &format!("[[{kind}]]\n");
                for (name, value) in body {
                    text += &format!("{} = {}\n", key(name), inline(value));
                }
                text.push('\n');
            }
        }
        text
    }
}

fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !name.is_empty() && name.chars().all(bare) {
        true => name.to_owned(),
        false => text(name),
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{} = {}", key(name), inline(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(value) => inline_text(value),
        other => other.to_string(),
    }
}

fn inline_text(value: &str) -> String {
    // What refers to a variable elsewhere must not come to read our environment.
    text(&value.replace("${", "$${"))
}

/// A text as JSON writes it, which TOML reads alike but for one character.
fn text(value: &str) -> String {
    Value::from(value).to_string().replace('\u{7f}', "\\u007f")
}
