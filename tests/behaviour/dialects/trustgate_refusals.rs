//! TrustGate's API: what is refused, with its statuses and its form of errors.

use serde_json::{Value, json};

use super::trustgate::{ALL, Tenant, target};
use super::{done, id, named, start};
use crate::harness::{Gateway, bearer};

/// The error's text, which is all there is of it.
#[track_caller]
fn told(body: &Value) -> &str {
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    body["error"].as_str().unwrap()
}

#[test]
fn what_is_wrong_is_told_and_changes_nothing() {
    let upstream = named("pool");
    let gateway = start();
    let api = gateway.api();
    let tenant = Tenant::of(&api, "Edge", "edge", json!([target(&upstream, 1)]));
    let before = api.get("/v1/status").json()["revision"].clone();
    let nobody = "0190b6c2-7d1e-7c3a-9f00-5a1c00000001";
    let targets = json!([target(&upstream, 1)]);
    let rule = |change: Value| {
        let mut rule =
            json!({"name": "r", "path": "/r", "methods": ["GET"], "service_id": tenant.service});
        for (name, value) in change.as_object().unwrap() {
            rule[name] = value.clone();
        }
        rule
    };
    for (list, body, words) in [
        ("upstreams", json!({"targets": targets}), "name"),
        ("upstreams", json!({"name": "u"}), "targets"),
        (
            "upstreams",
            json!({"name": "pool", "targets": targets}),
            "already",
        ),
        (
            "upstreams",
            json!({"name": "u", "targets": targets, "algorithm": "semantic"}),
            "algorithm",
        ),
        (
            "upstreams",
            json!({"name": "u", "targets": targets, "websocket_config": {"ping_period": "soon"}}),
            "websocket_config.ping_period",
        ),
        (
            "upstreams",
            json!({"name": "u", "targets": targets, "websocket_config": {"read_buffer_size": -1}}),
            "websocket_config.read_buffer_size",
        ),
        (
            "upstreams",
            json!({"name": "u", "targets": targets, "proxy_config": {"host": "p", "port": "1"}}),
            "proxy_config",
        ),
        (
            "upstreams",
            json!({"id": "u", "name": "u", "targets": targets}),
            "UUID",
        ),
        (
            "upstreams",
            json!({"id": tenant.rule, "name": "u", "targets": targets}),
            "already",
        ),
        (
            "services",
            json!({"name": "s", "type": "upstream"}),
            "upstream_id",
        ),
        (
            "services",
            json!({"name": "s", "type": "upstream", "upstream_id": nobody}),
            "upstream_id",
        ),
        ("rules", rule(json!({"path": null})), "path"),
        ("rules", rule(json!({"service_id": null})), "service_id"),
        ("rules", rule(json!({"service_id": nobody})), "service_id"),
        ("rules", rule(json!({"methods": null})), "methods"),
        ("rules", rule(json!({"methods": ["INVALID"]})), "methods"),
        ("rules", rule(json!({"path": "/v1/*"})), "already"),
        (
            "rules",
            rule(json!({"plugin_chain": [{"name": "toxicity_openai", "enabled": true}]})),
            "toxicity_openai",
        ),
        ("keys", json!({}), "name"),
        (
            "keys",
            json!({"name": "k", "expires_at": "2020-01-01T00:00:00Z"}),
            "expires_at",
        ),
        (
            "keys",
            json!({"name": "k", "expires_at": "soon"}),
            "expires_at",
        ),
        (
            "keys",
            json!({"name": "k", "policies": [nobody]}),
            "policies",
        ),
        (
            "keys",
            json!({"name": "k", "subject_type": "policy", "subject": nobody}),
            "subject",
        ),
        ("keys", json!({"name": "k", "key": "short"}), "key"),
        ("keys", json!([]), "object"),
    ] {
        let reply = api.ask("POST", &format!("{}/{list}", tenant.at), &body);
        let answer = done(&reply, 400);
        assert!(told(&answer).contains(words), "{body}: {answer}");
    }
    for (method, path, status) in [
        ("GET", format!("{ALL}/{nobody}"), 404),
        ("DELETE", format!("{ALL}/{nobody}"), 404),
        ("GET", format!("{ALL}/nobody"), 400),
        ("POST", format!("{ALL}/{nobody}/keys"), 400),
        ("GET", tenant.one("rules", nobody), 404),
        ("DELETE", tenant.one("upstreams", &tenant.upstream), 400),
        ("DELETE", tenant.one("services", &tenant.service), 400),
    ] {
        let body = match method {
            "POST" => json!({"name": "k"}),
            _ => Value::Null,
        };
        told(&done(&api.ask(method, &path, &body), status));
    }
    let broken = api.send("POST", ALL, "", b"{");
    told(&done(&broken, 400));
    assert_eq!(api.get("/v1/status").json()["revision"], before);
}

/// Names with the same parameters in other words are the same path.
#[test]
fn paths_of_rules_are_compared_without_names() {
    let upstream = named("pool");
    let gateway = start();
    let api = gateway.api();
    let tenant = Tenant::of(&api, "Edge", "edge", json!([target(&upstream, 1)]));
    let all = format!("{}/rules", tenant.at);
    let rule = |path: &str, method: &str| json!({"path": path, "methods": [method], "service_id": tenant.service});
    done(&api.ask("POST", &all, &rule("/users/{id}/x", "GET")), 201);
    done(&api.ask("POST", &all, &rule("/users/{who}/x", "PUT")), 400);
    let other = done(&api.ask("POST", &all, &rule("/users/{who}/y", "PUT")), 201);
    // Nor may a change make them the same.
    let one = tenant.one("rules", &id(&other));
    let same = json!({"path": "/users/{who}/x"});
    done(&api.ask("PUT", &one, &same), 400);
    assert_eq!(done(&api.get(&one), 200)["path"], "/users/{who}/y");
}

/// Here the host tells gateways apart: only one can take every host.
#[test]
fn a_second_gateway_needs_a_host() {
    let gateway = start();
    let api = gateway.api();
    done(&api.ask("POST", ALL, &json!({"name": "one"})), 201);
    let answer = done(&api.ask("POST", ALL, &json!({"name": "two"})), 400);
    assert!(told(&answer).contains("subdomain"), "{answer}");
    let two = json!({"name": "two", "subdomain": "two"});
    done(&api.ask("POST", ALL, &two), 201);
    for taken in [
        json!({"name": "two", "subdomain": "three"}),
        json!({"name": "three", "subdomain": "two"}),
    ] {
        let answer = done(&api.ask("POST", ALL, &taken), 400);
        assert!(told(&answer).contains("already"), "{answer}");
    }
    // The file's gateway is nobody else's.
    let answer = done(
        &api.ask("POST", ALL, &json!({"name": "other", "subdomain": "o"})),
        400,
    );
    assert!(told(&answer).contains("other"), "{answer}");
    let answer = done(&api.get(ALL), 200);
    assert_eq!(answer["count"], 2);
}

#[test]
fn it_is_behind_the_same_token() {
    let gateway =
        Gateway::start("[admin]\naddress = \"$ADMIN\"\ntoken = \"a-token-of-the-admin\"\n");
    let api = gateway.api();
    told(&done(&api.get(ALL), 401));
    told(&done(
        &api.ask("POST", ALL, &json!({"name": "g", "subdomain": "g"})),
        401,
    ));
    let api = api.with_token("a-token-of-the-admin");
    done(&api.get(ALL), 200);
    let large = vec![b' '; (1 << 20) + 1];
    let reply = api.send("POST", ALL, &bearer("a-token-of-the-admin"), &large);
    told(&done(&reply, 413));
    assert!(done(&api.get("/api/v1/version"), 200)["version"].is_string());
    done(
        &api.ask("POST", "/api/v1/invalidate-cache", &Value::Null),
        200,
    );
}
