//! `tollgate schema`: the configuration's JSON Schema, for editors; or the admin API's OpenAPI document.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::admin;
use crate::config::schema;

#[derive(clap::Args)]
pub(super) struct Asked {
    /// The admin API's OpenAPI document instead.
    #[arg(long)]
    openapi: bool,
}

/// Writes the schema to standard output.
pub(super) fn run(asked: &Asked) -> ExitCode {
    let text = match asked.openapi {
        true => admin::openapi(),
        false => schema::text(),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
