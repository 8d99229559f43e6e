//! Upstreams that fail after their answer began: no client may take what it got for the whole.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::assert_discreet;
use crate::harness::{
    CHAT, Gateway, H2Behaviour, H2Upstream, Reply, Upstream, chunked, engine, h2c, post, service,
    streamed,
};

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const EVENT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\"}}]}\n\n";

fn idle(target: &str) -> String {
    service("m", "m", target) + "timeouts = { idle = \"400ms\" }\n"
}

/// A stream that broke: the events that came, one that tells the error, and no proper end.
#[track_caller]
fn assert_broken_off(reply: &Reply, came: usize, code: &str) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(!reply.complete, "it looks complete: {}", reply.text());
    let events = reply.events();
    assert_eq!(events.len(), came + 1, "{events:?}");
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], code, "{last}");
    assert!(last["error"]["message"].is_string() && last["error"]["type"].is_string());
    assert!(
        reply.text().ends_with("\n\n"),
        "the last event is not ended"
    );
    assert!(!reply.text().contains("[DONE]"));
    assert_discreet(reply, &[]);
}

#[test]
fn a_stream_that_stalls_ends_with_an_error() {
    let upstream = Upstream::start(|connection| {
        connection.request();
        connection.send(HEAD);
        connection.send_chunk(EVENT);
        connection.wait_closed();
    });
    let gateway = Gateway::start(&idle(&upstream.url()));
    let start = Instant::now();
    let reply = gateway.client().post(CHAT, streamed("m", 5));
    assert_broken_off(&reply, 1, "upstream_timeout");
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(390) && took < Duration::from_millis(1500),
        "{took:?}"
    );
    crate::harness::until("the upstream connection to end", || {
        upstream.closed().first().copied()
    });
    gateway.assert_gauges_zero();
    let labels = [("code", "upstream_timeout")];
    gateway.wait_for("tollgate_rejections_total", &labels, |n| n == 1.0);
    assert_eq!(
        gateway
            .metrics()
            .sum("tollgate_client_disconnects_total", &[]),
        0.0
    );
}

/// As long as something comes in time, a stream may last for ever.
#[test]
fn a_slow_stream_is_not_a_stalled_one() {
    let engine = engine();
    let gateway = Gateway::start(&idle(&engine.url()));
    let fields = "x-sim: itl=250ms, ttft=250ms\r\n";
    let mut client = gateway.client();
    client.send(post(CHAT, fields, streamed("m", 6)));
    client.reply().assert_ok();
    let reply = gateway.h2().post(
        CHAT,
        &[("x-sim", "itl=250ms, ttft=250ms")],
        streamed("m", 6),
        true,
    );
    reply.unwrap().assert_ok();
}

#[test]
fn a_stream_that_is_cut_ends_with_an_error() {
    let endings: [(&str, fn(&mut crate::harness::Connection)); 3] = [
        ("closed", |_| ()),
        ("reset", |connection| connection.reset()),
        ("nonsense", |connection| connection.send("zzz\r\n")),
    ];
    for (what, ending) in endings {
        let upstream = Upstream::start(move |connection| {
            connection.request();
            connection.send(HEAD);
            connection.send_chunk(EVENT);
            connection.send_chunk(EVENT);
            // What is still on its way when a reset comes may be lost on any road.
            connection.pause(Duration::from_millis(100));
            ending(connection);
        });
        let gateway = Gateway::start(&service("m", "m", &upstream.url()));
        let reply = gateway.client().post(CHAT, streamed("m", 5));
        assert!(!reply.complete, "{what}: {}", reply.text());
        assert_broken_off(&reply, 2, "upstream_error");
        gateway.assert_gauges_zero();
    }
}

/// An upstream without framing closes in the middle: only the missing `[DONE]` tells.
#[test]
fn a_stream_without_framing_that_is_cut_ends_with_an_error() {
    let upstream = Upstream::start(|connection| {
        connection.request();
        connection.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
        connection.send(EVENT);
        connection.send(EVENT);
        // Once the client has seen something, 502 is no longer an answer.
        connection.pause(Duration::from_millis(100));
    });
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    let reply = gateway.client().post(CHAT, streamed("m", 5));
    assert_broken_off(&reply, 2, "upstream_error");
    let whole = Upstream::closing(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{EVENT}data: [DONE]\n\n"
    ));
    let gateway = Gateway::start(&service("m", "m", &whole.url()));
    let reply = gateway.client().post(CHAT, streamed("m", 5));
    reply.assert_ok();
    assert_eq!(reply.text(), format!("{EVENT}data: [DONE]\n\n"));
}

/// The last event is not glued to half of another.
#[test]
fn a_break_inside_an_event_ends_that_event() {
    let half = "data: {\"choices\":[{\"index\":0,\"de";
    let upstream = Upstream::start(move |connection| {
        connection.request();
        connection.send(HEAD);
        connection.send_chunk(EVENT);
        connection.send_chunk(half);
        connection.pause(Duration::from_millis(50));
    });
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    let reply = gateway.client().post(CHAT, streamed("m", 5));
    assert!(!reply.complete);
    let text = reply.text();
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    let data = last
        .strip_prefix("data: ")
        .unwrap_or_else(|| panic!("{text}"));
    let value: Value = serde_json::from_str(data).unwrap();
    assert_eq!(value["error"]["code"], "upstream_error", "{text}");
    assert!(text.starts_with(EVENT), "{text}");
}

#[test]
fn over_http2_a_broken_stream_is_reset_after_the_error() {
    let cases = [
        (H2Behaviour::StallMidway, "upstream_timeout"),
        (H2Behaviour::ResetMidway, "upstream_error"),
    ];
    for (behaviour, code) in cases {
        let upstream = H2Upstream::start(behaviour);
        let gateway = Gateway::start(&idle(&upstream.url()));
        let client = gateway.h2();
        let fields = [("content-type", "application/json")];
        let mut stream = client.open("POST", CHAT, &fields, false);
        stream.send(streamed("m", 5), true).unwrap();
        let mut reply = stream.head().unwrap();
        let ended = stream.body(&mut reply);
        assert!(
            ended.is_err(),
            "{behaviour:?}: a clean end: {}",
            reply.text()
        );
        assert_broken_off(&reply, 1, code);
        gateway.assert_gauges_zero();
        // The same from an HTTP/1.1 client.
        let reply = gateway.client().post(CHAT, streamed("m", 5));
        assert_broken_off(&reply, 1, code);
    }
}

/// A long chunked body takes the other road inside.
#[test]
fn on_the_other_road_a_break_shows_too() {
    let engine = engine();
    let toml = idle(&engine.url()) + &service("h2", "h2", &h2c(&engine));
    let gateway = Gateway::start(&toml);
    let padding = "x".repeat(100_000);
    for (model, fault, code) in [
        ("m", "stall-after=3", "upstream_timeout"),
        ("m", "close-after=3", "upstream_error"),
        ("m", "garbage-after=3", "upstream_error"),
        ("h2", "close-after=3", "upstream_error"),
    ] {
        let body = format!(
            r#"{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"{padding}"}}]}}"#
        );
        let fields = format!("x-sim: {fault}, itl=20ms\r\n");
        let mut client = gateway.client();
        client.send(chunked(CHAT, &fields, body.as_bytes(), 10_000));
        let reply = client.reply();
        // One event opens a chat, then three tokens. A reset of HTTP/2 may overtake the last of them.
        let came = reply.events().len() - 1;
        assert!(came == 4 || (model == "h2" && came == 3), "{came}");
        assert_broken_off(&reply, came, code);
    }
    gateway.assert_gauges_zero();
}

/// An answer in one piece has no room for an error; its length, or the lack of a last chunk, tells.
#[test]
fn a_document_that_is_cut_is_not_complete() {
    let engine = engine();
    let toml = service("h1", "h1", &engine.url()) + &service("h2", "h2", &h2c(&engine));
    let gateway = Gateway::start(&toml);
    for model in ["h1", "h2"] {
        let reply = gateway.client().chat(model, "x-sim: close-after=1\r\n");
        assert!(
            !reply.complete || reply.status == 502,
            "{model}: {}",
            reply.text()
        );
        assert!(
            !reply.text().contains("upstream_error") || reply.status == 502,
            "{}",
            reply.text()
        );
        let body = crate::harness::chat(model);
        let client = gateway.h2();
        let mut stream = client.open("POST", CHAT, &[("x-sim", "close-after=1")], false);
        stream.send(body, true).unwrap();
        if let Ok(mut reply) = stream.head() {
            let ended = stream.body(&mut reply);
            assert!(
                ended.is_err() || reply.status == 502,
                "{model}: {}",
                reply.text()
            );
        }
    }
    gateway.assert_gauges_zero();
}

/// An event that is no JSON is the engine's to explain; it passes, and the stream goes on.
#[test]
fn a_malformed_event_passes() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let mut client = gateway.client();
    client.send(post(CHAT, "x-sim: malformed-after=2\r\n", streamed("m", 6)));
    let reply = client.reply();
    reply.assert_ok();
    assert!(reply.text().ends_with("data: [DONE]\n\n"));
    let broken =
        |event: &&String| *event != "[DONE]" && serde_json::from_str::<Value>(event).is_err();
    assert_eq!(
        reply.events().iter().filter(broken).count(),
        1,
        "{}",
        reply.text()
    );
}
