//! Checks of scaling that concern more than one resource, and what of it only the configuration file may say.

use std::collections::HashSet;

use tollgate_sdk::document::{At, FromNode, FromText, Node, Quoted, Reading, Value};

use super::resource::reading;
use super::sections::{Entry, Sections};
use crate::model::{Disaggregation, Role, Service, Switch, Target, TargetUrl, unfit};

/// An upstream, or one role of it, is scaled by one service, and one without targets by some service.
pub(super) fn check(sections: &Sections<'_>, r: &mut Reading<'_>) {
    let mut seen: Vec<(&str, Role, &Entry<'_>)> = Vec::new();
    for service in sections.all("service") {
        let Some(given) = service.node.entry("scaling").filter(|given| is_on(given)) else {
            continue;
        };
        role(sections, service, given, r);
        let Some(upstream) = service.node.entry("upstream").and_then(Node::as_str) else {
            continue;
        };
        let own = role_of(given);
        let same = |other: Role| own == other || own == Role::Both || other == Role::Both;
        let first = { seen.iter() }.find(|(name, other, _)| *name == upstream && same(*other));
        if let Some((_, _, first)) = first {
            let message = format!("the upstream {} is scaled already", Quoted(upstream));
            let help = format!(
                "keep one; the first is {}",
                sections.place(first, first.span())
            );
            service.at(|at| r.error(given.span, &at.field("scaling"), message, help));
        }
        seen.push((upstream, own, service));
    }
    let scaled: HashSet<&str> = seen.into_iter().map(|(name, ..)| name).collect();
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

/// What the replicas of a service do.
fn role_of(scaling: &Node) -> Role {
    let given = scaling.entry("role").and_then(Node::as_str);
    let known = [Role::Prefill, Role::Decode];
    { known.into_iter() }
        .find(|role| role.value() == given.unwrap_or_default())
        .unwrap_or(Role::Both)
}

/// A role is of use where requests are split, and replicas that prefill must have what their protocol needs.
fn role(sections: &Sections<'_>, service: &Entry<'_>, scaling: &Node, r: &mut Reading<'_>) {
    let (role, Some(given)) = (role_of(scaling), scaling.entry("role")) else {
        return;
    };
    if role == Role::Both {
        return;
    }
    let upstream = service.node.entry("upstream").and_then(Node::as_str);
    let name = |entry: &&Entry<'_>| entry.name.as_ref().map(|name| name.as_str()) == upstream;
    let found = { sections.all("upstream") }.find(|entry| upstream.is_some() && name(entry));
    if upstream.is_some() && found.is_none() {
        // That there is no such upstream is told elsewhere.
        return;
    }
    let split = found.and_then(|entry| entry.node.entry("disaggregation"));
    let split = split.and_then(|node| {
        let read = |r: &mut Reading<'_>| Switch::<Disaggregation>::read(node, &At::ROOT, r);
        reading(read).0
    });
    let at_role = |at: &At<'_>, r: &mut Reading<'_>, message: &str, help: &str| {
        r.error(
            given.span,
            &at.field("scaling").field("role"),
            message,
            help,
        );
    };
    let Some(split) = split.as_ref().and_then(Switch::on) else {
        let message = "a role is of no use where requests are not split";
        let help = "take it out, or name an `upstream` that has `disaggregation`";
        service.at(|at| at_role(at, r, message, help));
        return;
    };
    let starts = scaling.entry("actuator").and_then(|actuator| {
        let kind = actuator.entry("type").unwrap_or(actuator);
        kind.as_str()
    });
    let lacks_port = TargetUrl::from_text("http://replica").is_ok_and(|url| {
        let replica = Target {
            role,
            ..Target::new(url)
        };
        !unfit(&replica, Some(split)).is_empty()
    });
    if lacks_port && matches!(starts, Some("exec" | "kubernetes")) {
        let message = "with this protocol whoever prefills has a `bootstrap_port`, which this actuator cannot tell";
        let help =
            "an actuator of type \"http\" answers with it; or let targets register by the API";
        service.at(|at| at_role(at, r, message, help));
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
