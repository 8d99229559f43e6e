//! RFC 9113 as clients rely on it: many streams on one connection, each on its own.

use std::time::{Duration, Instant};

use crate::harness::{CHAT, Gateway, RawH2, chat, engine, h2c, noise, padded, service, streamed};

fn both(engine: &tollgate_bench::engine::Engine) -> Gateway {
    let toml = service("h1", "h1", &engine.url()) + &service("h2", "h2", &h2c(engine));
    Gateway::start(&toml)
}

#[test]
fn streams_do_not_wait_for_each_other() {
    let engine = engine();
    let gateway = both(&engine);
    let client = gateway.h2();
    let start = Instant::now();
    let mut streams = Vec::new();
    for n in 0..100 {
        let model = if n % 2 == 0 { "h1" } else { "h2" };
        let id = format!("s{n}");
        let fields = [("x-sim", "delay=300ms"), ("x-request-id", id.as_str())];
        let mut stream = client.open("POST", CHAT, &fields, false);
        stream.send(chat(model), true).unwrap();
        streams.push((id, stream));
    }
    for (id, stream) in streams {
        let reply = stream.reply().unwrap();
        reply.assert_ok();
        assert_eq!(reply.header("x-request-id"), Some(id.as_str()));
    }
    let took = start.elapsed();
    assert!(
        took < Duration::from_secs(5),
        "100 waits of 300 ms took {took:?}"
    );
    gateway.assert_gauges_zero();
}

/// One client's streams are told apart even when one of them is abandoned.
#[test]
fn a_cancelled_stream_leaves_the_others_alone() {
    let engine = engine();
    let gateway = both(&engine);
    let client = gateway.h2();
    for model in ["h1", "h2"] {
        let open = |fields| {
            let mut stream = client.open("POST", CHAT, &[("x-sim", fields)], false);
            stream.send(streamed(model, 10), true).unwrap();
            stream
        };
        let mut kept = open("itl=30ms");
        let mut reply = kept.head().unwrap();
        let abandoned = open("itl=30ms");
        abandoned.cancel();
        kept.body(&mut reply).unwrap();
        assert!(
            reply.text().ends_with("data: [DONE]\n\n"),
            "{}",
            reply.text()
        );
        open("itl=0ms").reply().unwrap().assert_ok();
    }
    gateway.assert_gauges_zero();
}

/// A body that one stream holds back does not hold back another.
#[test]
fn a_stalled_upload_blocks_nobody() {
    let engine = engine();
    let gateway = both(&engine);
    let client = gateway.h2();
    let mut stalled = client.open("POST", CHAT, &[("content-type", "application/json")], false);
    stalled
        .send(padded("h1", 300_000)[..200_000].to_vec(), false)
        .unwrap();
    for _ in 0..3 {
        client
            .post(CHAT, &[], padded("h1", 3 << 20), false)
            .unwrap()
            .assert_ok();
    }
    stalled.cancel();
    gateway.assert_gauges_zero();
}

/// HEAD, and answers without a body, end their stream.
#[test]
fn answers_without_a_body_end_the_stream() {
    let engine = engine();
    let gateway = both(&engine);
    let client = gateway.h2();
    let reply = client
        .open("HEAD", "/v1/models", &[], true)
        .reply()
        .unwrap();
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    client.get("/v1/models", &[]).unwrap().assert_ok();
    client
        .get("/nowhere", &[])
        .unwrap()
        .assert_refused(404, "route_not_found");
}

/// A large answer keeps to the client's window and arrives whole.
#[test]
fn a_large_answer_arrives() {
    let body = noise(12 << 20);
    let sent = body.clone();
    let upstream = crate::harness::Upstream::start(move |connection| {
        while connection.request().is_some() {
            connection.send(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                sent.len()
            ));
            connection.send(&sent);
        }
    });
    let raw = format!(
        "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\ntargets = [\"{}\"]\n",
        upstream.url()
    );
    let gateway = Gateway::start(&(service("m", "m", &upstream.url()) + &raw));
    let client = gateway.h2();
    assert!(client.post(CHAT, &[], chat("m"), true).unwrap().body == body);
    assert!(client.get("/raw/x", &[]).unwrap().body == body);
    assert!(gateway.client().chat("m", "").body == body);
}

/// Frames against the rules end the connection, and only that.
#[test]
fn broken_frames_end_their_connection_only() {
    let engine = engine();
    let gateway = both(&engine);
    let frames: [(&str, u8, u32, &[u8]); 5] = [
        ("data on no stream", 0, 0, b"x"),
        ("data before headers", 0, 1, b"x"),
        (
            "half a compressed head",
            1,
            1,
            b"\xff\xff\xff\xff\xff\xff\xff",
        ),
        ("a window of zero", 8, 0, b"\0\0\0\0"),
        ("settings of odd length", 4, 0, b"\0\x04\0"),
    ];
    for (what, kind, stream, payload) in frames {
        let mut client = RawH2::connect(gateway.address());
        client.frame(kind, 4, stream, payload);
        let outcome = client.outcome(1);
        assert!(outcome.is_none_or(|frame| frame.refuses()), "{what}");
        gateway.client().chat("h1", "").assert_ok();
    }
    gateway.assert_gauges_zero();
}

/// The first words of HTTP/2 may come in two segments; what they begin is no slow HTTP/1.1 request.
#[test]
fn a_preface_may_come_in_pieces() {
    let engine = engine();
    let toml =
        "[server]\nheader_timeout = \"300ms\"\n".to_owned() + &service("h1", "h1", &engine.url());
    let gateway = Gateway::start(&toml);
    for first in [1, 3, 10, 20] {
        let mut client = RawH2::connect_in_pieces(gateway.address(), first);
        let ask = |client: &mut RawH2, stream| {
            let fields: &[(&[u8], &[u8])] = &[
                (b":method", b"GET"),
                (b":scheme", b"http"),
                (b":path", b"/v1/models"),
                (b":authority", b"test"),
            ];
            client.headers(stream, fields, true);
            client.outcome(stream).and_then(|frame| frame.status())
        };
        assert_eq!(ask(&mut client, 1), Some(200), "{first}");
        // Longer than a head may take.
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(
            ask(&mut client, 3),
            Some(200),
            "{first}: the connection was cut"
        );
    }
}
