//! TrustGate's upstreams.
//!
//! It owns how targets are picked and judged. Which native upstreams come of one is [`catalog`](super::catalog)'s to say, since that depends on the
//! rules that lead there.

use serde_json::{Value, json};
use tollgate_sdk::document::suggest;

use super::fields::{Body, Fields, Names, Report};
use super::target::{self, Target};
use super::{DATES, Doc, credentials, duration};

const KNOWN: [&str; 18] = [
    "id",
    "gateway_id",
    "name",
    "algorithm",
    "targets",
    "health_checks",
    "tags",
    "embedding",
    "embedding_config",
    "websocket_config",
    "websocket",
    "proxy_config",
    "proxy",
    "created_at",
    "updated_at",
    "CreatedAt",
    "UpdatedAt",
    "description",
];

/// Targets and how they are picked.
#[derive(Default)]
pub(super) struct Pool {
    /// What documents may call it: its id, its name.
    pub(super) known_as: Vec<String>,
    /// Its native name.
    pub(super) name: String,
    /// Its place in the document.
    pub(super) path: String,
    pub(super) targets: Vec<Target>,
    /// What native upstreams made of it have in common.
    pub(super) body: Body,
}

pub(super) fn read(
    doc: &Doc<'_>,
    insecure: &[String],
    names: &mut Names,
    report: &mut Report,
) -> Option<Pool> {
    let fields = Fields::open(doc.value, &doc.path, &KNOWN, report)?;
    let Some(name) = fields.text("name", report) else {
        report.refused(&fields.at("name"), "an upstream needs a name");
        return None;
    };
    let known_as = [Some(name), fields.text("id", report)];
    let mut pool = Pool {
        known_as: known_as.into_iter().flatten().map(str::to_owned).collect(),
        name: names.adapt("upstream", name, &fields.at("name"), report),
        path: doc.path.clone(),
        ..Pool::default()
    };
    let mut labels = Body::new();
    fields.label(
        &[("id", "trustgate-id"), ("tags", "tags")],
        "of no use here",
        &mut labels,
        report,
    );
    fields.warn(&DATES, "only for the record", report);
    fields.warn(&["gateway_id"], "upstreams are everybody's here", report);
    if let Some(text) = fields.text("description", report) {
        report.taken(&fields.at("description"), "`description`");
        pool.body.insert("description".into(), text.into());
    }
    let weighted = algorithm(&fields, &mut pool.body, report);
    targets(&fields, weighted, insecure, &mut pool, report);
    health(&fields, &mut pool.body, report);
    others(&fields, report);
    super::fields::with_labels(&mut pool.body, labels);
    (!pool.targets.is_empty()).then_some(pool)
}

const ALGORITHMS: [(&str, &str, bool); 9] = [
    ("round-robin", "round_robin", false),
    ("round_robin", "round_robin", false),
    ("weighted-round-robin", "round_robin", true),
    ("weighted", "round_robin", true),
    ("least-conn", "least_connections", false),
    ("least-connections", "least_connections", false),
    ("least_conn", "least_connections", false),
    ("least_connections", "least_connections", false),
    ("random", "random", false),
];

/// Whether it goes by weights.
fn algorithm(fields: &Fields<'_>, body: &mut Body, report: &mut Report) -> bool {
    let path = fields.at("algorithm");
    let Some(text) = fields
        .text("algorithm", report)
        .filter(|text| !text.is_empty())
    else {
        report.assumed(&path, "`policy` became round_robin, TrustGate's default");
        body.insert("policy".into(), "round_robin".into());
        return false;
    };
    let found = { ALGORITHMS.iter() }.find(|(name, ..)| *name == text.to_ascii_lowercase());
    let Some((_, policy, weighted)) = found else {
        let names: Vec<&str> = ALGORITHMS.iter().map(|(name, ..)| *name).collect();
        let message = match text {
            "semantic" => "targets are not picked by meaning here; choose another, or give each its model and let rules decide".to_owned(),
            _ => format!("unknown; {}", suggest(text, &names, "algorithms")),
        };
        report.refused(&path, message);
        return false;
    };
    report.adapted(&path, format!("`policy` {policy}"));
    body.insert("policy".into(), (*policy).into());
    *weighted
}

fn targets(
    fields: &Fields<'_>,
    weighted: bool,
    insecure: &[String],
    pool: &mut Pool,
    report: &mut Report,
) {
    let path = fields.at("targets");
    let Some(list) = fields
        .list("targets", report)
        .filter(|list| !list.is_empty())
    else {
        report.refused(&path, "an upstream needs at least one target");
        return;
    };
    for (index, value) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(target) = target::read(value, &path, insecure, report) else {
            continue;
        };
        if let Some(target) = weigh(target, value, weighted, &path, report) {
            pool.targets.push(target);
        }
    }
    if pool.targets.is_empty()
        && list
            .iter()
            .all(|target| target.get("weight") == Some(&json!(0)))
    {
        report.refused(&path, "no target has a weight: none would get a request");
    }
}

/// A target with a weight that counts; none if it is to get nothing.
fn weigh(
    target: Target,
    value: &Value,
    weighted: bool,
    path: &str,
    report: &mut Report,
) -> Option<Target> {
    let path = format!("{path}.weight");
    let told = value.get("weight").is_some_and(|weight| !weight.is_null());
    let weight = match (target.weight, told, weighted) {
        (1_000_001.., ..) => {
            report.refused(&path, "from 0 to 1000000");
            1
        }
        (0, true, true) => {
            report.adapted(&path, "the target is left out: it gets nothing");
            return None;
        }
        (0, true, false) => {
            report.adapted(&path, "1: without weights all are alike");
            1
        }
        (0, false, true) => {
            report.assumed(&path, "1");
            1
        }
        (0, false, false) => 1,
        (weight, _, true) => {
            report.taken(&path, "`weight`");
            weight
        }
        (weight, _, false) => {
            report.adapted(&path, "`weight`; it counts with every policy here");
            weight
        }
    };
    Some(Target { weight, ..target })
}

const CHECKS: [&str; 5] = ["passive", "path", "headers", "threshold", "interval"];

fn health(fields: &Fields<'_>, body: &mut Body, report: &mut Report) {
    let path = fields.at("health_checks");
    let Some(value) = fields.get("health_checks") else {
        report.assumed(&path, "targets are asked for a connection every 5 seconds, and left alone for 10 after 5 failures in 30");
        return;
    };
    let Some(checks) = Fields::open(value, &path, &CHECKS, report) else {
        return;
    };
    let passive = checks.bool("passive", report);
    let threshold = positive("threshold", 1000, &checks, report);
    let interval = positive("interval", 86_400, &checks, report);
    let probed = checks.text("path", report).filter(|path| !path.is_empty());
    let mut probe = probe(probed, &checks, report);
    if probe.is_empty() && passive == Some(false) {
        let why = "with neither a `path` nor `passive` it concerns nothing";
        checks.warn(&["threshold", "interval"], why, report);
        report.adapted(
            &checks.at("passive"),
            "failed requests count all the same, by the default `breaker`",
        );
        return;
    }
    for (number, name, message) in [
        (
            threshold,
            "threshold",
            "failures after which a target is left alone",
        ),
        (
            interval,
            "interval",
            "seconds in which failures count, and between two questions",
        ),
    ] {
        if number.is_some() {
            report.adapted(&checks.at(name), message);
        }
    }
    let mut breaker = Body::new();
    if passive != Some(false) {
        breaker.extend(threshold.map(|count| ("failures".to_owned(), count.into())));
        breaker.extend(interval.map(|seconds| ("window".to_owned(), format!("{seconds}s").into())));
        report.assumed(
            &path,
            "a target that fails is left alone for 10 seconds at a time, not for an hour",
        );
    }
    match passive {
        Some(true) => report.adapted(&checks.at("passive"), "`breaker`: failed requests count"),
        Some(false) => report.adapted(
            &checks.at("passive"),
            "failed requests count all the same, by the default `breaker`",
        ),
        None => {}
    }
    if !probe.is_empty() {
        probe.extend(threshold.map(|count| ("unhealthy_after".to_owned(), count.into())));
        probe.extend(interval.map(|seconds| ("interval".to_owned(), format!("{seconds}s").into())));
        if interval == Some(1) {
            probe.insert("timeout".into(), "1s".into());
        }
        body.insert("health".into(), probe.into());
    }
    if !breaker.is_empty() {
        body.insert("breaker".into(), breaker.into());
    }
}

/// The request that targets are asked with, if there is one.
fn probe(asked: Option<&str>, checks: &Fields<'_>, report: &mut Report) -> Body {
    let mut probe = Body::new();
    if let Some(asked) = asked {
        let asked = if asked.starts_with('/') {
            asked.to_owned()
        } else {
            format!("/{asked}")
        };
        if asked.bytes().all(|b| b.is_ascii_graphic()) && !asked.contains('#') {
            report.adapted(
                &checks.at("path"),
                "targets of your own are really asked for it, which TrustGate did not do",
            );
            probe.insert("type".into(), "http".into());
            probe.insert("path".into(), asked.into());
            check_headers(checks, &mut probe, report);
        } else {
            report.refused(&checks.at("path"), "a path in ASCII");
        }
    } else {
        checks.warn(
            &["headers"],
            "without a `path` there is no request that could carry them",
            report,
        );
    }
    probe
}

fn positive(name: &str, most: u64, checks: &Fields<'_>, report: &mut Report) -> Option<u64> {
    let number = checks.number(name, report)?;
    if !(1..=most).contains(&number) {
        report.refused(&checks.at(name), format!("from 1 to {most}"));
        return None;
    }
    Some(number)
}

fn check_headers(checks: &Fields<'_>, probe: &mut Body, report: &mut Report) {
    let mut headers = Body::new();
    credentials::headers(checks, &mut headers, report);
    if !headers.is_empty() {
        probe.insert("headers".into(), headers.into());
    }
}

const SOCKETS: [&str; 7] = [
    "enable_direct_communication",
    "return_error_details",
    "ping_period",
    "pong_wait",
    "handshake_timeout",
    "read_buffer_size",
    "write_buffer_size",
];

fn others(fields: &Fields<'_>, report: &mut Report) {
    fields.warn(
        &["embedding", "embedding_config"],
        "only for the algorithm `semantic`",
        report,
    );
    if let Some((name, value)) = fields.any(&["websocket_config", "websocket"])
        && let Some(sockets) = Fields::open(value, &fields.at(name), &SOCKETS, report)
    {
        let why = "WebSockets pass as they are; how long they may be quiet is the service's `timeouts.idle`";
        sockets.warn(&SOCKETS, why, report);
        for name in ["ping_period", "pong_wait", "handshake_timeout"] {
            let text = sockets.text(name, report).filter(|text| !text.is_empty());
            if text.is_some_and(|text| duration::native(text).is_none()) {
                report.refused(&sockets.at(name), "a duration, for example \"30s\"");
            }
        }
        for name in ["read_buffer_size", "write_buffer_size"] {
            sockets.number(name, report);
        }
    }
    if let Some((name, value)) = fields.any(&["proxy_config", "proxy"]) {
        match value.as_object().is_some_and(serde_json::Map::is_empty) {
            true => report.warned(&fields.at(name), "it is empty"),
            false => report.refused(
                &fields.at(name),
                "targets are reached directly; give the address of what they are behind",
            ),
        }
    }
}
