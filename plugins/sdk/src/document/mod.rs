//! Documents: configuration and plugin settings as trees with places, and the types read from them.
//!
//! A [`Node`] tree is what was typed. [`FromNode`] reads a type from it and reports every mistake into a [`Reading`],
//! never stopping at the first. [`document!`](crate::document!) declares a struct or an enum once, and from that one
//! declaration come the reading, the defaults, the unknown-field check, the JSON Schema and the list of fields.
//! There is no I/O and no parsing of TOML, YAML or JSON here.

mod format;
mod http;
mod macros;
mod nearest;
mod node;
mod quantity;
mod read;
mod reading;
mod table;
#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test that panics has failed")]
mod tests;
mod text;
mod word;

pub use format::Format;
pub use nearest::{nearest, suggest};
pub use node::{Key, Node, Origin, Quoted, Span, Value, holds_credential};
pub use quantity::Size;
pub use read::{FromKey, FromNode};
pub use reading::{At, Help, Problem, ReadFile, Reading, Severity};
pub use serde_json::{Value as Json, json};
pub use table::{Declared, Document, Field, Table, prose};
pub use text::{FromText, Invalid, read_text, text_schema};
pub use word::Words;

/// A JSON object.
pub type JsonTable = serde_json::Map<String, Json>;
