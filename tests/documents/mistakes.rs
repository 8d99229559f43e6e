//! Every mistake is found at once, and each where it is: some are put into valid documents at random, and a plan names just these.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::harness::{Api, Gateway, service};

/// Documents of every kind, valid together.
fn documents() -> Value {
    json!([
        {
            "kind": "gateway", "name": "tenant", "description": "of many", "labels": {"team": "a"}, "hosts": ["tenant.example", "*.tenant.example"],
            "default": false, "auth": "api_key", "routing": {"by": "header", "header": "X-Model-Name"}, "fallback": ["spare"], "allowed_ips": ["10.0.0.0/8"],
            "denied_ips": ["10.1.0.0/16"], "status": "active",
            "plugins": [
                {"name": "rate_limiter", "enabled": true, "stage": "pre_request", "priority": 3, "settings": {"limits": {"global": {"limit": 10, "window": "1m"}}}},
                {"name": "headers", "settings": {"response": {"set": {"X-Team": "a"}}}},
            ],
        },
        {
            "kind": "service", "name": "main-one", "models": ["one", "one-*"], "gateways": ["tenant"], "type": "openai", "model": "other", "weight": 7, "upstream": "pool",
            "fallback": ["spare"], "timeouts": {"connect": "1s", "first_byte": "2s", "idle": "3s", "total": "4s"},
            "retry": {"attempts": 3, "on": ["connect", "503"], "backoff": "10ms", "max_backoff": "1s", "budget": 0.5},
            "queue": {"size": 10, "workers": 2, "max_retries": 3, "initial_delay": "10ms", "max_delay": "1s", "max_wait": "3s"},
            "rate_limits": [{"prefix": "/", "key": "ip", "rps": 10.0, "burst": 5}], "version": "2", "owner": "team-a",
        },
        {"kind": "service", "name": "spare", "models": ["spare"], "targets": [{"url": "http://127.0.0.1:9", "weight": 2, "max_in_flight": 5}], "strip_prefix": false, "path_prefix": "/spare"},
        {
            "kind": "upstream", "name": "pool", "targets": ["http://127.0.0.1:9", {"url": "https://engine.internal", "id": "two", "weight": 2}],
            "policy": {"name": "consistent_hash", "key": "header:X-Session"}, "max_in_flight": 9, "headers": {"X-From": "us"}, "http2": true,
            "health": {"type": "http", "path": "/health", "expect": [200, 204], "interval": "1s", "timeout": "500ms", "unhealthy_after": 3, "healthy_after": 2},
            "breaker": {"failures": 3, "window": "10s", "open": "1s"}, "tls": {"verify": false, "server_name": "engine.internal"},
        },
        {
            "kind": "rule", "name": "path", "gateway": "tenant", "priority": 3, "path": "/users/{id}/posts", "methods": ["GET", "POST"], "headers": {"X-Beta": "1"},
            "services": [{"name": "main-one", "weight": 90}, {"name": "spare", "weight": 10}], "fallback": ["spare"], "rewrite": "/posts/{id}", "preserve_host": true,
            "timeouts": {"idle": "9s"}, "retry": {"attempts": 1}, "plugins": [{"name": "mirror", "settings": {"service": "spare", "share": 0.5}}],
        },
        {
            "kind": "key", "name": "lone-key", "gateway": "tenant", "services": ["main-one"], "rules": ["path"], "models": ["one"], "expires_at": "2040-01-01T00:00:00Z",
            "warn_before": "3d", "active": true,
        },
        {"kind": "target", "upstream": "pool", "id": "three", "url": "http://127.0.0.1:11", "weight": 3},
        {"kind": "rule", "name": "lone-rule", "gateway": "tenant", "path": "/lone", "services": ["spare"]},
        {"kind": "service", "name": "lone-service", "models": ["lone"], "upstream": "pool", "fallback": ["spare"]},
    ])
}

/// A place in a document where a mistake can be made, and what the mistake is.
#[derive(Clone, Debug)]
struct Spot {
    /// Of the list of documents.
    pointer: String,
    /// As a mistake names it.
    path: String,
    wrong: Vec<Value>,
}

/// Tables whose names are anybody's choice.
const FREE: [&str; 3] = ["labels", "headers", "set"];
/// Fields that say what the others are: a mistake in one of these is not alone.
const CARRYING: [&str; 3] = ["kind", "type", "by"];
/// Fields that name other resources.
const NAMING: [&str; 7] = [
    "gateway", "gateways", "upstream", "services", "fallback", "rules", "service",
];

/// Every spot of a value that stands in `field`, the last name of its path.
fn spots(value: &Value, (pointer, path, field): (&str, &str, &str), found: &mut Vec<Spot>) {
    let spot = |pointer: String, path: String, wrong: Vec<Value>| Spot {
        pointer,
        path,
        wrong,
    };
    match value {
        Value::Object(fields) => {
            if !FREE.contains(&field) {
                let (pointer, path) = (format!("{pointer}/unknown"), format!("{path}.unknown"));
                found.push(spot(pointer, path, vec![json!(1)]));
            }
            for (name, value) in fields {
                // A reference in a table of its own.
                let field = match NAMING.contains(&field) && name == "name" {
                    true => field,
                    false => name,
                };
                let (pointer, path) = (format!("{pointer}/{name}"), format!("{path}.{name}"));
                spots(value, (&pointer, &path, field), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let (pointer, path) = (format!("{pointer}/{index}"), format!("{path}[{index}]"));
                spots(item, (&pointer, &path, field), found);
            }
        }
        // Of a resource that others name, or of a plugin.
        _ if field == "name" && !value.as_str().unwrap().starts_with("lone") => {}
        _ if CARRYING.contains(&field) => {}
        _ => {
            let wrong = wrong(value, NAMING.contains(&field));
            found.push(spot(pointer.to_owned(), path.to_owned(), wrong));
        }
    }
}

/// What cannot stand in place of a value.
fn wrong(value: &Value, names: bool) -> Vec<Value> {
    match value {
        Value::Number(_) => vec![json!("many"), json!([1]), json!({"a": 1})],
        Value::Bool(_) => vec![json!("maybe"), json!(3)],
        _ if names => vec![json!("nowhere"), json!(3)],
        _ => vec![json!(3.5), json!([[]])],
    }
}

fn all_spots() -> &'static [Spot] {
    static SPOTS: OnceLock<Vec<Spot>> = OnceLock::new();
    SPOTS.get_or_init(|| {
        let mut found = Vec::new();
        for (index, document) in documents().as_array().unwrap().iter().enumerate() {
            let path = format!("documents[{index}]");
            spots(document, (&format!("/{index}"), &path, ""), &mut found);
        }
        found
    })
}

/// Whether one of two places is within the other.
fn meet(one: &Spot, other: &Spot) -> bool {
    let within = |inner: &str, outer: &str| {
        let rest = inner.strip_prefix(outer);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(&one.pointer, &other.pointer) || within(&other.pointer, &one.pointer)
}

/// Puts a value at a place that is there, or whose table is.
fn put(documents: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match documents.pointer_mut(parent).unwrap() {
        Value::Object(fields) => drop(fields.insert(name.to_owned(), value)),
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        other => panic!("{other}"),
    }
}

/// What is no resource hides nothing that is wrong with the others by themselves.
#[test]
fn a_document_of_no_kind_hides_no_mistakes_of_others() {
    let gateway = gateway();
    let api = gateway.api();
    let mut documents = documents();
    put(&mut documents, "/3/kind", json!("upstraem"));
    put(&mut documents, "/1/weight", json!("many"));
    put(&mut documents, "/4/priority", json!(true));
    put(&mut documents, "/5", json!("a key"));
    // Whether there is such a gateway cannot be told.
    put(&mut documents, "/7/gateway", json!("nowhere"));
    for expected in [
        vec![
            "documents[1].weight",
            "documents[3].kind",
            "documents[4].priority",
            "documents[5]",
        ],
        vec![
            "documents[1].weight",
            "documents[4].priority",
            "documents[7].gateway",
        ],
    ] {
        assert_eq!(faults(&api, &documents), expected);
        put(&mut documents, "/3/kind", json!("upstream"));
        documents[5] = json!({"kind": "key", "name": "lone-key", "gateway": "tenant"});
    }
}

fn gateway() -> Gateway {
    Gateway::start(&service("filed", "filed", "http://127.0.0.1:9"))
}

/// The places a plan finds fault with, once for each time.
fn faults(api: &Api, documents: &Value) -> Vec<String> {
    let reply = api.ask("POST", "/v1/plan", documents);
    let body = reply.json();
    if reply.status == 200 {
        return Vec::new();
    }
    assert_eq!(
        (reply.status, &body["error"]["code"]),
        (422, &json!("invalid")),
        "{body}"
    );
    let details = body["error"]["details"].as_array().unwrap().iter();
    let mut found: Vec<String> = details
        .map(|detail| detail["path"].as_str().unwrap().to_owned())
        .collect();
    found.sort();
    found
}

/// Each by itself, so that what is said of several is about their being several.
#[test]
fn a_mistake_anywhere_is_found_where_it_is() {
    let gateway = gateway();
    let api = gateway.api();
    assert_eq!(faults(&api, &documents()), [""; 0], "they are valid");
    let mut wrong_told = Vec::new();
    for spot in all_spots() {
        for value in &spot.wrong {
            let mut documents = documents();
            put(&mut documents, &spot.pointer, value.clone());
            let found = faults(&api, &documents);
            if found != [spot.path.as_str()] {
                wrong_told.push(format!("{} = {value}: {found:?}", spot.path));
            }
        }
    }
    assert!(wrong_told.is_empty(), "{wrong_told:#?}");
}

#[test]
fn as_many_mistakes_as_there_are_are_found_at_once() {
    let gateway = gateway();
    let api = gateway.api();
    let config = ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let drawn = prop::collection::vec((any::<Index>(), any::<Index>()), 1..12);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let held = runner.run(&drawn, |drawn| {
        let mut documents = documents();
        let mut taken: Vec<&Spot> = Vec::new();
        for (spot, wrong) in drawn {
            let spot = spot.get(all_spots());
            if taken.iter().any(|other| meet(spot, other)) {
                continue;
            }
            put(
                &mut documents,
                &spot.pointer,
                wrong.get(&spot.wrong).clone(),
            );
            taken.push(spot);
        }
        let expected: BTreeSet<String> = taken.iter().map(|spot| spot.path.clone()).collect();
        let expected: Vec<String> = expected.into_iter().collect();
        prop_assert_eq!(faults(&api, &documents), expected, "{}", documents);
        Ok(())
    });
    if let Err(error) = held {
        panic!("{error}");
    }
}
