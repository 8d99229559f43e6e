//! Tokens are counted whether the client asked for usage or not, and it sees only what it asked for.

use serde_json::Value;

use crate::harness::{CHAT, Gateway, Upstream, engine, padded, service, streamed};

fn tokens(gateway: &Gateway, direction: &str, wanted: f64) {
    let labels = [
        ("gateway", "main"),
        ("service", "m"),
        ("direction", direction),
    ];
    gateway.wait_for("tollgate_tokens_total", &labels, |n| n == wanted);
}

/// Whether any event of a stream told usage.
fn tells_usage(events: &[String]) -> bool {
    events.iter().any(|event| {
        let value: Value = serde_json::from_str(event).unwrap_or_default();
        value["usage"].is_object()
    })
}

#[test]
fn usage_is_counted_and_hidden_from_who_did_not_ask() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let reply = gateway.client().post(CHAT, streamed("m", 12));
    reply.assert_ok();
    let events = reply.events();
    assert!(!tells_usage(&events), "{events:?}");
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    // No empty event stands where it was.
    assert!(events.iter().all(|event| !event.is_empty()), "{events:?}");
    tokens(&gateway, "output", 12.0);
    assert!(
        gateway
            .metrics()
            .sum("tollgate_tokens_total", &[("direction", "input")])
            > 0.0
    );
}

#[test]
fn usage_is_shown_to_who_asked() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    for options in [
        "\"stream_options\":{\"include_usage\":true}",
        "\"stream_options\" : { \"continuous_usage_stats\": false, \"include_usage\" : true }",
    ] {
        let body = streamed("m", 5).replacen('{', &format!("{{{options},"), 1);
        let reply = gateway.client().post(CHAT, body);
        reply.assert_ok();
        assert!(tells_usage(&reply.events()), "{options}: {}", reply.text());
    }
    tokens(&gateway, "output", 10.0);
}

#[test]
fn who_said_no_sees_none_and_is_counted() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let bodies = [
        "\"stream_options\":{\"include_usage\":false}",
        "\"stream_options\":{}",
        "\"stream_options\":null",
        "\"stream_options\":{\"include_usage\":null}",
    ];
    for options in bodies {
        let body = streamed("m", 5).replacen('{', &format!("{{{options},"), 1);
        let reply = gateway.client().post(CHAT, body);
        reply.assert_ok();
        assert!(!tells_usage(&reply.events()), "{options}: {}", reply.text());
    }
    tokens(&gateway, "output", 5.0 * bodies.len() as f64);
}

#[test]
fn answers_in_one_piece_are_counted() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let mut client = gateway.client();
    let reply = client.chat("m", "");
    reply.assert_ok();
    let usage = reply.json()["usage"].clone();
    tokens(
        &gateway,
        "output",
        usage["completion_tokens"].as_f64().unwrap(),
    );
    tokens(&gateway, "input", usage["prompt_tokens"].as_f64().unwrap());
    let before = gateway
        .metrics()
        .sum("tollgate_tokens_total", &[("direction", "input")]);
    let reply = client.post(
        "/v1/embeddings",
        r#"{"model":"m","input":["one","two three four"]}"#,
    );
    reply.assert_ok();
    let more = reply.json()["usage"]["prompt_tokens"].as_f64().unwrap();
    assert!(more > 0.0);
    tokens(&gateway, "input", before + more);
    let reply = client.post(
        "/v1/responses",
        r#"{"model":"m","input":"hello","max_output_tokens":7}"#,
    );
    reply.assert_ok();
    let more = reply.json()["usage"]["output_tokens"].as_f64().unwrap();
    let output = usage["completion_tokens"].as_f64().unwrap();
    tokens(&gateway, "output", output + more);
}

#[test]
fn cached_tokens_are_counted() {
    let engine = crate::harness::engine_with(|config| config.cache_blocks = 1_000);
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let body = padded("m", 8_000);
    for _ in 0..2 {
        gateway.client().post(CHAT, &body).assert_ok();
    }
    let cached = engine.state().cached_tokens as f64;
    assert!(cached > 0.0);
    tokens(&gateway, "cached", cached);
}

/// An alias and a wish for usage are both spliced in; all other bytes stay as they were.
#[test]
fn only_what_must_change_changes() {
    let upstream = Upstream::obliging();
    let toml = service("m", "m", &upstream.url()) + "model = \"real\"\n";
    let gateway = Gateway::start(&toml);
    let body = "{ \"z\" : 1e3,\"model\":\"m\" , \"stream\" : true,\n\"n\":1.0, \"text\":\"\\u00e9\\/\", \"nested\":{\"dup\":1,\"dup\":2,\"model\":\"m\",\"stream\":false} }";
    gateway.client().post(CHAT, body).assert_ok();
    let seen = String::from_utf8(upstream.last().body).unwrap();
    let value: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(value["model"], "real");
    assert_eq!(value["stream_options"]["include_usage"], true, "{seen}");
    assert_eq!(value["nested"]["model"], "m");
    // Taking out what was put in gives back what was sent.
    let injected = [
        "\"stream_options\":{\"include_usage\":true},",
        ",\"stream_options\":{\"include_usage\":true}",
    ];
    let found = injected.iter().find(|text| seen.contains(**text));
    let Some(found) = found else { panic!("{seen}") };
    let back = seen.replacen(found, "", 1).replacen("\"real\"", "\"m\"", 1);
    assert_eq!(back, body);
}

/// Neither a request that does not stream nor one that is no completion is touched.
#[test]
fn what_need_not_change_does_not() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    for (path, body) in [
        (CHAT, r#"{"model":"m","stream":false,"messages":[]}"#),
        (CHAT, r#"{"model":"m","messages":[]}"#),
        (
            "/v1/embeddings",
            r#"{"model":"m","stream":true,"input":"x"}"#,
        ),
        (
            "/v1/responses",
            r#"{"model":"m","stream":true,"input":"x"}"#,
        ),
        (
            CHAT,
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ] {
        gateway.client().post(path, body).assert_ok();
        assert_eq!(
            String::from_utf8(upstream.last().body).unwrap(),
            body,
            "{path}"
        );
    }
}
