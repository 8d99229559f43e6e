//! The resources of a tree by kind and name, for checks that concern more than one.
//!
//! They work on the tree rather than on what was read from it: places are at hand, and a resource with a mistake is
//! still there for others to refer to. Every look-up is by an index, so that a check of all is linear in their number.

use std::collections::HashMap;
use std::ops::Range;

use tollgate_sdk::document::{At, Key, Node, Quoted, Span, Value};

use super::diagnostic::line_and_column;
use crate::model::{KINDS, Name};

/// One resource.
pub(super) struct Entry<'n> {
    pub(super) kind: &'static str,
    /// Its place among those of its kind.
    pub(super) index: usize,
    pub(super) node: &'n Node,
    /// The given name or, of kinds that may go without, the one made for it. None if it is wrong.
    pub(super) name: Option<Name>,
}

/// A text in a resource, with the index it has in a list.
pub(super) struct Text<'n> {
    pub(super) text: &'n str,
    pub(super) span: Span,
    pub(super) index: Option<usize>,
    /// The field that holds it, where it stands in a table.
    pub(super) inner: Option<&'n str>,
}

impl Text<'_> {
    /// Calls `f` with its path, that of the field it belongs to being `at`.
    pub(super) fn at<T>(&self, at: &At<'_>, f: impl FnOnce(&At<'_>) -> T) -> T {
        let indexed = self.index.map(|index| at.index(index));
        let at = indexed.as_ref().unwrap_or(at);
        match self.inner {
            Some(inner) => f(&at.field(inner)),
            None => f(at),
        }
    }
}

impl<'n> Entry<'n> {
    /// The text of a field, or those of a list; of tables in it, the text of `inner`.
    pub(super) fn texts(&self, field: &str, inner: &'n str) -> Vec<Text<'n>> {
        let Some(node) = self.node.entry(field) else {
            return Vec::new();
        };
        let (items, listed) = match node.as_list() {
            Some(items) => (items, true),
            None => (std::slice::from_ref(node), false),
        };
        let text = |(index, item): (usize, &'n Node)| {
            let (item, inner) = match item.as_table() {
                Some(_) => (item.entry(inner)?, Some(inner)),
                None => (item, None),
            };
            Some(Text {
                text: item.as_str()?,
                span: item.span,
                index: listed.then_some(index),
                inner,
            })
        };
        items.iter().enumerate().filter_map(text).collect()
    }

    /// The text of a field.
    pub(super) fn text(&self, field: &str) -> Option<Text<'n>> {
        self.texts(field, "")
            .into_iter()
            .find(|text| text.index.is_none())
    }

    /// Whether a field was given as anything but nothing.
    pub(super) fn has(&self, field: &str) -> bool {
        match self.node.entry(field).map(|node| &node.value) {
            None | Some(Value::Null) => false,
            Some(Value::List(items)) => !items.is_empty(),
            Some(_) => true,
        }
    }

    /// Whether the name was given rather than made: what was made stands where the resource does.
    pub(super) fn is_named(&self) -> bool {
        self.span() != self.node.span
    }

    /// What to point at for the resource as a whole: its name, or else all of it.
    pub(super) fn span(&self) -> Span {
        self.node
            .entry("name")
            .map_or(self.node.span, |name| name.span)
    }

    /// Calls `f` with the path of the resource.
    pub(super) fn at<T>(&self, f: impl FnOnce(&At<'_>) -> T) -> T {
        f(&At::ROOT.field(self.kind).index(self.index))
    }

    /// Whether this resource bears the name.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.as_str() == name)
    }
}

/// Every resource of a configuration.
pub(super) struct Sections<'n> {
    /// By kind, those of a kind in the order in which they are to be blamed: of two that cannot be true together, the later one.
    entries: Vec<Entry<'n>>,
    ranges: HashMap<&'static str, Range<usize>>,
    /// The first of each kind and name.
    names: HashMap<&'static str, HashMap<Name, usize>>,
    /// What the places are in, if they are in one text.
    text: Option<&'n str>,
}

impl<'n> Sections<'n> {
    /// The resources of a file.
    pub(super) fn of(root: &'n Node, text: &'n str) -> Self {
        let mut entries = Vec::new();
        for kind in &KINDS {
            let nodes = root
                .entry(kind.name)
                .and_then(Node::as_list)
                .unwrap_or_default();
            for (index, node) in nodes.iter().enumerate() {
                let name = name_of(kind.name, index, node);
                let kind = kind.name;
                entries.push(Entry {
                    kind,
                    index,
                    node,
                    name,
                });
            }
        }
        Self::new(entries, Some(text))
    }

    /// These resources, those of a kind side by side.
    pub(super) fn new(entries: Vec<Entry<'n>>, text: Option<&'n str>) -> Self {
        let mut ranges: HashMap<&'static str, Range<usize>> = HashMap::new();
        let mut names: HashMap<&'static str, HashMap<Name, usize>> = HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            ranges.entry(entry.kind).or_insert(at..at).end = at + 1;
            if let Some(name) = &entry.name {
                let of_kind = names.entry(entry.kind).or_default();
                of_kind.entry(name.clone()).or_insert(at);
            }
        }
        Self {
            entries,
            ranges,
            names,
            text,
        }
    }

    /// The resources of a kind.
    pub(super) fn all(&self, kind: &str) -> impl Iterator<Item = &Entry<'n>> {
        let range = self.ranges.get(kind).cloned().unwrap_or_default();
        self.entries.get(range).unwrap_or_default().iter()
    }

    /// The resource of this kind and name; of several, the first.
    pub(super) fn find(&self, kind: &str, name: &str) -> Option<&Entry<'n>> {
        self.entries.get(*self.names.get(kind)?.get(name)?)
    }

    /// The names of a kind.
    pub(super) fn names(&self, kind: &str) -> Vec<&str> {
        self.all(kind)
            .filter_map(|entry| entry.name.as_ref())
            .map(Name::as_str)
            .collect()
    }

    /// Where something of a resource is, as a user finds it: by its place or, where it has none, by the resource's name.
    pub(super) fn place(&self, entry: &Entry<'_>, span: Span) -> String {
        match self.text {
            Some(text) => place(text, span),
            None => {
                let name = entry.name.as_ref().map_or("…", |name| name.as_str());
                format!("in {} {}", entry.kind, Quoted(name))
            }
        }
    }
}

/// Where something is in a text.
pub(super) fn place(text: &str, span: Span) -> String {
    let (line, column) = line_and_column(text, span.start);
    format!("at {line}:{column}")
}

fn name_of(kind: &str, index: usize, node: &Node) -> Option<Name> {
    match node.entry("name") {
        Some(name) => Name::new(name.as_str()?).ok(),
        None => match kind {
            "rule" => Some(Name::numbered(kind, index + 1)),
            "listener" => Name::from_any(node.entry("address")?.as_str()?, ""),
            _ => None,
        },
    }
}

/// Gives names to resources that may go without, so that reading finds them.
pub(super) fn fill_names(root: &mut Node) {
    let Value::Table(sections) = &mut root.value else {
        return;
    };
    for (section, node) in sections {
        let Value::List(items) = &mut node.value else {
            continue;
        };
        for (index, item) in items.iter_mut().enumerate() {
            let name = match name_of(&section.text, index, item) {
                Some(name) if item.entry("name").is_none() => name,
                _ => continue,
            };
            let span = item.span;
            if let Value::Table(entries) = &mut item.value {
                let key = Key {
                    span,
                    text: "name".into(),
                };
                entries.push((key, Node::new(span, Value::String(name.to_string()))));
            }
        }
    }
}
