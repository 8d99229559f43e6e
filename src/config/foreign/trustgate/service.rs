//! TrustGate's services.

use serde_json::json;

use super::fields::{Body, Fields, Names, Report, with_labels};
use super::target::{self, ADDRESS};
use super::upstream::Pool;
use super::{DATES, Doc, credentials};

const KNOWN: [&str; 21] = [
    "id",
    "gateway_id",
    "name",
    "type",
    "description",
    "tags",
    "upstream_id",
    "upstream",
    "host",
    "port",
    "protocol",
    "path",
    "headers",
    "credentials",
    "stream",
    "retries",
    "created_at",
    "updated_at",
    "CreatedAt",
    "UpdatedAt",
    "stick_session",
];

/// A service as rules see it.
pub(super) struct Service {
    /// What documents may call it: its id, its name.
    pub(super) known_as: Vec<String>,
    /// Its native name.
    pub(super) name: String,
    pub(super) path: String,
    pub(super) to: To,
    /// What native services made of it have in common.
    pub(super) body: Body,
    /// Whether a path it is reached by is one of OpenAI's API.
    pub(super) speaks_openai: bool,
}

/// Where a service leads to.
pub(super) enum To {
    /// One of the pools of these documents.
    Pool(usize),
    /// An upstream that is there already.
    Named(String),
}

/// Reads a service; an address of its own becomes another pool.
pub(super) fn read(
    doc: &Doc<'_>,
    pools: &mut Vec<Pool>,
    names: &mut Names,
    report: &mut Report,
) -> Option<Service> {
    let fields = Fields::open(doc.value, &doc.path, &KNOWN, report)?;
    let Some(name) = fields.text("name", report) else {
        report.refused(&fields.at("name"), "a service needs a name");
        return None;
    };
    let known_as = [Some(name), fields.text("id", report)];
    let known_as = known_as.into_iter().flatten().map(str::to_owned).collect();
    let name = names.adapt("service", name, &fields.at("name"), report);
    let (mut body, mut labels) = (Body::new(), Body::new());
    fields.label(
        &[("id", "trustgate-id"), ("tags", "tags")],
        "of no use here",
        &mut labels,
        report,
    );
    fields.warn(&DATES, "only for the record", report);
    fields.warn(
        &["gateway_id"],
        "the rules of its gateway lead to it",
        report,
    );
    fields.warn(
        &["stream"],
        "answers are streamed whenever the target streams",
        report,
    );
    if fields.bool("stick_session", report) == Some(true) {
        report.refused(
            &fields.at("stick_session"),
            "write it as `policy = { name = \"consistent_hash\", … }` of the upstream",
        );
    } else {
        fields.warn(&["stick_session"], "it is off", report);
    }
    if let Some(text) = fields.text("description", report) {
        report.taken(&fields.at("description"), "`description`");
        if !text.is_empty() {
            body.insert("description".into(), text.into());
        }
    }
    retries(&fields, &mut body, report);
    with_labels(&mut body, labels);
    let to = to(&fields, &name, pools, names, report)?;
    Some(Service {
        known_as,
        name,
        path: doc.path.clone(),
        to,
        body,
        speaks_openai: false,
    })
}

fn retries(fields: &Fields<'_>, body: &mut Body, report: &mut Report) {
    if let Some(attempts) = fields.number("retries", report) {
        match attempts {
            0..=100 => {
                report.adapted(&fields.at("retries"), "`retry.attempts`");
                body.insert("retry".into(), json!({"attempts": attempts}));
            }
            _ => report.refused(&fields.at("retries"), "from 0 to 100"),
        }
    }
}

fn to(
    fields: &Fields<'_>,
    name: &str,
    pools: &mut Vec<Pool>,
    names: &mut Names,
    report: &mut Report,
) -> Option<To> {
    let kind = fields.text("type", report);
    let path = fields.at("type");
    let upstream = fields.any(&["upstream_id", "upstream"]);
    match (kind, upstream.is_some()) {
        (Some("upstream"), true) | (Some("endpoint" | "direct"), false) => {
            report.taken(&path, "where it leads says it");
        }
        (None, _) => report.assumed(&path, "what it leads to tells"),
        (Some("upstream"), false) => report.refused(
            &fields.at("upstream_id"),
            "missing: a service of this type leads to an upstream",
        ),
        (Some("endpoint" | "direct"), true) => report.refused(
            &path,
            "a service with an upstream is of the type \"upstream\"",
        ),
        (Some(_), _) => report.refused(&path, "\"upstream\", \"endpoint\" or \"direct\""),
    }
    let Some((field, _)) = upstream else {
        return own_address(fields, name, pools, names, report);
    };
    for name in ADDRESS.iter().chain(&["headers", "credentials"]) {
        let message = "not beside an upstream: it belongs to its targets";
        match fields.get(name) {
            Some(value) if is_nothing(value) => report.warned(&fields.at(name), "it is empty"),
            Some(_) => report.refused(&fields.at(name), message),
            None => {}
        }
    }
    let id = fields.text(field, report)?;
    let found = { pools.iter() }.position(|pool| pool.known_as.iter().any(|known| known == id));
    if let Some(index) = found {
        report.taken(&fields.at(field), "the service's upstream");
        return Some(To::Pool(index));
    }
    let name = super::fields::native_name(id, "upstream");
    let message = format!(
        "no upstream of these documents has this id or name: taken for the upstream `{name}` that must be there already"
    );
    report.assumed(&fields.at(field), message);
    Some(To::Named(name))
}

/// Whether it is what some write for nothing.
pub(super) fn is_nothing(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.is_empty(),
        serde_json::Value::Object(map) => map.is_empty(),
        serde_json::Value::Number(number) => number.as_u64() == Some(0),
        _ => false,
    }
}

fn own_address(
    fields: &Fields<'_>,
    name: &str,
    pools: &mut Vec<Pool>,
    names: &mut Names,
    report: &mut Report,
) -> Option<To> {
    let mut target = target::address(fields, report)?;
    credentials::headers(fields, &mut target.shares.credentials.headers, report);
    target.weight = 1;
    let native = names.give("upstream", name);
    report.adapted(
        &fields.path,
        format!("its address is the upstream `{native}`"),
    );
    pools.push(Pool {
        known_as: Vec::new(),
        name: native,
        path: fields.path.clone(),
        targets: vec![target],
        body: Body::new(),
    });
    Some(To::Pool(pools.len().saturating_sub(1)))
}
