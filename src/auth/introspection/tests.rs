use http::Method;
use serde_json::json;
use tollgate_sdk::plugin::CallError;

use super::super::tests::{Answered, World, authority};
use super::super::{Authority, Unusable};
use super::*;
use crate::auth::remembered::MOST;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn second(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn answered(status: u16, body: impl Into<String>) -> Answered {
    Ok((status, body.into()))
}

/// Tokens that begin with "good" are allowed.
fn by_name(request: &Request<Bytes>) -> Answered {
    let bearer = request.headers()["authorization"].to_str().unwrap();
    match bearer.starts_with("Bearer good") {
        true => answered(200, json!({"sub": bearer}).to_string()),
        false => answered(401, ""),
    }
}

fn service(world: &World) -> Authority {
    authority(
        json!({"type": "http", "url": "http://id/me"}),
        &world.outside,
    )
}

fn why(world: &World, service: &Authority, token: &str) -> Option<Unusable> {
    world.try_token(service, token, NOW).err()
}

#[test]
fn a_yes_holds_and_a_no_holds_shorter() {
    let world = World::new(by_name);
    let service = service(&world);
    for _ in 0..3 {
        assert_eq!(why(&world, &service, "good"), None);
        assert_eq!(why(&world, &service, "bad"), Some(Unusable::Unknown));
    }
    assert_eq!(world.played.count(), 2);
    world.clock.advance(second(10));
    assert_eq!(why(&world, &service, "good"), None);
    assert_eq!(why(&world, &service, "bad"), Some(Unusable::Unknown));
    assert_eq!(world.played.count(), 3, "the no is over");
    world.clock.advance(second(50));
    assert_eq!(why(&world, &service, "good"), None);
    assert_eq!(world.played.count(), 4, "the yes is over");
}

#[test]
fn a_token_in_use_is_asked_for_again_before_its_time() {
    let world = World::new(by_name);
    let service = service(&world);
    assert_eq!(why(&world, &service, "good"), None);
    world.clock.advance(second(47));
    assert_eq!(why(&world, &service, "good"), None);
    world.settle();
    assert_eq!(world.played.count(), 1);
    world.clock.advance(second(1));
    for _ in 0..5 {
        assert_eq!(why(&world, &service, "good"), None);
    }
    world.settle();
    assert_eq!(world.played.count(), 2);
    // From here on it is 60 seconds again.
    world.clock.advance(second(47));
    assert_eq!(why(&world, &service, "good"), None);
    world.settle();
    assert_eq!(world.played.count(), 2);
}

#[test]
fn a_token_that_is_taken_back_ends_with_the_next_answer() {
    let world = World::new(by_name);
    let service = service(&world);
    assert_eq!(why(&world, &service, "good"), None);
    world.played.play(|_| answered(403, ""));
    world.clock.advance(second(50));
    assert_eq!(why(&world, &service, "good"), None);
    world.settle();
    assert_eq!(why(&world, &service, "good"), Some(Unusable::Unknown));
}

#[test]
fn a_hundred_who_ask_at_once_are_one_call() {
    let mut world = World::new(by_name);
    let gated = Arc::get_mut(&mut world.played);
    assert!(gated.is_none(), "the stage holds it, too");
    let permits = world.played.gate.available_permits();
    world.played.gate.forget_permits(permits);
    let service = Arc::new(service(&world));
    let answers = world.runtime.block_on(async {
        let ask = |_| {
            let service = service.clone();
            tokio::spawn(async move { service.ask(b"good", NOW).await.is_ok() })
        };
        let asking: Vec<_> = (0..100).map(ask).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.played.count(), 1);
        world.played.gate.add_permits(1);
        let mut answers = Vec::new();
        for asked in asking {
            answers.push(asked.await.unwrap());
        }
        answers
    });
    assert_eq!(answers, [true; 100]);
    assert_eq!(world.played.count(), 1);
}

#[test]
fn who_leaves_takes_no_answer_from_others() {
    let world = World::new(by_name);
    let permits = world.played.gate.available_permits();
    world.played.gate.forget_permits(permits);
    let service = Arc::new(service(&world));
    world.runtime.block_on(async {
        let ask = || {
            let service = service.clone();
            tokio::spawn(async move { service.ask(b"good", NOW).await.is_ok() })
        };
        let (first, second) = (ask(), ask());
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        first.abort();
        world.played.gate.add_permits(1);
        assert!(second.await.unwrap());
    });
    assert_eq!(world.played.count(), 1);
}

#[test]
fn so_many_calls_and_no_more() {
    let world = World::new(by_name);
    let permits = world.played.gate.available_permits();
    world.played.gate.forget_permits(permits);
    let service = Arc::new(service(&world));
    world.runtime.block_on(async {
        let ask = |n: usize| {
            let service = service.clone();
            let token = format!("good-{n}");
            tokio::spawn(async move { service.ask(token.as_bytes(), NOW).await.err() })
        };
        let asking: Vec<_> = (0..MOST_WAITING + 10).map(ask).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.played.count(), MOST_CALLS);
        world.played.gate.add_permits(MOST_WAITING);
        let mut refused = 0;
        for asked in asking {
            refused += usize::from(asked.await.unwrap().is_some());
        }
        assert_eq!(refused, 10);
    });
}

#[test]
fn while_it_is_down_known_tokens_go_on_and_unknown_ones_do_not_wait() {
    let world = World::new(by_name);
    let service = service(&world);
    assert_eq!(why(&world, &service, "good"), None);
    world.played.play(|_| answered(503, ""));
    assert_eq!(why(&world, &service, "good-2"), Some(Unusable::Unavailable));
    assert_eq!(world.played.count(), 2);
    for n in 0..50 {
        let token = format!("good-{n}");
        assert_eq!(why(&world, &service, &token), Some(Unusable::Unavailable));
    }
    assert_eq!(world.played.count(), 2, "nobody asks for a second");
    world.clock.advance(second(1));
    assert_eq!(why(&world, &service, "good-3"), Some(Unusable::Unavailable));
    assert_eq!(world.played.count(), 3);
    // Beyond 60 seconds, within 60 + 600.
    world.clock.advance(second(655));
    assert_eq!(why(&world, &service, "good"), None);
    world.clock.advance(second(4));
    assert_eq!(why(&world, &service, "good"), Some(Unusable::Unavailable));
    // It is back.
    world.played.play(by_name);
    world.clock.advance(second(2));
    assert_eq!(why(&world, &service, "good-4"), None);
    assert_eq!(why(&world, &service, "good"), None);
}

#[test]
fn the_first_to_meet_a_dead_service_goes_on_with_what_is_known() {
    let world = World::new(by_name);
    let service = service(&world);
    assert_eq!(why(&world, &service, "good"), None);
    world.played.play(|_| Err(CallError::Timeout));
    world.clock.advance(second(61));
    assert_eq!(why(&world, &service, "good"), None);
    assert_eq!(world.played.count(), 2);
}

#[test]
fn one_call_at_a_time_finds_out_whether_it_is_back() {
    let world = World::new(|_| Err(CallError::Connect));
    let service = Arc::new(service(&world));
    assert_eq!(why(&world, &service, "good"), Some(Unusable::Unavailable));
    world.clock.advance(second(1));
    let permits = world.played.gate.available_permits();
    world.played.gate.forget_permits(permits);
    world.runtime.block_on(async {
        let ask = |n: usize| {
            let service = service.clone();
            let token = format!("good-{n}");
            tokio::spawn(async move { service.ask(token.as_bytes(), NOW).await.err() })
        };
        let probe = ask(0);
        let others: Vec<_> = (1..20).map(ask).collect();
        for other in others {
            assert_eq!(other.await.unwrap(), Some(Unusable::Unavailable));
        }
        assert_eq!(world.played.count(), 2);
        world.played.gate.add_permits(1);
        assert_eq!(probe.await.unwrap(), Some(Unusable::Unavailable));
    });
}

#[test]
fn floods_of_bad_tokens_push_out_no_good_one() {
    let world = World::new(by_name);
    let Authority::Http(service) = service(&world) else {
        panic!("it is asked over http")
    };
    let authority = Authority::Http(service.clone());
    assert_eq!(why(&world, &authority, "good"), None);
    for n in 0..MOST + 2000 {
        let token = format!("bad-{n}");
        assert_eq!(why(&world, &authority, &token), Some(Unusable::Unknown));
    }
    let asked = world.played.count();
    assert_eq!(why(&world, &authority, "good"), None);
    assert_eq!(world.played.count(), asked);
    assert!(service.memory.refused.len() <= MOST);
    assert_eq!(service.memory.allowed.len(), 1);
    assert_eq!(service.memory.flights().len(), 0);
}

#[test]
fn what_is_known_outlives_a_change_of_durations_and_no_other() {
    let world = World::new(by_name);
    let before = service(&world);
    assert_eq!(why(&world, &before, "good"), None);
    let auth = json!({"type": "http", "url": "http://id/me", "cache": "5m", "timeout": "1s"});
    let after = authority(auth, &world.outside);
    drop(before);
    assert_eq!(why(&world, &after, "good"), None);
    assert_eq!(world.played.count(), 1);
    let auth = json!({"type": "http", "url": "http://other/me"});
    let other = authority(auth, &world.outside);
    assert_eq!(why(&world, &other, "good"), None);
    assert_eq!(world.played.count(), 2);
}

#[test]
fn answers_are_read_strictly() {
    let end = json!({"exp": 30, "sub": "ann"}).to_string();
    for (status, body, expected) in [
        (200, "", None),
        (204, "", None),
        (200, "fine", None),
        (200, r#"{"active": true}"#, None),
        (200, &*end, None),
        (200, r#"{"active": false}"#, Some(Unusable::Unknown)),
        (200, r#"{"active": "true"}"#, Some(Unusable::Unknown)),
        (200, r#"{"exp": 0}"#, Some(Unusable::Expired)),
        (200, r#"{"exp": "soon"}"#, Some(Unusable::Unavailable)),
        (200, r#"{"active": fal"#, Some(Unusable::Unavailable)),
        (401, "", Some(Unusable::Unknown)),
        (403, "", Some(Unusable::Unknown)),
        (404, "", Some(Unusable::Unknown)),
        (400, "", Some(Unusable::Unavailable)),
        (302, "", Some(Unusable::Unavailable)),
        (429, "", Some(Unusable::Unavailable)),
        (500, "", Some(Unusable::Unavailable)),
    ] {
        let body = body.to_owned();
        let world = World::new(move |_| answered(status, body.clone()));
        assert_eq!(why(&world, &service(&world), "token"), expected, "{status}");
    }
}

#[test]
fn a_strange_token_does_not_make_the_service_look_down() {
    let world = World::new(by_name);
    let service = service(&world);
    assert_eq!(why(&world, &service, "good"), None);
    world.played.play(|_| answered(400, ""));
    assert_eq!(
        why(&world, &service, "strange"),
        Some(Unusable::Unavailable)
    );
    world.played.play(by_name);
    assert_eq!(why(&world, &service, "good-2"), None);
}

#[test]
fn a_yes_ends_with_its_token() {
    let world = World::new(|_| answered(200, json!({"sub": "ann", "exp": 30}).to_string()));
    let service = service(&world);
    assert_eq!(why(&world, &service, "token"), None);
    let later = NOW + second(30);
    let ended = world.try_token(&service, "token", later);
    assert_eq!(ended.unwrap_err(), Unusable::Expired);
    assert_eq!(world.played.count(), 2);
    // Not even a dead service makes it last.
    world.played.play(|_| answered(500, ""));
    world.clock.advance(second(11));
    let ended = world.try_token(&service, "token", later);
    assert_eq!(ended.unwrap_err(), Unusable::Unavailable);
}

#[test]
fn scopes_and_names_are_those_of_the_answer() {
    let said = json!({"name": "ann", "models": "Qwen/* llama", "rules": []});
    let world = World::new(move |_| answered(200, said.to_string()));
    let key = world.try_token(&service(&world), "token", NOW).unwrap();
    assert_eq!(
        (&*key.principal.name, &*key.principal.id),
        ("ann", "http:id:ann")
    );
    assert!(key.sees("Qwen/Qwen3-8B", ["any"]) && !key.sees("gpt", ["any"]));
    assert!(
        !key.admits("any", Some("rule-1"), Some("llama")),
        "no rule is named"
    );
    let world = World::new(|_| answered(200, ""));
    let one = world.try_token(&service(&world), "token", NOW).unwrap();
    let other = world.try_token(&service(&world), "other", NOW).unwrap();
    assert!(one.is_unscoped());
    assert_ne!(one.principal.id, other.principal.id);
    assert!(one.principal.name.starts_with("token-"));
}

#[test]
fn a_refused_credential_of_ours_is_no_word_about_a_token() {
    let world = World::new(|request| {
        assert_eq!(request.method(), Method::POST);
        answered(401, "")
    });
    let auth = |headers: serde_json::Value| json!({"type": "http", "url": "http://id/", "method": "POST", "headers": headers});
    let own = authority(auth(json!({"Authorization": "Basic x"})), &world.outside);
    assert_eq!(why(&world, &own, "token"), Some(Unusable::Unavailable));
    let none = authority(auth(json!({})), &world.outside);
    assert_eq!(why(&world, &none, "token"), Some(Unusable::Unknown));
    let asked = world.played.asked.lock().unwrap();
    assert_eq!(asked[1].headers()["authorization"], "Bearer token");
}
