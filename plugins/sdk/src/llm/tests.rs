#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests"
)]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::check::{check_peek, check_sse, cuts, follow};
use super::peek::{Fault, Shape, peek};
use super::splice::{Edits, splice};
use super::usage::{JsonUsage, Usage};

#[path = "../../../../fuzz/checks/kept.rs"]
mod kept;

// --- strategies: JSON as people, and attackers, write it

fn space() -> impl Strategy<Value = &'static str> {
    select(vec!["", "", "", " ", "\n  ", "\t\r"])
}

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[a-zA-Z0-9 .,{}\\[\\]:]{0,20}",
        2 => "\\PC{0,6}",
        2 => select(vec!["\\n", "\\\"", "\\\\", "\\u00e9", "\\ud83d\\ude00", "\\/", "\\\"usage\\\":{", "é", "你好"])
            .prop_map(str::to_owned).prop_filter("", |s| !s.is_empty()),
        1 => select(vec!["\\ud800", "\\x", "\\u12", "\u{1}", "\\udc00", "\\ud83d\\n"]).prop_map(str::to_owned),
    ];
    vec(piece, 0..4).prop_map(|pieces| {
        let clean = |p: String| {
            if p.starts_with('\\') {
                p
            } else {
                p.replace(['"', '\\'], "")
            }
        };
        format!("\"{}\"", pieces.into_iter().map(clean).collect::<String>())
    })
}

fn number() -> impl Strategy<Value = String> {
    let odd = [
        "-0",
        "0",
        "1e3",
        "16.0",
        "1.5E+2",
        "-7",
        "18446744073709551616",
        "1e999",
        "0e999",
        "01",
        "1.",
        "-",
        "1e",
    ];
    prop_oneof![
        any::<u32>().prop_map(|n| n.to_string()),
        any::<f64>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(|f| json!(f).to_string()),
        select(odd.to_vec()).prop_map(str::to_owned),
    ]
}

fn leaf() -> impl Strategy<Value = String> {
    let words = vec!["true", "false", "null", "true", "null", "nul", "NaN", "tru"];
    prop_oneof![3 => text(), 2 => number(), 2 => select(words).prop_map(str::to_owned)]
}

fn joined(items: Vec<String>, [open, close]: [char; 2], space: &str) -> String {
    format!(
        "{open}{space}{}{space}{close}",
        items.join(&format!("{space},{space}"))
    )
}

fn any_json() -> impl Strategy<Value = String> {
    leaf().prop_recursive(4, 24, 5, |inner| {
        let member =
            (text(), inner.clone(), space()).prop_map(|(k, v, s)| format!("{k}{s}:{s}{v}"));
        prop_oneof![
            (vec(inner, 0..5), space()).prop_map(|(items, s)| joined(items, ['[', ']'], s)),
            (vec(member, 0..5), space()).prop_map(|(items, s)| joined(items, ['{', '}'], s)),
        ]
    })
}

fn known() -> impl Strategy<Value = String> {
    let usage = select(vec!["true", "false", "null", "1"]);
    let rest = select(vec![
        "",
        "",
        ",\"x\":[1]",
        ",\"include_usage\":true",
        ",\"x\":\"\\ud800\"",
    ]);
    let options = (usage, rest, space())
        .prop_map(|(u, r, s)| format!("{{{s}\"include_usage\"{s}:{s}{u}{r}}}"));
    prop_oneof![
        4 => text().prop_map(|t| format!("\"model\":{t}")),
        1 => text().prop_map(|t| format!("\"mod\\u0065l\" : {t}")),
        2 => select(vec!["true", "false", "null"]).prop_map(|b| format!("\"stream\":{b}")),
        1 => number().prop_map(|n| format!("\"max_tokens\": {n}")),
        1 => number().prop_map(|n| format!("\"max_completion_tokens\":{n}")),
        1 => number().prop_map(|n| format!("\"max_output_tokens\":{n}\n")),
        2 => options.prop_map(|o| format!("\"stream_options\":{o}")),
        1 => select(vec!["{}", "null", "{ }", "[]"]).prop_map(|o| format!("\"stream_options\":{o}")),
        1 => text().prop_map(|t| format!("\"user\":{t}")),
        1 => select(vec!["Model", "STREAM", "u\u{17F}er", "max_to\u{212A}ens", "mod\\u0065l"])
            .prop_map(|k| format!("\"{k}\":null")),
        1 => any_json().prop_map(|v| format!("\"model\":{v}")),
        1 => Just(r#""usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}"#.to_owned()),
        6 => (text(), any_json()).prop_map(|(k, v)| format!("{k}:{v}")),
    ]
}

fn object() -> impl Strategy<Value = String> {
    (vec(known(), 0..7), space())
        .prop_map(|(members, s)| s.to_owned() + &joined(members, ['{', '}'], s) + s)
}

/// Up to three bytes replaced, put in or taken out.
fn mutated(
    input: impl Strategy<Value = String>,
    with: &'static [u8],
) -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), select(with), 0..3);
    (input, vec(edit, 0..4)).prop_map(|(text, edits)| {
        let mut bytes = text.into_bytes();
        for (index, byte, what) in edits {
            let at = index.index(bytes.len() + 1);
            match what {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                _ if at < bytes.len() => drop(bytes.remove(at)),
                _ => {}
            }
        }
        bytes
    })
}

// --- strategies: streams

const FINAL: &str = r#"{"id":"x","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16}}"#;

fn data() -> impl Strategy<Value = String> {
    select(vec![
        r#"{"choices":[{"delta":{"content":"hi"}}]}"#,
        r#"{"choices":[{"delta":{"content":"say \"usage\":{ \"choices\":[]"}}]}"#,
        r#"{"choices":[{"delta":{"content":"usage"}}],"usage":null}"#,
        r#"{"choices":[{"delta":{"content":"b"}}],"usage":{"prompt_tokens":11,"completion_tokens":3}}"#,
        r#"{"choices":[],"prompt_filter_results":[],"usage":null}"#,
        r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"cache_read_input_tokens":4}}}"#,
        r#"{"type": "message_delta","usage":{"output_tokens":6}}"#,
        r#"{"type":"response.completed","response":{"usage":{"input_tokens":3,"output_tokens":4}}}"#,
        r#"{"usage":{"#,
        "[DONE]",
        "",
        FINAL,
        FINAL,
    ])
    .prop_map(str::to_owned)
}

fn event() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => data().prop_map(|d| format!("data: {d}\n\n")),
        1 => data().prop_map(|d| format!("event: message_delta\ndata:{d}\n\n")),
        1 => data().prop_map(|d| format!(": note\ndata: {d}\nid: 7\n\n")),
        1 => data().prop_map(|d| format!("data: {}\n\n", d.replacen(',', ",\ndata: ", 2))),
        2 => select(vec![": ping\n\n", ":\n", "\n", "retry: 5\n\n", "event: message_stop\ndata: {}\n\n"])
            .prop_map(str::to_owned),
    ]
}

fn stream() -> impl Strategy<Value = String> {
    let end = prop_oneof![3 => Just(String::new()), 1 => data().prop_map(|d| format!("data: {d}"))];
    let line = select(vec!["\n", "\n", "\r\n", "\r"]);
    let mark = select(vec!["", "", "", "\u{FEFF}"]);
    (mark, vec(event(), 0..8), end, line).prop_map(|(mark, events, end, line)| {
        mark.to_owned() + &(events.concat() + &end).replace('\n', line)
    })
}

#[test]
fn what_fuzzing_kept() {
    let kept = |target| kept::kept(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."), target);
    kept("peek").iter().for_each(|body| check_peek(body));
    kept("sse").iter().for_each(|stream| check_sse(stream));
    // What serde_json rounds otherwise.
    check_peek(b"{\"max_output_tokens\":8992215272424193.0}");
    // An escape that it misses behind the string.
    check_peek(br#"{"":{"a":"\u2"} } "#);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn peek_agrees_with_serde_json(body in object()) {
        check_peek(body.as_bytes());
    }

    #[test]
    fn peek_agrees_with_serde_json_on_mutations(
        body in mutated(object(), b"\"\\{}[]:, \n0e-.xtu\x00\x1f\xc3\xa9\xed\xa0\x80\xf0\xff"),
    ) {
        check_peek(&body);
    }

    #[test]
    fn peek_takes_any_bytes(body in vec(any::<u8>(), 0..64)) {
        check_peek(&body);
    }

    #[test]
    fn splice_changes_what_it_says(body in object(), alias in prop::option::of("[a-z\"\\\\é]{1,8}"), usage: bool) {
        let Ok(peek) = peek(body.as_bytes()) else { return Ok(()) };
        let edits = Edits::plan(&peek, alias.as_deref(), usage);
        let bytes = Bytes::from(body.clone());
        let edited = splice(&bytes, &edits);
        prop_assert_eq!(edited.len(), edits.edited_len(body.len()));
        for cuts in cuts(body.as_bytes()) {
            let mut pieces = vec![];
            let mut offset = 0;
            for chunk in cuts {
                let chunk = Bytes::copy_from_slice(chunk);
                edits.pieces(&chunk, offset).for_each(|piece| pieces.extend_from_slice(&piece));
                offset += chunk.len();
            }
            prop_assert_eq!(&pieces, &edited);
        }
        if edits.is_empty() {
            prop_assert_eq!(edited.as_ptr(), bytes.as_ptr());
        }
        let Ok(mut wanted) = serde_json::from_str::<Value>(&body) else { return Ok(()) };
        if let Some(alias) = alias {
            wanted["model"] = alias.into();
        }
        prop_assert!(!edits.usage_injected() || usage);
        if usage && peek.stream == Some(true) {
            prop_assert_eq!(edits.usage_injected(), peek.include_usage != Some(true));
            wanted["stream_options"]["include_usage"] = true.into();
        }
        prop_assert_eq!(serde_json::from_slice::<Value>(&edited).unwrap(), wanted);
    }

    #[test]
    fn streams_do_not_depend_on_chunks(stream in mutated(stream(), b"\r\n:d \xef{\"")) {
        check_sse(&stream);
    }

    #[test]
    fn only_the_usage_event_is_stripped(stream in stream()) {
        let events = units(&stream);
        let wanted: String = events.iter().copied().filter(|event| !is_final(event)).collect();
        prop_assert_eq!(String::from_utf8(follow(&[stream.as_bytes()], true).out).unwrap(), wanted);
    }
}

/// A stream's events with their line ends, comments apart; split by looking, not by state.
fn units(stream: &str) -> Vec<&str> {
    let mut lines = vec![];
    let mut rest = stream;
    while let Some(at) = rest.find(['\r', '\n']) {
        let end = if rest[at..].starts_with("\r\n") {
            at + 2
        } else {
            at + 1
        };
        lines.push(end);
        rest = &rest[end..];
    }
    lines.push(rest.len());
    let (mut units, mut start, mut at) = (vec![], 0, 0);
    for len in lines {
        let line = &stream[at..at + len];
        at += len;
        if line.trim_matches(['\r', '\n']).is_empty() || stream[start..].starts_with(':') {
            units.push(&stream[start..at]);
            start = at;
        }
    }
    units.push(&stream[start..]);
    units
}

fn is_final(event: &str) -> bool {
    let lines = event
        .split(['\r', '\n'])
        .filter_map(|l| l.trim_start_matches('\u{FEFF}').strip_prefix("data:"));
    let data: Value =
        serde_json::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap_or_default();
    data["choices"] == json!([]) && data["usage"].is_object()
}

#[test]
fn peek_reads_a_request() {
    let body = br#" {"mod\u0065l" : "Qwen\/Qwen3-8B","stream":true, "max_tokens":256,"user":"u",
        "messages":[{"role":"user","content":"\"model\":\"other\" }"}],"stream_options":{"include_usage":false}}"#;
    let seen = peek(body).unwrap();
    let model = seen.model.clone().unwrap();
    assert_eq!(&*model.value, "Qwen/Qwen3-8B");
    assert_eq!(&body[model.range], br#""Qwen\/Qwen3-8B""#);
    assert_eq!(
        (seen.stream, seen.max_tokens, seen.include_usage),
        (Some(true), Some(256), Some(false))
    );
    assert_eq!(&*seen.user.clone().unwrap().value, "u");
    let Shape::With(range) = seen.stream_options.clone().unwrap().shape else {
        panic!()
    };
    assert_eq!(&body[range], b"false");
    assert_eq!((seen.object_start, seen.empty), (2, false));
}

#[test]
fn peek_refuses_and_says_why() {
    for (body, message) in [
        ("", "not a JSON object at byte 0"),
        ("[]", "not a JSON object at byte 0"),
        ("\u{FEFF}{}", "not a JSON object at byte 0"),
        (
            r#"{"model":"a","x":{"model":1},"mod\u0065l":"b"}"#,
            "duplicate key \"model\" at byte 29",
        ),
        (r#"{"x":1,"x":1}"#, "duplicate key \"x\" at byte 7"),
        (
            r#"{"model":"a","Model":"b"}"#,
            "key \"Model\" could be mistaken for \"model\" at byte 13",
        ),
        (
            r#"{"ſtream":true}"#,
            "key \"ſtream\" could be mistaken for \"stream\" at byte 1",
        ),
        (r#"{"model":3}"#, "\"model\" must be a string at byte 9"),
        (
            r#"{"stream":"yes"}"#,
            "\"stream\" must be true or false at byte 10",
        ),
        (
            r#"{"max_tokens":1.5}"#,
            "\"max_tokens\" must be an integer at byte 14",
        ),
        (
            r#"{"max_tokens":"5"}"#,
            "\"max_tokens\" must be an integer at byte 14",
        ),
        (
            r#"{"stream_options":[]}"#,
            "\"stream_options\" must be an object at byte 18",
        ),
        (
            r#"{"stream_options":{"include_usage":1}}"#,
            "\"stream_options.include_usage\" must be true or false at byte 35",
        ),
        (
            r#"{"stream_options":{"a":1,"a":1}}"#,
            "duplicate key \"a\" at byte 25",
        ),
        (
            r#"{"model":"a"}{"#,
            "unexpected data after the JSON object at byte 13",
        ),
        (r#"{"model":"a""#, "JSON object cut off at byte 12"),
        (
            r#"{"model":"a",}"#,
            "invalid JSON: expected a key at byte 13",
        ),
        (r#"{"a":[1,]}"#, "invalid JSON: expected a value at byte 8"),
        (
            r#"{"a":[1}}"#,
            "invalid JSON: expected `,` or `]` at byte 7",
        ),
        (r#"{"a":NaN}"#, "invalid JSON: expected a value at byte 5"),
        (r#"{"a":01}"#, "invalid JSON: expected `,` or `}` at byte 6"),
        (r#"{"a":1e999}"#, "number out of range at byte 5"),
        (
            "{\"a\":\"\n\"}",
            "invalid JSON: control character in a string at byte 6",
        ),
        (
            r#"{"a":"\ud800"}"#,
            "invalid JSON: lone surrogate in a string at byte 6",
        ),
    ] {
        assert_eq!(
            peek(body.as_bytes()).unwrap_err().to_string(),
            message,
            "{body}"
        );
    }
}

#[test]
fn peek_is_bounded() {
    let keys = |n: usize| {
        (0..n)
            .map(|n| format!("\"k{n}\":{n}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    assert!(peek(format!("{{{}}}", keys(1024)).as_bytes()).is_ok());
    assert_eq!(
        peek(format!("{{{}}}", keys(1025)).as_bytes())
            .unwrap_err()
            .fault,
        Fault::TooManyKeys
    );
    let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
    for (body, ok) in [(nested(126), true), (nested(127), false)] {
        assert_eq!(peek(body.as_bytes()).is_ok(), ok);
        check_peek(body.as_bytes());
    }
    for body in [
        format!("{{\"{}\":1}}", "k".repeat(2000)),
        format!("{{\"model\":\"{}\"}}", "k".repeat(5000)),
        format!("{{\"a\":{}}}", "1".repeat(2000)),
        format!("{{\"stream_options\":{{\"a\":\"{}\"}}}}", "k".repeat(5000)),
    ] {
        assert!(peek(body.as_bytes()).is_err());
        check_peek(body.as_bytes());
    }
}

#[test]
fn long_strings_of_any_script_are_read_whole() {
    for text in [
        "plain ascii ",
        "çà et là ",
        "今天天气",
        "🙂🙃",
        "tab\\tand \\u00e9 ",
    ] {
        for len in [10, 4090, 9000] {
            let text: String = text.chars().cycle().take(len).collect();
            let text = text.trim_end_matches(['\\', 'u', '0', 'e']);
            for body in [
                format!(r#"{{"prompt":"{text}"}}"#),
                format!(r#"{{"prompt":["{text}"]}}"#),
            ] {
                assert!(peek(body.as_bytes()).is_ok(), "{text}");
                check_peek(body.as_bytes());
                let mut broken = body.into_bytes();
                broken[4100.min(len)] = 0xFF;
                check_peek(&broken);
            }
        }
    }
}

#[test]
fn splice_writes_the_cases() {
    for (body, wanted) in [
        (
            r#"{"model":"a","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"b","stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":null,"model":"a"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"b"}"#,
        ),
        (
            r#"{"stream":true,"stream_options": { },"model":"a"}"#,
            r#"{"stream":true,"stream_options": {"include_usage":true },"model":"b"}"#,
        ),
        (
            r#"{"model":"a","stream":true,"stream_options":{"x":1}}"#,
            r#"{"model":"b","stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
        ),
        (
            r#"{"model":"a","stream":true,"stream_options":{"include_usage":false}}"#,
            r#"{"model":"b","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true}"#,
            r#"{"model":"b","stream_options":{"include_usage":true},"stream":true}"#,
        ),
        (
            r#"{"stream":false,"model":null}"#,
            r#"{"stream":false,"model":"b"}"#,
        ),
        ("{}", r#"{"model":"b"}"#),
    ] {
        let edits = Edits::plan(&peek(body.as_bytes()).unwrap(), Some("b"), true);
        assert_eq!(splice(&Bytes::from(body), &edits), wanted);
        assert_eq!(edits.usage_injected(), body.contains(":true"));
    }
    let body = br#"{"model":"b","stream":true,"stream_options":{"include_usage":true}}"#;
    let edits = Edits::plan(&peek(body).unwrap(), Some("b"), true);
    assert!(edits.is_empty() && !edits.usage_injected());
}

#[test]
fn usage_is_read_in_every_dialect() {
    for (body, input, cached, output) in [
        (
            json!({"choices":[{"usage":{"prompt_tokens":99}}],"usage":{"prompt_tokens":10,"completion_tokens":5,
            "total_tokens":15,"prompt_tokens_details":{"cached_tokens":4}}}),
            10,
            4,
            5,
        ),
        (
            json!({"usage":{"prompt_tokens":8,"total_tokens":8}}),
            8,
            0,
            0,
        ),
        (json!({"usage":{"total_tokens":8}}), 8, 0, 0),
        (
            json!({"usage":{"prompt_tokens":8,"completion_tokens":2,"prompt_tokens_details":null}}),
            8,
            0,
            2,
        ),
        (
            json!({"usage":{"input_tokens":10,"output_tokens":5,"input_tokens_details":{"cached_tokens":4}}}),
            10,
            4,
            5,
        ),
        (
            json!({"usage":{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":100,
            "cache_creation_input_tokens":20}}),
            130,
            100,
            5,
        ),
    ] {
        let mut usage = JsonUsage::new();
        usage.push(body.to_string().as_bytes());
        assert_eq!(
            usage.finish(),
            Some(Usage {
                input,
                cached,
                output
            }),
            "{body}"
        );
    }
    for body in [
        "",
        "[]",
        "{\"usage\":null}",
        "{\"usage\":\"x\"}",
        "{\"usage\":{}}",
        "<html>",
        "{\"usage\":{\"a\":",
        "{\"usage\":{\"a\":1e",
    ] {
        let mut usage = JsonUsage::new();
        usage.push(body.as_bytes());
        assert_eq!(usage.finish(), None, "{body}");
    }
}

#[test]
fn usage_is_found_however_the_answer_is_cut() {
    let body = r#"{"choices":[{"message":{"content":"\"usage\": {\"prompt_tokens\":9}"}}],"usage" : {"prompt_tokens":3,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2},"rate":-1.5e-3,"more":1E+2},"kv":null}"#;
    let want = Some(Usage {
        input: 3,
        cached: 2,
        output: 5,
    });
    for first in 0..body.len() {
        for second in [first, first + 1, first + 9, body.len()] {
            let second = second.min(body.len());
            let mut usage = JsonUsage::new();
            for part in [&body[..first], &body[first..second], &body[second..]] {
                usage.push(part.as_bytes());
            }
            assert_eq!(usage.finish(), want, "cut at {first} and {second}");
        }
    }
}

#[test]
fn what_stands_within_a_usage_is_not_the_answer_s_own() {
    let inner = [
        "{}",
        "null",
        "{\"prompt_tokens\":1}",
        "{\"x\":,}",
        "\"usage\"",
    ];
    for inner in inner {
        let body = format!(r#"{{"usage":{{"prompt_tokens":3,"usage":{inner}}},"model":"m"}}"#);
        check_peek(body.as_bytes());
        let mut usage = JsonUsage::new();
        usage.push(body.as_bytes());
        let input = usage.finish().map(|usage| usage.input);
        // Of what is no JSON nothing is known.
        assert_eq!(input, (!inner.contains(",}")).then_some(3), "{inner}");
    }
}

#[test]
fn a_broken_usage_hides_no_other() {
    // The last byte could be a number's that goes on.
    let body = r#"{"usage":{"prompt_tokens"":1},"usage":{"prompt_tokens":3},"user":""e"#;
    check_peek(body.as_bytes());
    let mut usage = JsonUsage::new();
    usage.push(body.as_bytes());
    assert_eq!(usage.finish().map(|usage| usage.input), Some(3));
}

#[test]
fn a_stripped_stream_passes_at_once() {
    use super::stream::{StreamMode, StreamUsage};
    let mut stream = StreamUsage::new(StreamMode { strip: true });
    let mut push = |text: &'static str| stream.push(Bytes::from_static(text.as_bytes()));
    assert_eq!(push(": ping\n"), ": ping\n");
    assert_eq!(
        push("data: {\"choices\":[{}]}\n\ndata: {\"cho"),
        "data: {\"choices\":[{}]}\n\n"
    );
    assert_eq!(push("ices\":[]"), "");
    assert_eq!(push(",\"usage\":{\"prompt_tokens\":3}}\r\n\r"), "");
    assert_eq!(push("\ndata: [DONE]\n\n"), "data: [DONE]\n\n");
    assert_eq!(stream.finish(), None);
    assert_eq!(
        stream.usage(),
        Some(Usage {
            input: 3,
            cached: 0,
            output: 0
        })
    );
    assert_eq!(
        (stream.content_events(), stream.ended(), stream.saw_done()),
        (1, true, true)
    );
}

/// What only names a role or why the answer ends is no token, and a report in the middle is of that moment.
#[test]
fn a_stream_that_breaks_off_is_counted_by_what_it_said() {
    use super::stream::{StreamMode, StreamUsage};
    const ROLE: &str =
        r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
    const WORD: &str = r#"{"choices":[{"delta":{"content":" a"},"finish_reason":null}]}"#;
    const LAST: &str = r#"{"choices":[{"delta":{"content":" z"},"finish_reason":"length"}]}"#;
    const END: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    const TOOL: &str =
        r#"{"choices":[{"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0}]}}]}"#;
    const TEXT: &str = r#"{"choices":[{"text":" a","finish_reason":null}]}"#;
    const DONE: &str = r#"{"choices":[{"text":"","finish_reason":"stop"}]}"#;
    const SPENT: &str = r#"{"choices":[{"delta":{"content":" b"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    for (events, content, unreported) in [
        (&[ROLE][..], 0, 0),
        (&[ROLE, WORD, WORD], 2, 2),
        (&[ROLE, WORD, LAST], 2, 2),
        (&[ROLE, WORD, END], 1, 1),
        (&[TOOL, WORD], 2, 2),
        (&[TEXT, TEXT, DONE], 2, 2),
        (&[ROLE, WORD, SPENT], 2, 0),
        (&[SPENT, WORD, WORD], 3, 2),
        (&["no JSON"], 1, 1),
    ] {
        let mut stream = StreamUsage::new(StreamMode::default());
        for event in events {
            stream.push(format!("data: {event}\n\n").into());
        }
        let counted = (stream.content_events(), stream.unreported());
        assert_eq!(counted, (content, unreported), "{events:?}");
        assert!(stream.spoke() && !stream.ended());
    }
}

#[test]
fn an_endless_event_is_not_held() {
    let big = format!("data: {}\n\ndata: {FINAL}\n\n", "x".repeat(2 << 20));
    let whole = follow(&[big.as_bytes()], true);
    let cut: Vec<_> = big.as_bytes().chunks(60_000).collect();
    assert_eq!(whole, follow(&cut, true));
    assert_eq!(whole.out.len(), big.find("data: {\"id\"").unwrap());
    let mut stream = super::stream::StreamUsage::new(super::stream::StreamMode { strip: true });
    let given: usize = cut[..20]
        .iter()
        .map(|c| stream.push(Bytes::copy_from_slice(c)).len())
        .sum();
    assert_eq!(given, 20 * 60_000);
    assert!(stream.inside_event());
}

#[test]
fn streams_of_every_dialect_report_usage_and_end() {
    let anthropic = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,\
        \"cache_read_input_tokens\":4,\"output_tokens\":1}}}\n\nevent: content_block_delta\ndata: {\"delta\":{}}\n\n\
        event: message_delta\ndata: {\"usage\":{\"output_tokens\":6}}\n\nevent: message_stop\ndata: {}\n\n";
    let seen = follow(&[anthropic.as_bytes()], false);
    assert_eq!(
        seen.usage,
        Some(Usage {
            input: 13,
            cached: 4,
            output: 6
        })
    );
    assert_eq!(
        (seen.content_events, seen.ended, seen.done),
        (1, true, false)
    );
    let responses = "event: response.output_text.delta\ndata: {\"delta\":\"a\"}\n\nevent: response.completed\n\
        data: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"usage\":{\"input_tokens\":3,\
        \"input_tokens_details\":{\"cached_tokens\":2},\"output_tokens\":4}}}\n\n";
    let seen = follow(&[responses.as_bytes()], false);
    assert_eq!(
        seen.usage,
        Some(Usage {
            input: 3,
            cached: 2,
            output: 4
        })
    );
    assert_eq!((seen.content_events, seen.ended), (1, true));
}

#[test]
fn errors_have_the_shape_of_their_dialect() {
    use super::dialect::{Dialect, error_body, error_event};
    for (path, dialect) in [
        ("/v1/messages", Dialect::Anthropic),
        ("/v1/messages/count_tokens", Dialect::Anthropic),
        ("/claude/v1/messages?beta=true", Dialect::Anthropic),
        ("/v1/messagesx", Dialect::OpenAi),
        ("/v1/chat/completions?x=/v1/messages", Dialect::OpenAi),
    ] {
        assert_eq!(Dialect::of_path(path), dialect, "{path}");
    }
    let body = error_body(
        Dialect::OpenAi,
        "invalid_request_error",
        "invalid_request",
        "say \"model\"",
        Some("model"),
    );
    assert_eq!(
        body,
        r#"{"error":{"message":"say \"model\"","type":"invalid_request_error","param":"model","code":"invalid_request"}}"#
    );
    let event = error_event(
        Dialect::Anthropic,
        "api_error",
        "upstream_error",
        "line\nbreak",
        None,
    );
    assert_eq!(
        event,
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"line\\nbreak\"}}\n\n"
    );
    assert_eq!(
        Dialect::OpenAi.error_type(429, "insufficient_quota"),
        "insufficient_quota"
    );
    assert_eq!(Dialect::Anthropic.error_type(413, ""), "request_too_large");
}
