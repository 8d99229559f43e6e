//! Identity services that hang, go away and come back: known tokens go on, and nobody waits for what is known to be down.

use std::time::{Duration, Instant};

use serde_json::json;

use super::issuers::{ask_at, assert_unavailable, send_to};
use crate::harness::{Gateway, Mood, Request, Web, bearer, engine, service, until};

fn token_of(request: &Request) -> String {
    let value = request.header("authorization").unwrap_or_default();
    value.strip_prefix("Bearer ").unwrap_or_default().to_owned()
}

/// Lets in whoever's token begins with `good`.
fn by_name(request: &Request) -> (u16, String) {
    match token_of(request).starts_with("good") {
        true => (200, json!({"sub": token_of(request)}).to_string()),
        false => (401, "{}".into()),
    }
}

fn times(web: &Web, token: &str) -> usize {
    let asked = web.asked();
    asked.iter().filter(|r| token_of(r) == token).count()
}

/// `a.test` and `b.test` ask a service, and `b.test` publishes one of its own; `c.test` asks nobody.
fn gateways(web: &Web, engine: &str, more: &str) -> Gateway {
    let asking = |name: &str| {
        format!(
            "[[gateway]]\nname = \"{name}\"\nhosts = [\"{name}.test\"]\nauth = {{ type = \"http\", url = \"{}/me\"{more} }}\n",
            web.url()
        )
    };
    let toml = asking("a")
        + &asking("b")
        + "[[gateway]]\nname = \"c\"\nhosts = [\"c.test\"]\nauth = \"none\"\n"
        + &service("closed", "closed", engine)
        + &service("open", "open", engine)
        + "auth = \"none\"\ngateways = [\"b\"]\n";
    Gateway::start(&toml)
}

#[test]
fn a_service_that_hangs_holds_up_nobody_else() {
    let engine = engine();
    let web = Web::start(Mood::Well, by_name);
    // So long that whoever waited for it would be noticed.
    let gateway = gateways(&web, &engine.url(), ", timeout = \"30s\"");
    let (known, new) = (bearer("good-known"), bearer("good-new"));
    ask_at(&gateway, "a.test", "closed", &known).assert_ok();
    web.set(Mood::Silent);
    let mut waiting = gateway.client();
    send_to(&mut waiting, "a.test", "closed", &new);
    until("the service to be asked", || {
        (times(&web, "good-new") == 1).then_some(())
    });
    for _ in 0..10 {
        ask_at(&gateway, "a.test", "closed", &known).assert_ok();
        ask_at(&gateway, "a.test", "closed", "").assert_refused(401, "invalid_api_key");
        ask_at(&gateway, "b.test", "open", "").assert_ok();
        ask_at(&gateway, "c.test", "closed", "").assert_ok();
    }
    web.set(Mood::Well);
    waiting.reply().assert_ok();
}

#[test]
fn a_call_that_hangs_ends_after_its_time() {
    let engine = engine();
    let web = Web::start(Mood::Silent, by_name);
    let gateway = gateways(&web, &engine.url(), ", timeout = \"300ms\"");
    let start = Instant::now();
    let reply = ask_at(&gateway, "a.test", "closed", &bearer("good-1"));
    assert_unavailable(&reply);
    assert!(start.elapsed() >= Duration::from_millis(300));
    // Many at once, each with a token of its own: all are told.
    let mut clients: Vec<_> = (0..50).map(|_| gateway.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        send_to(client, "a.test", "closed", &bearer(&format!("good-{n}")));
    }
    for client in &mut clients {
        assert_unavailable(&client.reply());
    }
    assert!(web.calls() < 10, "{} calls to what is down", web.calls());
    gateway.assert_gauges_zero();
}

#[test]
fn known_tokens_go_on_while_the_service_is_down() {
    let engine = engine();
    let web = Web::start(Mood::Well, by_name);
    let more = ", cache = \"300ms\", stale = \"1h\", timeout = \"500ms\"";
    let gateway = gateways(&web, &engine.url(), more);
    let (known, bad) = (bearer("good-known"), bearer("bad-known"));
    ask_at(&gateway, "a.test", "closed", &known).assert_ok();
    ask_at(&gateway, "a.test", "closed", &bad).assert_refused(401, "invalid_api_key");
    for (mood, n) in [(Mood::Gone, 1), (Mood::Silent, 2)] {
        let before = times(&web, "good-known");
        web.set(mood);
        until("its answer to be too old", || {
            ask_at(&gateway, "a.test", "closed", &known).assert_ok();
            (times(&web, "good-known") > before).then_some(())
        });
        let new = bearer(&format!("good-new-{n}"));
        for _ in 0..5 {
            ask_at(&gateway, "a.test", "closed", &known).assert_ok();
            assert_unavailable(&ask_at(&gateway, "a.test", "closed", &new));
            // Where a service is published, it is said of the others all the same.
            assert_unavailable(&ask_at(&gateway, "b.test", "closed", &new));
            ask_at(&gateway, "b.test", "open", "").assert_ok();
        }
        web.set(Mood::Well);
        until("the service to be found again", || {
            let reply = ask_at(&gateway, "a.test", "closed", &new);
            (reply.status == 200).then_some(())
        });
        ask_at(&gateway, "a.test", "closed", &bearer("bad-new"))
            .assert_refused(401, "invalid_api_key");
    }
    // What it takes back meanwhile ends.
    web.play(|_| (401, "{}".into()));
    until("the token to be taken back", || {
        (ask_at(&gateway, "a.test", "closed", &known).status == 401).then_some(())
    });
    web.set(Mood::Gone);
    let reply = ask_at(&gateway, "a.test", "closed", &known);
    assert_ne!(
        reply.status, 200,
        "a token that was taken back came to life"
    );
}

/// A no is remembered for its own time, whether the service is up or not.
#[test]
fn a_no_needs_no_second_question() {
    let engine = engine();
    let web = Web::start(Mood::Well, by_name);
    let gateway = gateways(&web, &engine.url(), ", timeout = \"500ms\"");
    let bad = bearer("bad");
    ask_at(&gateway, "a.test", "closed", &bad).assert_refused(401, "invalid_api_key");
    web.set(Mood::Gone);
    assert_unavailable(&ask_at(&gateway, "a.test", "closed", &bearer("good-new")));
    for _ in 0..10 {
        ask_at(&gateway, "a.test", "closed", &bad).assert_refused(401, "invalid_api_key");
    }
    assert_eq!(times(&web, "bad"), 1);
}

/// Longer than `cache` and `stale` no token outlives the service.
#[test]
fn without_the_service_no_token_lives_for_ever() {
    let engine = engine();
    let web = Web::start(Mood::Well, by_name);
    let more = ", cache = \"300ms\", stale = \"1s\", timeout = \"500ms\"";
    let gateway = gateways(&web, &engine.url(), more);
    let known = bearer("good-known");
    let start = Instant::now();
    ask_at(&gateway, "a.test", "closed", &known).assert_ok();
    web.set(Mood::Gone);
    let reply = until("the token to end", || {
        let reply = ask_at(&gateway, "a.test", "closed", &known);
        (reply.status != 200).then_some(reply)
    });
    assert_unavailable(&reply);
    assert!(start.elapsed() >= Duration::from_millis(1300), "too early");
}
