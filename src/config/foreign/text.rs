//! The text of a foreign document to a tree. Nothing is filled in from the environment: `${…}` is the other system's.

use serde_json::{Map, Number, Value};
use tollgate_sdk::document::{Format, Node, Reading, Value as Typed};

use super::super::{Diagnostics, masking, raw};

/// Reads the only document of a text. `name` is what the text is called in diagnostics.
///
/// # Errors
/// Mistakes in its syntax.
pub fn read(name: &str, text: &str, format: Format) -> Result<Value, Diagnostics> {
    let no_file = |_: &str| Err("files are only for the configuration file".to_owned());
    let mut r = Reading::new(format, &no_file);
    match raw::read(text, format, &mut r) {
        Some(node) => Ok(value(&node)),
        None => {
            masking::mask_lines(text, &mut r.masked);
            Err(Diagnostics::new(name, text, r.problems, r.masked))
        }
    }
}

fn value(node: &Node) -> Value {
    match &node.value {
        Typed::Null => Value::Null,
        Typed::Bool(value) => Value::Bool(*value),
        Typed::Int(value) => Value::Number((*value).into()),
        // Infinity and its like have no place in JSON; as text they are refused where a number is expected.
        Typed::Float(value) => match Number::from_f64(*value) {
            Some(number) => Value::Number(number),
            None => Value::String(value.to_string()),
        },
        Typed::String(text) => Value::String(text.clone()),
        Typed::List(items) => items.iter().map(value).collect(),
        Typed::Table(entries) => entries
            .iter()
            .map(|(key, node)| (key.text.clone(), value(node)))
            .collect::<Map<_, _>>()
            .into(),
    }
}
