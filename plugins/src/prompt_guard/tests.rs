//! Prompts in all the shapes they come in.

use serde_json::{Value as Json, json};

use crate::testing::{Call, plugin, problems};

fn saying(text: &str) -> Call {
    Call::post(json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string())
}

#[test]
fn keywords_are_found_as_words_in_any_case() {
    let guard = plugin(
        "prompt_guard",
        json!({"keywords": ["project X", "Straße", "art", "arts and crafts", "c++"]}),
    );
    for (text, found) in [
        ("tell me of PROJECT x!", true),
        ("projects x", false),
        ("DIE STRASSE", false),
        ("die STRAßE dort", true),
        ("start", false),
        ("modern art", true),
        ("_art", false),
        ("arts and crafts", true),
        ("ärt äart", false),
        ("C++", true),
        ("xc++", false),
        ("c+++", true),
        ("nothing", false),
    ] {
        assert_eq!(saying(text).refused(&guard).is_some(), found, "{text}");
    }
    let parts = plugin(
        "prompt_guard",
        json!({"keywords": ["art"], "whole_words": false}),
    );
    assert_eq!(saying("start").refused(&parts), Some(403));
}

#[test]
fn patterns_are_found_and_the_refusal_repeats_nothing() {
    let guard = plugin(
        "prompt_moderation",
        json!({"regex": [r"secret-\d+"], "actions": {"type": "block", "message": "not here"}}),
    );
    let refusal = saying("it is secret-42").pre_request(&guard).unwrap_err();
    assert_eq!(
        (refusal.status, refusal.message.as_str()),
        (403, "not here")
    );
    assert_eq!(saying("it is secret-").refused(&guard), None);
    let guard = plugin("prompt_guard", json!({"regex": [r"secret-\d+"]}));
    let refusal = saying("it is secret-42").pre_request(&guard).unwrap_err();
    assert!(!refusal.message.contains("secret"));
}

#[test]
fn every_shape_of_a_prompt_is_read() {
    let guard = plugin("prompt_guard", json!({"keywords": ["forbidden"]}));
    for body in [
        json!({"prompt": "forbidden"}),
        json!({"prompt": ["a", "forbidden"]}),
        json!({"input": [["forbidden"]]}),
        json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": "forbidden"}]}]}),
        json!({"inputs": "forbidden"}),
        json!({"system": [{"type": "text", "text": "forbidden"}], "messages": []}),
        json!({"instructions": "forbidden"}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a forbidden b"}]}]}),
        json!({"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{\"q\":\"forbidden\"}"}}]}]}),
        json!([{"prompt": "forbidden"}]),
    ] {
        assert_eq!(
            Call::post(body.to_string()).refused(&guard),
            Some(403),
            "{body}"
        );
    }
    let escaped = r#"{"messages":[{"content":"f\u006frbid\u0064en"}]}"#;
    assert_eq!(Call::post(escaped).refused(&guard), Some(403));
    for broken in [
        "forbidden",
        r#"{"prompt":"forbidden"#,
        r#"{"x":1,}forbidden"#,
    ] {
        assert_eq!(Call::post(broken).refused(&guard), Some(403), "{broken}");
    }
    for body in [
        json!({"model": "forbidden", "user": "forbidden", "prompt": "a"}),
        json!({"messages": [{"role": "forbidden", "content": [{"type": "forbidden", "image_url": {"url": "forbidden"}}]}]}),
    ] {
        assert_eq!(Call::post(body.to_string()).refused(&guard), None, "{body}");
    }
    assert_eq!(Call::get().refused(&guard), None);
}

#[test]
fn if_anything_is_allowed_a_prompt_must_match_it() {
    let guard = plugin(
        "prompt_guard",
        json!({"allow": {"regex": ["(?i)^about cats"], "keywords": ["dogs"]}, "deny": {"keywords": ["wolves"]}}),
    );
    for (text, status) in [
        ("About cats, please", None),
        ("cats about dogs", None),
        ("birds", Some(403)),
        ("about cats and wolves", Some(403)),
    ] {
        assert_eq!(saying(text).refused(&guard), status, "{text}");
    }
}

#[test]
fn patterns_are_found_among_other_letters() {
    let guard = plugin(
        "prompt_guard",
        json!({"regex": [r"(?i)\bkeys\b", r"secret \d"]}),
    );
    for (text, found) in [
        ("some KEYS here", true),
        // The Kelvin sign and the long s are letters of the same word.
        ("some \u{212A}ey\u{17F} here", true),
        ("a secret 7", true),
        ("é secret 7", true),
        ("a secret", false),
        ("monkeys", false),
    ] {
        assert_eq!(saying(text).refused(&guard).is_some(), found, "{text}");
    }
}

/// What takes a backtracking engine longer than the test may wait.
#[test]
fn no_pattern_is_slow() {
    let guard = plugin("prompt_guard", json!({"regex": ["(a+)+$x", "(a|aa)+b"]}));
    assert_eq!(saying(&"a".repeat(100_000)).refused(&guard), None);
}

#[test]
fn every_mistake_is_told_at_once() {
    let settings: Json = json!({
        "regex": ["(a", "x*", "(?=a)b", r"\w{1000}{1000}"], "keywords": ["ok", " "],
        "deny": {"keywords": [""]}, "actions": {"type": "warn"}, "similarity_threshold": 0.8,
    });
    let text = problems("prompt_guard", settings).join("\n");
    for part in [
        "regex[0]: \"(a\": not a regular expression: unclosed group",
        "regex[1]: \"x*\": it matches the empty text",
        "(patterns cannot look around",
        "it is too large once compiled",
        "keywords[1]: a keyword has at least one letter",
        "deny.keywords[0]: a keyword",
        "actions.type: unknown value \"warn\"",
        "similarity_threshold: similarity_threshold is not supported yet",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(
        problems("prompt_guard", json!({}))
            .concat()
            .contains("nothing is denied or allowed")
    );
}
