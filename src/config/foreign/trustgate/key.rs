//! TrustGate's keys.

use serde_json::Value;
use tollgate_sdk::document::FromText;

use super::super::Resource;
use super::fields::{Body, Fields, Names, Report, resource, with_labels};
use super::rule::Known;
use super::{DATES, Doc};
use crate::model::KeyHash;

const KNOWN: [&str; 14] = [
    "id",
    "gateway_id",
    "name",
    "key",
    "expires_at",
    "active",
    "subject_type",
    "subject",
    "policies",
    "created_at",
    "updated_at",
    "CreatedAt",
    "UpdatedAt",
    "description",
];

/// The shortest secret that a native key may have.
const SHORTEST: usize = 16;

pub(super) fn read(
    doc: &Doc<'_>,
    gateway: &str,
    rules: &[Known],
    names: &mut Names,
    report: &mut Report,
) -> Option<Resource> {
    let fields = Fields::open(doc.value, &doc.path, &KNOWN, report)?;
    let Some(name) = fields.text("name", report) else {
        report.refused(&fields.at("name"), "a key needs a name");
        return None;
    };
    let name = names.adapt("key", name, &fields.at("name"), report);
    let (mut body, mut labels) = (Body::new(), Body::new());
    body.insert("gateway".into(), gateway.into());
    fields.label(
        &[("id", "trustgate-id")],
        "of no use here",
        &mut labels,
        report,
    );
    fields.warn(&DATES, "only for the record", report);
    fields.warn(&["gateway_id"], "the gateway it opens", report);
    with_labels(&mut body, labels);
    if let Some(text) = fields.text("description", report) {
        report.taken(&fields.at("description"), "`description`");
        body.insert("description".into(), text.into());
    }
    if let Some(active) = fields.bool("active", report) {
        report.taken(&fields.at("active"), "`active`");
        if !active {
            body.insert("active".into(), false.into());
        }
    }
    expiry(&fields, &mut body, report);
    subject(&fields, report);
    policies(&fields, rules, &mut body, report);
    let secret = fields
        .text("key", report)
        .filter(|key| !key.is_empty() && !key.contains("**"));
    let Some(secret) = secret else {
        let expires = if body.contains_key("expires_at") {
            " --expires …"
        } else {
            ""
        };
        let message = format!(
            "its secret is not in the document, so no key is made of it; make one, whose secret is shown once: `tollgate key create {name} --gateway {gateway}{expires}`"
        );
        report.warned(&fields.at("key"), message);
        return None;
    };
    if KeyHash::from_text(secret).is_ok() {
        report.taken(&fields.at("key"), "`hash`");
        body.insert("hash".into(), secret.into());
        return Some(resource("key", &name, body));
    }
    if secret.len() < SHORTEST {
        report.refused(
            &fields.at("key"),
            format!("a secret of less than {SHORTEST} characters"),
        );
    } else {
        report.taken(
            &fields.at("key"),
            "`secret`, of which only the hash is kept",
        );
    }
    body.insert("secret".into(), secret.into());
    Some(resource("key", &name, body))
}

fn expiry(fields: &Fields<'_>, body: &mut Body, report: &mut Report) {
    let Some(text) = fields
        .text("expires_at", report)
        .filter(|text| !text.is_empty())
    else {
        return;
    };
    match text.parse::<jiff::Timestamp>() {
        Ok(_) => {
            report.taken(&fields.at("expires_at"), "`expires_at`");
            body.insert("expires_at".into(), text.into());
        }
        Err(_) => report.refused(
            &fields.at("expires_at"),
            "a date and time with a zone, for example \"2031-01-01T00:00:00Z\"",
        ),
    }
}

fn subject(fields: &Fields<'_>, report: &mut Report) {
    let kind = fields.text("subject_type", report);
    match kind {
        Some("gateway" | "policy") => {
            report.adapted(&fields.at("subject_type"), "`rules` says what it opens")
        }
        Some(_) => report.refused(&fields.at("subject_type"), "\"gateway\" or \"policy\""),
        None => {}
    }
    match (kind, fields.get("subject")) {
        (Some("policy"), Some(_)) => {
            report.refused(&fields.at("subject"), "not with the type \"policy\"")
        }
        (_, Some(_)) => report.warned(&fields.at("subject"), "the gateway it opens"),
        (_, None) => {}
    }
}

fn policies(fields: &Fields<'_>, known: &[Known], body: &mut Body, report: &mut Report) {
    let path = fields.at("policies");
    let mut rules: Vec<Value> = Vec::new();
    let policies = fields.texts("policies", report);
    for (index, id) in policies.iter().enumerate() {
        let at = format!("{path}[{index}]");
        let found = { known.iter() }.find(|rule| rule.known_as.iter().any(|known| known == id));
        match found {
            // One that is left out opens nothing, and must not come to open everything.
            Some(rule) if rule.names.is_empty() => report.adapted(&at, "the rule is left out"),
            Some(rule) => {
                report.adapted(&at, "one of `rules`");
                rules.extend(rule.names.iter().map(|name| Value::from(name.clone())));
            }
            None => report.refused(
                &at,
                "no rule of these documents has this id or name; apply it together with its rules",
            ),
        }
    }
    if rules.is_empty() && !policies.is_empty() {
        report.refused(
            &path,
            "none of its rules is there: with no rule named it would open all of them",
        );
    } else if rules.is_empty() && fields.get("policies").is_some() {
        report.taken(&path, "it opens every rule");
    }
    if !rules.is_empty() {
        body.insert("rules".into(), rules.into());
    }
}
