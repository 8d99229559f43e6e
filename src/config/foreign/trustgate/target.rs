//! Where TrustGate sends requests: an address, or a provider by its name.

use serde_json::Value;

use super::credentials::{self, Credentials};
use super::fields::{Body, Fields, Report, is_host};
use super::service::is_nothing;

/// What an address consists of, in targets and in services of type `endpoint`.
pub(super) const ADDRESS: [&str; 4] = ["host", "port", "protocol", "path"];

const KNOWN: [&str; 20] = [
    "id",
    "weight",
    "priority",
    "tags",
    "headers",
    "path",
    "host",
    "port",
    "protocol",
    "stream",
    "insecure_ssl",
    "description",
    "provider",
    "provider_options",
    "models",
    "default_model",
    "credentials",
    "auth",
    "health",
    "name",
];

/// A target, and what it shares with others of its upstream.
#[derive(Clone)]
pub(super) struct Target {
    /// Its address without a path.
    pub(super) url: String,
    /// The path that is sent there in place of the request's.
    pub(super) sends: Option<String>,
    /// Whether a rule's rest of the path never follows: a provider has one path.
    pub(super) fixed: bool,
    /// 0 if it is not told, or told so.
    pub(super) weight: u64,
    pub(super) labels: Body,
    pub(super) shares: Shares,
}

/// What targets of one native upstream have in common.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Shares {
    pub(super) credentials: Credentials,
    /// Certificates are not looked at.
    pub(super) insecure: bool,
    pub(super) provider: Option<&'static str>,
    pub(super) models: Vec<String>,
    pub(super) default_model: Option<String>,
}

/// Reads a target; `insecure` are hosts whose certificates are not looked at.
pub(super) fn read(
    value: &Value,
    path: &str,
    insecure: &[String],
    report: &mut Report,
) -> Option<Target> {
    let fields = Fields::open(value, path, &KNOWN, report)?;
    let mut labels = Body::new();
    let record = [
        ("id", "trustgate-id"),
        ("name", "trustgate-name"),
        ("tags", "tags"),
        ("description", "description"),
    ];
    fields.label(&record, "of no use here", &mut labels, report);
    fields.warn(&["priority"], "TrustGate never looked at it", report);
    fields.warn(&["health"], "a state, not a setting", report);
    fields.warn(
        &["stream"],
        "answers are streamed whenever the target streams",
        report,
    );
    if fields
        .get("auth")
        .is_some_and(|auth| auth.as_object().is_none_or(|auth| !auth.is_empty()))
    {
        report.refused(
            &fields.at("auth"),
            "OAuth towards targets is not supported; use `credentials`",
        );
    }
    let weight = fields.number("weight", report).unwrap_or(0);
    let mut target = match fields
        .text("provider", report)
        .filter(|name| !name.is_empty())
    {
        Some(name) => provider(name, &fields, report)?,
        None => address(&fields, report)?,
    };
    credentials::headers(&fields, &mut target.shares.credentials.headers, report);
    if let Some(flag) = fields.bool("insecure_ssl", report) {
        report.adapted(&fields.at("insecure_ssl"), "`tls.verify` of the upstream");
        target.shares.insecure = flag;
    }
    let host = target.url.split("://").nth(1).unwrap_or_default();
    let without_port = host.rsplit_once(':').map_or(host, |(host, _)| host);
    target.shares.insecure |= { insecure.iter() }.any(|of| of == host || of == without_port);
    Some(Target {
        weight,
        labels,
        ..target
    })
}

/// An address by `host`, `port`, `protocol` and `path`.
pub(super) fn address(fields: &Fields<'_>, report: &mut Report) -> Option<Target> {
    let Some(host) = fields.text("host", report).filter(|host| !host.is_empty()) else {
        let message = "a target needs a `host`, or a `provider`";
        report.refused(&fields.at("host"), message);
        return None;
    };
    for name in ["provider_options", "models", "default_model"] {
        if fields
            .get(name)
            .is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()))
        {
            report.refused(&fields.at(name), "only of a target with a `provider`");
        }
    }
    let port = fields.number("port", report);
    if port.is_some_and(|port| !(1..=65535).contains(&port)) {
        report.refused(&fields.at("port"), "from 1 to 65535");
    }
    let scheme = scheme(fields, port, report)?;
    let v6 = host.contains(':');
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let fine = if v6 {
        bare.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        is_host(bare)
    };
    if !fine {
        report.refused(
            &fields.at("host"),
            "a host's name or address alone, without scheme, port or path",
        );
        return None;
    }
    report.taken(&fields.at("host"), "the target's URL");
    let host = if v6 {
        format!("[{bare}]")
    } else {
        bare.to_ascii_lowercase()
    };
    let url = match port {
        Some(port) => {
            report.taken(&fields.at("port"), "the target's URL");
            format!("{scheme}://{host}:{port}")
        }
        None => format!("{scheme}://{host}"),
    };
    let shares = Shares {
        credentials: credentials::read(fields, None, report),
        ..Shares::default()
    };
    Some(Target {
        url,
        sends: path(fields, report),
        fixed: false,
        weight: 0,
        labels: Body::new(),
        shares,
    })
}

fn scheme(fields: &Fields<'_>, port: Option<u64>, report: &mut Report) -> Option<&'static str> {
    let path = fields.at("protocol");
    match fields
        .text("protocol", report)
        .filter(|text| !text.is_empty())
    {
        Some(text) if text.eq_ignore_ascii_case("http") => {
            report.taken(&path, "the target's URL");
            Some("http")
        }
        Some(text) if text.eq_ignore_ascii_case("https") => {
            report.taken(&path, "the target's URL");
            Some("https")
        }
        Some(_) => {
            report.refused(&path, "\"http\" or \"https\"");
            None
        }
        None => {
            let scheme = if port == Some(443) { "https" } else { "http" };
            report.assumed(&path, format!("{scheme}, by the port"));
            Some(scheme)
        }
    }
}

/// The path that is sent, if one is told.
fn path(fields: &Fields<'_>, report: &mut Report) -> Option<String> {
    let text = fields.text("path", report)?;
    let at = fields.at("path");
    if text.is_empty() {
        report.warned(&at, "it is empty: the request's own path is sent");
        return None;
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains(['?', '#']) {
        report.refused(
            &at,
            "a path in ASCII, without a query; what cannot stand in one is percent-encoded",
        );
        return None;
    }
    Some(match text.strip_prefix('/') {
        Some(_) => {
            report.adapted(&at, "the rules that lead here send it");
            text.to_owned()
        }
        None => {
            report.adapted(
                &at,
                "the rules that lead here send it, with a slash before it",
            );
            format!("/{text}")
        }
    })
}

/// Providers that understand OpenAI's API: name, address, and what goes before the path that is sent. The version at the end of an address and the one at
/// the beginning of a path are sent once.
const PROVIDERS: [(&str, &str, &str); 4] = [
    ("openai", "https://api.openai.com/v1", "/v1"),
    ("mistral", "https://api.mistral.ai/v1", "/v1"),
    ("anthropic", "https://api.anthropic.com/v1", "/v1"),
    (
        "google",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "",
    ),
];

fn provider(name: &str, fields: &Fields<'_>, report: &mut Report) -> Option<Target> {
    let path = fields.at("provider");
    let own = match name {
        "azure" => Some(("azure", "", "/v1")),
        _ => PROVIDERS.into_iter().find(|(known, ..)| *known == name),
    };
    let Some((provider, url, base)) = own else {
        let known = ["openai", "mistral", "anthropic", "google", "azure"];
        let message = match name {
            "bedrock" => "requests to Bedrock must be signed, which is not supported".to_owned(),
            _ => format!(
                "unknown provider; {}",
                tollgate_sdk::document::suggest(name, &known, "providers")
            ),
        };
        report.refused(&path, message);
        return None;
    };
    let credentials = credentials::read(fields, Some(provider), report);
    let url = match (provider, &credentials.azure) {
        ("azure", Some(endpoint)) => azure(endpoint, fields, report),
        ("azure", None) => {
            report.refused(
                &fields.at("credentials.azure_endpoint"),
                "missing: where the resource is",
            );
            None
        }
        _ => Some(url.to_owned()),
    };
    report.adapted(&path, format!("asked at {provider}'s API in OpenAI's form"));
    if fields.get("credentials").is_none() {
        report.refused(
            &fields.at("credentials"),
            "missing: a provider asks for a key",
        );
    }
    for name in ["host", "port", "protocol"] {
        let message = "a provider has an address of its own: take it out, or the `provider`";
        match fields.get(name) {
            Some(value) if is_nothing(value) => report.warned(&fields.at(name), "it is empty"),
            Some(_) => report.refused(&fields.at(name), message),
            None => {}
        }
    }
    fields.warn(&["path"], "a provider has a path of its own", report);
    let api = api(provider, fields, report);
    let (models, default_model) = models(fields, report);
    let shares = Shares {
        credentials,
        insecure: false,
        provider: Some(provider),
        models,
        default_model,
    };
    Some(Target {
        url: url?,
        sends: Some(format!("{base}{api}")),
        fixed: true,
        weight: 0,
        labels: Body::new(),
        shares,
    })
}

fn azure(endpoint: &str, fields: &Fields<'_>, report: &mut Report) -> Option<String> {
    let host = endpoint.trim_end_matches('/').strip_prefix("https://");
    match host.filter(|host| is_host(host)) {
        Some(host) => Some(format!("https://{}/openai/v1", host.to_ascii_lowercase())),
        None => {
            report.refused(
                &fields.at("credentials.azure_endpoint"),
                "an address like \"https://NAME.openai.azure.com\"",
            );
            None
        }
    }
}

/// What follows the provider's own path.
fn api(provider: &str, fields: &Fields<'_>, report: &mut Report) -> &'static str {
    let Some(value) = fields.get("provider_options") else {
        return "/chat/completions";
    };
    let Some(options) = Fields::open(value, &fields.at("provider_options"), &["api"], report)
    else {
        return "/chat/completions";
    };
    match options.text("api", report) {
        Some("responses") if provider == "openai" => {
            report.adapted(&options.at("api"), "the path that is sent");
            "/responses"
        }
        Some("completions") => {
            report.adapted(&options.at("api"), "the path that is sent");
            "/chat/completions"
        }
        Some(_) => {
            report.refused(
                &options.at("api"),
                "\"completions\", or of openai also \"responses\"",
            );
            "/chat/completions"
        }
        None => "/chat/completions",
    }
}

fn models(fields: &Fields<'_>, report: &mut Report) -> (Vec<String>, Option<String>) {
    let models: Vec<String> = fields
        .texts("models", report)
        .into_iter()
        .map(str::to_owned)
        .collect();
    if { models.iter() }.any(|name| name.is_empty() || name.chars().any(char::is_control)) {
        report.refused(
            &fields.at("models"),
            "a model's name may neither be empty nor hold control characters",
        );
    }
    let default = fields
        .text("default_model", report)
        .filter(|name| !name.is_empty());
    let path = fields.at("default_model");
    let Some(default) = default else {
        report.refused(&path, "missing: a provider needs a model");
        return (models, None);
    };
    if !models.iter().any(|name| name == default) {
        report.refused(&path, "it must be one of `models`");
    } else if models.len() == 1 {
        report.adapted(&fields.at("models"), "every request is for the one model");
        report.adapted(
            &path,
            "`model` of the service: sent whatever the request names",
        );
    } else {
        report.adapted(
            &fields.at("models"),
            "the plugin `model_allowlist` of the service",
        );
        report.warned(
            &path,
            "a request that names none of `models` gets 403 instead of this one",
        );
    }
    (models, Some(default.to_owned()))
}
