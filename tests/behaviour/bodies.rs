//! Bodies of every size arrive byte for byte, whatever the framing on either side.

use serde_json::Value;
use tollgate_bench::engine::Engine;

use crate::harness::{
    Gateway, H2Client, Reply, chunked, engine, h2c, noise, padded, post, service, sha256,
};

const SIZES: [usize; 7] = [0, 1, 65_535, 65_536, 65_537, 1 << 20, 20 << 20];

/// How a client frames a body.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length,
    Chunked,
    H2WithLength,
    H2,
}

const FRAMINGS: [Framing; 4] = [
    Framing::Length,
    Framing::Chunked,
    Framing::H2WithLength,
    Framing::H2,
];

/// Sends a body to a path where the engine answers with what it received.
fn send(gateway: &Gateway, framing: Framing, fields: &[(&str, &str)], body: &[u8]) -> Reply {
    let lines: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let over_h2 = |length| {
        let client: H2Client = gateway.h2();
        let reply = client.post("/v1/chat/completions", fields, body.to_vec(), length);
        reply.unwrap_or_else(|error| panic!("{framing:?} {}: {error}", body.len()))
    };
    let mut client = gateway.client();
    let request = match framing {
        Framing::Length => post("/v1/chat/completions", &lines, body),
        Framing::Chunked => chunked("/v1/chat/completions", &lines, body, 7_001),
        Framing::H2WithLength => return over_h2(true),
        Framing::H2 => return over_h2(false),
    };
    let sending = client.send_aside(request);
    let reply = client
        .try_reply()
        .unwrap_or_else(|error| panic!("{framing:?} {}: {error}", body.len()));
    sending.join().unwrap().unwrap();
    reply
}

/// Every framing to both kinds of upstream: models `h1` and `h2`. Tells everything that went wrong, not only the
/// first.
fn run(
    gateway: &Gateway,
    sizes: &[usize],
    make: impl Fn(&str, usize) -> (Vec<u8>, Vec<u8>),
    fields: impl Fn(&str) -> Vec<(&'static str, String)>,
) {
    let mut wrong = Vec::new();
    for &size in sizes {
        for model in ["h1", "h2"] {
            let (sent, expected) = make(model, size);
            let fields = fields(model);
            let fields: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
            for framing in FRAMINGS {
                let reply = send(gateway, framing, &fields, &sent);
                if let Err(what) = compare(&reply, model, &expected) {
                    wrong.push(format!("{size} B, {framing:?} to {model}: {what}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    gateway.assert_gauges_zero();
}

fn compare(reply: &Reply, model: &str, expected: &[u8]) -> Result<(), String> {
    if reply.status != 200 || !reply.complete {
        return Err(format!("{} {}", reply.status, reply.text()));
    }
    let seen: Value = reply.json();
    let protocol = if model == "h1" { "HTTP/1.1" } else { "HTTP/2" };
    if seen["protocol"] != protocol {
        return Err(format!("went over {}", seen["protocol"]));
    }
    if seen["bytes"] != expected.len() || seen["sha256"] != sha256(expected) {
        return Err(format!("other bytes arrived: {}", seen["bytes"]));
    }
    Ok(())
}

fn both(engine: &Engine, kind: &str) -> String {
    let one =
        |name: &str, target: &str| format!("{}type = \"{kind}\"\n", service(name, name, target));
    one("h1", &engine.url()) + &one("h2", &h2c(engine))
}

const BY_HEADER: &str = r#"
[[gateway]]
name = "main"
hosts = ["*"]
auth = "none"
routing = { by = "header", header = "X-Model" }
"#;

fn opaque(model: &str) -> Vec<(&'static str, String)> {
    vec![
        ("x-model", model.to_owned()),
        ("x-sim", "echo".to_owned()),
        ("content-type", "application/octet-stream".to_owned()),
    ]
}

fn json(_: &str) -> Vec<(&'static str, String)> {
    vec![("x-sim", "echo".to_owned())]
}

/// The model stands in the body, so it is read whole before it is sent.
#[test]
fn json_arrives_as_it_was_sent() {
    let engine = engine();
    let gateway = Gateway::start(&both(&engine, "openai"));
    let make = |model: &str, size| {
        let body = padded(model, size);
        (body.clone(), body)
    };
    let mut sizes = vec![100];
    sizes.extend_from_slice(&SIZES[2..]);
    run(&gateway, &sizes, make, json);
}

/// With an alias the model's name changes, and with it the length; nothing else does.
#[test]
fn an_alias_changes_the_name_and_nothing_else() {
    let engine = engine();
    let alias = "provider/quite-a-long-name";
    let toml = both(&engine, "openai").replace("type =", &format!("model = \"{alias}\"\ntype ="));
    let gateway = Gateway::start(&toml);
    let make = |model: &str, size| {
        let sent = padded(model, size);
        let text = String::from_utf8(sent.clone()).unwrap();
        let (from, to) = (
            format!("\"model\":\"{model}\""),
            format!("\"model\":\"{alias}\""),
        );
        (sent, text.replacen(&from, &to, 1).into_bytes())
    };
    let sizes = [100, 65_510, 65_535, 65_536, 65_537, 1 << 20, 20 << 20];
    run(&gateway, &sizes, make, json);
}

/// A metered service reads bodies whole even where the header names the model, and whatever they are.
#[test]
fn opaque_bodies_arrive_through_a_metered_service() {
    let engine = engine();
    let gateway = Gateway::start(&(BY_HEADER.to_owned() + &both(&engine, "openai")));
    let make = |_: &str, size| (noise(size), noise(size));
    run(&gateway, &SIZES, make, opaque);
}

#[test]
fn opaque_bodies_arrive_through_a_streamed_service() {
    let engine = engine();
    let gateway = Gateway::start(&(BY_HEADER.to_owned() + &both(&engine, "http")));
    let make = |_: &str, size| (noise(size), noise(size));
    run(&gateway, &SIZES, make, opaque);
}

/// The same connection carries one size after the other: nothing of a body is left behind.
#[test]
fn one_connection_carries_bodies_of_all_sizes() {
    let engine = engine();
    let gateway = Gateway::start(&both(&engine, "openai"));
    let mut client = gateway.client();
    let h2 = gateway.h2();
    for size in [100, 65_537, 200, 70_000, 65_536, 131_073, 64] {
        let body = padded("h1", size);
        client.send(post("/v1/chat/completions", "x-sim: echo\r\n", &body));
        compare(&client.reply(), "h1", &body).unwrap();
        client.send(chunked(
            "/v1/chat/completions",
            "x-sim: echo\r\n",
            &body,
            1_000,
        ));
        compare(&client.reply(), "h1", &body).unwrap();
        let reply = h2.post(
            "/v1/chat/completions",
            &[("x-sim", "echo")],
            body.clone(),
            false,
        );
        compare(&reply.unwrap(), "h1", &body).unwrap();
    }
}

/// Chunks of one byte, chunk extensions and trailers are the client's business, not the upstream's.
#[test]
fn odd_chunks_make_the_same_body() {
    let engine = engine();
    let gateway = Gateway::start(&both(&engine, "openai"));
    let body = padded("h1", 3_000);
    let mut client = gateway.client();
    client.send(chunked("/v1/chat/completions", "x-sim: echo\r\n", &body, 1));
    compare(&client.reply(), "h1", &body).unwrap();
    let mut odd = b"POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\nx-sim: echo\r\ntransfer-encoding: Chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(999) {
        odd.extend_from_slice(format!("{:05X};name=\"v;\"\r\n", chunk.len()).as_bytes());
        odd.extend_from_slice(chunk);
        odd.extend_from_slice(b"\r\n");
    }
    odd.extend_from_slice(b"000\r\nx-checksum: 1\r\n\r\n");
    client.send(odd);
    compare(&client.reply(), "h1", &body).unwrap();
}

/// A client that sends byte by byte and one that pauses inside the head are served like any other.
#[test]
fn slow_senders_are_served() {
    let engine = engine();
    let gateway = Gateway::start(&both(&engine, "openai"));
    let body = padded("h1", 300);
    let request = post("/v1/chat/completions", "x-sim: echo\r\n", &body);
    let mut client = gateway.client();
    for byte in request.chunks(1) {
        client.send(byte);
    }
    compare(&client.reply(), "h1", &body).unwrap();
    for part in request.chunks(request.len() / 4) {
        client.send(part);
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    compare(&client.reply(), "h1", &body).unwrap();
}

/// Whatever part of a body comes alone, its last byte included, is waited for and read.
#[test]
fn the_last_byte_may_come_alone() {
    let engine = engine();
    let toml = BY_HEADER.to_owned()
        + &service("whole", "whole", &engine.url())
        + &service("raw", "raw", &engine.url())
        + "type = \"http\"\n";
    let gateway = Gateway::start(&toml);
    for model in ["whole", "raw"] {
        let fields = format!(
            "x-model: {model}\r\nx-sim: echo\r\ncontent-type: application/octet-stream\r\n"
        );
        for length in [1, 2, 300, 70_000] {
            let body = noise(length);
            let plain = post("/v1/chat/completions", &fields, &body);
            let chunks = chunked("/v1/chat/completions", &fields, &body, 50_000);
            for request in [plain, chunks] {
                for alone in [1, 2, 5, 6, 7, 8] {
                    let (first, last) = request.split_at(request.len() - alone);
                    let mut client = gateway.client();
                    client.patience(std::time::Duration::from_secs(3));
                    client.send(first);
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    client.send(last);
                    let reply = client.try_reply().unwrap_or_else(|error| {
                        panic!("{model}, {length} bytes, the last {alone} alone: {error}")
                    });
                    compare(&reply, "h1", &body).unwrap();
                }
            }
        }
    }
    gateway.assert_gauges_zero();
}
