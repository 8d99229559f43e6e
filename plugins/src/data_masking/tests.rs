//! Requests, answers and streams, cut at every place.

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tollgate_sdk::llm::sse::Parser;
use tollgate_sdk::plugin::Built;

use crate::testing::{Call, plugin, problems};

const CARD: &str = "4111 1111 1111 1111";

fn all() -> Built {
    plugin("data_masking", json!({"apply_all": true}))
}

/// A prompt after masking.
fn masked(masking: &Built, text: &str) -> String {
    let body = json!({"messages": [{"role": "user", "content": text}]});
    let mut call = Call::post(body.to_string());
    call.pre_request(masking).unwrap();
    let sent: Json = serde_json::from_str(&call.sent()).unwrap();
    sent["messages"][0]["content"].as_str().unwrap().to_owned()
}

/// What comes out of a stream that is given in these chunks.
fn streamed(masking: &Built, chunks: &[&[u8]]) -> String {
    let mut call = Call::post("{}");
    let headers = [
        ("content-type", "text/event-stream"),
        ("content-length", "9"),
    ];
    let headers = call.pre_response(masking, &headers, true).unwrap();
    assert!(!headers.contains_key("content-length"));
    let mut out = Vec::new();
    for chunk in chunks {
        let chunk = Bytes::copy_from_slice(chunk);
        out.extend_from_slice(&call.chunk(masking, chunk, false).unwrap());
    }
    out.extend_from_slice(&call.chunk(masking, "", true).unwrap());
    String::from_utf8(out).unwrap()
}

/// The events of a stream, with their names.
fn events(stream: &str) -> Vec<(String, String)> {
    let mut events = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Parser::new()
        .push(stream.as_bytes(), |e| {
            events.push((text(e.event), text(e.data)))
        })
        .unwrap();
    events
}

fn chat(index: usize, content: &str) -> String {
    let choice = json!({"index": index, "delta": {"content": content}, "finish_reason": null});
    format!(
        "data: {}\n\n",
        json!({"id": "chatcmpl-1", "choices": [choice]})
    )
}

fn finish(index: usize) -> String {
    let choice = json!({"index": index, "delta": {}, "finish_reason": "stop"});
    format!(
        "data: {}\n\n",
        json!({"id": "chatcmpl-1", "choices": [choice]})
    )
}

/// What a client puts together for a choice; every event but the last word must be JSON.
fn content(stream: &str, index: usize) -> String {
    let events = events(stream);
    let json = { events.iter() }.filter(|(_, data)| data != "[DONE]");
    let json = json.map(|(_, data)| serde_json::from_str::<Json>(data).unwrap());
    json.flat_map(|event| event["choices"].as_array().unwrap().clone())
        .filter(|choice| choice["index"] == index)
        .filter_map(|choice| Some(choice["delta"]["content"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn entities_are_found_and_what_only_looks_like_one_is_not() {
    let masking = all();
    for (text, after) in [
        ("mail bob.b+x@mail.example.co.uk.", "mail [MASKED_EMAIL]."),
        (
            "pay 4111-1111-1111-1111 now",
            "pay [MASKED_CREDIT_CARD] now",
        ),
        ("4111111111111111", "[MASKED_CREDIT_CARD]"),
        (
            "amex 378282246310005, 12/29",
            "amex [MASKED_CREDIT_CARD], 12/29",
        ),
        ("4111 1111 1111 1111 123", "[MASKED_CREDIT_CARD] 123"),
        ("23 4111 1111 1111 1111", "23 [MASKED_CREDIT_CARD]"),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("x4111111111111111", "x4111111111111111"),
        ("GB82 WEST 1234 5698 7654 32 AND", "[MASKED_IBAN] AND"),
        ("DE89370400440532013000", "[MASKED_IBAN]"),
        ("DE89370400440532013001", "DE89370400440532013001"),
        ("ssn 078-05-1120", "ssn [MASKED_US_SSN]"),
        (
            "000-05-1120 666-05-1120 078-00-1120",
            "000-05-1120 666-05-1120 078-00-1120",
        ),
        (
            "+49 (30) 901820, 212-555-0123",
            "[MASKED_PHONE], [MASKED_PHONE]",
        ),
        ("+1 23", "+1 23"),
        ("at 192.168.1.254!", "at [MASKED_IPV4]!"),
        ("256.1.1.1 1.2.3", "256.1.1.1 1.2.3"),
        ("key sk-abcdefghijklmnopqrstuvwx.", "key [MASKED_API_KEY]."),
        ("AKIAIOSFODNN7EXAMPLE", "[MASKED_AWS_ACCESS_KEY]"),
        (
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
            "[MASKED_JWT]",
        ),
        (
            "nothing at all, 2024-01-01 @ 10:30",
            "nothing at all, 2024-01-01 @ 10:30",
        ),
    ] {
        assert_eq!(masked(&masking, text), after);
    }
}

#[test]
fn own_rules_come_first_and_masks_are_chosen() {
    let masking = plugin(
        "data_masking",
        json!({
            "predefined_entities": [
                {"entity": "email", "mask_with": "<mail>"}, {"entity": "credit_card", "mask_with": "*", "preserve_len": true},
                {"entity": "ipv4", "enabled": false},
            ],
            "rules": [
                {"type": "keyword", "pattern": "Project Ä"}, {"type": "regex", "pattern": "vip@[a-z.]+", "mask_with": "VIP"},
            ],
        }),
    );
    assert_eq!(
        masked(
            &masking,
            "PROJECT ä of vip@x.org and a@x.org, 10.0.0.1, 4111 1111 1111 1111; projects ä, project äs"
        ),
        "[MASKED] of VIP and <mail>, 10.0.0.1, *******************; projects ä, project äs"
    );
}

#[test]
fn of_a_request_only_what_was_found_changes() {
    let masking = all();
    let body = "{\"temperature\": 1.0e0, \"id\":\"4111111111111111\",\n \"user\":\"a\\u0040b.org\",\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"\\\"4111111111111111\\\"\"}]}]}";
    let mut call = Call::post(body);
    call.pre_request(&masking).unwrap();
    assert_eq!(
        call.sent(),
        "{\"temperature\": 1.0e0, \"id\":\"4111111111111111\",\n \"user\":\"[MASKED_EMAIL]\",\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"\\\"[MASKED_CREDIT_CARD]\\\"\"}]}]}"
    );
    let image =
        json!({"url": format!("data:image/png;base64,{}/4111111111111111/", "A".repeat(80))});
    let mut clean = Call::post(json!({"image_url": image, "prompt": "nothing"}).to_string());
    clean.pre_request(&masking).unwrap();
    assert_eq!(clean.edits.body, None);
    let mut broken = Call::post("{\"prompt\": \"a@b.org");
    broken.pre_request(&masking).unwrap();
    assert_eq!(broken.sent(), "{\"prompt\": \"[MASKED_EMAIL]");
}

#[test]
fn whole_answers_are_masked_and_what_cannot_be_read_is_refused() {
    let masking = all();
    let json = ("content-type", "application/json");
    let mut call = Call::post("{}").header("accept-encoding", "gzip");
    call.pre_request(&masking).unwrap();
    assert!(!call.sent_headers().contains_key("accept-encoding"));
    call.pre_response(&masking, &[json], false).unwrap();
    let answer = json!({"choices": [{"message": {"content": CARD}, "logprobs": {"content": [{"token": "4111"}]}}]});
    let answer = call.chunk(&masking, answer.to_string(), true).unwrap();
    let answer: Json = serde_json::from_slice(&answer).unwrap();
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "[MASKED_CREDIT_CARD]"
    );
    assert!(answer["choices"][0]["logprobs"].is_null());

    let mut pieces = Call::post("{}");
    pieces.pre_response(&masking, &[json], false).unwrap();
    assert_eq!(
        pieces.chunk(&masking, "[\"4111 1111 1111", false).unwrap(),
        ""
    );
    assert_eq!(
        pieces.chunk(&masking, " 1111\"]", true).unwrap(),
        "[\"[MASKED_CREDIT_CARD]\"]"
    );

    let refusal = Call::post("{}")
        .pre_response(&masking, &[json, ("content-encoding", "gzip")], false)
        .unwrap_err();
    assert_eq!(refusal.status, 502);
    let mut audio = Call::post("{}");
    audio
        .pre_response(&masking, &[("content-type", "audio/mpeg")], false)
        .unwrap();
    assert_eq!(audio.chunk(&masking, CARD, true).unwrap(), CARD);
}

#[test]
fn a_card_cut_at_every_place_is_masked() {
    let masking = all();
    let text = format!("Take {CARD} or é");
    let cuts: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
    for cut in cuts {
        let (first, second) = text.split_at(cut);
        let stream = [
            chat(0, first),
            chat(0, second),
            finish(0),
            "data: [DONE]\n\n".into(),
        ]
        .concat();
        let out = streamed(&masking, &[stream.as_bytes()]);
        assert!(!out.contains("1111"), "{out}");
        assert_eq!(content(&out, 0), "Take [MASKED_CREDIT_CARD] or é", "{cut}");
        assert!(out.ends_with("data: [DONE]\n\n"), "{out}");
    }
}

/// However a text is cut into events and the stream into chunks, the client reads what masking the whole gives.
#[test]
fn a_stream_comes_out_like_the_whole() {
    let masking = all();
    for text in [
        "Card 4111 1111 1111 1111 123, a@b.co and c@d.example.org. +49 30 901820! GB82 WEST 1234 5698 7654 32 AND",
        "078-05-1120 192.168.1.254.3 sk-abcdefghijklmnopqrstuvwx eyJhbGciOiJI.eyJzdWIiOiIx.dozjgNryP4J3jVmNH",
        "23 4111 1111 1111 1111 4111 1111 1111 1111 5",
        "ünïcödé 🙂 bob@example.com🙂 end",
    ] {
        let whole = masked(&masking, text);
        assert_ne!(whole, text);
        let letters: Vec<_> = text.chars().collect();
        for size in 1..=9 {
            let mut stream: String = letters
                .chunks(size)
                .map(|piece| chat(0, &piece.iter().collect::<String>()))
                .collect();
            stream.push_str(&finish(0));
            for bytes in [1, 7, stream.len()] {
                let chunks: Vec<_> = stream.as_bytes().chunks(bytes).collect();
                let out = streamed(&masking, &chunks);
                assert_eq!(content(&out, 0), whole, "{size} letters, {bytes} bytes");
            }
        }
    }
}

#[test]
fn choices_do_not_mix_and_events_keep_their_order() {
    let masking = all();
    let usage = "data: {\"choices\":[],\"usage\":{\"total_tokens\":5}}\n\n";
    let stream = [
        ": hello\n\n".to_owned(),
        chat(0, "4111 1111 "),
        chat(1, "4111 1111 "),
        chat(0, "and "),
        chat(1, "1111 1111"),
        finish(1),
        finish(0),
        usage.to_owned(),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat();
    let out = streamed(&masking, &[stream.as_bytes()]);
    assert_eq!(content(&out, 0), "4111 1111 and ");
    assert_eq!(content(&out, 1), "[MASKED_CREDIT_CARD]");
    assert!(out.starts_with(": hello\n\n"));
    assert!(
        out.ends_with(&[finish(0), usage.to_owned(), "data: [DONE]\n\n".to_owned()].concat()),
        "{out}"
    );
    let last_text = out.find("MASKED").unwrap();
    assert!(
        last_text < out.find(&finish(1)).unwrap(),
        "text after its end: {out}"
    );
}

#[test]
fn a_clean_text_goes_on_but_for_its_last_word() {
    let masking = all();
    let mut call = Call::post("{}");
    call.pre_response(&masking, &[], true).unwrap();
    let out = call
        .chunk(&masking, chat(0, "Hello there, wor"), false)
        .unwrap();
    assert_eq!(
        content(std::str::from_utf8(&out).unwrap(), 0),
        "Hello there, "
    );
    let out = call.chunk(&masking, chat(0, "ld. "), false).unwrap();
    assert_eq!(content(std::str::from_utf8(&out).unwrap(), 0), "world. ");
    let whole = chat(0, "Done, and! ");
    assert_eq!(call.chunk(&masking, whole.clone(), false).unwrap(), whole);
}

#[test]
fn keywords_do_not_hold_back_other_alphabets() {
    let rules = json!([{"pattern": "проект икс"}, {"pattern": "project x"}]);
    let masking = plugin("data_masking", json!({"rules": rules}));
    let mut call = Call::post("{}");
    call.pre_response(&masking, &[], true).unwrap();
    let whole = chat(0, "你好，世界。");
    assert_eq!(call.chunk(&masking, whole.clone(), false).unwrap(), whole);
    let text = "это Проект ИКС, проект иксы, äproject x und project x";
    let pieces: String = text
        .chars()
        .map(|letter| chat(0, &letter.to_string()))
        .collect();
    let out = streamed(&masking, &[pieces.as_bytes()]);
    assert_eq!(
        content(&out, 0),
        "это [MASKED], проект иксы, äproject x und [MASKED]"
    );
}

#[test]
fn no_more_is_held_than_the_bound() {
    let masking = plugin(
        "data_masking",
        json!({"rules": [{"type": "regex", "pattern": "begin.*end"}]}),
    );
    let mut call = Call::post("{}");
    call.pre_response(&masking, &[], true).unwrap();
    let mut came = String::new();
    for _ in 0..100 {
        let out = call
            .chunk(&masking, chat(0, &"begin ".repeat(16)), false)
            .unwrap();
        came.push_str(&content(std::str::from_utf8(&out).unwrap(), 0));
    }
    assert!(came.len() >= 9600 - super::mask::MAX_HELD, "{}", came.len());
    assert!(came.len() < 9600, "the end may yet become something");
}

#[test]
fn other_dialects_stream_too() {
    let masking = all();
    let delta = |text: &str| {
        let data = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
        format!("event: content_block_delta\ndata: {data}\n\n")
    };
    let stop = "event: content_block_stop\ndata: {\"index\":0,\"type\":\"content_block_stop\"}\n\n";
    let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    let stream = [&delta("see a@b"), ping, &delta(".org"), stop].concat();
    let out = events(&streamed(&masking, &[stream.as_bytes()]));
    let text: String = { out.iter() }
        .filter(|(name, _)| name == "content_block_delta")
        .map(|(_, data)| {
            serde_json::from_str::<Json>(data).unwrap()["delta"]["text"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(text, "see [MASKED_EMAIL]");
    assert_eq!(out.last().unwrap().0, "content_block_stop");

    let delta = |text: &str| {
        let data = json!({"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0, "delta": text});
        format!("data: {data}\n\n")
    };
    let done = format!(
        "data: {}\n\n",
        json!({"type": "response.output_text.done", "text": "a@b.org"})
    );
    let out = streamed(
        &masking,
        &[[delta("a@"), delta("b.org"), done].concat().as_bytes()],
    );
    assert!(!out.contains("b.org"), "{out}");
    assert_eq!(out.matches("[MASKED_EMAIL]").count(), 2, "{out}");

    let arguments = |text: &str| {
        let call = json!({"index": 0, "function": {"arguments": text}});
        format!(
            "data: {}\n\n",
            json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
        )
    };
    let out = streamed(
        &masking,
        &[[arguments("{\"to\":\"a@"), arguments("b.org\"}")]
            .concat()
            .as_bytes()],
    );
    assert!(
        out.contains("[MASKED_EMAIL]") && !out.contains("b.org"),
        "{out}"
    );
}

#[test]
fn odd_streams_are_masked_as_well() {
    let masking = all();
    let crlf = chat(0, "a@b.org ").replace('\n', "\r\n");
    assert_eq!(
        content(&streamed(&masking, &[crlf.as_bytes()]), 0),
        "[MASKED_EMAIL] "
    );
    let cr = chat(0, "a@b.org ").replace('\n', "\r");
    assert_eq!(
        content(&streamed(&masking, &[cr.as_bytes()]), 0),
        "[MASKED_EMAIL] "
    );
    let unfinished = chat(0, "a@b.org");
    assert_eq!(
        content(&streamed(&masking, &[unfinished.trim_end().as_bytes()]), 0),
        "[MASKED_EMAIL]"
    );
    assert_eq!(
        streamed(&masking, &[b"data: mail a@b.org\n\n"]),
        "data: mail [MASKED_EMAIL]\n\n"
    );
    assert_eq!(
        streamed(&masking, &[b"data: {\"x\":\ndata: \"a@b.org\"}\n\n"]),
        "data: {\"x\":\ndata: \"[MASKED_EMAIL]\"}\n\n"
    );
    let mut call = Call::post("{}");
    call.pre_response(&masking, &[], true).unwrap();
    let refusal = call
        .chunk(&masking, vec![b'x'; 2 << 20], false)
        .unwrap_err();
    assert_eq!(refusal.status, 502);
}

#[test]
fn every_mistake_is_told_at_once() {
    let settings = json!({
        "predefined_entities": [{"entity": "emial"}, {"enabled": true}],
        "rules": [{"type": "regex", "pattern": "(x"}, {"pattern": " "}, {"type": "fuzzy", "pattern": "a"}],
        "similarity_threshold": 0.8,
    });
    let text = problems("data_masking", settings).join("\n");
    for part in [
        "predefined_entities[0].entity: \"emial\": not an entity this version knows (did you mean \"email\"?)",
        "predefined_entities[1]: missing field `entity`",
        "rules[0].pattern: \"(x\": not a regular expression: unclosed group",
        "rules[1].pattern: a keyword has at least one letter",
        "rules[2].type: unknown value \"fuzzy\"",
        "similarity_threshold: similarity_threshold is not supported yet",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(
        problems("data_masking", json!({}))
            .concat()
            .contains("nothing is masked")
    );
}
