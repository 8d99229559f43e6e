//! A card's number in a stream, cut at every place, in every dialect: by events, and by the network's chunks.
//!
//! What a client puts together is compared, field by field, with the masked whole; and what follows a number goes on with the event in
//! which it comes.

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tollgate_sdk::llm::sse::Parser;
use tollgate_sdk::plugin::Built;

use crate::testing::{Call, plugin};

const BEFORE: &str = "Take é\"";
const CARD: &str = "4111-1111 1111 1111";
const AFTER: &str = ", then go. ";
const MASKED: &str = "Take é\"[MASKED_CREDIT_CARD], then go. ";

/// One kind of text in one dialect.
struct Dialect {
    name: &'static str,
    /// Around the pieces.
    first: &'static [&'static str],
    last: &'static [&'static str],
    /// An event that has a piece.
    piece: fn(&str) -> Json,
    /// Where a piece stands in it.
    at: &'static str,
}

const DIALECTS: [Dialect; 10] = [
    Dialect {
        name: "chat",
        first: &[
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
        ],
        last: &[
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
            "[DONE]",
        ],
        piece: |text| json!({"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}),
        at: "/choices/0/delta/content",
    },
    Dialect {
        name: "chat, the end with the last piece",
        first: &[],
        last: &["[DONE]"],
        piece: |text| {
            let end = text.ends_with(". ").then_some("stop");
            json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": end}]})
        },
        at: "/choices/0/delta/content",
    },
    Dialect {
        name: "reasoning_content",
        first: &[],
        last: &[
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
            "[DONE]",
        ],
        piece: |text| json!({"choices": [{"index": 0, "delta": {"reasoning_content": text, "content": null}}]}),
        at: "/choices/0/delta/reasoning_content",
    },
    Dialect {
        name: "tool calls",
        first: &[
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"t","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
        ],
        last: &[
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
            "[DONE]",
        ],
        piece: |text| json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 1, "function": {"arguments": text}}]}}]}),
        at: "/choices/0/delta/tool_calls/0/function/arguments",
    },
    Dialect {
        name: "completions",
        first: &[],
        last: &[
            r#"{"choices":[{"index":0,"text":"","finish_reason":"stop"}]}"#,
            "[DONE]",
        ],
        piece: |text| json!({"choices": [{"text": text, "index": 0, "logprobs": null, "finish_reason": null}]}),
        at: "/choices/0/text",
    },
    Dialect {
        name: "Anthropic",
        first: &[
            r#"{"type":"message_start","message":{"role":"assistant","content":[]}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        ],
        last: &[
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
            r#"{"type":"message_stop"}"#,
        ],
        piece: |text| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
        at: "/delta/text",
    },
    Dialect {
        name: "Anthropic, thinking",
        first: &[],
        last: &[
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"message_stop"}"#,
        ],
        piece: |text| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": text}}),
        at: "/delta/thinking",
    },
    Dialect {
        name: "Anthropic, tools",
        first: &[],
        last: &[
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"message_stop"}"#,
        ],
        piece: |text| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": text}}),
        at: "/delta/partial_json",
    },
    Dialect {
        name: "Responses",
        first: &[r#"{"type":"response.created","response":{"id":"r","output":[]}}"#],
        last: &[
            r#"{"type":"response.output_text.done","item_id":"i","output_index":0,"content_index":0,"text":""}"#,
            r#"{"type":"response.completed","response":{"id":"r","output":[]}}"#,
        ],
        piece: |text| json!({"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0, "delta": text}),
        at: "/delta",
    },
    Dialect {
        name: "Responses, arguments",
        first: &[],
        last: &[
            r#"{"type":"response.function_call_arguments.done","item_id":"i","output_index":0,"arguments":""}"#,
            r#"{"type":"response.completed","response":{"id":"r","output":[]}}"#,
        ],
        piece: |text| json!({"type": "response.function_call_arguments.delta", "item_id": "i", "output_index": 0, "delta": text}),
        at: "/delta",
    },
];

impl Dialect {
    /// An event as it is sent: named, where its data has a type.
    fn event(data: &str) -> String {
        let kind = serde_json::from_str::<Json>(data).ok();
        let kind = kind.and_then(|data| Some(data["type"].as_str()?.to_owned()));
        let name = kind.map_or(String::new(), |kind| format!("event: {kind}\n"));
        format!("{name}data: {data}\n\n")
    }

    fn stream(&self, pieces: &[&str]) -> String {
        let first = self.first.iter().map(|data| Self::event(data));
        let pieces = pieces
            .iter()
            .map(|text| Self::event(&(self.piece)(text).to_string()));
        let last = self.last.iter().map(|data| Self::event(data));
        first.chain(pieces).chain(last).collect()
    }

    /// What a client puts together of the pieces; every event must be as it was but for its text, and the last ones still the last.
    fn read(&self, stream: &str) -> String {
        let mut text = String::new();
        let mut ended = 0;
        let like = (self.piece)("");
        let each = |event: tollgate_sdk::llm::sse::Event<'_>| {
            let data = std::str::from_utf8(event.data).unwrap();
            if self.last.get(ended) == Some(&data) {
                ended += 1;
                return;
            }
            let data: Json = match self.first.contains(&data) {
                true => return,
                false => serde_json::from_str(data).unwrap(),
            };
            assert_eq!(ended, 0, "{}: text after its end: {stream}", self.name);
            assert_eq!(
                event.event,
                data["type"].as_str().unwrap_or_default().as_bytes()
            );
            text.push_str(data.pointer(self.at).unwrap().as_str().unwrap());
            let mut emptied = data;
            *emptied.pointer_mut(self.at).unwrap() = "".into();
            if let Some(end) = emptied.pointer_mut("/choices/0/finish_reason") {
                *end = like
                    .pointer("/choices/0/finish_reason")
                    .cloned()
                    .unwrap_or_default();
            }
            assert_eq!(emptied, like, "{}", self.name);
        };
        Parser::new().push(stream.as_bytes(), each).unwrap();
        assert_eq!(ended, self.last.len(), "{}: {stream}", self.name);
        text
    }
}

fn masking() -> Built {
    plugin("data_masking", json!({"apply_all": true}))
}

/// What comes out of a stream that comes in these chunks.
fn streamed(masking: &Built, chunks: &[&[u8]]) -> String {
    let mut call = Call::post("{}");
    call.pre_response(masking, &[], true).unwrap();
    let mut out = Vec::new();
    for chunk in chunks {
        let chunk = Bytes::copy_from_slice(chunk);
        out.extend_from_slice(&call.chunk(masking, chunk, false).unwrap());
    }
    out.extend_from_slice(&call.chunk(masking, "", true).unwrap());
    String::from_utf8(out).unwrap()
}

fn text() -> String {
    format!("{BEFORE}{CARD}{AFTER}")
}

#[test]
fn a_card_cut_by_events_is_masked() {
    let masking = masking();
    let text = text();
    let places: Vec<_> = text.char_indices().map(|(at, _)| at).skip(1).collect();
    for dialect in &DIALECTS {
        for cut in &places {
            let (a, b) = text.split_at(*cut);
            for pieces in [vec![a, b], vec![a, "", b]] {
                let out = streamed(&masking, &[dialect.stream(&pieces).as_bytes()]);
                assert_eq!(dialect.read(&out), MASKED, "{}, {pieces:?}", dialect.name);
            }
        }
        let letters: Vec<_> = text.split_inclusive(|_| true).collect();
        let out = streamed(&masking, &[dialect.stream(&letters).as_bytes()]);
        assert_eq!(dialect.read(&out), MASKED, "{}", dialect.name);
    }
}

#[test]
fn a_card_cut_by_the_network_is_masked() {
    let masking = masking();
    let text = text();
    let (a, b) = text.split_at(BEFORE.len() + 9);
    for dialect in &DIALECTS {
        let stream = dialect.stream(&[a, b]);
        let whole = streamed(&masking, &[stream.as_bytes()]);
        assert_eq!(dialect.read(&whole), MASKED, "{}", dialect.name);
        for cut in 0..=stream.len() {
            let (a, b) = stream.as_bytes().split_at(cut);
            assert_eq!(
                streamed(&masking, &[a, b]),
                whole,
                "{}, {cut}",
                dialect.name
            );
        }
    }
}

#[test]
fn what_follows_goes_on_with_its_event() {
    let masking = masking();
    for dialect in &DIALECTS {
        let mut call = Call::post("{}");
        call.pre_response(&masking, &[], true).unwrap();
        let mut came = String::new();
        // Of each piece, what of it and of those before may go on; the rest could still become something.
        for (piece, goes_on) in [
            ("Take this: ", "Take this: "),
            ("41", ""),
            ("11-1111 1111 ", ""),
            ("1111", ""),
            (", then ", "[MASKED_CREDIT_CARD], then "),
            ("41", ""),
            ("st! ", "41st! "),
            ("go. ", "go. "),
        ] {
            let event = Dialect::event(&(dialect.piece)(piece).to_string());
            let out = call.chunk(&masking, event, false).unwrap();
            let mut text = String::new();
            let each = |event: tollgate_sdk::llm::sse::Event<'_>| {
                let data: Json = serde_json::from_slice(event.data).unwrap();
                text.push_str(data.pointer(dialect.at).unwrap().as_str().unwrap());
            };
            Parser::new().push(&out, each).unwrap();
            assert_eq!(text, goes_on, "{}: {piece:?}", dialect.name);
            came.push_str(&text);
        }
        assert_eq!(came, "Take this: [MASKED_CREDIT_CARD], then 41st! go. ");
    }
}

#[test]
fn what_comes_whole_below_a_delta_stays_whole() {
    let masking = masking();
    let quoted = json!({"type": "char_location", "cited_text": "by a@b.org in May", "document_title": "Notes"});
    let event = |citation: Json| {
        let delta = json!({"type": "citations_delta", "citation": citation});
        Dialect::event(
            &json!({"type": "content_block_delta", "index": 0, "delta": delta}).to_string(),
        )
    };
    let out = streamed(&masking, &[event(quoted.clone()).as_bytes()]);
    let mut masked = quoted;
    masked["cited_text"] = "by [MASKED_EMAIL] in May".into();
    assert_eq!(out, event(masked));
}

/// Rules that match more than is held back, or have to look far ahead, do the same to a stream as to the whole.
#[test]
fn rules_without_end_are_bounded() {
    let patterns = ["begin.*end", r"secret-\w+", "a.*b|a", r"é{2,}!?"];
    let rules = patterns.map(|pattern| json!({"type": "regex", "pattern": pattern}));
    let masking = plugin("data_masking", json!({"rules": rules}));
    let whole = |text: &str| {
        let mut call = Call::post(json!({"prompt": text}).to_string());
        call.pre_request(&masking).unwrap();
        let sent: Json = serde_json::from_str(&call.sent()).unwrap();
        sent["prompt"].as_str().unwrap().to_owned()
    };
    let chat = &DIALECTS[0];
    for (text, after) in [
        ("begin x end".to_owned(), "[MASKED]"),
        (format!("begin {} end", "x".repeat(2040)), ""),
        (format!("begin {} end", "x".repeat(2038)), "[MASKED]"),
        (format!("secret-{}", "x".repeat(2041)), "[MASKED]"),
        (format!("secret-{}", "x".repeat(2042)), "[MASKED]x"),
        (format!("{}secret-7", "x ".repeat(5000)), ""),
        (
            format!("{}begin end{}", "é ".repeat(3071), "é".repeat(1200)),
            "",
        ),
    ] {
        let masked = whole(&text);
        assert!(after.is_empty() || masked == after, "{masked}");
        for size in [1, 100, 3000] {
            let letters: Vec<_> = text.chars().collect();
            let pieces: Vec<String> = { letters.chunks(size) }
                .map(|piece| piece.iter().collect())
                .collect();
            let pieces: Vec<_> = pieces.iter().map(String::as_str).collect();
            let out = streamed(&masking, &[chat.stream(&pieces).as_bytes()]);
            assert_eq!(chat.read(&out), masked, "{size}: {text}");
        }
    }
    // Each match is told only by looking for a longer one as far ahead as that may be.
    let long = "a".repeat(20_000);
    assert_eq!(whole(&long).len(), "[MASKED]".len() * long.len());
}
