//! `tollgate schema`: the configuration's JSON Schema, for editors.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::schema;

/// Writes the schema to standard output.
pub(super) fn run() -> ExitCode {
    match io::stdout().write_all(schema::text().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
