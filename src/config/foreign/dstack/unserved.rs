//! What a service of dstack says of how it is started: nothing of it concerns requests, so it is set aside with a word.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::fields::{Fields, Notes, found};

/// Facts worth keeping, which hold no secret.
const KEPT: [&str; 16] = [
    "image",
    "python",
    "nvcc",
    "docker",
    "privileged",
    "user",
    "shell",
    "working_dir",
    "priority",
    "spot_policy",
    "reservation",
    "max_price",
    "max_duration",
    "stop_duration",
    "idle_duration",
    "creation_policy",
];
/// Facts that are long, nested, or may hold a secret.
const SET_ASIDE: [&str; 26] = [
    "commands",
    "entrypoint",
    "registry_auth",
    "resources",
    "volumes",
    "repos",
    "files",
    "backends",
    "regions",
    "availability_zones",
    "instance_types",
    "instances",
    "fleets",
    "tags",
    "retry",
    "retry_policy",
    "utilization_policy",
    "termination_policy",
    "termination_idle_time",
    "startup_order",
    "stop_criteria",
    "schedule",
    "backend_options",
    "single_branch",
    "init",
    "home_dir",
];

/// Notes all of them; those worth it become labels.
pub(super) fn convert(fields: &mut Fields<'_>, labels: &mut Map<String, Value>, notes: &mut Notes) {
    for name in KEPT {
        let Some(value) = fields.given(name, notes) else {
            continue;
        };
        let path = fields.at(name);
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => {
                notes.warned(path, "nothing is started here");
                continue;
            }
        };
        labels.insert(format!("dstack.{name}"), json!(text));
        notes.warned(
            path,
            format!("nothing is started here; kept as the label \"dstack.{name}\""),
        );
    }
    for name in SET_ASIDE {
        if fields.given(name, notes).is_some() {
            notes.warned(fields.at(name), "nothing is started here");
        }
    }
}

/// Notes what a group says of how it is started; a service has no labels for each of its groups.
pub(super) fn of_group(group: &mut Fields<'_>, notes: &mut Notes) {
    for name in KEPT.into_iter().chain(SET_ASIDE) {
        if group.given(name, notes).is_some() {
            notes.warned(group.at(name), "nothing is started here");
        }
    }
}

/// The fields of a group and of a service that may not stand at both levels.
pub(super) fn at_both_levels(service: &Fields<'_>, group: &Fields<'_>, notes: &mut Notes) {
    for name in KEPT.iter().chain(&SET_ASIDE) {
        if service.has(name) && group.has(name) && *name != "reservation" {
            notes.refused(
                group.at(name),
                "given for the service, too: keep it at one level",
            );
        }
    }
}

/// The variables of `env`, of which probes may use those that have a value.
pub(super) fn environment(fields: &mut Fields<'_>, notes: &mut Notes) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    let Some(value) = fields.given("env", notes) else {
        return known;
    };
    let path = fields.at("env");
    match value {
        Value::Array(items) => {
            for (name, text) in { items.iter() }.filter_map(|item| item.as_str()?.split_once('=')) {
                known.insert(name.to_owned(), text.to_owned());
            }
        }
        Value::Object(table) => {
            for (name, value) in table {
                let text = match value {
                    Value::String(text) => text.clone(),
                    Value::Number(_) | Value::Bool(_) => value.to_string(),
                    _ => continue,
                };
                known.insert(name.clone(), text);
            }
        }
        other => {
            let message = format!("expected a list or a table, found {}", found(other));
            notes.refused(path, message);
            return known;
        }
    }
    notes.warned(
        path,
        "nothing is started here; probes may use what it holds",
    );
    known
}
