//! [`FromNode`], by which every type of a document is read, and the types every document uses.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::{At, Field, Format, Key, Node, Origin, Reading, Value, holds_credential};
use crate::secret::Secret;

/// A type that can be read from a document.
///
/// `read` reports what is wrong and returns `None`, or something usable all the same, so that one reading finds
/// every mistake: whether a document is accepted is decided by [`Reading::failed`] alone.
pub trait FromNode: Sized {
    /// Whether the value must never be shown.
    const SECRET: bool = false;

    /// Reads a value.
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self>;

    /// The JSON Schema of what `read` accepts.
    fn schema() -> Json;

    /// How this value would be written; null if it would be left out.
    fn value(&self) -> Json;

    /// A value to show in help.
    fn example() -> Json;

    /// The value when the field is not there; `None` if it must be.
    fn absent() -> Option<Self> {
        None
    }

    /// What to say when the field must be there and is not, if not simply that it is missing.
    fn missing() -> Option<&'static str> {
        None
    }

    /// The fields of the table it is read from, or of those in the list, if they are known.
    fn fields() -> Vec<Field> {
        Vec::new()
    }

    /// Whether an optional field that holds this counts as not there.
    fn is_blank(&self) -> bool {
        false
    }

    /// Reads several: a list, unless the type has another form for it.
    fn read_many(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Vec<Self>> {
        let Some(items) = node.as_list() else {
            expected_list::<Self>(node, at, r);
            return None;
        };
        let mut read = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            read.extend(Self::read(item, &at.index(index), r));
        }
        Some(read)
    }

    /// The schema of what `read_many` accepts.
    fn schema_many() -> Json {
        json!({"type": "array", "items": Self::schema()})
    }

    /// How several would be written.
    fn value_many(items: &[Self]) -> Json {
        items.iter().map(Self::value).collect()
    }

    /// Several, to show in help.
    fn example_many() -> Json {
        json!([Self::example()])
    }
}

impl FromNode for bool {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        match (&node.value, node.origin) {
            (Value::Bool(value), _) => Some(*value),
            (Value::String(text), Origin::Wholly) if text == "true" => Some(true),
            (Value::String(text), Origin::Wholly) if text == "false" => Some(false),
            _ => {
                r.expected(node, at, "true or false", &Self::example());
                None
            }
        }
    }

    fn schema() -> Json {
        or_reference(json!({"type": "boolean"}))
    }

    fn value(&self) -> Json {
        json!(self)
    }

    fn example() -> Json {
        json!(true)
    }
}

macro_rules! whole_numbers {
    ($($ty:ty),*) => {$(
        impl FromNode for $ty {
            fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
                let number = match (&node.value, node.origin) {
                    (Value::Int(number), _) => Some(*number),
                    (Value::String(text), Origin::Wholly) => text.trim().parse().ok(),
                    _ => None,
                };
                let Some(number) = number else {
                    r.expected(node, at, "a whole number", &Self::example());
                    return None;
                };
                let read = Self::try_from(number).ok();
                if read.is_none() {
                    let (min, max) = (Self::MIN, Self::MAX);
                    r.error(node.span, at, format!("{number} is out of range"), format!("from {min} to {max}"));
                }
                read
            }

            fn schema() -> Json {
                or_reference(match i64::try_from(Self::MIN) {
                    Ok(0) => json!({"type": "integer", "minimum": 0}),
                    _ => json!({"type": "integer"}),
                })
            }

            fn value(&self) -> Json {
                json!(self)
            }

            fn example() -> Json {
                json!(1)
            }
        }
    )*};
}

whole_numbers!(u8, u16, u32, u64, usize, i32, i64);

impl FromNode for f64 {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        let number = match (&node.value, node.origin) {
            (Value::Float(number), _) => Some(*number),
            (Value::Int(number), _) => Some(*number as f64),
            (Value::String(text), Origin::Wholly) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|n: &f64| n.is_finite());
        if number.is_none() {
            r.expected(node, at, "a number", &Self::example());
        }
        number
    }

    fn schema() -> Json {
        or_reference(json!({"type": "number"}))
    }

    fn value(&self) -> Json {
        json!(self)
    }

    fn example() -> Json {
        json!(0.5)
    }
}

impl FromNode for String {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        let text = node.as_str();
        if text.is_none() {
            r.expected(node, at, "text", &Self::example());
        }
        text.map(str::to_owned)
    }

    fn schema() -> Json {
        json!({"type": "string"})
    }

    fn value(&self) -> Json {
        json!(self)
    }

    fn example() -> Json {
        json!("text")
    }
}

impl<T: FromNode> FromNode for Option<T> {
    const SECRET: bool = T::SECRET;

    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.value == Value::Null {
            return Some(None);
        }
        T::read(node, at, r).map(|value| Some(value).filter(|value| !value.is_blank()))
    }

    fn schema() -> Json {
        T::schema()
    }

    fn value(&self) -> Json {
        self.as_ref().map_or(Json::Null, T::value)
    }

    fn example() -> Json {
        T::example()
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn fields() -> Vec<Field> {
        T::fields()
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    const SECRET: bool = T::SECRET;

    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        T::read_many(node, at, r)
    }

    fn schema() -> Json {
        T::schema_many()
    }

    fn value(&self) -> Json {
        T::value_many(self)
    }

    fn example() -> Json {
        T::example_many()
    }

    fn fields() -> Vec<Field> {
        T::fields()
    }
}

/// What is shared is written as what it is.
impl<T: FromNode> FromNode for Arc<T> {
    const SECRET: bool = T::SECRET;

    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        T::read(node, at, r).map(Arc::new)
    }

    fn schema() -> Json {
        T::schema()
    }

    fn value(&self) -> Json {
        T::value(self)
    }

    fn example() -> Json {
        T::example()
    }

    fn fields() -> Vec<Field> {
        T::fields()
    }
}

/// A type that can be the key of a table whose keys the user chooses.
pub trait FromKey: Sized {
    /// Reads a key.
    fn read_key(key: &Key, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self>;

    /// How it would be written.
    fn key(&self) -> String;

    /// A key to show in help.
    fn example_key() -> &'static str;
}

impl FromKey for String {
    fn read_key(key: &Key, _: &At<'_>, _: &mut Reading<'_>) -> Option<Self> {
        Some(key.text.clone())
    }

    fn key(&self) -> String {
        self.clone()
    }

    fn example_key() -> &'static str {
        "name"
    }
}

/// Several pairs are written as a table, whose order they keep.
impl<K: FromKey, V: FromNode> FromNode for (K, V) {
    const SECRET: bool = V::SECRET;

    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        Self::read_many(node, at, r)?.pop()
    }

    fn schema() -> Json {
        Self::schema_many()
    }

    fn value(&self) -> Json {
        Self::value_many(std::slice::from_ref(self))
    }

    fn example() -> Json {
        let mut table = serde_json::Map::new();
        table.insert(K::example_key().into(), V::example());
        table.into()
    }

    fn read_many(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Vec<Self>> {
        let Some(entries) = node.as_table() else {
            r.expected(node, at, "a table", &Self::example());
            return None;
        };
        let mut read = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let at = at.field(&key.text);
            let pair = (K::read_key(key, &at, r), V::read(node, &at, r));
            if let (Some(key), Some(value)) = pair {
                read.push((key, value));
            }
        }
        Some(read)
    }

    fn schema_many() -> Json {
        json!({"type": "object", "additionalProperties": V::schema()})
    }

    fn value_many(items: &[Self]) -> Json {
        let entries = items.iter().map(|(key, value)| (key.key(), value.value()));
        Json::Object(entries.collect())
    }

    fn example_many() -> Json {
        Self::example()
    }
}

impl<V: FromNode> FromNode for BTreeMap<String, V> {
    const SECRET: bool = V::SECRET;

    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        <(String, V)>::read_many(node, at, r).map(Self::from_iter)
    }

    fn schema() -> Json {
        <(String, V)>::schema_many()
    }

    fn value(&self) -> Json {
        Json::Object(self.iter().map(|(k, v)| (k.clone(), v.value())).collect())
    }

    fn example() -> Json {
        <(String, V)>::example()
    }
}

/// Given as text or as `{ file = "path" }`; empty counts as not given where it is optional.
impl FromNode for Secret<String> {
    const SECRET: bool = true;

    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if let Some(text) = node.as_str() {
            r.mask(node.span);
            return Some(Self::new(text.to_owned()));
        }
        let Some(entries) = node.as_table() else {
            r.mask(node.span);
            let message = "expected text or { file = \"…\" }, found a value of another type";
            r.error(node.span, at, message, secret_help(at, r));
            return None;
        };
        for (key, value) in entries.iter().filter(|(key, _)| key.text != "file") {
            r.mask(value.span);
            r.error(
                key.span,
                &at.field(&key.text),
                "unknown field",
                secret_help(at, r),
            );
        }
        let Some(file) = node.entry("file") else {
            r.error(node.span, at, "missing field `file`", secret_help(at, r));
            return None;
        };
        let at = at.field("file");
        let path = String::read(file, &at, r)?;
        match r.file(&path) {
            Ok(text) => Some(Self::new(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(error) => {
                r.error(file.span, &at, error, ());
                None
            }
        }
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {"file": {"type": "string", "description": "The file that holds it."}},
                "required": ["file"],
                "additionalProperties": false,
            },
        ]})
    }

    fn value(&self) -> Json {
        json!("***")
    }

    fn example() -> Json {
        json!("${NAME}")
    }

    fn is_blank(&self) -> bool {
        self.expose().is_empty()
    }
}

/// Reports that a list was expected; what stands there may be its only element.
fn expected_list<T: FromNode>(node: &Node, at: &At<'_>, r: &mut Reading<'_>) {
    let example = T::example_many();
    match (&node.value, at.name()) {
        (Value::String(text), Some(name))
            if node.origin == Origin::Typed && !T::SECRET && !holds_credential(text) =>
        {
            let help = format!("write a list: {}", r.format.field(name, &json!([text])));
            r.error(
                node.span,
                at,
                format!("expected a list, found {}", node.found()),
                help,
            );
        }
        (Value::Table(_), Some(name)) if r.format == Format::Toml && !T::fields().is_empty() => {
            r.error(
                node.span,
                at,
                "expected a list, found a table",
                format!("write [[{name}]]: there may be several"),
            );
        }
        _ => r.expected(node, at, "a list", &example),
    }
}

fn secret_help(at: &At<'_>, r: &Reading<'_>) -> String {
    let name = at.name().unwrap_or("secret");
    let text = r.format.field(name, &json!("${NAME}"));
    let file = r.format.field(name, &json!({"file": "path"}));
    format!("for example: {text}, or {file}")
}

/// The schema of a value that may also be one reference to the environment.
fn or_reference(schema: Json) -> Json {
    json!({"anyOf": [schema, {"type": "string", "pattern": r"^\$\{[^}]*\}$"}]})
}
