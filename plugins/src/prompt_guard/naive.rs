//! The guard against a naive one: parse the body as a tree, collect its texts, look for each pattern in each text.
//!
//! Bodies and patterns are made so that they nearly meet: texts of pieces of the patterns, in other cases, cut, repeated, among letters
//! beyond ASCII, and written with all kinds of escapes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use regex::Regex;
use serde_json::{Value as Json, json};

use super::texts::{NO_TEXT, PROMPTS};
use crate::testing::{Call, plugin};

const KEYWORDS: [&str; 14] = [
    "x",
    "ai",
    "art",
    "c++",
    "Kiss",
    "über",
    "straße",
    "日本",
    "istanbul",
    "project x",
    "secret key",
    "secret keys of",
    "arts and crafts",
    "a very long keyword indeed",
];

const REGEX: [&str; 14] = [
    r"(?i)\bkiss\b",
    r"secret-\d+",
    r"secret \w+ of",
    r"ab+c",
    r"[@`]xy",
    r"(?i)[k@]xyz",
    r"(a|b)c\d",
    r"^start",
    r"the end$",
    r"(?i)über\w",
    r"(?i)project (x|y)\b",
    r"(?s)a.b",
    r"(?i)\bstra(ss|ß)e",
    r"\bkey\s+k",
];

fn piece() -> impl Strategy<Value = String> {
    let patterns = KEYWORDS.map(str::to_owned);
    let near = [
        "secret-",
        "secret-7",
        "abbc",
        "`xy",
        "@xy",
        "KXYZ",
        "ac1",
        "start",
        "the end",
        "project y",
        "a\nb",
        "key k",
        "strasse",
        "\u{130}stanbul",
        "\u{212A}is\u{17F}",
        "\u{212A}iss",
    ];
    let letters: Vec<String> = "abckKsS -\n\"\\/é ü\u{212A}\u{17F}\u{130}😀17_+@`\t"
        .chars()
        .map(String::from)
        .collect();
    let fixed = prop_oneof![
        3 => select(patterns.to_vec()),
        3 => select(near.map(str::to_owned).to_vec()),
        4 => select(letters),
    ];
    (fixed, 0..6_u8, 1..12_usize).prop_map(|(text, how, times)| match how {
        0 => text.to_uppercase(),
        1 => text.to_lowercase(),
        2 => text.chars().skip(1).collect(),
        3 => text.repeat(times),
        _ => text,
    })
}

fn text() -> impl Strategy<Value = String> {
    vec(piece(), 0..8).prop_map(|pieces| pieces.concat())
}

/// A request in one of the shapes in which prompts come; some of the texts stand where none is looked at.
fn body() -> impl Strategy<Value = Json> {
    (vec(text(), 3), 0..9_u8).prop_map(|(texts, shape)| {
        let [a, b, c] = texts.try_into().unwrap();
        match shape {
            0 => json!({"model": b, "messages": [{"role": "user", "content": a}, {"role": c, "content": ""}]}),
            1 => json!({"messages": [{"content": [{"type": "text", "text": a}, {"type": b, "text": c}]}]}),
            2 => json!({"messages": [{"tool_calls": [{"id": b, "function": {"name": c, "arguments": a}}]}]}),
            3 => json!({"prompt": [a, b], "user": c}),
            4 => json!({"input": [[a], {"content": [{"nested": [[[b]]], "id": [c]}]}]}),
            5 => json!({"system": [{"text": a}], "messages": [{"content": {"parts": [b]}}], "metadata": {"messages": c}}),
            6 => json!({"instructions": a, "inputs": {"url": b, "data": {"x": c}}}),
            7 => json!([{"prompt": a}, b, [{"other": c}]]),
            _ => json!(a),
        }
    })
}

/// The body as text, some of its letters escaped: which, say the bits of `how`.
fn written(value: &Json, how: &mut impl Iterator<Item = u8>) -> String {
    let list = |items: Vec<String>, open, close| format!("{open}{}{close}", items.join(" ,"));
    match value {
        Json::Array(items) => {
            let items = items.iter().map(|item| written(item, how)).collect();
            list(items, "[ ", "]")
        }
        Json::Object(members) => {
            let members = members.iter().map(|(name, value)| {
                let name = escaped(name, how);
                format!("{name} :{}", written(value, how))
            });
            list(members.collect(), "{", "\n}")
        }
        Json::String(text) => escaped(text, how),
        other => other.to_string(),
    }
}

fn escaped(text: &str, how: &mut impl Iterator<Item = u8>) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match (letter, how.next().unwrap_or(0)) {
            (_, 0) => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            (_, 1) => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04X}"));
                }
            }
            ('/', 2) => out.push_str("\\/"),
            (letter, _) => {
                let quoted = json!(letter.to_string()).to_string();
                out.push_str(&quoted[1..quoted.len() - 1]);
            }
        }
    }
    out + "\""
}

/// The texts below a value; `top` above every name.
fn texts<'a>(value: &'a Json, top: bool, found: &mut Vec<&'a str>) {
    match value {
        Json::String(text) => found.push(text),
        Json::Array(items) => items.iter().for_each(|item| texts(item, top, found)),
        Json::Object(members) => {
            for (name, value) in members {
                let named = value.is_string() && NO_TEXT.contains(&&**name);
                if !named && (!top || PROMPTS.contains(&&**name)) {
                    texts(value, false, found);
                }
            }
        }
        _ => {}
    }
}

fn has_keyword(text: &str, keyword: &str, whole: bool) -> bool {
    let (text, keyword) = (text.to_lowercase(), keyword.to_lowercase());
    let (text, keyword): (Vec<_>, Vec<_>) = (text.chars().collect(), keyword.chars().collect());
    let of_word = |at: usize| {
        text.get(at)
            .is_some_and(|c| c.is_alphanumeric() || *c == '_')
    };
    let joined = |at: usize| at > 0 && of_word(at - 1) && of_word(at);
    (0..text.len()).any(|at| {
        let end = at + keyword.len();
        text.get(at..end) == Some(&keyword) && !(whole && (joined(at) || joined(end)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_guard_finds_what_a_naive_search_finds(
        keywords in subsequence(KEYWORDS.to_vec(), 0..KEYWORDS.len()),
        regex in subsequence(REGEX.to_vec(), 1..4),
        whole in any::<bool>(),
        bodies in vec((body(), vec(0..12_u8, 200)), 12),
    ) {
        let guard = plugin("prompt_guard", json!({"keywords": keywords, "regex": regex, "whole_words": whole}));
        let compiled: Vec<_> = regex.iter().map(|regex| Regex::new(regex).unwrap()).collect();
        for (body, how) in bodies {
            let sent = written(&body, &mut how.iter().copied().cycle());
            let mut found = Vec::new();
            let parsed: Json = serde_json::from_str(&sent).unwrap();
            prop_assert_eq!(&parsed, &body);
            texts(&parsed, true, &mut found);
            let denied = found.iter().any(|text| {
                keywords.iter().any(|keyword| has_keyword(text, keyword, whole))
                    || compiled.iter().any(|regex| regex.is_match(text))
            });
            let refused = Call::post(sent.clone()).refused(&guard).is_some();
            prop_assert_eq!(refused, denied, "{}", sent);
        }
    }
}
