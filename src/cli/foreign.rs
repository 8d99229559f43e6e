//! Other systems' documents on the command line: what is said beside them, and the report of their conversion.

use std::collections::BTreeMap;

use super::terminal::plain;
use crate::config::foreign::{Converted, Fate, Options};

/// What other systems know without saying it in their documents.
#[derive(clap::Args, Default)]
pub(super) struct Beside {
    /// The gateway that another system's services are for, if they do not say.
    #[arg(long)]
    gateway: Option<String>,
    /// The project of dstack that the documents belong to.
    #[arg(long)]
    project: Option<String>,
    /// Where the replicas of a dstack service are, or the engines of a CoreWeave deployment; may be repeated. Of replicas that prefill or decode also what
    /// they do: URL,role=prefill,bootstrap_port=8998.
    #[arg(long = "target", value_name = "RUN=URL", value_parser = pair)]
    targets: Vec<(String, String)>,
    /// Where an engine of Llumnix' internal pool is, with what it does where prefill and decode are apart: URL,role=decode; may be repeated.
    #[arg(long, value_name = "URL")]
    local: Vec<String>,
    /// A flag of Llumnix' gateway, by its name: route-policy=prefix, retry-max-retries=3; may be repeated.
    #[arg(long = "flag", value_name = "NAME=VALUE", value_parser = pair)]
    flags: Vec<(String, String)>,
}

impl Beside {
    pub(super) fn options(&self) -> Options {
        Options {
            gateway: self.gateway.clone(),
            project: self.project.clone(),
            targets: self.targets.clone(),
            local: self.local.clone(),
            flags: self.flags.iter().cloned().collect::<BTreeMap<_, _>>(),
            qualified: false,
        }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("NAME=VALUE is expected".to_owned()),
    }
}

/// Tells on standard error what became of every field; what was taken as it is is only counted.
pub(super) fn report(name: &str, converted: &Converted) {
    let taken = { converted.notes.iter() }.filter(|note| note.fate == Fate::Taken);
    let taken = match taken.count() {
        1 => "1 field taken as it is".to_owned(),
        several => format!("{several} fields taken as they are"),
    };
    eprintln!("{name}: {}, {taken}", converted.dialect);
    for note in { converted.notes.iter() }.filter(|note| note.fate != Fate::Taken) {
        eprintln!("  {}", plain(&note.to_string()));
    }
}
