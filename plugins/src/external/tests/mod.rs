//! Both plugins against a server with a script, as the engine would drive them.

mod api;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tollgate_sdk::llm::usage::Usage;
use tollgate_sdk::plugin::{Built, CallError, Outcome, Refusal, Stage, Tokens};

use crate::testing::{Call, Scripted, host_with, plugin_on, problems, untyped};

const URL: &str = "https://guard.internal:9000/check?v=1";
const BODY: &str = r#"{"z":1e400,"model":"m","a":"ä"}"#;

fn at(server: &Arc<Scripted>, name: &str, settings: Json, stage: Option<Stage>) -> Built {
    plugin_on(&host_with(server), name, settings, stage)
}

/// A server, and the plugin that asks it, with these settings besides the address.
fn asker(further: Json) -> (Arc<Scripted>, Built) {
    let server = Arc::new(Scripted::default());
    let mut settings = json!({"url": URL});
    let table = settings.as_object_mut().unwrap();
    table.extend(further.as_object().unwrap().clone());
    let plugin = at(&server, "external", settings, None);
    (server, plugin)
}

/// The refusal that an answer leads to.
fn refusal(further: Json, status: u16, answer: &str) -> Option<Refusal> {
    let (server, plugin) = asker(further);
    server.answers(status, answer.to_owned());
    Call::post(BODY).pre_request(&plugin).err()
}

#[test]
fn the_server_is_told_of_the_request() {
    let (server, plugin) = asker(json!({
        "method": "put", "headers": {"Authorization": "Bearer s3cret"}, "timeout": "300ms",
        "max_answer": "1KiB", "send": {"headers": ["X-Team", "X-Absent", "X-Bytes"]},
    }));
    assert!(plugin.needs().request_body);
    server.answers(200, "");
    let mut call = Call::post(BODY)
        .key("team-a")
        .to("/v1/messages?beta=true")
        .header("x-team", "a")
        .header("x-team", "b")
        .header("x-other", "private");
    call.service = Some("qwen".into());
    assert_eq!(call.pre_request(&plugin), Ok(()));
    assert_eq!(call.sent(), BODY);
    assert!(call.edits.body.is_none());

    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.request.method(), "PUT");
    assert_eq!(asked.request.uri(), URL);
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(asked.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(
        (asked.patience, asked.most),
        (Duration::from_millis(300), 1024)
    );
    let text = std::str::from_utf8(asked.request.body()).unwrap();
    // Byte for byte, also what a parser would lose.
    assert!(text.contains(&format!("\"body\":{BODY}}}}}")), "{text}");
    let text = text.replace(&format!(",\"body\":{BODY}"), "");
    let told: Json = serde_json::from_str(&text).unwrap();
    let expected = json!({"request": {
        "id": "id", "method": "POST", "path": "/v1/messages", "query": "beta=true", "client": "192.0.2.7",
        "gateway": "main", "service": "qwen", "model": null, "principal": "team-a",
        "headers": {"x-team": "a, b"},
    }});
    // The number that no float holds keeps the gateway from reading the model, but not the server from getting the body.
    assert_eq!(told, expected);
}

#[test]
fn what_is_sent_is_json_whatever_the_request_was() {
    let (server, plugin) = asker(json!({}));
    let deep = "[".repeat(500) + &"]".repeat(500);
    for (body, expected) in [
        (&b""[..], Json::Null),
        (b"{\"model\":\"m\"}", json!({"model": "m"})),
        (b"a=1&b=\"", json!("a=1&b=\"")),
        (b"{\"a\":1}}", json!("{\"a\":1}}")),
        (b"\xff\x00", json!("\u{fffd}\0")),
        (deep.as_bytes(), json!(deep)),
    ] {
        server.answers(200, "{}");
        assert_eq!(Call::post(body.to_vec()).pre_request(&plugin), Ok(()));
        let told = server.asked().pop().unwrap().json();
        assert_eq!(told["request"]["body"], expected);
    }
    let (server, plugin) = asker(json!({"send": {"body": false}}));
    assert!(!plugin.needs().request_body);
    server.answers(200, "{}");
    assert_eq!(Call::post(BODY).pre_request(&plugin), Ok(()));
    let told = server.asked().pop().unwrap().json();
    assert_eq!(told["request"].get("body"), None);
}

#[test]
fn answers_that_say_nothing_let_the_request_pass() {
    for answer in [
        "",
        "  \n",
        "{}",
        r#"{"refuse":null,"body":null,"headers":null}"#,
        r#"{"refuse":false}"#,
    ] {
        assert_eq!(refusal(json!({}), 200, answer), None, "{answer}");
    }
    assert_eq!(refusal(json!({}), 204, ""), None);
}

#[test]
fn a_server_refuses_within_its_bounds() {
    let told = |answer| {
        // It refuses also where failures pass: no mistake in a refusal makes it a failure.
        let refusal = refusal(json!({"on_failure": "pass"}), 200, answer).unwrap();
        (refusal.status, refusal.code, refusal.told().message)
    };
    for (answer, status, code, message) in [
        (
            r#"{"refuse":{"status":429,"code":"insufficient_quota","message":"spent"}}"#,
            429,
            "insufficient_quota",
            "spent",
        ),
        (
            r#"{"refuse":{"status":401}}"#,
            401,
            "invalid_api_key",
            "the request was refused",
        ),
        (
            r#"{"refuse":{"status":200,"message":"no"}}"#,
            403,
            "permission_denied",
            "no",
        ),
        (
            r#"{"refuse":{"status":500}}"#,
            403,
            "permission_denied",
            "the request was refused",
        ),
        (
            r#"{"refuse":{"status":65936,"code":"their_own"}}"#,
            403,
            "permission_denied",
            "the request was refused",
        ),
        (
            r#"{"refuse":{"status":"404","message":7}}"#,
            403,
            "permission_denied",
            "the request was refused",
        ),
        (
            r#"{"refuse":true}"#,
            403,
            "permission_denied",
            "the request was refused",
        ),
        (
            r#"{"refuse":{"message":"no"},"body":{},"reason":1}"#,
            403,
            "permission_denied",
            "no",
        ),
        (
            r#"{"refuse":null,"refuse":{"message":"no"}}"#,
            403,
            "permission_denied",
            "no",
        ),
    ] {
        assert_eq!(told(answer), (status, code, message.to_owned()), "{answer}");
    }
    let long = json!({"refuse": {"message": "ä".repeat(5000)}}).to_string();
    let (.., message) = told(&long);
    assert_eq!(message, "ä".repeat(1000));
    for status in [400, 401, 404, 429] {
        let refusal = refusal(json!({"on_failure": "pass"}), status, "from inside").unwrap();
        assert_eq!((refusal.status, refusal.code), (403, "permission_denied"));
        assert!(!refusal.message.contains("inside"));
    }
}

#[test]
fn a_server_replaces_the_body_byte_for_byte() {
    let (server, plugin) = asker(json!({}));
    server.answers(
        200,
        r#" {"body" : {"n": 1.50, "m":12345678901234567890123} } "#,
    );
    let mut call = Call::post(BODY);
    assert_eq!(call.pre_request(&plugin), Ok(()));
    assert_eq!(call.sent(), r#"{"n": 1.50, "m":12345678901234567890123}"#);
    // It may not replace what it did not see.
    let blind = json!({"send": {"body": false}});
    assert_eq!(refusal(blind, 200, r#"{"body":{}}"#).unwrap().status, 502);
    let (server, plugin) = asker(json!({}));
    server.answers(200, r#"{"body":{}}"#);
    assert_eq!(Call::get().refused(&plugin), Some(502));
}

#[test]
fn a_server_changes_headers_but_not_the_gateways_own() {
    let (server, plugin) = asker(json!({}));
    server.answers(
        200,
        r#"{"headers":{"set":{"X-Tier":"gold","X-Team":"b"},"remove":["X-Debug","X-Team"]}}"#,
    );
    let mut call = Call::post(BODY)
        .header("x-team", "a")
        .header("x-debug", "1");
    assert_eq!(call.pre_request(&plugin), Ok(()));
    let sent = call.sent_headers();
    assert_eq!(
        (sent["x-tier"].as_bytes(), sent["x-team"].as_bytes()),
        (&b"gold"[..], &b"b"[..])
    );
    assert!(!sent.contains_key("x-debug"));

    for name in [
        "Content-Length",
        "transfer-encoding",
        "Host",
        "CONNECTION",
        "Authorization",
        "x-api-key",
        "Cookie",
    ] {
        for answer in [
            json!({"headers": {"set": {"x-fine": "1", name: "1"}}}),
            json!({"headers": {"remove": ["x-fine", name]}}),
        ] {
            let (server, plugin) = asker(json!({}));
            server.answers(200, answer.to_string());
            let mut call = Call::post(BODY);
            assert_eq!(call.refused(&plugin), Some(502), "{answer}");
            // Not by half either.
            assert!(call.edits.request_headers.is_empty(), "{answer}");
        }
    }
    let (server, plugin) = asker(json!({"credentials": true}));
    server.answers(
        200,
        r#"{"headers":{"set":{"Authorization":"Bearer theirs"}}}"#,
    );
    let mut call = Call::post(BODY);
    assert_eq!(call.pre_request(&plugin), Ok(()));
    assert_eq!(call.sent_headers()["authorization"], "Bearer theirs");
    let host = json!({"credentials": true});
    assert!(refusal(host, 200, r#"{"headers":{"set":{"Host":"x"}}}"#).is_some());
}

#[test]
fn failures_refuse_or_pass_as_the_settings_say() {
    let answers = [
        (500, ""),
        (503, "{}"),
        (302, ""),
        (200, "nonsense"),
        (200, "[]"),
        (200, "{"),
        (200, r#"{"allow":false}"#),
        (200, r#"{"body":{},"body":{}}"#),
        (200, r#"{"body":{"a":1},"headers":[]}"#),
        (200, r#"{"body":{"a":1},"headers":{"set":{"a b":"1"}}}"#),
        (200, r#"{"body":{"a":1},"headers":{"set":{"a":"1\n"}}}"#),
        (200, r#"{"body":{"a":1},"headers":{"add":{}}}"#),
    ];
    for (status, answer) in answers {
        let refused = refusal(json!({}), status, answer).unwrap();
        assert_eq!(
            (refused.status, refused.code),
            (502, "upstream_error"),
            "{answer}"
        );
        assert!(!refused.message.contains("guard.internal"));
        let (server, plugin) = asker(json!({"on_failure": "pass"}));
        server.answers(status, answer);
        let mut call = Call::post(BODY);
        assert_eq!(call.pre_request(&plugin), Ok(()), "{answer}");
        assert_eq!(call.sent(), BODY, "{answer}");
    }
    for error in [
        CallError::Connect,
        CallError::Timeout,
        CallError::TooLarge,
        CallError::Broken,
    ] {
        let (server, plugin) = asker(json!({}));
        server.fails(error);
        assert_eq!(Call::post(BODY).refused(&plugin), Some(502));
        let (server, plugin) = asker(json!({"on_failure": "pass"}));
        server.fails(error);
        assert_eq!(Call::post(BODY).refused(&plugin), None);
    }
}

fn outcome() -> Outcome {
    Outcome {
        status: 200,
        service: Some("qwen".into()),
        model: Some("m".into()),
        tokens: Some(Tokens {
            usage: Usage {
                input: 12,
                cached: 4,
                output: 30,
            },
            estimated: true,
        }),
        duration: Duration::from_millis(1500),
        first_byte: None,
        cost: Some(2_500_000),
    }
}

#[test]
fn at_the_end_the_server_is_told_and_nothing_depends_on_it() {
    let server = Arc::new(Scripted::default());
    let settings = json!({"url": URL, "send": {"headers": ["X-Team"]}});
    let plugin = at(&server, "external", settings, Some(Stage::PostResponse));
    assert!(!plugin.needs().request_body);
    for fails in [false, true] {
        match fails {
            false => server.answers(200, r#"{"refuse":{}}"#),
            true => server.fails(CallError::Timeout),
        }
        let mut call = Call::post(BODY).header("x-team", "a").key("k");
        assert_eq!(call.pre_request(&plugin), Ok(()));
        assert!(
            server.asked().is_empty(),
            "it is told after the end, not before"
        );
        assert_eq!(call.ends(&plugin, outcome()), Ok(()));
        let told = server.asked().pop().unwrap().json();
        let expected = json!({
            "status": 200, "service": "qwen", "model": "m",
            "tokens": {"input": 12, "cached": 4, "output": 30, "estimated": true},
            "duration_ms": 1500.0, "first_byte_ms": null, "cost": 2.5,
        });
        assert_eq!(told["outcome"], expected);
        assert_eq!(told["request"]["id"], "id");
        assert_eq!(told["request"]["headers"], json!({"x-team": "a"}));
        assert_eq!(told["request"].get("body"), None);
    }
    // Before the request it says nothing at the end.
    let (server, plugin) = asker(json!({}));
    server.answers(200, "");
    let mut call = Call::post(BODY);
    assert_eq!(call.pre_request(&plugin), Ok(()));
    assert_eq!(server.asked().len(), 1);
    assert_eq!(call.ends(&plugin, outcome()), Ok(()));
    assert!(server.asked().is_empty());
}

#[test]
fn the_engine_can_ask_how_long_it_waits() {
    let given = json!({"url": URL, "timeout": "20s"});
    let twenty = Some(Duration::from_secs(20));
    assert_eq!(untyped("external", given).patience(), twenty);
    let five = Some(Duration::from_secs(5));
    assert_eq!(
        untyped("external_api", json!({"endpoint": URL})).patience(),
        five
    );
}

#[test]
fn every_mistake_is_told_at_once_and_no_secret_with_it() {
    let mut told = problems(
        "external",
        json!({
            "url": URL, "method": "GET", "timeout": "0s", "on_failure": "ignore",
            "headers": {"Authorization": "hunter2\n", "Content-Length": "1", "a b": "hunter2"},
            "send": {"header": ["x"]},
        }),
    );
    told.extend(problems(
        "external",
        json!({"url": "http://me:hunter2@guard/"}),
    ));
    told.extend(problems("external", json!({"url": "ftp://guard/x"})));
    told.extend(problems("external", json!({})));
    let method = json!({"endpoint": URL, "method": "HEAD"});
    told.extend(problems("external_api", method));
    told.extend(problems(
        "external_api",
        json!({
            "endpoint": "guard:80",
            "query_params": [{"name": "key"}], "field_maps": [{"source": "a..b", "destination": "c"}],
            "conditions": [{"field": "a", "operator": "gt", "value": "x"}, {"field": "a", "operator": ">", "value": 1}],
        }),
    ));
    let text = told.join("\n");
    for part in [
        "url: \"ftp://guard/x\": not a URL of http or https (write it in full",
        "method: the server cannot be asked with GET (supported: POST, PUT, PATCH)",
        "timeout: may not be 0",
        "on_failure: unknown value \"ignore\"",
        "headers.Authorization: not a header value",
        "headers.Content-Length: this header frames the message",
        "headers.a b: not a header name",
        "send.header: unknown field",
        "url: the URL holds a credential (take it out",
        "missing field `url`",
        "endpoint: \"guard:80\": not a URL",
        "method: the server cannot be asked with HEAD",
        "query_params[0]: missing field `value`",
        "field_maps[0].source: \"a..b\": a part of the path is empty",
        "conditions[0].value: only numbers are greater or less",
        "conditions[1].operator: unknown value \">\"",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
    let long = "x".repeat(70_000);
    let long = json!({"endpoint": URL, "query_params": [{"name": "a", "value": long}]});
    let told = problems("external_api", long).concat();
    assert!(
        told.contains("query_params: the address is too long"),
        "{told}"
    );
}
