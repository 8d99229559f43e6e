//! TrustGate's gateways.
//!
//! It owns what concerns a gateway as a whole; its security headers are [`security`](super::security)'s.

use serde_json::{Value, json};

use super::super::Resource;
use super::fields::{Body, Fields, Names, Report, join, resource, with_labels};
use super::{DATES, Doc, plugins, security};

const KNOWN: [&str; 15] = [
    "id",
    "name",
    "subdomain",
    "status",
    "type",
    "required_plugins",
    "telemetry",
    "security_config",
    "client_tls",
    "session_config",
    "created_at",
    "updated_at",
    "CreatedAt",
    "UpdatedAt",
    "description",
];

/// A gateway as the other documents see it.
#[derive(Default)]
pub(super) struct Gateway {
    /// What documents may call it: its id, its name.
    pub(super) known_as: Vec<String>,
    /// Its native name.
    pub(super) name: String,
    /// Hosts of targets whose certificates are not looked at.
    pub(super) insecure: Vec<String>,
}

/// Reads one of `count` gateways.
pub(super) fn read(
    doc: &Doc<'_>,
    count: usize,
    names: &mut Names,
    report: &mut Report,
) -> Option<(Gateway, Resource)> {
    let fields = Fields::open(doc.value, &doc.path, &KNOWN, report)?;
    let mut known = Gateway::default();
    let Some(name) = fields.text("name", report) else {
        report.refused(&fields.at("name"), "a gateway needs a name");
        return None;
    };
    known.name = names.adapt("gateway", name, &fields.at("name"), report);
    known.known_as = [Some(name), fields.text("id", report)]
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    let (mut body, mut labels) = (Body::new(), Body::new());
    fields.label(
        &[("id", "trustgate-id"), ("type", "trustgate-type")],
        "of no use here",
        &mut labels,
        report,
    );
    fields.warn(&DATES, "only for the record", report);
    if let Some(text) = fields.text("description", report) {
        report.taken(&fields.at("description"), "`description`");
        body.insert("description".into(), text.into());
    }
    status(&fields, &mut body, report);
    let allowed = security::hosts(&fields, report);
    hosts(&fields, allowed, count, &mut body, report);
    body.insert(
        "auth".into(),
        json!({"type": "api_key", "header": "X-TG-API-Key"}),
    );
    report.assumed(
        &doc.path,
        "keys are taken from X-TG-API-Key, X-Api-Key and Authorization, as TrustGate does",
    );
    report.assumed(
        &doc.path,
        "refusals have the form of OpenAI's errors, {\"error\": {\"message\", …}}, not {\"error\": \"…\"}; a path that is known by another method gets 405, not 404",
    );
    body.insert("routing".into(), "none".into());
    report.assumed(
        &doc.path,
        "only rules route: nothing goes by the model's name",
    );
    chain(&fields, &mut body, report);
    known.insecure = client_tls(&fields, report);
    telemetry(&fields, report);
    session(&fields, report);
    with_labels(&mut body, labels);
    let resource = resource("gateway", &known.name, body);
    Some((known, resource))
}

fn status(fields: &Fields<'_>, body: &mut Body, report: &mut Report) {
    let path = fields.at("status");
    match fields.text("status", report) {
        Some("active") => report.taken(&path, "`status`"),
        Some("inactive" | "paused" | "disabled") => {
            report.adapted(&path, "paused: requests get 503");
            body.insert("status".into(), "paused".into());
        }
        Some(_) => report.refused(&path, "\"active\" or \"inactive\""),
        None => {}
    }
}

/// Where requests for it come to. TrustGate tells gateways apart by subdomain or, later, by key.
fn hosts(
    fields: &Fields<'_>,
    allowed: Vec<String>,
    count: usize,
    body: &mut Body,
    report: &mut Report,
) {
    let subdomain = fields
        .text("subdomain", report)
        .filter(|text| !text.is_empty());
    let path = fields.at("subdomain");
    if !allowed.is_empty() {
        if subdomain.is_some() {
            report.adapted(&path, "`security_config.allowed_hosts` names its hosts");
        }
        body.insert("hosts".into(), allowed.into());
        return;
    }
    if let Some(subdomain) = subdomain {
        // Not `subdomain` and `domain`: with these every service would have a host of its own, past the rules and their plugins.
        let host = format!("{}.localhost", subdomain.to_ascii_lowercase());
        let label = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if !subdomain.bytes().all(label)
            || subdomain.starts_with('-')
            || subdomain.ends_with('-')
            || subdomain.len() > 63
        {
            return report.refused(&path, "letters, digits and hyphens, at most 63");
        }
        report.adapted(&path, format!("one of `hosts`: {host}"));
        body.insert("hosts".into(), json!([host]));
        report.assumed(
            &path,
            "TrustGate's base domain is a setting of its server and not in the document; \"localhost\" was taken: write yours in `hosts`",
        );
    }
    match (count, subdomain) {
        (1, _) => {
            body.insert("default".into(), true.into());
            report.assumed(&fields.path, "it is the only gateway here, so it takes requests for every host");
        }
        (_, Some(_)) => {}
        (_, None) => report.refused(
            &path,
            "with several gateways each needs a `subdomain`, or `security_config.allowed_hosts`: here the host tells them apart, not the key",
        ),
    }
}

fn chain(fields: &Fields<'_>, body: &mut Body, report: &mut Report) {
    let mut chain = Vec::new();
    if let Some(value) = fields.get("required_plugins") {
        chain = plugins::chain(value, &fields.at("required_plugins"), report);
    }
    chain.extend(security::headers(fields, report));
    if !chain.is_empty() {
        body.insert("plugins".into(), chain.into());
    }
}

const TLS: [&str; 8] = [
    "allow_insecure_connections",
    "ca_cert",
    "client_certs",
    "cipher_suites",
    "curve_preferences",
    "disable_system_ca_pool",
    "min_version",
    "max_version",
];

/// The hosts whose certificates are not looked at; the rest of how TLS is spoken cannot be chosen here.
fn client_tls(fields: &Fields<'_>, report: &mut Report) -> Vec<String> {
    let mut insecure = Vec::new();
    let path = fields.at("client_tls");
    for (host, value) in fields.table("client_tls", report).into_iter().flatten() {
        let Some(tls) = Fields::open(value, &join(&path, host), &TLS, report) else {
            continue;
        };
        let at = tls.at("allow_insecure_connections");
        match tls.bool("allow_insecure_connections", report) {
            Some(true) => {
                report.adapted(&at, "`tls.verify = false` of upstreams with this host");
                insecure.push(host.to_ascii_lowercase());
            }
            Some(false) => report.taken(&at, "certificates are looked at"),
            None => {}
        }
        for name in [
            "ca_cert",
            "client_certs",
            "cipher_suites",
            "curve_preferences",
        ] {
            if tls.get(name).is_some_and(|value| !is_empty(value)) {
                let message = "not converted: files of certificates are named by `tls.ca`, `tls.certificate` and `tls.key` of an upstream; ciphers and curves cannot be chosen";
                report.refused(&tls.at(name), message);
            }
        }
        let (at, always) = (
            tls.at("disable_system_ca_pool"),
            "the system's authorities are always trusted",
        );
        match tls.bool("disable_system_ca_pool", report) {
            Some(true) => report.refused(&at, always),
            Some(false) => report.taken(&at, always),
            None => {}
        }
        versions(&tls, report);
    }
    insecure
}

fn versions(tls: &Fields<'_>, report: &mut Report) {
    for (name, fine, message) in [
        (
            "min_version",
            ["TLS10", "TLS11", "TLS12"],
            "TLS 1.2 is always spoken; write \"TLS12\"",
        ),
        (
            "max_version",
            ["TLS13", "TLS13", "TLS13"],
            "TLS 1.3 is always spoken; write \"TLS13\"",
        ),
    ] {
        match tls.text(name, report) {
            Some(version) if fine.contains(&version) => {
                report.adapted(&tls.at(name), "TLS 1.2 and 1.3 are spoken");
            }
            Some(_) => report.refused(&tls.at(name), message),
            None => {}
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.values().all(is_empty),
        Value::String(text) => text.is_empty(),
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
    }
}

const TELEMETRY: [&str; 5] = [
    "exporters",
    "extra_params",
    "enable_plugin_traces",
    "enable_request_traces",
    "header_mapping",
];

fn telemetry(fields: &Fields<'_>, report: &mut Report) {
    let Some(value) = fields.get("telemetry") else {
        return;
    };
    let Some(telemetry) = Fields::open(value, &fields.at("telemetry"), &TELEMETRY, report) else {
        return;
    };
    if let Some(exporters) = telemetry.get("exporters") {
        let path = telemetry.at("exporters");
        match is_empty(exporters) {
            true => report.warned(&path, "there are none"),
            false => report.refused(&path, "records are not sent anywhere; take it out and use /metrics, the access log and `tollgate usage`"),
        }
    }
    let why = "there are no exporters it could concern; metrics and the access log are always on";
    let rest = TELEMETRY.get(1..).unwrap_or_default();
    telemetry.warn(rest, why, report);
}

const SESSION: [&str; 5] = [
    "enabled",
    "header_name",
    "body_param_name",
    "mapping_field",
    "ttl",
];

/// Sessions refuse nothing and route nothing: they are kept for guardrails, which are refused themselves.
fn session(fields: &Fields<'_>, report: &mut Report) {
    let Some(value) = fields.get("session_config") else {
        return;
    };
    if let Some(session) = Fields::open(value, &fields.at("session_config"), &SESSION, report) {
        session.warn(
            &SESSION,
            "sessions are remembered for guardrails only, which are not there",
            report,
        );
    }
}
