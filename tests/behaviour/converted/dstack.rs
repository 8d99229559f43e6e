//! dstack: services at hosts of their own, models at one together, replicas behind them.

use serde_json::json;
use tollgate::config::foreign::{Fate, Options};

use super::{Caller, Conversion, all_up, answering, assert_from, document, key, named, targets};
use crate::harness::{CHAT, Upstream, bearer, chat, engine, engine_state, until};

const MODEL: &str = "NousResearch/Llama-2-7b-chat-hf";
const RUN: &str = "llama-2-7b-chat-hf";
const ITS_HOST: &str = "llama-2-7b-chat-hf.example.com";
const MODELS: &str = "gateway.example.com";

/// The seed's gateways, each with the seed's service.
#[test]
fn a_service_is_at_its_host_and_its_model_at_the_gateways() {
    let engine = engine();
    for (seed, name) in [
        ("seed-gateway", "example-gateway"),
        ("seed-gateway-instance", "example-gateway"),
        ("seed-gateway-private", "private-gateway"),
        ("seed-gateway-router", "sglang-gateway"),
    ] {
        let documents = [
            format!("dstack/{seed}.yaml"),
            "dstack/seed-service.yaml".into(),
        ];
        let [gateway, service] = documents.map(|path| document(&path, &[]));
        let options = Options {
            gateway: Some(name.into()),
            ..targets(&[(RUN, &engine.url())])
        };
        let conversion = Conversion::of(&[&gateway, &service], &options);
        let running = conversion.start();
        let secret = key(&running, name);
        engine.reset();
        for (host, path) in [
            (ITS_HOST, CHAT),
            (MODELS, CHAT),
            // Clients of dstack's leave `/v1` out there.
            (MODELS, "/chat/completions"),
        ] {
            let caller = Caller::new(&running, host).with(&bearer(&secret));
            let reply = caller.send("POST", path, &chat(MODEL));
            reply.assert_ok();
            assert_eq!(reply.json()["model"], MODEL);
        }
        let asked = engine.requests();
        assert!(
            asked.iter().all(|request| request.path == CHAT),
            "{asked:?}"
        );
        assert_eq!(asked.len(), 3);
        let shown = format!("{asked:?}");
        assert!(!shown.contains(&secret), "the engine was shown the key");
        let stranger = Caller::new(&running, "nobody.example.com").with(&bearer(&secret));
        stranger.chat(MODEL).assert_refused(421, "unknown_host");
        let models = Caller::new(&running, MODELS).with(&bearer(&secret));
        models
            .chat("another")
            .assert_refused(404, "model_not_found");
    }
}

#[test]
fn the_models_are_listed_where_they_are() {
    let upstream = named("its own");
    let gateway = document("dstack/seed-gateway.yaml", &[]);
    let service = document("dstack/seed-service.yaml", &[]);
    let options = Options {
        gateway: Some("example-gateway".into()),
        ..targets(&[(RUN, &upstream.url())])
    };
    let conversion = Conversion::of(&[&gateway, &service], &options);
    let running = conversion.start();
    let secret = key(&running, "example-gateway");
    let at = |host: &str| Caller::new(&running, host).with(&bearer(&secret));
    let list = at(MODELS).get("/v1/models");
    list.assert_ok();
    assert_eq!(list.json()["data"][0]["id"], MODEL);
    // Another place than dstack's, as is said.
    at(MODELS)
        .get("/models")
        .assert_refused(404, "route_not_found");
    conversion.tells(
        "domain",
        Fate::Assumed,
        "their list is only at \"/v1/models\"",
    );
    // At its own host everything is the engine's, the list of models like any page.
    for path in ["/v1/models", "/v1/models/x", "/metrics", "/"] {
        assert_from(&at(ITS_HOST).get(path), "its own");
        assert_eq!(upstream.last().path(), path);
    }
    // Its host decides, whatever model is named.
    assert_from(&at(ITS_HOST).chat("another"), "its own");
}

#[test]
fn a_key_is_asked_for_unless_auth_is_off() {
    let (closed, open) = (named("closed"), named("open"));
    let gateway = document("dstack/seed-gateway.yaml", &[]);
    let service = "type: service\nname: closed\nport: 8000\nmodel: m\ncommands: [run]\n";
    let public = "type: service\nname: open\nport: 8000\nmodel: n\nauth: false\ncommands: [run]\n";
    let options = Options {
        gateway: Some("example-gateway".into()),
        ..targets(&[("closed", &closed.url()), ("open", &open.url())])
    };
    let conversion = Conversion::of(&[&gateway, service, public], &options);
    let running = conversion.start();
    let secret = key(&running, "example-gateway");
    for host in ["closed.example.com", MODELS] {
        for field in [
            String::new(),
            bearer("tg_nobody_knows-this-one"),
            "authorization: Bearer \r\n".into(),
            format!("authorization: Basic {secret}\r\n"),
            format!("authorization: \"Bearer {secret}\r\n"),
        ] {
            let caller = Caller::new(&running, host).with(&field);
            caller.chat("m").assert_refused(401, "invalid_api_key");
        }
        for field in [
            bearer(&secret),
            // As the guide to services prints it.
            format!("Authorization: \"Bearer {secret}\"\r\n"),
        ] {
            let caller = Caller::new(&running, host).with(&field);
            assert_from(&caller.chat("m"), "closed");
            assert_eq!(
                closed.last().header("authorization"),
                None,
                "the key went on"
            );
        }
    }
    assert_eq!(closed.requests().len(), 4);
    for host in ["open.example.com", MODELS] {
        assert_from(&Caller::new(&running, host).chat("n"), "open");
    }
    conversion.tells("", Fate::Assumed, "they get 401, not 403");
    conversion.tells(
        "model",
        Fate::Warned,
        "needs no key at `gateway.<domain>` either",
    );
    conversion.tells("model", Fate::Assumed, "`cors` of the gateway");
}

/// `gateway: false` is dstack's own proxy, which serves below a path.
#[test]
fn without_a_gateway_it_is_below_a_path() {
    let (stripped, whole) = (named("stripped"), named("whole"));
    let gateway = document("dstack/seed-gateway-private.yaml", &[]);
    let probe = "probes:\n  - type: http\n    url: /api/health?level=${{ env.LEVEL }}\n    method: post\n    body: '{\"a\": 1}'\n    headers:\n      - {name: Authorization, value: \"Bearer ${{ env.ADMIN_TOKEN }}\"}\n    timeout: 1m\n    interval: 20\n    ready_after: 3\n";
    let kept = document("dstack/service-http.yaml", &[(probe, "")]);
    let plain = "type: service\nname: docs\nport: 80\ngateway: false\nauth: false\nimage: docs\n";
    let options = Options {
        project: Some("Team".into()),
        ..targets(&[("grafana", &whole.url()), ("docs", &stripped.url())])
    };
    let running = Conversion::of(&[&gateway, &kept, plain], &options).start();
    let anybody = Caller::new(&running, MODELS);
    assert_from(
        &anybody.get("/proxy/services/team/docs/a/b?c=d&e="),
        "stripped",
    );
    assert_eq!(stripped.last().path(), "/a/b?c=d&e=");
    assert_from(&anybody.get("/proxy/services/team/docs"), "stripped");
    assert_eq!(stripped.last().path(), "/");
    assert_from(&anybody.get("/proxy/services/team/grafana/a?b=c"), "whole");
    assert_eq!(whole.last().path(), "/proxy/services/team/grafana/a?b=c");
    for path in [
        "/proxy/services/team/nobody/",
        "/proxy/services/other/docs/",
        "/a",
    ] {
        assert!(matches!(anybody.get(path).status, 401 | 404), "{path}");
    }
}

/// What is asked for readiness by the probe holds a replica out that was out, until it has answered often enough.
#[test]
fn a_replica_that_was_out_is_held_out_until_it_is_ready() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let steady = named("steady");
    let ready = Arc::new(AtomicBool::new(false));
    let seen = ready.clone();
    let booting = Upstream::start(move |connection| {
        while let Some(request) = connection.request() {
            let status = match request.path() == "/health" && !seen.load(Ordering::SeqCst) {
                true => "503 Service Unavailable",
                false => "204 No Content",
            };
            connection.send(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    let service = "type: service\nname: chat\nport: 8000\nmodel: m\nauth: false\ncommands: [run]\nreplicas: 2\nprobes: [{type: http, url: /health, interval: 1s, timeout: 1s, ready_after: 3}]\n";
    let gateway = document("dstack/seed-gateway.yaml", &[]);
    let options = targets(&[("chat", &steady.url()), ("chat", &booting.url())]);
    let conversion = Conversion::of(&[&gateway, service], &options);
    conversion.tells(
        "probes[0].ready_after",
        Fate::Adapted,
        "`health.healthy_after`: so many good answers in a row",
    );
    conversion.tells("probes[0]", Fate::Assumed, "dstack would go on sending");
    let running = conversion.start();
    // Asked a third time, it has been out since the second.
    until("the replica to be out", || {
        (booting.requests().len() >= 3).then_some(())
    });
    let caller = Caller::new(&running, "chat.example.com");
    let asked = || { booting.requests().into_iter() }.filter(|request| request.path() == CHAT);
    for _ in 0..20 {
        assert_from(&caller.chat("m"), "steady");
    }
    assert_eq!(asked().count(), 0, "it is not ready");
    let checks = booting.requests().len();
    ready.store(true, Ordering::SeqCst);
    until("the replica to be ready", || {
        (caller.chat("m").status == 204).then_some(())
    });
    let requests = booting.requests();
    let since = requests.iter().skip(checks);
    let good = since
        .take_while(|request| request.path() == "/health")
        .count();
    assert!(good >= 3, "ready after {good} good answers");
}

/// dstack takes replicas in turn unless a router says otherwise; Tollgate goes by load, and says so.
#[test]
fn a_router_policy_is_the_replicas_policy() {
    let replicas = [named("a"), named("b"), named("c")];
    let service = document(
        "dstack/service-router.yaml",
        &[("gateway: true", "gateway: edge")],
    );
    let options = targets(
        &replicas
            .each_ref()
            .map(|replica| ("chat", replica.url()))
            .each_ref()
            .map(|(name, url)| (*name, url.as_str())),
    );
    let edge = "type: gateway\nname: edge\nbackend: aws\nregion: r\ndomain: example.com\n";
    let running = Conversion::of(&[edge, &service], &options).start();
    let caller = Caller::new(&running, "chat.example.com").with_key("edge");
    let answers: Vec<String> = (0..9).map(|_| caller.chat("chat-large").text()).collect();
    for turn in answers.chunks(3) {
        let mut turn = turn.to_vec();
        turn.sort();
        assert_eq!(turn, ["a", "b", "c"], "{answers:?}");
    }
    assert_eq!(answers[..3], answers[3..6], "another order");

    // A gateway's router is that of the services of its list.
    let list = document(
        "dstack/list.json",
        &[
            (
                ",\n  {\"type\": \"fleet\", \"name\": \"gpus\", \"nodes\": 2}",
                "",
            ),
            ("\"https\": true", "\"https\": \"auto\""),
        ],
    );
    let conversion = Conversion::of(&[&list], &Options::default());
    conversion.tells("[0].router", Fate::Assumed, "policy = \"random\"");
    let seed = document("dstack/seed-gateway-router.yaml", &[]);
    let conversion = Conversion::of(&[&seed], &Options::default());
    conversion.tells("router.policy", Fate::Taken, "policy = \"cache_aware\"");
    let conversion = Conversion::of(
        &[&document("dstack/seed-service.yaml", &[])],
        &Options::default(),
    );
    conversion.tells("router", Fate::Assumed, "dstack would take them in turn");
}

/// Requests reach a router's group alone; without one, all groups.
#[test]
fn groups_of_replicas() {
    let (router, worker) = (named("router"), named("worker"));
    let edge = "type: gateway\nname: edge-a\nbackend: aws\nregion: r\ndomain: example.com\n";
    let service = document(
        "dstack/service-groups-old.yaml",
        &[(
            "probes: [{type: http, url: /health, until_ready: true}]\n",
            "",
        )],
    );
    let options = Options {
        gateway: Some("edge-a".into()),
        ..targets(&[
            ("chat-pd/router", &router.url()),
            ("chat-pd/prefill", &worker.url()),
            ("chat-pd/decode", &worker.url()),
        ])
    };
    let conversion = Conversion::of(&[edge, &service], &options);
    conversion.tells(
        "--target chat-pd/decode",
        Fate::Warned,
        "its service's router",
    );
    let running = conversion.start();
    let caller = Caller::new(&running, MODELS).with_key("edge-a");
    for _ in 0..10 {
        assert_from(&caller.chat("chat-large"), "router");
    }

    let (one, two) = (named("one"), named("two"));
    let edge = edge.replace("edge-a", "edge-b");
    let service = document("dstack/service-groups-new.yaml", &[]);
    let options = targets(&[("mixed/h100", &one.url()), ("mixed/1", &two.url())]);
    let conversion = Conversion::of(&[&edge, &service], &options);
    let running = conversion.start();
    all_up(&running, 4);
    let caller = Caller::new(&running, MODELS).with_key("edge-b");
    let answers: Vec<String> = (0..20).map(|_| caller.chat("org/mixed").text()).collect();
    assert!(
        answers.contains(&"one".into()) && answers.contains(&"two".into()),
        "{answers:?}"
    );
    // The engine's API is below another path, which clients of the model do not see.
    assert_eq!(one.last().path(), "/openai/v1/chat/completions");
    let own = Caller::new(&running, "mixed.example.com").with_key("edge-b");
    own.get("/docs/index.html").assert_ok();
    let last = [&one, &two].map(|upstream| upstream.last().path().to_owned());
    assert!(last.contains(&"/docs/index.html".into()), "{last:?}");
}

/// A service without a gateway of its own is for the project's default one.
#[test]
fn the_default_gateway_gets_what_names_none() {
    let (lab, edge) = (named("lab"), named("edge"));
    let list = document("dstack/list-two.json", &[]);
    let options = targets(&[("qwen2-5-7b", &lab.url()), ("embed", &edge.url())]);
    let running = Conversion::of(&[&list], &options).start();
    for (host, of, model, by) in [
        (
            "qwen2-5-7b.lab.example.com",
            "lab",
            "Qwen/Qwen2.5-7B",
            Some("lab"),
        ),
        (
            "gateway.lab.example.com",
            "lab",
            "Qwen/Qwen2.5-7B",
            Some("lab"),
        ),
        ("gateway.example.com", "edge", "BAAI/bge-m3", Some("edge")),
        ("gateway.example.com", "edge", "Qwen/Qwen2.5-7B", None),
        ("gateway.lab.example.com", "lab", "BAAI/bge-m3", None),
    ] {
        let reply = Caller::new(&running, host).with_key(of).chat(model);
        match by {
            Some(by) => assert_from(&reply, by),
            None => reply.assert_refused(404, "model_not_found"),
        }
    }
    // The key of one opens nothing of the other.
    let other = Caller::new(&running, "gateway.example.com").with_key("lab");
    other
        .chat("BAAI/bge-m3")
        .assert_refused(401, "invalid_api_key");
}

/// What was streamed is streamed, and what an app answers passes as it is.
#[test]
fn answers_pass_as_they_are() {
    let engine = engine();
    let gateway = document("dstack/seed-gateway.yaml", &[]);
    let service = document("dstack/seed-service.yaml", &[]);
    let app = "type: service\nname: app\nport: 80\nimage: app\nauth: false\n";
    let teapot = answering("418 I'm a teapot");
    let options = Options {
        gateway: Some("example-gateway".into()),
        ..targets(&[(RUN, &engine.url()), ("app", &teapot.url())])
    };
    let running = Conversion::of(&[&gateway, &service, app], &options).start();
    let caller = Caller::new(&running, ITS_HOST).with_key("example-gateway");
    let body = json!({"model": MODEL, "stream": true, "max_tokens": 5, "messages": [{"role": "user", "content": "go"}]});
    let reply = caller.send("POST", CHAT, &body.to_string());
    reply.assert_ok();
    assert_eq!(reply.events().last().map(String::as_str), Some("[DONE]"));
    engine_state(&engine, "the stream", |state| state.finished == 1);
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = Caller::new(&running, "app.example.com").send(method, "/x", "");
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (418, "theirs"),
            "{method}"
        );
        assert_eq!(teapot.last().method(), method);
        assert_eq!(
            teapot.last().header("x-forwarded-host").as_deref(),
            Some("app.example.com")
        );
    }
}
