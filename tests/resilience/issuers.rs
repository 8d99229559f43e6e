//! Issuers of tokens that are away, hang or come late: whom they hold up, and whom not.

use std::time::{Duration, Instant};

use crate::harness::{
    CHAT, Client, Gateway, Mood, Reply, Signer, Upstream, Web, bearer, believer, believer_at, chat,
    claims, closed_address, engine, key_set, keys_at, keys_in, service, until,
};

fn ask(gateway: &Gateway, model: &str, token: &str) -> Reply {
    gateway.client().chat(model, &bearer(token))
}

/// A chat request to a host.
pub(super) fn send_to(client: &mut Client, host: &str, model: &str, fields: &str) {
    let body = chat(model);
    let length = body.len();
    client.send(format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {host}\r\n{fields}content-length: {length}\r\n\r\n{body}"
    ));
}

pub(super) fn ask_at(gateway: &Gateway, host: &str, model: &str, fields: &str) -> Reply {
    let mut client = gateway.client();
    send_to(&mut client, host, model, fields);
    client.reply()
}

#[track_caller]
pub(super) fn assert_unavailable(reply: &Reply) {
    reply.assert_refused(503, "identity_unavailable");
    let after: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&after), "{after}");
}

#[test]
fn tokens_go_on_while_their_issuer_is_away() {
    let engine = engine();
    let signer = Signer::ed("d");
    let set = key_set(&[&signer]);
    let web = Web::start(Mood::Well, move |_| (200, set.clone()));
    let toml = believer(&keys_at(&web), "") + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    let seen = signer.sign(&claims("ann"));
    ask(&gateway, "m", &seen).assert_ok();
    for mood in [Mood::Silent, Mood::Gone] {
        web.set(mood);
        for n in 0..5 {
            ask(&gateway, "m", &seen).assert_ok();
            // One that was not seen before, too: the keys are known.
            let token = signer.sign(&claims(&format!("{mood:?}-{n}")));
            ask(&gateway, "m", &token).assert_ok();
        }
        let other = Signer::ed("other").sign(&claims("ann"));
        ask(&gateway, "m", &other).assert_refused(401, "invalid_api_key");
    }
    assert_eq!(web.calls(), 1);
}

/// `a.test` asks everybody for a token; `b.test` publishes one of its services; `c.test` asks nobody.
fn three_gateways(keys: &str, engine: &str) -> Gateway {
    let toml = believer_at("a", "a.test", keys, "")
        + &believer_at("b", "b.test", keys, "")
        + "[[gateway]]\nname = \"c\"\nhosts = [\"c.test\"]\nauth = \"none\"\n"
        + &service("closed", "closed", engine)
        + &service("open", "open", engine)
        + "auth = \"none\"\ngateways = [\"b\"]\n";
    Gateway::start(&toml)
}

#[test]
fn an_issuer_that_was_never_there_is_nobody_elses_trouble() {
    let engine = engine();
    let signer = Signer::ed("d");
    let token = bearer(&signer.sign(&claims("ann")));
    let keys = format!("jwks_url = \"http://{}/keys\"", closed_address());
    let gateway = three_gateways(&keys, &engine.url());
    for _ in 0..3 {
        assert_unavailable(&ask_at(&gateway, "a.test", "closed", &token));
        // Where some service is published, it is said of the others all the same.
        assert_unavailable(&ask_at(&gateway, "b.test", "closed", &token));
        ask_at(&gateway, "b.test", "open", "").assert_ok();
        ask_at(&gateway, "b.test", "open", &token).assert_ok();
        ask_at(&gateway, "c.test", "closed", "").assert_ok();
    }
    for host in ["a.test", "b.test"] {
        ask_at(&gateway, host, "closed", "").assert_refused(401, "invalid_api_key");
        let nonsense = bearer("not-a-token");
        ask_at(&gateway, host, "closed", &nonsense).assert_refused(401, "invalid_api_key");
    }
}

/// What may be somebody's token is shown to no upstream, also while nobody can tell.
#[test]
fn a_token_of_which_nothing_is_known_goes_no_further() {
    let upstream = Upstream::obliging();
    let signer = Signer::ed("d");
    let token = bearer(&signer.sign(&claims("ann")));
    let keys = format!("jwks_url = \"http://{}/keys\"", closed_address());
    let toml = believer(&keys, "") + &service("m", "m", &upstream.url()) + "auth = \"none\"\n";
    let gateway = Gateway::start(&toml);
    gateway.client().chat("m", &token).assert_ok();
    assert_eq!(upstream.last().header("authorization"), None);
    // What cannot be one is the client's own business.
    gateway.client().chat("m", &bearer("mine")).assert_ok();
    let sent = upstream.last().header("authorization");
    assert_eq!(sent.as_deref(), Some("Bearer mine"));
}

#[test]
fn an_issuer_that_hangs_holds_up_nobody_else() {
    let engine = engine();
    let signer = Signer::ed("d");
    let set = key_set(&[&signer]);
    let web = Web::start(Mood::Silent, move |_| (200, set.clone()));
    let token = bearer(&signer.sign(&claims("ann")));
    let gateway = three_gateways(&keys_at(&web), &engine.url());
    let mut first = gateway.client();
    send_to(&mut first, "a.test", "closed", &token);
    until("the issuer to be asked", || {
        (web.calls() == 1).then_some(())
    });
    for _ in 0..10 {
        ask_at(&gateway, "b.test", "open", "").assert_ok();
        ask_at(&gateway, "c.test", "closed", "").assert_ok();
        ask_at(&gateway, "a.test", "closed", "").assert_refused(401, "invalid_api_key");
    }
    assert_unavailable(&first.reply());
    // Once that is known, nobody waits for it any more, however many ask.
    until("refusals to come at once", || {
        let start = Instant::now();
        for _ in 0..5 {
            assert_unavailable(&ask_at(&gateway, "a.test", "closed", &token));
        }
        (start.elapsed() < Duration::from_secs(2)).then_some(())
    });
    web.set(Mood::Well);
    until("the issuer to be found again", || {
        let reply = ask_at(&gateway, "a.test", "closed", &token);
        (reply.status == 200).then_some(())
    });
    ask_at(&gateway, "b.test", "closed", &token).assert_ok();
}

#[test]
fn a_set_that_comes_late_is_found() {
    let engine = engine();
    let signer = Signer::ed("d");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let token = signer.sign(&claims("ann"));
    let toml = believer(&keys_in(&path), "") + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    assert_unavailable(&ask(&gateway, "m", &token));
    std::fs::write(&path, "{}").unwrap();
    assert_unavailable(&ask(&gateway, "m", &token));
    std::fs::write(&path, key_set(&[&signer])).unwrap();
    until("the set to be read", || {
        (ask(&gateway, "m", &token).status == 200).then_some(())
    });
}
