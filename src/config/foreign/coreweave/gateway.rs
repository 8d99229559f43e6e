//! CoreWeave's gateways.

use serde_json::{Value, json};

use super::super::Resource;
use super::super::trustgate::fields::{
    Body, Fields, Names, Report, is_host, resource, with_labels,
};
use super::{Doc, Known};

const KNOWN: [&str; 10] = [
    "id",
    "organizationId",
    "name",
    "zones",
    "coreWeaveAuth",
    "weightsAndBiasesAuth",
    "bodyBasedRouting",
    "pathBasedRouting",
    "headerBasedRouting",
    "endpointConfiguration",
];

/// Reads one of `count` gateways.
pub(super) fn read(
    doc: &Doc,
    count: usize,
    names: &mut Names,
    report: &mut Report,
) -> Option<(Known, Resource)> {
    let fields = Fields::open(&doc.value, &doc.path, &KNOWN, report)?;
    let id = fields.text("id", report);
    let (mut body, mut labels) = (Body::new(), Body::new());
    let record = [
        ("id", "coreweave-id"),
        ("organizationId", "coreweave-organization"),
    ];
    fields.label(&record, "only for the record", &mut labels, report);
    fields.label(
        &[("zones", "zones")],
        "Tollgate runs where you run it",
        &mut labels,
        report,
    );
    auth(&fields, report);
    body.insert("auth".into(), "api_key".into());
    routing(&fields, &mut body, report);
    endpoint(&fields, count, &mut body, report);
    with_labels(&mut body, labels);
    let Some(name) = fields.text("name", report).filter(|name| !name.is_empty()) else {
        report.refused(&fields.at("name"), "a gateway needs a name");
        return None;
    };
    let native = names.adapt("gateway", name, &fields.at("name"), report);
    let known = Known {
        known_as: [Some(name), id]
            .into_iter()
            .flatten()
            .map(str::to_owned)
            .collect(),
        name: native.clone(),
    };
    Some((known, resource("gateway", &native, body)))
}

/// CoreWeave's tokens and those of W&B can only be checked by their owners: here the gateway has keys of its own.
fn auth(fields: &Fields<'_>, report: &mut Report) {
    let own = "keys of the gateway's own are asked for instead: `tollgate key create`; tokens can only be checked by who gave them";
    let (coreweave, wandb) = (
        fields.get("coreWeaveAuth"),
        fields.get("weightsAndBiasesAuth"),
    );
    match (coreweave, wandb) {
        (Some(_), Some(_)) => report.refused(
            &fields.at("weightsAndBiasesAuth"),
            "not beside `coreWeaveAuth`: exactly one of them",
        ),
        (None, None) => report.refused(
            &fields.path,
            "who may use it must be told: `coreWeaveAuth` or `weightsAndBiasesAuth`",
        ),
        _ => {}
    }
    if let Some(value) = coreweave
        && Fields::open(value, &fields.at("coreWeaveAuth"), &[], report).is_some()
    {
        report.adapted(
            &fields.at("coreWeaveAuth"),
            format!("`auth` \"api_key\": {own}"),
        );
    }
    if let Some(value) = wandb {
        const KNOWN: [&str; 4] = [
            "apiKey",
            "serverUrl",
            "enableUsageReports",
            "enableRateLimiting",
        ];
        let path = fields.at("weightsAndBiasesAuth");
        if let Some(wandb) = Fields::open(value, &path, &KNOWN, report) {
            report.adapted(&path, format!("`auth` \"api_key\": {own}"));
            of_wandb(&wandb, report);
        }
    }
}

fn of_wandb(fields: &Fields<'_>, report: &mut Report) {
    let key = fields.text("apiKey", report).filter(|key| !key.is_empty());
    let server = fields
        .text("serverUrl", report)
        .filter(|url| !url.is_empty());
    if key.is_some() && server.is_none() {
        report.refused(&fields.at("apiKey"), "it needs a `serverUrl`");
    } else {
        fields.warn(
            &["apiKey"],
            "W&B's server is not asked; it is kept nowhere",
            report,
        );
    }
    fields.warn(&["serverUrl"], "W&B's server is not asked", report);
    match fields.bool("enableUsageReports", report) {
        Some(true) => report.warned(
            &fields.at("enableUsageReports"),
            "nothing is sent to W&B; what is used is kept here: `tollgate usage`",
        ),
        Some(false) => report.taken(&fields.at("enableUsageReports"), "nothing is sent to W&B"),
        None => {}
    }
    match fields.bool("enableRateLimiting", report) {
        Some(true) => report.refused(
            &fields.at("enableRateLimiting"),
            "W&B's limits are not known here; write false and set `limits` of keys, or the plugin `rate_limiter`",
        ),
        Some(false) => report.taken(&fields.at("enableRateLimiting"), "W&B limits nothing"),
        None => {}
    }
}

/// Exactly one strategy; none is routing by body, which the documentation calls the default.
fn routing(fields: &Fields<'_>, body: &mut Body, report: &mut Report) {
    let strategies = ["bodyBasedRouting", "pathBasedRouting", "headerBasedRouting"];
    let given: Vec<&str> = strategies
        .into_iter()
        .filter(|name| fields.get(name).is_some())
        .collect();
    if given.is_empty() {
        report.assumed(
            &fields.path,
            "the model's name is in the body, since no routing is told",
        );
    }
    for extra in given.iter().skip(1) {
        report.refused(&fields.at(extra), "a gateway has exactly one routing");
    }
    let Some(name) = given.first() else {
        body.insert("routing".into(), "body".into());
        return;
    };
    let known: &[&str] = match *name {
        "bodyBasedRouting" => &["apiType"],
        "headerBasedRouting" => &["headerName"],
        _ => &[],
    };
    let (path, Some(value)) = (fields.at(name), fields.get(name)) else {
        return;
    };
    let Some(table) = Fields::open(value, &path, known, report) else {
        return;
    };
    let native = match *name {
        "bodyBasedRouting" => {
            by_body(&table, report);
            json!("body")
        }
        "pathBasedRouting" => json!("path"),
        _ => match by_header(&table, report) {
            Some(header) => json!({"by": "header", "header": header}),
            None => return,
        },
    };
    report.taken(&path, "`routing`");
    body.insert("routing".into(), native);
}

fn by_body(table: &Fields<'_>, report: &mut Report) {
    match table.text("apiType", report) {
        Some("API_TYPE_OPENAI") => {
            report.taken(&table.at("apiType"), "the services' `type` \"openai\"")
        }
        Some("API_TYPE_UNSPECIFIED") | None => report.assumed(
            &table.at("apiType"),
            "API_TYPE_OPENAI, the only one there is",
        ),
        Some(_) => report.refused(
            &table.at("apiType"),
            "\"API_TYPE_OPENAI\" is the only one there is",
        ),
    }
}

fn by_header<'a>(table: &Fields<'a>, report: &mut Report) -> Option<&'a str> {
    let path = table.at("headerName");
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(&b);
    match table.text("headerName", report) {
        Some(name) if (1..=100).contains(&name.len()) && name.bytes().all(token) => {
            report.taken(&path, "`routing.header`");
            Some(name)
        }
        Some(_) => {
            report.refused(
                &path,
                "the name of a header, 1 to 100 letters, digits and hyphens",
            );
            None
        }
        None if table.get("headerName").is_none() => {
            report.refused(&path, "missing: in which header the model's name is");
            None
        }
        None => None,
    }
}

fn endpoint(fields: &Fields<'_>, count: usize, body: &mut Body, report: &mut Report) {
    let mut hosts: Vec<Value> = Vec::new();
    let path = fields.at("endpointConfiguration");
    if let Some(value) = fields.get("endpointConfiguration")
        && let Some(table) = Fields::open(
            value,
            &path,
            &["additionalDns", "allowedSourceIpRanges"],
            report,
        )
    {
        hosts = dns(&table, report);
        ranges(&table, body, report);
    }
    match (hosts.is_empty(), count) {
        (false, _) => {
            report.assumed(&path, "only these hosts are answered: CoreWeave's own, api.ID.gw.cwinference.com, stays with CoreWeave");
            body.insert("hosts".into(), hosts.into());
        }
        (true, 1) => {
            report.assumed(&path, "without names of its own it takes requests for every host: CoreWeave's, api.ID.gw.cwinference.com, stays with CoreWeave");
            body.insert("default".into(), true.into());
        }
        (true, _) => report.refused(
            &fields.at("endpointConfiguration.additionalDns"),
            "with several gateways each needs names of its own: here the host tells them apart",
        ),
    }
}

fn dns(table: &Fields<'_>, report: &mut Report) -> Vec<Value> {
    let path = table.at("additionalDns");
    let mut hosts: Vec<Value> = Vec::new();
    for (index, name) in table.texts("additionalDns", report).iter().enumerate() {
        let at = format!("{path}[{index}]");
        let host = name.trim_end_matches('.').to_ascii_lowercase();
        if !is_host(host.strip_prefix("*.").unwrap_or(&host)) {
            report.refused(&at, "a host's name alone, without scheme, port or path");
        } else if hosts.contains(&Value::from(host.clone())) {
            report.taken(&at, "it is there already");
        } else {
            report.taken(&at, "one of `hosts`");
            hosts.push(host.into());
        }
    }
    if hosts.is_empty() && table.get("additionalDns").is_some() {
        report.warned(&path, "there are none");
    }
    hosts
}

fn ranges(table: &Fields<'_>, body: &mut Body, report: &mut Report) {
    let path = table.at("allowedSourceIpRanges");
    let ranges = table.texts("allowedSourceIpRanges", report);
    for (index, range) in ranges.iter().enumerate() {
        let at = format!("{path}[{index}]");
        let fine =
            range.parse::<ipnet::IpNet>().is_ok() || range.parse::<std::net::IpAddr>().is_ok();
        match fine {
            true => report.taken(&at, "one of `allowed_ips`"),
            false => report.refused(
                &at,
                "an address or a range of addresses, for example \"192.0.2.0/24\"",
            ),
        }
    }
    match ranges.is_empty() {
        true => fields_empty(table, &path, report),
        false => {
            body.insert("allowed_ips".into(), ranges.into());
        }
    }
}

fn fields_empty(table: &Fields<'_>, path: &str, report: &mut Report) {
    if table
        .get("allowedSourceIpRanges")
        .is_some_and(|list| list.as_array().is_some_and(Vec::is_empty))
    {
        report.warned(path, "there are none: every address may call");
    }
}
