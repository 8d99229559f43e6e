//! The flags of Llumnix's gateway, by name: those that say how requests are served are converted, the others set aside with a word.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tollgate_sdk::document::suggest;

use super::super::Options;
use super::super::fields::{Notes, quoted};
use super::{arguments, disaggregated};
use crate::model::Disaggregation;

/// How requests are split between routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoutePolicy {
    Prefix,
    Weight,
}

/// What the flags say that is used here.
#[derive(Default)]
pub(super) struct Flags {
    pub(super) policy: Option<RoutePolicy>,
    /// The policy of the internal pool.
    pub(super) local_policy: Option<&'static str>,
    /// How it splits requests.
    pub(super) split: Option<Disaggregation>,
    /// The URLs of its engines.
    pub(super) endpoints: Vec<String>,
    /// Further tries within it.
    pub(super) attempts: Option<u32>,
    /// The 429 queue of fallbacks.
    pub(super) queue: Option<Value>,
    /// Where to listen.
    pub(super) address: Option<String>,
}

/// Flags that do nothing here, and why that is no harm.
const SET_ASIDE: [(&str, &[&str]); 9] = [
    (
        "requests are not held in one queue before a scheduler",
        &[
            "max-queue-size",
            "wait-queue-threads",
            "wait-queue-interval",
            "wait-scheduling-timeout",
            "wait-scheduling-retry-interval",
        ],
    ),
    (
        "Tollgate picks engines itself, without a scheduler",
        &[
            "service-token",
            "forward-tokens",
            "scheduler-discovery",
            "scheduler-endpoints",
            "enable-full-mode-scheduling",
            "requests-report-duration",
        ],
    ),
    (
        "engines are not looked for in Redis",
        &[
            "discovery-redis-host",
            "discovery-redis-port",
            "discovery-redis-username",
            "discovery-redis-password",
            "discovery-redis-socket-timeout",
            "discovery-redis-retry-times",
            "discovery-redis-status-ttl-ms",
            "discovery-redis-refresh-interval-ms",
        ],
    ),
    (
        "engines are not looked for in etcd",
        &[
            "discovery-etcd-endpoints",
            "discovery-etcd-username",
            "discovery-etcd-password",
            "discovery-etcd-dial-timeout",
            "discovery-etcd-lease-ttl",
            "discovery-etcd-refresh-interval-sec",
        ],
    ),
    (
        "requests go to engines as they came: templates, tokens and tools are the engine's",
        &[
            "tokenizer-name",
            "tokenizer-path",
            "chat-template",
            "max-model-len",
            "tool-call-parser",
            "reasoning-parser",
        ],
    ),
    (
        "there is no batch API here",
        &[
            "batch-oss-path",
            "batch-oss-endpoint",
            "batch-redis-addrs",
            "batch-redis-username",
            "batch-redis-password",
            "batch-redis-retry-times",
            "batch-parallel",
            "batch-lines-per-shard",
            "batch-request-timeout",
            "batch-request-retry-times",
        ],
    ),
    ("bodies are never logged", &["enable-log-input"]),
    ("there is no profiler", &["enable-pprof"]),
    (
        "the routes are the document that is converted",
        &["route-config"],
    ),
];

/// Flags that are converted.
const USED: [&str; 16] = [
    "host",
    "port",
    "route-policy",
    "scheduling-policy",
    "llm-backend-discovery",
    "llm-backend-endpoints",
    disaggregated::PROTOCOL,
    disaggregated::SEPARATE,
    "retry-max-count",
    "fallback-retry-queue-enabled",
    "fallback-retry-queue-size",
    "fallback-retry-worker-size",
    "fallback-retry-max-count",
    "fallback-retry-init-delay-ms",
    "fallback-retry-max-delay-ms",
    "extra-args",
];

/// The flags as they are after `--extra-args`.
pub(super) struct Given(BTreeMap<String, String>);

impl Given {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A whole number within a range; anything else is refused.
    fn whole(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<i64>,
        notes: &mut Notes,
    ) -> Option<i64> {
        let number = self.get(name)?.trim().parse::<i64>();
        match number {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let message = format!("a whole number from {} to {}", range.start(), range.end());
                notes.refused(flag(name), message);
                None
            }
        }
    }

    pub(super) fn on(&self, name: &str, notes: &mut Notes) -> Option<bool> {
        match self.get(name)? {
            "true" | "1" | "t" | "T" | "True" | "TRUE" => Some(true),
            "false" | "0" | "f" | "F" | "False" | "FALSE" => Some(false),
            _ => {
                notes.refused(flag(name), "true or false");
                None
            }
        }
    }
}

fn flag(name: &str) -> String {
    format!("--{name}")
}

/// Reads all flags.
pub(super) fn read(options: &Options, notes: &mut Notes) -> Flags {
    let given = collect(options, notes);
    let mut flags = Flags {
        policy: policy(&given, notes),
        address: address(&given, notes),
        ..Flags::default()
    };
    discovery(&given, options, &mut flags, notes);
    flags.local_policy = scheduling(&given, notes);
    flags.split = disaggregated::read(&given, notes);
    flags.attempts = attempts(&given, notes);
    flags.queue = queue(&given, notes);
    for (why, names) in SET_ASIDE {
        for name in names.iter().filter(|name| given.get(name).is_some()) {
            notes.warned(flag(name), why);
        }
    }
    flags
}

/// Unknown names are refused, but those of `--extra-args` only warned of, as Llumnix does.
fn collect(options: &Options, notes: &mut Notes) -> Given {
    let known: Vec<&str> = { SET_ASIDE.iter() }
        .flat_map(|(_, names)| names.iter())
        .chain(&USED)
        .copied()
        .collect();
    let mut given = BTreeMap::new();
    let mut extra = None;
    for (name, value) in &options.flags {
        let name = name.trim_start_matches('-');
        if name == "extra-args" {
            extra = Some(value);
        } else if known.contains(&name) {
            given.insert(name.to_owned(), value.clone());
        } else {
            let help = suggest(name, &known, "flags");
            notes.refused(flag(name), format!("unknown flag; {help}"));
        }
    }
    let Some(extra) = extra else {
        return Given(given);
    };
    notes.adapted("--extra-args", "its flags, each by itself");
    for (name, value) in arguments::read(extra) {
        if known.contains(&name.as_str()) && name != "extra-args" {
            given.insert(name, value);
        } else {
            let message = format!(
                "unknown flag {}, which Llumnix passes over, too",
                quoted(&name)
            );
            notes.warned("--extra-args", message);
        }
    }
    Given(given)
}

fn policy(given: &Given, notes: &mut Notes) -> Option<RoutePolicy> {
    let (policy, message) = match given.get("route-policy") {
        Some("prefix") => (RoutePolicy::Prefix, "`models` of the services"),
        Some("weight") => (RoutePolicy::Weight, "`weight` of the services"),
        None | Some("") => {
            let message = "missing: whether routes are told apart by \"prefix\" or \"weight\"";
            notes.refused("--route-policy", message);
            return None;
        }
        Some(other) => {
            let help = suggest(other, &["prefix", "weight"], "policies");
            notes.refused(
                "--route-policy",
                format!("unknown policy {}; {help}", quoted(other)),
            );
            return None;
        }
    };
    notes.adapted("--route-policy", message);
    Some(policy)
}

fn address(given: &Given, notes: &mut Notes) -> Option<String> {
    let (host, port) = (given.get("host"), given.get("port"));
    if host.is_none() && port.is_none() {
        return None;
    }
    let bracketed = host.filter(|host| host.contains(':') && !host.starts_with('['));
    let typed = match bracketed {
        Some(host) => format!("[{host}]"),
        None => host
            .filter(|host| !host.is_empty())
            .unwrap_or("0.0.0.0")
            .to_owned(),
    };
    match format!("{typed}:{}", port.unwrap_or("8001")).parse::<SocketAddr>() {
        Ok(address) => {
            for name in ["host", "port"]
                .into_iter()
                .filter(|name| given.get(name).is_some())
            {
                let message = format!(
                    "a listener at \"{address}\"; health and metrics are at the admin listener, \"/healthz\" and \"/metrics\""
                );
                notes.adapted(flag(name), message);
            }
            Some(address.to_string())
        }
        Err(_) => {
            let name = if host.is_some() { "host" } else { "port" };
            notes.refused(
                flag(name),
                "not an address and a port, such as 0.0.0.0 and 8001",
            );
            None
        }
    }
}

fn discovery(given: &Given, options: &Options, flags: &mut Flags, notes: &mut Notes) {
    let path = "--llm-backend-discovery";
    match given.get("llm-backend-discovery") {
        Some("endpoints") => notes.adapted(path, "the targets of the upstream \"local\""),
        Some("redis" | "etcd") if !options.local.is_empty() => {
            notes.warned(
                path,
                "engines are not looked for: those given with --local are taken",
            );
        }
        Some("redis" | "etcd") => notes.refused(
            path,
            "engines are not looked for: give each with --local URL",
        ),
        Some(other) => {
            let help = suggest(other, &["redis", "etcd", "endpoints"], "ways");
            notes.refused(path, format!("unknown; {help}"));
        }
        None => {}
    }
    let Some(endpoints) = given.get("llm-backend-endpoints") else {
        return;
    };
    if !options.local.is_empty() {
        notes.warned(
            "--llm-backend-endpoints",
            "those given with --local are taken instead",
        );
    }
    let endpoints = endpoints
        .split(',')
        .map(str::trim)
        .filter(|one| !one.is_empty());
    flags.endpoints = endpoints.map(|one| format!("http://{one}")).collect();
}

fn scheduling(given: &Given, notes: &mut Notes) -> Option<&'static str> {
    let path = "--scheduling-policy";
    match given.get("scheduling-policy")? {
        "load-balance" => {
            notes.adapted(
                path,
                "policy = \"least_connections\" of the upstream \"local\"",
            );
            Some("least_connections")
        }
        "round-robin" => {
            notes.taken(path, "policy = \"round_robin\" of the upstream \"local\"");
            Some("round_robin")
        }
        "flood" | "slo" => {
            let message = "there is no such policy here: policy = \"least_connections\" of the upstream \"local\"";
            notes.warned(path, message);
            Some("least_connections")
        }
        other => {
            let known = ["load-balance", "round-robin", "flood", "slo"];
            notes.refused(
                path,
                format!("unknown policy; {}", suggest(other, &known, "policies")),
            );
            None
        }
    }
}

/// Theirs may be the failed engine again; ours is another.
fn attempts(given: &Given, notes: &mut Notes) -> Option<u32> {
    const MOST: i64 = 100;
    let path = "--retry-max-count";
    if given.get("retry-max-count").is_none() {
        notes.assumed(
            path,
            "Tollgate's own default: two further tries on other engines of the internal pool",
        );
        return None;
    }
    let count = given.whole("retry-max-count", 0..=1_000_000, notes)?;
    if count > MOST {
        notes.adapted(
            path,
            format!("retry = {{ attempts = {MOST} }}, the most there is"),
        );
    } else {
        notes.adapted(
            path,
            "`retry` of the internal pool, on other engines than the one that failed",
        );
    }
    u32::try_from(count.min(MOST)).ok()
}

/// Fields of the native queue, and what they are called here; all but the first have Llumnix's defaults.
const QUEUE: [(&str, &str, std::ops::RangeInclusive<i64>); 5] = [
    ("fallback-retry-queue-size", "size", 0..=100_000),
    ("fallback-retry-worker-size", "workers", 1..=100_000),
    ("fallback-retry-max-count", "max_retries", -1..=1_000_000),
    (
        "fallback-retry-init-delay-ms",
        "initial_delay",
        1..=86_400_000,
    ),
    ("fallback-retry-max-delay-ms", "max_delay", 1..=86_400_000),
];

fn queue(given: &Given, notes: &mut Notes) -> Option<Value> {
    let told = given.on("fallback-retry-queue-enabled", notes);
    let enabled = told == Some(true);
    let never = given.get("fallback-retry-max-count").map(str::trim) == Some("0");
    if told.is_some() {
        let message = match (enabled, never) {
            (true, false) => {
                "`queue` of every service that others fall back to; a Retry-After is kept, and nobody waits above 30s (max_wait)"
            }
            (true, true) => "queue = \"off\", since nothing is sent again",
            (false, _) => "queue = \"off\"",
        };
        notes.adapted("--fallback-retry-queue-enabled", message);
    }
    let mut queue = serde_json::Map::new();
    for (name, native, range) in QUEUE {
        let Some(number) = given.whole(name, range, notes) else {
            continue;
        };
        if !enabled {
            notes.warned(flag(name), "without effect: the queue is not turned on");
            continue;
        }
        notes.taken(flag(name), format!("`queue.{native}`"));
        let value = match native.ends_with("delay") {
            true => json!(format!("{number}ms")),
            false => json!(number),
        };
        queue.insert(native.into(), value);
    }
    (enabled && !never).then(|| match queue.is_empty() {
        true => json!("on"),
        false => queue.into(),
    })
}
