//! Secrets of resources: in no answer and no log of the admin API, and kept through what is read and sent back.

use serde_json::{Value, json};

use crate::harness::{Process, Upstream, service};

const API_KEY: &str = "sk-7f3e9a1c-upstream";
const HEADER: &str = "hd-5b2d8e4f-header";
const PLUGIN: &str = "pl-91c6a0d3-plugin";
const NEXT: &str = "nx-2e8b7c5a-next";

#[test]
fn secrets_are_masked_everywhere_and_kept() {
    let upstream = Upstream::obliging();
    let mut process = Process::start(
        &("[server]\nstate = \"./tollgate.db\"\n".to_owned()
            + &service("filed", "filed", &upstream.url())),
    );
    let api = process.api();
    let mut told = String::new();
    let mut ask = |method: &str, path: &str, body: &Value| {
        let reply = api.ask(method, path, body);
        told.push_str(&reply.text());
        for (_, value) in &reply.headers {
            told.push_str(value);
        }
        reply
    };
    let pool = json!({"name": "pool", "targets": [upstream.url()], "api_key": API_KEY, "headers": {"x-team": HEADER}});
    assert_eq!(ask("POST", "/v1/upstreams", &pool).status, 201);
    let plugin = json!({"name": "external", "stage": "pre_request", "on_error": "skip", "enabled": false,
        "settings": {"url": "http://127.0.0.1:9/x", "headers": {"x-secret": PLUGIN}}});
    let served = json!({"name": "s", "models": ["s"], "upstream": "pool", "plugins": [plugin]});
    let made = ask("POST", "/v1/services", &served);
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(
        made.json()["plugins"][0]["settings"]["headers"]["x-secret"],
        "***",
        "{}",
        made.text()
    );
    for path in ["/v1/upstreams/pool", "/v1/services/s"] {
        let shown = ask("GET", path, &Value::Null).json();
        let mut body = shown.clone();
        body["description"] = json!("read and sent back");
        let put = ask("PUT", path, &body);
        assert_eq!(put.status, 200, "{}", put.text());
        assert_eq!(
            ask("PATCH", path, &json!({"labels": {"a": "b"}})).status,
            200
        );
    }
    let sent = |process: &Process| {
        process.client().chat("s", "").assert_ok();
        let seen = upstream.last();
        (
            seen.header("authorization").unwrap(),
            seen.header("x-team").unwrap(),
        )
    };
    let kept = (format!("Bearer {API_KEY}"), HEADER.to_owned());
    assert_eq!(sent(&process), kept);

    // Another one is told of, and not shown.
    let next = json!({"kind": "upstream", "name": "pool", "targets": [upstream.url()], "api_key": NEXT, "headers": {"x-team": "***"}});
    let planned = ask("POST", "/v1/plan", &next).json();
    let fields = planned["changes"][0]["fields"].as_array().unwrap();
    assert!(
        fields.contains(&json!({"path": "api_key", "from": "***", "to": "***"})),
        "{planned}"
    );
    assert!(
        !fields.iter().any(|field| field["path"] == "headers.x-team"),
        "{planned}"
    );
    assert_eq!(sent(&process), kept, "a plan changes nothing");
    assert_eq!(ask("POST", "/v1/apply", &next).status, 200);
    assert_eq!(
        sent(&process),
        (format!("Bearer {NEXT}"), HEADER.to_owned())
    );
    process.signal("KILL");
    process.end();
    process.restart();
    assert_eq!(
        sent(&process),
        (format!("Bearer {NEXT}"), HEADER.to_owned())
    );

    // Stars stand for nothing where nothing was kept.
    for body in [
        json!({"name": "other", "targets": [upstream.url()], "api_key": "***"}),
        json!({"name": "other", "targets": [upstream.url()], "api_key": "${PATH}"}),
        json!({"name": "other", "targets": [upstream.url()], "api_key": {"file": "/etc/hostname"}}),
    ] {
        let reply = ask("POST", "/v1/upstreams", &body);
        let error = reply.json()["error"].clone();
        assert_eq!(reply.status, 422, "{error}");
        let place = error["details"][0]["path"].as_str().unwrap();
        assert!(place.starts_with("api_key"), "{error}");
    }
    // Nor does a text that only looks like it.
    let starred = json!({"name": "starred", "targets": [upstream.url()], "description": "***"});
    assert_eq!(ask("POST", "/v1/upstreams", &starred).status, 201);
    // A mistake beside a secret, or in it, does not show it.
    for body in [
        json!({"name": "other", "targets": [upstream.url()], "policy": "nope", "api_key": API_KEY}),
        json!({"name": "other", "targets": [upstream.url()], "api_keys": API_KEY, "headers": {"x y": HEADER}}),
        json!({"name": "other", "targets": [upstream.url()], "headers": {"x-team": format!("{HEADER}\u{1}")}}),
        json!({"name": "other", "targets": [upstream.url()], "headers": [HEADER], "api_key": [API_KEY]}),
    ] {
        assert_eq!(ask("POST", "/v1/upstreams", &body).status, 422);
    }
    let broken = format!("{{\"kind\":\"upstream\",\"api_key\":\"{API_KEY}\" \"x");
    told.push_str(&api.send("POST", "/v1/apply", "", broken.as_bytes()).text());
    told.push_str(&process.read("stdout"));
    told.push_str(&process.read("stderr"));
    for secret in [API_KEY, HEADER, PLUGIN, NEXT] {
        assert!(!told.contains(secret), "{secret}: {told}");
    }
}
