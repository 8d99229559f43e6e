//! Lists of services for fallback: what can never be tried, or will hardly answer what was asked.
//!
//! That the names are names of services is checked by `references`.

use std::collections::HashSet;

use tollgate_sdk::document::{Quoted, Reading, Severity};

use super::sections::{Entry, Sections, Text};
use crate::model::ServiceKind;

/// The kinds of resources that have such a list.
pub(super) const KINDS: [&str; 3] = ["service", "gateway", "rule"];

/// Reports services that cannot follow, and such as are given in vain.
pub(super) fn check(sections: &Sections<'_>, r: &mut Reading<'_>) {
    for entry in KINDS.iter().flat_map(|kind| sections.all(kind)) {
        let named = entry.texts("fallback", "");
        let mut seen = HashSet::new();
        for text in &named {
            let Some(service) = sections.find("service", text.text) else {
                continue;
            };
            let problem = if !seen.insert(text.text) {
                let message = format!("service {} is given twice", Quoted(text.text));
                Some(Found::warning(message, "keep one: each is tried once"))
            } else {
                itself(entry, service)
                    .or_else(|| not_offered(entry, service, sections))
                    .or_else(|| another_type(entry, service, sections))
            };
            if let Some(problem) = problem {
                problem.report(entry, text, r);
            }
        }
    }
}

/// What is wrong with one name of a list.
struct Found {
    severity: Severity,
    message: String,
    help: String,
}

impl Found {
    fn error(message: String, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message,
            help: help.into(),
        }
    }

    fn warning(message: String, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message, help)
        }
    }

    fn report(self, entry: &Entry<'_>, text: &Text<'_>, r: &mut Reading<'_>) {
        entry.at(|at| {
            let at = at.field("fallback");
            let indexed = text.index.map(|index| at.index(index));
            let at = indexed.as_ref().unwrap_or(&at);
            match self.severity {
                Severity::Error => r.error(text.span, at, self.message, self.help),
                Severity::Warning => r.warn(text.span, at, self.message, self.help),
            }
        });
    }
}

/// A service cannot follow itself.
fn itself(entry: &Entry<'_>, service: &Entry<'_>) -> Option<Found> {
    let name = Quoted(service.name.as_ref()?.as_str()).to_string();
    if entry.kind == "service" && entry.index == service.index {
        let message = format!("service {name} cannot be its own fallback");
        let help = "take it out: further tries within a service are its `retry`";
        return Some(Found::error(message, help));
    }
    let led_to = entry.texts("services", "name");
    let only = !led_to.is_empty() && led_to.iter().all(|text| service.is(text.text));
    (entry.kind == "rule" && only).then(|| {
        let message = format!("service {name} is what the rule leads to already");
        Found::warning(message, "take it out: each service is tried once")
    })
}

/// Where the list holds, the service must be offered.
fn not_offered(entry: &Entry<'_>, service: &Entry<'_>, sections: &Sections<'_>) -> Option<Found> {
    if !service.has("gateways") {
        return None;
    }
    let own = entry.texts("gateways", "");
    let named: Vec<&str> = match entry.kind {
        "gateway" => entry.name.iter().map(|name| name.as_str()).collect(),
        "rule" => entry.text("gateway").iter().map(|text| text.text).collect(),
        _ if entry.has("gateways") => own.iter().map(|text| text.text).collect(),
        _ => sections.names("gateway"),
    };
    let offered = service.texts("gateways", "");
    let offered: HashSet<&str> = offered.iter().map(|text| text.text).collect();
    let exists = |name: &&&str| sections.find("gateway", name).is_some();
    let first = Quoted(
        named
            .iter()
            .filter(exists)
            .find(|name| !offered.contains(**name))?,
    );
    let somewhere = named
        .iter()
        .filter(exists)
        .any(|name| offered.contains(*name));
    let name = Quoted(service.name.as_ref()?.as_str());
    let help = format!("add {first} to the `gateways` of {name}, or take it out here");
    Some(if !somewhere {
        let message = format!("gateway {first} does not offer service {name}");
        Found::error(message, help)
    } else {
        let message =
            format!("gateway {first} does not offer service {name}: there it is passed over");
        Found::warning(message, help)
    })
}

/// A service that speaks something else will hardly answer what was asked.
fn another_type(entry: &Entry<'_>, service: &Entry<'_>, sections: &Sections<'_>) -> Option<Found> {
    let own = type_of(service)?;
    let other = match entry.kind {
        "service" => type_of(entry).filter(|kind| *kind != own),
        _ => entry.texts("services", "name").iter().find_map(|text| {
            let first = sections.find("service", text.text)?;
            type_of(first).filter(|kind| *kind != own)
        }),
    }?;
    let name = Quoted(service.name.as_ref()?.as_str());
    let message = format!(
        "service {name} is of type {}, what comes before it of type {}",
        Quoted(own),
        Quoted(other)
    );
    let help = "a fallback gets the same request: name a service of the same type";
    Some(Found::warning(message, help))
}

/// What a service speaks; none if what was given is no text.
fn type_of<'n>(service: &Entry<'n>) -> Option<&'n str> {
    match service.node.entry("type") {
        Some(given) => given.as_str(),
        None => Some(ServiceKind::Openai.word()),
    }
}
