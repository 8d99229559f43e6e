//! Both legs of every protocol, field by field.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use bytes::Bytes;
use serde_json::{Value, json};
use tollgate_sdk::llm::members::Members;

use super::protocol::{Leg, Names, Request, batch, both, first, second};
use super::ranks;
use crate::model::{Disaggregation, KvProtocol};

/// What a prefill of vLLM keeps and what not, all in one.
const BODY: &str = r#"{"model":"m", "messages":[{"role":"user","content":"Hi"}], "stream":true, "stream_options":{"include_usage":true}, "max_tokens":64, "max_completion_tokens":32, "min_tokens":4, "min_completion_tokens":2, "stop":["x"], "stop_token_ids":[1], "temperature":0.50, "tools":[], "seed":7}"#;

fn settings(protocol: KvProtocol, staged: bool) -> Disaggregation {
    Disaggregation {
        protocol,
        staged: Some(staged),
        min_prefill_tokens: 0,
    }
}

/// Calls `make` with a request of this body.
fn with<T>(body: &str, make: impl FnOnce(&Request<'_>, &Names<'_>) -> T) -> T {
    let pieces = [Bytes::copy_from_slice(body.as_bytes())];
    let members = Members::of(&pieces).unwrap();
    let request = Request {
        pieces: &pieces,
        members: &members,
        batch: batch(&pieces, &members),
    };
    let names = Names {
        request_id: "r-1",
        attempt: 2,
        random: [u64::MAX, 5],
        host: "10.0.0.7",
        port: Some(8998),
        rank: Some((3, "engine-3".into())),
    };
    make(&request, &names)
}

fn text(leg: &Leg) -> String {
    String::from_utf8(leg.pieces.concat()).unwrap()
}

fn tree(leg: &Leg) -> Value {
    serde_json::from_str(&text(leg)).unwrap()
}

/// The body with these fields set, and those of `without` left out.
fn expected(without: &[&str], set: Value) -> Value {
    let mut body: Value = serde_json::from_str(BODY).unwrap();
    let fields = body.as_object_mut().unwrap();
    without.iter().for_each(|name| {
        assert!(fields.remove(*name).is_some());
    });
    fields.extend(set.as_object().unwrap().clone());
    body
}

const CLEANED: [&str; 6] = [
    "stream",
    "stream_options",
    "stop",
    "stop_token_ids",
    "min_tokens",
    "min_completion_tokens",
];

/// A cleaned body with these parameters.
fn prefill(params: Value) -> Value {
    let set = json!({"kv_transfer_params": params, "max_tokens": 1, "max_completion_tokens": 1});
    expected(&CLEANED, set)
}

#[test]
fn nixl_hands_on_what_prefill_answered() {
    let nixl = settings(KvProtocol::VllmNixl, true);
    with(BODY, |request, names| {
        let leg = first(&nixl, request, names);
        let params = json!({
            "do_remote_decode": true, "do_remote_prefill": false, "remote_engine_id": null,
            "remote_block_ids": null, "remote_host": null, "remote_port": null,
        });
        assert_eq!(tree(&leg), prefill(params));
        assert!(text(&leg).contains(r#""temperature":0.50"#) && leg.headers.is_empty());

        let params = r#"{"do_remote_prefill": true, "remote_engine_id":"e", "remote_block_ids":[[1,2]],"remote_host":"h","remote_port":5600,"tp_size":1.0}"#;
        let answer = Bytes::from(format!(
            r#"{{"choices":[], "kv_transfer_params": {params} }}"#
        ));
        let leg = second(&nixl, request, names, &answer).unwrap().unwrap();
        // Byte for byte on both sides.
        let rest = &BODY[1..];
        assert_eq!(
            text(&leg),
            format!(r#"{{"kv_transfer_params":{params},{rest}"#)
        );
    });
}

#[test]
fn what_prefill_answered_is_checked() {
    let nixl = settings(KvProtocol::VllmNixl, true);
    let answered = |params: &str| {
        let answer = Bytes::from(format!(r#"{{"kv_transfer_params":{params}}}"#));
        with(BODY, |request, names| {
            second(&nixl, request, names, &answer)
        })
    };
    for nothing in ["null", "{}"] {
        assert!(answered(nothing).unwrap().is_none(), "{nothing}");
    }
    for wrong in [
        "7",
        "[]",
        r#"{"remote_engine_id":"e"}"#,
        r#"{"remote_engine_id":1,"remote_block_ids":[],"remote_host":"h","remote_port":1}"#,
        r#"{"remote_engine_id":"e","remote_block_ids":null,"remote_host":"h","remote_port":1}"#,
        r#"{"remote_engine_id":"e","remote_block_ids":[],"remote_host":"h","remote_port":1,"do_remote_prefill":false}"#,
        "{",
    ] {
        assert!(answered(wrong).is_err(), "{wrong}");
    }
    let no_params = Bytes::from_static(br#"{"choices":[]}"#);
    let none = with(BODY, |request, names| {
        second(&nixl, request, names, &no_params)
    });
    assert!(none.unwrap().is_none());
    let no_object = Bytes::from_static(b"data: {}");
    assert!(
        with(BODY, |request, names| second(
            &nixl, request, names, &no_object
        ))
        .is_err()
    );
}

#[test]
fn mooncake_in_turn_says_no_more_than_the_two_flags() {
    let mooncake = settings(KvProtocol::VllmMooncake, true);
    with(BODY, |request, names| {
        let leg = first(&mooncake, request, names);
        let flags = json!({"do_remote_decode": true, "do_remote_prefill": false});
        assert_eq!(tree(&leg), prefill(flags));
        assert!(leg.headers.is_empty());
        let params = json!({"transfer_id": "theirs", "x": [1]});
        let answer = Bytes::from(json!({"kv_transfer_params": params}).to_string());
        let leg = second(&mooncake, request, names, &answer).unwrap().unwrap();
        assert_eq!(
            tree(&leg),
            expected(&[], json!({"kv_transfer_params": params}))
        );
    });
}

#[test]
fn mooncake_at_once_meets_by_a_transfer_id() {
    let mooncake = settings(KvProtocol::VllmMooncake, false);
    with(BODY, |request, names| {
        let (first, second) = both(&mooncake, request, names);
        let first = first.unwrap();
        let transfer = "xfer-r-1-2-ffffffffffffffff";
        let params = json!({
            "do_remote_decode": true, "do_remote_prefill": false, "transfer_id": transfer,
        });
        assert_eq!(tree(&first), prefill(params));
        let [(name, value)] = &first.headers[..] else {
            panic!("{:?}", first.headers)
        };
        assert_eq!(
            (name.as_str(), value.as_bytes()),
            ("x-data-parallel-rank", &b"3"[..])
        );
        let params = json!({
            "do_remote_prefill": true, "do_remote_decode": false, "transfer_id": transfer,
            "remote_bootstrap_addr": "http://10.0.0.7:8998", "remote_engine_id": "engine-3",
        });
        assert_eq!(
            tree(&second),
            expected(&[], json!({"kv_transfer_params": params}))
        );
        assert!(second.headers.is_empty() && first.once && second.once);
    });
}

#[test]
fn kvt_says_where_prefill_is_in_turn_and_at_once() {
    with(BODY, |request, names| {
        let leg = first(&settings(KvProtocol::VllmKvt, true), request, names);
        assert_eq!(tree(&leg), prefill(json!({"do_remote_decode": true})));
        let staged = settings(KvProtocol::VllmKvt, true);
        let anything = Bytes::from_static(b"{}");
        let decode = second(&staged, request, names, &anything).unwrap().unwrap();
        let place =
            json!({"remote_host": "10.0.0.7", "remote_port": 8998, "do_remote_prefill": true});
        assert_eq!(
            tree(&decode),
            expected(&[], json!({"kv_transfer_params": place}))
        );
        // KV is found by the request's id: both legs have one of the attempt's own.
        assert_eq!(leg.headers, decode.headers);
        assert_eq!(leg.headers[0].1, "r-1-2-ffffffffffffffff");
        let (none, decode) = both(&settings(KvProtocol::VllmKvt, false), request, names);
        assert!(none.is_none());
        let place = json!({"remote_host": "10.0.0.7", "remote_port": 8998});
        assert_eq!(
            tree(&decode),
            expected(&[], json!({"kv_transfer_params": place}))
        );
    });
}

#[test]
fn sglang_meets_in_a_room_of_63_bits() {
    let sglang = settings(KvProtocol::Sglang, false);
    with(BODY, |request, names| {
        let (first, second) = both(&sglang, request, names);
        assert_eq!(text(&first.unwrap()), text(&second));
        let set = json!({
            "bootstrap_host": "10.0.0.7", "bootstrap_port": 8998, "bootstrap_room": i64::MAX,
        });
        assert_eq!(tree(&second), expected(&[], set));
    });
}

#[test]
fn batches_of_sglang_have_a_room_for_each() {
    let sglang = settings(KvProtocol::Sglang, false);
    for (body, size) in [
        (r#"{"prompt":["a","b"]}"#, Some(2)),
        (r#"{"prompt":["a"]}"#, Some(1)),
        (r#"{"prompt":[[1,2],[3]],"n":2}"#, Some(4)),
        (r#"{"prompt":"a","n":3}"#, Some(3)),
        (r#"{"prompt":[1,2,3]}"#, None),
        (r#"{"prompt":[],"n":1}"#, None),
        (r#"{"messages":[],"n":null}"#, None),
    ] {
        with(body, |request, names| {
            assert_eq!(request.batch, size, "{body}");
            let (_, leg) = both(&sglang, request, names);
            let rooms = &tree(&leg)["bootstrap_room"];
            let Some(size) = size else {
                return assert!(rooms.is_u64(), "{rooms}");
            };
            let mut rooms: Vec<u64> = { rooms.as_array().unwrap().iter() }
                .map(|room| room.as_u64().unwrap())
                .collect();
            rooms.sort_unstable();
            rooms.dedup();
            assert_eq!(rooms.len(), size, "{body}");
            assert!(rooms.iter().all(|room| *room <= i64::MAX as u64));
            assert_eq!(tree(&leg)["bootstrap_host"].as_array().unwrap().len(), size);
            assert_eq!(tree(&leg)["bootstrap_port"].as_array().unwrap().len(), size);
        });
    }
}

/// Without a port of its own the engine takes the one it was started with.
#[test]
fn a_port_that_is_not_known_is_null() {
    let sglang = settings(KvProtocol::Sglang, false);
    with(r#"{"prompt":"a"}"#, |request, names| {
        let names = Names {
            port: None,
            rank: None,
            random: [1, 2],
            ..*names
        };
        let (_, leg) = both(&sglang, request, &names);
        let expected = r#"{"bootstrap_host":"10.0.0.7","bootstrap_port":null,"bootstrap_room":1,"prompt":"a"}"#;
        assert_eq!(text(&leg), expected);
    });
}

#[test]
fn a_bootstrap_server_names_engines_by_rank() {
    let named = ranks(br#"{"0":{"engine_id":"a","x":1},"1":{"engine_id":"b"}}"#);
    assert_eq!(named, Some(vec![(0, "a".into()), (1, "b".into())]));
    for wrong in [
        "",
        "[]",
        "{}",
        r#"{"0":{}}"#,
        r#"{"x":{"engine_id":"a"}}"#,
        r#"{"0":{"engine_id":1}}"#,
    ] {
        assert_eq!(ranks(wrong.as_bytes()), None, "{wrong}");
    }
}
