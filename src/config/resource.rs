//! One resource by itself, as the admin API gets it and the store keeps it: a tree to what it says.

use std::sync::Arc;

use tollgate_sdk::document::{
    At, Format, FromNode, FromText, Node, Problem, Reading, Severity, Value,
};

use super::kinds::{Model, ResourceKind};
use super::set::{Owner, Resource, id_of};
use super::{scaled, trees};
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
///
/// # Errors
/// Every mistake in that. What else is wrong with the document is for [`rest`] to tell, also why a target has no URL to be known by.
pub(super) fn identify(
    kind: ResourceKind,
    node: &mut Node,
    given: Option<&str>,
) -> Result<Identity, Vec<Mistake>> {
    if let Value::Table(entries) = &mut node.value {
        entries.retain(|(key, _)| !BESIDE.contains(&key.text.as_str()));
    } else if kind != ResourceKind::Target {
        return Err(vec![Mistake::new("", "a table of fields is expected")]);
    }
    match kind {
        ResourceKind::Target => identify_target(node, given),
        _ => identify_named(node, given).map_err(|wrong| vec![wrong]),
    }
}

/// The upstream that a target would join, whatever else is wrong with its document.
pub(super) fn joined(kind: ResourceKind, node: &Node, given: Option<&str>) -> Option<Name> {
    if kind != ResourceKind::Target {
        return None;
    }
    let given = given.and_then(|given| given.split_once('/'));
    let name = match given {
        Some((upstream, _)) => upstream,
        None => node.entry("upstream")?.as_str()?,
    };
    Name::new(name).ok()
}

/// The mistakes in a document that does not say which resource it is, other than that.
pub(super) fn rest(kind: ResourceKind, mut node: Node, prefix: &str) -> Vec<Mistake> {
    if kind != ResourceKind::Target {
        if node.as_table().is_none() {
            return Vec::new();
        }
        set_field(&mut node, "name", Name::numbered(kind.word(), 0).as_str());
    }
    mistakes(&try_read(kind, &node, None).1, prefix)
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

fn identify_target(node: &mut Node, given: Option<&str>) -> Result<Identity, Vec<Mistake>> {
    let given = given.and_then(|given| given.split_once('/'));
    let upstream = taken(node, "upstream", given.map(|(upstream, _)| upstream));
    let upstream = upstream.and_then(|name| {
        let read = name.and_then(|name| Name::new(&name).ok());
        let message = "missing field `upstream`; add the name of the upstream that it joins";
        read.ok_or_else(|| Mistake::new("upstream", message))
    });
    let id = taken(node, "id", given.map(|(_, id)| id));
    let id = id.and_then(|id| {
        let read = id.map(|id| TargetId::from_text(&id)).transpose();
        read.map_err(|wrong| {
            let help = wrong.help.unwrap_or_default();
            Mistake::new("id", format!("{}; {help}", wrong.message))
        })
    });
    match (upstream, id) {
        (Ok(upstream), Ok(Some(id))) => Ok(Identity::Target(upstream, id)),
        (Ok(upstream), Ok(None)) => {
            let (target, _) = reading(|r| <Target as FromNode>::read(node, &At::ROOT, r));
            let id = target.map(|target| id_of(&target)).ok_or_else(Vec::new)?;
            Ok(Identity::Target(upstream, id))
        }
        (upstream, id) => Err(upstream.err().into_iter().chain(id.err()).collect()),
    }
}

/// Takes a field by which a target is known out of its document. `given` is what the address says.
fn taken(node: &mut Node, field: &str, given: Option<&str>) -> Result<Option<String>, Mistake> {
    let typed = node.entry(field).map(|typed| typed.value.clone());
    if let Value::Table(entries) = &mut node.value {
        entries.retain(|(key, _)| key.text != field);
    }
    let message = match (typed, given) {
        (None | Some(Value::Null), given) => return Ok(given.map(str::to_owned)),
        (Some(Value::String(typed)), given) if given.is_none_or(|given| given == typed) => {
            return Ok(Some(typed));
        }
        (Some(_), Some(_)) => {
            "it is not the one in the address; make them the same, or leave it out"
        }
        (Some(_), None) => "expected text; for example \"gpu-1\"",
    };
    Err(Mistake::new(field, message))
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
    let (model, mut r) = try_read(kind, node, whose);
    let secrets: Arc<[_]> = std::mem::take(&mut r.masked).into();
    trees::refuse_stars(node, &At::ROOT, &secrets, &mut r);
    let mistakes = mistakes(&r, prefix);
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

fn try_read(
    kind: ResourceKind,
    node: &Node,
    whose: Option<(&Name, &TargetId)>,
) -> (Option<Model>, Reading<'static>) {
    reading(|r| {
        trees::refuse_references(node, &At::ROOT, r);
        let model = Model::read(kind, node, whose, r);
        if let Some(Model::Service(service)) = &model {
            scaled::refuse_of_the_machine(service, node, r);
        }
        model
    })
}

fn mistakes(r: &Reading<'_>, prefix: &str) -> Vec<Mistake> {
    let errors = r.problems.iter();
    let errors = errors.filter(|problem| problem.severity == Severity::Error);
    errors.map(|problem| Mistake::of(problem, prefix)).collect()
}
