//! Answers of our own take the shape the caller's library understands.

use crate::harness::{Gateway, chat, closed_address, engine, post, service};

#[test]
fn an_openai_client_reads_openais_shape() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let error = gateway.client().chat("nobody", "").json()["error"].clone();
    let object = error.as_object().unwrap();
    let mut keys: Vec<&String> = object.keys().collect();
    keys.sort();
    assert_eq!(keys, ["code", "message", "param", "type"]);
}

#[test]
fn an_anthropic_client_reads_anthropics_shape() {
    let engine = engine();
    let dead = closed_address();
    let toml =
        service("m", "m", &engine.url()) + &service("dead", "dead", &format!("http://{dead}"));
    let gateway = Gateway::start(&toml);
    for (body, status, kind) in [
        (chat("nobody"), 404, "not_found_error"),
        ("{\"model\":".to_owned(), 400, "invalid_request_error"),
        (chat("dead"), 502, "api_error"),
    ] {
        let reply = gateway.client().post("/v1/messages", body);
        assert_eq!(reply.status, status, "{}", reply.text());
        let json = reply.json();
        assert_eq!(json["type"], "error", "{json}");
        assert_eq!(json["error"]["type"], kind, "{json}");
        assert!(json["error"]["message"].is_string());
    }
}

/// gRPC tells failures in trailers; a client that gets HTTP's status only knows that something is wrong.
#[test]
fn a_grpc_client_reads_grpc_status() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let reply = gateway.h2().post(
        "/inference.v1.Chat/Stream",
        &fields,
        &b"\0\0\0\0\0"[..],
        false,
    );
    let reply = reply.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/grpc"));
    let status = reply.header("grpc-status").or(reply.trailer("grpc-status"));
    assert!(status.is_some_and(|status| status != "0"), "{reply:?}");
    assert!(
        reply
            .header("grpc-message")
            .or(reply.trailer("grpc-message"))
            .is_some()
    );
    assert!(reply.body.is_empty());
}

#[test]
fn a_refusal_of_head_has_no_body() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let mut client = gateway.client();
    client.send("HEAD /nowhere HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 404);
    client.send(post("/v1/chat/completions", "", chat("m")));
    client.reply().assert_ok();
}

#[test]
fn rejections_are_counted_by_code() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let mut client = gateway.client();
    client.chat("nobody", "");
    client.chat("nobody", "");
    client.post("/v1/chat/completions", "{}");
    client.get("/nowhere", "");
    for (code, status, count) in [
        ("model_not_found", "404", 2.0),
        ("invalid_request", "400", 1.0),
        ("route_not_found", "404", 1.0),
    ] {
        let labels = [("gateway", "main"), ("code", code)];
        gateway.wait_for("tollgate_rejections_total", &labels, |n| n == count);
        let answered = gateway.metrics().sum(
            "tollgate_requests_total",
            &[("gateway", "main"), ("code", status)],
        );
        assert!(answered >= count, "{status}: {answered}");
    }
}
