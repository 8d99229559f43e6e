//! Other services, when one cannot serve.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate_bench::engine::Engine;

use super::{Script, always, answer, assert_fell_back, calls, offer, ok, restart, within};
use crate::harness::{
    CHAT, Gateway, Upstream, chat, chunked, closed_address, engine, engine_with, padded, post,
    until,
};

const OFF: &str = "retry = \"off\"\n";
const TO_BACKUP: &str = "retry = \"off\"\nfallback = [\"backup\"]\n";

#[test]
fn another_service_serves_with_its_own_name_credential_and_path() {
    let backup = Upstream::obliging();
    let provider = offer(
        "backup",
        "model = \"theirs/small\"\n",
        "api_key = \"sk-backup\"\n",
        &[format!("{}/v3", backup.url())],
    )
    .replace("models = [\"backup\"]\n", "");
    let down = format!("http://{}", closed_address());
    let cases = [
        ("connect", down),
        ("5xx", forever("500 Internal Server Error")),
        ("429", forever("429 Too Many Requests")),
    ];
    for (reason, primary) in cases {
        let upstream = "api_key = \"sk-primary\"\nheaders = { x-primary = \"1\" }\n";
        let toml = offer("m", TO_BACKUP, upstream, &[primary]) + &provider;
        let gateway = Gateway::start(&toml);
        let mut asked = 0.0;
        for (length, h2, in_chunks) in [
            (200, false, false),
            (200_000, false, false),
            (200_000, false, true),
            (200, true, false),
            (200_000, true, false),
        ] {
            let body = padded("m", length);
            let before = backup.requests().len();
            let fields = "authorization: Bearer client\r\n";
            let reply = if h2 {
                gateway
                    .h2()
                    .post(CHAT, &[("authorization", "Bearer client")], body, false)
                    .unwrap()
            } else {
                let mut client = gateway.client();
                client.send(if in_chunks {
                    chunked(CHAT, fields, &body, 10_000)
                } else {
                    post(CHAT, fields, &body)
                });
                client.reply()
            };
            asked += 1.0;
            let what = format!("{reason}, {length}, h2 {h2}, chunked {in_chunks}");
            assert_eq!(reply.status, 200, "{what}: {}", reply.text());
            assert_eq!(reply.header("x-tollgate-service"), Some("backup"), "{what}");
            assert_eq!(reply.header("x-tollgate-attempts"), Some("2"), "{what}");
            assert_eq!(backup.requests().len(), before + 1, "{what}");
            let sent = backup.last();
            sent.assert_unambiguous();
            assert_eq!(sent.path(), "/v3/chat/completions", "{what}");
            assert_eq!(
                sent.header("authorization").as_deref(),
                Some("Bearer sk-backup"),
                "{what}"
            );
            assert_eq!(
                sent.header("x-primary"),
                None,
                "{what}: a header of the other service"
            );
            let host = sent.header("host").unwrap();
            assert_eq!(host, backup.address().to_string(), "{what}");
            let json: Value = serde_json::from_slice(&sent.body).unwrap();
            assert_eq!(json["model"], "theirs/small", "{what}");
            assert!(sent.body.len() >= length, "{what}");
        }
        assert_fell_back(&gateway, "m", "backup", reason, asked);
        gateway.assert_gauges_zero();
    }
}

/// The address of an upstream that always says this; it lives as long as the process.
fn forever(status: &str) -> String {
    let upstream = Upstream::replying(answer(status, "", "no"));
    let url = upstream.url();
    std::mem::forget(upstream);
    url
}

/// The rule's, the service's, the gateway's; each once. The last answer is the client's.
#[test]
fn services_are_tried_in_order_and_the_last_answer_counts() {
    let order = Arc::<Mutex<Vec<String>>>::default();
    let failing = |name: &'static str, status: &'static str| {
        let order = order.clone();
        Script::start(move |_, _, _| {
            order.lock().unwrap().push(name.to_owned());
            answer(
                status,
                &format!("x-own: {name}\r\ncontent-type: text/plain\r\n"),
                &format!("{name} failed"),
            )
        })
    };
    let a = failing("a", "500 Internal Server Error");
    let r = failing("r", "502 Bad Gateway");
    let s = failing("s", "429 Too Many Requests");
    let g = failing("g", "503 Service Unavailable");
    let mut toml = "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\nfallback = [\"r\", \"s\", \"g\"]\n[[rule]]\ngateway = \"main\"\npath = \"/v1/*\"\nservices = [\"a\"]\nfallback = [\"r\", \"a\"]\n".to_owned();
    toml += &offer(
        "a",
        &format!("{OFF}fallback = [\"s\", \"r\"]\n"),
        "",
        &[a.url()],
    );
    for (name, script) in [("r", &r), ("s", &s), ("g", &g)] {
        toml += &offer(name, OFF, "", &[script.url()]);
    }
    let gateway = Gateway::start(&toml);
    for length in [200, 200_000] {
        let mut client = gateway.client();
        client.send(chunked(CHAT, "", &padded("a", length), 10_000));
        let reply = client.reply();
        assert_eq!(
            std::mem::take(&mut *order.lock().unwrap()),
            ["a", "r", "s", "g"]
        );
        assert_eq!((reply.status, reply.text()), (503, "g failed".into()));
        assert_eq!(reply.header("x-own"), Some("g"));
        assert_eq!(reply.header("content-type"), Some("text/plain"));
        assert_eq!(reply.header("x-tollgate-attempts"), Some("4"));
        assert!(reply.complete);
    }
    for (from, to, reason) in [("a", "r", "5xx"), ("r", "s", "5xx"), ("s", "g", "429")] {
        assert_fell_back(&gateway, from, to, reason, 2.0);
    }
    gateway.assert_gauges_zero();
}

/// The only answer there was is the client's, whole, although others were tried after it.
#[test]
fn an_answer_is_kept_while_others_are_tried() {
    let down = offer("backup", OFF, "", &[format!("http://{}", closed_address())]);
    for (status, line) in [
        (500, "500 Internal Server Error"),
        (429, "429 Too Many Requests"),
    ] {
        let upstream = Upstream::replying(answer(
            line,
            "x-own: 1\r\ncontent-type: text/plain\r\n",
            "theirs",
        ));
        let gateway = Gateway::start(&(offer("m", TO_BACKUP, "", &[upstream.url()]) + &down));
        for length in [200_000, 200] {
            let mut client = gateway.client();
            client.send(chunked(CHAT, "", &padded("m", length), 10_000));
            let reply = client.reply();
            assert_eq!(reply.status, status, "{}", reply.text());
            assert_eq!(reply.header("x-own"), Some("1"));
            assert_eq!(reply.text(), "theirs", "{status}, {length}");
        }
        gateway.assert_gauges_zero();
    }
}

/// What our own word replaces must not be described by the headers of what it replaces.
#[test]
fn an_answer_without_its_body_does_not_claim_its_coding() {
    let down = offer("backup", OFF, "", &[format!("http://{}", closed_address())]);
    let fields = "content-type: text/plain\r\ncontent-encoding: gzip\r\netag: \"1\"\r\n";
    let upstream = Upstream::replying(answer("500 Internal Server Error", fields, "\u{1f}gzip"));
    let gateway = Gateway::start(&(offer("m", TO_BACKUP, "", &[upstream.url()]) + &down));
    let reply = gateway.client().chat("m", "");
    assert_eq!(reply.status, 500);
    if reply.text() != "\u{1f}gzip" {
        assert_eq!(reply.header("content-encoding"), None, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
}

/// What stands before the fallback costs nothing once it is known to be down, and is used again when it is back.
fn steady(upstream: &str, warm_up: usize, returns: Duration) {
    let local = engine();
    let (address, url) = (local.address(), local.url());
    let backup = engine();
    let toml = offer("m", TO_BACKUP, upstream, &[url]) + &offer("backup", "", "", &[backup.url()]);
    let gateway = Gateway::start(&toml);
    until("the local engine to serve", || {
        let reply = gateway.client().chat("m", "");
        (reply.header("x-tollgate-service") == Some("m")).then_some(())
    });
    local.stop();
    for _ in 0..warm_up {
        gateway.client().chat("m", "").assert_ok();
    }
    until("the local engine to be out", || {
        let reply = gateway.client().chat("m", "");
        reply.assert_ok();
        (reply.header("x-tollgate-attempts") == Some("1")).then_some(())
    });
    let before = calls(&backup);
    let mut client = gateway.client();
    for _ in 0..20 {
        let reply = client.chat("m", "");
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-service"), Some("backup"));
        assert_eq!(reply.header("x-tollgate-attempts"), Some("1"));
        assert_ne!(reply.header("connection"), Some("close"));
    }
    assert_eq!(calls(&backup) - before, 20, "one call each");
    gateway.wait_for(
        "tollgate_fallbacks_total",
        &[("reason", "unavailable")],
        |n| n >= 20.0,
    );
    let again = restart(&engine_config(address));
    let back = Instant::now();
    until("service to return", || {
        let reply = client.chat("m", "");
        reply.assert_ok();
        (reply.header("x-tollgate-service") == Some("m")).then_some(())
    });
    let took = back.elapsed();
    assert!(took < returns, "it returned after {took:?}");
    assert!(calls(&again) >= 1);
    gateway.assert_gauges_zero();
}

fn engine_config(address: std::net::SocketAddr) -> tollgate_bench::engine::EngineConfig {
    tollgate_bench::engine::EngineConfig {
        address,
        ..Default::default()
    }
}

#[test]
fn a_pool_that_checks_found_down_is_passed_over() {
    let slack = Duration::from_millis(250);
    let health = "health = { type = \"http\", interval = \"500ms\", timeout = \"300ms\" }\n";
    steady(health, 0, Duration::from_millis(500) + slack);
    let health = "health = { type = \"tcp\", interval = \"500ms\", timeout = \"300ms\" }\nbreaker = { failures = 3, open = \"30s\" }\n";
    steady(health, 5, Duration::from_millis(500) + slack);
}

#[test]
fn a_pool_whose_breakers_are_open_is_passed_over() {
    let breaker = "breaker = { failures = 3, open = \"1s\" }\n";
    steady(breaker, 3, Duration::from_millis(1_500));
}

/// The first fallback of a burst may cost the connection, never the request.
#[test]
fn many_clients_fall_back_at_once() {
    let (primary, backup) = (engine(), engine_with(|config| config.threads = 2));
    always(&primary, "status=503, delay=20ms");
    let toml =
        offer("m", TO_BACKUP, "", &[primary.url()]) + &offer("backup", "", "", &[backup.url()]);
    let gateway = Gateway::start(&toml);
    within(Duration::from_secs(8), "all of them", || {
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let reply = gateway.client().chat("m", "");
                        reply.assert_ok();
                        assert_eq!(reply.header("x-tollgate-service"), Some("backup"));
                    }
                });
            }
        });
    });
    assert_eq!((calls(&primary), calls(&backup)), (320, 320));
    assert_fell_back(&gateway, "m", "backup", "5xx", 320.0);
    gateway.assert_gauges_zero();
}

/// Retries come before a fallback, and the fallback has its own.
#[test]
fn retries_come_first() {
    let engines: [Engine; 2] = [engine(), engine()];
    for engine in &engines {
        always(engine, "status=500");
    }
    let backup = Script::of(vec![answer("500 Internal Server Error", "", "no"), ok()]);
    let urls: Vec<String> = engines.iter().map(|e| e.url()).collect();
    let toml = offer(
        "m",
        "retry = { attempts = 1 }\nfallback = [\"backup\"]\n",
        "",
        &urls,
    ) + &offer("backup", "retry = { attempts = 1 }\n", "", &[backup.url()]);
    let gateway = Gateway::start(&toml);
    let reply = gateway.client().post(CHAT, chat("m"));
    reply.assert_ok();
    assert_eq!(reply.header("x-tollgate-attempts"), Some("4"));
    assert_eq!(
        (calls(&engines[0]), calls(&engines[1]), backup.calls()),
        (1, 1, 2)
    );
    gateway.assert_gauges_zero();
}
