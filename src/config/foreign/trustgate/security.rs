//! A gateway's `security_config`: hosts, and headers that answers carry.

use serde_json::{Value, json};

use super::credentials::is_header_value;
use super::fields::{Body, Fields, Report, is_host};

const KNOWN: [&str; 14] = [
    "allowed_hosts",
    "allowed_hosts_are_regex",
    "ssl_redirect",
    "ssl_host",
    "ssl_proxy_headers",
    "sts_seconds",
    "sts_include_subdomains",
    "frame_deny",
    "custom_frame_options_value",
    "referrer_policy",
    "content_security_policy",
    "content_type_nosniff",
    "browser_xss_filter",
    "is_development",
];

/// The hosts that are allowed, if they are told. Reports the table's unknown fields.
pub(super) fn hosts(gateway: &Fields<'_>, report: &mut Report) -> Vec<String> {
    let Some(value) = gateway.get("security_config") else {
        return Vec::new();
    };
    let Some(fields) = Fields::open(value, &gateway.at("security_config"), &KNOWN, report) else {
        return Vec::new();
    };
    let hosts = fields.texts("allowed_hosts", report);
    let regex = fields.bool("allowed_hosts_are_regex", report);
    let path = fields.at("allowed_hosts");
    match (regex, hosts.is_empty()) {
        (Some(true), false) => {
            let message = "hosts are names here: \"api.example.com\" or \"*.example.com\"";
            report.refused(&fields.at("allowed_hosts_are_regex"), message);
            return Vec::new();
        }
        (Some(_), _) => report.warned(&fields.at("allowed_hosts_are_regex"), "hosts are names"),
        (None, _) => {}
    }
    if fields.get("allowed_hosts").is_some() {
        match hosts.is_empty() {
            true => report.warned(&path, "it is empty: every host is allowed"),
            false => report.adapted(&path, "the gateway's `hosts`"),
        }
    }
    let valid = |host: &&str| is_host(host.strip_prefix("*.").unwrap_or(host));
    if !hosts.iter().all(valid) {
        report.refused(
            &path,
            "a host has letters, digits, hyphens and dots only, and no port",
        );
    }
    hosts
        .into_iter()
        .filter(valid)
        .map(str::to_ascii_lowercase)
        .collect()
}

/// The plugin that sets the headers. Unknown fields were reported by [`hosts`].
pub(super) fn headers(gateway: &Fields<'_>, report: &mut Report) -> Option<Value> {
    let value = gateway.get("security_config")?;
    let path = gateway.at("security_config");
    let fields = Fields::open(value, &path, &KNOWN, &mut Report::default())?;
    transport(&fields, report);
    let mut set = Body::new();
    strict_transport(&fields, &mut set, report);
    for (name, header, value) in [
        ("frame_deny", "X-Frame-Options", "DENY"),
        ("content_type_nosniff", "X-Content-Type-Options", "nosniff"),
        ("browser_xss_filter", "X-XSS-Protection", "1; mode=block"),
    ] {
        match fields.bool(name, report) {
            Some(true) => put(&fields, name, header, value, &mut set, report),
            Some(false) => report.taken(&fields.at(name), "no header"),
            None => {}
        }
    }
    for (name, header) in [
        ("custom_frame_options_value", "X-Frame-Options"),
        ("referrer_policy", "Referrer-Policy"),
        ("content_security_policy", "Content-Security-Policy"),
    ] {
        match fields.text(name, report) {
            Some("") => report.taken(&fields.at(name), "no header"),
            Some(text) => put(&fields, name, header, text, &mut set, report),
            None => {}
        }
    }
    (!set.is_empty()).then(
        || json!({"name": "headers", "priority": 999, "settings": {"response": {"set": set}}}),
    )
}

fn put(
    fields: &Fields<'_>,
    name: &str,
    header: &str,
    value: &str,
    set: &mut Body,
    report: &mut Report,
) {
    if !is_header_value(value) {
        return report.refused(&fields.at(name), "not the value of a header");
    }
    report.adapted(
        &fields.at(name),
        format!("the plugin `headers` sets {header}"),
    );
    set.insert(header.to_owned(), value.into());
}

fn strict_transport(fields: &Fields<'_>, set: &mut Body, report: &mut Report) {
    let development = fields.bool("is_development", report);
    match development {
        Some(true) => report.adapted(
            &fields.at("is_development"),
            "browsers are not told to insist on TLS",
        ),
        Some(false) => report.taken(&fields.at("is_development"), "nothing is left out"),
        None => {}
    }
    let subdomains = fields.bool("sts_include_subdomains", report);
    if subdomains.is_some() {
        report.adapted(
            &fields.at("sts_include_subdomains"),
            "a part of Strict-Transport-Security",
        );
    }
    match fields.number("sts_seconds", report) {
        Some(0) => report.taken(&fields.at("sts_seconds"), "no header"),
        Some(_) if development == Some(true) => {
            report.adapted(
                &fields.at("sts_seconds"),
                "no header, because of `is_development`",
            );
        }
        Some(seconds) => {
            let value = match subdomains {
                Some(true) => format!("max-age={seconds}; includeSubDomains"),
                _ => format!("max-age={seconds}"),
            };
            put(
                fields,
                "sts_seconds",
                "Strict-Transport-Security",
                &value,
                set,
                report,
            );
        }
        None => {}
    }
}

/// What concerns TLS on the way from clients, which Tollgate leaves to whoever stands before it.
fn transport(fields: &Fields<'_>, report: &mut Report) {
    match fields.bool("ssl_redirect", report) {
        Some(true) => report.refused(
            &fields.at("ssl_redirect"),
            "clients are not redirected here; let whoever ends TLS before Tollgate do it, and take it out",
        ),
        Some(false) => report.taken(&fields.at("ssl_redirect"), "nobody is redirected"),
        None => {}
    }
    fields.warn(
        &["ssl_host", "ssl_proxy_headers"],
        "only for redirecting",
        report,
    );
}
