//! Rotation and revocation: which secret opens a key at which moment, also under traffic.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    CHAT, Gateway, Upstream, bearer, chat, engine, engine_state, get, post, service, until,
};

const GATEWAY: &str = "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n";
const OTHER: &str =
    "[[key]]\nname = \"other\"\ngateway = \"main\"\nsecret = \"tg_0_0123456789abcdef\"\n";
const GRACE: Duration = Duration::from_secs(1);

fn start(server: &str, target: &str) -> Gateway {
    let services = service("a", "a", target) + &service("b", "b1", target);
    Gateway::start(&format!("{server}{GATEWAY}{OTHER}{services}"))
}

fn key(name: &str, more: Value) -> Value {
    let mut key = json!({"name": name, "gateway": "main"});
    for (field, value) in more.as_object().unwrap() {
        key[field] = value.clone();
    }
    key
}

fn status(gateway: &Gateway, secret: &str) -> u16 {
    gateway.client().chat("a", &bearer(secret)).status
}

fn file(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The old secret opens the key for the grace and no longer, the new one all the time.
#[track_caller]
fn assert_gives_way(gateway: &Gateway, old: &str, new: &str, asked: Instant) {
    let mut opened = 0;
    until("the old secret to end", || {
        let reply = gateway.client().chat("a", &bearer(old));
        let at = asked.elapsed();
        assert_eq!(status(gateway, new), 200);
        match reply.status {
            200 => {
                opened += 1;
                assert!(reply.header("x-tollgate-key-expires").is_some());
                None
            }
            _ => {
                reply.assert_refused(401, "invalid_api_key");
                // Ends are kept to the millisecond.
                let early = Duration::from_millis(2);
                assert!(at + early >= GRACE, "it ended after {at:?}");
                Some(())
            }
        }
    });
    assert!(opened > 0, "the old secret never opened it");
    let reply = gateway.client().chat("a", &bearer(new));
    assert_eq!(reply.header("x-tollgate-key-expires"), None);
}

#[test]
fn old_and_new_open_within_the_grace() {
    let upstream = Upstream::obliging();
    let gateway = start("", &upstream.url());
    let api = gateway.api();
    let first = api.create(&key("a", json!({})));
    let asked = Instant::now();
    let second = api.rotate("a", "1s");
    assert_gives_way(&gateway, &first, &second, asked);
    // Where nothing is said, the key's own grace holds.
    let first = api.create(&key("b", json!({"grace": "1s"})));
    let asked = Instant::now();
    let reply = api.ask("POST", "/v1/keys/b/rotate", &Value::Null);
    let second = reply.json()["secret"].as_str().unwrap().to_owned();
    assert_gives_way(&gateway, &first, &second, asked);
    gateway.assert_gauges_zero();
}

#[test]
fn without_a_grace_the_old_ends_at_once() {
    let upstream = Upstream::obliging();
    let gateway = start("", &upstream.url());
    let api = gateway.api();
    let first = api.create(&key("a", json!({})));
    let second = api.rotate("a", "1h");
    let third = api.rotate("a", "0s");
    assert_eq!(status(&gateway, &second), 401);
    assert_eq!(status(&gateway, &third), 200);
    // Each rotation says for how long its own old secret goes on.
    assert_eq!(status(&gateway, &first), 200);
    // No secret outlives its key.
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1_500);
    let old = api.create(&key("ends", json!({"expires_at": end.to_string()})));
    let new = api.rotate("ends", "1h");
    until("the key to end", || {
        let before = jiff::Timestamp::now();
        let reply = gateway.client().chat("a", &bearer(&new));
        match reply.status {
            200 => {
                assert!(before < end, "it outlives its second");
                None
            }
            other => {
                assert_eq!(other, 401);
                assert!(jiff::Timestamp::now() >= end, "it ended before its time");
                Some(())
            }
        }
    });
    assert_eq!(status(&gateway, &old), 401);
}

/// Scopes are the key's, whichever of its secrets is used.
#[test]
fn scopes_hold_for_every_secret() {
    let upstream = Upstream::obliging();
    let gateway = start("", &upstream.url());
    let api = gateway.api();
    for (scope, allowed, refused) in [
        (json!({"services": ["a"]}), "a", "b1"),
        (json!({"models": ["b*"]}), "b1", "a"),
        (json!({"services": ["b"], "models": ["b1"]}), "b1", "a"),
    ] {
        let old = api.create(&key("k", scope));
        let new = api.rotate("k", "1h");
        for secret in [&old, &new] {
            let mut client = gateway.client();
            client.chat(allowed, &bearer(secret)).assert_ok();
            let reply = client.chat(refused, &bearer(secret));
            reply.assert_refused(403, "permission_denied");
            let list = client.get("/v1/models", &bearer(secret)).json();
            let seen: Vec<&str> = { list["data"].as_array().unwrap().iter() }
                .map(|model| model["id"].as_str().unwrap())
                .collect();
            assert_eq!(seen, [allowed]);
            let reply = client.get(&format!("/v1/models/{refused}"), &bearer(secret));
            reply.assert_refused(404, "model_not_found");
        }
        api.revoke("k");
    }
}

#[test]
fn limits_are_counted_through_rotations() {
    let engine = engine();
    let gateway = start("", &engine.url());
    let api = gateway.api();
    let limits = json!({"limits": {"global": {"limit": 3, "window": "1h"}}});
    let first = api.create(&key("a", limits));
    for _ in 0..2 {
        assert_eq!(status(&gateway, &first), 200);
    }
    let second = api.rotate("a", "1h");
    assert_eq!(status(&gateway, &second), 200);
    let third = api.rotate("a", "1h");
    for secret in [&first, &second, &third] {
        let reply = gateway.client().chat("a", &bearer(secret));
        reply.assert_refused(429, "rate_limit_exceeded");
    }
    // What is held is held by the key as well.
    let limits = json!({"limits": {"concurrency_limiter": {"limits": {"global": 1}}}});
    let old = api.create(&key("b", limits));
    let mut held = gateway.client();
    let fields = bearer(&old) + "x-sim: delay=30s\r\n";
    held.send(post(CHAT, &fields, chat("a")));
    engine_state(&engine, "the first to be under way", |s| s.started == 4);
    let new = api.rotate("b", "1h");
    assert_eq!(status(&gateway, &new), 429);
    drop(held);
    until("its place to be free", || {
        (status(&gateway, &new) == 200).then_some(())
    });
    gateway.assert_gauges_zero();
}

#[test]
fn keys_rotate_by_themselves() {
    let upstream = Upstream::obliging();
    let gateway = start("", &upstream.url());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.key");
    // A neighbour's file is nobody else's business.
    let neighbour = folder.path().join("a.new");
    std::fs::write(&neighbour, "untouched").unwrap();
    let rotation =
        json!({"rotate_every": "1s", "grace": "1h", "rotate_to": path.to_str().unwrap()});
    let first = gateway.api().create(&key("a", rotation));
    let mut secrets = vec![first];
    while secrets.len() < 3 {
        let next = until("a new secret", || {
            file(&path).filter(|now| !secrets.contains(now))
        });
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        secrets.push(next);
        for secret in &secrets {
            let reply = gateway.client().chat("a", &bearer(secret));
            assert_eq!(reply.status, 200, "{secret} of {secrets:?}");
        }
    }
    assert_eq!(file(&neighbour).as_deref(), Some("untouched"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// A secret nobody can read would lock the key's users out.
#[test]
fn a_secret_that_cannot_be_written_does_not_come_into_force() {
    let upstream = Upstream::obliging();
    let gateway = start("", &upstream.url());
    let api = gateway.api();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let rotated = |to: String| json!({"rotate_every": "1s", "grace": "0s", "rotate_to": to});
    // No folder, and a folder in the file's place.
    let lost = api.create(&key("a", rotated(at("nowhere/a.key"))));
    std::fs::create_dir(at("b.key")).unwrap();
    let barred = api.create(&key("b", rotated(at("b.key"))));
    let good = api.create(&key("c", rotated(at("c.key"))));
    // They are due in the order in which they were made.
    until("the last of them to be rotated", || {
        file(Path::new(&at("c.key"))).filter(|now| *now != good)
    });
    for secret in [&lost, &barred] {
        assert_eq!(status(&gateway, secret), 200, "locked out");
    }
    // As soon as it can be written it is.
    std::fs::create_dir(at("nowhere")).unwrap();
    let new = until("the file", || file(Path::new(&at("nowhere/a.key"))));
    assert_eq!(status(&gateway, &lost), 401);
    assert_eq!(new.len(), good.len());
}

#[test]
fn a_revoked_key_opens_nothing_on_any_connection() {
    let upstream = Upstream::obliging();
    let gateway = start("", &upstream.url());
    let api = gateway.api();
    let old = api.create(&key("a", json!({})));
    let new = api.rotate("a", "1h");
    let (mut http1, http2) = (gateway.client(), gateway.h2());
    let over_http2 = |secret: &str| {
        let value = format!("Bearer {secret}");
        let fields = [("authorization", value.as_str())];
        http2.post(CHAT, &fields, chat("a"), true).unwrap()
    };
    for secret in [&old, &new] {
        http1.chat("a", &bearer(secret)).assert_ok();
        over_http2(secret).assert_ok();
    }
    api.revoke("a");
    for secret in [&new, &old] {
        http1
            .chat("a", &bearer(secret))
            .assert_refused(401, "invalid_api_key");
        over_http2(secret).assert_refused(401, "invalid_api_key");
        http1.send(get("/v1/models", &bearer(secret)));
        http1.reply().assert_refused(401, "invalid_api_key");
    }
    let reply = api.ask("DELETE", "/v1/keys/a", &Value::Null);
    assert_eq!(reply.status, 404);
    assert_eq!(status(&gateway, "tg_0_0123456789abcdef"), 200);
}

/// What was sent after the answer to a change meets it, whatever runs meanwhile.
#[test]
fn under_traffic_a_change_holds_from_its_answer_on() {
    const CLIENTS: usize = 8;
    let upstream = Upstream::obliging();
    let folder = tempfile::tempdir().unwrap();
    // Where a change waits for the disk, it takes longest.
    let file = folder.path().join("state.db");
    let server = format!("[server]\nstate = \"{}\"\n", file.display());
    let gateway = start(&server, &upstream.url());
    let api = gateway.api();
    for round in 0..6 {
        let revoked = round % 2 == 0;
        let old = api.create(&key("a", json!({})));
        let (done, passed, refused) = (
            AtomicBool::new(false),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let seen: Mutex<Vec<(Instant, u16)>> = Mutex::default();
        let answered = std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    while !done.load(Ordering::SeqCst) {
                        let sent = Instant::now();
                        let status = client.chat("a", &bearer(&old)).status;
                        seen.lock().unwrap().push((sent, status));
                        let count = if status == 200 { &passed } else { &refused };
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            until("traffic", || {
                (passed.load(Ordering::SeqCst) > 50).then_some(())
            });
            let new = match revoked {
                true => {
                    api.revoke("a");
                    None
                }
                false => Some(api.rotate("a", "0s")),
            };
            let answered = Instant::now();
            // The change is in force a little before its answer is here.
            let before = refused.load(Ordering::SeqCst);
            if let Some(new) = new {
                assert_eq!(status(&gateway, &new), 200);
                api.revoke("a");
            }
            until("refusals", || {
                (refused.load(Ordering::SeqCst) > before + 50).then_some(())
            });
            done.store(true, Ordering::SeqCst);
            answered
        });
        let seen = seen.into_inner().unwrap();
        let late = seen.iter().filter(|(sent, _)| *sent > answered);
        assert!(late.clone().count() > 20);
        assert_eq!(late.filter(|(_, status)| *status != 401).count(), 0);
        assert!(seen.iter().all(|(_, status)| [200, 401].contains(status)));
    }
    gateway.assert_gauges_zero();
}
