//! `tollgate convert`: another system's documents as a configuration of ours.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::foreign::{self, Converted, Fate, Options};
use crate::config::format_of;

#[derive(clap::Args)]
pub(super) struct Asked {
    /// The documents: dstack's YAML, TrustGate's or CoreWeave's JSON, Llumnix' route configuration.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The gateway that the documents' services are for, if they do not say.
    #[arg(long)]
    gateway: Option<String>,
    /// The project of dstack that the documents belong to.
    #[arg(long)]
    project: Option<String>,
    /// Where the replicas of a dstack service are, or the engines of a CoreWeave deployment; may be repeated.
    #[arg(long = "target", value_name = "NAME=URL", value_parser = pair)]
    targets: Vec<(String, String)>,
    /// Where an engine of Llumnix' internal pool is; may be repeated.
    #[arg(long, value_name = "URL")]
    local: Vec<String>,
    /// A flag of Llumnix' gateway, by its name: route-policy=prefix, retry-max-retries=3; may be repeated.
    #[arg(long = "flag", value_name = "NAME=VALUE", value_parser = pair)]
    flags: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("NAME=VALUE is expected".to_owned()),
    }
}

#[allow(clippy::print_stdout, reason = "the command's output")]
pub(super) fn run(asked: Asked) -> ExitCode {
    let options = Options {
        gateway: asked.gateway,
        project: asked.project,
        targets: asked.targets,
        local: asked.local,
        flags: asked.flags.into_iter().collect::<BTreeMap<_, _>>(),
    };
    let mut refused = false;
    let mut unused: Vec<String> = { options.targets.iter() }
        .map(|(name, _)| format!("--target {name}"))
        .collect();
    for file in &asked.files {
        match convert(file, &options) {
            Ok(converted) => {
                report(file, &converted);
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

/// What became of every field; what was taken as it is only counted.
fn report(file: &std::path::Path, converted: &Converted) {
    let taken = { converted.notes.iter() }.filter(|note| note.fate == Fate::Taken);
    let taken = match taken.count() {
        1 => "1 field taken as it is".to_owned(),
        several => format!("{several} fields taken as they are"),
    };
    eprintln!("{}: {}, {taken}", file.display(), converted.dialect);
    for note in { converted.notes.iter() }.filter(|note| note.fate != Fate::Taken) {
        eprintln!("  {note}");
    }
}
