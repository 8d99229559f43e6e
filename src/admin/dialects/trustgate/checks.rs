//! What the conversion of a tenant cannot see, because it has no server's view: references, names and paths that are taken, and what is in use.

use serde_json::Value;

use super::super::Answer;
use super::super::objects::{Object, exists, in_use, wrong};
use super::Kind;

/// Whether an object can be true beside the others.
pub(super) fn is_sound(all: &[Object], object: &Object, kind: Kind) -> Answer<()> {
    match kind {
        Kind::Gateway | Kind::Key => Ok(()),
        Kind::Upstream => is_called_alone(all, object),
        Kind::Service => refers(all, object, &["upstream_id", "upstream"], Kind::Upstream),
        Kind::Rule => {
            refers(all, object, &["service_id", "service"], Kind::Service)?;
            has_its_paths_alone(all, object)
        }
    }
}

/// Others of the same kind and gateway.
fn beside<'o>(all: &'o [Object], object: &'o Object) -> impl Iterator<Item = &'o Object> {
    let same = |other: &&Object| other.kind == object.kind && other.of == object.of;
    { all.iter().filter(same) }.filter(|other| other.id != object.id)
}

fn is_called_alone(all: &[Object], object: &Object) -> Answer<()> {
    match beside(all, object).find(|other| other.text("name") == object.text("name")) {
        Some(other) if other.text("name").is_some() => {
            let (kind, name) = (&object.kind, other.called());
            Err(exists(&format!("there is already the {kind} {name}")))
        }
        _ => Ok(()),
    }
}

/// The id or name that one of these fields names.
fn named<'o>(object: &'o Object, names: &[&str]) -> Option<&'o str> {
    let found = { names.iter() }.find_map(|name| object.text(name));
    found.filter(|found| !found.is_empty())
}

fn is(object: &Object, id: &str) -> bool {
    object.id == id || object.text("name") == Some(id)
}

/// Whether what a field names is there.
fn refers(all: &[Object], object: &Object, names: &[&str], kind: Kind) -> Answer<()> {
    let Some(id) = named(object, names) else {
        return Ok(());
    };
    let own = |other: &&Object| other.kind == kind.word() && other.of == object.of;
    match { all.iter() }.filter(own).any(|other| is(other, id)) {
        true => Ok(()),
        false => {
            let (field, word) = (names.first().copied().unwrap_or_default(), kind.word());
            let why = format!("the gateway has no such {word}; make it first");
            Err(wrong(field, &why))
        }
    }
}

/// The paths of a rule, without the names of their parameters.
fn paths(rule: &Object) -> Vec<String> {
    let more = rule.sent.get("paths").and_then(Value::as_array);
    let all = rule.sent.get("path").into_iter();
    let all = all.chain(more.into_iter().flatten());
    all.filter_map(Value::as_str).map(without_names).collect()
}

fn without_names(path: &str) -> String {
    let segments = path.split('/').map(|segment| {
        let parameter = segment.starts_with('{') && segment.ends_with('}');
        if parameter { "{}" } else { segment }
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Methods do not tell rules apart, nor do the names of parameters.
fn has_its_paths_alone(all: &[Object], object: &Object) -> Answer<()> {
    let own = paths(object);
    for other in beside(all, object) {
        if let Some(path) = paths(other).iter().find(|path| own.contains(path)) {
            let why = format!("the rule {} has the path {path} already", other.called());
            return Err(exists(&why));
        }
    }
    Ok(())
}

/// Whether nobody refers to an object.
pub(super) fn is_unused(all: &[Object], object: &Object) -> Answer<()> {
    let refers = |other: &&Object| {
        let named = |names: &[&str]| named(other, names).is_some_and(|id| is(object, id));
        match (object.kind.as_str(), other.kind.as_str()) {
            ("upstream", "service") => named(&["upstream_id", "upstream"]),
            ("service", "rule") => named(&["service_id", "service"]),
            ("rule", "key") => {
                let policies = other.sent.get("policies").and_then(Value::as_array);
                let mut policies = policies.into_iter().flatten().filter_map(Value::as_str);
                policies.any(|id| is(object, id))
            }
            _ => false,
        }
    };
    let mut others = all.iter().filter(|other| other.of == object.of);
    match others.find(refers) {
        None => Ok(()),
        Some(other) => {
            let (kind, by) = (&object.kind, format!("{} {}", other.kind, other.called()));
            let why = format!("the {kind} is in use by the {by}; take it out there first");
            Err(in_use(&why))
        }
    }
}
