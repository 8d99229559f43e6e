//! Changes under traffic, beside the file's, and when the disk or the process fails: all of a change or nothing of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{CHAT, Gateway, Process, Upstream, engine_with, post, service, streamed};

const STATE: &str = "[server]\nstate = \"./tollgate.db\"\n";

#[test]
fn traffic_notices_nothing_of_changes() {
    let engine = engine_with(|config| config.itl = Duration::from_millis(20));
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(
        &(service("stream", "stream", &engine.url()) + &service("a", "a", &upstream.url())),
    );
    let api = gateway.api();
    let made = json!({"name": "made", "models": ["made"], "targets": [upstream.url()]});
    assert_eq!(api.ask("POST", "/v1/services", &made).status, 201);
    let mut streams: Vec<_> = (0..3).map(|_| gateway.client()).collect();
    for stream in &mut streams {
        stream.send(post(CHAT, "", streamed("stream", 60)));
        assert_eq!(stream.head().unwrap().status, 200);
    }
    let done = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let traffic: Vec<_> = ["a", "made"]
            .into_iter()
            .map(|model| {
                let (gateway, done) = (&gateway, &done);
                scope.spawn(move || {
                    let mut client = gateway.client();
                    let mut answered = 0;
                    while !done.load(Ordering::Relaxed) || answered == 0 {
                        client.chat(model, "").assert_ok();
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        for round in 0..40 {
            let weight = api.ask("PATCH", "/v1/services/made", &json!({"weight": round + 1}));
            assert_eq!(weight.status, 200, "{}", weight.text());
            let name = format!("/v1/services/x{}", round % 3);
            let body = json!({"models": [format!("x{}", round % 3)], "targets": [upstream.url()]});
            assert!([200, 201].contains(&api.ask("PUT", &name, &body).status));
            assert_eq!(api.ask("DELETE", &name, &Value::Null).status, 204);
        }
        done.store(true, Ordering::Relaxed);
        traffic
            .into_iter()
            .map(|t| t.join().unwrap())
            .sum::<usize>()
    });
    assert!(answered > 2, "{answered}");
    for stream in &mut streams {
        let mut text = Vec::new();
        while let Some(chunk) = stream.chunk().unwrap() {
            text.extend(chunk);
        }
        assert!(String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
    }
    gateway.assert_gauges_zero();
}

/// What was answered is there after the process is killed, with its revision; what comes then has another.
#[test]
fn what_was_acknowledged_outlives_the_process() {
    let upstream = Upstream::obliging();
    let url = upstream.url();
    let mut process = Process::start(&(STATE.to_owned() + &service("filed", "filed", &url)));
    let api = process.api();
    let mut highest = api.get("/v1/services").json()["revision"].as_u64().unwrap();
    assert_eq!(highest, 1, "the first of an empty store");
    let documents = json!([
        {"kind": "gateway", "name": "g", "hosts": ["g.example"], "auth": "none"},
        {"kind": "upstream", "name": "u", "targets": [url]},
        {"kind": "service", "name": "s", "models": ["s"], "upstream": "u"},
        {"kind": "rule", "name": "r", "gateway": "g", "path": "/r", "services": ["s"]},
        {"kind": "target", "upstream": "u", "id": "two", "url": "http://127.0.0.1:9", "weight": 1},
        {"kind": "key", "name": "k", "gateway": "g"},
    ]);
    assert_eq!(api.ask("POST", "/v1/apply", &documents).status, 200);
    let kinds = [
        "gateways",
        "services",
        "upstreams",
        "rules",
        "keys",
        "upstreams/u/targets",
    ];
    let made = |process: &Process| -> Vec<Value> {
        let items = |kind: &str| process.api().get(&format!("/v1/{kind}")).json()["items"].clone();
        let all = kinds
            .iter()
            .flat_map(|kind| items(kind).as_array().unwrap().clone());
        let mut all: Vec<Value> = all.filter(|item| item["managed_by"] == "api").collect();
        for item in &mut all {
            for live in ["health", "breaker", "in_flight"] {
                item.as_object_mut().unwrap().remove(live);
            }
        }
        all
    };
    for round in 0..3 {
        let patch = json!({"description": format!("round {round}")});
        let last = api.ask("PATCH", "/v1/services/s", &patch).json();
        let before = made(&process);
        assert!(last["revision"].as_u64().unwrap() > highest);
        process.signal("KILL");
        process.end();
        process.restart();
        assert_eq!(made(&process), before);
        process.client().chat("s", "").assert_ok();
        highest = api.get("/v1/services").json()["revision"].as_u64().unwrap();
        assert!(
            highest > last["revision"].as_u64().unwrap(),
            "no revision comes twice"
        );
    }
    assert_eq!(api.ask("DELETE", "/v1/rules/r", &Value::Null).status, 204);
    process.signal("KILL");
    process.end();
    process.restart();
    assert_eq!(api.get("/v1/rules/r").status, 404);
}

/// The store refuses: nothing is in force that is not kept.
#[test]
fn what_cannot_be_stored_does_not_come_into_force() {
    let upstream = Upstream::obliging();
    let url = upstream.url();
    let process = Process::start(&(STATE.to_owned() + &service("filed", "filed", &url)));
    let api = process.api();
    let body = json!({"name": "s", "models": ["s"], "targets": [url]});
    assert_eq!(api.ask("POST", "/v1/services", &body).status, 201);
    let before = api.get("/v1/services").json();
    std::fs::rename(process.path("tollgate.db"), process.path("aside.db")).unwrap();
    for (method, path, body) in [
        (
            "POST",
            "/v1/services",
            json!({"name": "t", "models": ["t"], "targets": [url]}),
        ),
        ("PATCH", "/v1/services/s", json!({"models": ["other"]})),
        ("DELETE", "/v1/services/s", Value::Null),
    ] {
        let reply = api.ask(method, path, &body);
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (503, &json!("store_unavailable"))
        );
    }
    assert_eq!(api.get("/v1/services").json(), before);
    process.client().chat("s", "").assert_ok();
    assert_eq!(process.client().chat("t", "").status, 404);
    std::fs::rename(process.path("aside.db"), process.path("tollgate.db")).unwrap();
    assert_eq!(
        api.ask("PATCH", "/v1/services/s", &json!({"models": ["other"]}))
            .status,
        200
    );
    process.client().chat("other", "").assert_ok();
}

/// The file is read again while others change what is not its own; what it takes over is its own from then on.
#[test]
fn the_file_and_the_api_change_side_by_side() {
    let upstream = Upstream::obliging();
    let url = upstream.url();
    let process = Process::start(&(STATE.to_owned() + &service("filed", "filed", &url)));
    let api = process.api();
    let whole = process.read("tollgate.toml");
    let write = |text: &str| {
        let beside = process.path("new.toml");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, process.path("tollgate.toml")).unwrap();
        let reply = api.ask("POST", "/v1/reload", &Value::Null);
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    for round in 0..10 {
        std::thread::scope(|scope| {
            let api = process.api();
            let url = &url;
            scope.spawn(move || {
                for name in ["x", "y"] {
                    let body = json!({"models": [name, format!("r{round}")], "targets": [url], "weight": round});
                    let put = api.ask("PUT", &format!("/v1/services/{name}"), &body);
                    assert!([200, 201].contains(&put.status), "{}", put.text());
                }
            });
            write(&(whole.clone() + &service(&format!("f{round}"), &format!("f{round}"), url)));
        });
        for model in [
            "filed",
            "x",
            "y",
            &format!("f{round}"),
            &format!("r{round}"),
        ] {
            process.client().chat(model, "").assert_ok();
        }
    }
    // The file takes a name; what was stored waits beneath it.
    write(&(whole.clone() + &service("x", "of-file", &url)));
    let shown = api.get("/v1/services/x").json();
    assert_eq!(
        (&shown["managed_by"], &shown["models"]),
        (&json!("file"), &json!(["of-file"]))
    );
    assert_eq!(
        api.ask("DELETE", "/v1/services/x", &Value::Null).status,
        409
    );
    write(&whole);
    let shown = api.get("/v1/services/x").json();
    assert_eq!(
        (&shown["managed_by"], &shown["weight"]),
        (&json!("api"), &json!(9))
    );
    // What the file no longer has takes along what cannot be without it, until it is back.
    let rule = json!({"name": "r", "gateway": "main", "path": "/r", "services": ["filed"]});
    assert_eq!(api.ask("POST", "/v1/rules", &rule).status, 201);
    write(&whole.replace("\"filed\"", "\"renamed\""));
    assert_eq!(api.get("/v1/rules/r").status, 404);
    assert!(
        process
            .read("stderr")
            .contains("the stored rule r cannot be used"),
        "it is told"
    );
    write(&whole);
    assert_eq!(api.get("/v1/rules/r").status, 200);
}
