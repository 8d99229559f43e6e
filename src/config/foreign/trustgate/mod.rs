//! TrustGate's classic objects: gateways, upstreams, services, rules and keys, one or a list of them.
//!
//! They refer to each other by ids that TrustGate's server gives. Within one list ids and names are resolved; what refers to nothing there is taken for the
//! name of something that is there already, and said so.

mod catalog;
mod credentials;
mod duration;
pub(super) mod fields;
mod gateway;
mod key;
mod plugins;
mod rule;
mod security;
mod sent;
mod service;
mod settings;
mod target;
#[cfg(test)]
mod tests;
mod upstream;

use serde_json::{Map, Value};

use super::{Converted, Dialect, Options, Resource};
use catalog::Catalog;
use fields::{Report, join, native_name};
use gateway::Gateway;

/// When something was made and changed, in both spellings.
const DATES: [&str; 4] = ["created_at", "updated_at", "CreatedAt", "UpdatedAt"];

/// What a document describes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Gateway,
    Upstream,
    Service,
    Rule,
    Key,
}

/// One object and its place.
struct Doc<'a> {
    value: &'a Value,
    path: String,
    kind: Kind,
}

/// The fields under which lists of objects come, and what they hold.
const LISTS: [(&str, Kind); 10] = [
    ("gateway", Kind::Gateway),
    ("gateways", Kind::Gateway),
    ("upstreams", Kind::Upstream),
    ("services", Kind::Service),
    ("rules", Kind::Rule),
    ("keys", Kind::Key),
    ("api_keys", Kind::Key),
    ("upstream", Kind::Upstream),
    ("service", Kind::Service),
    ("rule", Kind::Rule),
];

/// What may stand beside lists: TrustGate's own answers count what they hold.
const PAGING: [&str; 3] = ["count", "offset", "limit"];

/// Whether this is an object of TrustGate's, or a list that holds one.
pub(super) fn recognises(document: &Value) -> bool {
    match document {
        Value::Array(items) => items.iter().any(recognises),
        Value::Object(fields) => {
            kind_of(fields).is_some()
                || (is_bundle(fields) && bundled(fields).any(|(_, value)| holds_one(value)))
        }
        _ => false,
    }
}

fn holds_one(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(holds_one),
        Value::Object(fields) => kind_of(fields).is_some(),
        _ => false,
    }
}

/// A table of lists, as TrustGate's own answers are, or several of them together.
fn is_bundle(fields: &Map<String, Value>) -> bool {
    let known = |name: &String| {
        LISTS.iter().any(|(list, _)| list == name) || PAGING.contains(&name.as_str())
    };
    fields.keys().all(known) && bundled(fields).next().is_some()
}

fn bundled(fields: &Map<String, Value>) -> impl Iterator<Item = (Kind, &Value)> {
    LISTS
        .iter()
        .filter_map(|(name, kind)| Some((*kind, fields.get(*name)?)))
}

/// What an object is, by the fields that only this kind has.
fn kind_of(fields: &Map<String, Value>) -> Option<Kind> {
    let has = |names: &[&str]| names.iter().any(|name| fields.contains_key(*name));
    let is = |name: &str, words: &[&str]| {
        let word = fields.get(name).and_then(Value::as_str);
        word.is_some_and(|word| words.contains(&word))
    };
    // Native documents say what they are, and so do those of others.
    if has(&[
        "kind",
        "hosts",
        "auth",
        "routing",
        "upstreams",
        "zones",
        "gatewayIds",
    ]) {
        return None;
    }
    if has(&[
        "required_plugins",
        "security_config",
        "client_tls",
        "session_config",
        "telemetry",
    ]) {
        return Some(Kind::Gateway);
    }
    if has(&[
        "service_id",
        "plugin_chain",
        "plugins_chain",
        "retry_attempts",
        "trustlens",
    ]) {
        return Some(Kind::Rule);
    }
    let objects = fields.get("targets").and_then(Value::as_array);
    let theirs = |target: &Value| target.get("host").is_some() || target.get("provider").is_some();
    if has(&[
        "algorithm",
        "health_checks",
        "embedding",
        "embedding_config",
        "websocket_config",
        "proxy_config",
    ]) || objects.is_some_and(|targets| targets.iter().any(theirs))
    {
        return Some(Kind::Upstream);
    }
    if has(&["upstream_id"]) || is("type", &["upstream", "endpoint", "direct"]) {
        return Some(Kind::Service);
    }
    let named = has(&["name"]);
    if has(&["subject_type", "policies"])
        || (named && has(&["expires_at"]) && !has(&["gateway", "hash", "secret"]))
    {
        return Some(Kind::Key);
    }
    let subdomain = has(&["subdomain"]) && !has(&["domain", "image", "type"]);
    (named && subdomain).then_some(Kind::Gateway)
}

/// Reads TrustGate's objects.
pub(super) fn convert(document: &Value, options: &Options) -> Converted {
    let mut report = Report::default();
    let mut docs = Vec::new();
    collect(document, "", None, &mut docs, &mut report);
    let resources = resources(&docs, options, &mut report);
    Converted {
        dialect: Dialect::TrustGate,
        resources,
        notes: report.notes,
    }
}

fn collect<'a>(
    value: &'a Value,
    path: &str,
    known: Option<Kind>,
    docs: &mut Vec<Doc<'a>>,
    report: &mut Report,
) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &format!("{path}[{index}]"), known, docs, report);
            }
        }
        Value::Object(fields)
            if known.is_none() && kind_of(fields).is_none() && is_bundle(fields) =>
        {
            for (name, kind) in LISTS {
                if let Some(value) = fields.get(name) {
                    collect(value, &join(path, name), Some(kind), docs, report);
                }
            }
            for name in PAGING.iter().filter(|name| fields.contains_key(**name)) {
                report.warned(&join(path, name), "how an answer was cut into pages");
            }
        }
        Value::Object(fields) => match known.or_else(|| kind_of(fields)) {
            Some(kind) => docs.push(Doc {
                value,
                path: path.to_owned(),
                kind,
            }),
            None => report.refused(
                path,
                "not a gateway, upstream, service, rule or key of TrustGate",
            ),
        },
        _ => report.refused(path, "a table of fields is expected here"),
    }
}

fn resources(docs: &[Doc<'_>], options: &Options, report: &mut Report) -> Vec<Resource> {
    let of = |kind: Kind| docs.iter().filter(move |doc| doc.kind == kind);
    let mut catalog = Catalog::default();
    let count = of(Kind::Gateway).count();
    let mut gateways: Vec<Gateway> = Vec::new();
    let mut resources = Vec::new();
    for doc in of(Kind::Gateway) {
        if let Some((gateway, resource)) = gateway::read(doc, count, &mut catalog.names, report) {
            gateways.push(gateway);
            resources.push(resource);
        }
    }
    if let [one] = gateways.as_slice() {
        catalog.gateway = Some(one.name.clone());
        if options.qualified {
            catalog.names.begin_with(format!("{}.", one.name));
        }
    }
    let insecure: Vec<String> = gateways
        .iter()
        .flat_map(|gateway| gateway.insecure.clone())
        .collect();
    for doc in of(Kind::Upstream) {
        let pool = upstream::read(doc, &insecure, &mut catalog.names, report);
        catalog.pools.extend(pool);
    }
    for doc in of(Kind::Service) {
        let Catalog {
            pools,
            names,
            services,
            ..
        } = &mut catalog;
        services.extend(service::read(doc, pools, names, report));
    }
    let paths: Vec<&str> = { of(Kind::Rule) }
        .flat_map(|doc| rule::paths(doc.value))
        .collect();
    let wildcards = paths.iter().any(|path| path.ends_with('*'));
    let parameters = paths.iter().any(|path| path.contains('{'));
    for doc in of(Kind::Rule) {
        hear(doc.value, &mut catalog);
    }
    tell_of_kinds(&mut catalog, report);
    let (mut rules, mut known) = (Vec::new(), Vec::new());
    for doc in of(Kind::Rule) {
        let gateway = gateway_of(doc, &gateways, options, report);
        let around = rule::Around {
            gateway: &gateway,
            wildcards,
            parameters,
        };
        let (this, made) = rule::read(doc, &around, &mut catalog, report);
        known.push(this);
        rules.extend(made);
    }
    let mut keys = Vec::new();
    for doc in of(Kind::Key) {
        let gateway = gateway_of(doc, &gateways, options, report);
        keys.extend(key::read(doc, &gateway, &known, &mut catalog.names, report));
    }
    let (upstreams, services) = catalog.finish(report);
    for more in [upstreams, services, rules, keys] {
        resources.extend(more);
    }
    resources
}

/// The gateway of a rule or a key: in TrustGate it stands in the address of the call.
fn gateway_of(
    doc: &Doc<'_>,
    gateways: &[Gateway],
    options: &Options,
    report: &mut Report,
) -> String {
    let told = ["gateway_id", "subject"]
        .iter()
        .find_map(|name| doc.value.get(name))
        .and_then(Value::as_str);
    let known = |id: &str| {
        gateways
            .iter()
            .find(|gateway| gateway.known_as.iter().any(|known| known == id))
    };
    if let Some(gateway) = told.and_then(known) {
        return gateway.name.clone();
    }
    if let Some(gateway) = &options.gateway {
        report.assumed(
            &doc.path,
            format!("the gateway is `{gateway}`, as asked for"),
        );
        return gateway.clone();
    }
    if let [one] = gateways {
        report.assumed(
            &doc.path,
            format!("the gateway is `{}`, the only one here", one.name),
        );
        return one.name.clone();
    }
    if gateways.len() > 1 {
        report.refused(
            &join(&doc.path, "gateway_id"),
            "which of the gateways here it belongs to must be told by id or name",
        );
    }
    let name = told.map_or_else(|| "main".to_owned(), |id| native_name(id, "gateway"));
    report.assumed(&doc.path, format!("the gateway is `{name}`, which must be there already: TrustGate has it in the address of the call"));
    name
}

/// Paths by which it can be told that a service speaks OpenAI's API.
const API: [&str; 6] = [
    "/chat/completions",
    "/completions",
    "/responses",
    "/embeddings",
    "/messages",
    "/models",
];

/// Remembers of services by which paths they are reached.
fn hear(rule: &Value, catalog: &mut Catalog) {
    let id = rule.get("service_id").or_else(|| rule.get("service"));
    let Some(id) = id.and_then(Value::as_str) else {
        return;
    };
    let paths = rule::paths(rule);
    let service = { catalog.services.iter_mut() }
        .find(|service| service.known_as.iter().any(|known| known == id));
    if let Some(service) = service {
        service.speaks_openai |= paths.iter().any(|path| is_api(path));
    }
}

fn is_api(path: &str) -> bool {
    let path = path.trim_end_matches('*').trim_end_matches('/');
    path.ends_with("/v1") || API.iter().any(|api| path.ends_with(api))
}

/// Says of every service what it is taken to speak.
fn tell_of_kinds(catalog: &mut Catalog, report: &mut Report) {
    for index in 0..catalog.services.len() {
        let targets = catalog.targets(index);
        let heard = { targets.iter() }.any(|target| target.sends.as_deref().is_some_and(is_api));
        let provider = { targets.iter() }.any(|target| target.shares.provider.is_some());
        if let Some(service) = catalog.services.get_mut(index) {
            service.speaks_openai |= heard || provider;
            let (kind, why) = match service.speaks_openai {
                true => ("openai", "its paths are those of OpenAI's API"),
                false => ("http", "nothing tells that it speaks OpenAI's API"),
            };
            report.assumed(
                &join(&service.path, "type"),
                format!("`type` is \"{kind}\": {why}"),
            );
        }
    }
}
