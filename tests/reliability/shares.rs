//! What each target gets, seen through the gateway.

use std::collections::HashMap;
use std::time::Duration;

use tollgate_bench::engine::Engine;

use super::{calls, offer};
use crate::harness::{CHAT, Gateway, engine_with, post};

const REQUESTS: usize = 2_000;

fn engines(count: usize) -> Vec<Engine> {
    (0..count)
        .map(|i| {
            engine_with(|config| {
                config.name = Some(i.to_string());
                config.ttft = Duration::from_millis(3);
            })
        })
        .collect()
}

#[test]
fn weights_are_kept() {
    for (policy, off) in [
        ("round_robin", 0.01),
        ("least_connections", 0.04),
        ("power_of_two", 0.04),
        ("random", 0.05),
    ] {
        let engines = engines(2);
        let targets: Vec<String> = [(0, 3), (1, 1)]
            .map(|(i, weight): (usize, u32)| {
                format!("{{ url = \"{}\", weight = {weight} }}", engines[i].url())
            })
            .to_vec();
        let gateway = Gateway::start(&offer(
            "m",
            "",
            &format!("policy = \"{policy}\"\n"),
            &targets,
        ));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    for _ in 0..REQUESTS / 8 {
                        client.chat("m", "").assert_ok();
                    }
                });
            }
        });
        assert_eq!(calls(&engines[0]) + calls(&engines[1]), REQUESTS as u64);
        let share = calls(&engines[0]) as f64 / REQUESTS as f64;
        assert!((share - 0.75).abs() <= off, "{policy}: {share}");
        gateway.assert_gauges_zero();
    }
}

/// Which engine served each key.
fn homes(gateway: &Gateway, field: impl Fn(usize) -> String) -> HashMap<usize, String> {
    let mut homes = HashMap::new();
    let mut client = gateway.client();
    for round in 0..4 {
        for key in 0..60 {
            client.send(post(CHAT, &field(key), crate::harness::chat("m")));
            let reply = client.reply();
            reply.assert_ok();
            let engine = reply.header("x-sim-engine").unwrap().to_owned();
            let home = homes.entry(key).or_insert_with(|| engine.clone());
            assert_eq!(*home, engine, "key {key} moved in round {round}");
        }
    }
    homes
}

#[test]
fn what_belongs_together_stays_together() {
    let fields: [(&str, fn(usize) -> String); 3] = [
        ("header:X-Session", |key| format!("x-session: s{key}\r\n")),
        ("cookie:session", |key| {
            format!("cookie: a=b; session=s{key}; c=d\r\n")
        }),
        ("key", |key| format!("authorization: Bearer k{key}\r\n")),
    ];
    for (key, field) in fields {
        let mut engines = engines(3);
        let urls: Vec<String> = engines.iter().map(|e| e.url()).collect();
        let policy = format!("policy = {{ name = \"consistent_hash\", key = \"{key}\" }}\n");
        // Each that finds its home dead is tried again, however many come in a second.
        let retry = "retry = { budget = 1.0 }\n";
        let gateway = Gateway::start(&offer("m", retry, &policy, &urls));
        let before = homes(&gateway, field);
        for i in 0..3 {
            let at_home = before
                .values()
                .filter(|home| **home == i.to_string())
                .count();
            assert!(at_home >= 6, "{key}: {at_home} of 60 on engine {i}");
        }
        // One dies: what it had goes elsewhere, and stays there; nothing else moves.
        engines.remove(0).stop();
        let after = homes(&gateway, field);
        for (key, home) in &before {
            match home.as_str() {
                "0" => assert_ne!(after[key], "0"),
                home => assert_eq!(after[key], home, "key {key} moved for nothing"),
            }
        }
        gateway.assert_gauges_zero();
    }
}

/// Requests without a key are divided, not sent to one.
#[test]
fn what_has_no_key_is_divided() {
    let engines = engines(2);
    let urls: Vec<String> = engines.iter().map(|e| e.url()).collect();
    let policy = "policy = { name = \"consistent_hash\", key = \"header:X-Session\" }\n";
    let gateway = Gateway::start(&offer("m", "", policy, &urls));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    gateway.client().chat("m", "").assert_ok();
                }
            });
        }
    });
    for engine in &engines {
        assert!(calls(engine) >= 10, "{}", calls(engine));
    }
}
