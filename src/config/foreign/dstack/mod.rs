//! dstack: `type: gateway` and `type: service`, of its releases 0.20 and 0.21.
//!
//! dstack starts engines and knows where they are; here their addresses are given. So whatever says how and where something is
//! started is kept as labels or set aside with a word, and what says how requests are served is converted.

mod gateway;
mod groups;
mod limits;
mod model;
mod probes;
mod quantity;
mod replicas;
mod router;
mod scaling;
mod service;
mod unserved;

use serde_json::{Map, Value};

use super::fields::{Fields, Notes, quoted};
use super::{Converted, Dialect, Options, Resource};

/// Fields that tell a gateway of dstack from a native one, which may begin with the same `type`.
const OF_GATEWAYS: [&str; 8] = [
    "backend",
    "region",
    "instance_type",
    "public_ip",
    "replicas",
    "router",
    "tags",
    "instance_types",
];
/// The same of services.
const OF_SERVICES: [&str; 14] = [
    "port",
    "commands",
    "image",
    "replicas",
    "groups",
    "probes",
    "resources",
    "python",
    "env",
    "https",
    "entrypoint",
    "gateway",
    "backends",
    "docker",
];
/// Other documents of dstack, which have nothing to do with traffic.
const OTHERS: [&str; 4] = ["task", "dev-environment", "fleet", "volume"];

/// Whether this is a document of dstack, or a list of them.
pub(super) fn recognises(document: &Value) -> bool {
    match document {
        Value::Array(items) => !items.is_empty() && items.iter().all(is_one),
        one => is_one(one),
    }
}

fn is_one(document: &Value) -> bool {
    let Some(table) = document
        .as_object()
        .filter(|table| !table.contains_key("kind"))
    else {
        return false;
    };
    let has = |names: &[&str]| names.iter().any(|name| table.contains_key(*name));
    match table.get("type").and_then(Value::as_str) {
        Some("gateway") => has(&OF_GATEWAYS) && !has(&["hosts", "auth"]),
        Some("service") => has(&OF_SERVICES) && !has(&["targets", "upstream", "models"]),
        Some(other) => OTHERS.contains(&other),
        None => false,
    }
}

/// What services need to know of the gateways beside them.
struct Gateway {
    name: String,
    default: bool,
    /// Whether dstack would give its services HTTPS.
    https: bool,
    /// The policy of its router, and what of it becomes theirs.
    policy: Option<&'static str>,
}

/// What one document became.
#[derive(Default)]
struct Part {
    resources: Vec<Resource>,
    notes: Notes,
}

impl Part {
    fn add(&mut self, kind: &'static str, body: Map<String, Value>) {
        self.resources.push(Resource { kind, body });
    }
}

/// Converts what [`recognises`] accepts: gateways first, since services of the same list may name them.
pub(super) fn convert(document: &Value, options: &Options) -> Converted {
    let items: Vec<(String, &Map<String, Value>)> = match document {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| Some((format!("[{index}]"), item.as_object()?)))
            .collect(),
        one => one
            .as_object()
            .map(|table| (String::new(), table))
            .into_iter()
            .collect(),
    };
    let is_gateway =
        |table: &Map<String, Value>| table.get("type").and_then(Value::as_str) == Some("gateway");
    let mut gateways = Vec::new();
    let mut parts: Vec<(usize, Part)> = Vec::new();
    for (index, (path, table)) in items.iter().enumerate() {
        if is_gateway(table) {
            let mut part = Part::default();
            gateways.push(gateway::convert(
                Fields::new(table, path),
                options,
                &mut part,
            ));
            parts.push((index, part));
        }
    }
    for (index, (path, table)) in items.iter().enumerate() {
        if !is_gateway(table) {
            let mut part = Part::default();
            let fields = Fields::new(table, path);
            match table.get("type").and_then(Value::as_str) {
                Some("service") => service::convert(fields, &gateways, options, &mut part),
                other => no_traffic(&fields, other.unwrap_or_default(), &mut part),
            }
            parts.push((index, part));
        }
    }
    parts.sort_by_key(|(index, _)| *index);
    let mut whole = Part::default();
    for (_, part) in parts {
        whole.resources.extend(part.resources);
        whole.notes.append(part.notes);
    }
    Converted {
        dialect: Dialect::Dstack,
        resources: whole.resources,
        notes: whole.notes.into_vec(),
    }
}

fn no_traffic(fields: &Fields<'_>, kind: &str, part: &mut Part) {
    let message = format!(
        "{} is not something requests are sent to: only \"gateway\" and \"service\" are converted",
        quoted(kind)
    );
    part.notes.refused(fields.path(), message);
}

/// Puts labels into a body, if there are any.
fn put_labels(body: &mut Map<String, Value>, labels: Map<String, Value>) {
    if !labels.is_empty() {
        body.insert("labels".into(), labels.into());
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(document: &Value, options: &Options) -> Vec<String> {
        let notes = convert(document, options).notes;
        let refused = notes
            .iter()
            .filter(|note| note.fate == super::super::Fate::Refused);
        refused.map(|note| note.path.clone()).collect()
    }

    /// What fills a variable in may not be one again.
    #[test]
    fn a_project_is_filled_in_once() {
        let document = json!({"type": "gateway", "name": "g", "backend": "aws", "domain": "${{ run.project_name }}.example.com"});
        let options = |project: &str| Options {
            project: Some(project.into()),
            ..Options::default()
        };
        assert_eq!(refused(&document, &Options::default()), ["domain"]);
        assert!(refused(&document, &options("Team A")).is_empty());
        assert!(refused(&document, &options("${{ run.project_name }}")).is_empty());
        assert_eq!(refused(&document, &options("!")), ["domain"]);
    }

    #[test]
    fn fixed_counts_and_ranges() {
        let scaling = json!({"metric": "rps", "target": 10});
        for (replicas, scaled, wrong) in [
            (json!(1), false, vec![]),
            (json!("2"), false, vec![]),
            (json!("3..3"), false, vec![]),
            (json!("3..3"), true, vec!["scaling"]),
            (json!("0..10"), true, vec![]),
            (json!("0..10"), false, vec!["scaling"]),
            (json!("2.."), true, vec!["replicas"]),
            (json!([{"count": 1}]), false, vec![]),
            (json!([]), false, vec!["replicas"]),
        ] {
            let mut document =
                json!({"type": "service", "name": "a", "port": 1, "replicas": replicas});
            if scaled {
                document["scaling"] = scaling.clone();
            }
            assert_eq!(refused(&document, &Options::default()), wrong, "{document}");
        }
    }

    #[test]
    fn targets_that_hold_a_credential_are_refused_and_not_shown() {
        let document = json!({"type": "service", "name": "a", "port": 1});
        let options = Options {
            targets: vec![
                ("a".into(), "http://u:hunter2@h:1".into()),
                ("b".into(), "none of its own".into()),
            ],
            ..Options::default()
        };
        assert_eq!(refused(&document, &options), ["--target a"]);
        let told = convert(&document, &options).notes;
        assert!(
            told.iter()
                .all(|note| !note.to_string().contains("hunter2"))
        );
    }
}
