//! Groups of replicas: which of them get requests.

use serde_json::{Map, Value};
use tollgate_sdk::document::suggest;

use super::super::fields::{Fields, Notes, quoted};
use super::quantity::Count;
use super::scaling::Use;
use super::{scaling, unserved};

/// What the service needs to know of its groups.
#[derive(Default)]
pub(super) struct Groups {
    /// The names of those that get requests.
    pub(super) serving: Vec<String>,
    /// The names of those that a router among them sends to.
    pub(super) behind: Vec<String>,
    /// The native `scaling` of the only group, if that is read.
    pub(super) scaling: Option<Map<String, Value>>,
    /// Whether one of them is a router.
    pub(super) routed: bool,
}

/// Reads `groups`, or `replicas` in their old spelling: a list; `None` if there is neither.
pub(super) fn convert(fields: &mut Fields<'_>, notes: &mut Notes) -> Option<Groups> {
    let new = fields.list("groups", notes);
    let old = match fields.any("replicas") {
        Some(Value::Array(items)) => Some(items.as_slice()),
        _ => None,
    };
    let (items, path, counted) = match (new, old) {
        (Some(_), Some(_)) => {
            notes.refused(fields.at("replicas"), "given beside `groups`: keep one");
            return None;
        }
        (Some(items), None) => (items, fields.at("groups"), "replicas"),
        (None, Some(items)) => (items, fields.at("replicas"), "count"),
        (None, None) => return None,
    };
    let others: &[&str] = match counted {
        "replicas" => &["replicas", "scaling", "commands"],
        _ => &["scaling", "commands"],
    };
    for name in others.iter().filter(|name| fields.has(name)) {
        notes.refused(
            fields.at(name),
            "given beside groups: each of them says so itself",
        );
    }
    if items.is_empty() {
        notes.refused(path, "there must be at least one group");
        return Some(Groups::default());
    }
    Some(all(items, &path, counted, fields, notes))
}

fn all(
    items: &[Value],
    path: &str,
    counted: &'static str,
    service: &Fields<'_>,
    notes: &mut Notes,
) -> Groups {
    let mut names: Vec<String> = Vec::new();
    let mut router: Option<String> = None;
    let mut scaling = None;
    let used = match items {
        [_] => Use::of_version(),
        _ => Use::Never,
    };
    for (index, item) in items.iter().enumerate() {
        let Some(mut group) = Fields::of(item, &format!("{path}[{index}]"), notes) else {
            continue;
        };
        let name = named(&mut group, index, &names, notes);
        names.push(name.clone());
        let (count, scaled) = counts(&mut group, counted, used, notes);
        scaling = scaled;
        if has_router(&mut group, count, notes) {
            if router.is_some() {
                notes.refused(group.at("router"), "another group is the router already");
            }
            router = Some(name);
        }
        unserved::at_both_levels(service, &group, notes);
        unserved::of_group(&mut group, notes);
        unserved::environment(&mut group, notes);
        group.finish(notes);
    }
    let routed = router.is_some();
    let mut behind = Vec::new();
    let serving = match router {
        Some(router) => {
            let message = format!(
                "requests go to the group {} alone, whose router shares them out among the others; start it as you did",
                quoted(&router)
            );
            notes.adapted(path, message);
            behind.extend(names.into_iter().filter(|name| *name != router));
            vec![router]
        }
        None => {
            notes.adapted(
                path,
                "the addresses of all groups are targets of one upstream",
            );
            names
        }
    };
    Groups {
        serving,
        behind,
        scaling,
        routed,
    }
}

fn named(group: &mut Fields<'_>, index: usize, taken: &[String], notes: &mut Notes) -> String {
    let path = group.at("name");
    let Some(name) = group.text("name", notes) else {
        return index.to_string();
    };
    let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !name.starts_with(first) || name.len() > 40 || !name.chars().all(|c| first(c) || c == '-') {
        notes.refused(path, format!("{} is no group's name", quoted(name)));
    } else if taken.iter().any(|other| other == name) {
        notes.refused(path, "there is already a group of this name");
    } else {
        notes.adapted(
            path,
            format!("its addresses can be given as the targets of \"SERVICE/{name}\""),
        );
    }
    name.to_owned()
}

/// How many it has, and its native `scaling`, which is a service's: a group has it only if it is alone.
fn counts(
    group: &mut Fields<'_>,
    counted: &'static str,
    used: Use,
    notes: &mut Notes,
) -> (Option<Count>, Option<Map<String, Value>>) {
    let other = match counted {
        "count" => "replicas",
        _ => "count",
    };
    let (counted, wrong) = match group.has(other) && !group.has(counted) {
        true => (other, counted),
        false => (counted, other),
    };
    let count = scaling::count(group, counted, notes);
    if group.has(wrong) {
        group.any(wrong);
        notes.refused(
            group.at(wrong),
            format!("given beside `{counted}`: keep one"),
        );
    }
    let path = group.at(counted);
    let scaling = scaling::convert(group, count, &path, used, notes);
    (count, scaling)
}

fn has_router(group: &mut Fields<'_>, count: Option<Count>, notes: &mut Notes) -> bool {
    let Some(mut router) = group.table("router", notes) else {
        return false;
    };
    let path = router.at("type");
    match router.text("type", notes) {
        Some("sglang" | "dynamo") => {
            notes.adapted(path, "it is not launched here: its group's commands do so")
        }
        Some(other) => {
            let help = suggest(other, &["sglang", "dynamo"], "routers");
            notes.refused(path, format!("unknown router; {help}"));
        }
        None if !router.has("type") => {
            notes.refused(path, "missing; known routers: sglang, dynamo")
        }
        None => {}
    }
    router.finish(notes);
    if count.is_some_and(|count| count != Count::Fixed(1)) {
        notes.refused(
            group.at("router"),
            "the group of a router has exactly one replica",
        );
    }
    true
}
