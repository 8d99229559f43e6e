//! The documents that `apply`, `diff` and `delete` are given: found, read, filled in from the environment and made resources.
//!
//! Nothing here asks the gateway. Documents of other systems are converted here, with the report of `tollgate convert`, so that what is
//! sent is native and one list. What the client's machine has (`${NAME}`, `{ file = … }`) is filled in here, too: the gateway has another
//! environment. What a resource may hold is the gateway's to say; [`Given::place`] finds the place of what it complains about.

mod fill;
mod read;
mod source;

use std::path::PathBuf;
use std::rc::Rc;

use serde_json::{Map, Value};
use tollgate_sdk::document::{Node, Problem, Severity};

use super::ending::Ended;
use super::foreign::Beside;
use super::kind::Kind;
use super::remote::Refused;
use super::terminal::plain;
use crate::config::Diagnostics;
use read::Text;

/// Which documents.
#[derive(clap::Args)]
pub(super) struct Files {
    /// A document (TOML, YAML or JSON), a folder of them, or - for standard input; may be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE", num_args = 1..)]
    pub(super) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) beside: Beside,
}

/// One resource, as it is to be sent.
pub(super) struct Resource {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// Its fields, with `name`.
    body: Map<String, Value>,
    /// Where it was typed; `None` of what was converted.
    typed: Option<(Rc<Text>, Node)>,
}

/// All resources of all documents, in their order.
pub(super) struct Given {
    pub(super) resources: Vec<Resource>,
}

impl Files {
    /// Whether standard input is one of them, so that nobody can be asked there.
    pub(super) fn read_stdin(&self) -> bool {
        self.files.iter().any(|file| source::is_stdin(file))
    }

    /// Reads them all; warnings and what became of foreign fields are told on standard error.
    ///
    /// # Errors
    /// Every mistake of every document was told.
    pub(super) fn read(&self) -> Result<Given, Ended> {
        let options = self.beside.options();
        let mut resources = Vec::new();
        let mut failed = false;
        for source in source::find(&self.files) {
            match source.map(|source| source.read(&options)) {
                Ok(Ok(mut found)) => resources.append(&mut found),
                Ok(Err(Told)) => failed = true,
                Err(wrong) => {
                    eprintln!("{wrong}");
                    failed = true;
                }
            }
        }
        match failed {
            true => Err(Ended::Told),
            false if resources.is_empty() => Err(Ended::Failed(
                "the documents hold no resource: write kind, name and its fields, or the sections of a configuration file".into(),
            )),
            false => Ok(Given { resources }),
        }
    }
}

/// What is wrong was told already.
struct Told;

impl Given {
    /// As the admin API takes them.
    pub(super) fn body(&self) -> Value {
        let items = self.resources.iter().map(|resource| {
            let mut item = resource.body.clone();
            item.insert("kind".into(), resource.kind.name().into());
            Value::Object(item)
        });
        serde_json::json!({"items": items.collect::<Vec<_>>()})
    }

    /// Tells what the gateway said of them, each mistake at its place in its document.
    pub(super) fn tell(&self, refused: &Refused) -> Ended {
        if refused.details.is_empty() {
            return Ended::Failed(refused.to_string());
        }
        for (path, message) in &refused.details {
            match self.place(path, message) {
                Some(told) => eprintln!("{told}"),
                None if path.is_empty() => eprintln!("{message}\n"),
                None => eprintln!("{path}: {message}\n"),
            }
        }
        Ended::Failed(refused.message().to_owned())
    }

    /// A mistake in `documents[3].weight`, shown where it was typed.
    fn place(&self, path: &str, message: &str) -> Option<String> {
        let rest = path.strip_prefix("documents")?;
        let (index, rest) = rest.strip_prefix('[')?.split_once(']')?;
        let resource = self.resources.get(index.parse::<usize>().ok()?)?;
        let inside = rest.strip_prefix('.').unwrap_or(rest);
        let shown = format!(
            "{}.{}{}{inside}",
            resource.kind.name(),
            resource.name,
            match inside {
                "" => "",
                inside if inside.starts_with('[') => "",
                _ => ".",
            }
        );
        let Some((text, node)) = &resource.typed else {
            return Some(format!("{}: {message}\n", plain(&shown)));
        };
        let (message, help) = match message.split_once("; ") {
            Some((message, help)) => (message, Some(help.to_owned())),
            None => (message, None),
        };
        let problem = Problem {
            span: deepest(node, inside).span,
            path: shown,
            message: message.to_owned(),
            help,
            severity: Severity::Error,
        };
        let told = Diagnostics::new(&text.name, &text.text, vec![problem], text.masked.clone());
        Some(told.to_string())
    }
}

/// The value at a path, or as near to it as there is one.
fn deepest<'n>(node: &'n Node, path: &str) -> &'n Node {
    let mut node = node;
    for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
        let below = match step.parse::<usize>() {
            Ok(index) => node.as_list().and_then(|items| items.get(index)),
            Err(_) => node.entry(step),
        };
        match below {
            Some(below) => node = below,
            None => break,
        }
    }
    node
}
