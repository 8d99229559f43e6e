//! The text of a foreign document to a tree. Nothing is filled in from the environment: `${…}` is the other system's.

use serde_json::Value;
use tollgate_sdk::document::{Format, Reading};

use super::super::{Diagnostics, masking, raw};

/// Reads the only document of a text. `name` is what the text is called in diagnostics.
///
/// # Errors
/// Mistakes in its syntax.
pub fn read(name: &str, text: &str, format: Format) -> Result<Value, Diagnostics> {
    let no_file = |_: &str| Err("files are only for the configuration file".to_owned());
    let mut r = Reading::new(format, &no_file);
    match raw::read(text, format, &mut r) {
        Some(node) => Ok(node.json()),
        None => {
            masking::mask_lines(text, &mut r.masked);
            Err(Diagnostics::new(name, text, r.problems, r.masked))
        }
    }
}
