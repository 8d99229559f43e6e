//! Services of type `http` and `grpc` pass both ways unbuffered, WebSockets included.

use std::time::Duration;

use crate::harness::{Gateway, H2Behaviour, H2Upstream, Upstream, chunked, service};

fn gateway(kind: &str, target: &str) -> Gateway {
    Gateway::start(&format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\nrouting = \"none\"\n[[service]]\nname = \"raw\"\ntype = \"{kind}\"\npath_prefix = \"/\"\nstrip_prefix = false\ntargets = [\"{target}\"]\n"
    ))
}

/// An upstream that sends its head at once and every chunk back as it comes.
fn echo() -> Upstream {
    Upstream::start(|connection| {
        if connection.head().is_none() {
            return;
        }
        connection.send(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        while let Ok(chunk) = connection.chunk() {
            connection.send_chunk(&chunk);
            if chunk.is_empty() {
                return;
            }
        }
    })
}

/// The next chunk is sent only when the last one has come back: whatever holds one back stands still.
#[test]
fn chunks_come_back_one_by_one() {
    let upstream = echo();
    let gateway = gateway("http", &upstream.url());
    let mut client = gateway.client();
    client
        .send("POST /x HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    let head = client.head().unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(client.chunk().unwrap().unwrap(), b"first");
    for n in 0..50 {
        let text = format!("chunk {n:04}");
        client.send(format!("{:x}\r\n{text}\r\n", text.len()));
        assert_eq!(client.chunk().unwrap().unwrap(), text.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.chunk().unwrap(), None);
    gateway.assert_gauges_zero();
}

#[test]
fn frames_come_back_one_by_one_with_trailers() {
    let upstream = H2Upstream::start(H2Behaviour::Echo);
    for kind in ["grpc", "http"] {
        let gateway = gateway(kind, &upstream.url());
        let client = gateway.h2();
        let fields = [("content-type", "application/grpc"), ("te", "trailers")];
        let mut stream = client.open("POST", "/pkg.Service/Method", &fields, false);
        let mut reply = stream.head().unwrap();
        assert_eq!(reply.status, 200);
        for n in 0..20 {
            let text = format!("message {n}");
            stream.send(text.clone(), false).unwrap();
            assert_eq!(stream.piece().unwrap().unwrap().bytes, text.as_bytes());
        }
        stream.send("last", true).unwrap();
        stream.body(&mut reply).unwrap();
        assert_eq!(reply.text(), "last");
        assert_eq!(
            reply.trailer("grpc-status"),
            Some("0"),
            "{kind}: trailers pass"
        );
        assert_eq!(reply.trailer("grpc-message"), Some("done"));
        let head = upstream.heads().pop().unwrap();
        assert_eq!(head.uri().path(), "/pkg.Service/Method");
        assert_eq!(head.headers()["te"], "trailers", "{kind}: gRPC needs it");
        gateway.assert_gauges_zero();
    }
}

/// A gRPC stream may carry more than `max_body`: it has no end of its own.
#[test]
fn a_grpc_stream_has_no_length_limit() {
    let upstream = H2Upstream::start(H2Behaviour::Echo);
    let gateway = Gateway::start(&format!(
        "[server]\nmax_body = \"64KiB\"\n[[service]]\nname = \"raw\"\ntype = \"grpc\"\npath_prefix = \"/pkg.S\"\nstrip_prefix = false\ntargets = [\"{}\"]\n",
        upstream.url()
    ));
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let body = crate::harness::noise(500_000);
    let reply = gateway
        .h2()
        .post("/pkg.S/M", &fields, body.clone(), false)
        .unwrap();
    assert_eq!(
        reply.trailer("grpc-status"),
        Some("0"),
        "{}",
        reply.body.len()
    );
    assert!(reply.body == body);
}

#[test]
fn a_websocket_passes() {
    let upstream = Upstream::start(|connection| {
        let Some(request) = connection.head() else {
            return;
        };
        assert_eq!(request.header("upgrade").as_deref(), Some("websocket"));
        connection.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
        // Frames are only bytes to everybody between.
        while let Ok(byte) = connection.take(1) {
            connection.send(byte);
        }
    });
    for kind in ["http", "openai"] {
        let toml = match kind {
            "http" => format!(
                "type = \"http\"\npath_prefix = \"/ws\"\ntargets = [\"{}\"]\n",
                upstream.url()
            ),
            _ => format!(
                "models = [\"m\"]\npath_prefix = \"/ws\"\ntargets = [\"{}\"]\n",
                upstream.url()
            ),
        };
        let gateway = Gateway::start(&format!(
            "[[service]]\nname = \"raw\"\n{toml}timeouts = {{ first_byte = \"400ms\" }}\n"
        ));
        let mut client = gateway.client();
        client.send("GET /ws/live HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        let head = client.head().unwrap();
        assert_eq!(head.status, 101, "{kind}");
        assert_eq!(head.header("upgrade"), Some("websocket"));
        assert_eq!(
            head.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        for n in 0..20 {
            let frame = format!("\u{1}frame {n}\0");
            client.send(&frame);
            assert_eq!(client.take(frame.len()).unwrap(), frame.as_bytes());
        }
        // Quiet for longer than an answer's head may take.
        std::thread::sleep(Duration::from_millis(600));
        client.send("still there?");
        assert_eq!(client.take(12).unwrap(), b"still there?");
        drop(client);
        gateway.assert_gauges_zero();
    }
}

/// A WebSocket that the upstream refuses is an answer like any other.
#[test]
fn a_refused_websocket_is_an_answer() {
    let upstream = Upstream::replying("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
    let gateway = gateway("http", &upstream.url());
    let mut client = gateway.client();
    client.send("GET /ws HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.status, reply.text().as_str()), (403, "no"));
}

/// Bytes after a request for an upgrade that was refused are no second request, and none is smuggled through.
#[test]
fn bytes_behind_a_refused_upgrade_go_nowhere() {
    let upstream = Upstream::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let gateway = gateway("http", &upstream.url());
    let mut client = gateway.client();
    client.patience(Duration::from_millis(500));
    client.send("GET /ws HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n");
    let _ = client.rest();
    for request in upstream.requests() {
        request.assert_unambiguous();
    }
    let raw = String::from_utf8_lossy(&upstream.received().concat()).into_owned();
    let requests = upstream.requests().len();
    assert_eq!(raw.matches(" HTTP/1.1\r\n").count(), requests, "{raw}");
}

/// Java's client offers h2c with its first request over plain text. Whoever does not take the offer serves the request
/// as if it had not been made; and the offer lifts no limit.
#[test]
fn an_offer_of_h2c_changes_nothing() {
    let upstream = Upstream::obliging();
    let toml = "[server]\nmax_body = \"64KiB\"\n".to_owned()
        + &service("m", "m", &upstream.url())
        + &format!(
            "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\ntargets = [\"{}\"]\n",
            upstream.url()
        );
    let gateway = Gateway::start(&toml);
    let offer = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n";
    for path in ["/v1/chat/completions", "/raw/x"] {
        let body = crate::harness::chat("m");
        let mut client = gateway.client();
        client.send(crate::harness::post(path, offer, &body));
        let reply = client.reply();
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert_eq!(upstream.last().body, body.into_bytes());
        assert_eq!(upstream.last().header("upgrade"), None);
        for upgrade in ["h2c", "websocket", "x"] {
            let fields = format!("connection: upgrade\r\nupgrade: {upgrade}\r\n");
            let mut client = gateway.client();
            let sending = client.send_aside(chunked(
                path,
                &fields,
                &crate::harness::noise(500_000),
                9_000,
            ));
            let reply = client.reply();
            assert!(
                matches!(reply.status, 413 | 400),
                "{path}, {upgrade}: {} {}",
                reply.status,
                reply.text()
            );
            drop(client);
            let _ = sending.join();
        }
    }
}

/// Any method and any path, as they came.
#[test]
fn methods_and_paths_pass() {
    let upstream = Upstream::obliging();
    let gateway = gateway("http", &upstream.url());
    let mut client = gateway.client();
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"] {
        client.send(
            format!("{method} /a/b%20c//d;e=f?g=h&i=%2F%3f#  HTTP/1.1\r\n").replace("#  ", " ")
                + "host: test\r\ncontent-length: 0\r\n\r\n",
        );
        client.reply().assert_ok();
        let seen = upstream.last();
        assert_eq!(seen.method(), method);
        assert_eq!(seen.path(), "/a/b%20c//d;e=f?g=h&i=%2F%3f");
    }
}

/// A compressed answer of an `http` service stays compressed, and the wish for it is passed on.
#[test]
fn encodings_pass() {
    let upstream = Upstream::replying(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x0b\x08\x00",
    );
    let gateway = gateway("http", &upstream.url());
    let reply = gateway.client().get("/x", "accept-encoding: gzip, br\r\n");
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert_eq!(reply.body, b"\x1f\x0b\x08\x00");
    assert_eq!(
        upstream.last().header("accept-encoding").as_deref(),
        Some("gzip, br")
    );
}

/// A streamed request is not read ahead without end: a client is held back by a slow upstream.
#[test]
fn a_slow_upstream_holds_the_client_back() {
    let upstream = Upstream::start(|connection| {
        connection.head();
        connection.pause(Duration::from_millis(800));
        while connection.take(60_000).is_ok() {}
    });
    let gateway = gateway("http", &upstream.url());
    let client = gateway.client();
    let start = std::time::Instant::now();
    let sending = client.send_aside(chunked("/x", "", &crate::harness::noise(24 << 20), 60_000));
    std::thread::sleep(Duration::from_millis(400));
    assert!(
        !sending.is_finished(),
        "24 MiB were taken in {:?} for an upstream that reads nothing",
        start.elapsed()
    );
    drop(client);
    drop(gateway);
    let _ = sending.join().unwrap();
}

/// Requests that need no body go on when an `http` service shares its gateway with models.
#[test]
fn models_and_apis_share_a_gateway() {
    let upstream = Upstream::obliging();
    let toml = service("m", "m", &upstream.url())
        + &format!(
            "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/api\"\ntargets = [\"{}\"]\n",
            upstream.url()
        );
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    client.get("/api/x", "").assert_ok();
    client.chat("m", "").assert_ok();
    client.post("/api/y", "not json").assert_ok();
    assert_eq!(upstream.last().path(), "/y");
}
