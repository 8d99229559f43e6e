//! The neutral tree: what was typed, whatever it was typed in, with the place of every value.
//!
//! A tree is built by whoever parses text (the engine's `config::raw`), then read by [`FromNode`](super::FromNode).
//! Tables keep the order of the file and may not hold a key twice: the builder reports that.

use std::fmt;

use serde_json::{Map, Number, Value as Json};

/// A range of bytes in one source text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Which source text; numbered by whoever parses.
    pub source: u32,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The bytes `start..end` of source 0.
    pub fn new(start: usize, end: usize) -> Self {
        Self {
            source: 0,
            start,
            end,
        }
    }
}

/// Where the text of a string came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// As typed.
    #[default]
    Typed,
    /// Some of it was read from the environment.
    Partly,
    /// All of it is one reference to the environment: it may stand for a number or a boolean.
    Wholly,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands. For a TOML table this is its header.
    pub span: Span,
    /// What it is.
    pub value: Value,
    /// Whether the environment had a part in it.
    pub origin: Origin,
}

impl Node {
    /// A value as typed.
    pub fn new(span: Span, value: Value) -> Self {
        Self {
            span,
            value,
            origin: Origin::Typed,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The elements, if this is a list.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries, if this is a table.
    pub fn as_table(&self) -> Option<&[(Key, Node)]> {
        match &self.value {
            Value::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of `name`, if this is a table that has it.
    pub fn entry(&self, name: &str) -> Option<&Node> {
        let (_, node) = self.as_table()?.iter().find(|(key, _)| key.text == name)?;
        Some(node)
    }

    /// A tree of what was sent as JSON. It has no text to point at: places are numbers that only tell values apart.
    pub fn of(value: &Json) -> Self {
        Self::numbered(value, &mut 0)
    }

    fn numbered(value: &Json, next: &mut usize) -> Self {
        let span = Span::new(*next, *next + 1);
        *next += 1;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(number) => Value::Int(number),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::String(text.clone()),
            Json::Array(items) => Value::List(
                items
                    .iter()
                    .map(|item| Self::numbered(item, next))
                    .collect(),
            ),
            Json::Object(fields) => {
                let entry = |(name, value): (&String, &Json)| {
                    let node = Self::numbered(value, next);
                    let (span, text) = (node.span, name.clone());
                    (Key { span, text }, node)
                };
                Value::Table(fields.iter().map(entry).collect())
            }
        };
        Self::new(span, value)
    }

    /// The tree as JSON.
    pub fn json(&self) -> Json {
        self.json_without(&[])
    }

    /// The tree as JSON, with `***` for what stands in one of these places.
    pub fn json_without(&self, hidden: &[Span]) -> Json {
        if hidden.contains(&self.span) {
            return Json::String("***".into());
        }
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(number) => Json::Number((*number).into()),
            // Infinity and its like have no place in JSON; as text they are refused where a number is expected.
            Value::Float(number) => match Number::from_f64(*number) {
                Some(number) => Json::Number(number),
                None => Json::String(number.to_string()),
            },
            Value::String(text) => Json::String(text.clone()),
            Value::List(items) => items.iter().map(|item| item.json_without(hidden)).collect(),
            Value::Table(entries) => {
                let fields = entries.iter();
                let fields =
                    fields.map(|(key, node)| (key.text.clone(), node.json_without(hidden)));
                Json::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// How a message may call this value: its kind, and a short scalar itself unless it came from the environment.
    pub fn found(&self) -> String {
        if self.origin != Origin::Typed {
            return "text from the environment".into();
        }
        match &self.value {
            Value::Null => "nothing (null)".into(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Int(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::String(text) if holds_credential(text) => "a URL with a credential".into(),
            Value::String(text) => format!("the text {}", Quoted(text)),
            Value::List(_) => "a list".into(),
            Value::Table(_) => "a table".into(),
        }
    }

    /// The text in quotes, shortened; hidden if the environment had a part in it.
    pub fn quoted(&self) -> String {
        match (&self.value, self.origin) {
            (Value::String(text), Origin::Typed) if !holds_credential(text) => {
                Quoted(text).to_string()
            }
            _ => self.found(),
        }
    }
}

/// Whether a text is a URL with a user or password in it, which no message may show.
pub fn holds_credential(text: &str) -> bool {
    let authority = text
        .split_once("://")
        .map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    authority.is_some_and(|authority| authority.contains('@'))
}

/// A table's key and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Where it stands.
    pub span: Span,
    /// The key itself.
    pub text: String,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: `null` or an empty YAML value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// A table, in the order of the file.
    Table(Vec<(Key, Node)>),
}

/// Text in double quotes, control characters escaped, cut at 60 characters.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for (at, char) in self.0.chars().enumerate() {
            if at == 60 {
                return f.write_str("…\"");
            }
            match char {
                '"' | '\\' => write!(f, "\\{char}")?,
                char if char.is_control() => write!(f, "{}", char.escape_default())?,
                char => write!(f, "{char}")?,
            }
        }
        f.write_str("\"")
    }
}
