//! Targets that a change puts in the place of others serve when they answer; until then the others go on, and nobody sees any of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use tollgate_bench::engine::Engine;

use crate::harness::{
    CHAT, Client, Gateway, Upstream, closed_address, engine, engine_with, post, service, streamed,
    until,
};

/// The service `m` on the upstream `pool` of these targets, both made by the API.
fn start(targets: &[String], limit: &str) -> Gateway {
    let gateway = Gateway::start(&service("other", "other", "http://127.0.0.1:9"));
    let api = gateway.api();
    let made = api.ask("PUT", "/v1/upstreams/pool", &pool(targets, limit));
    assert_eq!(made.status, 201, "{}", made.text());
    let made = api.ask(
        "PUT",
        "/v1/services/m",
        &json!({"models": ["m"], "upstream": "pool"}),
    );
    assert_eq!(made.status, 201, "{}", made.text());
    gateway.wait_for("tollgate_target_up", &[("upstream", "pool")], |up| {
        up == targets.len() as f64
    });
    gateway
}

fn pool(targets: &[String], limit: &str) -> Value {
    json!({
        "targets": targets,
        "replace_within": limit,
        "health": {"type": "http", "interval": "100ms", "timeout": "1s"},
    })
}

#[track_caller]
fn replace(gateway: &Gateway, targets: &[String], limit: &str) {
    let done = gateway
        .api()
        .ask("PUT", "/v1/upstreams/pool", &pool(targets, limit));
    assert_eq!(done.status, 200, "{}", done.text());
}

/// The URLs of all targets, and those of them that are to leave.
fn targets(gateway: &Gateway) -> (Vec<String>, Vec<String>) {
    let told = gateway.api().get("/v1/upstreams/pool/targets").json();
    let all = told["items"].as_array().unwrap();
    let urls = |wanted: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let all = all.iter().filter(|target| wanted(target));
        all.map(|target| target["url"].as_str().unwrap().to_owned())
            .collect()
    };
    let leaves = |target: &Value| target["labels"]["tollgate.leaving"].is_string();
    (urls(&|_| true), urls(&leaves))
}

fn stream(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    client.send(post(CHAT, "x-sim: itl=20ms\r\n", streamed("m", 200)));
    assert_eq!(client.head().unwrap().status, 200);
    client
}

/// Ends the asking, also where what is done meanwhile fails.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Requests all the time; how many were answered.
fn while_asked(gateway: &Gateway, act: impl FnOnce(&AtomicU64)) {
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|threads| {
        let asking = threads.spawn(|| {
            let mut client = gateway.client();
            while !over.load(Ordering::SeqCst) {
                let reply = client.chat("m", "");
                assert_eq!(reply.status, 200, "{}", reply.text());
                assert_eq!(reply.header("x-tollgate-attempts"), Some("1"));
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
        let end = Over(&over);
        act(&answered);
        drop(end);
        asking.join().unwrap();
    });
}

#[test]
fn engines_that_start_late_take_over_without_a_failure() {
    let long = |config: &mut tollgate_bench::engine::EngineConfig| config.tokens = 1_000;
    let old = engine_with(long);
    let gateway = start(&[old.url()], "1m");
    let mut running = stream(&gateway);
    let addresses = [closed_address(), closed_address()];
    let new = addresses.map(|address| format!("http://{address}"));
    let mut engines: Vec<Engine> = Vec::new();
    while_asked(&gateway, |answered| {
        replace(&gateway, &new, "1m");
        // Nobody else is there yet.
        let before = answered.load(Ordering::SeqCst);
        until("more answers", || {
            (answered.load(Ordering::SeqCst) > before + 20).then_some(())
        });
        let (all, leaving) = targets(&gateway);
        assert_eq!((all.len(), leaving), (3, vec![old.url()]));
        for address in addresses {
            engines.push(engine_with(|config| config.address = address));
        }
        until("the old one to have left", || {
            let (all, _) = targets(&gateway);
            (all == new).then_some(())
        });
        let before = answered.load(Ordering::SeqCst);
        until("answers of the new ones", || {
            (answered.load(Ordering::SeqCst) > before + 20).then_some(())
        });
    });
    assert!(engines.iter().all(|engine| engine.state().started > 0));
    // What it had comes to its end.
    let text = running.rest_of_stream();
    assert!(String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
    gateway.assert_gauges_zero();
}

/// One leaves for each that answers.
#[test]
fn they_leave_one_by_one() {
    let old = [engine(), engine()];
    let gateway = start(&old.each_ref().map(Engine::url), "1m");
    let late = closed_address();
    let there = engine();
    let new = [there.url(), format!("http://{late}")];
    let mut came = None;
    while_asked(&gateway, |_| {
        replace(&gateway, &new, "1m");
        until("one to leave", || {
            let (all, leaving) = targets(&gateway);
            (all.len() == 3 && leaving.len() == 1).then_some(())
        });
        came = Some(engine_with(|config| config.address = late));
        until("the other to leave", || {
            let (all, _) = targets(&gateway);
            (all == new).then_some(())
        });
    });
    drop(came);
}

/// What never comes is not waited for for ever; who changes his mind has what was there.
#[test]
fn the_wait_is_bounded_and_can_be_taken_back() {
    let old = engine();
    let gateway = start(&[old.url()], "1m");
    let nobody = format!("http://{}", closed_address());
    replace(&gateway, std::slice::from_ref(&nobody), "1m");
    assert_eq!(targets(&gateway).1, [old.url()]);
    replace(&gateway, &[old.url()], "1m");
    until("who never came to have left", || {
        (targets(&gateway) == (vec![old.url()], vec![])).then_some(())
    });
    gateway.client().chat("m", "").assert_ok();

    replace(&gateway, std::slice::from_ref(&nobody), "1s");
    assert_eq!(targets(&gateway).1, [old.url()]);
    until("its time to be over", || {
        (targets(&gateway) == (vec![nobody.clone()], vec![])).then_some(())
    });
    // Without a word on it targets leave at once.
    replace(&gateway, &[old.url()], "1m");
    let at_once = json!({"targets": [nobody], "replace_within": null});
    let api = gateway.api();
    let done = api.ask("PATCH", "/v1/upstreams/pool", &at_once);
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(!targets(&gateway).0.contains(&old.url()));
}

/// A plan shows who goes on, and where nobody is asked the setting is refused.
#[test]
fn it_is_planned_and_refused_where_nobody_is_asked() {
    let (first, second) = (Upstream::obliging(), Upstream::obliging());
    let gateway = start(&[first.url()], "1m");
    let api = gateway.api();
    let mut next = pool(&[second.url()], "1m");
    next["kind"] = json!("upstream");
    next["name"] = json!("pool");
    let plan = api.ask("POST", "/v1/plan", &json!([next]));
    assert_eq!(plan.status, 200, "{}", plan.text());
    let told = plan.json()["changes"].clone();
    let goes_on = |change: &Value| change["kind"] == "target" && change["action"] == "create";
    let changes = told.as_array().unwrap();
    assert!(changes.iter().any(goes_on), "{told}");
    assert_eq!(targets(&gateway), (vec![first.url()], vec![]));

    let mut unasked = pool(&[first.url()], "1m");
    unasked["health"] = json!("off");
    let refused = api.ask("PUT", "/v1/upstreams/pool", &unasked);
    assert_eq!(refused.status, 422, "{}", refused.text());
    let path = &refused.json()["error"]["details"][0]["path"];
    assert_eq!(*path, "replace_within");
}
