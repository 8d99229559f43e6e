//! Names that must refer to something, and names that may be given once.

use std::collections::{HashMap, HashSet};

use tollgate_sdk::document::{Node, Quoted, Reading, suggest};

use super::sections::{Entry, Sections};
use crate::model::{KINDS, Name, Plugin};

/// Which field of which kind names resources of which kind.
const REFERENCES: [(&str, &str, &str); 10] = [
    ("service", "gateways", "gateway"),
    ("service", "upstream", "upstream"),
    ("service", "fallback", "service"),
    ("gateway", "fallback", "service"),
    ("rule", "gateway", "gateway"),
    ("rule", "services", "service"),
    ("rule", "fallback", "service"),
    ("key", "gateway", "gateway"),
    ("key", "services", "service"),
    ("key", "rules", "rule"),
];

/// Reports names that refer to nothing and names that are given twice.
pub(super) fn check(sections: &Sections<'_>, r: &mut Reading<'_>) {
    for kind in &KINDS {
        unique(sections, kind.name, r);
    }
    for (kind, field, of) in REFERENCES {
        for entry in sections.all(kind) {
            refer(entry, field, of, sections, r);
        }
    }
}

/// The kinds of resources that have chains of plugins.
const CHAINED: [&str; 3] = ["gateway", "service", "rule"];

/// Reports services that plugins name and nobody offers. `named`: those that the plugins of an entry name, as [`named_by`] has them.
pub(super) fn of_plugins(
    sections: &Sections<'_>,
    named: impl Fn(&Entry<'_>) -> Vec<(usize, String)>,
    r: &mut Reading<'_>,
) {
    for entry in CHAINED.iter().flat_map(|kind| sections.all(kind)) {
        for (index, name) in named(entry) {
            if sections.find("service", &name).is_some() {
                continue;
            }
            let nodes = entry.node.entry("plugins").and_then(Node::as_list);
            let node = nodes.and_then(|nodes| nodes.get(index));
            let span = node.map_or(entry.node.span, |node| node.span);
            let settings = node.and_then(|node| node.entry("settings")?.as_table());
            let mut fields = settings.unwrap_or_default().iter();
            let field = fields.find(|(_, value)| value.as_str() == Some(&name));
            let message = format!("there is no service {}", Quoted(&name));
            let help = suggest(&name, &sections.names("service"), "services");
            entry.at(|at| {
                let at = at.field("plugins");
                let at = at.index(index);
                let at = at.field("settings");
                match field {
                    Some((key, value)) => r.error(value.span, &at.field(&key.text), message, help),
                    None => r.error(span, &at, message, help),
                }
            });
        }
    }
}

/// The services that plugins name, each with the place of its plugin in the chain.
pub(super) fn named_by<'p>(
    plugins: impl IntoIterator<Item = (usize, &'p Plugin)>,
) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (index, plugin) in plugins {
        let settings = plugin.settings.settings();
        let services = settings.map_or(&[][..], |settings| settings.services());
        named.extend(services.iter().map(|name| (index, name.clone())));
    }
    named
}

/// Who refers to resources that are gone: each of those, and the entry that names it.
pub(super) fn to<'s, 'n>(
    gone: &HashSet<(&'static str, &str)>,
    sections: &'s Sections<'n>,
    named: impl Fn(&Entry<'_>) -> Vec<(usize, String)>,
) -> Vec<(&'static str, String, &'s Entry<'n>)> {
    let mut found = Vec::new();
    for (kind, field, of) in REFERENCES {
        for entry in sections.all(kind) {
            for text in entry.texts(field, "name") {
                if gone.contains(&(of, text.text)) {
                    found.push((of, text.text.to_owned(), entry));
                }
            }
        }
    }
    for entry in CHAINED.iter().flat_map(|kind| sections.all(kind)) {
        for (_, name) in named(entry) {
            if gone.contains(&("service", name.as_str())) {
                found.push(("service", name, entry));
            }
        }
    }
    found
}

fn refer(
    entry: &Entry<'_>,
    field: &str,
    of: &'static str,
    sections: &Sections<'_>,
    r: &mut Reading<'_>,
) {
    for text in entry.texts(field, "name") {
        // What is no name was reported when it was read.
        if sections.find(of, text.text).is_some() || Name::new(text.text).is_err() {
            continue;
        }
        let message = format!("there is no {of} {}", Quoted(text.text));
        let help = suggest(text.text, &sections.names(of), &format!("{of}s"));
        entry.at(|at| text.at(&at.field(field), |at| r.error(text.span, at, message, help)));
    }
}

fn unique(sections: &Sections<'_>, kind: &str, r: &mut Reading<'_>) {
    let mut seen: HashMap<&Name, &Entry<'_>> = HashMap::new();
    for entry in sections.all(kind) {
        let Some(name) = &entry.name else {
            continue;
        };
        let first = *seen.entry(name).or_insert(entry);
        if first.index == entry.index || !first.is_named() && !entry.is_named() {
            continue;
        }
        let message = format!("there is already a {kind} {}", Quoted(name.as_str()));
        let help = format!(
            "give it another name; the first is {}",
            sections.place(first, first.span())
        );
        entry.at(|at| r.error(entry.span(), &at.field("name"), message, help));
    }
}
