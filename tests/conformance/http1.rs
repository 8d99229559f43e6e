//! RFC 9110 and RFC 9112 as clients rely on them.

use std::time::Duration;

use crate::harness::{CHAT, Gateway, Upstream, chat, engine, get, post, service};

/// Requests written one behind the other are answered in that order, each by its own answer.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let mut all = Vec::new();
    // The first takes longest.
    for (n, delay) in ["120ms", "60ms", "0ms", "0ms"].iter().enumerate() {
        let fields = format!("x-request-id: n{n}\r\nx-sim: echo, delay={delay}\r\n");
        all.extend(post(CHAT, &fields, chat("m")));
    }
    all.extend(get("/v1/models", "x-request-id: n4\r\n"));
    all.extend(post(CHAT, "x-request-id: n5\r\n", chat("nobody")));
    all.extend(post(CHAT, "x-request-id: n6\r\nx-sim: echo\r\n", chat("m")));
    let mut client = gateway.client();
    client.send(all);
    for n in 0..7 {
        let reply = client.reply();
        assert_eq!(reply.header("x-request-id"), Some(format!("n{n}").as_str()));
        assert_eq!(
            reply.status,
            if n == 5 { 404 } else { 200 },
            "{}",
            reply.text()
        );
    }
}

#[test]
fn a_connection_is_kept_unless_asked_otherwise() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let mut client = gateway.client();
    for _ in 0..3 {
        client.chat("m", "").assert_ok();
    }
    let reply = client.chat("m", "connection: close\r\n");
    reply.assert_ok();
    client.assert_closed();
    // HTTP/1.0 closes by default.
    let mut old = gateway.client();
    let body = chat("m");
    old.send(format!(
        "POST {CHAT} HTTP/1.0\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    old.reply().assert_ok();
    old.assert_closed();
}

/// An HTTP/1.0 client knows no chunks: a stream ends when its connection does.
#[test]
fn an_old_client_gets_no_chunks() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let mut client = gateway.client();
    let body = crate::harness::streamed("m", 3);
    client.send(format!(
        "POST {CHAT} HTTP/1.0\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let reply = client.reply();
    reply.assert_ok();
    assert_eq!(reply.header("transfer-encoding"), None, "{reply:?}");
    assert!(
        reply.text().ends_with("data: [DONE]\n\n"),
        "{}",
        reply.text()
    );
}

/// An answer to HEAD has no body, whatever its head says.
#[test]
fn head_has_no_body() {
    let upstream = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let body = if request.method() == "HEAD" {
                ""
            } else {
                "hello"
            };
            connection.send(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{body}"
            ));
        }
    });
    let raw = format!(
        "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\ntargets = [\"{}\"]\n",
        upstream.url()
    );
    let gateway = Gateway::start(&(raw + &service("m", "m", &upstream.url())));
    let mut client = gateway.client();
    for path in ["/raw/x", "/v1/models", "/nowhere"] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        let reply = client.head().unwrap();
        assert_eq!(
            reply.status,
            if path == "/nowhere" { 404 } else { 200 },
            "{path}"
        );
        // The next answer begins right here.
        let next = client.get("/v1/models", "");
        next.assert_ok();
        assert_eq!(next.json()["object"], "list", "{path}");
    }
}

#[test]
fn statuses_without_a_body_have_none() {
    for status in ["204 No Content", "304 Not Modified"] {
        let upstream = Upstream::replying(format!("HTTP/1.1 {status}\r\netag: \"x\"\r\n\r\n"));
        let raw = format!(
            "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\ntargets = [\"{}\"]\n",
            upstream.url()
        );
        let gateway = Gateway::start(&raw);
        let mut client = gateway.client();
        for _ in 0..2 {
            let reply = client.get("/raw/x", "");
            assert_eq!(reply.status.to_string(), status[..3]);
            assert_eq!(reply.header("transfer-encoding"), None);
            assert!(reply.body.is_empty());
        }
    }
}

/// Informational answers before the final one are not taken for it.
#[test]
fn early_hints_are_not_the_answer() {
    let upstream = Upstream::replying(
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    );
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    for length in [200, 100_000] {
        let mut client = gateway.client();
        let body = crate::harness::padded("m", length);
        client.send(crate::harness::chunked(CHAT, "", &body, 9_000));
        let reply = client.reply();
        reply.assert_ok();
        assert_eq!(reply.text(), "ok");
    }
}

/// Requests that are none are answered, not left hanging.
#[test]
fn nonsense_gets_an_answer_or_an_end() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    for nonsense in [
        "hello\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\r\n\r\n\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03",
    ] {
        let mut client = gateway.client();
        client.patience(Duration::from_secs(12));
        client.send(nonsense);
        client.half_close();
        let answer = String::from_utf8_lossy(&client.rest()).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{nonsense:?}: {answer}"
        );
    }
    let mut client = gateway.client();
    client.send(get("/v1/models", ""));
    client.reply().assert_ok();
    // Empty lines before a request are to be ignored (RFC 9112, section 2.2).
    let mut client = gateway.client();
    client.send([b"\r\n".to_vec(), get("/v1/models", "")].concat());
    client.reply().assert_ok();
    assert_eq!(engine.state().started, 0);
}

/// A head that is too long is refused, not buffered without end.
#[test]
fn a_head_has_a_limit() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let mut client = gateway.client();
    let head = format!(
        "GET /v1/models HTTP/1.1\r\nhost: test\r\nx: {}\r\n\r\n",
        "y".repeat(4 << 20)
    );
    let sending = client.send_aside(head.into_bytes());
    let answer = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
    let _ = sending.join();
    let many: String = (0..400).map(|n| format!("x-{n}: y\r\n")).collect();
    let mut client = gateway.client();
    client.send(get("/v1/models", &many));
    let answer = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
}

#[test]
fn connect_is_no_method_of_ours() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let mut client = gateway.client();
    client.send("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n");
    let reply = client.reply();
    assert!(matches!(reply.status, 400 | 404 | 405), "{}", reply.status);
    assert_eq!(engine.state().started, 0);
}
