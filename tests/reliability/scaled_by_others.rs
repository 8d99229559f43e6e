//! Replicas that others start and end: a web service that is told the number, and Kubernetes.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::{Gateway, Mood, Web, engine, learn, scaled, stands, until};

fn targets(gateway: &Gateway) -> Vec<String> {
    let told = gateway.api().get("/v1/upstreams/qwen/targets").json();
    let items = told["items"].as_array().unwrap().iter();
    items
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_web_service_is_told_the_number_and_answers_with_targets() {
    let engine = engine();
    let url = engine.url();
    let scaler = Web::start(Mood::Well, move |request| {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let targets = match asked["desired"].as_u64() {
            Some(0) => json!([]),
            _ => json!([{"id": "gpu-1", "url": url}]),
        };
        (200, json!({"targets": targets}).to_string())
    });
    learn("scaler-secret");
    let actuator = format!(
        "{{ type = \"http\", url = \"{}/scale\", token = \"scaler-secret\" }}",
        scaler.url()
    );
    let quick = "max = 4\ntarget = 1.0\nwindow = \"1s\"\ndown_delay = \"0s\"";
    let gateway = Gateway::start(&scaled(quick, &actuator, ""));
    gateway.client().chat("qwen", "").assert_ok();
    assert_eq!(targets(&gateway), ["gpu-1"]);
    let request = until("to be told of one", || {
        let asked = scaler.asked().into_iter();
        let one = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["desired"] == 1;
        { asked }.find(|request| one(&request.body))
    });
    assert_eq!((request.method(), request.path()), ("POST", "/scale"));
    assert_eq!(
        request.header("authorization").as_deref(),
        Some("Bearer scaler-secret")
    );
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        (&body["service"], &body["current"]),
        (&json!("qwen"), &json!(0))
    );
    assert!(
        body["reason"].as_str().unwrap().contains("a request came"),
        "{body}"
    );
    until("it to leave when nobody asks", || {
        targets(&gateway).is_empty().then_some(())
    });
}

#[test]
fn a_web_service_that_fails_is_asked_again_and_the_failure_told() {
    let engine = engine();
    let scaler = Web::start(Mood::Well, |_| (500, "{}".into()));
    let actuator = format!("{{ type = \"http\", url = \"{}\" }}", scaler.url());
    let gateway = Gateway::start(&scaled("max = 1\ntarget = 1.0", &actuator, ""));
    let api = gateway.api();
    let told = |part: &'static str| {
        stands(&api, part, move |told| {
            told["problem"]
                .as_str()
                .is_some_and(|problem| problem.contains(part))
        })
    };
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| gateway.client().chat("qwen", ""));
        told("it answered 500");
        scaler.play(|_| (200, r#"{"targets":[{"url":"nowhere"}]}"#.into()));
        told("targets[0]");
        let answer = json!({"targets": [{"url": engine.url()}]}).to_string();
        scaler.play(move |_| (200, answer.clone()));
        waiting.join().unwrap().assert_ok();
    });
    stands(&api, "the end of the problem", |told| {
        told["problem"] == Value::Null
    });
    scaler.set(Mood::Gone);
    // What it said last still holds.
    gateway.client().chat("qwen", "").assert_ok();
}

/// An API server that has one deployment, whose pod serves as soon as it is scaled to one.
#[test]
fn a_deployment_is_scaled_and_its_ready_pods_are_targets() {
    let engine = engine();
    let port = engine.address().port();
    let replicas = Arc::new(Mutex::new(0));
    let theirs = replicas.clone();
    let server = Web::start(Mood::Well, move |request| {
        if request.header("authorization").as_deref() != Some("Bearer pod-token") {
            return (401, "{}".into());
        }
        let mut replicas = theirs.lock().unwrap();
        let path = request.path();
        match request.method() {
            "PATCH" if path == "/apis/apps/v1/namespaces/models/deployments/qwen/scale" => {
                let patch: Value = serde_json::from_slice(&request.body).unwrap();
                *replicas = patch["spec"]["replicas"].as_u64().unwrap();
                (200, json!({"spec": {"replicas": *replicas}}).to_string())
            }
            "GET"
                if path
                    == "/apis/discovery.k8s.io/v1/namespaces/models/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dqwen" =>
            {
                let ready = *replicas > 0;
                let pod = json!({"addresses": ["127.0.0.1"], "conditions": {"ready": ready}, "targetRef": {"name": "qwen-x1"}});
                (200, json!({"items": [{"endpoints": [pod]}]}).to_string())
            }
            _ => (404, "{}".into()),
        }
    });
    let account = tempfile::tempdir().unwrap();
    std::fs::write(account.path().join("namespace"), "models").unwrap();
    let actuator = format!(
        "{{ type = \"kubernetes\", deployment = \"qwen\", port = {port}, server = \"{}\", account = \"{}\" }}",
        server.url(),
        account.path().display()
    );
    let quick = "max = 2\ntarget = 1.0\nwindow = \"1s\"\ndown_delay = \"0s\"";
    let gateway = Gateway::start(&scaled(quick, &actuator, ""));
    let api = gateway.api();
    let told = |part: &'static str| {
        stands(&api, part, move |told| {
            told["problem"]
                .as_str()
                .is_some_and(|problem| problem.contains(part))
        })
    };
    told("the service account's token");
    std::fs::write(account.path().join("token"), "another\n").unwrap();
    told("was answered 401");
    learn("pod-token");
    std::fs::write(account.path().join("token"), "pod-token\n").unwrap();
    gateway.client().chat("qwen", "").assert_ok();
    assert_eq!(targets(&gateway), ["qwen-x1"]);
    until("it to leave when nobody asks", || {
        targets(&gateway).is_empty().then_some(())
    });
    assert_eq!(*replicas.lock().unwrap(), 0);
}
