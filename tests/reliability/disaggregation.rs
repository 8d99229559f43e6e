//! A leg that fails: another pair, and at last one target for all of it.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tollgate_bench::engine::{Engine, EngineRole};

use super::{always, answer, assert_fell_back, offer};
use crate::harness::{
    CHAT, Gateway, Upstream, WAYS, Way, assert_nothing_held, both, calls_of, chat, closed_address,
    decode, engine, post, streamed, until,
};

const NIXL: &Way = &WAYS[1];
const SGLANG: &Way = &WAYS[0];

/// Breakers stay out of it.
const CALM: &str = "breaker = \"off\"\n";

fn prefilling(way: &Way) -> Engine {
    way.engine(EngineRole::Prefill, |_| ())
}

fn decoding(way: &Way) -> Engine {
    way.engine(EngineRole::Decode, |_| ())
}

fn undivided(gateway: &Gateway, reason: &str) -> f64 {
    let labels = [("service", "m"), ("reason", reason)];
    gateway.metrics().sum("tollgate_undivided_total", &labels)
}

#[test]
fn another_pair_serves_when_a_prefill_is_dead() {
    for way in WAYS.iter().filter(|way| way.asks_prefill) {
        let (prefill, decoder) = (prefilling(way), decoding(way));
        let targets = [
            way.prefill(closed_address()),
            way.prefill(prefill.address()),
            decode(decoder.address()),
        ];
        let gateway = Gateway::start(&way.service(&targets, CALM, ""));
        let mut most = 0;
        for _ in 0..4 {
            let reply = gateway.client().chat("m", "");
            reply.assert_ok();
            let tries: u32 = reply
                .header("x-tollgate-attempts")
                .unwrap()
                .parse()
                .unwrap();
            most = most.max(tries);
        }
        assert_eq!(most, 2, "{}", way.settings);
        assert_eq!(assert_nothing_held(&prefill).fetched, 4, "{}", way.settings);
        assert_eq!(decoder.state().transfers.duplicates, 0);
        gateway.assert_gauges_zero();
    }
}

#[test]
fn who_decodes_serves_it_whole_when_nobody_prefills() {
    for retry in ["", "retry = \"off\""] {
        for way in WAYS
            .iter()
            .filter(|way| way.asks_prefill && !is_sglang(way))
        {
            let decoder = decoding(way);
            let targets = [way.prefill(closed_address()), decode(decoder.address())];
            let gateway = Gateway::start(&way.service(&targets, CALM, retry));
            gateway.client().chat("m", "").assert_ok();
            let counted = undivided(&gateway, "unavailable") + undivided(&gateway, "failed");
            assert_eq!(counted, 1.0, "{}", way.settings);
            gateway.assert_gauges_zero();
        }
    }
}

fn is_sglang(way: &Way) -> bool {
    way.settings == SGLANG.settings
}

#[test]
fn an_engine_that_only_decodes_rooms_serves_nothing_whole() {
    let decoder = decoding(SGLANG);
    let mut targets = vec![SGLANG.prefill(closed_address()), decode(decoder.address())];
    let gateway = Gateway::start(&SGLANG.service(&targets, CALM, ""));
    let reply = gateway.client().chat("m", "");
    // Ours, or that of the engine which found nothing to decode.
    assert!([500, 502, 503].contains(&reply.status), "{}", reply.text());
    assert!(reply.json()["error"]["message"].is_string());
    gateway.assert_gauges_zero();
    let spare = SGLANG.engine(EngineRole::Both, |_| ());
    targets.push(both(spare.address()));
    let gateway = Gateway::start(&SGLANG.service(&targets, CALM, ""));
    gateway.client().chat("m", "").assert_ok();
    assert_eq!(calls_of(&spare), 1);
}

#[test]
fn a_fallback_comes_after_that() {
    let other = engine();
    let targets = [SGLANG.prefill(closed_address()), decode(closed_address())];
    let toml = SGLANG.service(&targets, CALM, "fallback = [\"other\"]")
        + &offer("other", "", "", &[other.url()]);
    let gateway = Gateway::start(&toml);
    gateway.client().chat("m", "").assert_ok();
    assert_fell_back(&gateway, "m", "other", "connect", 1.0);
}

/// Each attempt is a new pair in a new room.
#[test]
fn ids_are_fresh_when_a_decode_dies() {
    let rooms = Arc::<Mutex<Vec<u64>>>::default();
    let theirs = rooms.clone();
    let prefill = Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            theirs
                .lock()
                .unwrap()
                .push(body["bootstrap_room"].as_u64().unwrap());
            // Its decode never fetches anything, so it never answers.
            connection.wait_closed();
        }
    });
    // A decode that answers, or not, once its prefill runs.
    let decoding = |reply: String| {
        let known = rooms.clone();
        Upstream::start(move |connection| {
            let request = connection.request().unwrap();
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let room = body["bootstrap_room"].as_u64().unwrap();
            until("its prefill", || {
                known.lock().unwrap().contains(&room).then_some(())
            });
            connection.send(&reply);
        })
    };
    let dying = decoding(String::new());
    let last = decoding(answer("200 OK", "connection: close\r\n", "{}"));
    let targets = [
        SGLANG.prefill(prefill.address()),
        decode(dying.address()),
        decode(last.address()),
    ];
    let gateway = Gateway::start(&SGLANG.service(&targets, CALM, ""));
    for _ in 0..2 {
        gateway.client().chat("m", "").assert_ok();
    }
    let mut rooms = rooms.lock().unwrap().clone();
    assert_eq!(rooms.len(), 2 + dying.requests().len());
    assert!(!dying.requests().is_empty());
    rooms.sort_unstable();
    rooms.dedup();
    assert_eq!(rooms.len(), 2 + dying.requests().len(), "a room came twice");
    // Each prefill whose decode failed, or had its answer, was given up.
    until("prefills to be given up", || {
        (prefill.closed().len() == rooms.len()).then_some(())
    });
    gateway.assert_gauges_zero();
}

#[test]
fn a_decode_that_dies_with_its_head_out_is_still_tried_again() {
    let prefill = prefilling(NIXL);
    let headed =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let dying = Upstream::closing(headed);
    let decoder = decoding(NIXL);
    let targets = [
        NIXL.prefill(prefill.address()),
        decode(dying.address()),
        decode(decoder.address()),
    ];
    let gateway = Gateway::start(&NIXL.service(&targets, CALM, ""));
    for _ in 0..2 {
        let mut client = gateway.client();
        client.send(post(CHAT, "", streamed("m", 4)));
        let reply = client.reply();
        reply.assert_ok();
        assert_eq!(reply.events().last().map(String::as_str), Some("[DONE]"));
    }
    let died = dying.requests().len() as u64;
    assert!(died > 0);
    let labels = [("service", "m"), ("reason", "reset")];
    gateway.wait_for("tollgate_retries_total", &labels, |n| n == died as f64);
    // NIXL knows no way to give up: what was computed for the first pair runs out.
    assert_eq!(assert_nothing_held(&prefill).expired, died);
}

#[test]
fn a_decode_that_breaks_off_later_is_told() {
    let (prefill, decoder) = (prefilling(NIXL), decoding(NIXL));
    let targets = [NIXL.prefill(prefill.address()), decode(decoder.address())];
    let gateway = Gateway::start(&NIXL.service(&targets, CALM, ""));
    always(&decoder, "close-after=3");
    let mut client = gateway.client();
    client.send(post(CHAT, "", streamed("m", 9)));
    let reply = client.reply();
    assert_eq!((reply.status, reply.complete), (200, false));
    assert!(
        reply.events().last().unwrap().contains("\"error\""),
        "{}",
        reply.text()
    );
    gateway.assert_gauges_zero();
}

#[test]
fn what_a_prefill_refuses_the_client_hears() {
    for way in [&WAYS[0], &WAYS[1], &WAYS[3]] {
        let (prefill, decoder) = (prefilling(way), decoding(way));
        let targets = [way.prefill(prefill.address()), decode(decoder.address())];
        let gateway = Gateway::start(&way.service(&targets, CALM, ""));
        always(&prefill, "status=400, body=too%20long");
        // At the same time decode fails, since nothing comes.
        always(&decoder, "delay=5s");
        let reply = gateway.client().chat("m", "");
        assert_eq!(
            (reply.status, reply.text()),
            (400, "too long".into()),
            "{}",
            way.settings
        );
        assert_eq!(calls_of(&prefill), 1);
        gateway.assert_gauges_zero();
    }
}

#[test]
fn a_failing_prefill_is_left_alone_by_its_breaker() {
    let (failing, prefill, decoder) = (prefilling(NIXL), prefilling(NIXL), decoding(NIXL));
    always(&failing, "status=500");
    let targets = [
        NIXL.prefill(failing.address()),
        NIXL.prefill(prefill.address()),
        decode(decoder.address()),
    ];
    let breaker = "breaker = { failures = 2, window = \"60s\", open = \"60s\" }\n";
    let gateway = Gateway::start(&NIXL.service(&targets, breaker, "retry = { budget = 1.0 }"));
    for _ in 0..12 {
        gateway.client().chat("m", "").assert_ok();
    }
    assert_eq!((calls_of(&failing), calls_of(&prefill)), (2, 12));
    assert_eq!(calls_of(&decoder), 12);
}

#[test]
fn what_prefill_hands_over_is_looked_at() {
    for (params, reason) in [("null", "nothing"), ("7", "unavailable")] {
        let body = format!("{{\"choices\":[],\"kv_transfer_params\":{params}}}");
        let kind = "content-type: application/json\r\n";
        let prefill = Upstream::replying(answer("200 OK", kind, &body));
        let decoder = decoding(NIXL);
        let targets = [NIXL.prefill(prefill.address()), decode(decoder.address())];
        let gateway = Gateway::start(&NIXL.service(&targets, CALM, ""));
        let mut client = gateway.client();
        client.send(post(CHAT, "", chat("m")));
        client.reply().assert_ok();
        assert_eq!(undivided(&gateway, reason), 1.0, "{params}");
        let blamed = if reason == "nothing" { 0.0 } else { 1.0 };
        let labels = [("service", "m"), ("reason", "protocol")];
        assert_eq!(
            gateway.metrics().sum("tollgate_retries_total", &labels),
            blamed
        );
    }
}
