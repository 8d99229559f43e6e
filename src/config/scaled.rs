//! Checks of scaling that concern more than one resource, and what of it only the configuration file may say.

use std::collections::{HashMap, HashSet};

use tollgate_sdk::document::{At, Node, Quoted, Reading, Value};

use super::sections::{Entry, Sections};
use crate::model::Service;

/// An upstream is scaled by one service, and one without targets by some service.
pub(super) fn check(sections: &Sections<'_>, r: &mut Reading<'_>) {
    let mut seen: HashMap<&str, &Entry<'_>> = HashMap::new();
    for service in sections.all("service") {
        let Some(given) = service.node.entry("scaling").filter(|given| is_on(given)) else {
            continue;
        };
        let Some(upstream) = service.node.entry("upstream").and_then(Node::as_str) else {
            continue;
        };
        if let Some(first) = seen.get(upstream) {
            let message = format!("the upstream {} is scaled already", Quoted(upstream));
            let help = format!(
                "keep one; the first is {}",
                sections.place(first, first.span())
            );
            service.at(|at| r.error(given.span, &at.field("scaling"), message, help));
        }
        seen.entry(upstream).or_insert(service);
    }
    let scaled: HashSet<&str> = seen.into_keys().collect();
    for upstream in sections.all("upstream") {
        let given = upstream.node.entry("targets");
        let Some(given) = given.filter(|given| given.as_list().is_some_and(<[_]>::is_empty)) else {
            continue;
        };
        let name = upstream.name.as_ref().map(|name| name.as_str());
        if !name.is_some_and(|name| scaled.contains(name)) {
            let message = "there is no target, and no service that scales it";
            let help = "give it targets, or a service that names it `scaling`; else it serves nothing until targets register";
            upstream.at(|at| r.warn(given.span, &at.field("targets"), message, help));
        }
    }
}

fn is_on(scaling: &Node) -> bool {
    let off = scaling.as_str() == Some("off") || matches!(scaling.value, Value::Bool(false));
    !off && !matches!(scaling.value, Value::Null)
}

/// Who may use the admin API is not thereby given the machine's commands and files.
pub(super) fn refuse_of_the_machine(service: &Service, node: &Node, r: &mut Reading<'_>) {
    let actuator = service.scaling.on().map(|scaling| &scaling.actuator);
    let Some(field) = actuator.and_then(|actuator| actuator.of_the_machine()) else {
        return;
    };
    let at = At::ROOT;
    let (scaling, message) = (
        at.field("scaling"),
        "only the configuration file may say this",
    );
    let help = "give the service in the file, or use another actuator";
    r.error(
        node.span,
        &scaling.field("actuator").field(field),
        message,
        help,
    );
}
