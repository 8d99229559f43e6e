//! How values are written in each of the formats a document may come in, so that help can be copied.

use serde_json::Value;

/// The syntax a document is typed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `name = "value"`
    #[default]
    Toml,
    /// `name: value`
    Yaml,
    /// `"name": "value"`
    Json,
}

impl Format {
    /// One field with its value.
    pub fn field(self, name: &str, value: &Value) -> String {
        match self {
            Self::Toml => format!("{} = {}", toml_key(name), self.value(value)),
            Self::Yaml => format!("{name}: {}", self.value(value)),
            Self::Json => format!("{}: {}", Value::from(name), self.value(value)),
        }
    }

    /// One value, in a line.
    pub fn value(self, value: &Value) -> String {
        match value {
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| self.value(item)).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Object(fields) if fields.is_empty() => "{}".into(),
            Value::Object(fields) => {
                let fields: Vec<_> = fields.iter().map(|(name, v)| self.field(name, v)).collect();
                format!("{{ {} }}", fields.join(", "))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        }
    }
}

/// A key as TOML wants it: quoted unless bare.
fn toml_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) {
        name.into()
    } else {
        Value::from(name).to_string()
    }
}
