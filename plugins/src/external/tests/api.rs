//! `external_api`: what TrustGate's settings mean.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tollgate_sdk::plugin::{Built, CallError, Stage};

use super::{BODY, URL, at, outcome};
use crate::testing::{Call, Scripted};

/// A server, and the plugin that asks it, with these settings besides the address.
fn api(further: Json) -> (Arc<Scripted>, Built) {
    let server = Arc::new(Scripted::default());
    let mut settings = json!({"endpoint": URL});
    let table = settings.as_object_mut().unwrap();
    table.extend(further.as_object().unwrap().clone());
    let plugin = at(&server, "external_api", settings, None);
    (server, plugin)
}

#[test]
fn trustgates_settings_send_fields_under_other_names() {
    let (server, plugin) = api(json!({
        "headers": {"X-Key": "k"},
        "query_params": [{"name": "a b", "value": "1&2"}, {"name": "c", "value": ""}],
        "field_maps": [
            {"source": "messages.0.content", "destination": "input.text"},
            {"source": "model", "destination": "input.model"},
            {"source": "absent", "destination": "absent"},
        ],
    }));
    server.answers(201, "not looked at");
    let body = r#"{"model":"m","messages":[{"content":"hello"}]}"#;
    let mut call = Call::post(body);
    assert_eq!(call.pre_request(&plugin), Ok(()));
    assert_eq!(call.sent(), body);
    let asked = server.asked().pop().unwrap();
    let uri = asked.request.uri().to_string();
    assert_eq!(uri, format!("{URL}&a%20b=1%262&c="));
    assert_eq!(asked.header("x-key"), Some("k"));
    assert_eq!(
        asked.json(),
        json!({"input": {"text": "hello", "model": "m"}})
    );

    let (server, plugin) = api(json!({}));
    server.answers(200, "");
    assert_eq!(Call::post(BODY).refused(&plugin), None);
    assert_eq!(
        server.asked().pop().unwrap().request.body(),
        BODY.as_bytes()
    );
    let (server, plugin) =
        api(json!({"method": "GET", "field_maps": [{"source": "a", "destination": "b"}]}));
    server.answers(200, "");
    assert_eq!(Call::post(BODY).refused(&plugin), None);
    assert!(server.asked().pop().unwrap().request.body().is_empty());
}

#[test]
fn trustgates_conditions_on_the_answer_refuse() {
    let fares = |operator: &str, value: Json, answer: &str| {
        let (server, plugin) = api(json!({"conditions": [
            {"field": "never", "operator": "eq", "value": 1, "stop_flow": true},
            {"field": "score", "operator": operator, "value": value, "stop_flow": true, "message": "too high"},
        ]}));
        server.answers(200, answer.to_owned());
        Call::post(BODY).refused(&plugin)
    };
    for (operator, value, answer, expected) in [
        ("gt", json!(0.8), r#"{"score":0.9}"#, Some(422)),
        ("gt", json!(0.8), r#"{"score":0.8}"#, None),
        ("gt", json!(0.8), r#"{"score":"0.9"}"#, None),
        ("gt", json!(0.8), "{}", None),
        ("lt", json!(1), r#"{"score":0.5}"#, Some(422)),
        ("lt", json!(1), r#"{"score":1.0}"#, None),
        ("eq", json!(1), r#"{"score":1.0}"#, Some(422)),
        ("eq", json!("bad"), r#"{"score":"bad"}"#, Some(422)),
        ("eq", json!("bad"), r#"{"score":"Bad"}"#, None),
        ("eq", json!(null), "{}", None),
        ("neq", json!(true), r#"{"score":false}"#, Some(422)),
        ("neq", json!(true), r#"{"score":true}"#, None),
        ("neq", json!(true), "{}", Some(422)),
        // What cannot be read decides nothing.
        ("eq", json!("bad"), "nonsense", Some(502)),
        ("neq", json!(true), "", Some(502)),
    ] {
        assert_eq!(
            fares(operator, value, answer),
            expected,
            "{operator} {answer}"
        );
    }
    let (server, plugin) = api(json!({"conditions": [
        {"field": "a", "operator": "eq", "value": 1},
        {"field": "a", "operator": "eq", "value": 1, "stop_flow": true, "message": "it is 1"},
    ]}));
    server.answers(200, r#"{"a":1}"#);
    let refusal = Call::post(BODY).pre_request(&plugin).unwrap_err();
    assert_eq!(
        (refusal.code, &*refusal.message),
        ("invalid_request", "it is 1")
    );
    for status in [300, 400, 404, 500] {
        let (server, plugin) = api(json!({}));
        server.answers(status, "");
        assert_eq!(Call::post(BODY).refused(&plugin), Some(502));
    }
    let (server, plugin) = api(json!({}));
    server.fails(CallError::Timeout);
    assert_eq!(Call::post(BODY).refused(&plugin), Some(502));
}

#[test]
fn trustgates_call_after_the_end_sends_the_same() {
    let server = Arc::new(Scripted::default());
    let settings = json!({
        "endpoint": URL,
        "field_maps": [{"source": "model", "destination": "model"}],
        "conditions": [{"field": "x", "operator": "neq", "value": 1, "stop_flow": true}],
    });
    let plugin = at(&server, "external_api", settings, Some(Stage::PostResponse));
    let mut call = Call::post(r#"{"model":"m"}"#);
    assert_eq!(call.pre_request(&plugin), Ok(()));
    assert!(server.asked().is_empty());
    server.answers(500, "{}");
    assert_eq!(call.ends(&plugin, outcome()), Ok(()));
    assert_eq!(server.asked().pop().unwrap().json(), json!({"model": "m"}));
}
