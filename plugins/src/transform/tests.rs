//! Requests and answers through the plugin.

use serde_json::{Value as Json, json};

use crate::testing::{Call, plugin, problems};

/// The body that is sent instead.
fn sent(settings: Json, body: &str) -> String {
    let transform = plugin("transform", json!({"request": settings}));
    let mut call = Call::post(body.to_owned());
    assert_eq!(call.pre_request(&transform), Ok(()), "{body}");
    call.sent()
}

#[test]
fn what_is_not_meant_stays_byte_for_byte() {
    let body = "{ \"z\": 1.0e+2,\n \"n\":123456789012345678901234567890 , \"a\":\"\\u00e4\\/\", \"drop\":1 }";
    assert_eq!(
        sent(json!({"remove": ["drop"]}), body),
        "{ \"z\": 1.0e+2,\n \"n\":123456789012345678901234567890 , \"a\":\"\\u00e4\\/\" }"
    );
    assert_eq!(sent(json!({"remove": ["absent", "z.z"]}), body), body);
}

#[test]
fn fields_are_set() {
    for (path, value, body, after) in [
        ("a", json!(1), "{}", r#"{"a":1}"#),
        ("a", json!(1), r#"{"b":2 }"#, r#"{"b":2,"a":1 }"#),
        (
            "a",
            json!({"x": []}),
            r#"{"a":"old","b":2}"#,
            r#"{"a":{"x":[]},"b":2}"#,
        ),
        (
            "a.b.c",
            json!(null),
            r#"{"x":1}"#,
            r#"{"x":1,"a":{"b":{"c":null}}}"#,
        ),
        (
            "a.b.c",
            json!("ä\""),
            r#"{"a":{}}"#,
            r#"{"a":{"b":{"c":"ä\""}}}"#,
        ),
        (
            "m.0.r",
            json!(1),
            r#"{"m":[{},{}]}"#,
            r#"{"m":[{"r":1},{}]}"#,
        ),
        (
            "m.*.r",
            json!(1),
            r#"{"m":[{"r":0},{}]}"#,
            r#"{"m":[{"r":1},{"r":1}]}"#,
        ),
        ("m.1", json!(7), r#"{"m":[1,2,3]}"#, r#"{"m":[1,7,3]}"#),
        ("m.9", json!(7), r#"{"m":[1]}"#, r#"{"m":[1]}"#),
        ("a", json!(1), r#"{"a":2,"a":3}"#, r#"{"a":1,"a":1}"#),
    ] {
        assert_eq!(
            sent(json!({"set": {path: value}}), body),
            after,
            "{path} in {body}"
        );
    }
}

#[test]
fn fields_are_removed_with_their_comma() {
    for (path, body, after) in [
        ("a", r#"{"a":1}"#, "{}"),
        ("a", r#"{"a":1, "b":2}"#, r#"{"b":2}"#),
        ("b", r#"{"a":1, "b":2, "c":3}"#, r#"{"a":1, "c":3}"#),
        ("c", r#"{"a":1, "c":3}"#, r#"{"a":1}"#),
        ("a", r#"{"a":1,"a":2,"b":3,"\u0061":4}"#, r#"{"b":3}"#),
        (
            "m.*.r",
            r#"{"m":[{"r":1},{"s":1,"r":2}]}"#,
            r#"{"m":[{},{"s":1}]}"#,
        ),
        ("m.0", r#"{"m":[1,2,3]}"#, r#"{"m":[2,3]}"#),
        ("m.*", r#"{"m":[1,2,3]}"#, r#"{"m":[]}"#),
        ("o.*", r#"{"o":{"a":1,"b":2}}"#, r#"{"o":{}}"#),
    ] {
        assert_eq!(
            sent(json!({"remove": [path]}), body),
            after,
            "{path} in {body}"
        );
    }
}

#[test]
fn fields_are_renamed_where_they_stand() {
    for (path, body, after) in [
        (
            "a",
            r#"{"x":0,"a" : [1],"y":2}"#,
            r#"{"x":0,"n" : [1],"y":2}"#,
        ),
        ("o.a", r#"{"o":{"a":1},"a":2}"#, r#"{"o":{"n":1},"a":2}"#),
        ("a", r#"{"a":1,"n":2}"#, r#"{"a":1,"n":2}"#),
        ("a", r#"{"b":1}"#, r#"{"b":1}"#),
    ] {
        assert_eq!(sent(json!({"rename": {path: "n"}}), body), after, "{body}");
    }
}

#[test]
fn renaming_comes_before_removing_and_setting() {
    let settings = json!({"set": {"b.c": 1, "a": 2}, "remove": ["b.x"], "rename": {"a": "b"}});
    assert_eq!(sent(settings, r#"{"a":{"x":0}}"#), r#"{"b":{"c":1},"a":2}"#);
}

#[test]
fn a_body_the_paths_cannot_fit_is_refused_with_the_path() {
    let transform = plugin("transform", json!({"request": {"set": {"a.b": 1}}}));
    let refusal = Call::post(r#"{"a":"text"}"#)
        .pre_request(&transform)
        .unwrap_err();
    assert_eq!(
        (refusal.status, refusal.param.as_deref()),
        (400, Some("a.b"))
    );
    assert_eq!(Call::post("{\"a\":").refused(&transform), Some(400));
    assert_eq!(Call::post("").refused(&transform), None);
}

#[test]
fn whole_answers_are_changed_and_streams_are_not() {
    let transform = plugin(
        "transform",
        json!({"response": {"remove": ["system_fingerprint"]}}),
    );
    assert!(transform.needs().response_body && !transform.needs().request_body);
    let mut call = Call::post("{}").header("accept-encoding", "gzip");
    call.pre_request(&transform).unwrap();
    assert!(!call.sent_headers().contains_key("accept-encoding"));
    let json = ("content-type", "application/json; charset=utf-8");
    let headers = call
        .pre_response(&transform, &[json, ("content-length", "31")], false)
        .unwrap();
    assert!(!headers.contains_key("content-length"));
    let answer = r#"{"id":1,"system_fingerprint":"x"}"#;
    assert_eq!(call.chunk(&transform, answer, true).unwrap(), r#"{"id":1}"#);

    for (headers, events) in [
        (vec![("content-type", "text/event-stream")], true),
        (vec![("content-type", "text/html")], false),
        (vec![json, ("content-encoding", "gzip")], false),
    ] {
        let mut call = Call::post("{}");
        call.pre_response(&transform, &headers, events).unwrap();
        assert_eq!(call.chunk(&transform, answer, true).unwrap(), answer);
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let told = problems(
        "transform",
        json!({"request": {"remove": ["a..b"], "set": {".": 1}, "add": 1}, "response": {"rename": {"a": 1}}}),
    );
    let text = told.join("\n");
    for part in [
        "request.remove[0]",
        "request.set..",
        "request.add: unknown field",
        "response.rename.a: expected text",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(
        problems("transform", json!({}))
            .concat()
            .contains("nothing is changed")
    );
}
