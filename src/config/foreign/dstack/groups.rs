//! Groups of replicas: which of them get requests.

use serde_json::{Map, Value};
use tollgate_sdk::document::suggest;

use super::super::fields::{Fields, Notes, quoted};
use super::quantity::Count;
use super::replicas::Said;
use super::scaling::Use;
use super::{scaling, unserved};

/// What the service needs to know of its groups.
#[derive(Default)]
pub(super) struct Groups {
    /// The names of those that get requests, and what they say of their replicas.
    pub(super) serving: Vec<(String, Said)>,
    /// The names of those that a router among them sends to, or of the router whose work is done here.
    pub(super) behind: Vec<String>,
    /// The native `scaling` of the only group, if that is read.
    pub(super) scaling: Option<Map<String, Value>>,
    /// Whether one of them is a router.
    pub(super) routed: bool,
    /// Whether its work is done here.
    pub(super) split: bool,
}

/// Reads `groups`, or `replicas` in their old spelling: a list; `None` if there is neither. `given`: the addresses of a group are known.
pub(super) fn convert(
    fields: &mut Fields<'_>,
    given: &dyn Fn(&str) -> bool,
    notes: &mut Notes,
) -> Option<Groups> {
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
    let mut groups = Groups::default();
    let router = all(items, &path, counted, fields, &mut groups, notes);
    share(&path, router, given, &mut groups, notes);
    Some(groups)
}

/// Reads each of them; all serve at first. Returns the one that is a router.
fn all(
    items: &[Value],
    path: &str,
    counted: &'static str,
    service: &Fields<'_>,
    groups: &mut Groups,
    notes: &mut Notes,
) -> Option<Router> {
    let mut names: Vec<String> = Vec::new();
    let mut router: Option<Router> = None;
    let used = match items {
        [_] => Use::Now,
        _ => Use::Never,
    };
    for (index, item) in items.iter().enumerate() {
        let Some(mut group) = Fields::of(item, &format!("{path}[{index}]"), notes) else {
            continue;
        };
        let name = named(&mut group, index, &names, notes);
        names.push(name.clone());
        let (count, scaled) = counts(&mut group, counted, used, notes);
        groups.scaling = scaled;
        if let Some(is_sglang) = has_router(&mut group, count, notes) {
            if router.is_some() {
                notes.refused(group.at("router"), "another group is the router already");
            }
            router = Some(Router {
                name: name.clone(),
                is_sglang,
            });
        }
        let said = Said::of(&name, group.peek("commands"));
        groups.serving.push((name, said));
        unserved::at_both_levels(service, &group, notes);
        unserved::of_group(&mut group, notes);
        unserved::environment(&mut group, notes);
        group.finish(notes);
    }
    router
}

/// A group that sends requests to the others.
struct Router {
    name: String,
    is_sglang: bool,
}

/// Who gets requests: all, or the router alone, or all but the router, if it is SGLang's and only their addresses are known.
fn share(
    path: &str,
    router: Option<Router>,
    given: &dyn Fn(&str) -> bool,
    groups: &mut Groups,
    notes: &mut Notes,
) {
    let Some(Router { name, is_sglang }) = router else {
        let message = "the addresses of all groups are targets of one upstream";
        notes.adapted(path, message);
        return;
    };
    groups.routed = true;
    let is_router = |group: &(String, Said)| group.0 == name;
    let others = { groups.serving.iter() }.filter(|group| !is_router(group));
    groups.split = is_sglang && !given(&name) && others.clone().any(|(group, _)| given(group));
    if groups.split {
        let message = format!(
            "requests are split here, between the groups that prefill and those that decode: the group {} is not needed; to have it do so, give its address instead",
            quoted(&name)
        );
        notes.adapted(path, message);
        groups.behind.push(name.clone());
        groups.serving.retain(|group| group.0 != name);
        return;
    }
    let message = format!(
        "requests go to the group {} alone, whose router shares them out among the others; start it as you did",
        quoted(&name)
    );
    notes.adapted(path, message);
    groups.behind.extend(others.map(|(group, _)| group.clone()));
    groups.serving.retain(is_router);
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

/// Whether it is a router, and then whether it is SGLang's.
fn has_router(group: &mut Fields<'_>, count: Option<Count>, notes: &mut Notes) -> Option<bool> {
    let mut router = group.table("router", notes)?;
    let path = router.at("type");
    let kind = router.text("type", notes);
    match kind {
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
    Some(kind == Some("sglang"))
}
