//! Names that must refer to something, and names that may be given once.

use tollgate_sdk::document::{Node, Quoted, Reading, suggest};

use super::sections::{Entry, Sections};
use crate::model::{Config, KINDS, Name};

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
        let known = sections.names(of);
        for entry in sections.all(kind) {
            refer(entry, field, of, &known, r);
        }
    }
}

/// Reports services that plugins name and nobody offers.
pub(super) fn of_plugins(config: &Config, sections: &Sections<'_>, r: &mut Reading<'_>) {
    let known = sections.names("service");
    // Everything was read, so all are in the order of the file.
    let gateways = sections
        .all("gateway")
        .zip(config.gateways.iter().map(|g| &g.plugins));
    let services = sections
        .all("service")
        .zip(config.services.iter().map(|s| &s.plugins));
    let rules = sections
        .all("rule")
        .zip(config.rules.iter().map(|rule| &rule.plugins));
    for (entry, plugins) in gateways.chain(services).chain(rules) {
        let nodes = entry.node.entry("plugins").and_then(Node::as_list);
        let nodes = nodes.unwrap_or_default();
        for (index, (plugin, node)) in plugins.iter().zip(nodes).enumerate() {
            let named = plugin
                .settings
                .settings()
                .map(|settings| settings.services());
            for name in named.unwrap_or_default() {
                if known.contains(&name.as_str()) {
                    continue;
                }
                let message = format!("there is no service {}", Quoted(name));
                let help = suggest(name, &known, "services");
                entry.at(|at| {
                    let at = at.field("plugins");
                    r.error(node.span, &at.index(index).field("settings"), message, help);
                });
            }
        }
    }
}

fn refer(entry: &Entry<'_>, field: &str, of: &str, known: &[&str], r: &mut Reading<'_>) {
    for text in entry.texts(field, "name") {
        // What is no name was reported when it was read.
        if known.contains(&text.text) || Name::new(text.text).is_err() {
            continue;
        }
        entry.at(|at| {
            let at = at.field(field);
            let indexed = text.index.map(|index| at.index(index));
            let message = format!("there is no {of} {}", Quoted(text.text));
            let help = suggest(text.text, known, &format!("{of}s"));
            r.error(text.span, indexed.as_ref().unwrap_or(&at), message, help);
        });
    }
}

fn unique(sections: &Sections<'_>, kind: &str, r: &mut Reading<'_>) {
    let entries: Vec<_> = sections
        .all(kind)
        .filter(|entry| entry.name.is_some())
        .collect();
    for (index, entry) in entries.iter().enumerate() {
        let first = entries
            .iter()
            .take(index)
            .find(|first| first.name == entry.name);
        let (Some(first), Some(name)) = (first, &entry.name) else {
            continue;
        };
        if !first.is_named() && !entry.is_named() {
            continue;
        }
        let message = format!("there is already a {kind} {}", Quoted(name.as_str()));
        let help = format!(
            "give it another name; the first is at {}",
            sections.place(first.span())
        );
        entry.at(|at| r.error(entry.span(), &at.field("name"), message, help));
    }
}
