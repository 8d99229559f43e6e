//! One document to its resources: alone with `kind`, a list, `items`, the sections of a configuration file, or another system's.

use std::rc::Rc;

use serde_json::{Map, Value};
use tollgate_sdk::document::{At, FromText, Key, Node, Reading, Span, Value as Typed, suggest};

use super::fill::Fill;
use super::source::Source;
use super::{Resource, Told};
use crate::cli::foreign::report;
use crate::cli::kind::Kind;
use crate::config::foreign::{self, Options};
use crate::config::{
    Diagnostics, interpolate, keep_references, mask_by_name, mask_lines, read_secret, read_tree,
};
use crate::model::{KINDS, KeyHash, Name, TABLES};

/// A resource of a native document.
struct Found {
    kind: Kind,
    name: String,
    body: Map<String, Value>,
    node: Node,
}

/// A document's text, for showing what is wrong in it.
pub(super) struct Text {
    pub(super) name: String,
    pub(super) text: String,
    /// What may not be shown.
    pub(super) masked: Vec<Span>,
}

impl Source {
    /// Reads all its documents.
    pub(super) fn read(&self, options: &Options) -> Result<Vec<Resource>, Told> {
        let parts = self.parts();
        if let Some(converted) = self.foreign(&parts, options) {
            return converted;
        }
        // All of them, so that every mistake is told.
        let read = |part: &String| match self.foreign(std::slice::from_ref(part), options) {
            Some(converted) => converted,
            None => self.native(part),
        };
        let read: Vec<_> = parts.iter().map(read).collect();
        let mut resources = Vec::new();
        for part in read {
            resources.append(&mut part?);
        }
        Ok(resources)
    }

    /// These documents, if all of them are another system's: they may refer to each other.
    fn foreign(&self, parts: &[String], options: &Options) -> Option<Result<Vec<Resource>, Told>> {
        let read = |part: &String| foreign::read(&self.name, part, self.format);
        let mut documents: Vec<Value> = parts.iter().map(read).collect::<Result<_, _>>().ok()?;
        documents.retain(|document| document.as_object().is_none_or(|fields| !fields.is_empty()));
        let document = match documents.len() {
            1 => documents.pop()?,
            _ => documents.into(),
        };
        let converted = foreign::convert(&document, options)?;
        report(&self.name, &converted);
        Some(match converted.is_refused() {
            true => Err(Told),
            false => Ok({ converted.resources.into_iter() }
                .filter_map(of_foreign)
                .collect()),
        })
    }

    fn native(&self, text: &str) -> Result<Vec<Resource>, Told> {
        let read_file = |file: &str| read_secret(&self.folder.join(file));
        let mut r = Reading::new(self.format, &read_file);
        let found = native(text, &mut r);
        let failed = r.failed();
        keep_references(text, &mut r.masked);
        let masked = r.masked.clone();
        let told = Diagnostics::new(&self.name, text, r.problems, r.masked);
        if !told.is_empty() {
            eprintln!("{told}");
        }
        if failed {
            return Err(Told);
        }
        let text = Rc::new(Text {
            name: self.name.clone(),
            text: text.to_owned(),
            masked,
        });
        let resource = |found: Found| Resource {
            kind: found.kind,
            name: found.name,
            body: found.body,
            typed: Some((text.clone(), found.node)),
        };
        Ok(found.into_iter().map(resource).collect())
    }
}

fn of_foreign(resource: foreign::Resource) -> Option<Resource> {
    let kind = Kind::of_resource(resource.kind)?;
    let mut body = resource.body;
    // Who brings keys along from elsewhere goes on using them; the gateway needs only the hash.
    if kind == Kind::Key
        && let Some(Value::String(secret)) = body.remove("secret")
    {
        let hash = KeyHash::of(secret.as_bytes()).to_text();
        body.insert("hash".into(), hash.into());
    }
    Some(Resource {
        kind,
        name: body.get("name")?.as_str()?.to_owned(),
        body,
        typed: None,
    })
}

fn native(text: &str, r: &mut Reading<'_>) -> Vec<Found> {
    let Some(mut root) = read_tree(text, r.format, r) else {
        mask_lines(text, &mut r.masked);
        return Vec::new();
    };
    mask_by_name(&root, &mut r.masked);
    interpolate(&mut root, text, &|name| std::env::var(name).ok(), r);
    let mut found = Vec::new();
    if let Some(items) = root.as_list() {
        list(items, &At::ROOT, &mut found, r);
    } else if let Some(entries) = root.as_table() {
        match (kind_of(&root), root.entry("items").and_then(Node::as_list)) {
            (Some(_), _) => found.extend(one(&root, &At::ROOT, r)),
            (None, Some(items)) => list(items, &At::ROOT.field("items"), &mut found, r),
            (None, None) if entries.is_empty() => {}
            (None, None) => sections(entries, &mut found, r),
        }
    } else {
        let help = "write kind, name and its fields, or the sections of a configuration file";
        r.error(root.span, &At::ROOT, "expected a resource", help);
    }
    found
}

fn list(items: &[Node], at: &At<'_>, found: &mut Vec<Found>, r: &mut Reading<'_>) {
    for (index, item) in items.iter().enumerate() {
        found.extend(one(item, &at.index(index), r));
    }
}

/// The field that says which kind a resource is: `kind`, or `type` if that names one.
fn kind_of(node: &Node) -> Option<(&'static str, &Node)> {
    if let Some(kind) = node.entry("kind") {
        return Some(("kind", kind));
    }
    let kind = node.entry("type")?;
    Kind::of_resource(kind.as_str()?).map(|_| ("type", kind))
}

/// A resource that says which kind it is.
fn one(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Found> {
    let Some((field, named)) = kind_of(node) else {
        let help = format!("add the field kind, for example: {}", example(r));
        r.error(
            node.span,
            at,
            "it is not said which kind of resource this is",
            help,
        );
        return None;
    };
    let Some(kind) = named.as_str().and_then(Kind::of_resource) else {
        let found = named.as_str().unwrap_or_default();
        let message = match found {
            "listener" => "listeners are not applied: they stand in the process's own file".into(),
            _ => format!("there is no kind {}", named.quoted()),
        };
        r.error(
            named.span,
            &at.field(field),
            message,
            suggest(found, &applicable(), "kinds"),
        );
        return None;
    };
    resource(kind, node, Some(field), at, r)
}

fn example(r: &Reading<'_>) -> String {
    r.format.field("kind", &"service".into())
}

fn applicable() -> Vec<&'static str> {
    let names = KINDS.iter().map(|kind| kind.name);
    names
        .filter(|name| Kind::of_resource(name).is_some())
        .collect()
}

/// What a configuration file holds. The process's own tables cannot be applied, and are told of.
fn sections(entries: &[(Key, Node)], found: &mut Vec<Found>, r: &mut Reading<'_>) {
    let known = |name: &str| {
        let mut all = KINDS.iter().chain(&TABLES);
        all.any(|kind| kind.name == name)
    };
    if !entries.iter().any(|(key, _)| known(&key.text)) {
        let help = format!("add the field kind, for example: {}", example(r));
        let span = entries.first().map_or(Span::default(), |(key, _)| key.span);
        r.error(
            span,
            &At::ROOT,
            "it is not said which kind of resource this is",
            help,
        );
        return;
    }
    for (key, node) in entries {
        let at = At::ROOT.field(&key.text);
        match (Kind::of_resource(&key.text), node.as_list()) {
            (Some(kind), Some(items)) => {
                for (index, item) in items.iter().enumerate() {
                    let item = &named(kind, index, item);
                    found.extend(resource(kind, item, None, &at.index(index), r));
                }
            }
            (Some(_), None) => {
                r.expected(node, &at, "a list", &serde_json::json!([{"name": "main"}]));
            }
            (None, _) if known(&key.text) => {
                let help =
                    "it belongs to the process's own file, which `tollgate reload` reads again";
                r.warn(key.span, &at, "left out", help);
            }
            (None, _) => {
                let names = { KINDS.iter().chain(&TABLES) }.map(|kind| kind.name);
                let help = suggest(&key.text, &names.collect::<Vec<_>>(), "sections");
                r.error(key.span, &at, "unknown section", help);
            }
        }
    }
}

/// Rules of a file may go without a name; they get the one the file would give them.
fn named(kind: Kind, index: usize, item: &Node) -> Node {
    let mut item = item.clone();
    let is_named = item.entry("name").is_some();
    let span = item.span;
    if let (Kind::Rule, false, Typed::Table(entries)) = (kind, is_named, &mut item.value) {
        let name = Name::numbered(kind.name(), index + 1).to_string();
        let key = Key {
            span,
            text: "name".into(),
        };
        let name = Typed::String(name);
        entries.push((key, Node::new(span, name)));
    }
    item
}

fn resource(
    kind: Kind,
    node: &Node,
    kind_field: Option<&str>,
    at: &At<'_>,
    r: &mut Reading<'_>,
) -> Option<Found> {
    let Some(entries) = node.as_table() else {
        r.expected(node, at, "a resource", &serde_json::json!({"name": "main"}));
        return None;
    };
    let Some(name) = node.entry("name") else {
        let help = format!("for example: {}", r.format.field("name", &"main".into()));
        r.error(node.span, at, "missing field `name`", help);
        return None;
    };
    let Some(name) = name.as_str() else {
        r.expected(name, &at.field("name"), "a name", &"main".into());
        return None;
    };
    let told = r.problems.len();
    let schema = { KINDS.iter() }.find(|known| known.name == kind.name());
    let schema = schema.map(|known| (known.schema)()).unwrap_or_default();
    let fill = Fill::new(&schema);
    let mut body = Map::new();
    for (key, value) in entries {
        if Some(key.text.as_str()) != kind_field {
            let value = fill.field(&key.text, value, &at.field(&key.text), r);
            body.insert(key.text.clone(), value);
        }
    }
    if r.problems.len() > told {
        return None;
    }
    body.insert("name".into(), Value::from(name));
    Some(Found {
        kind,
        name: name.to_owned(),
        body,
        node: node.clone(),
    })
}
