//! The plugin `response_cache`: who asks the same again gets the same again, byte for byte, and nobody else does.

use std::time::Duration;

use crate::harness::{
    CHAT, Gateway, Reply, Upstream, chat, chunked, engine, padded, post, service, streamed, until,
};

const KEYS: [&str; 2] = [
    "tg_a1_0123456789abcdef0123456789abcdef",
    "tg_b2_fedcba9876543210fedcba9876543210",
];

fn gateway(settings: &str) -> String {
    let key = |name: &str, secret: &str| {
        format!("[[key]]\nname = \"{name}\"\ngateway = \"main\"\nsecret = \"{secret}\"\n")
    };
    format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nplugins = [{{ name = \"response_cache\", settings = {{ {settings} }} }}]\n"
    ) + &key("a", KEYS[0])
        + &key("b", KEYS[1])
}

fn bearer(key: usize) -> String {
    format!("authorization: Bearer {}\r\n", KEYS[key])
}

/// A request whose answer may be kept.
fn cold(body: &str) -> String {
    body.replacen('{', "{\"temperature\":0,", 1)
}

fn ask(gateway: &Gateway, body: impl AsRef<[u8]>, fields: &str) -> Reply {
    let mut client = gateway.client();
    client.send(post(CHAT, &(bearer(0) + fields), body));
    client.reply()
}

#[track_caller]
fn assert_mark(reply: &Reply, mark: Option<&str>) {
    reply.assert_ok();
    assert_eq!(reply.header("x-tollgate-cache"), mark, "{reply:?}");
}

/// In one piece and as a stream, over both versions, on both roads.
#[test]
fn the_second_gets_the_same_without_a_call() {
    let engine = engine();
    let gateway = Gateway::start(&(gateway("") + &service("m", "m", &engine.url())));
    let long = String::from_utf8(padded("m", 100_000)).unwrap();
    for body in [
        cold(&chat("m")),
        cold(&streamed("m", 30)),
        cold(&long),
        cold(&long).replacen('{', "{\"stream\":true,", 1),
    ] {
        let before = engine.state().started;
        let first = ask(&gateway, &body, "");
        assert_mark(&first, Some("miss"));
        assert_eq!(engine.state().started, before + 1);
        let same = |reply: &Reply| {
            assert_mark(reply, Some("hit"));
            assert_eq!(reply.text(), first.text());
            assert_eq!(reply.header("content-type"), first.header("content-type"));
            assert!(reply.header("age").is_some() && reply.header("x-request-id").is_some());
        };
        same(&ask(&gateway, &body, ""));
        let mut client = gateway.client();
        for _ in 0..2 {
            client.send(chunked(CHAT, &bearer(0), body.as_bytes(), 7_000));
            same(&client.reply());
        }
        let token = format!("Bearer {}", KEYS[0]);
        let reply = gateway
            .h2()
            .post(CHAT, &[("authorization", &token)], body.clone(), true);
        same(&reply.unwrap());
        assert_eq!(engine.state().started, before + 1, "the engine was asked");
    }
    gateway.assert_gauges_zero();
}

/// Another key, another body, another path, a host, a wish for a fresh answer, a warm request: each asks the engine.
#[test]
fn others_do_not_get_it() {
    let engine = engine();
    let gateway = Gateway::start(&(gateway("") + &service("m", "*", &engine.url())));
    let body = cold(&chat("m"));
    assert_mark(&ask(&gateway, &body, ""), Some("miss"));
    assert_mark(&ask(&gateway, &body, ""), Some("hit"));
    let other = |request: Vec<u8>, mark: Option<&str>| {
        let before = engine.state().started;
        let mut client = gateway.client();
        client.send(request);
        assert_mark(&client.reply(), mark);
        assert_eq!(engine.state().started, before + 1);
    };
    other(post(CHAT, &bearer(1), &body), Some("miss"));
    other(
        post(CHAT, &bearer(0), body.replace("Hello", "hello")),
        Some("miss"),
    );
    other(
        post(CHAT, &bearer(0), body.replace("\"m\"", "\"n\"")),
        Some("miss"),
    );
    other(
        post(
            "/v1/responses",
            &bearer(0),
            r#"{"temperature":0,"model":"m","input":"x"}"#,
        ),
        Some("miss"),
    );
    other(post(CHAT, &bearer(0), chat("m")), None);
    other(post(CHAT, &bearer(0), body.replace(":0", ":0.1")), None);
    other(
        post(CHAT, &(bearer(0) + "cache-control: no-store\r\n"), &body),
        None,
    );
    other(
        post(CHAT, &(bearer(0) + "cache-control: no-cache\r\n"), &body),
        Some("miss"),
    );
    other(
        post(&format!("{CHAT}?x=1"), &bearer(0), &body),
        Some("miss"),
    );
    let at_other_host = post(CHAT, &bearer(0), &body);
    let at_other_host = String::from_utf8(at_other_host).unwrap();
    other(
        at_other_host.replace("host: test", "host: other").into(),
        Some("miss"),
    );
    // Without a key nobody gets anything, kept or not.
    let mut client = gateway.client();
    client.send(post(CHAT, "", &body));
    client.reply().assert_refused(401, "invalid_api_key");
    // Only where it is wished do they share.
    let gateway =
        Gateway::start(&(self::gateway("shared = true") + &service("m", "*", &engine.url())));
    assert_mark(&ask(&gateway, &body, ""), Some("miss"));
    let mut client = gateway.client();
    client.send(post(CHAT, &bearer(1), &body));
    assert_mark(&client.reply(), Some("hit"));
}

/// What broke off, what was left, and what reports an error is asked for again.
#[test]
fn what_is_not_whole_is_not_kept() {
    let engine = engine();
    let toml = gateway("") + &service("m", "m", &engine.url()) + "retry = \"off\"\n";
    let gateway = Gateway::start(&toml);
    let stream = cold(&streamed("m", 9));
    for fault in ["close-after=3", "garbage-after=3", "reset-after=3"] {
        let mut client = gateway.client();
        client.send(post(
            CHAT,
            &(bearer(0) + &format!("x-sim: {fault}\r\n")),
            &stream,
        ));
        if let Ok(reply) = client.try_reply() {
            assert!(
                !reply.text().contains("[DONE]"),
                "{fault}: {}",
                reply.text()
            );
        }
    }
    for fault in ["status=500", "status=404", "status=429"] {
        for body in [&stream, &cold(&chat("m"))] {
            let reply = ask(&gateway, body, &format!("x-sim: {fault}\r\n"));
            assert!(reply.status >= 400);
        }
    }
    // One that its client leaves in the middle.
    let mut client = gateway.client();
    client.send(post(
        CHAT,
        &(bearer(0) + "x-sim: stall-after=2\r\n"),
        &stream,
    ));
    client.head().unwrap();
    client.chunk().unwrap();
    drop(client);
    until("the client to be missed", || {
        (engine.state().aborted == 1).then_some(())
    });
    let before = engine.state().started;
    let reply = ask(&gateway, &stream, "");
    assert_mark(&reply, Some("miss"));
    assert!(reply.text().contains("[DONE]"));
    assert_mark(&ask(&gateway, cold(&chat("m")), ""), Some("miss"));
    assert_eq!(engine.state().started, before + 2);
    let again = ask(&gateway, &stream, "");
    assert_mark(&again, Some("hit"));
    assert_eq!(again.text(), reply.text());
    gateway.assert_gauges_zero();
}

/// Answers that say so themselves, and those that are too long, are not kept; those that are kept end.
#[test]
fn some_answers_are_not_for_keeping() {
    for (head, body, kept) in [
        ("", "{}".to_owned(), true),
        ("cache-control: no-store\r\n", "{}".to_owned(), false),
        ("vary: *\r\n", "{}".to_owned(), false),
        ("content-encoding: zstd\r\n", "{}".to_owned(), false),
        ("", "{\"error\":{\"message\":\"busy\"}}".to_owned(), false),
        ("", format!("\"{}\"", "x".repeat(3_000)), false),
    ] {
        let upstream = Upstream::replying(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{head}content-length: {}\r\n\r\n{body}",
            body.len()
        ));
        let settings = "max_entry = \"2KiB\", max_bytes = \"2MiB\"";
        let gateway = Gateway::start(&(gateway(settings) + &service("m", "m", &upstream.url())));
        for _ in 0..2 {
            ask(&gateway, cold(&chat("m")), "").assert_ok();
        }
        let asked = upstream.requests().len();
        assert_eq!(asked, if kept { 1 } else { 2 }, "{head} {body}");
    }
    let engine = engine();
    let toml = gateway("ttl = \"1s\"") + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    let body = cold(&chat("m"));
    assert_mark(&ask(&gateway, &body, ""), Some("miss"));
    until("the answer to be too old", || {
        std::thread::sleep(Duration::from_millis(20));
        (ask(&gateway, &body, "").header("x-tollgate-cache") == Some("miss")).then_some(())
    });
    assert_eq!(engine.state().started, 2);
}

/// The host may choose the service, and HTTP/2 has it beside the headers.
#[test]
fn hosts_are_apart_over_both_versions() {
    let [a, b] = ["a", "b"].map(|name| {
        Upstream::replying(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 3\r\n\r\n\"{name}\""
        ))
    });
    let toml = gateway("shared = true").replacen("hosts = [\"*\"]", "domain = \"x.test\"", 1)
        + &service("a", "a", &a.url())
        + &service("b", "b", &b.url());
    let gateway = Gateway::start(&toml);
    let body = r#"{"temperature":0,"input":"x"}"#;
    let token = format!("Bearer {}", KEYS[0]);
    let h2 = gateway.h2();
    for mark in ["miss", "hit"] {
        for (name, upstream) in [("a", &a), ("b", &b)] {
            let host = format!("{name}.x.test");
            let fields = [
                ("authorization", &*token),
                ("content-type", "application/json"),
            ];
            let mut stream = h2.open_at(&host, "POST", CHAT, &fields, false);
            stream.send(body, true).unwrap();
            let reply = stream.reply().unwrap();
            assert_mark(&reply, Some(mark));
            assert_eq!(reply.json(), name);
            // What came by one version is there for the other.
            let request = post(CHAT, &bearer(0), body);
            let request = String::from_utf8(request).unwrap();
            let mut client = gateway.client();
            client.send(request.replace("host: test", &format!("host: {host}")));
            let reply = client.reply();
            assert_mark(&reply, Some("hit"));
            assert_eq!(reply.json(), name);
            assert_eq!(upstream.requests().len(), 1);
        }
    }
}
