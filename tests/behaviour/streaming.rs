//! Streamed answers come chunk by chunk, at once, and unchanged.

use std::time::Duration;

use tollgate_bench::engine::Engine;

use crate::harness::{
    CHAT, Client, Gateway, Piece, Reply, Upstream, chunked, engine_with, h2c, median, post,
    service, streamed,
};

const AT_ONCE: Duration = Duration::from_millis(5);

/// How long after the engine sent each token the client saw it: the token's text is its time.
fn delays(pieces: &[Piece]) -> Result<Vec<Duration>, String> {
    let mut delays = Vec::new();
    for piece in pieces {
        let text = piece.text();
        let tokens: Vec<u64> = text
            .split("\"content\":\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next()?.trim().parse().ok())
            .collect();
        if tokens.len() > 1 {
            return Err(format!("coalesced across a pause: {text}"));
        }
        delays.extend(
            tokens
                .iter()
                .map(|sent| Duration::from_nanos(piece.unix.saturating_sub(*sent))),
        );
    }
    Ok(delays)
}

const PAUSE: Duration = Duration::from_millis(40);
const TOKENS: usize = 20;

fn paced() -> Engine {
    engine_with(|config| {
        config.itl = PAUSE;
        config.tokens = TOKENS;
    })
}

/// A stream in which every token came at once. The machine may be busy with something else for as long as a pause
/// lasts, so the best of three counts: what holds tokens back by design does so every time.
#[track_caller]
fn assert_at_once(what: &str, mut ask: impl FnMut() -> Reply) {
    let mut seen = Err(String::new());
    for _ in 0..3 {
        let reply = ask();
        reply.assert_ok();
        seen = delays(&reply.pieces).and_then(|delays| {
            assert_eq!(delays.len(), TOKENS, "{what}");
            let middle = median(delays);
            (middle < AT_ONCE)
                .then_some(())
                .ok_or(format!("{middle:?}"))
        });
        if seen.is_ok() {
            return;
        }
    }
    panic!("{what}: {seen:?}");
}

#[test]
fn a_chunk_is_seen_when_it_is_sent() {
    let engine = paced();
    let toml = service("h1", "h1", &engine.url()) + &service("h2", "h2", &h2c(&engine));
    let gateway = Gateway::start(&toml);
    for model in ["h1", "h2"] {
        let body = streamed(model, TOKENS);
        assert_at_once(&format!("HTTP/1.1 from {model}"), || {
            let mut client = gateway.client();
            client.send(post(CHAT, "x-sim: stamp\r\n", &body));
            client.reply()
        });
        assert_at_once(&format!("HTTP/2 from {model}"), || {
            gateway
                .h2()
                .post(CHAT, &[("x-sim", "stamp")], body.clone(), true)
                .unwrap()
        });
    }
}

/// A chunked body over 64 KiB takes another road inside; its answer streams all the same.
#[test]
fn the_other_road_streams_too() {
    let engine = paced();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let body = streamed("m", TOKENS).replace("go", &"x".repeat(100_000));
    assert_at_once("chunked", || {
        let mut client = gateway.client();
        client.send(chunked(CHAT, "x-sim: stamp\r\n", body.as_bytes(), 9_000));
        client.reply()
    });
    assert_at_once("HTTP/2", || {
        gateway
            .h2()
            .post(CHAT, &[("x-sim", "stamp")], body.clone(), false)
            .unwrap()
    });
}

/// A client waits for the head to learn that it was accepted; it is not held back for the first token.
#[test]
fn the_head_comes_before_the_first_token() {
    let engine = engine_with(|config| config.ttft = Duration::from_millis(600));
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let mut client = gateway.client();
    let start = std::time::Instant::now();
    client.send(post(CHAT, "", streamed("m", 3)));
    let mut reply = client.head().unwrap();
    let head = start.elapsed();
    assert!(head < Duration::from_millis(400), "{head:?}");
    client.body(&mut reply).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(600));
    reply.assert_ok();
}

/// What differs between two calls with the same content.
fn without_times(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\"created\":") {
        out.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out + rest
}

#[test]
fn a_stream_is_what_the_engine_sent() {
    let engine = engine_with(|config| config.itl = Duration::from_millis(1));
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let with_usage = streamed("m", 30).replacen(
        "\"stream\":true",
        "\"stream\":true,\"stream_options\":{\"include_usage\":true}",
        1,
    );
    let completion = r#"{"model":"m","stream":true,"max_tokens":20,"prompt":"go"}"#.to_owned();
    let response = r#"{"model":"m","stream":true,"max_output_tokens":20,"input":"go"}"#.to_owned();
    for (path, body) in [
        (CHAT, streamed("m", 30)),
        (CHAT, with_usage),
        ("/v1/completions", completion),
        ("/v1/responses", response),
    ] {
        let direct = Client::connect(engine.address()).post(path, &body);
        let through = gateway.client().post(path, &body);
        through.assert_ok();
        assert_eq!(
            without_times(&through.text()),
            without_times(&direct.text()),
            "{path} {body}"
        );
        assert_eq!(
            through.header("content-type"),
            direct.header("content-type")
        );
    }
}

/// Whatever a chunk boundary cuts through, the client sees the same bytes.
#[test]
fn events_survive_any_split() {
    let events = "data: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\\n\\n\"}}]}\n\n: a comment\n\ndata: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\u{1F600}\"},\"finish_reason\":\"stop\"}]}\r\n\r\n";
    let usage = "data: {\"id\":\"1\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\n";
    let done = "data: [DONE]\n\n";
    let whole = format!("{events}{usage}{done}").into_bytes();
    for size in [1, 2, 3, 7, 50, whole.len()] {
        let sent = whole.clone();
        let upstream = Upstream::start(move |connection| {
            connection.request().unwrap();
            connection.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            for piece in sent.chunks(size) {
                connection.send_chunk(piece);
                if size < 3 {
                    connection.pause(Duration::from_micros(300));
                }
            }
            connection.send("0\r\n\r\n");
        });
        let gateway = Gateway::start(&service("m", "m", &upstream.url()));
        let reply = gateway.client().post(CHAT, streamed("m", 2));
        reply.assert_ok();
        assert_eq!(reply.text(), format!("{events}{done}"), "pieces of {size}");
        gateway.wait_for("tollgate_tokens_total", &[("direction", "output")], |n| {
            n == 2.0
        });
        gateway.wait_for("tollgate_tokens_total", &[("direction", "input")], |n| {
            n == 3.0
        });
    }
}

/// A pause of the upstream is a pause of the client, also in what is no stream of events.
#[test]
fn nothing_waits_for_what_comes_later() {
    const PAUSE: Duration = Duration::from_millis(300);
    let heads = [
        (
            "chunked",
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            "close",
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n",
        ),
        (
            "length",
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\n",
        ),
    ];
    for (framing, head) in heads {
        let upstream = Upstream::start(move |connection| {
            connection.request().unwrap();
            connection.send(head);
            for half in ["12345", "67890"] {
                match framing {
                    "chunked" => connection.send_chunk(half),
                    _ => connection.send(half),
                }
                connection.pause(PAUSE);
            }
            if framing == "chunked" {
                connection.send("0\r\n\r\n");
            }
        });
        let http = service("m", "m", &upstream.url()) + "type = \"http\"\n";
        let gateway = Gateway::start(&http);
        let reply = gateway.client().chat("m", "");
        reply.assert_ok();
        assert_eq!(reply.text(), "1234567890", "{framing}");
        let (first, last) = (&reply.pieces[0], reply.pieces.last().unwrap());
        let apart = last.at - first.at;
        assert!(
            apart > PAUSE / 2,
            "{framing}: the first half was held back, {apart:?}"
        );
    }
}
