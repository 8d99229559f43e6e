//! Requests that begin alike go to the engine that has their beginning cached, and what an engine says of itself is known.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_bench::engine::{Engine, EngineConfig};

use super::offer;
use crate::harness::{CHAT, Client, Gateway, Reply, Upstream, engine_with, post, until};

fn engines(count: usize) -> Vec<Engine> {
    (0..count).map(|_| engine_with(caching)).collect()
}

fn caching(config: &mut EngineConfig) {
    config.ttft = Duration::from_millis(2);
    config.cache_blocks = 10_000;
}

fn start(policy: &str, more: &str, urls: &[String]) -> Gateway {
    Gateway::start(&offer("m", "", &format!("policy = {policy}\n{more}"), urls))
}

fn urls(engines: &[Engine]) -> Vec<String> {
    engines.iter().map(Engine::url).collect()
}

fn words(seed: usize, count: usize) -> String {
    let word = |i: usize| format!("w{} ", seed * 7_919 + i * i);
    (0..count).map(word).collect()
}

/// A request of this family: it begins as all of them do.
fn body(family: usize, own: usize, stream: bool) -> String {
    let messages = json!([
        {"role": "system", "content": words(family, 900)},
        {"role": "user", "content": words(1_000 + own, 20)},
    ]);
    json!({"model": "m", "stream": stream, "max_tokens": 2, "messages": messages}).to_string()
}

fn ask(client: &mut Client, body: &str) -> Reply {
    let reply = client.post(CHAT, body);
    reply.assert_ok();
    reply
}

fn shares(engines: &[Engine]) -> Vec<u64> {
    engines
        .iter()
        .map(|engine| engine.state().started)
        .collect()
}

fn explain(gateway: &Gateway, body: &str) -> Value {
    let reply = gateway
        .api()
        .send("POST", "/v1/upstreams/m/explain", "", body.as_bytes());
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// The tokens that each target is expected to have of this request.
fn matched(gateway: &Gateway, body: &str) -> Vec<f64> {
    let explained = explain(gateway, body);
    let targets = explained["targets"].as_array().unwrap();
    targets
        .iter()
        .map(|t| t["matched_tokens"].as_f64().unwrap())
        .collect()
}

#[test]
fn a_family_stays_where_its_beginning_is() {
    let engines = engines(3);
    let gateway = start("\"cache_aware\"", "", &urls(&engines));
    let mut client = gateway.client();
    let mut homes = Vec::new();
    for family in 0..6 {
        let before = shares(&engines);
        for own in 0..8 {
            ask(&mut client, &body(family, own, own % 2 == 0));
        }
        let after = shares(&engines);
        let gained: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        let home = gained.iter().position(|gained| *gained == 8);
        homes.push(home.unwrap_or_else(|| panic!("{family}: {gained:?}")));
    }
    let (tokens, cached) = engines
        .iter()
        .map(Engine::state)
        .fold((0, 0), |sum, state| {
            (sum.0 + state.prompt_tokens, sum.1 + state.cached_tokens)
        });
    assert!(cached * 10 > tokens * 7, "{cached} of {tokens}");
    // What is foretold is what engines report.
    until("all is counted", || {
        let metrics = gateway.metrics();
        let sum = |name: &str| metrics.sum(name, &[("upstream", "m")]);
        let expected = sum("tollgate_cached_tokens_expected_total");
        let reported = sum("tollgate_cached_tokens_reported_total");
        let error = sum("tollgate_cached_tokens_error_total");
        (reported > 0.0 && expected > 0.0 && error < 0.2 * reported).then_some(())
    });
    gateway.assert_gauges_zero();
}

#[test]
fn a_request_is_explained_before_it_is_sent() {
    let engines = engines(2);
    let gateway = start("\"cache_aware\"", "", &urls(&engines));
    let body = body(1, 1, true);
    let explained = explain(&gateway, &body);
    assert!(explained["prompt_tokens"].as_f64().unwrap() > 1_000.0);
    assert_eq!(matched(&gateway, &body), [0.0, 0.0]);
    ask(&mut gateway.client(), &body);
    let owner = shares(&engines).iter().position(|n| *n == 1).unwrap();
    let explained = explain(&gateway, &body);
    let targets = explained["targets"].as_array().unwrap();
    let port = format!(":{}", engines[owner].address().port());
    for target in targets {
        let own = target["id"].as_str().unwrap().ends_with(&port);
        assert_eq!(target["cheapest"], json!(own), "{explained}");
        assert_eq!(target["matched_tokens"].as_f64().unwrap() > 1_000.0, own);
        assert_eq!(target["duplicate_seconds"].as_f64().unwrap() > 0.05, !own);
    }
    // Nothing of it was sent anywhere.
    assert_eq!(shares(&engines).iter().sum::<u64>(), 1);
    let refused = |gateway: &Gateway, name: &str, body: &str| {
        let path = format!("/v1/upstreams/{name}/explain");
        let reply = gateway.api().send("POST", &path, "", body.as_bytes());
        (reply.status, reply.json()["error"]["code"].clone())
    };
    assert_eq!(
        refused(&gateway, "nobody", &body),
        (404, json!("not_found"))
    );
    let broken = refused(&gateway, "m", "{\"model\":");
    assert_eq!(broken, (400, json!("malformed")));
    let plain = start("\"round_robin\"", "", &urls(&engines));
    assert_eq!(refused(&plain, "m", &body), (409, json!("other_policy")));
}

#[test]
fn who_leaves_leaves_no_work_behind() {
    let engines: Vec<Engine> = (0..2)
        .map(|_| engine_with(|config| config.ttft = Duration::from_secs(30)))
        .collect();
    let gateway = start("\"cache_aware\"", "", &urls(&engines));
    let clients: Vec<Client> = (0..40)
        .map(|own| {
            let mut client = gateway.client();
            client.send(post(CHAT, "", body(own % 3, own, own % 2 == 0)));
            client
        })
        .collect();
    let pending = |gateway: &Gateway| {
        gateway
            .metrics()
            .sum("tollgate_target_pending_seconds", &[])
    };
    let sent = || shares(&engines).iter().sum::<u64>();
    until("all are sent", || {
        (sent() == 40 && pending(&gateway) > 0.5).then_some(())
    });
    drop(clients);
    until("nothing is pending", || {
        (pending(&gateway) == 0.0).then_some(())
    });
    gateway.assert_gauges_zero();
}

#[test]
fn an_engine_that_begins_anew_has_nothing_cached() {
    let first = engine_with(caching);
    let address = first.address();
    let gateway = start("\"cache_aware\"", "engine = \"vllm\"\n", &[first.url()]);
    let mut client = gateway.client();
    for own in 0..3 {
        ask(&mut client, &body(1, own, true));
    }
    let told = |key: &str| {
        let status = gateway.api().get("/v1/status").json();
        status["targets"][0]["engine"][key].clone()
    };
    let asked = body(1, 1, true);
    assert!(matched(&gateway, &asked)[0] > 1_000.0);
    until("its metrics were read", || {
        (told("cache_tokens").as_u64()? > 0).then_some(())
    });
    // What it has computed must have been told, to be seen going back.
    until("what it computed was read", || {
        let told = told("prompt_tokens").as_f64()?;
        (told == first.state().prompt_tokens as f64 && told > 3_000.0).then_some(())
    });
    first.stop();
    let _second = Engine::start(EngineConfig {
        address,
        ..EngineConfig::default()
    });
    until("it is known to have begun anew", || {
        (matched(&gateway, &asked)[0] == 0.0).then_some(())
    });
}

#[test]
fn what_an_engine_says_is_in_status_and_metrics_and_one_that_says_nothing_serves() {
    let engine = engine_with(|config| config.models = vec!["m".into(), "extra".into()]);
    let silent = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let status = match request.path() {
                CHAT => "200 OK",
                _ => "404 Not Found",
            };
            connection.send(format!(
                "HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}"
            ));
        }
    });
    let gateway = start(
        "\"least_connections\"",
        "engine = \"vllm\"\nhealth = \"off\"\n",
        &[engine.url()],
    );
    let shown = until("its models are known", || {
        let status = gateway.api().get("/v1/status").json();
        let engine = status["targets"][0]["engine"].clone();
        // Its models are asked for before its metrics.
        let known = engine["models"] == json!(["m", "extra"]) && engine["stale"] == json!(false);
        known.then_some(engine)
    });
    assert!(
        shown["kv_usage"].is_number() && shown["running"] == json!(0.0),
        "{shown}"
    );
    until("its metrics are shown", || {
        let families = gateway.metrics().families();
        let own = |(name, _): &(String, Vec<String>)| name == "tollgate_engine_running";
        families.iter().any(own).then_some(())
    });
    let gateway = start(
        "\"least_connections\"",
        "engine = \"sglang\"\nhealth = \"off\"\n",
        &[silent.url()],
    );
    gateway.client().chat("m", "").assert_ok();
    let status = gateway.api().get("/v1/status").json();
    assert_eq!(status["targets"][0]["engine"], json!(null));
}
