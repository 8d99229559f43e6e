//! Any value in any field, and what golden files do not show.

use serde_json::{Value, json};

use super::super::{Converted, Fate, Options};
use super::{convert, recognises};

fn read(document: &Value) -> Converted {
    convert(document, &Options::default())
}

fn said(converted: &Converted, fate: Fate) -> Vec<String> {
    let notes = converted.notes.iter().filter(|note| note.fate == fate);
    notes
        .map(|note| format!("{}: {}", note.path, note.message))
        .collect()
}

#[test]
fn objects_are_known_by_their_fields() {
    for document in [
        json!({"name": "g", "subdomain": "g"}),
        json!({"name": "g", "required_plugins": []}),
        json!({"name": "u", "targets": [{"host": "a", "port": 1}]}),
        json!({"name": "s", "type": "upstream", "upstream_id": "u"}),
        json!({"name": "s", "type": "endpoint", "host": "a"}),
        json!({"path": "/", "service_id": "s", "methods": ["GET"]}),
        json!({"name": "k", "expires_at": "2031-01-01T00:00:00Z"}),
        json!({"rules": [{"path": "/", "service_id": "s"}]}),
        json!([{}, {"name": "g", "subdomain": "g"}]),
    ] {
        assert!(recognises(&document), "{document}");
    }
    for document in [
        json!(null),
        json!([]),
        json!({}),
        json!({"count": 1}),
        json!({"kind": "gateway", "name": "g", "subdomain": "g"}),
        json!({"kind": "key", "name": "k", "expires_at": "2031-01-01T00:00:00Z"}),
        json!({"type": "gateway", "name": "g", "domain": "d"}),
        json!({"name": "u", "targets": ["http://127.0.0.1:8000"]}),
        json!({"gateway": [{"name": "main", "hosts": ["*"]}], "service": [{"name": "a", "targets": []}]}),
        json!({"name": "g", "zones": [], "coreWeaveAuth": {}}),
    ] {
        assert!(!recognises(&document), "{document}");
    }
}

#[test]
fn what_refers_to_nothing_here_is_taken_for_what_is_there() {
    let rule = json!({"path": "/a/*", "methods": ["GET"], "service_id": "S 1", "strip_path": true});
    let of_main = read(&rule);
    assert_eq!(of_main.resources[0].body["gateway"], "main");
    assert_eq!(of_main.resources[0].body["services"], json!(["s-1"]));
    assert_eq!(said(&of_main, Fate::Assumed).len(), 3);
    let options = Options {
        gateway: Some("edge".into()),
        ..Options::default()
    };
    assert_eq!(
        convert(&rule, &options).resources[0].body["gateway"],
        "edge"
    );
    let service = json!({"name": "s", "type": "upstream", "upstream_id": "0190b6c2"});
    assert_eq!(read(&service).resources[0].body["upstream"], "0190b6c2");
    let public = json!({"path": "/a/*", "methods": ["GET"], "service_id": "s", "public": true});
    assert_eq!(said(&read(&public), Fate::Refused).len(), 1);
}

/// Names of tenants are apart, references stay what they are, and a key may bring the hash of its secret.
#[test]
fn names_can_begin_with_the_gateways() {
    let options = Options {
        qualified: true,
        ..Options::default()
    };
    let hash = format!("sha256:{}", "0".repeat(64));
    let documents = json!([
        {"name": "Edge", "subdomain": "edge"},
        {"id": "u", "name": "pool", "targets": [{"host": "a", "port": 1}]},
        {"id": "s", "name": "chat", "type": "upstream", "upstream_id": "u"},
        {"id": "r", "path": "/v1/*", "service_id": "s", "methods": ["POST"]},
        {"name": "key", "key": hash, "policies": ["r"], "expires_at": "2099-01-01T00:00:00Z"},
    ]);
    let converted = convert(&documents, &options);
    assert_eq!(said(&converted, Fate::Refused), Vec::<String>::new());
    let names: Vec<&Value> = { converted.resources.iter() }
        .map(|resource| &resource.body["name"])
        .collect();
    let expected = ["edge", "edge.pool", "edge.chat", "edge.v1", "edge.key"];
    assert_eq!(names, expected);
    let body = |at: usize| &converted.resources[at].body;
    assert_eq!(body(2)["upstream"], "edge.pool");
    assert_eq!(body(3)["services"], json!(["edge.chat"]));
    assert_eq!(body(4)["rules"], json!(["edge.v1"]));
    assert_eq!(
        (body(4).get("secret"), &body(4)["hash"]),
        (None, &json!(hash))
    );
}

fn chat(targets: Value, rules: &[Value]) -> Converted {
    let mut docs = vec![
        json!({"name": "g", "required_plugins": []}),
        json!({"name": "u", "targets": targets}),
        json!({"name": "s", "type": "upstream", "upstream_id": "u"}),
    ];
    docs.extend_from_slice(rules);
    read(&docs.into())
}

#[test]
fn paths_of_targets_are_sent_as_trustgate_sends_them() {
    let both =
        json!([{"host": "a", "port": 1, "path": "/x"}, {"host": "b", "port": 1, "path": "/y"}]);
    let rule = |path: &str, strip: bool| json!({"name": "r", "path": path, "methods": ["GET"], "service_id": "s", "strip_path": strip});
    // Different paths: behind what is left of the request's, but not instead of it.
    let rest = chat(both.clone(), &[rule("/a/*", true)]);
    assert!(
        said(&rest, Fate::Refused).is_empty(),
        "{:?}",
        said(&rest, Fate::Refused)
    );
    let upstream = rest
        .resources
        .iter()
        .find(|resource| resource.kind == "upstream")
        .unwrap();
    assert_eq!(
        upstream.body["targets"],
        json!([{"url": "http://a:1/x"}, {"url": "http://b:1/y"}])
    );
    assert_eq!(
        said(&chat(both, &[rule("/a/*", false)]), Fate::Refused).len(),
        1
    );
    // One path, wanted in both ways: two services.
    let one = json!([{"host": "a", "port": 1, "path": "/x"}]);
    let two = chat(one, &[rule("/a/*", true), rule("/b/*", false)]);
    let names = |kind: &str| -> Vec<&Value> {
        let of = two
            .resources
            .iter()
            .filter(|resource| resource.kind == kind);
        of.map(|resource| &resource.body["name"]).collect()
    };
    assert_eq!(names("service"), ["s", "s-2"]);
    assert_eq!(names("upstream"), ["u", "u-2"]);
    assert_eq!(names("rule"), ["r", "r-2"]);
}

#[test]
fn a_key_never_opens_more_than_it_did() {
    let rules = [
        json!({"id": "r1", "path": "/a/*", "methods": ["GET"], "service_id": "s", "active": false}),
        json!({"name": "k", "key": "0123456789abcdef", "policies": ["r1"], "expires_at": null}),
    ];
    let converted = chat(json!([{"host": "a", "port": 1}]), &rules);
    let refused = said(&converted, Fate::Refused);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].starts_with("[4].policies: none"));
}

#[test]
fn limits_are_not_multiplied() {
    let limiter = json!([{"name": "rate_limiter", "enabled": true, "settings": {"limits": {"global": {"limit": 5, "window": "1m"}}}}]);
    let rule = json!({"path": "/a/*", "paths": ["/b/*"], "methods": ["GET"], "service_id": "s", "plugin_chain": limiter});
    let converted = chat(json!([{"host": "a", "port": 1}]), &[rule]);
    assert_eq!(said(&converted, Fate::Refused).len(), 1);
}

/// Told, never a panic, never a secret, and never a resource without a name.
#[test]
fn any_value_can_stand_anywhere() {
    let whole = json!([
        {"id": "g", "name": "g", "subdomain": "g", "status": "active", "required_plugins": [{"name": "rate_limiter", "enabled": true, "stage": "pre_request",
            "priority": 1, "parallel": true, "settings": {"limits": {"global": {"limit": 5, "window": "1m"}}}}], "telemetry": {"exporters": []},
            "security_config": {"allowed_hosts": ["a.example"], "sts_seconds": 1, "frame_deny": true}, "client_tls": {"h": {"allow_insecure_connections": true}},
            "session_config": {"enabled": true}},
        {"id": "u", "name": "u", "algorithm": "random", "targets": [{"host": "h", "port": 1, "protocol": "http", "path": "/x", "weight": 2, "headers": {"a": "b"},
            "credentials": {"api_key": "hidden-secret"}, "tags": ["t"]}, {"provider": "openai", "models": ["m"], "default_model": "m", "credentials": {"api_key": "hidden-secret"}}],
            "health_checks": {"passive": true, "path": "/h", "headers": {"a": "b"}, "threshold": 1, "interval": 1}, "tags": ["x"], "websocket_config": {"ping_period": "1s"}},
        {"id": "s", "name": "s", "type": "upstream", "upstream_id": "u", "retries": 1, "description": "d", "stream": true},
        {"id": "e", "name": "e", "type": "endpoint", "host": "h", "port": 1, "protocol": "http", "path": "/x", "headers": {"a": "b"}, "credentials": {"header_name": "a", "header_value": "hidden-secret"}},
        {"id": "r", "name": "r", "path": "/a/*", "paths": ["/b"], "service_id": "s", "methods": ["GET"], "type": "agent", "headers": {}, "strip_path": true,
            "preserve_host": true, "retry_attempts": 1, "plugin_chain": [], "active": true, "public": true},
        {"id": "k", "name": "k", "key": "hidden-secret-hidden-secret", "expires_at": "2031-01-01T00:00:00Z", "active": true, "subject_type": "gateway", "subject": "g", "policies": ["r"]},
    ]);
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}${{ x"),
        json!("{"),
        json!("*"),
        json!("é/{a}/*"),
        json!([]),
        json!([[]]),
        json!([{}]),
        json!({}),
        json!({"type": 1}),
        json!([null, 1, "x", {"name": {}}]),
        json!({"a": {"b": []}}),
        json!(["a", "a"]),
    ];
    let mut places = Vec::new();
    all_places(&whole, String::new(), &mut places);
    assert!(places.len() > 80, "{}", places.len());
    for place in &places {
        for value in &values {
            let mut document = whole.clone();
            *document.pointer_mut(place).unwrap() = value.clone();
            let converted = read(&document);
            assert!(converted.notes.iter().all(
                |note| !note.message.is_empty() && !format!("{note}").contains("hidden-secret")
            ));
            for resource in converted.resources {
                assert!(resource.body["name"].is_string(), "{document}");
            }
        }
    }
}

/// JSON pointers to everything below a value.
fn all_places(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                all_places(item, format!("{at}/{index}"), places);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                all_places(field, format!("{at}/{name}"), places);
            }
        }
        _ => {}
    }
    places.push(at);
}
