//! The plugin `budget` over the life of a process: what it has counted outlives it, and what it refuses costs nothing.

use std::path::Path;
use std::time::Duration;

use crate::harness::{CHAT, Gateway, Process, chat, engine, post, service, streamed, until};

/// What the store says that all budgets have counted.
pub(super) fn counted(file: &Path) -> u64 {
    let store = rusqlite::Connection::open(file).unwrap();
    store.busy_timeout(Duration::from_secs(5)).unwrap();
    let sum = "SELECT coalesce(sum(used), 0) FROM counter";
    let sum: i64 = store.query_row(sum, [], |row| row.get(0)).unwrap();
    u64::try_from(sum).unwrap()
}

fn budget(settings: &str) -> String {
    format!("plugins = [{{ name = \"budget\", settings = {{ by = \"ip\", {settings} }} }}]\n")
}

fn toml(file: &Path, target: &str, settings: &str) -> String {
    format!("[server]\nstate = \"{}\"\n", file.display())
        + &service("m", "m", target)
        + &budget(settings)
}

/// Orderly or not, a restart forgets nothing that had been written, and it is written every second.
#[test]
fn budgets_outlive_their_process() {
    const REQUESTS: u64 = 3;
    let engine = engine();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let tokens = || engine.state().prompt_tokens + engine.state().generated_tokens;
    let ample = toml(&file, &engine.url(), "unit = \"tokens\", limit = 100000.0");
    for signal in ["TERM", "KILL", "TERM"] {
        let mut process = Process::run(&ample);
        let mut client = process.client();
        for _ in 0..REQUESTS {
            client.chat("m", "").assert_ok();
        }
        if signal == "KILL" {
            // Nobody is left to write down the last second.
            until("the budget to be written", || {
                (counted(&file) == tokens()).then_some(())
            });
        }
        drop(client);
        process.signal(signal);
        process.end();
        assert_eq!(counted(&file), tokens(), "after {signal}");
    }
    // The next one finds nothing left.
    let tight = format!("unit = \"tokens\", limit = {}.0", tokens() + 10);
    let process = Process::run(&toml(&file, &engine.url(), &tight));
    let before = engine.state().started;
    let reply = process.client().chat("m", "");
    reply.assert_refused(429, "insufficient_quota");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=31 * 86_400).contains(&wait), "{wait}");
    assert_eq!(engine.state().started, before);
}

/// One request under way when its process is killed: what is written are counts that were true at some time.
#[test]
fn a_killed_process_loses_a_second_at_most() {
    let engine = engine();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let tokens = || engine.state().prompt_tokens + engine.state().generated_tokens;
    let toml = toml(&file, &engine.url(), "unit = \"tokens\", limit = 100000.0");
    let mut process = Process::run(&toml);
    process.client().chat("m", "").assert_ok();
    let early = tokens();
    until("the budget to be written", || {
        (counted(&file) == early).then_some(())
    });
    process.client().chat("m", "").assert_ok();
    process.signal("KILL");
    process.end();
    let (kept, all) = (counted(&file), tokens());
    assert!(kept == early || kept == all, "{kept} of {early} and {all}");
    let process = Process::run(&toml);
    process.client().chat("m", "").assert_ok();
    until("the budget to go on", || {
        (counted(&file) == kept + tokens() - all).then_some(())
    });
}

/// Money: what was used by its price, refused when it is gone, and told in the usage.
#[test]
fn money_is_counted_and_runs_out() {
    let engine = engine();
    let price = "prices = { m = { input = 1000.0, output = 3000.0 }, dear = { input = 1.0, output = 1000000.0 } }";
    let settings = format!("per = \"day\", limit = 0.5, {price}, default_output = 16");
    let toml = service("m", "*", &engine.url()) + &budget(&settings);
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    let reply = client.chat("unknown", "");
    reply.assert_refused(403, "permission_denied");
    // Sixteen tokens of it cost more than there is.
    client.send(post(CHAT, "", streamed("m", 16)));
    client.reply().assert_ok();
    let mut passed = 1;
    let refused = loop {
        let reply = client.chat("m", "");
        match reply.status {
            200 => passed += 1,
            _ => break reply,
        }
        assert!(passed < 20, "nothing is refused");
    };
    refused.assert_refused(429, "insufficient_quota");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{wait}");
    let state = engine.state();
    assert_eq!(state.started, passed, "a refused one was sent");
    let cost = (state.prompt_tokens * 1_000 + state.generated_tokens * 3_000) as f64 / 1e6;
    assert!(cost <= 0.5, "{cost}");
    let usage = until("the usage", || {
        let rows = gateway.admin("/v1/usage?by=model").json();
        let rows = rows["items"].as_array().unwrap().clone();
        rows.into_iter()
            .find(|row| row["name"] == "m" && row["requests"].as_u64() > Some(passed))
    });
    let told = usage["cost"].as_f64().unwrap();
    assert!((told - cost).abs() < 1e-9, "{told} instead of {cost}");
    assert_eq!(usage["errors"], 1, "{usage}");
    gateway.assert_gauges_zero();
}

/// What is only counted refuses nobody, and what has no price may pass where that is said.
#[test]
fn a_budget_may_only_count() {
    let engine = engine();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let settings = "unit = \"tokens\", limit = 1.0, enforce = false";
    let gateway = Gateway::start(&toml(&file, &engine.url(), settings));
    for _ in 0..5 {
        gateway.client().chat("m", "").assert_ok();
    }
    let tokens = engine.state().prompt_tokens + engine.state().generated_tokens;
    until("the budget to be written", || {
        (counted(&file) == tokens).then_some(())
    });
    drop(gateway);
    let free =
        "limit = 1.0, unpriced = \"pass\", prices = { other = { input = 1.0, output = 1.0 } }";
    let gateway = Gateway::start(&(service("m", "m", &engine.url()) + &budget(free)));
    for _ in 0..5 {
        gateway.client().post(CHAT, chat("m")).assert_ok();
    }
}
