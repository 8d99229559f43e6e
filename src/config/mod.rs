//! From a file to a [`Config`]: text → tree with places → environment filled in → resources → names checked.
//!
//! Every mistake of a file is found in one go, and each is told with its place, its field and a way to mend it
//! ([`Diagnostics`]). A `Config` that comes out of here refers only to what it holds. The values of secrets are in no
//! diagnostic. Nothing here decides what to do with a configuration.

mod candidate;
mod certificates;
mod check;
mod conflicts;
mod diagnostic;
mod documents;
mod fallbacks;
mod fates;
pub mod foreign;
mod interpolate;
mod kept;
mod kinds;
mod masking;
mod parse;
mod raw;
mod references;
mod resource;
mod scaled;
pub mod schema;
mod sections;
mod served;
mod set;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that panics has failed"
)]
mod tests;
mod trees;
mod yaml;

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use crate::model::Config;

pub use candidate::{Candidate, OfFile, Refused, Target, Use, patched};
pub use diagnostic::Diagnostics;
pub use documents::{Document, Documents, read as read_documents, tree};
pub use fates::{Action, Fate};
pub use interpolate::{Env, interpolate};
pub use kept::{Kept, take_kept};
pub use kinds::{Model, Registered, ResourceKind};
pub use masking::{is_secret_name, keep_references, mask_by_name, mask_lines};
pub use parse::parse;
pub use raw::read as read_tree;
pub use resource::{BESIDE, Mistake};
pub use set::{Owner, Resource, Set, id_of, targets_of};
pub use tollgate_sdk::document::{Format, Problem, ReadFile, Severity};
pub use trees::Difference;

/// A configuration that was accepted.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What its author should look at.
    pub warnings: Diagnostics,
}

/// The files looked for when none is named, in this order.
pub const DEFAULT_PATHS: [&str; 2] = ["conf/tollgate.toml", "/etc/tollgate/tollgate.toml"];

/// The first of [`DEFAULT_PATHS`] that exists; if none does, the first.
pub fn default_path() -> PathBuf {
    let [first, _] = DEFAULT_PATHS;
    let found = DEFAULT_PATHS.iter().find(|path| Path::new(path).exists());
    found.unwrap_or(&first).into()
}

/// Reads a file, with the process's environment and with secrets' files relative to the file's folder.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| unreadable(&name, path, &error))?;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let text =
                String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
            let at = text.len();
            let help = "save the file as UTF-8";
            return Err(Diagnostics::one(
                &name,
                &text,
                at,
                "not UTF-8 from here on",
                Some(help),
            ));
        }
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let read_file = |file: &str| read_secret(&folder.join(file));
    parse(
        &name,
        text,
        format_of(path),
        &|name| std::env::var(name).ok(),
        &read_file,
    )
}

/// The format a file's extension tells: `.yaml`, `.yml` and `.json`, and TOML for all others.
pub fn format_of(path: &Path) -> Format {
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("yaml" | "yml") => Format::Yaml,
        Some("json") => Format::Json,
        _ => Format::Toml,
    }
}

fn unreadable(name: &str, path: &Path, error: &Error) -> Diagnostics {
    let (message, help) = match error.kind() {
        ErrorKind::NotFound => (
            "there is no such file".into(),
            format!(
                "create it, or name another with -c; without -c it is {}",
                DEFAULT_PATHS.join(", else ")
            ),
        ),
        _ if path.is_dir() => (
            "this is a directory".into(),
            "name the file in it: -c DIRECTORY/tollgate.toml".into(),
        ),
        _ => (
            format!("cannot be read: {error}"),
            "look at the file's owner and mode".into(),
        ),
    };
    Diagnostics::whole(name, &message, &help)
}

/// The text of a file that a document names; the error is a sentence.
pub fn read_secret(path: &Path) -> Result<String, String> {
    let shown = path.display();
    fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("there is no file {shown}"),
        ErrorKind::InvalidData => format!("the file {shown} is not UTF-8"),
        _ => format!("the file {shown} cannot be read: {error}"),
    })
}
