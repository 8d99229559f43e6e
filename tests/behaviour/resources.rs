//! Resources of every kind over the admin API: made, shown, replaced, patched, deleted; who looked at another revision.

use serde_json::{Value, json};

use crate::harness::{Api, Gateway, Reply, Upstream, service};

/// One gateway and one service of the file.
pub(super) fn start(upstream: &Upstream) -> Gateway {
    Gateway::start(&service("filed", "filed", &upstream.url()))
}

#[track_caller]
pub(super) fn refused(reply: &Reply, status: u16, code: &str) -> Value {
    let error = reply.json()["error"].clone();
    assert_eq!(
        (reply.status, &error["code"]),
        (status, &json!(code)),
        "{}",
        reply.text()
    );
    for field in ["message", "type"] {
        assert!(error[field].is_string(), "{error}");
    }
    error
}

#[track_caller]
pub(super) fn details(error: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let details = error["details"].as_array().unwrap().iter();
    details
        .map(|d| (text(&d["path"]), text(&d["message"])))
        .collect()
}

fn if_match(api: &Api, method: &str, path: &str, tag: &str, body: &Value) -> Reply {
    let fields = format!("if-match: {tag}\r\n");
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    api.send(method, path, &fields, body.as_bytes())
}

#[test]
fn every_kind_is_made_shown_replaced_patched_and_deleted() {
    let upstream = Upstream::obliging();
    let gateway = start(&upstream);
    let api = gateway.api();
    let cases = [
        (
            "gateways",
            json!({"name": "g", "hosts": ["g.example"]}),
            json!({"hosts": ["h.example"]}),
        ),
        (
            "upstreams",
            json!({"name": "u", "targets": [upstream.url()]}),
            json!({"http2": true}),
        ),
        (
            "services",
            json!({"name": "s", "models": ["s"], "targets": [upstream.url()]}),
            json!({"weight": 7}),
        ),
        (
            "rules",
            json!({"name": "r", "gateway": "main", "path": "/r", "services": ["filed"]}),
            json!({"priority": 3}),
        ),
        (
            "keys",
            json!({"name": "k", "gateway": "main"}),
            json!({"models": ["m"]}),
        ),
    ];
    let revision = |reply: &Reply| reply.json()["revision"].as_u64().unwrap();
    let mut last = revision(&api.get("/v1/services"));
    for (kind, body, patch) in cases {
        let all = format!("/v1/{kind}");
        let name = body["name"].as_str().unwrap();
        let one = format!("{all}/{name}");
        let made = api.ask("POST", &all, &body);
        assert_eq!(made.status, 201, "{}", made.text());
        assert_eq!(made.header("location"), Some(one.as_str()));
        assert_eq!(revision(&made), last + 1, "{kind}");
        last += 1;
        let tag = format!("\"{last}\"");
        assert_eq!(made.header("etag"), Some(tag.as_str()));
        refused(&api.ask("POST", &all, &body), 409, "exists");

        let shown = api.get(&one);
        assert_eq!(shown.header("etag"), Some(tag.as_str()));
        let shown = shown.json();
        assert_eq!(shown["kind"], json!(kind.trim_end_matches('s')));
        assert_eq!(shown["managed_by"], "api");
        assert_eq!(shown["name"], json!(name));
        let list = api.get(&all).json();
        assert!(list["items"].as_array().unwrap().contains(&shown), "{list}");
        assert_eq!(list["revision"], json!(last));

        // What was read can be sent back, and is no change.
        let same = api.ask("PUT", &one, &shown);
        assert_eq!(
            (same.status, revision(&same)),
            (200, last),
            "{}",
            same.text()
        );
        assert_eq!(revision(&api.get(&all)), last);

        let patched = api.ask("PATCH", &one, &patch);
        assert_eq!(
            (patched.status, revision(&patched)),
            (200, last + 1),
            "{}",
            patched.text()
        );
        last += 1;
        for (field, value) in patch.as_object().unwrap() {
            assert_eq!(patched.json()[field], *value);
        }
        let replaced = api.ask("PUT", &one, &body);
        assert_eq!(
            (replaced.status, revision(&replaced)),
            (200, last + 1),
            "{}",
            replaced.text()
        );
        last += 1;
        for field in patch.as_object().unwrap().keys() {
            assert_eq!(replaced.json()[field], shown[field], "as it was made");
        }
        assert_eq!(api.ask("DELETE", &one, &Value::Null).status, 204);
        last += 1;
        refused(&api.get(&one), 404, "not_found");
        for method in ["DELETE", "PATCH"] {
            refused(&api.ask(method, &one, &json!({})), 404, "not_found");
        }
        let anew = api.ask("PUT", &one, &body);
        assert_eq!(
            (anew.status, revision(&anew)),
            (201, last + 1),
            "{}",
            anew.text()
        );
        last += 1;
    }
    assert_eq!(
        gateway.metrics().sum("tollgate_config_revision", &[]),
        last as f64
    );
}

#[test]
fn a_change_is_in_force_when_it_is_answered() {
    let (one, two) = (Upstream::obliging(), Upstream::obliging());
    let gateway = start(&one);
    let (api, mut client) = (gateway.api(), gateway.client());
    let pool = json!({"name": "pool", "targets": [one.url()]});
    assert_eq!(api.ask("POST", "/v1/upstreams", &pool).status, 201);
    assert_eq!(client.chat("m", "").status, 404);
    let body = json!({"name": "s", "models": ["m"], "upstream": "pool"});
    assert_eq!(api.ask("POST", "/v1/services", &body).status, 201);
    client.chat("m", "").assert_ok();
    assert_eq!((one.requests().len(), two.requests().len()), (1, 0));
    let moved = api.ask(
        "PATCH",
        "/v1/upstreams/pool",
        &json!({"targets": [two.url()]}),
    );
    assert_eq!(moved.status, 200);
    client.chat("m", "").assert_ok();
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1));

    let error = refused(
        &api.ask("DELETE", "/v1/upstreams/pool", &Value::Null),
        409,
        "in_use",
    );
    assert!(
        error["message"].as_str().unwrap().contains("service s"),
        "{error}"
    );
    client.chat("m", "").assert_ok();
    assert_eq!(
        api.ask("DELETE", "/v1/services/s", &Value::Null).status,
        204
    );
    assert_eq!(client.chat("m", "").status, 404);
    assert_eq!(
        api.ask("DELETE", "/v1/upstreams/pool", &Value::Null).status,
        204
    );
}

#[test]
fn who_looked_at_another_revision_changes_nothing() {
    let upstream = Upstream::obliging();
    let gateway = start(&upstream);
    let api = gateway.api();
    let body =
        |weight: u32| json!({"models": ["s"], "targets": [upstream.url()], "weight": weight});
    let path = "/v1/services/s";
    refused(&if_match(&api, "PUT", path, "*", &body(1)), 412, "stale");
    assert_eq!(api.ask("PUT", path, &body(1)).status, 201);
    let tag = |reply: &Reply| reply.header("etag").unwrap().to_owned();
    let own = tag(&api.get(path));
    // Something else changes: the service's own revision still holds, and so does the present one.
    assert_eq!(api.ask("PUT", "/v1/services/t", &body(1)).status, 201);
    let second = if_match(&api, "PUT", path, &own, &body(2));
    assert_eq!(second.status, 200, "{}", second.text());
    for stale in [
        own.as_str(),
        "\"0\"",
        "\"999\"",
        "W/\"3\"",
        "nonsense",
        "\"\"",
    ] {
        for method in ["PUT", "PATCH", "DELETE"] {
            refused(&if_match(&api, method, path, stale, &body(3)), 412, "stale");
        }
    }
    assert_eq!(api.get(path).json()["weight"], 2);
    let present = tag(&api.get("/v1/services"));
    let several = format!("\"7000\", {present}");
    assert_eq!(
        if_match(&api, "PATCH", path, &several, &body(3)).status,
        200
    );
    refused(
        &if_match(&api, "POST", "/v1/services", &present, &body(3)),
        412,
        "stale",
    );
    let present = tag(&api.get("/v1/services"));
    let mut third = body(3);
    third["name"] = json!("u");
    assert_eq!(
        if_match(&api, "POST", "/v1/services", &present, &third).status,
        201
    );
    assert_eq!(
        if_match(&api, "DELETE", path, "*", &Value::Null).status,
        204
    );
    refused(
        &if_match(&api, "DELETE", path, "*", &Value::Null),
        412,
        "stale",
    );
}

#[test]
fn lists_are_filtered() {
    let upstream = Upstream::obliging();
    let gateway = start(&upstream);
    let api = gateway.api();
    let url = upstream.url();
    for (path, body) in [
        ("/v1/gateways", json!({"name": "g", "hosts": ["g.example"]})),
        (
            "/v1/services",
            json!({"name": "s", "models": ["s"], "targets": [url], "gateways": ["g"], "labels": {"team": "a"}}),
        ),
        ("/v1/keys", json!({"name": "k", "gateway": "g"})),
    ] {
        assert_eq!(api.ask("POST", path, &body).status, 201);
    }
    let names = |path: &str| {
        let items = api.get(path).json()["items"].clone();
        let items = items.as_array().unwrap().iter();
        items
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for (path, expected) in [
        ("/v1/services", &["filed", "s"][..]),
        ("/v1/services?gateway=main", &["filed"]),
        ("/v1/services?gateway=g", &["filed", "s"]),
        ("/v1/services?managed_by=api", &["s"]),
        ("/v1/services?managed_by=file&gateway=g", &["filed"]),
        ("/v1/services?label=team%3Da", &["s"]),
        ("/v1/services?label=team=b", &[]),
        ("/v1/keys?gateway=main", &[]),
        ("/v1/keys?gateway=g", &["k"]),
    ] {
        assert_eq!(names(path), expected, "{path}");
    }
    for wrong in ["managed_by=me", "label=team"] {
        refused(&api.get(&format!("/v1/services?{wrong}")), 400, "malformed");
    }
}
