//! Targets that register and leave while the gateway serves.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{CHAT, Gateway, Upstream, engine_with, post, service, streamed};

fn start(upstream: &Upstream) -> Gateway {
    let pool = format!(
        "[[upstream]]\nname = \"pool\"\npolicy = \"round_robin\"\ntargets = [\"{}\"]\n",
        upstream.url()
    );
    let served = "[[service]]\nname = \"s\"\nmodels = [\"s\"]\nupstream = \"pool\"\n";
    Gateway::start(&(service("own", "own", &upstream.url()) + &pool + served))
}

#[test]
fn a_target_joins_and_leaves() {
    let (one, two) = (Upstream::obliging(), Upstream::obliging());
    let gateway = start(&one);
    let (api, mut client) = (gateway.api(), gateway.client());
    for (upstream, model) in [("pool", "s"), ("own", "own")] {
        let path = format!("/v1/upstreams/{upstream}/targets/more");
        let before = two.requests().len();
        let made = api.ask("PUT", &path, &json!(two.url()));
        assert_eq!(made.status, 201, "{}", made.text());
        assert_eq!(made.header("location"), Some(path.as_str()));
        let all = api.get(&format!("/v1/upstreams/{upstream}/targets")).json();
        let items = all["items"].as_array().unwrap();
        assert_eq!(items.len(), 2, "{all}");
        let first = one.url();
        assert_eq!(items[0]["id"], json!(first.trim_start_matches("http://")));
        assert_eq!(
            (&items[0]["managed_by"], &items[1]["managed_by"]),
            (&json!("file"), &json!("api"))
        );
        assert_eq!(
            (&items[1]["id"], &items[1]["url"]),
            (&json!("more"), &json!(two.url()))
        );
        for field in ["weight", "health", "breaker", "in_flight"] {
            assert!(!items[1][field].is_null(), "{field}: {all}");
        }
        crate::harness::until("the new one to be asked", || {
            client.chat(model, "").assert_ok();
            (two.requests().len() > before).then_some(())
        });
        let heavier = api.ask("PUT", &path, &json!({"url": two.url(), "weight": 3}));
        assert_eq!(
            (heavier.status, &heavier.json()["weight"]),
            (200, &json!(3))
        );
        assert_eq!(api.get(&path).json()["weight"], 3);
        assert_eq!(api.ask("DELETE", &path, &Value::Null).status, 204);
        let before = two.requests().len();
        for _ in 0..10 {
            client.chat(model, "").assert_ok();
        }
        assert_eq!(
            two.requests().len(),
            before,
            "nothing is sent to it any more"
        );
        assert_eq!(api.get(&path).status, 404);
    }
}

/// What is open comes to its end.
#[test]
fn a_target_that_leaves_ends_its_streams() {
    let other = Upstream::obliging();
    let engine = engine_with(|config| config.itl = Duration::from_millis(20));
    let gateway = start(&other);
    let api = gateway.api();
    let path = "/v1/upstreams/pool/targets/gpu-2";
    assert_eq!(
        api.ask(
            "PUT",
            path,
            &json!({"url": engine.url(), "weight": 1_000_000})
        )
        .status,
        201
    );
    let mut stream = gateway.client();
    crate::harness::until("the engine to be picked", || {
        stream = gateway.client();
        stream.send(post(CHAT, "", streamed("s", 50)));
        let kind = stream.head().unwrap();
        let kind = kind.header("content-type").unwrap_or_default().to_owned();
        kind.starts_with("text/event-stream").then_some(())
    });
    assert_eq!(api.ask("DELETE", path, &Value::Null).status, 204);
    let mut text = Vec::new();
    while let Some(chunk) = stream.chunk().unwrap() {
        text.extend(chunk);
    }
    assert!(String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
    gateway.assert_gauges_zero();
}

#[test]
fn what_cannot_join_is_refused() {
    let (one, two) = (Upstream::obliging(), Upstream::obliging());
    let gateway = start(&one);
    let api = gateway.api();
    let put = |path: &str, body: &Value| {
        let reply = api.ask("PUT", path, body);
        (
            reply.status,
            reply.json()["error"]["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let filed = format!("/v1/upstreams/pool/targets/{}", one.address());
    let conflict = (409, "owned_by_file".to_owned());
    assert_eq!(put(&filed, &json!(two.url())), conflict);
    assert_eq!(api.ask("DELETE", &filed, &Value::Null).status, 409);
    assert_eq!(
        put("/v1/upstreams/nowhere/targets/a", &json!(two.url())).0,
        404
    );
    // A service that names an upstream has no targets of its own.
    assert_eq!(put("/v1/upstreams/s/targets/a", &json!(two.url())).0, 404);
    let invalid = (422, "invalid".to_owned());
    for body in [
        json!({"url": two.url(), "role": "prefill"}),
        json!(one.url()),
        json!("nonsense"),
        json!({"url": two.url(), "weight": 0}),
        json!({}),
        json!(7),
        json!({"url": two.url(), "id": "b"}),
        json!({"url": two.url(), "id": 3}),
    ] {
        assert_eq!(
            put("/v1/upstreams/pool/targets/a", &body),
            invalid,
            "{body}"
        );
    }
    assert_eq!(
        put("/v1/upstreams/pool/targets/a%20b", &json!(two.url())),
        invalid
    );
    assert_eq!(
        put("/v1/upstreams/pool/targets/a", &json!(two.url())).0,
        201
    );
    assert_eq!(
        put("/v1/upstreams/pool/targets/b", &json!(two.url())),
        invalid,
        "one URL, one target"
    );
    for path in [
        "/v1/upstreams/pool/targets/b",
        "/v1/upstreams/nowhere/targets/b",
        "/v1/upstreams/nowhere/targets",
    ] {
        assert_eq!(api.get(path).status, 404);
    }
    assert_eq!(
        api.ask("DELETE", "/v1/upstreams/pool/targets/b", &Value::Null)
            .status,
        404
    );
    // An upstream takes what joined it along.
    let made = json!({"name": "made", "targets": [one.url()]});
    assert_eq!(api.ask("POST", "/v1/upstreams", &made).status, 201);
    assert_eq!(
        put("/v1/upstreams/made/targets/a", &json!(two.url())).0,
        201
    );
    let own = format!("/v1/upstreams/made/targets/{}", one.address());
    assert_eq!(
        put(&own, &json!(two.url())),
        (409, "owned_by_upstream".to_owned())
    );
    assert_eq!(
        api.ask("DELETE", "/v1/upstreams/made", &Value::Null).status,
        204
    );
    assert_eq!(api.ask("POST", "/v1/upstreams", &made).status, 201);
    let left = api.get("/v1/upstreams/made/targets").json();
    assert_eq!(left["items"].as_array().unwrap().len(), 1, "{left}");
}
