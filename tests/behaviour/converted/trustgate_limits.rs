//! TrustGate: its limiters, and the order in which plugins run.

use serde_json::{Value, json};
use tollgate::config::foreign::{Fate, Options};
use tollgate_bench::engine::Engine;

use super::trustgate::{Set, caller, target};
use super::{Caller, Conversion, document, named};
use crate::harness::{Gateway, Reply, chat, engine, engine_with};

fn limiter(limits: Value) -> Value {
    json!({
        "name": "rate_limiter", "enabled": true, "stage": "pre_request", "priority": 1,
        "settings": {"limits": limits, "actions": {"type": "reject", "retry_after": "60"}},
    })
}

/// So many pass, and the next does not.
#[track_caller]
fn assert_limit(caller: &Caller<'_>, count: usize, says: &str) -> Reply {
    for n in 0..count {
        let reply = caller.chat("m");
        assert_eq!(reply.status, 200, "{n}: {}", reply.text());
    }
    let reply = caller.chat("m");
    reply.assert_refused(429, "rate_limit_exceeded");
    assert_eq!(reply.json()["error"]["message"], says);
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    reply
}

/// The seed's gateway as it stands, and its plugin by itself, with a service and a rule of another document.
#[test]
fn the_seeds_limits_hold() {
    let upstream = named("pool");
    let set = Set::of(json!([target(&upstream)]));
    let service = json!({"id": "s", "name": "chat", "type": "upstream", "upstream_id": "u"});
    let mut rule = set.rule.clone();
    rule.as_object_mut().unwrap().remove("gateway_id");
    let beside = json!([set.upstream, service, rule]).to_string();
    let options = Options {
        gateway: Some("ai-service-gateway".into()),
        ..Options::default()
    };
    for (seed, limits) in [("seed-gateway", [15, 15]), ("seed-plugin", [5, 15])] {
        let seed = document(&format!("trustgate/{seed}.json"), &[]);
        let conversion = Conversion::of(&[&seed, &beside], &options);
        let path = "required_plugins[0].settings.limits";
        conversion.tells(
            path,
            Fate::Assumed,
            "x-ratelimit-{limit,remaining,reset}-requests",
        );
        let trusted = "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n";
        let gateway = conversion.start_beside(trusted);
        let caller = |from: &str| {
            Caller::new(&gateway, "ai-service.localhost")
                .with_key("ai-service-gateway")
                .with(&format!("x-forwarded-for: {from}\r\n"))
        };
        let first = caller("192.0.2.1").chat("m");
        let told = |name: &str| first.header(name).unwrap().parse::<u64>().unwrap();
        assert_eq!(told("x-ratelimit-limit-requests"), limits[0] as u64);
        assert_eq!(told("x-ratelimit-remaining-requests"), limits[0] as u64 - 1);
        assert!(told("x-ratelimit-reset-requests") <= 60);
        if limits[0] < limits[1] {
            assert_limit(
                &caller("192.0.2.1"),
                limits[0] - 1,
                "per_ip rate limit exceeded",
            );
            assert_limit(
                &caller("192.0.2.2"),
                limits[0],
                "per_ip rate limit exceeded",
            );
            // What an address was refused counts for nobody.
            assert_limit(
                &caller("192.0.2.3"),
                limits[0],
                "per_ip rate limit exceeded",
            );
        } else {
            assert_limit(
                &caller("192.0.2.1"),
                limits[0] - 1,
                "global rate limit exceeded",
            );
        }
        let others = caller("192.0.2.4").chat("m");
        assert_eq!(
            others.json()["error"]["message"],
            "global rate limit exceeded"
        );
        assert_eq!(
            upstream.requests().len() % limits[1],
            0,
            "what is refused goes nowhere"
        );
    }
}

/// A user is known by any of four spellings; who says nothing of it is not limited by it.
#[test]
fn by_user_and_fingerprint() {
    let upstream = named("pool");
    let mut set = Set::of(json!([target(&upstream)]));
    set.gateway["required_plugins"] = json!([limiter(json!({
        "per_user": {"limit": 2, "window": "1h"}, "per_fingerprint": {"limit": 3, "window": "1h"},
    }))]);
    let conversion = set.convert();
    let path = "[0].required_plugins[0].settings.limits.per_fingerprint";
    conversion.tells(path, Fate::Warned, "a request without it is not counted");
    let gateway = conversion.start();
    for (n, name) in ["X-User-ID", "X-User-Id", "X-UserID", "User-ID"]
        .iter()
        .enumerate()
    {
        let caller = caller(&gateway).with(&format!("{name}: user-{n}\r\n"));
        assert_limit(&caller, 2, "per_user rate limit exceeded");
    }
    let print = caller(&gateway).with("x-fingerprint: f\r\n");
    assert_limit(&print, 3, "per_fingerprint rate limit exceeded");
    // A fingerprint is judged before a user.
    let both = caller(&gateway).with("x-fingerprint: f\r\nx-user-id: user-0\r\n");
    assert_eq!(
        both.chat("m").json()["error"]["message"],
        "per_fingerprint rate limit exceeded"
    );
    let nobody = caller(&gateway);
    for _ in 0..10 {
        assert_eq!(nobody.chat("m").status, 200);
    }
}

/// What the gateway requires runs before what a rule has, whatever the priorities.
#[test]
fn required_plugins_run_before_a_rules() {
    let upstream = named("pool");
    let mut set = Set::of(json!([target(&upstream)]));
    let mut required = limiter(json!({"global": {"limit": 3, "window": "1h"}}));
    required["priority"] = json!(9);
    set.gateway["required_plugins"] = json!([required]);
    set.rule["plugin_chain"] = json!([{
        "name": "request_size_limiter", "enabled": true, "stage": "pre_request", "priority": 1,
        "settings": {"allowed_payload_size": 1, "size_unit": "kilobytes"},
    }]);
    let gateway = set.start();
    let caller = caller(&gateway);
    let large = format!("{{\"model\":\"m\",\"x\":\"{}\"}}", "y".repeat(2000));
    for _ in 0..3 {
        // It was counted before the rule refused it.
        let reply = caller.send("POST", "/v1/x", &large);
        reply.assert_refused(413, "request_too_large");
    }
    caller
        .send("POST", "/v1/x", &large)
        .assert_refused(429, "rate_limit_exceeded");
    caller.chat("m").assert_refused(429, "rate_limit_exceeded");
    assert!(upstream.requests().is_empty());
}

fn with_tokens(engine: &Engine, settings: Value) -> Gateway {
    let at = engine.address();
    let mut set = Set::of(json!([{"host": "127.0.0.1", "port": at.port(), "protocol": "http"}]));
    let entry = |stage: &str| json!({"name": "token_rate_limiter", "enabled": true, "stage": stage, "settings": settings});
    set.gateway["required_plugins"] = json!([entry("pre_request"), entry("post_response")]);
    let conversion = set.convert();
    conversion.tells(
        "[0].required_plugins",
        Fate::Adapted,
        "one `token_rate_limiter`",
    );
    conversion.start()
}

/// What an answer used is charged; when less is left than a request needs, it is refused.
#[test]
fn tokens_are_charged_by_what_was_used() {
    let engine = engine_with(|config| config.tokens = 40);
    let settings = json!({"tokens_per_request": 20, "tokens_per_minute": 1, "bucket_size": 100, "requests_per_minute": 1000});
    let gateway = with_tokens(&engine, settings);
    let caller = caller(&gateway);
    let mut used = 0;
    let refused = loop {
        let reply = caller.chat("m");
        if reply.status != 200 {
            break reply;
        }
        used += reply.json()["usage"]["total_tokens"].as_u64().unwrap();
        assert!(used < 200, "nobody refuses");
    };
    refused.assert_refused(429, "rate_limit_exceeded");
    assert!(used > 80, "refused with {used} of 100 used");
    assert!(refused.header("retry-after").is_some());
    // Another key has a bucket of its own.
    let other = super::trustgate::caller(&gateway);
    assert_eq!(other.chat("m").status, 200);
}

#[test]
fn requests_of_a_minute_are_counted_beside_tokens() {
    let engine = engine();
    let settings = json!({"tokens_per_request": 1, "tokens_per_minute": 100000, "bucket_size": 100000, "requests_per_minute": 4});
    let gateway = with_tokens(&engine, settings);
    let caller = caller(&gateway);
    for _ in 0..4 {
        assert_eq!(caller.chat("m").status, 200);
    }
    caller
        .send("POST", "/v1/chat/completions", &chat("m"))
        .assert_refused(429, "rate_limit_exceeded");
}
