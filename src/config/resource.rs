//! One resource by itself, as the admin API gets it and the store keeps it: a tree to what it says.

use std::sync::Arc;

use tollgate_sdk::document::{At, Format, Node, Problem, Reading, Severity, Value};

use super::kinds::{Model, ResourceKind};
use super::set::{Owner, Resource, id_of};
use super::trees;
use crate::model::{Name, Target, TargetId};

/// What is wrong with a resource, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The field: `models[0]`.
    pub path: String,
    /// What is wrong and, after a semicolon, how to mend it.
    pub message: String,
}

impl Mistake {
    /// A mistake at a field.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }

    /// A problem of the document at `prefix`.
    pub(super) fn of(problem: &Problem, prefix: &str) -> Self {
        let path = &problem.path;
        let path = match (prefix, path.as_str()) {
            ("", path) | (path, "") => path.to_owned(),
            (prefix, path) if path.starts_with('[') => format!("{prefix}{path}"),
            (prefix, path) => format!("{prefix}.{path}"),
        };
        let message = match &problem.help {
            Some(help) => format!("{}; {help}", problem.message),
            None => problem.message.clone(),
        };
        Self { path, message }
    }
}

/// What an answer says beside a resource's fields, and what is not heeded when it is sent back.
pub const BESIDE: [&str; 3] = ["kind", "managed_by", "revision"];

/// Which resource a document is, before it is read: its name or, of a registered target, whose it is and its id.
pub(super) enum Identity {
    /// A name.
    Name(Name),
    /// The upstream and the id of a registered target.
    Target(Name, TargetId),
}

impl Identity {
    /// The name by which a set knows it.
    pub(super) fn name(&self) -> Arc<str> {
        match self {
            Self::Name(name) => name.clone().into(),
            Self::Target(upstream, id) => format!("{upstream}/{}", id.as_str()).into(),
        }
    }
}

/// A reading of what comes without a text, and without files beside it.
pub(super) fn reading<T>(read: impl FnOnce(&mut Reading<'_>) -> T) -> (T, Reading<'static>) {
    fn no_file(_: &str) -> Result<String, String> {
        Err("files are only for the configuration file; send the secret itself".to_owned())
    }
    let mut r = Reading::new(Format::Json, &no_file);
    (read(&mut r), r)
}

/// Finds out which resource a document is, and puts its identity where reading finds it. `given` is what the address says.
pub(super) fn identify(
    kind: ResourceKind,
    node: &mut Node,
    given: Option<&str>,
) -> Result<Identity, Mistake> {
    if let Value::Table(entries) = &mut node.value {
        entries.retain(|(key, _)| !BESIDE.contains(&key.text.as_str()));
    } else if kind != ResourceKind::Target {
        return Err(Mistake::new("", "a table of fields is expected"));
    }
    match kind {
        ResourceKind::Target => identify_target(node, given),
        _ => identify_named(node, given),
    }
}

fn identify_named(node: &mut Node, given: Option<&str>) -> Result<Identity, Mistake> {
    let typed = match node.entry("name").map(|name| &name.value) {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.clone()),
        Some(_) => return Err(Mistake::new("name", "expected text; for example \"main\"")),
    };
    let name = match (given, typed) {
        (Some(given), Some(typed)) if given != typed => {
            let message = "it is not the name in the address; make them the same, or leave it out";
            return Err(Mistake::new("name", message));
        }
        (Some(name), _) => name.to_owned(),
        (None, Some(name)) => name,
        (None, None) => {
            let message = "missing field `name`; add: \"name\": \"main\"";
            return Err(Mistake::new("name", message));
        }
    };
    let read = Name::new(&name).map_err(|wrong| {
        let help = wrong.help.unwrap_or_default();
        Mistake::new("name", format!("{}; {help}", wrong.message))
    })?;
    set_field(node, "name", &name);
    Ok(Identity::Name(read))
}

fn identify_target(node: &mut Node, given: Option<&str>) -> Result<Identity, Mistake> {
    let typed = |node: &Node, field: &str| {
        let typed = node.entry(field).and_then(Node::as_str);
        typed.map(str::to_owned)
    };
    let (upstream, id) = match given.and_then(|given| given.split_once('/')) {
        Some((upstream, id)) => (Some(upstream.to_owned()), Some(id.to_owned())),
        None => (typed(node, "upstream"), typed(node, "id")),
    };
    let Some(upstream) = upstream.and_then(|name| Name::new(&name).ok()) else {
        let message = "missing field `upstream`; add the name of the upstream that it joins";
        return Err(Mistake::new("upstream", message));
    };
    for (field, known) in [("upstream", Some(upstream.as_str())), ("id", id.as_deref())] {
        if let (Some(typed), Some(known)) = (typed(node, field), known)
            && typed != known
        {
            let message = "it is not the one in the address; make them the same, or leave it out";
            return Err(Mistake::new(field, message));
        }
    }
    if let Value::Table(entries) = &mut node.value {
        entries.retain(|(key, _)| !["upstream", "id"].contains(&key.text.as_str()));
    }
    let id = match id {
        Some(id) => tollgate_sdk::document::FromText::from_text(&id).map_err(|wrong| {
            let help = wrong.help.unwrap_or_default();
            Mistake::new("id", format!("{}; {help}", wrong.message))
        })?,
        None => {
            let read =
                reading(|r| <Target as tollgate_sdk::document::FromNode>::read(node, &At::ROOT, r));
            match read.0 {
                Some(target) => id_of(&target),
                None => return Err(Mistake::new("url", "a target's URL is expected")),
            }
        }
    };
    Ok(Identity::Target(upstream, id))
}

fn set_field(node: &mut Node, field: &str, text: &str) {
    let span = node.span;
    if let Value::Table(entries) = &mut node.value {
        entries.retain(|(key, _)| key.text != field);
        let key = tollgate_sdk::document::Key {
            span,
            text: field.to_owned(),
        };
        // No secret has a span without extent.
        let place = tollgate_sdk::document::Span {
            end: span.start,
            ..span
        };
        entries.push((key, Node::new(place, Value::String(text.to_owned()))));
    }
}

/// Reads a resource of the API.
///
/// # Errors
/// Every mistake in the document itself, its path below `prefix`.
pub(super) fn read(
    kind: ResourceKind,
    identity: &Identity,
    node: &Node,
    prefix: &str,
) -> Result<Resource, Vec<Mistake>> {
    let whose = match identity {
        Identity::Target(upstream, id) => Some((upstream, id)),
        Identity::Name(_) => None,
    };
    let (model, mut r) = reading(|r| {
        trees::refuse_references(node, &At::ROOT, r);
        Model::read(kind, node, whose, r)
    });
    let secrets: Arc<[_]> = std::mem::take(&mut r.masked).into();
    trees::refuse_stars(node, &At::ROOT, &secrets, &mut r);
    let errors = r.problems.iter();
    let errors = errors.filter(|problem| problem.severity == Severity::Error);
    let mistakes: Vec<Mistake> = errors.map(|problem| Mistake::of(problem, prefix)).collect();
    match model {
        Some(model) if mistakes.is_empty() => Ok(Resource {
            name: model.name(),
            model,
            owner: Owner::Api,
            revision: 0,
            typed: node.clone(),
            secrets,
        }),
        _ if mistakes.is_empty() => Err(vec![Mistake::new(prefix, "it cannot be read")]),
        _ => Err(mistakes),
    }
}
