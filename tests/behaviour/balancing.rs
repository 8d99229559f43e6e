//! Targets of one upstream share its requests by its policy and their weights.

use std::time::Duration;

use tollgate_bench::engine::Engine;

use crate::harness::{CHAT, Gateway, chat, engine_with, post};

fn engines(count: usize) -> Vec<Engine> {
    (0..count).map(|_| engine_with(|_| ())).collect()
}

/// Without checks: a target that was not asked yet serves only when no better one is there, which is another test's matter.
fn gateway(policy: &str, targets: &str) -> Gateway {
    Gateway::start(&format!(
        "[[service]]\nname = \"m\"\nmodels = [\"m\"]\nupstream = \"pool\"\n[[upstream]]\nname = \"pool\"\npolicy = \"{policy}\"\ntargets = [{targets}]\nhealth = \"off\"\n"
    ))
}

fn served(engines: &[Engine]) -> Vec<u64> {
    engines
        .iter()
        .map(|engine| engine.state().started)
        .collect()
}

#[test]
fn round_robin_goes_round() {
    let engines = engines(3);
    let urls: Vec<String> = engines.iter().map(|e| format!("\"{}\"", e.url())).collect();
    let gateway = gateway("round_robin", &urls.join(", "));
    let mut client = gateway.client();
    for _ in 0..60 {
        client.chat("m", "").assert_ok();
    }
    assert_eq!(served(&engines), [20, 20, 20]);
}

#[test]
fn weights_count_in_every_policy() {
    for policy in ["round_robin", "least_connections"] {
        let engines = engines(2);
        let targets = format!(
            "{{ url = \"{}\", weight = 3 }}, {{ url = \"{}\", weight = 1 }}",
            engines[0].url(),
            engines[1].url()
        );
        let gateway = gateway(policy, &targets);
        // Eight at a time, each long enough for all eight to be there together.
        for _ in 0..5 {
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    let gateway = &gateway;
                    scope.spawn(move || {
                        let mut client = gateway.client();
                        client.send(post(CHAT, "x-sim: delay=150ms\r\n", chat("m")));
                        client.reply().assert_ok();
                    });
                }
            });
        }
        let served = served(&engines);
        assert_eq!(served.iter().sum::<u64>(), 40);
        assert!((27..=33).contains(&served[0]), "{policy}: {served:?}");
        gateway.assert_gauges_zero();
    }
}

/// Who is slow gets less.
#[test]
fn least_connections_spares_the_busy() {
    let slow = engine_with(|config| config.ttft = Duration::from_millis(400));
    let fast = engine_with(|config| config.ttft = Duration::from_millis(10));
    let gateway = gateway(
        "least_connections",
        &format!("\"{}\", \"{}\"", slow.url(), fast.url()),
    );
    std::thread::scope(|scope| {
        for _ in 0..6 {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut client = gateway.client();
                for _ in 0..10 {
                    client.chat("m", "").assert_ok();
                }
            });
        }
    });
    let (slow, fast) = (slow.state().started, fast.state().started);
    assert_eq!(slow + fast, 60);
    assert!(
        fast > 2 * slow,
        "{slow} went to the slow one, {fast} to the fast one"
    );
}
