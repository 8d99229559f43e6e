//! Plugin chains: whose plugins run, in which order, what they change and what they refuse.

use crate::harness::{
    CHAT, Gateway, Reply, Upstream, chat, chunked, engine_with, h2c, padded, post, service,
};

fn gateway(plugins: &str) -> String {
    format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\nplugins = [{plugins}]\n"
    )
}

fn plugin(name: &str, rest: &str, settings: &str) -> String {
    format!("{{ name = \"{name}\", {rest} settings = {{ {settings} }} }},")
}

/// Sets a header of requests and one of answers.
fn headers(priority: u16, value: &str) -> String {
    plugin(
        "headers",
        &format!("priority = {priority},"),
        &format!(
            "request = {{ set = {{ X-Last = \"{value}\" }}, add = {{ X-All = \"{value}\" }} }}, response = {{ add = {{ X-All = \"{value}\" }} }}"
        ),
    )
}

fn all<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>) -> Vec<&'h str> {
    let named = headers.filter(|(name, _)| name.eq_ignore_ascii_case("x-all"));
    named.map(|(_, value)| value).collect()
}

#[test]
fn chains_run_by_priority_and_from_the_gateway_to_the_rule() {
    let upstream = Upstream::obliging();
    let rule = format!(
        "[[rule]]\ngateway = \"main\"\npath = \"/v1/*\"\nplugins = [{}]\n",
        headers(0, "rule")
    );
    let toml = gateway(&(headers(7, "second") + &headers(3, "first")))
        + &service("m", "m", &upstream.url())
        + &format!("plugins = [{}]\n", headers(9, "service"))
        + &rule;
    let gateway = Gateway::start(&toml);
    let order = ["first", "second", "service", "rule"];
    for length in [100, 200_000] {
        let mut client = gateway.client();
        client.send(post(CHAT, "x-all: client\r\n", padded("m", length)));
        let reply = client.reply();
        reply.assert_ok();
        let sent = upstream.last();
        let names = sent.headers.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        assert_eq!(all(names), ["client", "first", "second", "service", "rule"]);
        assert_eq!(sent.header("x-last").as_deref(), Some("rule"));
        assert_eq!(reply.headers("x-all"), order);
    }
    gateway.assert_gauges_zero();
}

#[test]
fn a_plugin_that_is_off_does_nothing() {
    let upstream = Upstream::obliging();
    let off = plugin(
        "headers",
        "enabled = false,",
        "request = { set = { X-Last = \"no\" } }",
    );
    let gateway = Gateway::start(&(gateway(&off) + &service("m", "m", &upstream.url())));
    gateway.client().chat("m", "").assert_ok();
    assert_eq!(upstream.last().header("x-last"), None);
}

/// The answers of ours get the headers, too.
#[test]
fn refusals_stop_the_chain() {
    let upstream = Upstream::obliging();
    let allow = plugin("model_allowlist", "priority = 5,", "models = [\"good*\"]");
    let toml = gateway(&(headers(1, "before") + &allow + &headers(9, "after")))
        + &service("m", "*", &upstream.url());
    let gateway = Gateway::start(&toml);
    let reply = gateway.client().chat("bad", "");
    reply.assert_refused(403, "permission_denied");
    assert_eq!(reply.headers("x-all"), ["before"]);
    assert!(upstream.requests().is_empty());
    gateway.client().chat("good-1", "").assert_ok();
    let refused = gateway.metrics().sum(
        "tollgate_rejections_total",
        &[("code", "permission_denied")],
    );
    assert_eq!(refused, 1.0);
    let ran = gateway.metrics().sum(
        "tollgate_plugin_seconds_count",
        &[("plugin", "model_allowlist")],
    );
    assert_eq!(ran, 2.0);
    gateway.assert_gauges_zero();
}

/// The model is known to plugins wherever the gateway looks for it.
#[test]
fn models_in_headers_and_paths_are_seen() {
    let upstream = Upstream::obliging();
    let allow = plugin("model_allowlist", "", "models = [\"good\"]");
    for routing in [
        "routing = { by = \"header\", header = \"X-Model\" }\n",
        "routing = \"path\"\n",
    ] {
        let toml = gateway(&allow) + routing + &service("m", "*", &upstream.url());
        let gateway = Gateway::start(&toml);
        for (model, status) in [("good", 200), ("bad", 403)] {
            let path = match routing.contains("path") {
                true => format!("/{model}{CHAT}"),
                false => CHAT.to_owned(),
            };
            let mut client = gateway.client();
            client.send(post(
                &path,
                &format!("x-model: {model}\r\n"),
                "{\"messages\":[]}",
            ));
            let reply = client.reply();
            assert_eq!(reply.status, status, "{routing}: {}", reply.text());
        }
    }
}

/// A browser's preflight has no key, no body and no model.
#[test]
fn a_preflight_is_answered() {
    let upstream = Upstream::obliging();
    let cors = plugin(
        "cors",
        "",
        "allowed_origins = [\"https://app.example.com\"], allowed_methods = [\"POST\"], allowed_headers = [\"Content-Type\"]",
    );
    let key = "0123456789abcdef0123";
    let toml = gateway(&cors).replace("auth = \"none\"\n", "")
        + &format!("[[key]]\nname = \"k\"\ngateway = \"main\"\nsecret = \"{key}\"\n")
        + &service("m", "m", &upstream.url());
    let gateway = Gateway::start(&toml);
    let bearer = format!("authorization: Bearer {key}\r\n");
    let preflight = "origin: https://app.example.com\r\naccess-control-request-method: POST\r\n";
    let mut client = gateway.client();
    client.send(format!(
        "OPTIONS {CHAT} HTTP/1.1\r\nhost: test\r\n{preflight}\r\n"
    ));
    let reply: Reply = client.reply();
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("https://app.example.com")
    );
    assert_eq!(reply.header("content-length"), None);
    // The same connection goes on.
    let from = |origin: &str| format!("{bearer}origin: https://{origin}\r\n");
    client.send(post(CHAT, &from("app.example.com"), chat("m")));
    let reply = client.reply();
    reply.assert_ok();
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("https://app.example.com")
    );
    client.send(post(CHAT, &from("evil.example.com"), chat("m")));
    client.reply().assert_refused(403, "permission_denied");
    // What only looks like a question before the request needs a key like any other.
    client.send(format!("OPTIONS {CHAT} HTTP/1.1\r\nhost: test\r\n\r\n"));
    assert_eq!(client.reply().status, 401);
    assert_eq!(upstream.requests().len(), 1);
}

/// Whichever way a body came, plugins see all of it, and what passes goes on as it came.
#[test]
fn bodies_are_looked_at_whole() {
    let upstream = Upstream::obliging();
    let guard = plugin("prompt_guard", "", "keywords = [\"forbidden fruit\"]");
    let toml = gateway(&guard) + &service("m", "m", &upstream.url());
    let gateway = Gateway::start(&toml);
    let body = |text: &str, pad: usize| {
        let pad = "x".repeat(pad);
        format!(
            "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{pad}{text}\"}}]}}"
        )
    };
    for pad in [0, 150_000] {
        let good = body("an apple", pad);
        let bad = body("a forbidden fruit", pad);
        for in_chunks in [false, true] {
            let send = |text: &str| {
                let mut client = gateway.client();
                client.send(match in_chunks {
                    true => chunked(CHAT, "", text.as_bytes(), 7_000),
                    false => post(CHAT, "", text),
                });
                client.reply()
            };
            let before = upstream.requests().len();
            send(&good).assert_ok();
            assert!(upstream.last().body == good.as_bytes(), "another body");
            let reply = send(&bad);
            assert_eq!(reply.status, 403, "{}", reply.text());
            assert!(!reply.text().contains("forbidden fruit"));
            assert_eq!(upstream.requests().len(), before + 1);
        }
        let reply = gateway.h2().post(CHAT, &[], bad.clone(), true).unwrap();
        assert_eq!(reply.status, 403);
        assert!(reply.complete);
    }
    gateway.assert_gauges_zero();
}

/// Every request passes its own gateway's chain and no other: ten thousand at once, on both roads, all of them in the middle of
/// their chains at the same time.
#[test]
fn chains_never_mix() {
    const GATEWAYS: usize = 50;
    const H1: usize = 400;
    const CONNECTIONS: usize = 96;
    const STREAMS: usize = 100;
    let engine = engine_with(|config| config.record = 0);
    let mut toml = service("m", "m", &h2c(&engine));
    for n in 0..GATEWAYS {
        let mark = |name: &str, priority: usize| {
            let settings = format!("response = {{ add = {{ {name} = \"g{n}\" }} }}");
            plugin("headers", &format!("priority = {priority},"), &settings)
        };
        let delay = plugin(
            "fault_injection",
            "stage = \"pre_request\", priority = 2,",
            "fault = \"delay\", delay = \"1s\"",
        );
        let chain = mark("X-Before", 1) + &delay + &mark("X-After", 3);
        toml += &format!(
            "[[gateway]]\nname = \"g{n}\"\nhosts = [\"g{n}.test\"]\nauth = \"none\"\nplugins = [{chain}]\n"
        );
    }
    let gateway = Gateway::start(&toml);
    let check = |n: usize, reply: &Reply| {
        reply.assert_ok();
        let own = [format!("g{n}")];
        assert_eq!(reply.headers("x-before"), own);
        assert_eq!(reply.headers("x-after"), own);
    };
    let body = chat("m");
    let h1: Vec<_> = (0..H1)
        .map(|at| {
            let n = at * 7 % GATEWAYS;
            let mut client = gateway.client();
            client.send(format!(
                "POST {CHAT} HTTP/1.1\r\nhost: g{n}.test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ));
            (n, client)
        })
        .collect();
    let mut h2 = Vec::with_capacity(CONNECTIONS * STREAMS);
    for connection in 0..CONNECTIONS {
        let client = gateway.h2();
        for stream in 0..STREAMS {
            let n = (connection * 13 + stream) % GATEWAYS;
            let host = format!("g{n}.test");
            let kind = [("content-type", "application/json")];
            let mut stream = client.open_at(&host, "POST", CHAT, &kind, false);
            stream.send(body.clone(), true).unwrap();
            h2.push((n, stream));
        }
    }
    for (n, mut client) in h1 {
        check(n, &client.reply());
    }
    for (n, stream) in h2 {
        check(n, &stream.reply().unwrap());
    }
    assert_eq!(engine.state().started, (H1 + CONNECTIONS * STREAMS) as u64);
    gateway.assert_gauges_zero();
}
