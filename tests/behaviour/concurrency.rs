//! The plugin `concurrency_limiter`: never more at the engine than there are places, and every place comes back however its exchange ended.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{
    CHAT, Client, Gateway, Upstream, chat, chunked, engine, engine_state, padded, post, service,
    streamed, until,
};

const KEYS: [&str; 2] = [
    "tg_a1_0123456789abcdef0123456789abcdef",
    "tg_b2_fedcba9876543210fedcba9876543210",
];

/// A gateway whose keys have so many places each.
fn per_key(limit: usize) -> String {
    let key = |name: &str, secret: &str| {
        format!("[[key]]\nname = \"{name}\"\ngateway = \"main\"\nsecret = \"{secret}\"\n")
    };
    format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nplugins = [{{ name = \"concurrency_limiter\", settings = {{ limits = {{ per_key = {limit} }} }} }}]\n"
    ) + &key("a", KEYS[0])
        + &key("b", KEYS[1])
}

fn bearer(key: usize) -> String {
    format!("authorization: Bearer {}\r\n", KEYS[key])
}

/// A stream that goes on until its client leaves; its first token has come.
fn held(gateway: &Gateway) -> Option<Client> {
    let mut client = gateway.client();
    let fields = bearer(0) + "x-sim: stall-after=1\r\n";
    client.send(post(CHAT, &fields, streamed("m", 9)));
    let mut head = client.head().unwrap();
    if head.status == 429 {
        client.body(&mut head).unwrap();
        head.assert_refused(429, "rate_limit_exceeded");
        assert!(head.header("retry-after").is_some());
        return None;
    }
    client.chunk().unwrap();
    Some(client)
}

/// Exactly so many places are free.
#[track_caller]
fn assert_free(gateway: &Gateway, places: usize) {
    let held: Vec<Client> = (0..places)
        .map(|_| until("a free place", || held(gateway)))
        .collect();
    assert!(self::held(gateway).is_none(), "there are too many places");
    drop(held);
}

/// Each key asks an engine of its own, which sees how many there are.
#[test]
fn never_are_more_at_the_engine_than_places() {
    const PLACES: usize = 4;
    let engines = [engine(), engine()];
    let toml = per_key(PLACES)
        + &service("m0", "m*", &engines[0].url())
        + &service("m1", "m1", &engines[1].url());
    let gateway = Gateway::start(&toml);
    let most = [const { AtomicI64::new(0) }; 2];
    let served = [const { AtomicUsize::new(0) }; 2];
    let (refused, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..24)
            .map(|n| {
                let (gateway, served, refused) = (&gateway, &served, &refused);
                scope.spawn(move || {
                    let mut client = gateway.client();
                    let fields = bearer(n % 2) + "x-sim: ttft=3ms\r\n";
                    for _ in 0..20 {
                        let reply = client.chat(&format!("m{}", n % 2), &fields);
                        match reply.status {
                            200 => served[n % 2].fetch_add(1, Ordering::SeqCst),
                            _ => {
                                reply.assert_refused(429, "rate_limit_exceeded");
                                refused.fetch_add(1, Ordering::SeqCst)
                            }
                        };
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                for (most, engine) in most.iter().zip(&engines) {
                    most.fetch_max(engine.state().running, Ordering::SeqCst);
                }
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        done.store(true, Ordering::SeqCst);
        ended.into_iter().for_each(|end| end.unwrap());
    });
    let mut all = refused.into_inner();
    assert!(all > 0, "nobody was refused");
    for ((most, served), engine) in most.into_iter().zip(served).zip(&engines) {
        let (most, served) = (most.into_inner(), served.into_inner());
        assert!((1..=PLACES as i64).contains(&most), "{most} at once");
        assert_eq!(engine.state().started, served as u64);
        all += served;
    }
    assert_eq!(all, 24 * 20);
    assert_free(&gateway, PLACES);
    gateway.assert_gauges_zero();
}

/// Whoever has its answer finds its place free at once, whatever the answer was and whichever way it came.
#[test]
fn a_place_is_free_when_the_client_has_its_answer() {
    let engine = engine();
    let bare = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            connection.send(match request.path() {
                "/raw/empty" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/raw/same" => "HTTP/1.1 304 Not Modified\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            });
        }
    });
    let raw = format!(
        "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\nstrip_prefix = false\ntargets = [\"{}\"]\n",
        bare.url()
    );
    let limiter = "{ name = \"concurrency_limiter\", settings = { limits = { global = 1 } } }, { name = \"model_allowlist\", priority = 5, settings = { models = [\"m\", \"gone\", \"dead\"] } }";
    let toml = format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\nplugins = [{limiter}]\n"
    ) + &service("m", "m", &engine.url())
        + &service("dead", "dead", "http://127.0.0.1:1")
        + "retry = \"off\"\n"
        + &raw;
    let gateway = Gateway::start(&toml);
    let get = |path: &str| crate::harness::get(path, "");
    let sim = |fault: &str| post(CHAT, &format!("x-sim: {fault}\r\n"), chat("m"));
    let head = b"HEAD /raw/head HTTP/1.1\r\nhost: test\r\n\r\n".to_vec();
    let requests = [
        (post(CHAT, "", chat("m")), 200),
        (post(CHAT, "", streamed("m", 5)), 200),
        (chunked(CHAT, "", &padded("m", 100_000), 9_000), 200),
        (sim("status=400"), 400),
        (sim("status=500"), 500),
        (sim("status=429"), 429),
        (post(CHAT, "", chat("gone")), 404),
        (post(CHAT, "", chat("refused")), 403),
        (post(CHAT, "", chat("dead")), 502),
        (post(CHAT, "", "not JSON"), 400),
        (get("/v1/models"), 200),
        (get("/raw/empty"), 204),
        (get("/raw/same"), 304),
        (get("/raw/none"), 200),
    ];
    let refused = |text: String| assert!(!text.contains("concurrency limit"), "{text}");
    let mut client = gateway.client();
    for _ in 0..20 {
        for (request, status) in &requests {
            client.send(request);
            let reply = client.reply();
            refused(reply.text());
            let down = *status == 502 && reply.status == 503;
            assert!(down || reply.status == *status, "{status}: {reply:?}");
            if reply.header("connection") == Some("close") || reply.status == 400 {
                client = gateway.client();
            }
        }
        let mut other = gateway.client();
        other.send(&head);
        assert_eq!(other.head().unwrap().status, 200);
        // Over HTTP/2, on both roads.
        let h2 = gateway.h2();
        for body in [chat("m").into_bytes(), padded("m", 100_000)] {
            let reply = h2.post(CHAT, &[], body, true).unwrap();
            refused(reply.text());
            assert_eq!(reply.status, 200);
        }
        let reply = h2.post(CHAT, &[], streamed("m", 5), true).unwrap();
        refused(reply.text());
        assert_eq!(h2.get("/raw/empty", &[]).unwrap().status, 204);
        assert_eq!(h2.get("/v1/models", &[]).unwrap().status, 200);
    }
    gateway.assert_gauges_zero();
}

/// Engines that die before, at and after the first token.
#[test]
fn a_place_is_free_when_the_upstream_dies() {
    let engine = engine();
    let toml = per_key(1) + &service("m", "m", &engine.url()) + "retry = \"off\"\n";
    // What breaks is not to be left alone: the place is what is looked at.
    let toml = toml.replace(
        &format!("targets = [\"{}\"]", engine.url()),
        "upstream = \"u\"",
    ) + &format!(
        "[[upstream]]\nname = \"u\"\nbreaker = \"off\"\nhealth = \"off\"\ntargets = [\"{}\"]\n",
        engine.url()
    );
    let gateway = Gateway::start(&toml);
    for fault in [
        "drop=close",
        "drop=reset",
        "close-after=0",
        "close-after=3",
        "reset-after=3",
        "garbage-after=3",
    ] {
        for _ in 0..5 {
            let fields = bearer(0) + &format!("x-sim: {fault}\r\n");
            // The end of a broken connection says nothing of when the exchange was settled.
            until("a free place", || {
                let mut client = gateway.client();
                client.send(post(CHAT, &fields, streamed("m", 9)));
                let reply = client.try_reply().ok();
                let refused = reply.is_some_and(|reply| reply.status == 429);
                (!refused).then_some(())
            });
        }
        assert_free(&gateway, 1);
    }
    gateway.assert_gauges_zero();
}

/// A thousand clients that leave, in every phase, and all places are there again.
#[test]
fn a_thousand_who_leave_take_nothing_along() {
    const THREADS: usize = 25;
    const PLACES: usize = 30;
    let engine = engine();
    let toml = per_key(PLACES) + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let gateway = &gateway;
            scope.spawn(move || {
                for n in 0..40 {
                    match (thread + n) % 4 {
                        // In the middle of the answer.
                        0 | 1 => drop(until("a free place", || held(gateway))),
                        // Before it.
                        2 => {
                            let mut client = gateway.client();
                            let fields = bearer(0) + "x-sim: delay=60s\r\n";
                            client.send(post(CHAT, &fields, chat("m")));
                        }
                        // In the middle of the body.
                        _ => {
                            let mut client = gateway.client();
                            let request = post(CHAT, &bearer(0), padded("m", 90_000));
                            client.send(&request[..50_000]);
                        }
                    }
                }
            });
        }
    });
    engine_state(&engine, "all to have left", |state| {
        state.started == state.aborted + state.finished
    });
    gateway.assert_gauges_zero();
    assert_free(&gateway, PLACES);
    gateway.assert_gauges_zero();
}
