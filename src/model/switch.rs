//! What can be turned on and off as a whole, beside being set in detail.

use tollgate_sdk::document::{At, Field, FromNode, Json, Node, Origin, Reading, Value, json};

/// A part that is on with its settings, or off.
#[derive(Clone, Debug, PartialEq)]
pub enum Switch<T> {
    /// It is not used.
    Off,
    /// It is used, with these settings.
    On(T),
}

impl<T> Switch<T> {
    /// The settings, if it is on.
    pub fn on(&self) -> Option<&T> {
        match self {
            Self::On(settings) => Some(settings),
            Self::Off => None,
        }
    }
}

/// Read from a table of settings, or from `true`, `false`, "on" or "off".
impl<T: FromNode + Default> FromNode for Switch<T> {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        match switched(node) {
            Some(true) => Some(Self::On(T::default())),
            Some(false) => Some(Self::Off),
            None if node.as_table().is_some() => T::read(node, at, r).map(Self::On),
            None => {
                refuse::<T>(node, at, r);
                None
            }
        }
    }

    fn schema() -> Json {
        with_switch(T::schema())
    }

    fn value(&self) -> Json {
        match self {
            Self::Off => json!("off"),
            Self::On(settings) => settings.value(),
        }
    }

    fn example() -> Json {
        T::example()
    }

    fn fields() -> Vec<Field> {
        T::fields()
    }
}

/// What a value turns on or off as a whole, if it does.
pub(super) fn switched(node: &Node) -> Option<bool> {
    match (&node.value, node.origin) {
        (Value::Bool(on), _) => Some(*on),
        (Value::String(text), _) if text == "on" => Some(true),
        (Value::String(text), _) if text == "off" => Some(false),
        (Value::String(text), Origin::Wholly) => text.parse().ok(),
        _ => None,
    }
}

/// Reports what is neither a table nor turns anything on or off.
pub(super) fn refuse<T: FromNode>(node: &Node, at: &At<'_>, r: &mut Reading<'_>) {
    let message = format!(
        "expected a table, \"on\" or \"off\", found {}",
        node.found()
    );
    let written = |value: &Json| match at.name() {
        Some(name) => r.format.field(name, value),
        None => r.format.value(value),
    };
    let help = format!(
        "for example: {}, or {}",
        written(&T::example()),
        written(&json!("off"))
    );
    r.error(node.span, at, message, help);
}

/// The schema of a table that can be turned on and off as a whole.
pub(super) fn with_switch(table: Json) -> Json {
    json!({"anyOf": [
        {"type": "boolean"},
        {"enum": ["on", "off"]},
        {"type": "string", "pattern": r"\$\{"},
        table,
    ]})
}
