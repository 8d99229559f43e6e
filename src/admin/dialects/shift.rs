//! From some objects to others: what came of both, and the difference as one change of native resources.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::HeaderValue;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tollgate_sdk::document::{FromNode, Node};

use super::super::reply;
use super::Answer;
use super::objects::{Fields, Object, Shelf};
use crate::config::foreign::{Converted, Fate, Note, Resource};
use crate::config::{Mistake, Model, Owner, ResourceKind, Set};
use crate::control::{Announced, ChangeError, Control, Edit, Expected, What};
use crate::model::KeyHash;

/// In how many fields an object is not taken as it is.
const NOTES: &str = "x-tollgate-notes";

/// A step from some objects, all that belong together, to others.
pub(super) struct Shift<'a> {
    pub(super) shelf: Shelf,
    pub(super) before: &'a [Object],
    pub(super) after: &'a [Object],
    /// The id of the object that it is about.
    pub(super) about: &'a str,
    pub(super) convert: fn(&[Object]) -> Converted,
}

/// What a step came to.
pub(super) struct Done {
    announced: Arc<Announced>,
    /// How many warnings there are of the object.
    warned: usize,
}

impl Done {
    /// With this status and, if there is one, this body.
    pub(super) fn answer(self, status: StatusCode, body: Option<Value>) -> Response {
        let mut response = match body {
            Some(body) => (status, axum::Json(body)).into_response(),
            None => status.into_response(),
        };
        if self.warned > 0 {
            let count = HeaderValue::from(self.warned);
            response.headers_mut().insert(NOTES, count);
        }
        response.extensions_mut().insert(self.announced);
        response
    }
}

impl Shift<'_> {
    /// Makes it, all of it or nothing.
    ///
    /// # Errors
    /// The answer that says why not; then nothing has changed.
    pub(super) async fn make(self, control: &Arc<Control>) -> Answer<Done> {
        let (mut old, mut new) = ((self.convert)(self.before), (self.convert)(self.after));
        for resource in old.resources.iter_mut().chain(&mut new.resources) {
            in_small_letters(&mut resource.body);
        }
        let refused = new.notes.iter().filter(|note| note.fate == Fate::Refused);
        let refused: Vec<Mistake> = refused.map(|note| self.mistake(note)).collect();
        if !refused.is_empty() {
            return Err(Box::new(reply::mistakes(&refused)));
        }
        let edits = edits(&control.resources(), &old.resources, &new.resources);
        let beside = self.shelf.changes(self.before, self.after);
        let changed = control.change_beside(edits, beside, Expected::Any).await;
        let changed = changed.map_err(|error| Box::new(self.told(&error)))?;
        Ok(Done {
            announced: changed.announced,
            warned: self.warn(&new.notes),
        })
    }

    fn told(&self, error: &ChangeError) -> Response {
        if let ChangeError::Broken | ChangeError::Store(_) = error {
            log::error!(target: "dialect", "{}: {error}", self.shelf.0);
        }
        reply::refused(error)
    }

    fn mistake(&self, note: &Note) -> Mistake {
        let path = match self.place(&note.path) {
            Some((object, rest)) if object.id == self.about => rest.to_owned(),
            Some((object, "")) => format!("{} {}", object.kind, object.called()),
            Some((object, rest)) => format!("{} {}: {rest}", object.kind, object.called()),
            None => note.path.clone(),
        };
        Mistake::new(path, note.message.clone())
    }

    /// The object that a path of the bundle is of, and its field.
    fn place<'s>(&'s self, path: &'s str) -> Option<(&'s Object, &'s str)> {
        let (list, rest) = path.split_once('[')?;
        let (index, rest) = rest.split_once(']')?;
        let kind = list.strip_suffix('s')?;
        let index: usize = index.parse().ok()?;
        let object = { self.after.iter() }.filter(|object| object.kind == kind);
        Some((object.clone().nth(index)?, rest.trim_start_matches('.')))
    }

    /// Says in the log what of the object is not as it was.
    fn warn(&self, notes: &[Note]) -> usize {
        let own = notes.iter().filter(|note| note.fate == Fate::Warned);
        let own = own.filter_map(|note| match self.place(&note.path)? {
            // The id is not its sender's to say twice.
            (object, field) if object.id == self.about && field != "id" => {
                Some((object, field, note))
            }
            _ => None,
        });
        let mut count = 0;
        for (object, field, note) in own {
            count += 1;
            log::warn!(
                target: "dialect",
                "{} {} {}: {field}: {}", self.shelf.0, object.kind, object.called(), note.message
            );
        }
        count
    }
}

/// Whether some gateway takes requests for every host.
pub(super) fn has_default(set: &Set) -> bool {
    let gateways = set.all(ResourceKind::Gateway).iter();
    { gateways }.any(|resource| match &resource.model {
        Model::Gateway(gateway) => {
            gateway.default || gateway.hosts.iter().any(|host| host.to_string() == "*")
        }
        _ => false,
    })
}

/// Objects as one document, list by list.
pub(super) fn bundle<'o>(objects: impl IntoIterator<Item = &'o Object>, lists: &[&str]) -> Value {
    let empty = lists.iter().map(|list| ((*list).to_owned(), json!([])));
    let mut bundle: Map<String, Value> = empty.collect();
    for object in objects {
        let list = bundle.get_mut(&format!("{}s", object.kind));
        if let Some(Value::Array(list)) = list {
            let mut sent = object.sent.clone();
            sent.insert("id".into(), object.id.clone().into());
            list.push(sent.into());
        }
    }
    bundle.into()
}

/// What leads from some native resources to others. What is there and stays is patched, so that only what differs is touched.
fn edits(set: &Set, old: &[Resource], new: &[Resource]) -> Vec<Edit> {
    let same = |a: &Resource, b: &Resource| a.kind == b.kind && name(a) == name(b);
    let mut edits = Vec::new();
    let mut edit = |resource: &Resource, what: What| {
        if let Some(kind) = ResourceKind::of(resource.kind) {
            let path = format!("{} {}", resource.kind, name(resource));
            edits.push(Edit { kind, path, what });
        }
    };
    for resource in old
        .iter()
        .filter(|old| !new.iter().any(|new| same(old, new)))
    {
        // Who took it away by our own API has done that already.
        if is_there(set, resource) {
            let name = name(resource).to_owned();
            edit(resource, What::Delete { name });
        }
    }
    for resource in new {
        let before = old.iter().find(|old| same(old, resource));
        match before {
            Some(before) if before.body == resource.body => {}
            // What was taken away natively, a key for instance, does not come back by itself.
            Some(_) if !is_there(set, resource) => {}
            Some(before) => {
                let what = What::Patch {
                    name: name(resource).to_owned(),
                    patch: difference(&before.body, &resource.body).into(),
                };
                edit(resource, what);
            }
            None => edit(resource, What::Create(Node::of(&made(resource).into()))),
        }
    }
    edits
}

fn name(resource: &Resource) -> &str {
    let name = resource.body.get("name").and_then(Value::as_str);
    name.unwrap_or_default()
}

fn is_there(set: &Set, resource: &Resource) -> bool {
    let kind = ResourceKind::of(resource.kind);
    let found = kind.and_then(|kind| set.get(kind, name(resource)));
    found.is_some_and(|found| found.owner == Owner::Api)
}

/// Of a key's secret only the hash is kept.
fn made(resource: &Resource) -> Fields {
    let mut body = resource.body.clone();
    if resource.kind == ResourceKind::Key.word()
        && let Some(Value::String(secret)) = body.remove("secret")
    {
        body.insert("hash".into(), KeyHash::of(secret.as_bytes()).value());
    }
    body
}

/// Names of headers as resources show them: a patch must not come to add a second one.
fn in_small_letters(fields: &mut Fields) {
    for (name, value) in fields.iter_mut() {
        let Value::Object(inner) = value else {
            continue;
        };
        match name.as_str() {
            "headers" => {
                let names = std::mem::take(inner).into_iter();
                *inner = { names }
                    .map(|(name, value)| (name.to_ascii_lowercase(), value))
                    .collect();
            }
            _ => in_small_letters(inner),
        }
    }
}

/// The merge patch that leads from one table to another.
fn difference(old: &Fields, new: &Fields) -> Fields {
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let mut patch: Fields = gone.map(|name| (name.clone(), Value::Null)).collect();
    for (name, value) in new {
        match (old.get(name), value) {
            (Some(before), value) if before == value => {}
            (Some(Value::Object(before)), Value::Object(value)) => {
                patch.insert(name.clone(), difference(before, value).into());
            }
            (_, value) => drop(patch.insert(name.clone(), value.clone())),
        }
    }
    patch
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_patch_says_only_what_differs() {
        let fields = |value: Value| value.as_object().unwrap().clone();
        let old = fields(json!({"a": 1, "b": {"c": 1, "d": [1]}, "e": {"f": 1}, "g": 1}));
        let new = fields(json!({"a": 1, "b": {"c": 2, "d": [1]}, "e": [2], "h": {"i": 1}}));
        let patch = json!({"b": {"c": 2}, "e": [2], "g": null, "h": {"i": 1}});
        assert_eq!(Value::from(difference(&old, &new)), patch);
        assert!(difference(&new, &new).is_empty());
    }
}
