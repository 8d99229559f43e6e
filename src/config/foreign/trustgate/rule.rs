//! TrustGate's rules.
//!
//! It owns what becomes of paths. A target's path is sent in place of the request's: as the rule's `rewrite`. With `strip_path` what follows the rule's path
//! comes behind it: then it stands in the targets' URLs.

use serde_json::{Value, json};

use super::super::Resource;
use super::catalog::{Catalog, Offered, Wanted};
use super::fields::{Body, Fields, Report, native_name, resource, with_labels};
use super::sent::{Sent, what_is_sent};
use super::{DATES, Doc, plugins};

const KNOWN: [&str; 23] = [
    "id",
    "gateway_id",
    "name",
    "path",
    "paths",
    "service_id",
    "service",
    "methods",
    "type",
    "headers",
    "strip_path",
    "preserve_host",
    "retry_attempts",
    "plugin_chain",
    "plugins_chain",
    "active",
    "public",
    "trustlens",
    "created_at",
    "updated_at",
    "CreatedAt",
    "UpdatedAt",
    "description",
];

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];

/// The native rules that came of one, by what documents may call it.
pub(super) struct Known {
    pub(super) known_as: Vec<String>,
    pub(super) names: Vec<String>,
}

/// What a rule needs besides itself.
pub(super) struct Around<'a> {
    pub(super) gateway: &'a str,
    /// Whether any path of these documents ends in `/*`: then paths without are exact.
    pub(super) wildcards: bool,
    /// Whether any has a parameter: then TrustGate's order of rules may be another than the native one.
    pub(super) parameters: bool,
}

/// The paths of a rule as they are written.
pub(super) fn paths(value: &Value) -> Vec<&str> {
    let extra = value.get("paths").and_then(Value::as_array);
    let all = value
        .get("path")
        .into_iter()
        .chain(extra.into_iter().flatten());
    let mut paths = Vec::new();
    for path in all.filter_map(Value::as_str) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

pub(super) fn read(
    doc: &Doc<'_>,
    around: &Around<'_>,
    catalog: &mut Catalog,
    report: &mut Report,
) -> (Known, Vec<Resource>) {
    let mut known = Known {
        known_as: Vec::new(),
        names: Vec::new(),
    };
    let Some(fields) = Fields::open(doc.value, &doc.path, &KNOWN, report) else {
        return (known, Vec::new());
    };
    let name = fields.text("name", report).filter(|name| !name.is_empty());
    known.known_as = [name, fields.text("id", report)]
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    let mut body = Body::new();
    body.insert("gateway".into(), around.gateway.into());
    let mut labels = Body::new();
    fields.label(
        &[("id", "trustgate-id"), ("type", "trustgate-type")],
        "of no use here",
        &mut labels,
        report,
    );
    fields.warn(&DATES, "only for the record", report);
    fields.warn(&["gateway_id"], "the gateway it belongs to", report);
    fields.warn(&["headers"], "TrustGate never compared them", report);
    let active = active(&fields, report);
    let chain = settings(&fields, &mut body, report);
    with_labels(&mut body, labels);
    let patterns = patterns(&fields, around.wildcards, report);
    let public = fields.bool("public", report).unwrap_or(false);
    if fields.get("public").is_some() {
        let message = if public {
            "the service's `auth` is \"none\""
        } else {
            "a key is asked for"
        };
        report.adapted(&fields.at("public"), message);
    }
    if patterns.len() > 1 && plugins::counts(&chain) {
        report.refused(&fields.at("paths"), "each path becomes a rule, and each would count for itself; move the limiter to the gateway's `required_plugins`");
    }
    let service = service(&fields, catalog, report);
    let (true, Some(service)) = (active, service) else {
        fields.warn(&["name", "strip_path"], "the rule is left out", report);
        return (known, Vec::new());
    };
    let mut resources = Vec::new();
    for (index, pattern) in patterns.iter().enumerate() {
        let mut body = body.clone();
        body.insert("path".into(), pattern.clone().into());
        if around.parameters {
            let score = score(pattern);
            let message = format!("`priority` = {score}, as TrustGate puts paths in order");
            report.adapted(&fields.at("path"), message);
            body.insert("priority".into(), score.into());
        }
        let offered = match &service {
            Ok(service) => plan(
                &fields, pattern, *service, public, catalog, &mut body, report,
            ),
            Err(service) => plan_named(&fields, service, public, &mut body, report),
        };
        body.insert("services".into(), services(&offered));
        let place = fields.at(if index == 0 { "path" } else { "paths" });
        let native = called(name, pattern, (&fields, &place), catalog, report);
        known.names.push(native.clone());
        resources.push(resource("rule", &native, body));
    }
    (known, resources)
}

/// What a path weighs against others: 10 for every segment that is told, 5 for a parameter, and 3 if nothing may follow.
fn score(pattern: &str) -> u32 {
    let (stem, rest) = match pattern.strip_suffix("/*") {
        Some(stem) => (stem, 0),
        None => (pattern, 3),
    };
    let segments = stem.split('/').filter(|segment| !segment.is_empty());
    let weight = segments.map(|segment| if segment.starts_with('{') { 5 } else { 10 });
    weight.sum::<u32>() + rest
}

/// Its native name: its own, or one made from its path.
fn called(
    name: Option<&str>,
    pattern: &str,
    (fields, place): (&Fields<'_>, &str),
    catalog: &mut Catalog,
    report: &mut Report,
) -> String {
    let native = native_name(name.unwrap_or(pattern), "rule");
    let native = catalog.names.give("rule", &native);
    match name {
        Some(name) if name == native => report.taken(&fields.at("name"), "`name`"),
        Some(_) => report.adapted(
            &fields.at("name"),
            format!("the rule is called `{native}` here"),
        ),
        None => report.assumed(
            place,
            format!("the rule is called `{native}`, after its path"),
        ),
    }
    native
}

/// With a service that is not among these documents, whose targets are not known.
fn plan_named(
    fields: &Fields<'_>,
    service: &str,
    public: bool,
    body: &mut Body,
    report: &mut Report,
) -> Vec<Offered> {
    if public {
        let message = "whether a key is asked for is the service's to say; apply it together with its service";
        report.refused(&fields.at("public"), message);
    }
    if fields.bool("strip_path", report).is_some() {
        report.taken(&fields.at("strip_path"), "`strip_path`");
    }
    strip(fields, body);
    vec![(service.to_owned(), 1)]
}

fn active(fields: &Fields<'_>, report: &mut Report) -> bool {
    let active = fields.bool("active", report);
    match active {
        Some(false) => report.adapted(
            &fields.at("active"),
            "the rule is left out: it matches nothing",
        ),
        Some(true) => report.taken(&fields.at("active"), "it matches"),
        None => {}
    }
    active != Some(false)
}

/// What does not depend on where the rule leads. Gives the chain.
fn settings(fields: &Fields<'_>, body: &mut Body, report: &mut Report) -> Vec<Value> {
    let methods = fields.texts("methods", report);
    for method in methods.iter().filter(|method| !METHODS.contains(method)) {
        let help = tollgate_sdk::document::suggest(method, &METHODS, "methods");
        report.refused(&fields.at("methods"), format!("no method; {help}"));
    }
    match methods.is_empty() {
        true if fields.get("methods").is_some_and(|list| !list.is_array()) => {}
        true => report.refused(&fields.at("methods"), "a rule needs at least one method"),
        false => report.taken(&fields.at("methods"), "`methods`"),
    }
    body.insert("methods".into(), methods.into());
    if let Some(text) = fields.text("description", report) {
        report.taken(&fields.at("description"), "`description`");
        body.insert("description".into(), text.into());
    }
    if let Some(keep) = fields.bool("preserve_host", report) {
        report.taken(&fields.at("preserve_host"), "`preserve_host`");
        if keep {
            body.insert("preserve_host".into(), true.into());
        }
    }
    match fields.number("retry_attempts", report) {
        Some(0) => {
            report.adapted(
                &fields.at("retry_attempts"),
                "0 means 2: the service's `retry`, by default 2",
            );
        }
        Some(attempts @ 1..=100) => {
            report.adapted(
                &fields.at("retry_attempts"),
                "`retry.attempts`, with pauses, and never after a byte has reached the client",
            );
            body.insert("retry".into(), json!({"attempts": attempts}));
        }
        Some(_) => report.refused(&fields.at("retry_attempts"), "from 0 to 100"),
        None => {}
    }
    if fields
        .get("trustlens")
        .is_some_and(|value| value.as_object().is_none_or(|map| !map.is_empty()))
    {
        report.refused(
            &fields.at("trustlens"),
            "records are not sent anywhere; take it out",
        );
    }
    chain(fields, body, report)
}

fn chain(fields: &Fields<'_>, body: &mut Body, report: &mut Report) -> Vec<Value> {
    let mut chain = Vec::new();
    for name in ["plugin_chain", "plugins_chain"] {
        if let Some(value) = fields.get(name) {
            if name == "plugins_chain" {
                report.adapted(&fields.at(name), "another spelling of `plugin_chain`");
            }
            chain.extend(plugins::chain(value, &fields.at(name), report));
        }
    }
    if !chain.is_empty() {
        body.insert("plugins".into(), chain.clone().into());
    }
    chain
}

/// The rule's paths as native patterns.
fn patterns(fields: &Fields<'_>, wildcards: bool, report: &mut Report) -> Vec<String> {
    if fields.text("path", report).is_none_or(str::is_empty)
        && fields.texts("paths", report).is_empty()
    {
        report.refused(&fields.at("path"), "a rule needs a `path`");
    }
    let mut patterns: Vec<String> = Vec::new();
    let first = fields.get("path").and_then(Value::as_str);
    let extra = fields.texts("paths", report);
    let all = first.map(|path| (fields.at("path"), path)).into_iter();
    let extra = extra
        .iter()
        .enumerate()
        .map(|(at, path)| (format!("{}[{at}]", fields.at("paths")), *path));
    for (at, path) in all.chain(extra) {
        if path.is_empty() {
            report.warned(&at, "it is empty");
            continue;
        }
        let Some(pattern) = pattern(path, wildcards, &at, report) else {
            continue;
        };
        match patterns.contains(&pattern) {
            true => report.taken(&at, "it is there already"),
            false => patterns.push(pattern),
        }
    }
    if patterns.len() > 1 {
        report.adapted(&fields.at("paths"), "each path is a rule of its own");
    }
    patterns
}

fn pattern(path: &str, wildcards: bool, at: &str, report: &mut Report) -> Option<String> {
    let (stem, open) = match path.strip_suffix("/*") {
        Some(stem) => (stem, true),
        None => (path, false),
    };
    let fine = |segment: &str| match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
        Some(name) => {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        }
        None => segment
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"{}*?#".contains(&b)),
    };
    if !path.starts_with('/') || !stem.split('/').all(fine) {
        report.refused(at, "a path begins with a slash; a `*` may only be the last segment, and a parameter, of letters, digits and _, a whole one");
        return None;
    }
    let mut params: Vec<&str> = stem
        .split('/')
        .filter(|segment| segment.starts_with('{'))
        .collect();
    let count = params.len();
    params.sort_unstable();
    params.dedup();
    if params.len() != count {
        report.refused(at, "a parameter stands here twice");
        return None;
    }
    if open {
        report.adapted(
            at,
            format!(
                "`path`; it also matches {} itself",
                if stem.is_empty() { "/" } else { stem }
            ),
        );
        return Some(path.to_owned());
    }
    if wildcards || count > 0 {
        report.taken(at, "`path`, which is exact");
        return Some(path.to_owned());
    }
    let open = format!("{}/*", path.trim_end_matches('/'));
    report.assumed(at, format!("everything below it, too, as the guides have it: `{open}`; only where a rule has a path that ends in /* are others exact"));
    Some(open)
}

/// Where it leads: one of these documents' services, or the name of one that is there already.
fn service(
    fields: &Fields<'_>,
    catalog: &Catalog,
    report: &mut Report,
) -> Option<Result<usize, String>> {
    let Some((name, _)) = fields.any(&["service_id", "service"]) else {
        report.refused(&fields.at("service_id"), "a rule needs a service");
        return None;
    };
    let id = fields.text(name, report)?;
    let found = { catalog.services.iter() }
        .position(|service| service.known_as.iter().any(|known| known == id));
    if let Some(index) = found {
        report.taken(&fields.at(name), "`services`");
        return Some(Ok(index));
    }
    let native = native_name(id, "service");
    let message = format!(
        "no service of these documents has this id or name: taken for the service `{native}` that must be there already, whose targets' paths are sent as they stand"
    );
    report.assumed(&fields.at(name), message);
    Some(Err(native))
}

fn services(offered: &[Offered]) -> Value {
    match offered {
        [(name, _)] => json!([name]),
        several => { several.iter() }
            .map(|(name, weight)| json!({"name": name, "weight": weight}))
            .collect(),
    }
}

fn strip(fields: &Fields<'_>, body: &mut Body) {
    if fields.get("strip_path") == Some(&Value::Bool(true)) {
        body.insert("strip_path".into(), true.into());
    }
}

/// Settles what is sent, and asks for the services that it takes.
fn plan(
    fields: &Fields<'_>,
    pattern: &str,
    service: usize,
    public: bool,
    catalog: &mut Catalog,
    body: &mut Body,
    report: &mut Report,
) -> Vec<Offered> {
    let stripped = fields.bool("strip_path", report);
    let at = fields.at("strip_path");
    let sent = what_is_sent(pattern, stripped == Some(true), catalog.targets(service));
    let mut with_paths = false;
    match sent {
        Ok(Sent::Path) => {
            if stripped.is_some() {
                report.taken(&at, "`strip_path`");
            }
            strip(fields, body);
        }
        Ok(Sent::Rest) => {
            report.adapted(
                &at,
                "`strip_path`; the targets' paths stand before what is left",
            );
            body.insert("strip_path".into(), true.into());
            with_paths = true;
        }
        Ok(Sent::Instead(path)) => {
            let message =
                format!("the targets' path is sent instead of the request's: `rewrite` {path}");
            report.adapted(&fields.path, message);
            if stripped.is_some() {
                report.adapted(&at, "`rewrite` says what is sent");
            }
            body.insert("rewrite".into(), path.into());
        }
        Err(message) => report.refused(&fields.path, message),
    }
    catalog.offer(service, Wanted { with_paths, public }, report)
}
