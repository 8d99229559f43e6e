//! What the admin API refuses of a resource, and how it says so.

use serde_json::{Value, json};

use super::resources::{details, refused, start};
use crate::harness::Upstream;

#[test]
fn every_mistake_is_told_by_its_field() {
    let upstream = Upstream::obliging();
    let gateway = start(&upstream);
    let api = gateway.api();
    let body = json!({
        "name": "s", "modles": ["a"], "weight": 5000, "upstream": "nowhere", "gateways": ["main", "elsewhere"],
        "timeouts": {"connect": "soon"}, "fallback": ["s", "nobody"], "description": "${HOME}",
    });
    let error = refused(&api.ask("POST", "/v1/services", &body), 422, "invalid");
    let found = details(&error);
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    for path in [
        "modles",
        "weight",
        "upstream",
        "gateways[1]",
        "timeouts.connect",
        "fallback[0]",
        "fallback[1]",
        "description",
    ] {
        assert!(paths.contains(&path), "{path}: {found:?}");
    }
    assert!(error["param"].is_string());
    assert!(
        found.iter().any(|(_, message)| message.contains("models")),
        "{found:?}"
    );
    assert_eq!(api.get("/v1/services/s").status, 404);

    // A change elsewhere that makes something there untrue is told where it hurts.
    let offered = json!({"name": "s", "models": ["s"], "targets": [upstream.url()]});
    assert_eq!(api.ask("POST", "/v1/services", &offered).status, 201);
    assert_eq!(
        api.ask(
            "POST",
            "/v1/gateways",
            &json!({"name": "g", "hosts": ["g.example"]})
        )
        .status,
        201
    );
    let rule = json!({"name": "r", "gateway": "main", "path": "/r", "services": ["s"]});
    assert_eq!(api.ask("POST", "/v1/rules", &rule).status, 201);
    let error = refused(
        &api.ask("PATCH", "/v1/services/s", &json!({"gateways": ["g"]})),
        422,
        "invalid",
    );
    assert_eq!(details(&error)[0].0, "rule[r].services[0]");
    // Of two that cannot be true together, the one that comes is wrong.
    let error = refused(
        &api.ask(
            "POST",
            "/v1/gateways",
            &json!({"name": "b", "hosts": ["g.example"]}),
        ),
        422,
        "invalid",
    );
    let (path, message) = &details(&error)[0];
    assert!(
        path == "hosts[0]" && message.contains("gateway \"g\""),
        "{path} {message}"
    );
}

#[test]
fn what_is_no_document_is_refused() {
    let upstream = Upstream::obliging();
    let gateway = start(&upstream);
    let api = gateway.api();
    for body in [
        "",
        "{",
        "[]",
        "1",
        "{\"name\":\"a\",\"name\":\"b\"}",
        "\u{0}",
        "{\"a\":1}x",
    ] {
        for (method, path) in [
            ("POST", "/v1/services"),
            ("PUT", "/v1/services/x"),
            ("PATCH", "/v1/services/filed"),
        ] {
            refused(
                &api.send(method, path, "", body.as_bytes()),
                400,
                "malformed",
            );
        }
    }
    let deep = "[".repeat(100_000);
    refused(
        &api.send("POST", "/v1/gateways", "", deep.as_bytes()),
        400,
        "malformed",
    );
    refused(
        &api.send("POST", "/v1/gateways", "", b"{\"name\":\"\xff\"}"),
        400,
        "malformed",
    );
    let xml = "content-type: text/xml\r\n";
    refused(
        &api.send("POST", "/v1/services", xml, b"{}"),
        415,
        "unsupported_media_type",
    );
    let long = vec![b' '; 2 << 20];
    refused(
        &api.send("POST", "/v1/services", "", &long),
        413,
        "request_too_large",
    );
    for (method, path) in [
        ("POST", "/v1/services/filed"),
        ("DELETE", "/v1/services"),
        ("GET", "/v1/apply"),
    ] {
        let reply = api.ask(method, path, &json!({}));
        refused(&reply, 405, "method_not_allowed");
        assert!(reply.header("allow").is_some());
    }
    refused(&api.get("/v1/nothings"), 404, "not_found");
    refused(&api.get("/v1/services?colour=red"), 400, "malformed");
    for name in ["Not%20A%20Name", "a%2Fb", &"a".repeat(64)] {
        let reply = api.ask(
            "PUT",
            &format!("/v1/services/{name}"),
            &json!({"targets": ["http://a"]}),
        );
        assert_eq!(details(&refused(&reply, 422, "invalid"))[0].0, "name");
    }
    let other = json!({"name": "other", "targets": ["http://127.0.0.1:1"]});
    let error = refused(&api.ask("PUT", "/v1/services/one", &other), 422, "invalid");
    assert_eq!(details(&error)[0].0, "name");
}

#[test]
fn what_stands_in_the_file_is_the_files() {
    let upstream = Upstream::obliging();
    let gateway = start(&upstream);
    let (api, mut client) = (gateway.api(), gateway.client());
    let path = "/v1/services/filed";
    let shown = api.get(path).json();
    assert_eq!(shown["managed_by"], "file");
    let mut body = shown.clone();
    body["weight"] = json!(1);
    for (method, body) in [
        ("PUT", body),
        ("PATCH", json!({"weight": 1})),
        ("DELETE", Value::Null),
    ] {
        refused(&api.ask(method, path, &body), 409, "owned_by_file");
    }
    refused(&api.ask("POST", "/v1/services", &shown), 409, "exists");
    // To say what is there is no change.
    assert_eq!(api.ask("PUT", path, &shown).status, 200);
    assert_eq!(api.get(path).json(), shown);
    client.chat("filed", "").assert_ok();
}
