//! What must hold for any bytes at all: the checks that the fuzz targets and the property tests share.
//!
//! They panic when something does not hold. Compiled for tests and with the feature `fuzz` only.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failed check panics"
)]

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::peek::{Fault, Peek, PeekError, Scanner, peek};
use super::prompt::{BLOCK_BYTES, prompt};
use super::sse::Parser;
use super::stream::{StreamMode, StreamUsage};
use super::usage::{JsonUsage, Usage};

/// Peeking agrees with serde_json, as documented in [`peek`](super::peek), and does not depend on how the
/// body is cut.
pub fn check_peek(body: &[u8]) {
    let seen = peek(body);
    for cuts in cuts(body) {
        let pushed = push_all(&cuts);
        assert_eq!(
            seen.is_ok(),
            pushed.is_ok(),
            "cut differently: {seen:?} and {pushed:?}"
        );
        if let (Ok(seen), Ok(pushed)) = (&seen, &pushed) {
            assert_eq!(seen, pushed);
        }
    }
    let parsed: Result<Value, _> = serde_json::from_slice(body);
    match (&seen, &parsed) {
        (Ok(peek), Ok(value)) => check_values(body, peek, value),
        (Err(error), Ok(value)) => check_refusal(body, error, value),
        (Ok(peek), Err(error)) => {
            assert!(lax(body, error), "laxer than serde_json: {error}");
            check_ranges(body, peek);
        }
        (Err(_), Err(_)) => {}
    }
    check_usage(body);
    check_prompt(body);
}

/// A prompt is no longer than its body, whatever that is, and made of whole blocks.
fn check_prompt(body: &[u8]) {
    let prompt = prompt(body, "m", BLOCK_BYTES.start);
    assert!(prompt.bytes <= body.len(), "{}", prompt.bytes);
    let blocks = prompt.bytes / BLOCK_BYTES.start;
    assert!(prompt.blocks.len() == blocks || blocks > 16_384);
}

/// Events, usage, and what goes on to the client do not depend on how a stream is cut; without stripping,
/// nothing changes.
pub fn check_sse(stream: &[u8]) {
    let events = events(&[stream]);
    let plain = follow(&[stream], false);
    let stripped = follow(&[stream], true);
    assert_eq!(plain.out, stream);
    assert_eq!(plain.usage, stripped.usage);
    for cuts in cuts(stream) {
        assert_eq!(events, self::events(&cuts));
        assert_eq!(plain, follow(&cuts, false));
        assert_eq!(stripped, follow(&cuts, true));
    }
    if let Some(events) = events {
        assert_eq!(events, naive_events(stream));
    }
}

/// Ways to cut the input: byte by byte, in small pieces, and in two at places the input itself decides.
pub(super) fn cuts(input: &[u8]) -> Vec<Vec<&[u8]>> {
    let sizes = [1, 3, 64, 1000]
        .into_iter()
        .filter(|size| input.len() / size <= 4096);
    let mut ways: Vec<Vec<_>> = sizes.map(|size| input.chunks(size).collect()).collect();
    let mut at = input.iter().fold(input.len(), |sum, b| {
        sum.wrapping_mul(31).wrapping_add(usize::from(*b))
    });
    for _ in 0..6 {
        at = at.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        let (head, tail) = input.split_at((at >> 33) % (input.len() + 1));
        ways.push(vec![head, &[], tail]);
    }
    ways
}

fn push_all(chunks: &[&[u8]]) -> Result<Peek, PeekError> {
    let mut scanner = Scanner::new();
    for chunk in chunks {
        scanner.push(chunk)?;
    }
    scanner.finish()
}

fn check_values(body: &[u8], peek: &Peek, value: &Value) {
    let text = |name: &str| value[name].as_str();
    let limit = |name: &str, seen: Option<u64>| match &value[name] {
        Value::Number(n) => n.as_u64().or_else(|| {
            let theirs = n.as_f64().filter(|n| *n >= 0.0)? as u64;
            // The last bit of a float may differ: serde_json rounds more quickly than rightly.
            let rounded = |seen: &u64| seen.abs_diff(theirs) <= theirs >> 52;
            seen.filter(rounded).or(Some(theirs))
        }),
        _ => None,
    };
    assert_eq!(peek.model.as_ref().map(|t| &*t.value), text("model"));
    assert_eq!(peek.user.as_ref().map(|t| &*t.value), text("user"));
    assert_eq!(peek.stream, value["stream"].as_bool());
    let seen = peek.max_tokens;
    assert_eq!(seen, limit("max_tokens", seen));
    let seen = peek.max_completion_tokens;
    assert_eq!(seen, limit("max_completion_tokens", seen));
    let seen = peek.max_output_tokens;
    assert_eq!(seen, limit("max_output_tokens", seen));
    assert_eq!(
        peek.include_usage,
        value["stream_options"]["include_usage"].as_bool()
    );
    assert_eq!(
        peek.stream_options.is_some(),
        value.get("stream_options").is_some()
    );
    assert_eq!(
        peek.model_null.is_some(),
        value.get("model").is_some_and(Value::is_null)
    );
    assert_eq!(peek.empty, value.as_object().unwrap().is_empty());
    let Tree::Map(members) = serde_json::from_slice(body).unwrap() else {
        panic!("not an object, and peeked at");
    };
    assert!(!repeats(&members), "a duplicate key was missed");
    check_ranges(body, peek);
}

fn check_ranges(body: &[u8], peek: &Peek) {
    let at = |range: &std::ops::Range<usize>| {
        serde_json::from_slice::<Value>(&body[range.clone()]).unwrap()
    };
    for text in [&peek.model, &peek.user].into_iter().flatten() {
        assert_eq!(at(&text.range), Value::from(&*text.value));
    }
    peek.model_null
        .iter()
        .for_each(|range| assert_eq!(at(range), Value::Null));
    if let Some(options) = &peek.stream_options {
        assert_eq!(
            at(&options.range)["include_usage"].as_bool(),
            peek.include_usage
        );
    }
    assert_eq!(body[peek.object_start - 1], b'{');
    assert_eq!(body.len(), peek.len);
}

/// What peek refuses although serde_json does not is among what it says it refuses.
fn check_refusal(body: &[u8], error: &PeekError, value: &Value) {
    let tree: Tree = serde_json::from_slice(body).unwrap();
    let wrong = |name: &str| match name.strip_prefix("stream_options.") {
        Some(inner) => &value["stream_options"][inner],
        None => &value[name],
    };
    let repeated = match &tree {
        Tree::Map(members) => {
            let inner = members.iter().filter(|(key, _)| key == "stream_options");
            repeats(members)
                || inner
                    .into_iter()
                    .any(|(_, value)| matches!(value, Tree::Map(m) if repeats(m)))
        }
        Tree::Leaf => false,
    };
    let justified = match (&error.fault, &tree) {
        // Of two values under one key serde_json kept the other, which may have the right type.
        _ if repeated => true,
        (Fault::NotObject, tree) => matches!(tree, Tree::Leaf),
        (Fault::Lookalike(key, field), _) => {
            let folded = key.replace('\u{17F}', "s").replace('\u{212A}', "k");
            **key != **field && folded.eq_ignore_ascii_case(field)
        }
        (Fault::WrongType(name, "an integer"), _) => wrong(name).as_u64().is_none(),
        (Fault::WrongType(name, "true or false"), _) => !wrong(name).is_boolean(),
        (Fault::WrongType(name, "a string"), _) => !wrong(name).is_string(),
        (Fault::WrongType(name, "an object"), _) => !wrong(name).is_object(),
        (Fault::TooLong(_), _) => body.len() > 64,
        (Fault::TooManyKeys | Fault::KeyTooLong | Fault::Number, _) => body.len() > 1024,
        _ => false,
    };
    assert!(justified, "stricter than serde_json: {error}");
}

/// Whether serde_json refuses what peek documents not to look at: the inside of a string, or the size of
/// a number, below the members of the object.
fn lax(body: &[u8], error: &serde_json::Error) -> bool {
    let text = error.to_string();
    let inside = [
        "control character",
        "escape",
        "surrogate",
        "unicode code point",
        "number out of range",
    ];
    let start = body
        .split_inclusive(|b| *b == b'\n')
        .take(error.line() - 1)
        .map(<[u8]>::len)
        .sum::<usize>();
    let at = (start + error.column()).saturating_sub(1).min(body.len());
    // Of an escape it tells the end as it should be, which may lie behind the string.
    let escape = body[..at].iter().rposition(|b| *b == b'\\');
    let at = escape.filter(|_| text.contains("escape")).unwrap_or(at);
    inside.iter().any(|word| text.contains(word)) && depth(&body[..at]) >= 2
}

/// How many containers are open after these bytes.
fn depth(body: &[u8]) -> i32 {
    let (mut depth, mut text, mut escaped) = (0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b'{' | b'[' if !text => depth += 1,
            b'}' | b']' if !text => depth -= 1,
            _ => {}
        }
    }
    depth
}

/// A JSON object with all its members, also those whose key came before.
enum Tree {
    Map(Vec<(String, Tree)>),
    Leaf,
}

fn repeats(members: &[(String, Tree)]) -> bool {
    members
        .iter()
        .enumerate()
        .any(|(n, (key, _))| members[..n].iter().any(|(other, _)| other == key))
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Tree;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut members = vec![];
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Tree::Map(members))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Tree::Leaf)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
                Ok(Tree::Leaf)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
                Ok(Tree::Leaf)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
                Ok(Tree::Leaf)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
                Ok(Tree::Leaf)
            }
            fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
                Ok(Tree::Leaf)
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Leaf)
            }
        }
        from.deserialize_any(Any)
    }
}

/// The usage of a JSON answer does not depend on how it is cut.
fn check_usage(body: &[u8]) {
    let usage = |chunks: &[&[u8]]| {
        let mut usage = JsonUsage::new();
        chunks.iter().for_each(|chunk| usage.push(chunk));
        usage.finish()
    };
    let whole = usage(&[body]);
    cuts(body)
        .iter()
        .for_each(|cuts| assert_eq!(whole, usage(cuts)));
}

type Owned = (Vec<u8>, Vec<u8>, Vec<u8>);

/// The events of a stream, unless one was too long.
fn events(chunks: &[&[u8]]) -> Option<Vec<Owned>> {
    let (mut parser, mut events) = (Parser::with_limit(5000), vec![]);
    for chunk in chunks {
        let each = |e: super::sse::Event<'_>| {
            events.push((e.event.to_vec(), e.data.to_vec(), e.id.to_vec()))
        };
        parser.push(chunk, each).ok()?;
    }
    Some(events)
}

/// The same, by the letter of the standard and without regard to speed.
fn naive_events(stream: &[u8]) -> Vec<Owned> {
    let mut bytes = stream
        .strip_prefix(b"\xEF\xBB\xBF")
        .unwrap_or(stream)
        .iter()
        .copied()
        .peekable();
    let (mut lines, mut line) = (vec![], vec![]);
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' | b'\n' => {
                if byte == b'\r' {
                    bytes.next_if_eq(&b'\n');
                }
                lines.push(std::mem::take(&mut line));
            }
            _ => line.push(byte),
        }
    }
    let (mut events, mut event, mut data, mut id) = (vec![], vec![], None::<Vec<u8>>, vec![]);
    for line in lines {
        if line.is_empty() {
            if let Some(mut data) = data.take() {
                data.pop();
                events.push((event.clone(), data, id.clone()));
            }
            event.clear();
            continue;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"event" => event = value.to_vec(),
            b"data" => data
                .get_or_insert_default()
                .extend(value.iter().chain(b"\n")),
            b"id" if !value.contains(&0) => id = value.to_vec(),
            _ => {}
        }
    }
    events
}

/// What [`StreamUsage`] made of a stream.
#[derive(Debug, PartialEq)]
pub(super) struct Followed {
    pub(super) out: Vec<u8>,
    pub(super) usage: Option<Usage>,
    pub(super) content_events: u64,
    pub(super) done: bool,
    pub(super) ended: bool,
}

pub(super) fn follow(chunks: &[&[u8]], strip: bool) -> Followed {
    let mut stream = StreamUsage::new(StreamMode { strip });
    let mut out = vec![];
    for chunk in chunks {
        let chunk = Bytes::copy_from_slice(chunk);
        let passed = stream.push(chunk.clone());
        assert!(strip || (passed.as_ptr() == chunk.as_ptr() && passed.len() == chunk.len()));
        out.extend_from_slice(&passed);
    }
    out.extend(stream.finish().into_iter().flatten());
    Followed {
        out,
        usage: stream.usage(),
        content_events: stream.content_events(),
        done: stream.saw_done(),
        ended: stream.ended(),
    }
}
