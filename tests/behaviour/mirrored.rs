//! The plugin `mirror`: a shadow gets what a client sent, and the client notices nothing of it, whatever the shadow does.

use crate::harness::{
    CHAT, Gateway, Reply, Upstream, chat, chunked, engine, padded, post, service, sha256, streamed,
    until,
};

const MIRROR: &str = "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\nplugins = [{ name = \"mirror\", settings = { service = \"shadow\" } }]\n";

fn shadow(target: &str, more: &str) -> String {
    format!(
        "[[service]]\nname = \"shadow\"\nmodels = [\"only-by-copy\"]\nupstream = \"shadow\"\n{more}\n[[upstream]]\nname = \"shadow\"\nbreaker = {{ failures = 3, open = \"60s\" }}\nhealth = \"off\"\ntargets = [\"{target}\"]\n"
    )
}

fn gateway(target: &str, shadowed: &str, more: &str) -> Gateway {
    Gateway::start(&(MIRROR.to_owned() + &service("m", "m", target) + &shadow(shadowed, more)))
}

/// Waits until so many copies ended so.
#[track_caller]
fn wait_for_copies(gateway: &Gateway, result: &str, wanted: f64) {
    let labels = [("service", "shadow"), ("result", result)];
    let copies = gateway.wait_for("tollgate_copies_total", &labels, |n| n >= wanted);
    assert_eq!(copies, wanted, "{result}");
}

fn at_shadow(gateway: &Gateway) -> f64 {
    let labels = [("upstream", "shadow")];
    gateway.metrics().sum("tollgate_target_in_flight", &labels)
}

/// Requests of every road, by what they ask for.
fn requests() -> Vec<Vec<u8>> {
    let long = String::from_utf8(padded("m", 150_000)).unwrap();
    let long_stream = long.replacen('{', "{\"stream\":true,", 1);
    vec![
        post(CHAT, "", chat("m")),
        post(CHAT, "", streamed("m", 5)),
        post(CHAT, "", &long),
        chunked(CHAT, "", long.as_bytes(), 9_000),
        chunked(CHAT, "", long_stream.as_bytes(), 9_000),
    ]
}

#[test]
fn every_request_arrives_as_it_was_sent() {
    let (main, copied) = (engine(), engine());
    let gateway = gateway(&main.url(), &copied.url(), "");
    let mut client = gateway.client();
    for request in requests() {
        client.send(request);
        client.reply().assert_ok();
    }
    let h2 = gateway.h2();
    for body in [
        chat("m").into_bytes(),
        streamed("m", 4).into_bytes(),
        padded("m", 150_000),
    ] {
        assert!(h2.post(CHAT, &[], body, true).unwrap().complete);
    }
    wait_for_copies(&gateway, "answered", 8.0);
    let hashes = |engine: &tollgate_bench::engine::Engine| {
        let mut hashes: Vec<String> = { engine.requests().into_iter() }
            .map(|request| request.body_sha256)
            .collect();
        hashes.sort();
        hashes
    };
    assert_eq!(hashes(&main), hashes(&copied));
    assert!(hashes(&copied).contains(&sha256(chat("m").as_bytes())));
    // Nobody asked the shadow, so nobody is charged for it.
    let asked = gateway.wait_for("tollgate_requests_total", &[], |n| n >= 8.0);
    assert_eq!(asked, 8.0);
    let labels = [("service", "shadow")];
    assert_eq!(gateway.metrics().sum("tollgate_tokens_total", &labels), 0.0);
    gateway.assert_gauges_zero();
}

/// A shadow that takes requests and never answers: every client has the whole of its answer while the shadow still thinks.
#[test]
fn a_shadow_that_hangs_delays_nobody() {
    let main = engine();
    let hanging = Upstream::start(|connection| {
        connection.request();
        connection.wait_closed();
    });
    let gateway = gateway(
        &main.url(),
        &hanging.url(),
        "timeouts = { first_byte = \"2s\" }",
    );
    let mut client = gateway.client();
    let count = requests().len();
    for request in requests() {
        client.send(request);
        client.reply().assert_ok();
    }
    // Not one copy has ended yet.
    assert_eq!(gateway.metrics().sum("tollgate_copies_total", &[]), 0.0);
    until("all copies to arrive", || {
        (hanging.requests().len() == count).then_some(())
    });
    assert_eq!(at_shadow(&gateway), count as f64);
    // It is given up as any upstream would be.
    wait_for_copies(&gateway, "timeout", count as f64);
    assert_eq!(at_shadow(&gateway), 0.0);
    gateway.wait_for(
        "tollgate_target_breaker_state",
        &[("upstream", "shadow")],
        |state| state > 0.0,
    );
    client.chat("m", "").assert_ok();
    wait_for_copies(&gateway, "unavailable", 1.0);
    gateway.assert_gauges_zero();
}

/// A shadow that stops in the middle of its answer, one that refuses, one that says what is no answer, one that is not there.
#[test]
fn what_a_shadow_does_wrong_is_its_own_affair() {
    let main = engine();
    let stalls = Upstream::start(|connection| {
        connection.request();
        connection.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        connection.wait_closed();
    });
    let fails =
        Upstream::replying("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 3\r\n\r\nbad");
    let closes = Upstream::closing("");
    let breaks = Upstream::closing("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    let babbles = Upstream::closing("what?\r\n\r\n");
    for (url, result) in [
        (stalls.url(), "timeout"),
        (fails.url(), "failed"),
        (closes.url(), "failed"),
        (breaks.url(), "failed"),
        (babbles.url(), "failed"),
        ("http://127.0.0.1:1".to_owned(), "failed"),
    ] {
        let gateway = gateway(&main.url(), &url, "timeouts = { idle = \"300ms\" }");
        let mut client = gateway.client();
        let answer = |reply: Reply| {
            reply.assert_ok();
            assert_eq!(reply.header("x-tollgate-service"), Some("m"));
            assert_eq!(reply.header("x-tollgate-attempts"), Some("1"), "{url}");
        };
        for n in 1..=3 {
            client.send(post(CHAT, "", streamed("m", 3)));
            answer(client.reply());
            wait_for_copies(&gateway, result, f64::from(n));
        }
        // Three failures open its breaker, and no other.
        for _ in 0..3 {
            client.send(chunked(CHAT, "", &padded("m", 100_000), 9_000));
            answer(client.reply());
        }
        wait_for_copies(&gateway, "unavailable", 3.0);
        let metrics = gateway.metrics();
        let open = metrics.sum("tollgate_target_breaker_state", &[]);
        let own = metrics.sum("tollgate_target_breaker_state", &[("upstream", "shadow")]);
        assert!(own > 0.0 && own == open, "{url}: {own} of {open}");
        for name in ["tollgate_retries_total", "tollgate_fallbacks_total"] {
            assert_eq!(metrics.sum(name, &[]), 0.0, "{url}: {name}");
        }
        let asked = gateway.wait_for("tollgate_requests_total", &[], |n| n >= 6.0);
        assert_eq!(asked, 6.0, "{url}");
        gateway.assert_gauges_zero();
    }
}

/// A client that leaves takes its own request along and not the copy, and what the gateway refuses is not copied.
#[test]
fn copies_stand_on_their_own() {
    let (main, copied) = (engine(), engine());
    let gateway = gateway(&main.url(), &copied.url(), "");
    let mut client = gateway.client();
    client
        .chat("no such model", "")
        .assert_refused(404, "model_not_found");
    client.send(post(
        CHAT,
        "x-sim: stall-after=1,itl=1ms\r\n",
        streamed("m", 3),
    ));
    client.head().unwrap();
    client.chunk().unwrap();
    // The copy stalls like the original, whose client leaves.
    until("the copy to arrive", || {
        (copied.state().running == 1).then_some(())
    });
    drop(client);
    until("the original to be given up", || {
        (main.state().aborted == 1).then_some(())
    });
    assert_eq!((copied.state().started, copied.state().aborted), (1, 0));
    assert_eq!(at_shadow(&gateway), 1.0);
    // When the shadow dies its copy is over.
    copied.stop();
    wait_for_copies(&gateway, "failed", 1.0);
    gateway.assert_gauges_zero();
}
