//! `tollgate delete`: resources and registered targets are taken away.
//!
//! There is no order in which resources that refer to each other can always be deleted, so what is still in use is tried again as long as
//! something else goes.

use std::process::ExitCode;

use axum::http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::apply::may_ask;
use super::documents::Files;
use super::ending::{Ended, end};
use super::kind::{Kind, KindParser};
use super::remote::{Api, Refused, Remote};
use super::terminal::{agrees, plain};

#[derive(clap::Args)]
pub(super) struct Asked {
    /// The kind of what is deleted: gateway, service, upstream, rule, key or target; also plural or shortened.
    #[arg(value_parser = KindParser, required_unless_present = "files", conflicts_with = "files")]
    kind: Option<Kind>,
    /// Their names; of a target, UPSTREAM/ID.
    #[arg(value_name = "NAME", required_unless_present = "files")]
    names: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    remote: Remote,
}

/// One thing to delete.
struct Doomed {
    kind: Kind,
    name: String,
}

pub(super) fn run(asked: &Asked) -> ExitCode {
    end(delete(asked))
}

fn delete(asked: &Asked) -> Result<(), Ended> {
    let doomed = match asked.kind {
        Some(kind) if kind.is_resource() || kind == Kind::Target => {
            let names = asked.names.iter().cloned();
            names.map(|name| Doomed { kind, name }).collect()
        }
        Some(kind) => {
            let what = kind.name();
            return Err(Ended::Misused(format!(
                "a {what} is no resource of its own; change what it belongs to"
            )));
        }
        None => Vec::new(),
    };
    for one in &doomed {
        one.path()?;
    }
    if !asked.yes {
        may_ask(asked.files.read_stdin())?;
    }
    let doomed = match asked.kind {
        Some(_) => doomed,
        None => {
            let given = asked.files.read()?.resources.into_iter();
            given
                .map(|resource| Doomed {
                    kind: resource.kind,
                    name: resource.name,
                })
                .collect()
        }
    };
    if !asked.yes {
        for one in &doomed {
            eprintln!("{}", one.shown());
        }
        let question = match doomed.len() {
            1 => "Delete it?".to_owned(),
            several => format!("Delete these {several}?"),
        };
        if !agrees(&question) {
            return Err("nothing was deleted".into());
        }
    }
    delete_all(&asked.remote.open()?, doomed)
}

fn delete_all(api: &Api, mut doomed: Vec<Doomed>) -> Result<(), Ended> {
    let mut failed = false;
    loop {
        let before = doomed.len();
        let mut in_use: Vec<(Doomed, Refused)> = Vec::new();
        for one in doomed {
            match api.ask(Method::DELETE, &one.path()?, None) {
                Ok(_) => eprintln!("deleted {}", one.shown()),
                Err(refused) if refused.code == "in_use" => in_use.push((one, refused)),
                // Who did not get through once will not the next time.
                Err(refused) if refused.status.is_none() => return Err(refused.into()),
                Err(refused) => {
                    eprintln!("{}: {refused}", one.shown());
                    failed = true;
                }
            }
        }
        if in_use.is_empty() || in_use.len() == before {
            failed |= !in_use.is_empty();
            for (one, refused) in in_use {
                eprintln!("{}: {refused}", one.shown());
            }
            break;
        }
        doomed = in_use.into_iter().map(|(one, _)| one).collect();
    }
    match failed {
        true => Err("not everything could be deleted".into()),
        false => Ok(()),
    }
}

impl Doomed {
    fn shown(&self) -> String {
        format!("{} {}", self.kind.name(), plain(&self.name))
    }

    fn path(&self) -> Result<String, Ended> {
        let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        if self.kind != Kind::Target {
            return Ok(format!("/v1/{}s/{}", self.kind.name(), escaped(&self.name)));
        }
        match self.name.split_once('/') {
            Some((upstream, id)) if !upstream.is_empty() && !id.is_empty() => Ok(format!(
                "/v1/upstreams/{}/targets/{}",
                escaped(upstream),
                escaped(id)
            )),
            _ => Err(Ended::Misused(format!(
                "a target is named UPSTREAM/ID, not {}; `tollgate get targets` lists them",
                plain(&self.name)
            ))),
        }
    }
}
