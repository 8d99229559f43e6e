//! CoreWeave Inference: gateways, deployments and capacity claims, one or a list, flat as they are sent or wrapped as they are answered.
//!
//! CoreWeave provides machines, engines and identities; Tollgate routes to addresses that it is given. What concerns the former is kept as labels.

mod deployment;
mod gateway;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::trustgate::fields::{Fields, Names, Report, join, native_name};
use super::{Converted, Dialect, Options, Resource};

/// What a document describes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Gateway,
    Deployment,
    Claim,
}

/// One object, its place, and what it is. Names of fields are as JSON has them.
struct Doc {
    value: Value,
    path: String,
    kind: Kind,
}

/// A gateway as deployments see it.
struct Known {
    /// Its id and its name.
    known_as: Vec<String>,
    name: String,
}

/// Under what objects come, one or a list.
const WRAPPERS: [(&str, Option<Kind>); 7] = [
    ("gateway", Some(Kind::Gateway)),
    ("gateways", Some(Kind::Gateway)),
    ("deployment", Some(Kind::Deployment)),
    ("deployments", Some(Kind::Deployment)),
    ("capacityClaim", Some(Kind::Claim)),
    ("capacityClaims", Some(Kind::Claim)),
    ("items", None),
];

/// Whether this is an object of CoreWeave's, or a list that holds one.
pub(super) fn recognises(document: &Value) -> bool {
    match document {
        Value::Array(items) => items.iter().any(recognises),
        Value::Object(fields) => {
            let flat = |value: &Value| {
                value
                    .as_object()
                    .is_some_and(|fields| kind_of(&spec_of(fields)).is_some())
            };
            let inside = |value: &Value| match value {
                Value::Array(items) => items.iter().any(flat),
                value => flat(value),
            };
            let wrapped = WRAPPERS
                .iter()
                .filter_map(|(name, _)| fields.get(*name))
                .any(inside);
            kind_of(&spec_of(fields)).is_some() || (wrapped && is_wrapper(fields))
        }
        _ => false,
    }
}

fn is_wrapper(fields: &Map<String, Value>) -> bool {
    fields
        .keys()
        .all(|name| WRAPPERS.iter().any(|(known, _)| known == name))
}

/// An object's own fields, with names as JSON has them: answers have them below `spec`, and some write `gateway_ids`.
fn spec_of(fields: &Map<String, Value>) -> Map<String, Value> {
    match fields.get("spec").and_then(Value::as_object) {
        Some(spec) => in_camel_case(spec),
        None => in_camel_case(fields),
    }
}

/// Maps whose keys are the user's own.
const FREE: [&str; 2] = ["engineConfig", "engineEnv"];

fn in_camel_case(fields: &Map<String, Value>) -> Map<String, Value> {
    let entry = |(name, value): (&String, &Value)| {
        let name = camel(name);
        let value = match value {
            Value::Object(inner) if !FREE.contains(&name.as_str()) => in_camel_case(inner).into(),
            value => value.clone(),
        };
        (name, value)
    };
    fields.iter().map(entry).collect()
}

/// Names that are not written as JSON has them: where they are read, and where they stand; inner ones first.
#[derive(Default)]
struct Spelling(Vec<(String, String)>);

impl Spelling {
    /// Says so when names are not written as JSON has them, and when one is given in both ways.
    fn hear(&mut self, fields: &Map<String, Value>, [read, path]: [&str; 2], report: &mut Report) {
        for (name, value) in fields {
            let own = camel(name);
            let (read, place) = (join(read, &own), join(path, name));
            if own != *name {
                match fields.contains_key(&own) {
                    true => report.refused(&place, format!("`{own}` is given, too")),
                    false => report.adapted(&place, format!("read as `{own}`")),
                }
            }
            if let (Value::Object(inner), false) = (value, FREE.contains(&own.as_str())) {
                self.hear(inner, [&read, &place], report);
            }
            if read != place {
                self.0.push((read, place));
            }
        }
    }

    /// The place in the document of what was read at `path`.
    fn place(&self, path: &str) -> Option<String> {
        { self.0.iter() }.find_map(|(read, place)| {
            let rest = path.strip_prefix(read.as_str())?;
            (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("{place}{rest}"))
        })
    }
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// What an object is, by the fields that only this kind has.
fn kind_of(fields: &Map<String, Value>) -> Option<Kind> {
    let has = |names: &[&str]| names.iter().any(|name| fields.contains_key(*name));
    if has(&["kind", "hosts", "routing"]) {
        return None;
    }
    if has(&[
        "coreWeaveAuth",
        "weightsAndBiasesAuth",
        "bodyBasedRouting",
        "pathBasedRouting",
        "headerBasedRouting",
        "endpointConfiguration",
    ]) {
        return Some(Kind::Gateway);
    }
    let weighs = fields
        .get("traffic")
        .and_then(|traffic| traffic.get("weight"))
        .is_some();
    let bucket = fields
        .get("model")
        .and_then(|model| model.get("bucket"))
        .is_some();
    if has(&["gatewayIds"]) || weighs || bucket {
        return Some(Kind::Deployment);
    }
    let claim = has(&["capacityType"]) || (has(&["instanceCount"]) && has(&["instanceId"]));
    if claim {
        return Some(Kind::Claim);
    }
    (has(&["zones"]) && has(&["name"]) && !has(&["type"])).then_some(Kind::Gateway)
}

/// Reads CoreWeave's objects.
pub(super) fn convert(document: &Value, options: &Options) -> Converted {
    let mut report = Report::default();
    let (mut docs, mut spelling) = (Vec::new(), Spelling::default());
    collect(document, "", None, &mut docs, &mut spelling, &mut report);
    let resources = resources(&docs, options, &mut report);
    for note in &mut report.notes {
        if let Some(place) = spelling.place(&note.path) {
            note.path = place;
        }
    }
    Converted {
        dialect: Dialect::CoreWeave,
        resources,
        notes: report.notes,
    }
}

fn collect(
    value: &Value,
    path: &str,
    told: Option<Kind>,
    docs: &mut Vec<Doc>,
    spelling: &mut Spelling,
    report: &mut Report,
) {
    let fields = match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(
                    item,
                    &format!("{path}[{index}]"),
                    told,
                    docs,
                    spelling,
                    report,
                );
            }
            return;
        }
        Value::Object(fields) => fields,
        _ => return report.refused(path, "a table of fields is expected here"),
    };
    if told.is_none() && kind_of(&spec_of(fields)).is_none() && is_wrapper(fields) {
        for (name, kind) in WRAPPERS {
            if let Some(value) = fields.get(name) {
                collect(value, &join(path, name), kind, docs, spelling, report);
            }
        }
        return;
    }
    let spec = spec_of(fields);
    let Some(kind) = told.or_else(|| kind_of(&spec)) else {
        return report.refused(
            path,
            "not a gateway, deployment or capacity claim of CoreWeave",
        );
    };
    let mut place = path.to_owned();
    if fields.get("spec").is_some_and(Value::is_object) {
        place = join(path, "spec");
        for name in fields.keys().filter(|name| *name != "spec") {
            match name.as_str() {
                "status" => report.warned(
                    &join(path, name),
                    "how it stood there; `tollgate get` tells how it stands here",
                ),
                _ => report.refused(&join(path, name), "unknown field; did you mean \"status\"?"),
            }
        }
    }
    let own = fields.get("spec").and_then(Value::as_object);
    spelling.hear(own.unwrap_or(fields), [&place, &place], report);
    docs.push(Doc {
        value: spec.into(),
        path: place,
        kind,
    });
}

fn resources(docs: &[Doc], options: &Options, report: &mut Report) -> Vec<Resource> {
    let of = |kind: Kind| docs.iter().filter(move |doc| doc.kind == kind);
    let mut names = Names::default();
    let mut gateways: Vec<Known> = Vec::new();
    let mut resources = Vec::new();
    let count = of(Kind::Gateway).count();
    for doc in of(Kind::Gateway) {
        if let Some((known, resource)) = gateway::read(doc, count, &mut names, report) {
            gateways.push(known);
            resources.push(resource);
        }
    }
    let (mut upstreams, mut services, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for doc in of(Kind::Deployment) {
        let gateways = |ids: &[&str], path: &str, report: &mut Report| {
            gateways_of(ids, path, &gateways, options, report)
        };
        if let Some((upstream, service)) =
            deployment::read(doc, &gateways, options, &mut names, report)
        {
            upstreams.push(upstream);
            services.push(service);
            places.push(join(&doc.path, "traffic.weight"));
        }
    }
    deployment::share(&mut services, &places, report);
    for doc in of(Kind::Claim) {
        let known = [
            "id",
            "organizationId",
            "name",
            "instanceId",
            "instanceCount",
            "zones",
            "capacityType",
        ];
        if let Some(fields) = Fields::open(&doc.value, &doc.path, &known, report) {
            let why = "machines are not Tollgate's to claim, and nothing here depends on it; kept nowhere";
            fields.warn(&known, why, report);
        }
    }
    resources.extend(upstreams);
    resources.extend(services);
    resources
}

/// The gateways that are meant by ids or names.
fn gateways_of(
    ids: &[&str],
    path: &str,
    known: &[Known],
    options: &Options,
    report: &mut Report,
) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        let at = format!("{path}[{index}]");
        let found = known
            .iter()
            .find(|gateway| gateway.known_as.iter().any(|known| known == id));
        let name = match (found, &options.gateway, known) {
            (Some(gateway), ..) => {
                report.taken(&at, format!("one of `gateways`: `{}`", gateway.name));
                gateway.name.clone()
            }
            (None, Some(gateway), _) => {
                report.assumed(&at, format!("the gateway is `{gateway}`, as asked for"));
                gateway.clone()
            }
            // The id of a gateway that did not choose one is given by CoreWeave's server.
            (None, None, [one]) if one.known_as.len() == 1 => {
                report.assumed(
                    &at,
                    format!(
                        "the gateway is `{}`, the only one here, which has no id",
                        one.name
                    ),
                );
                one.name.clone()
            }
            (None, None, _) => {
                let name = native_name(id, "gateway");
                report.assumed(&at, format!("no gateway of these documents has this id or name: taken for the gateway `{name}` that must be there already"));
                name
            }
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
