//! Bodies beyond the limit are refused in words the client gets to read; `Expect: 100-continue` is honoured.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{
    CHAT, Gateway, Upstream, chat, chunked, engine, noise, padded, post, service,
};

const TOO_LARGE: usize = 33 << 20;

fn gateway(target: &str) -> Gateway {
    let http = format!(
        "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\ntargets = [\"{target}\"]\n"
    );
    Gateway::start(&(service("m", "m", target) + &http))
}

#[test]
fn a_length_beyond_the_limit_gets_413() {
    let engine = engine();
    let gateway = gateway(&engine.url());
    let body = padded("m", TOO_LARGE);
    for path in [CHAT, "/raw/x"] {
        let mut client = gateway.client();
        // Keeps sending: the answer must not be destroyed by that.
        let sending = client.send_aside(post(path, "", &body));
        client.reply().assert_refused(413, "request_too_large");
        drop(client);
        let _ = sending.join().unwrap();
    }
    assert_eq!(engine.state().started, 0, "it must not reach the engine");
    gateway.assert_gauges_zero();
}

#[test]
fn chunks_beyond_the_limit_get_413() {
    let engine = engine();
    let gateway = gateway(&engine.url());
    let body = padded("m", TOO_LARGE);
    for path in [CHAT, "/raw/x"] {
        let mut client = gateway.client();
        let sending = client.send_aside(chunked(path, "", &body, 16_000));
        client.reply().assert_refused(413, "request_too_large");
        drop(client);
        let _ = sending.join().unwrap();
    }
    gateway.assert_gauges_zero();
    assert_eq!(
        gateway
            .metrics()
            .sum("tollgate_client_disconnects_total", &[]),
        0.0
    );
}

#[test]
fn frames_beyond_the_limit_get_413() {
    let engine = engine();
    let gateway = gateway(&engine.url());
    for path in [CHAT, "/raw/x"] {
        for with_length in [true, false] {
            let body = padded("m", TOO_LARGE);
            let reply = gateway.h2().post(path, &[], body, with_length);
            let reply = reply.unwrap_or_else(|error| panic!("{path} {with_length}: {error}"));
            reply.assert_refused(413, "request_too_large");
        }
    }
    gateway.assert_gauges_zero();
}

#[test]
fn exactly_the_limit_passes() {
    let engine = engine();
    let toml = format!(
        "[server]\nmax_body = \"1MiB\"\n{}",
        service("m", "m", &engine.url())
    );
    let gateway = Gateway::start(&toml);
    for (length, status) in [(1 << 20, 200), ((1 << 20) + 1, 413)] {
        let body = padded("m", length);
        let mut client = gateway.client();
        client.send(post(CHAT, "", &body));
        assert_eq!(client.reply().status, status, "{length}");
        let mut client = gateway.client();
        let sending = client.send_aside(chunked(CHAT, "", &body, 5_000));
        assert_eq!(client.reply().status, status, "{length} chunked");
        let _ = sending.join().unwrap();
        let reply = gateway.h2().post(CHAT, &[], body, false).unwrap();
        assert_eq!(reply.status, status, "{length} h2");
    }
}

#[test]
fn a_client_that_expects_100_gets_it_and_then_the_answer() {
    let engine = engine();
    let gateway = gateway(&engine.url());
    let body = padded("m", 1 << 20);
    for path in [CHAT, "/raw/v1/chat/completions"] {
        let request = post(path, "expect: 100-continue\r\nx-sim: hash\r\n", &body);
        let (head, body) = request.split_at(request.len() - body.len());
        let mut client = gateway.client();
        client.send(head);
        assert_eq!(client.head().unwrap().status, 100, "{path}");
        client.send(body);
        let reply = client.reply();
        reply.assert_ok();
        assert_eq!(
            reply.header("x-sim-body-sha256"),
            Some(crate::harness::sha256(body).as_str()),
            "{path}"
        );
    }
    // The upstream was not made to expect what had already come.
    let asked = engine.requests();
    let first = asked.first().unwrap();
    assert!(
        !first
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("expect"))
    );
}

#[test]
fn a_client_that_expects_100_is_refused_before_it_sends() {
    let engine = engine();
    let gateway = gateway(&engine.url());
    let mut client = gateway.client();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {TOO_LARGE}\r\n\r\n"
    );
    client.send(head);
    let reply = client.head().unwrap();
    assert_eq!(reply.status, 413, "no 100 before a refusal");
    // What was refused unread makes the connection useless.
    let mut reply = reply;
    client.body(&mut reply).unwrap();
    reply.assert_refused(413, "request_too_large");
    client.assert_closed();
}

/// A refusal of a small request leaves the connection to the next one.
#[test]
fn a_refusal_keeps_the_connection() {
    let engine = engine();
    let gateway = gateway(&engine.url());
    let mut client = gateway.client();
    client
        .chat("nobody", "")
        .assert_refused(404, "model_not_found");
    client
        .post(CHAT, "{\"model\":")
        .assert_refused(400, "invalid_request");
    client
        .post("/nowhere", "")
        .assert_refused(400, "invalid_request");
    client
        .get("/nowhere", "")
        .assert_refused(404, "route_not_found");
    client.chat("m", "").assert_ok();
}

/// Without a limit on how slowly a refused client may go on, it would hold its connection for ever.
#[test]
fn a_refused_client_that_never_ends_is_cut_off() {
    let engine = engine();
    let gateway = gateway(&engine.url());
    let mut client = gateway.client();
    client.patience(Duration::from_secs(9));
    client.send(format!(
        "POST {CHAT} HTTP/1.1\r\nhost: test\r\ncontent-length: {TOO_LARGE}\r\n\r\n"
    ));
    client.send(noise(1000));
    client.reply().assert_refused(413, "request_too_large");
    client.assert_closed();
}

/// A body on a request that needs none is neither lost nor taken for the next request.
#[test]
fn a_get_with_a_body_does_not_confuse_the_connection() {
    let engine = engine();
    let gateway = gateway(&engine.url());
    let mut client = gateway.client();
    let body = chat("m");
    client.send(format!(
        "GET /v1/models HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.reply().status, 200);
    let sent = client.try_send(&post(CHAT, "", &body));
    if let Ok(reply) = sent.and_then(|()| client.try_reply()) {
        reply.assert_ok();
    }
}

/// An upstream that looks as soon as anything has come finds head and body: they leave in one write, though they were read in two.
#[test]
fn a_body_of_a_few_pages_leaves_with_its_head() {
    let parts = Arc::new(Mutex::new(Vec::new()));
    let seen = parts.clone();
    let upstream = Upstream::start(move |connection| {
        while let Some(head) = connection.head() {
            let length: usize = head.header("content-length").unwrap().parse().unwrap();
            seen.lock().unwrap().push(connection.ahead() == length);
            let body = connection.take(length).unwrap();
            assert!(body.ends_with(b"}"));
            connection.send(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
            );
        }
    });
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    let mut client = gateway.client();
    for length in [300, 5_000, 16 << 10, 40_000] {
        for _ in 0..50 {
            client.post(CHAT, padded("m", length)).assert_ok();
        }
    }
    let parts = parts.lock().unwrap();
    assert_eq!(parts.len(), 200);
    assert!(parts.iter().all(|whole| *whole), "{parts:?}");
}
