//! How TrustGate shows itself to a target: credentials and headers.
//!
//! Their values go into native secret fields and nowhere else.

use serde_json::Value;

use super::fields::{Body, Fields, Report};

const KNOWN: [&str; 23] = [
    "api_key",
    "header_name",
    "header_value",
    "param_name",
    "param_value",
    "param_location",
    "azure_use_managed_identity",
    "azure_endpoint",
    "azure_version",
    "azure_client_id",
    "azure_client_secret",
    "azure_tenant_id",
    "gcp_use_service_account",
    "gcp_service_account_json",
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_access_key",
    "aws_secret_key",
    "aws_region",
    "aws_session_token",
    "aws_role",
    "aws_use_role",
    "allow_override",
];

/// What goes upstream with every request of a target.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Credentials {
    pub(super) api_key: Option<String>,
    pub(super) headers: Body,
    /// The address of Azure's resource, of that provider alone.
    pub(super) azure: Option<String>,
}

/// Reads the field `credentials`, if there is one.
pub(super) fn read(
    parent: &Fields<'_>,
    provider: Option<&str>,
    report: &mut Report,
) -> Credentials {
    let mut read = Credentials::default();
    let Some(value) = parent.get("credentials") else {
        return read;
    };
    let Some(fields) = Fields::open(value, &parent.at("credentials"), &KNOWN, report) else {
        return read;
    };
    let azure = provider == Some("azure");
    match fields.text("api_key", report) {
        Some("") => report.warned(&fields.at("api_key"), "it is empty: none is sent"),
        Some(key) if !is_header_value(key) => report.refused(&fields.at("api_key"), NO_VALUE),
        Some(key) if azure => {
            report.adapted(&fields.at("api_key"), "sent in the header `api-key`");
            read.headers.insert("api-key".into(), key.into());
        }
        Some(key) => {
            report.adapted(
                &fields.at("api_key"),
                "the upstream's `api_key`, sent as Authorization: Bearer",
            );
            read.api_key = Some(key.to_owned());
        }
        None => {}
    }
    header(&fields, &mut read.headers, report);
    if azure {
        read.azure = fields.text("azure_endpoint", report).map(str::to_owned);
        if read.azure.is_some() {
            report.taken(&fields.at("azure_endpoint"), "the targets' address");
        }
        let why = "the endpoint's v1 API is asked, which has no versions";
        fields.warn(&["azure_version"], why, report);
    }
    refuse_the_rest(&fields, azure, report);
    read
}

fn header(fields: &Fields<'_>, headers: &mut Body, report: &mut Report) {
    let name = fields
        .text("header_name", report)
        .filter(|name| !name.is_empty());
    let value = fields.text("header_value", report);
    match (name, value) {
        (Some(_), Some(value)) if !is_header_value(value) => {
            report.refused(&fields.at("header_value"), NO_VALUE);
        }
        (Some(name), Some(value)) if is_header(name) => {
            report.adapted(&fields.at("header_name"), "one of the upstream's `headers`");
            report.adapted(
                &fields.at("header_value"),
                "one of the upstream's `headers`",
            );
            headers.insert(name.to_owned(), value.into());
        }
        (Some(_), Some(_)) => report.refused(&fields.at("header_name"), "not the name of a header"),
        (Some(_), None) => {
            report.refused(&fields.at("header_value"), "missing beside `header_name`")
        }
        (None, Some("")) => report.warned(&fields.at("header_value"), "it is empty: none is sent"),
        (None, Some(_)) => {
            report.refused(&fields.at("header_name"), "missing beside `header_value`")
        }
        (None, None) => {}
    }
}

fn refuse_the_rest(fields: &Fields<'_>, azure: bool, report: &mut Report) {
    for name in KNOWN.iter().skip(3) {
        let Some(value) = fields.get(name) else {
            continue;
        };
        let path = fields.at(name);
        let empty = matches!(value, Value::Bool(false)) || value.as_str() == Some("");
        if empty {
            report.warned(&path, "it is empty: nothing is sent");
        } else if *name == "allow_override" {
            report.refused(
                &path,
                "a client's credential is never sent in place of the upstream's; write false",
            );
        } else if name.starts_with("param_") {
            report.refused(
                &path,
                "credentials are sent in headers only; use `header_name` and `header_value`",
            );
        } else if !(azure && matches!(*name, "azure_endpoint" | "azure_version")) {
            report.refused(&path, "cloud identities are not supported; use a key");
        }
    }
}

/// Reads the field `headers`: the headers sent to a target.
pub(super) fn headers(parent: &Fields<'_>, headers: &mut Body, report: &mut Report) {
    let path = parent.at("headers");
    for (name, value) in parent.table("headers", report).into_iter().flatten() {
        let at = format!("{path}.{name}");
        match value.as_str() {
            Some(value) if !is_header_value(value) => report.refused(&at, NO_VALUE),
            Some(value) if is_header(name) => {
                report.adapted(&at, "one of the upstream's `headers`");
                headers.insert(name.clone(), value.into());
            }
            Some(_) => report.refused(&at, "not the name of a header"),
            None => report.refused(&at, "text is expected here"),
        }
    }
}

const NO_VALUE: &str = "it cannot be sent in a header";

/// Whether a header can have this value: what is printed in ASCII.
pub(super) fn is_header_value(value: &str) -> bool {
    value.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

pub(super) fn is_header(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(&b);
    !name.is_empty() && name.bytes().all(token)
}
