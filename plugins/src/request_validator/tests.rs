//! Requests that hold to what is asked of them, and those that do not.

use serde_json::json;

use crate::testing::{Call, plugin, problems};

#[test]
fn required_fields_must_be_there() {
    let validator = plugin(
        "request_validator",
        json!({"required": ["messages", "metadata.user"]}),
    );
    let sent = json!({"messages": [], "metadata": {"user": "a"}});
    assert_eq!(Call::post(sent.to_string()).refused(&validator), None);
    for sent in [
        json!({"messages": [], "metadata": {}}),
        json!({"messages": [], "metadata": {"user": null}}),
        json!({"messages": [], "metadata": "user"}),
    ] {
        let refusal = Call::post(sent.to_string())
            .pre_request(&validator)
            .unwrap_err();
        assert_eq!(refusal.status, 400);
        assert_eq!(refusal.param.as_deref(), Some("metadata.user"));
        assert_eq!(refusal.message, "`metadata.user` is missing");
    }
}

#[test]
fn only_allowed_names_stand_at_the_top() {
    let validator = plugin(
        "request_validator",
        json!({"allowed_parameters": ["model"]}),
    );
    let nested = json!({"model": {"anything": 1}}).to_string();
    assert_eq!(Call::post(nested).refused(&validator), None);
    let refusal = Call::post(r#"{"mod\u0065l":"m","tools":[]}"#)
        .pre_request(&validator)
        .unwrap_err();
    assert_eq!(refusal.message, "the parameter \"tools\" is not allowed");
}

#[test]
fn numbers_have_maxima() {
    let validator = plugin(
        "request_validator",
        json!({"max": {"max_tokens": 4096, "temperature": 2, "options.n": 1.5}}),
    );
    for (body, passes) in [
        (
            r#"{"max_tokens":4096,"temperature":2.0,"options":{"n":1.5}}"#,
            true,
        ),
        (r#"{"max_tokens":null}"#, true),
        ("{}", true),
        (r#"{"max_tokens":4097}"#, false),
        (r#"{"max_tokens":1e4}"#, false),
        (r#"{"max_tokens":99999999999999999999999}"#, false),
        (r#"{"max_tokens":"4"}"#, false),
        (r#"{"max_tokens":1,"max_tokens":5000}"#, false),
        (r#"{"options":{"n":2}}"#, false),
    ] {
        assert_eq!(
            Call::post(body).refused(&validator).is_none(),
            passes,
            "{body}"
        );
    }
}

#[test]
fn every_fault_of_a_request_is_told_at_once() {
    let settings = json!({"required": ["model"], "allowed_parameters": ["model", "max_tokens"], "max": {"max_tokens": 1}});
    let validator = plugin("request_validator", settings);
    let refusal = Call::post(r#"{"max_tokens":2,"x":1}"#)
        .pre_request(&validator)
        .unwrap_err();
    assert_eq!(
        refusal.message,
        "`model` is missing; the parameter \"x\" is not allowed; `max_tokens` is above 1"
    );
}

#[test]
fn what_is_no_object_is_refused_and_what_has_no_body_passes() {
    let validator = plugin("request_validator", json!({"required": ["model"]}));
    for body in ["", "[]", "{\"model\":", "\u{0}", "1"] {
        assert_eq!(Call::post(body).refused(&validator), Some(400), "{body}");
    }
    assert_eq!(Call::post(vec![0xFF]).refused(&validator), Some(400));
    assert_eq!(Call::get().refused(&validator), None);
}

#[test]
fn every_mistake_is_told_at_once() {
    let told = problems(
        "request_validator",
        json!({"required": ["a..b", "c.d"], "allowed_parameters": ["a"], "max": {"x": "many"}, "schema": 1}),
    );
    let text = told.join("\n");
    for part in [
        "required[0]: \"a..b\": a part of the path is empty",
        "allowed_parameters: `c` is required but not among the allowed (add \"c\" to it)",
        "max.x: expected a number",
        "schema: expected a JSON Schema, found the number 1",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(
        problems("request_validator", json!({}))
            .concat()
            .contains("nothing is checked")
    );
}
