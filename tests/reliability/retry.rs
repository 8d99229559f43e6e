//! Further tries on other targets of the same service.

use std::time::Duration;

use super::{Script, always, answer, calls, in_turn, offer, within};
use crate::harness::{
    CHAT, Gateway, Reply, Upstream, chunked, closed_address, engine, padded, post, streamed,
};

const ALL: &str = "retry = { budget = 1.0, backoff = \"1ms\" }\n";
const ROUND: &str = "policy = \"round_robin\"\n";

/// Breaker and budget at their defaults.
#[test]
fn a_target_that_refuses_connections_is_not_noticed() {
    let engine = engine();
    let urls = [format!("http://{}", closed_address()), engine.url()];
    for (service, upstream) in [("", "breaker = {}\n"), (ALL, "")] {
        let before = calls(&engine);
        let gateway = Gateway::start(&offer("m", service, &format!("{ROUND}{upstream}"), &urls));
        for _ in 0..50 {
            gateway.client().chat("m", "").assert_ok();
        }
        assert_eq!(calls(&engine) - before, 50);
        let labels = [("service", "m"), ("reason", "connect")];
        gateway.wait_for("tollgate_retries_total", &labels, |n| n >= 1.0);
        gateway.assert_gauges_zero();
    }
}

#[test]
fn a_500_is_tried_on_the_other_target() {
    let (bad, good) = (engine(), engine());
    always(&bad, "status=500");
    let gateway = Gateway::start(&offer("m", ALL, ROUND, &[bad.url(), good.url()]));
    let mut twice = 0;
    for _ in 0..20 {
        let reply = gateway.client().chat("m", "");
        reply.assert_ok();
        twice += u64::from(reply.header("x-tollgate-attempts") == Some("2"));
    }
    assert_eq!(calls(&good), 20);
    assert_eq!(calls(&bad), twice, "one call of each request");
    assert!(twice >= 5, "{twice}");
    let labels = [("service", "m"), ("reason", "5xx")];
    gateway.wait_for("tollgate_retries_total", &labels, |n| n == twice as f64);
    gateway.assert_gauges_zero();
}

#[test]
fn a_body_is_sent_again_whole() {
    type Ask = fn(&Gateway, &[u8]) -> Reply;
    let ways: [(&str, usize, Ask); 6] = [
        ("short", 300, |g, body| g.client().post(CHAT, body)),
        ("above 64 KiB", 200_000, |g, body| {
            g.client().post(CHAT, body)
        }),
        ("chunked", 300, |g, body| {
            send(g, chunked(CHAT, "", body, 77))
        }),
        ("long and chunked", 300_000, |g, body| {
            send(g, chunked(CHAT, "", body, 10_001))
        }),
        ("h2", 300, |g, body| {
            g.h2().post(CHAT, &[], body.to_vec(), true).unwrap()
        }),
        ("h2, long", 300_000, |g, body| {
            g.h2().post(CHAT, &[], body.to_vec(), false).unwrap()
        }),
    ];
    let answers = [
        ("closes", String::new()),
        ("fails", answer("500 Internal Server Error", "", "theirs")),
    ];
    for (what, length, ask) in ways {
        for (how, text) in &answers {
            let bad = Upstream::closing(text.clone());
            let good = Upstream::obliging();
            let gateway = Gateway::start(&offer("m", ALL, ROUND, &[bad.url(), good.url()]));
            let body = padded("m", length);
            for _ in 0..4 {
                let reply = ask(&gateway, &body);
                assert_eq!(reply.status, 200, "{what}, {how}: {}", reply.text());
                let sent = good.last();
                assert!(sent.body == body, "{what}, {how}: another body");
                sent.assert_unambiguous();
            }
            assert_eq!(good.requests().len(), 4, "{what}, {how}");
            let tried = bad.requests();
            assert!(!tried.is_empty(), "{what}, {how}: never tried");
            for request in tried {
                assert!(request.body == body, "{what}, {how}: another body");
            }
            gateway.assert_gauges_zero();
        }
    }
}

fn send(gateway: &Gateway, request: Vec<u8>) -> Reply {
    let mut client = gateway.client();
    client.send(request);
    client.reply()
}

/// Never the same target while another is left, and never more often than allowed.
#[test]
fn attempts_bound_the_tries() {
    for (retry, want) in [
        ("retry = \"off\"\n", 1),
        ("retry = { attempts = 0 }\n", 1),
        ("retry = { attempts = 1 }\n", 2),
        ("", 3),
        (
            "retry = { attempts = 2, on = [\"connect\", \"timeout\"] }\n",
            1,
        ),
        ("retry = { attempts = 2, on = [\"503\"] }\n", 1),
        ("retry = { attempts = 2, on = [\"500\"] }\n", 3),
    ] {
        let engines = [engine(), engine(), engine()];
        for engine in &engines {
            always(engine, "status=500, body=theirs");
        }
        let urls: Vec<String> = engines.iter().map(|e| e.url()).collect();
        let gateway = Gateway::start(&offer("m", retry, "", &urls));
        let reply = gateway.client().chat("m", "");
        assert_eq!(
            (reply.status, reply.text()),
            (500, "theirs".into()),
            "{retry}"
        );
        let attempts = want.to_string();
        assert_eq!(reply.header("x-tollgate-attempts"), Some(attempts.as_str()));
        let each: Vec<u64> = engines.iter().map(calls).collect();
        assert_eq!(each.iter().sum::<u64>(), want, "{retry}: {each:?}");
        assert!(each.iter().all(|n| *n <= 1), "{retry}: {each:?}");
        gateway.assert_gauges_zero();
    }
}

/// What the client did wrong stays wrong wherever it is sent.
#[test]
fn a_clients_own_errors_are_not_tried_again() {
    let (a, b, backup) = (engine(), engine(), engine());
    let toml = offer(
        "m",
        "fallback = [\"backup\"]\n",
        "breaker = { failures = 1 }\n",
        &[a.url(), b.url()],
    ) + &offer("backup", "", "", &[backup.url()]);
    let gateway = Gateway::start(&toml);
    for status in [400, 401, 403, 404, 409, 413, 422] {
        let before = calls(&a) + calls(&b);
        let fields = format!("x-sim: status={status}, body=theirs\r\n");
        for request in [
            post(CHAT, &fields, padded("m", 200)),
            chunked(CHAT, &fields, &padded("m", 200_000), 10_000),
        ] {
            let reply = send(&gateway, request);
            assert_eq!((reply.status, reply.text()), (status, "theirs".into()));
            assert_eq!(reply.header("x-tollgate-attempts"), Some("1"));
            assert_eq!(reply.header("x-tollgate-service"), Some("m"));
        }
        assert_eq!(calls(&a) + calls(&b) - before, 2, "{status}");
    }
    assert_eq!(calls(&backup), 0);
    let open = gateway.metrics().sum("tollgate_target_breaker_state", &[]);
    assert_eq!(open, 0.0, "a client's error opened a breaker");
}

#[test]
fn a_stalled_first_byte_is_tried_elsewhere() {
    let (stalled, good) = (engine(), engine());
    always(&stalled, "delay=30s");
    let service = format!("{ALL}timeouts = {{ first_byte = \"300ms\" }}\n");
    let gateway = Gateway::start(&offer("m", &service, ROUND, &[stalled.url(), good.url()]));
    for _ in 0..2 {
        for length in [200, 200_000] {
            let body = padded("m", length);
            let ask = || {
                gateway.client().post(CHAT, &body).assert_ok();
                send(&gateway, chunked(CHAT, "", &body, 9_999)).assert_ok();
                gateway
                    .h2()
                    .post(CHAT, &[], body.clone(), false)
                    .unwrap()
                    .assert_ok();
            };
            within(Duration::from_secs(3), "waiting for first bytes", ask);
        }
    }
    assert_eq!(calls(&good), 12);
    assert!(calls(&stalled) >= 3, "{}", calls(&stalled));
    let labels = [("service", "m"), ("reason", "timeout")];
    gateway.wait_for("tollgate_retries_total", &labels, |n| {
        n == calls(&stalled) as f64
    });
    gateway.assert_gauges_zero();
}

#[test]
fn nothing_is_tried_again_after_the_first_byte() {
    let (a, b, backup) = (engine(), engine(), engine());
    let toml = offer(
        "m",
        "fallback = [\"backup\"]\nqueue = true\n",
        "",
        &[a.url(), b.url()],
    ) + &offer("backup", "", "", &[backup.url()]);
    let gateway = Gateway::start(&toml);
    let mut sent = 0;
    for fault in ["close-after=3", "reset-after=3"] {
        let fields = format!("x-sim: {fault}, itl=5ms\r\n");
        let reply = send(&gateway, post(CHAT, &fields, streamed("m", 20)));
        assert_eq!(reply.status, 200);
        assert!(!reply.complete, "{fault}: looks complete");
        let last = reply.events().pop().unwrap();
        assert!(last.contains("\"error\""), "{fault}: {last}");
        let whole = send(&gateway, post(CHAT, &fields, padded("m", 200)));
        assert!(!whole.complete, "{fault}: {}", whole.text());
        sent += 2;
        assert_eq!(calls(&a) + calls(&b), sent, "{fault}");
    }
    assert_eq!(calls(&backup), 0);
    gateway.assert_gauges_zero();
}

#[test]
fn a_single_target_is_tried_again() {
    let engine = engine();
    let service = "retry = { attempts = 2, backoff = \"5ms\" }\n";
    let gateway = Gateway::start(&offer("m", service, "", &[engine.url()]));
    for length in [200, 200_000] {
        let before = calls(&engine);
        in_turn(&engine, &["status=500", "status=500"]);
        let reply = send(&gateway, chunked(CHAT, "", &padded("m", length), 10_000));
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-attempts"), Some("3"));
        assert_eq!(calls(&engine) - before, 3);
    }
    gateway.assert_gauges_zero();
}

/// Retries must not multiply the load on engines that are overloaded already.
#[test]
fn the_budget_bounds_retries() {
    let engine = engine();
    always(&engine, "status=500");
    let service = "retry = { attempts = 1, budget = 0.0, backoff = \"1ms\" }\n";
    let gateway = Gateway::start(&offer("m", service, "", &[engine.url()]));
    let start = std::time::Instant::now();
    let mut client = gateway.client();
    let mut sent = 0;
    while sent < 200 {
        client.chat("m", "");
        sent += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    let retries = calls(&engine) as f64 - f64::from(sent);
    assert!(retries >= 1.0, "small services retry too");
    // Ten a second, and what had been saved up.
    assert!(
        retries <= 10.0 * (seconds + 1.0) + 1.0,
        "{retries} in {seconds} s"
    );
}

/// A deadline covers all attempts together.
#[test]
fn the_total_time_bounds_retries() {
    let script = Script::start(|_, _, connection| {
        connection.pause(Duration::from_millis(150));
        answer("500 Internal Server Error", "", "theirs")
    });
    let service = "retry = { attempts = 100, budget = 1.0, backoff = \"1ms\" }\ntimeouts = { total = \"500ms\" }\n";
    let gateway = Gateway::start(&offer("m", service, "", &[script.url()]));
    let reply = within(Duration::from_millis(1_200), "the exchange", || {
        gateway.client().chat("m", "")
    });
    assert!(matches!(reply.status, 500 | 504), "{}", reply.text());
    assert!((2..=5).contains(&script.calls()), "{}", script.calls());
    gateway.assert_gauges_zero();
}
