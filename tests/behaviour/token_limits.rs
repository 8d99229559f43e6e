//! `token_rate_limiter` and `budget` beside the engine's own books: what they charge is what it counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tollgate_bench::engine::Engine;

use super::budgets::counted;
use crate::harness::{
    CHAT, Client, Gateway, Reply, Upstream, chat, engine_state, engine_with, padded, post, service,
    streamed, until,
};

const SECRET: &str = "tg_a1_0123456789abcdef0123456789abcdef";
const LIMIT: u64 = 1_000_000;

/// A gateway with keys and one of them.
fn gateway(plugins: &str) -> String {
    format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nplugins = [{plugins}]\n[[key]]\nname = \"a\"\ngateway = \"main\"\nsecret = \"{SECRET}\"\n"
    )
}

fn tokens(limits: &str) -> String {
    format!("{{ name = \"token_rate_limiter\", settings = {{ {limits} }} }},")
}

fn per_key(limit: u64, window: &str) -> String {
    tokens(&format!(
        "limits = {{ per_key = {{ limit = {limit}, window = \"{window}\" }} }}"
    ))
}

fn bearer(more: &str) -> String {
    format!("authorization: Bearer {SECRET}\r\n{more}")
}

fn ask(client: &mut Client, body: impl AsRef<[u8]>, fields: &str) -> Reply {
    client.send(post(CHAT, &bearer(fields), body));
    client.reply()
}

fn remaining(reply: &Reply) -> u64 {
    let told = reply.header("x-ratelimit-remaining-tokens");
    told.unwrap().parse().unwrap()
}

fn spent(engine: &Engine) -> u64 {
    let state = engine.state();
    state.prompt_tokens + state.generated_tokens
}

/// Reads a stream until this many tokens have come, and returns all that came.
fn read_tokens(client: &mut Client, tokens: usize) -> String {
    let mut text = String::new();
    assert_eq!(client.head().unwrap().status, 200);
    while text.matches("\"delta\":{\"content\":\" ").count() < tokens {
        let chunk = client.chunk().unwrap().expect("the stream ended");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    text
}

/// How one of the streams goes.
fn stream(gateway: &Gateway, n: usize, body: &str) {
    let (fields, tokens) = match n % 6 {
        0 | 3 => ("x-sim: stall-after=7\r\n", 7),
        1 => ("x-sim: close-after=5\r\n", 5),
        4 => ("x-sim: garbage-after=3\r\n", 3),
        _ => ("", 12),
    };
    // Every other one over HTTP/2.
    if n % 4 < 2 {
        let mut client = gateway.client();
        client.send(post(CHAT, &bearer(fields), body));
        let mut text = read_tokens(&mut client, tokens);
        if !n.is_multiple_of(3) {
            text += &String::from_utf8_lossy(&client.rest_of_stream());
            assert_eq!(text.contains("[DONE]"), n % 3 == 2, "{n}: {text}");
        }
        return;
    }
    let bearer = format!("Bearer {SECRET}");
    let fields = fields.trim_start_matches("x-sim: ").trim_end();
    let mut headers = vec![("authorization", &*bearer)];
    if !fields.is_empty() {
        headers.push(("x-sim", fields));
    }
    let mut stream = gateway.h2().open("POST", CHAT, &headers, false);
    stream.send(body.to_owned(), true).unwrap();
    assert_eq!(stream.head().unwrap().status, 200);
    let mut text = String::new();
    while text.matches("\"delta\":{\"content\":\" ").count() < tokens {
        text.push_str(&stream.piece().unwrap().expect("the stream ended").text());
    }
    if n.is_multiple_of(3) {
        return stream.cancel();
    }
    while let Ok(Some(piece)) = stream.piece() {
        text.push_str(&piece.text());
    }
    assert_eq!(text.contains("[DONE]"), n % 3 == 2, "{n}: {text}");
}

/// Fifty streams at once, a third of them left by their clients, a third broken off by the engine. The prompt's length is
/// learned from one that went well before.
#[test]
fn what_is_charged_is_what_the_engine_counted() {
    const STREAMS: usize = 50;
    let engine = engine_with(|config| {
        config.itl = Duration::from_millis(10);
        config.tokens = 1_000;
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let budget =
        "{ name = \"budget\", settings = { limit = 1000000.0, unit = \"tokens\" } },".to_owned();
    let toml = format!("[server]\nstate = \"{}\"\n", file.display())
        + &gateway(&(per_key(LIMIT, "1h") + &budget))
        + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    // Of no length that four divides, and much of it no text of the prompt.
    let body = streamed("m", 12).replacen("\"m\"", "\"m\",  \"user\" : \"somebody\"", 1);
    ask(&mut gateway.client(), &body, "").assert_ok();
    std::thread::scope(|scope| {
        for n in 0..STREAMS {
            let (gateway, body) = (&gateway, &body);
            scope.spawn(move || stream(gateway, n, body));
        }
    });
    let state = engine_state(&engine, "all to be over", |state| state.running == 0);
    assert_eq!(state.started, STREAMS as u64 + 1);
    assert_eq!((state.aborted, state.broken), (17, 17), "{state:?}");
    gateway.wait_for("tollgate_requests_total", &[], |n| n == 51.0);
    gateway.assert_gauges_zero();
    let charged = spent(&engine);
    let told = [("input", "prompt"), ("output", "generated")].map(|(direction, _)| {
        let labels = [("direction", direction)];
        gateway.metrics().sum("tollgate_tokens_total", &labels) as u64
    });
    assert_eq!(
        told,
        [state.prompt_tokens, state.generated_tokens],
        "the metrics"
    );
    until("the budget to be written", || {
        let counted = counted(&file);
        assert!(counted <= charged, "{counted} of {charged}");
        (counted == charged).then_some(())
    });
    // The probe has reserved a token for every four bytes, and one more.
    let probe = streamed("m", 1);
    let reserved = probe.len().div_ceil(4) as u64 + 1;
    let reply = ask(&mut gateway.client(), &probe, "");
    assert_eq!(LIMIT - remaining(&reply) - reserved, charged, "the window");
}

/// Prompts of different lengths: the estimate is off by no more than their tokens a byte differ.
#[test]
fn what_is_learned_of_one_service_is_not_taken_for_another() {
    let engine = engine_with(|config| config.itl = Duration::from_millis(10));
    // Says that every byte is a token.
    let wordy = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let length = request.body.len();
            let answer = format!(
                "{{\"choices\":[],\"usage\":{{\"prompt_tokens\":{length},\"completion_tokens\":1}}}}"
            );
            connection.send(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            ));
        }
    });
    let toml = service("m", "m", &engine.url()) + &service("wordy", "wordy", &wordy.url());
    let gateway = Gateway::start(&toml);
    let input = || {
        let labels = [("service", "m"), ("direction", "input")];
        gateway.metrics().sum("tollgate_tokens_total", &labels) as u64
    };
    let of = |length: usize| {
        let text = String::from_utf8(padded("m", length)).unwrap();
        text.replacen('{', "{\"stream\":true,", 1)
    };
    for length in [4_000, 4_400, 3_600] {
        gateway
            .client()
            .post(CHAT, padded("wordy", 500))
            .assert_ok();
        gateway.client().post(CHAT, of(length)).assert_ok();
    }
    until("the engine's count", || {
        (input() == engine.state().prompt_tokens).then_some(())
    });
    let mut client = gateway.client();
    client.send(post(CHAT, "x-sim: stall-after=2\r\n", of(40_000)));
    read_tokens(&mut client, 2);
    drop(client);
    engine_state(&engine, "the client to be missed", |s| s.aborted == 1);
    gateway.wait_for("tollgate_requests_total", &[("code", "499")], |n| n == 1.0);
    let (ours, theirs) = (input() as f64, engine.state().prompt_tokens as f64);
    assert!(
        (ours - theirs).abs() / theirs < 0.03,
        "{ours} instead of {theirs}"
    );
}

/// However many come at once, and however they end, what the engine was made to do stays within the window, and uses it up.
#[test]
fn a_small_limit_is_not_overshot() {
    const SMALL: u64 = 1_500;
    for more in ["", "x-sim: close-after=30\r\n"] {
        let engine = engine_with(|config| {
            config.itl = Duration::from_millis(2);
            config.tokens = 1_000;
        });
        let toml = gateway(&per_key(SMALL, "1h")) + &service("m", "m", &engine.url());
        let gateway = Gateway::start(&toml);
        let body = streamed("m", 40);
        let reservation = body.len().div_ceil(4) as u64 + 40;
        ask(&mut gateway.client(), &body, "").assert_ok();
        loop {
            let passed = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..50 {
                    scope.spawn(|| {
                        let mut client = gateway.client();
                        client.send(post(CHAT, &bearer(more), &body));
                        let reply = client.reply();
                        match reply.status {
                            200 => passed.fetch_add(1, Ordering::SeqCst),
                            _ => {
                                reply.assert_refused(429, "rate_limit_exceeded");
                                0
                            }
                        };
                    });
                }
            });
            let spent = spent(&engine);
            assert!(spent <= SMALL, "{spent} tokens");
            gateway.assert_gauges_zero();
            if passed.into_inner() == 0 {
                assert!(spent + reservation > SMALL, "only {spent} tokens");
                break;
            }
        }
    }
}

/// What was refused, by this plugin, by another, by the routing or by the upstream, is not charged.
#[test]
fn what_was_refused_is_not_charged() {
    let engine = engine_with(|_| ());
    let allow = "{ name = \"model_allowlist\", priority = 9, settings = { models = [\"m\", \"none\", \"dead\"] } },";
    let toml = gateway(&(per_key(2_000, "1h") + allow))
        + &service("m", "m", &engine.url())
        + &service("dead", "dead", "http://127.0.0.1:1");
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    let first = ask(&mut client, streamed("m", 1), "");
    first.assert_ok();
    for (model, fields, status) in [
        ("other", "", 403),
        ("none", "", 404),
        ("dead", "", 502),
        ("m", "x-sim: status=500\r\n", 500),
        ("m", "x-sim: status=400\r\n", 400),
    ] {
        for _ in 0..3 {
            let reply = ask(&mut gateway.client(), chat(model), fields);
            assert!(
                reply.status == status || (status == 502 && reply.status == 503),
                "{}: {}",
                reply.status,
                reply.text()
            );
        }
    }
    let large = padded("m", 6_000);
    for _ in 0..3 {
        ask(&mut client, &large, "").assert_refused(429, "rate_limit_exceeded");
    }
    let second = ask(&mut client, streamed("m", 1), "");
    let used = until("both probes to be counted", || {
        let sum = |direction| {
            let labels = [("direction", direction)];
            gateway.metrics().sum("tollgate_tokens_total", &labels) as u64
        };
        (sum("output") == 2).then(|| (sum("input") + 2) / 2)
    });
    // Both reserved alike; meanwhile the first was settled to what it used, and nothing else was charged.
    let reserved = streamed("m", 1).len().div_ceil(4) as u64 + 1;
    assert_eq!(remaining(&first), 2_000 - reserved);
    assert_eq!(remaining(&second), 2_000 - used - reserved);
}

/// Who waits as long as told is let in, and who comes sooner is not.
#[test]
fn who_waits_as_long_as_told_is_let_in() {
    let engine = engine_with(|config| config.tokens = 60);
    for settings in [
        "limits = { per_key = { limit = 100, window = \"2s\" } }, default_output = 60",
        "tokens_per_request = 50, bucket_size = 100, tokens_per_minute = 3000, requests_per_minute = 1000",
    ] {
        let toml = gateway(&tokens(settings)) + &service("m", "m", &engine.url());
        let gateway = Gateway::start(&toml);
        let mut client = gateway.client();
        let (mut passed, mut refused) = (0, None);
        while refused.is_none() {
            let reply = ask(&mut client, chat("m"), "");
            match reply.status {
                200 => passed += 1,
                _ => refused = Some(reply),
            }
            assert!(passed < 20, "nothing is refused: {settings}");
        }
        let reply = refused.unwrap();
        reply.assert_refused(429, "rate_limit_exceeded");
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!(passed > 0 && (1..=2).contains(&wait), "{passed}, {wait}");
        let start = Instant::now();
        std::thread::sleep(Duration::from_secs(wait));
        let reply = ask(&mut client, chat("m"), "");
        assert_eq!(
            reply.status,
            200,
            "{settings}, after {:?}: {}",
            start.elapsed(),
            reply.text()
        );
    }
}
