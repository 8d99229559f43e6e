//! Headers on both ways: what is set, what passes, what never does.

use crate::harness::{CHAT, Client, Gateway, Upstream, chat, h2c, post, service};

const HOP_BY_HOP: [&str; 6] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
    "proxy-authorization",
];

fn http(upstream: &Upstream) -> String {
    format!(
        "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\ntargets = [\"{}\"]\n",
        upstream.url()
    )
}

#[test]
fn origin_is_told_and_cannot_be_claimed() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&(service("m", "m", &upstream.url()) + &http(&upstream)));
    let claims = "x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil\r\nforwarded: for=6.6.6.6\r\nx-real-ip: 6.6.6.6\r\n";
    for claim in ["", claims] {
        for path in [CHAT, "/raw/x"] {
            let mut client = gateway.client();
            client.send(post(path, claim, chat("m")));
            client.reply().assert_ok();
            let seen = upstream.last();
            assert_eq!(
                seen.header("x-forwarded-for").as_deref(),
                Some("127.0.0.1"),
                "{path}"
            );
            assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("http"));
            assert_eq!(seen.header("x-forwarded-host").as_deref(), Some("test"));
            assert_eq!(seen.header("forwarded"), None);
            assert_eq!(seen.header("x-real-ip"), None);
        }
    }
}

#[test]
fn a_trusted_proxys_word_is_passed_on() {
    let upstream = Upstream::obliging();
    let toml = "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n".to_owned()
        + &service("m", "m", &upstream.url());
    let gateway = Gateway::start(&toml);
    let said = "x-forwarded-for: 198.51.100.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: public.example\r\n";
    gateway.client().chat("m", said).assert_ok();
    let seen = upstream.last();
    // As nginx's $proxy_add_x_forwarded_for: what was said, then who said it.
    assert_eq!(
        seen.header("x-forwarded-for").as_deref(),
        Some("198.51.100.7, 127.0.0.1")
    );
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(
        seen.header("x-forwarded-host").as_deref(),
        Some("public.example")
    );
    gateway.client().chat("m", "").assert_ok();
    assert_eq!(
        upstream.last().header("x-forwarded-for").as_deref(),
        Some("127.0.0.1")
    );
}

#[test]
fn what_concerns_one_connection_stays_on_it() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive, x-theirs\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nx-theirs: 1\r\nupgrade: h2c\r\nx-passes: yes\r\n\r\nok";
    let upstream = Upstream::replying(answer);
    let gateway = Gateway::start(&(service("m", "m", &upstream.url()) + &http(&upstream)));
    let fields = "connection: keep-alive, x-mine\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nte: trailers\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\nproxy-authorization: Basic eDp5\r\nx-passes: yes\r\n";
    let large = crate::harness::padded("m", 100_000);
    let requests = [
        post(CHAT, fields, chat("m")),
        post("/raw/x", fields, chat("m")),
        crate::harness::chunked(CHAT, fields, &large, 10_000),
    ];
    for request in requests {
        let mut client = gateway.client();
        client.send(request);
        let reply = client.reply();
        reply.assert_ok();
        let seen = upstream.last();
        for name in HOP_BY_HOP.iter().chain(&["x-mine", "http2-settings"]) {
            // Our own hop may have a `Connection` of its own, which names nothing of the client's.
            let ours = *name == "connection" && seen.header(name).as_deref() == Some("keep-alive");
            assert!(
                seen.header(name).is_none() || ours,
                "{name} was sent: {seen:?}"
            );
        }
        assert_eq!(seen.header("x-passes").as_deref(), Some("yes"));
        for name in ["keep-alive", "proxy-connection", "x-theirs", "upgrade"] {
            assert_eq!(reply.header(name), None, "{name} came back: {reply:?}");
        }
        let connection = reply.header("connection").unwrap_or_default();
        assert!(!connection.contains("x-theirs"), "{connection}");
        assert_eq!(reply.header("x-passes"), Some("yes"));
    }
}

/// `Connection` cannot be used to take away what others rely on.
#[test]
fn connection_does_not_name_away_the_origin() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    // Nobody honest names these: such a request is refused, or goes on as it was.
    for name in [
        "host",
        "content-length",
        "transfer-encoding",
        "content-type",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-request-id",
    ] {
        let before = upstream.requests().len();
        let reply = gateway
            .client()
            .chat("m", &format!("connection: {name}\r\n"));
        if reply.status == 200 {
            let seen = upstream.last();
            seen.assert_unambiguous();
            assert_eq!(seen.body, chat("m").into_bytes(), "{name}");
            assert_eq!(
                seen.header("x-forwarded-for").as_deref(),
                Some("127.0.0.1"),
                "{name}"
            );
            assert_eq!(
                seen.header("x-forwarded-host").as_deref(),
                Some("test"),
                "{name}"
            );
            assert!(seen.header("x-request-id").is_some(), "{name}");
        } else {
            assert_eq!(reply.status, 400, "{name}");
            assert_eq!(upstream.requests().len(), before);
        }
    }
}

#[test]
fn a_request_id_is_kept_or_made() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    let reply = gateway.client().chat("m", "x-request-id: my-id-1\r\n");
    assert_eq!(reply.header("x-request-id"), Some("my-id-1"));
    assert_eq!(
        upstream.last().header("x-request-id").as_deref(),
        Some("my-id-1")
    );
    let mut made = Vec::new();
    for _ in 0..3 {
        let reply = gateway.client().chat("m", "");
        let id = reply.header("x-request-id").unwrap().to_owned();
        assert!(id.len() >= 16, "{id}");
        assert_eq!(upstream.last().header("x-request-id").as_ref(), Some(&id));
        made.push(id);
    }
    made.dedup();
    assert_eq!(made.len(), 3, "{made:?}");
    // A refusal has one too.
    let reply = gateway.client().chat("nobody", "x-request-id: my-id-2\r\n");
    assert_eq!(reply.header("x-request-id"), Some("my-id-2"));
}

/// An upstream cannot speak for the gateway.
#[test]
fn our_own_headers_are_our_own() {
    let upstream = Upstream::replying(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-tollgate-service: fake\r\nx-tollgate-attempts: 99\r\nx-request-id: theirs\r\n\r\nok",
    );
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    let reply = gateway.client().chat("m", "x-request-id: mine\r\n");
    for (name, value) in [
        ("x-tollgate-service", "m"),
        ("x-tollgate-attempts", "1"),
        ("x-request-id", "mine"),
    ] {
        let all: Vec<_> = reply
            .headers
            .iter()
            .filter(|(known, _)| known == name)
            .collect();
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(reply.header(name), Some(value));
    }
}

#[test]
fn all_other_headers_pass() {
    let names = [
        ("x-ratelimit-remaining-tokens", "149984"),
        ("x-ratelimit-reset-requests", "1s"),
        ("anthropic-ratelimit-tokens-limit", "5"),
        ("openai-processing-ms", "12"),
        ("retry-after", "3"),
        ("set-cookie", "a=b; Path=/"),
        ("cache-control", "no-cache"),
        ("server", "uvicorn"),
        ("www-authenticate", "Bearer"),
    ];
    let mut head = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: first=1\r\n".to_owned();
    for (name, value) in names {
        head += &format!("{name}: {value}\r\n");
    }
    let upstream = Upstream::replying(head + "\r\nok");
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    let reply = gateway.client().chat(
        "m",
        "openai-organization: org\r\ncookie: a=b\r\nuser-agent: sdk/1\r\n",
    );
    for (name, value) in names {
        let passed = reply.headers.iter().any(|(n, v)| n == name && v == value);
        assert!(passed, "{name}: {reply:?}");
    }
    assert_eq!(
        reply
            .headers
            .iter()
            .filter(|(name, _)| name == "set-cookie")
            .count(),
        2
    );
    let seen = upstream.last();
    for (name, value) in [
        ("openai-organization", "org"),
        ("cookie", "a=b"),
        ("user-agent", "sdk/1"),
    ] {
        assert_eq!(seen.header(name).as_deref(), Some(value));
    }
}

/// The same over HTTP/2 on both sides.
#[test]
fn http2_headers_pass_as_well() {
    let engine = crate::harness::engine();
    let gateway = Gateway::start(&service("m", "m", &h2c(&engine)));
    let fields = [
        ("x-request-id", "my-id"),
        ("x-thing", "a"),
        ("x-thing", "b"),
        ("te", "trailers"),
    ];
    let reply = gateway.h2().post(CHAT, &fields, chat("m"), true).unwrap();
    reply.assert_ok();
    assert_eq!(reply.header("x-request-id"), Some("my-id"));
    assert_eq!(reply.header("x-tollgate-service"), Some("m"));
    assert_eq!(reply.header("transfer-encoding"), None);
    let seen = engine.requests().pop().unwrap();
    let values = |name: &str| -> Vec<String> {
        seen.headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, v)| v.clone())
            .collect()
    };
    assert_eq!(values("x-thing"), ["a", "b"]);
    assert_eq!(values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(":authority"), [engine.address().to_string()]);
}

/// A client that speaks plain text to the engine sees the same headers, plus ours.
#[test]
fn nothing_is_lost_against_a_direct_call() {
    let engine = crate::harness::engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let direct = Client::connect(engine.address()).chat("m", "");
    let through = gateway.client().chat("m", "");
    for (name, value) in &direct.headers {
        if !["date", "connection", "keep-alive"].contains(&name.as_str()) {
            assert_eq!(through.header(name), Some(value.as_str()), "{name}");
        }
    }
}
