//! `tollgate convert`: another system's documents as a configuration of ours.

use std::path::PathBuf;
use std::process::ExitCode;

use super::foreign::{Beside, report};
use crate::config::foreign::{self, Converted, Options};
use crate::config::format_of;

#[derive(clap::Args)]
pub(super) struct Asked {
    /// The documents: dstack's YAML, TrustGate's or CoreWeave's JSON, Llumnix' route configuration.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    beside: Beside,
}

#[allow(clippy::print_stdout, reason = "the command's output")]
pub(super) fn run(asked: &Asked) -> ExitCode {
    let options = asked.beside.options();
    let mut refused = false;
    let mut unused: Vec<String> = { options.targets.iter() }
        .map(|(name, _)| format!("--target {name}"))
        .collect();
    for file in &asked.files {
        match convert(file, &options) {
            Ok(converted) => {
                report(&file.display().to_string(), &converted);
                unused.retain(|path| converted.notes.iter().all(|note| note.path != *path));
                match converted.is_refused() {
                    true => refused = true,
                    false => print!("{}", converted.to_toml()),
                }
            }
            Err(message) => {
                eprintln!("{message}");
                refused = true;
            }
        }
    }
    for path in &unused {
        eprintln!("{path}: no document has a service or deployment of this name");
        refused = true;
    }
    match refused {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn convert(file: &std::path::Path, options: &Options) -> Result<Converted, String> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let document =
        foreign::read(&name, &text, format_of(file)).map_err(|wrong| wrong.to_string())?;
    let converted = foreign::convert(&document, options);
    converted.ok_or_else(|| {
        format!("{name}: not a document of dstack, TrustGate, CoreWeave or Llumnix that is known")
    })
}
