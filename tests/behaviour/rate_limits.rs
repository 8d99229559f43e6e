//! The plugin `rate_limiter` and services' `rate_limits`, end to end: exact under any concurrency, and true in what it tells.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Gateway, Upstream, service};

fn limited(limits: &str) -> String {
    let plugin = format!("{{ name = \"rate_limiter\", settings = {{ limits = {{ {limits} }} }} }}");
    format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\nplugins = [{plugin}]\n"
    )
}

#[test]
fn a_thousand_at_once_are_admitted_to_the_limit() {
    const CLIENTS: usize = 50;
    let upstream = Upstream::obliging();
    for round in 0..10 {
        let toml = limited("global = { limit = 15, window = \"1m\" }")
            + &service("m", "m", &upstream.url());
        let gateway = Gateway::start(&toml);
        let (passed, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    for _ in 0..1_000 / CLIENTS {
                        let reply = client.chat("m", "");
                        match reply.status {
                            200 => passed.fetch_add(1, Ordering::SeqCst),
                            _ => {
                                reply.assert_refused(429, "rate_limit_exceeded");
                                refused.fetch_add(1, Ordering::SeqCst)
                            }
                        };
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 15, "round {round}");
        assert_eq!(refused.into_inner(), 985, "round {round}");
        gateway.assert_gauges_zero();
    }
}

#[test]
fn who_waits_as_long_as_told_is_let_in() {
    let upstream = Upstream::obliging();
    let toml =
        limited("per_ip = { limit = 2, window = \"1s\" }") + &service("m", "m", &upstream.url());
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    for left in ["1", "0"] {
        let reply = client.chat("m", "");
        reply.assert_ok();
        assert_eq!(reply.header("x-ratelimit-limit-requests"), Some("2"));
        assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some(left));
    }
    let reply = client.chat("m", "");
    reply.assert_refused(429, "rate_limit_exceeded");
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("0"));
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(wait));
    client.chat("m", "").assert_ok();
    assert!(
        wait >= 1 && start.elapsed() < Duration::from_secs(3),
        "{wait}"
    );
}

/// A limit concerns whom it names: each value counts by itself, and who gives none is not counted.
#[test]
fn limits_count_by_their_subject() {
    let upstream = Upstream::obliging();
    let limits = "per_model = { limit = 3, window = \"1m\" }, per_user = { limit = 1, window = \"1m\" }, per_header = { name = \"X-Team\", limit = 2, window = \"1m\" }";
    let toml = limited(limits) + &service("all", "*", &upstream.url());
    let gateway = Gateway::start(&toml);
    let ask = |model: &str, fields: &str| gateway.client().chat(model, fields).status;
    assert_eq!(ask("a", "x-user-id: u1\r\n"), 200);
    assert_eq!(ask("b", "x-user-id: u1\r\n"), 429);
    assert_eq!(ask("b", "x-user-id: u2\r\n"), 200);
    for want in [200, 200, 429] {
        assert_eq!(ask("c", "x-team: t\r\n"), want);
    }
    // Refused by its team, it was not charged to its model: of three for `c` two are used.
    assert_eq!(ask("c", ""), 200);
    assert_eq!(ask("c", ""), 429);
    assert_eq!(ask("d", ""), 200);
}

/// Every gateway counts for itself.
#[test]
fn limits_of_gateways_are_apart() {
    let upstream = Upstream::obliging();
    let of = |name: &str| {
        limited("global = { limit = 1, window = \"1m\" }")
            .replace("\"main\"", &format!("\"{name}\""))
            .replace("\"*\"", &format!("\"{name}.test\""))
    };
    let toml = of("a") + &of("b") + &service("m", "m", &upstream.url());
    let gateway = Gateway::start(&toml);
    let ask = |host: &str| {
        let body = crate::harness::chat("m");
        let mut client = gateway.client();
        client.send(format!(
            "POST {} HTTP/1.1\r\nhost: {host}.test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            crate::harness::CHAT,
            body.len()
        ));
        client.reply().status
    };
    assert_eq!(
        [ask("a"), ask("b"), ask("a"), ask("b")],
        [200, 200, 429, 429]
    );
}

/// A service's own limits: the longest prefix, a burst on top of the rate, apart for each that is counted.
#[test]
fn a_service_has_rates() {
    let upstream = Upstream::obliging();
    let limits = "rate_limits = [{ rps = 0.05, burst = 1, key = { header = \"X-User\" } }, { prefix = \"/v1/embeddings\", rps = 2.0, burst = 0 }]\n";
    let toml = service("m", "m", &upstream.url()) + limits;
    let gateway = Gateway::start(&toml);
    let ask = |path: &str, fields: &str| {
        let mut client = gateway.client();
        client.send(crate::harness::post(
            path,
            fields,
            crate::harness::chat("m"),
        ));
        client.reply()
    };
    let chat = crate::harness::CHAT;
    for (user, want) in [("a", 200), ("a", 200), ("a", 429), ("b", 200)] {
        let reply = ask(chat, &format!("x-user: {user}\r\n"));
        assert_eq!(reply.status, want, "{user}: {}", reply.text());
        assert_eq!(reply.header("x-ratelimit-limit-requests"), Some("2"));
        if want == 429 {
            let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
            assert!((15..=20).contains(&wait), "{wait}");
        }
    }
    for _ in 0..5 {
        ask(chat, "").assert_ok();
    }
    ask("/v1/embeddings", "").assert_ok();
    let reply = ask("/v1/embeddings", "");
    reply.assert_refused(429, "rate_limit_exceeded");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    std::thread::sleep(Duration::from_secs(wait));
    ask("/v1/embeddings", "").assert_ok();
    gateway.assert_gauges_zero();
}

/// An upstream's answer with headers of its own account's limits.
const THEIRS: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-ratelimit-limit-requests: 90\r\nX-RateLimit-Remaining-Requests: 89\r\nx-ratelimit-remaining-tokens: 5\r\n\r\nok";

/// Where we count, our word counts, by whichever version of HTTP, and once; what we do not count the upstream tells.
#[test]
fn our_limits_replace_the_upstreams() {
    let upstream = Upstream::replying(THEIRS);
    let toml =
        limited("global = { limit = 9, window = \"1m\" }") + &service("m", "m", &upstream.url());
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    let h2 = gateway.h2();
    let body = crate::harness::chat("m");
    let replies = [
        client.chat("m", ""),
        client.chat("m", ""),
        h2.post(crate::harness::CHAT, &[], body, true).unwrap(),
        client.chat("m", ""),
    ];
    for (reply, left) in replies.iter().zip(["8", "7", "6", "5"]) {
        reply.assert_ok();
        assert_eq!(reply.body, b"ok");
        assert_eq!(reply.headers("x-ratelimit-limit-requests"), ["9"]);
        assert_eq!(reply.headers("x-ratelimit-remaining-requests"), [left]);
        assert_eq!(reply.headers("x-ratelimit-reset-requests").len(), 1);
        assert_eq!(reply.headers("x-ratelimit-remaining-tokens"), ["5"]);
    }
}

/// What an operator says of the headers is done to these, too.
#[test]
fn what_is_told_of_limits_can_be_taken_away() {
    let upstream = Upstream::replying(THEIRS);
    let edit = "{ name = \"headers\", settings = { response = { remove = [\"x-ratelimit-limit-requests\"], set = { x-ratelimit-remaining-requests = \"some\" } } } }";
    let toml = limited("global = { limit = 9, window = \"1m\" }")
        .replace("plugins = [", &format!("plugins = [{edit}, "))
        + &service("m", "m", &upstream.url());
    let gateway = Gateway::start(&toml);
    let reply = gateway.client().chat("m", "");
    reply.assert_ok();
    assert_eq!(reply.headers("x-ratelimit-limit-requests"), [""; 0]);
    assert_eq!(reply.headers("x-ratelimit-remaining-requests"), ["some"]);
    assert_eq!(reply.headers("x-ratelimit-reset-requests").len(), 1);
}
