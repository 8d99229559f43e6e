//! Limits of the server itself: slow heads, slow bodies, memory.

use std::time::{Duration, Instant};

use crate::harness::{CHAT, Gateway, chat, chunked, engine, engine_with, padded, post, service};

fn gateway(server: &str, target: &str) -> Gateway {
    let raw = format!(
        "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\ntargets = [\"{target}\"]\n"
    );
    Gateway::start(&(format!("[server]\n{server}\n") + &service("m", "m", target) + &raw))
}

#[test]
fn a_slow_head_gets_408() {
    let engine = engine();
    let gateway = gateway("header_timeout = \"400ms\"", &engine.url());
    for beginning in [
        "P",
        "POST /v1/chat/completions HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nhost: test\r\nx: ",
    ] {
        let mut client = gateway.client();
        client.send(beginning);
        let start = Instant::now();
        let reply = client.reply();
        assert_eq!(reply.status, 408, "{beginning:?}");
        assert_eq!(reply.json()["error"]["code"], "request_timeout");
        let took = start.elapsed();
        assert!(
            took > Duration::from_millis(350) && took < Duration::from_secs(2),
            "{took:?}"
        );
        client.assert_closed();
    }
}

/// Bytes that keep coming do not buy time.
#[test]
fn a_dripping_head_gets_408() {
    let engine = engine();
    let gateway = gateway("header_timeout = \"400ms\"", &engine.url());
    let mut client = gateway.client();
    let start = Instant::now();
    let head = b"GET /v1/models HTTP/1.1\r\nhost: test\r\nx-long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n";
    for byte in head.chunks(1) {
        if client.try_send(byte).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        if start.elapsed() > Duration::from_millis(900) {
            break;
        }
    }
    match client.try_reply() {
        Ok(reply) => assert_eq!(reply.status, 408, "{}", reply.text()),
        // What was still being sent may destroy the answer; but not the end.
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock),
    }
}

/// The second request on a connection has the same time as the first.
#[test]
fn a_slow_second_head_gets_408() {
    let engine = engine();
    let gateway = gateway("header_timeout = \"400ms\"", &engine.url());
    let mut client = gateway.client();
    client.chat("m", "").assert_ok();
    client.send("POST /v1");
    assert_eq!(client.reply().status, 408);
    client.assert_closed();
}

#[test]
fn a_stalled_body_gets_408() {
    let engine = engine();
    let gateway = gateway("body_timeout = \"400ms\"", &engine.url());
    let request = post(CHAT, "", padded("m", 50_000));
    let mut client = gateway.client();
    client.send(&request[..30_000]);
    let start = Instant::now();
    client.reply().assert_refused(408, "request_timeout");
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    client.assert_closed();
    let request = chunked(CHAT, "", &padded("m", 50_000), 1_000);
    let mut client = gateway.client();
    client.send(&request[..30_000]);
    client.reply().assert_refused(408, "request_timeout");
    let client = gateway.h2();
    let mut stream = client.open("POST", CHAT, &[("content-type", "application/json")], false);
    stream
        .send(padded("m", 50_000)[..30_000].to_vec(), false)
        .unwrap();
    stream
        .reply()
        .unwrap()
        .assert_refused(408, "request_timeout");
    assert_eq!(engine.state().started, 0);
    gateway.assert_gauges_zero();
}

/// A body that passes unread is held to it as well: the upstream must not be kept waiting for ever.
#[test]
fn a_stalled_streamed_body_ends() {
    let engine = engine();
    let gateway = gateway("body_timeout = \"400ms\"", &engine.url());
    let request = post("/raw/v1/chat/completions", "", padded("m", 50_000));
    let mut client = gateway.client();
    client.send(&request[..30_000]);
    match client.try_reply() {
        Ok(reply) => reply.assert_refused(408, "request_timeout"),
        Err(error) => panic!("no answer: {error}"),
    }
    gateway.assert_gauges_zero();
}

#[test]
fn a_dripping_body_gets_408() {
    let engine = engine();
    let gateway = gateway("body_timeout = \"400ms\"", &engine.url());
    let request = post(CHAT, "", padded("m", 50_000));
    let mut client = gateway.client();
    client.send(&request[..200]);
    let start = Instant::now();
    for byte in request[200..].chunks(1) {
        if client.try_send(byte).is_err() || start.elapsed() > Duration::from_secs(3) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if let Ok(reply) = client.try_reply() {
        assert_eq!(reply.status, 408, "{}", reply.text());
    }
    gateway.assert_gauges_zero();
    assert_eq!(engine.state().started, 0);
    gateway.wait_for(
        "tollgate_rejections_total",
        &[("code", "request_timeout")],
        |n| n == 1.0,
    );
}

/// A body that comes slowly but steadily is no attack: a long prompt over a phone's line.
#[test]
fn a_slow_but_steady_body_is_served() {
    let engine = engine();
    let gateway = gateway("body_timeout = \"600ms\"", &engine.url());
    let request = post(CHAT, "", padded("m", 100_000));
    let mut client = gateway.client();
    for part in request.chunks(5_000) {
        client.send(part);
        std::thread::sleep(Duration::from_millis(60));
    }
    client.reply().assert_ok();
}

#[test]
fn bodies_beyond_the_memory_get_503() {
    let engine = engine_with(|config| config.ttft = Duration::from_millis(1500));
    let gateway = gateway("body_memory = \"300KiB\"", &engine.url());
    let mut first = gateway.client();
    first.send(post(CHAT, "", padded("m", 200_000)));
    let gauge = "tollgate_body_memory_bytes";
    gateway.wait_for(gauge, &[], |bytes| bytes >= 200_000.0);
    for request in [
        post(CHAT, "", padded("m", 200_000)),
        chunked(CHAT, "", &padded("m", 200_000), 10_000),
    ] {
        let mut second = gateway.client();
        let sending = second.send_aside(request);
        let reply = second.reply();
        reply.assert_refused(503, "overloaded");
        assert!(reply.header("retry-after").is_some());
        let _ = sending.join().unwrap();
    }
    // Small ones still fit.
    gateway.client().chat("m", "").assert_ok();
    first.reply().assert_ok();
    gateway.wait_for(gauge, &[], |bytes| bytes == 0.0);
    gateway
        .client()
        .post(CHAT, padded("m", 200_000))
        .assert_ok();
}

/// Memory is not taken by a client that only announces a large body.
#[test]
fn bodies_that_pass_unread_take_no_memory() {
    let engine = engine();
    let gateway = gateway("body_memory = \"64KiB\"", &engine.url());
    let mut client = gateway.client();
    client.send(post("/raw/sim/hash", "", padded("m", 2 << 20)));
    let reply = client.reply();
    reply.assert_ok();
    assert_eq!(reply.json()["bytes"], 2 << 20);
    assert_eq!(
        gateway.metrics().sum("tollgate_body_memory_bytes", &[]),
        0.0
    );
}

/// Two listeners of one process, one of which speaks no HTTP/2.
#[test]
fn http2_can_be_switched_off() {
    let engine = engine();
    let toml = "[[listener]]\naddress = \"$LISTENER\"\nhttp2 = false\n".to_owned()
        + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    client.send(post(CHAT, "", chat("m")));
    client.reply().assert_ok();
    let mut raw = crate::harness::RawH2::connect(gateway.address());
    raw.headers(
        1,
        &[
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":path", b"/v1/models"),
            (b":authority", b"test"),
        ],
        true,
    );
    assert!(raw.outcome(1).is_none_or(|frame| frame.refuses()));
}
