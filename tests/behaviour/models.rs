//! The model's name, wherever it stands, decides the service.

use crate::harness::{CHAT, Gateway, Upstream, chat, get, post, service};

/// A service per pattern, over one upstream; `x-tollgate-service` tells which it was.
fn gateway(upstream: &Upstream, routing: &str, services: &[(&str, &str)]) -> Gateway {
    let mut toml = format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\nrouting = {routing}\n"
    );
    for (name, models) in services {
        toml += &format!(
            "[[service]]\nname = \"{name}\"\nmodels = [{models}]\ntargets = [\"{}\"]\n",
            upstream.url()
        );
    }
    Gateway::start(&toml)
}

#[test]
fn exact_wins_then_the_longest_prefix() {
    let upstream = Upstream::obliging();
    let gateway = gateway(
        &upstream,
        "{ by = \"body\" }",
        &[
            ("rest", "\"*\""),
            ("qwen", "\"Qwen/*\""),
            ("q3", "\"Qwen/Qwen3*\", \"other\""),
            ("exact", "\"Qwen/Qwen3-8B\""),
        ],
    );
    let mut client = gateway.client();
    for (model, by) in [
        ("Qwen/Qwen3-8B", "exact"),
        ("Qwen/Qwen3-14B", "q3"),
        ("Qwen/Qwen2", "qwen"),
        ("Qwen/", "qwen"),
        ("Qwen", "rest"),
        ("other", "q3"),
        ("others", "rest"),
        // Names are text, byte for byte.
        ("qwen/Qwen3-8B", "rest"),
        (r"Qwen\/Qwen3-8B", "exact"),
        (r"\u0051wen/Qwen3-8B", "exact"),
        (r"Qwen/Qwen3-8\u0042", "exact"),
    ] {
        let reply = client.chat(model, "");
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-service"), Some(by), "{model}");
    }
}

#[test]
fn escapes_in_a_name_are_read() {
    let upstream = Upstream::obliging();
    let gateway = gateway(
        &upstream,
        "{ by = \"body\" }",
        &[("s", "\"a/b \u{e9}\u{1F600}\\\"q\"")],
    );
    let mut client = gateway.client();
    for model in [
        "a/b \u{e9}\u{1F600}\\\"q",
        r#"\u0061\/b \u00e9\ud83d\ude00\u0022q"#,
        r#"a\u002fb\u0020\u00E9\uD83D\uDE00\"q"#,
    ] {
        client.chat(model, "").assert_ok();
    }
    assert_eq!(upstream.requests().len(), 3);
}

/// The name may stand anywhere in the body, and other things may look like it.
#[test]
fn only_the_top_level_counts() {
    let upstream = Upstream::obliging();
    let gateway = gateway(&upstream, "{ by = \"body\" }", &[("s", "\"m\"")]);
    let mut client = gateway.client();
    for body in [
        r#"{"model":"m"}"#,
        " \r\n\t{ \"model\"\t:\n\"m\" } \n",
        r#"{"metadata":{"model":"x"},"messages":[{"content":"\"model\":\"x\""}],"model":"m"}"#,
        r#"{"text":"{\"model\":\"x\"}","list":["model","x"],"model":"m","after":{"model":"y"}}"#,
        r#"{"\u006dodel":"m"}"#,
        r#"{"model ":"z","models":"y","model":"m"}"#,
        r#"{"":"","a":-1.5e-10,"b":[[],{}],"c":null,"d":true,"model":"m"}"#,
    ] {
        let reply = client.post(CHAT, body);
        assert_eq!(reply.status, 200, "{body}: {}", reply.text());
        assert_eq!(upstream.last().body, body.as_bytes());
    }
}

#[test]
fn bodies_that_name_no_model_are_refused() {
    let upstream = Upstream::obliging();
    let gateway = gateway(&upstream, "{ by = \"body\" }", &[("s", "\"m\", \"*\"")]);
    let mut client = gateway.client();
    for body in [
        "",
        "{}",
        "[]",
        "\"m\"",
        "m",
        "{\"model\":\"m\"",
        "{\"model\":\"m\"}}",
        "{\"model\":\"m\",}",
        "{\"model\":\"m\"}{\"model\":\"n\"}",
        "{model:\"m\"}",
        "{\"model\":1}",
        "{\"model\":null}",
        "{\"model\":[\"m\"]}",
        "{\"model\":\"m\",\"model\":\"n\"}",
        "{\"model\":\"m\",\"x\":{},\"model\":\"m\"}",
        "{\"model\":\"m\",\"\\u006dodel\":\"n\"}",
        "{\"model\":\"\\ud800\"}",
        "{\"model\":\"a\nb\"}",
        "{'model':'m'}",
        "{\"messages\":[]}",
    ] {
        let reply = client.post(CHAT, body);
        assert_eq!(reply.status, 400, "{body:?}: {}", reply.text());
        assert_eq!(reply.error_code(), "invalid_request", "{body:?}");
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
    // Bytes that are no UTF-8.
    client
        .post(CHAT, b"{\"model\":\"\xff\"}")
        .assert_refused(400, "invalid_request");
}

/// Engines written in Go take `Model` for `model`: what is routed by must be what is served.
#[test]
fn a_name_that_could_be_mistaken_is_refused() {
    let upstream = Upstream::obliging();
    let gateway = gateway(&upstream, "{ by = \"body\" }", &[("s", "\"m\"")]);
    for body in [
        r#"{"Model":"x","model":"m"}"#,
        r#"{"model":"m","MODEL":"x"}"#,
    ] {
        gateway
            .client()
            .post(CHAT, body)
            .assert_refused(400, "invalid_request");
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn an_unknown_model_gets_404() {
    let upstream = Upstream::obliging();
    let gateway = gateway(&upstream, "{ by = \"body\" }", &[("s", "\"m\"")]);
    let reply = gateway.client().chat("gpt-9", "");
    reply.assert_refused(404, "model_not_found");
    let error = &reply.json()["error"];
    assert!(
        error["message"].as_str().unwrap().contains("gpt-9"),
        "{error}"
    );
    assert_eq!(error["param"], "model");
    assert_eq!(error["type"], "invalid_request_error");
    let labels = [("gateway", "main"), ("code", "model_not_found")];
    gateway.wait_for("tollgate_rejections_total", &labels, |n| n == 1.0);
}

#[test]
fn a_header_names_the_model() {
    let upstream = Upstream::obliging();
    let routing = "{ by = \"header\", header = \"X-Model-Name\" }";
    let gateway = gateway(
        &upstream,
        routing,
        &[("s", "\"Qwen/Qwen3-8B\""), ("t", "\"other*\"")],
    );
    let mut client = gateway.client();
    for (value, by) in [("Qwen/Qwen3-8B", "s"), ("  other-1 ", "t")] {
        // What the body says does not matter.
        let reply = client.chat("elsewhere", &format!("x-model-name: {value}\r\n"));
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-service"), Some(by));
    }
    client
        .chat("Qwen/Qwen3-8B", "")
        .assert_refused(400, "invalid_request");
    client
        .chat("m", "x-model-name: nobody\r\n")
        .assert_refused(404, "model_not_found");
    client
        .chat("m", "x-model-name:\r\n")
        .assert_refused(400, "invalid_request");
    let twice = "x-model-name: other\r\nx-model-name: Qwen/Qwen3-8B\r\n";
    client
        .chat("m", twice)
        .assert_refused(400, "invalid_request");
    // A GET can name one too.
    client.send(get("/health", "x-model-name: other\r\n"));
    client.reply().assert_ok();
    assert_eq!(upstream.last().path(), "/health");
}

#[test]
fn the_path_names_the_model() {
    let upstream = Upstream::obliging();
    let gateway = gateway(
        &upstream,
        "{ by = \"path\" }",
        &[("s", "\"Qwen/Qwen3-8B\""), ("t", "\"plain\"")],
    );
    let mut client = gateway.client();
    for (path, by, sent) in [
        (
            "/Qwen%2FQwen3-8B/v1/chat/completions?x=1&y=%2F",
            "s",
            "/v1/chat/completions?x=1&y=%2F",
        ),
        ("/Qwen%2fQwen3%2D8B/v1/completions", "s", "/v1/completions"),
        ("/plain", "t", "/"),
        ("/plain/", "t", "/"),
        ("/plain?q", "t", "/?q"),
        ("/plain//double", "t", "//double"),
    ] {
        client.send(post(path, "", chat("elsewhere")));
        let reply = client.reply();
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert_eq!(reply.header("x-tollgate-service"), Some(by), "{path}");
        assert_eq!(upstream.last().path(), sent, "{path}");
    }
    client
        .post("/nobody/v1/chat/completions", chat("plain"))
        .assert_refused(404, "model_not_found");
    client
        .post("/Qwen/Qwen3-8B/v1/x", chat("plain"))
        .assert_refused(404, "model_not_found");
    client.get("/", "").assert_refused(404, "route_not_found");
}

#[test]
fn the_list_shows_what_is_offered() {
    let upstream = Upstream::obliging();
    let gateway = gateway(
        &upstream,
        "{ by = \"body\" }",
        &[
            ("a", "\"Qwen/Qwen3-8B\", \"alias\""),
            ("b", "\"plain\", \"pre*\""),
        ],
    );
    let mut client = gateway.client();
    let reply = client.get("/v1/models", "");
    reply.assert_ok();
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let list = reply.json();
    assert_eq!(list["object"], "list");
    let data = list["data"].as_array().unwrap();
    let mut ids: Vec<&str> = data
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(&ids[..3], ["Qwen/Qwen3-8B", "alias", "plain"], "{list}");
    for model in data {
        assert_eq!(model["object"], "model");
        assert!(
            model["created"].is_u64() && model["owned_by"].is_string(),
            "{model}"
        );
    }
    for id in ["Qwen%2FQwen3-8B", "Qwen/Qwen3-8B", "alias"] {
        let reply = client.get(&format!("/v1/models/{id}"), "");
        reply.assert_ok();
        assert_eq!(reply.json()["id"], id.replace("%2F", "/"));
    }
    client
        .get("/v1/models/nobody", "")
        .assert_refused(404, "model_not_found");
    client.get("/v1/models?limit=5", "").assert_ok();
    assert!(upstream.requests().is_empty());
}

#[test]
fn without_model_routing_there_is_no_list() {
    let upstream = Upstream::obliging();
    let gateway = gateway(&upstream, "{ by = \"none\" }", &[("a", "\"m\"")]);
    gateway
        .client()
        .get("/v1/models", "")
        .assert_refused(404, "route_not_found");
    gateway
        .client()
        .chat("m", "")
        .assert_refused(404, "route_not_found");
}

/// A target's own path goes before the request's, and its version replaces the request's.
#[test]
fn a_targets_path_goes_first() {
    for (base, path, sent) in [
        ("", CHAT, CHAT),
        ("/api", CHAT, "/api/v1/chat/completions"),
        ("/api/v3", CHAT, "/api/v3/chat/completions"),
        ("/v1", CHAT, CHAT),
        ("/v1/", CHAT, CHAT),
        (
            "/api/v3",
            "/v1/chat/completions?api-version=/v1/x",
            "/api/v3/chat/completions?api-version=/v1/x",
        ),
        ("/api/v3", "/v10/x", "/api/v3/x"),
        ("/api/v3", "/other", "/api/v3/other"),
    ] {
        let upstream = Upstream::obliging();
        let gateway = Gateway::start(&service("m", "m", &(upstream.url() + base)));
        gateway.client().post(path, chat("m")).assert_ok();
        assert_eq!(upstream.last().path(), sent, "{base} and {path}");
    }
}
