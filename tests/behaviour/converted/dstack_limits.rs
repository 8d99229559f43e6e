//! dstack: `rate_limits` of services.

use super::{Caller, Conversion, assert_from, document, named, targets};
use crate::harness::{CHAT, Gateway, Upstream, chat, until};

/// Rates so low that nothing is given back while a test runs, but for one.
fn running(upstream: &Upstream, limits: &str) -> Gateway {
    let gateway = document("dstack/seed-gateway.yaml", &[]);
    let service = format!(
        "type: service\nname: chat\nport: 8000\nmodel: m\nauth: false\ncommands: [run]\nrate_limits:\n{limits}"
    );
    let options = targets(&[("chat", &upstream.url())]);
    let trusted = "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n";
    Conversion::of(&[&gateway, &service], &options).start_beside(trusted)
}

fn from<'g>(gateway: &'g Gateway, field: &str) -> Caller<'g> {
    Caller::new(gateway, "chat.example.com").with(field)
}

#[track_caller]
fn assert_passes(caller: &Caller<'_>, path: &str, count: usize) {
    for n in 0..count {
        let reply = caller.send("POST", path, &chat("m"));
        assert_eq!(reply.status, 200, "{n}: {}", reply.text());
    }
    let reply = caller.send("POST", path, &chat("m"));
    reply.assert_refused(429, "rate_limit_exceeded");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!(wait >= 1, "{wait}");
}

/// One at once and `burst` more, of every address.
#[test]
fn by_address() {
    let upstream = named("chat");
    let gateway = running(&upstream, "  - {rps: 0.02, burst: 4}\n");
    assert_passes(&from(&gateway, "x-forwarded-for: 192.0.2.1\r\n"), CHAT, 5);
    assert_passes(&from(&gateway, "x-forwarded-for: 192.0.2.2\r\n"), "/any", 5);
    // Its model at the gateway's host is the same service.
    let models =
        Caller::new(&gateway, "gateway.example.com").with("x-forwarded-for: 192.0.2.1\r\n");
    models.chat("m").assert_refused(429, "rate_limit_exceeded");
    assert_eq!(
        upstream.requests().len(),
        10,
        "what is refused goes nowhere"
    );
}

/// Who does not send the header is not limited.
#[test]
fn by_header() {
    let upstream = named("chat");
    let limits =
        "  - {prefix: /v1/chat, key: {type: header, header: X-Tenant}, rps: 0.02, burst: 2}\n";
    let gateway = running(&upstream, limits);
    assert_passes(&from(&gateway, "x-tenant: a\r\n"), CHAT, 3);
    assert_passes(&from(&gateway, "X-TENANT: b\r\n"), CHAT, 3);
    for _ in 0..10 {
        assert_from(&from(&gateway, "").chat("m"), "chat");
        assert_from(&from(&gateway, "x-tenant: a\r\n").get("/v1/other"), "chat");
    }
}

/// The longest prefix alone counts, wherever it stands in the list.
#[test]
fn the_longest_prefix_wins() {
    let upstream = named("chat");
    let limits = "  - {prefix: /v1/, rps: 0.02, burst: 1}\n  - {rps: 0.02}\n  - {prefix: /v1/chat, rps: 0.02, burst: 3}\n";
    let gateway = running(&upstream, limits);
    let anybody = from(&gateway, "");
    assert_passes(&anybody, "/v1/chat/completions", 4);
    assert_passes(&anybody, "/v1/embeddings", 2);
    assert_passes(&anybody, "/health", 1);
    anybody.chat("m").assert_refused(429, "rate_limit_exceeded");
}

/// What was taken comes back with time.
#[test]
fn a_rate_is_a_rate() {
    let upstream = named("chat");
    let gateway = running(&upstream, "  - {rps: 5}\n");
    let anybody = from(&gateway, "");
    for _ in 0..3 {
        until("a refusal", || {
            (anybody.chat("m").status == 429).then_some(())
        });
        until("a place", || {
            (anybody.chat("m").status == 200).then_some(())
        });
    }
}
