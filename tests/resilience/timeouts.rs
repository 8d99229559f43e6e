//! Upstreams that take too long.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::assert_discreet;
use crate::harness::{
    CHAT, Gateway, H2Behaviour, H2Upstream, Reply, Upstream, chat, chunked, engine, h2c, padded,
    post, service, streamed,
};

const LIMIT: Duration = Duration::from_millis(400);

/// It took as long as the limit, and not much longer.
#[track_caller]
fn timed(what: &str, ask: impl FnOnce() -> Reply) -> Reply {
    let start = Instant::now();
    let reply = ask();
    let took = start.elapsed();
    assert!(
        took >= LIMIT - Duration::from_millis(10),
        "{what}: after {took:?} already"
    );
    assert!(
        took < LIMIT + Duration::from_millis(900),
        "{what}: only after {took:?}"
    );
    reply
}

#[test]
fn a_head_that_does_not_come_gets_504() {
    let silent = Upstream::start(|connection| {
        // A health check connects and says nothing.
        if connection.request().is_some() {
            connection.wait_closed();
        }
    });
    let silent_h2 = H2Upstream::start(H2Behaviour::Stall);
    for (kind, url) in [("h1", silent.url()), ("h2c", silent_h2.url())] {
        let toml =
            service("m", "m", &url) + "timeouts = { first_byte = \"400ms\" }\nretry = \"off\"\n";
        let gateway = Gateway::start(&toml);
        let check = |what: &str, ask: &dyn Fn() -> Reply| {
            let what = format!("{what} to {kind}");
            let reply = timed(&what, ask);
            assert_eq!(reply.status, 504, "{what}: {}", reply.text());
            reply.assert_refused(504, "upstream_timeout");
            assert_discreet(&reply, &[]);
        };
        check("small", &|| gateway.client().chat("m", ""));
        check("large", &|| {
            gateway.client().post(CHAT, padded("m", 200_000))
        });
        check("other road", &|| {
            let mut client = gateway.client();
            client.send(chunked(CHAT, "", &padded("m", 200_000), 20_000));
            client.reply()
        });
        check("h2", &|| {
            gateway.h2().post(CHAT, &[], chat("m"), true).unwrap()
        });
        check("h2, other road", &|| {
            gateway
                .h2()
                .post(CHAT, &[], padded("m", 200_000), false)
                .unwrap()
        });
        gateway.assert_gauges_zero();
        assert_eq!(
            gateway
                .metrics()
                .sum("tollgate_client_disconnects_total", &[]),
            0.0
        );
    }
    crate::harness::until("every upstream connection to end", || {
        (silent.closed().len() == 3 + 2).then_some(())
    });
    assert_eq!(silent_h2.resets().len(), 5, "streams are not left open");
}

/// The limit for the first byte may well be longer than the one between bytes.
#[test]
fn idle_does_not_limit_the_first_byte() {
    let engine = engine();
    let toml = service("m", "m", &engine.url()) + "timeouts = { idle = \"200ms\" }\n";
    let gateway = Gateway::start(&toml);
    gateway
        .client()
        .chat("m", "x-sim: delay=700ms\r\n")
        .assert_ok();
    let reply = gateway
        .h2()
        .post(CHAT, &[("x-sim", "delay=700ms")], chat("m"), true);
    reply.unwrap().assert_ok();
    let mut client = gateway.client();
    client.send(chunked(
        CHAT,
        "x-sim: delay=700ms\r\n",
        &padded("m", 100_000),
        20_000,
    ));
    client.reply().assert_ok();
}

/// And the other way round.
#[test]
fn the_first_byte_does_not_limit_idle() {
    let engine = engine();
    let toml = service("m", "m", &engine.url()) + "timeouts = { first_byte = \"200ms\" }\n";
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    client.send(post(CHAT, "x-sim: itl=600ms\r\n", streamed("m", 3)));
    client.reply().assert_ok();
    let reply = gateway
        .h2()
        .post(CHAT, &[("x-sim", "itl=600ms")], streamed("m", 3), true);
    reply.unwrap().assert_ok();
}

/// The time a client takes for its body is not the upstream's.
#[test]
fn a_slow_client_does_not_use_up_the_first_byte() {
    let engine = engine();
    let toml = service("m", "m", &engine.url())
        + "timeouts = { first_byte = \"300ms\" }\n[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\ntimeouts = { first_byte = \"300ms\" }\ntargets = [\""
        + &engine.url()
        + "\"]\n";
    let gateway = Gateway::start(&toml);
    for path in [CHAT, "/raw/v1/chat/completions"] {
        let request = post(path, "", padded("m", 3_000));
        let mut client = gateway.client();
        for part in request.chunks(1_000) {
            client.send(part);
            std::thread::sleep(Duration::from_millis(200));
        }
        let reply = client.reply();
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
}

#[test]
fn the_whole_is_limited() {
    let engine = engine();
    let toml = service("m", "m", &engine.url())
        + "timeouts = { total = \"400ms\" }\n"
        + &service("h2", "h2", &h2c(&engine))
        + "timeouts = { total = \"400ms\" }\n";
    let gateway = Gateway::start(&toml);
    for model in ["m", "h2"] {
        let reply = timed("before the head", || {
            gateway.client().chat(model, "x-sim: delay=3s\r\n")
        });
        reply.assert_refused(504, "upstream_timeout");
        let reply = timed("in a stream", || {
            let mut client = gateway.client();
            client.send(post(
                CHAT,
                "x-sim: itl=50ms, tokens=200\r\n",
                streamed(model, 200),
            ));
            client.reply()
        });
        assert!(!reply.complete, "{}", reply.text());
        let last: Value = serde_json::from_str(reply.events().last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], "upstream_timeout", "{last}");
    }
    let reply = timed("h2, before the head", || {
        gateway
            .h2()
            .post(CHAT, &[("x-sim", "delay=3s")], chat("m"), true)
            .unwrap()
    });
    reply.assert_refused(504, "upstream_timeout");
    let mut stream = gateway
        .h2()
        .open("POST", CHAT, &[("x-sim", "itl=50ms, tokens=200")], false);
    stream.send(streamed("m", 200), true).unwrap();
    let mut reply = stream.head().unwrap();
    let start = Instant::now();
    assert!(stream.body(&mut reply).is_err(), "{}", reply.text());
    assert!(start.elapsed() < Duration::from_millis(1500));
    let last: Value = serde_json::from_str(reply.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "upstream_timeout", "{last}");
    gateway.assert_gauges_zero();
}

/// A rule's limits hold where it has some.
#[test]
fn a_rule_has_limits_of_its_own() {
    let engine = engine();
    let toml = service("m", "m", &engine.url())
        + "[[rule]]\nname = \"fast\"\ngateway = \"main\"\npath = \"/fast/*\"\nstrip_path = true\ntimeouts = { first_byte = \"400ms\" }\n";
    let gateway = Gateway::start(&toml);
    let request = post(
        "/fast/v1/chat/completions",
        "x-sim: delay=1s\r\n",
        chat("m"),
    );
    let mut client = gateway.client();
    client.send(&request);
    client.reply().assert_refused(504, "upstream_timeout");
    gateway
        .client()
        .chat("m", "x-sim: delay=1s\r\n")
        .assert_ok();
}

/// Addresses that answer nothing, not even a refusal.
#[test]
fn a_connection_that_does_not_come_about_gets_504_or_502() {
    let target = "http://192.0.2.1:9";
    let gateway =
        Gateway::start(&(service("m", "m", target) + "timeouts = { connect = \"300ms\" }\n"));
    let start = Instant::now();
    let reply = gateway.client().chat("m", "");
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert!(matches!(reply.status, 502 | 504), "{}", reply.text());
    assert_discreet(&reply, &["192.0.2.1"]);
    gateway.assert_gauges_zero();
}

/// A connection is used again after a client that was slow between its requests.
#[test]
fn a_quiet_client_connection_is_kept() {
    let engine = engine();
    let toml = "[server]\nheader_timeout = \"1s\"\n".to_owned()
        + &service("m", "m", &engine.url())
        + "timeouts = { first_byte = \"1s\", idle = \"1s\", total = \"1s\" }\n";
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    client.chat("m", "").assert_ok();
    // Longer than any of them: between requests none applies.
    std::thread::sleep(Duration::from_millis(2_500));
    client.chat("m", "").assert_ok();
}
