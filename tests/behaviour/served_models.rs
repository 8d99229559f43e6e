//! Services whose models are those that their engines list: `models = "auto"`.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::{CHAT, Client, Gateway, Reply, Upstream, bearer, get, post, service, until};

const CREDENTIAL: &str = "engine-credential-5d1f";

/// An engine that answers who has the credential, with the models that are set.
struct Engine {
    upstream: Upstream,
    models: Arc<Mutex<Option<Vec<&'static str>>>>,
}

impl Engine {
    fn start(models: &[&'static str]) -> Engine {
        let models = Arc::new(Mutex::new(Some(models.to_vec())));
        let theirs = models.clone();
        let upstream = Upstream::start(move |connection| {
            while let Some(request) = connection.request() {
                let models = theirs.lock().unwrap().clone();
                let known = request.header("authorization") == Some(format!("Bearer {CREDENTIAL}"))
                    && request.header("x-team").as_deref() == Some("a");
                let (status, body) = match (request.path(), known, models) {
                    (_, false, _) => ("401 Unauthorized", String::new()),
                    (_, _, None) => ("500 Internal Server Error", "{\"data\":[]}".to_owned()),
                    ("/v1/models", _, Some(models)) => ("200 OK", list(&models)),
                    ("/metrics", ..) => ("200 OK", "vllm:num_requests_running 7\n".to_owned()),
                    _ => ("200 OK", "ok".to_owned()),
                };
                let length = body.len();
                connection.send(format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}"
                ));
            }
        });
        Engine { upstream, models }
    }

    fn set(&self, models: Option<&[&'static str]>) {
        *self.models.lock().unwrap() = models.map(<[_]>::to_vec);
    }

    /// Chats that came for this model.
    fn chats(&self, model: &str) -> usize {
        let requests = self.upstream.requests();
        let mut chats: Vec<Value> = requests
            .iter()
            .filter(|request| request.path() == CHAT)
            .map(|request| serde_json::from_slice(&request.body).unwrap())
            .collect();
        chats.retain(|body| body["model"] == model);
        chats.len()
    }
}

fn list(models: &[&str]) -> String {
    let models: Vec<Value> = models.iter().map(|id| json!({"id": id})).collect();
    json!({"object": "list", "data": models}).to_string()
}

/// A service `auto` on these engines, with a beginning and more of the configuration.
fn start(more: &str, engines: &[&Engine]) -> Gateway {
    let urls: Vec<String> = engines
        .iter()
        .map(|engine| format!("\"{}\"", engine.upstream.url()))
        .collect();
    Gateway::start(&format!(
        "{more}[[service]]\nname = \"auto\"\nmodels = \"auto\"\nupstream = \"gpus\"\n\
         [[upstream]]\nname = \"gpus\"\nengine = \"vllm\"\nhealth = \"off\"\nbreaker = \"off\"\n\
         api_key = \"{CREDENTIAL}\"\nheaders = {{ X-Team = \"a\" }}\ntargets = [{}]\n",
        urls.join(", ")
    ))
}

fn listed(gateway: &Gateway, fields: &str) -> Vec<String> {
    let mut client = gateway.client();
    client.send(get("/v1/models", fields));
    let body: Value = client.reply().json();
    let ids = body["data"].as_array().unwrap().iter();
    ids.map(|model| model["id"].as_str().unwrap().to_owned())
        .collect()
}

#[track_caller]
fn wait_for(gateway: &Gateway, wanted: &[&str]) {
    until("the models to be listed", || {
        (listed(gateway, "") == wanted).then_some(())
    });
}

fn ask(client: &mut Client, model: &str, fields: &str) -> Reply {
    client.send(post(CHAT, fields, format!("{{\"model\":\"{model}\"}}")));
    client.reply()
}

#[test]
fn what_engines_serve_is_routed_listed_and_shown_as_it_changes() {
    let engine = Engine::start(&["base", "base-lora"]);
    let gateway = start("", &[&engine]);
    let mut client = gateway.client();
    ask(&mut client, "never", "").assert_refused(404, "model_not_found");
    wait_for(&gateway, &["base", "base-lora"]);
    for model in ["base", "base-lora"] {
        let reply = ask(&mut client, model, "");
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-service"), Some("auto"));
    }
    ask(&mut client, "base-", "").assert_refused(404, "model_not_found");
    client.send(get("/v1/models/base-lora", ""));
    assert_eq!(client.reply().json()["id"], "base-lora");
    let shown = || gateway.api().get("/v1/status").json();
    assert_eq!(
        shown()["services"][0]["models"],
        json!(["base", "base-lora"])
    );
    // Its metrics are asked for with the same credential.
    until("its metrics are read", || {
        (shown()["targets"][0]["engine"]["running"] == 7.0).then_some(())
    });
    engine.set(Some(&["base", "second-lora"]));
    wait_for(&gateway, &["base", "second-lora"]);
    ask(&mut client, "second-lora", "").assert_ok();
    ask(&mut client, "base-lora", "").assert_refused(404, "model_not_found");
    // One that is down is asked for what it served.
    let asked = || {
        let requests = engine.upstream.requests();
        let models = requests.iter().filter(|r| r.path() == "/v1/models");
        models.count()
    };
    engine.set(None);
    let before = asked();
    until("it has failed", || (asked() > before).then_some(()));
    wait_for(&gateway, &["base", "second-lora"]);
    assert_eq!(ask(&mut client, "second-lora", "").status, 500);
    // Changes of the configuration lose nothing of it.
    let other = json!({"kind": "service", "name": "other", "models": ["other"], "targets": ["http://127.0.0.1:9"]});
    let made = gateway.api().ask("POST", "/v1/services", &other);
    assert_eq!(made.status, 201, "{made:?}");
    wait_for(&gateway, &["base", "other", "second-lora"]);
}

#[test]
fn listed_names_win_over_engines_and_engines_over_prefixes() {
    let engine = Engine::start(&["base", "named"]);
    let others = Upstream::obliging();
    let more = service("exact", "named", &others.url()) + &service("rest", "*", &others.url());
    let gateway = start(&more, &[&engine]);
    wait_for(&gateway, &["base", "named"]);
    let mut client = gateway.client();
    for (model, by) in [("base", "auto"), ("named", "exact"), ("else", "rest")] {
        let reply = ask(&mut client, model, "");
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-service"), Some(by), "{model}");
    }
}

#[test]
fn an_adapter_is_asked_of_the_engine_that_has_it() {
    let (one, two) = (Engine::start(&["base", "lora"]), Engine::start(&["base"]));
    let gateway = start("", &[&one, &two]);
    let both = || {
        let status = gateway.api().get("/v1/status").json();
        let targets = status["targets"].as_array().unwrap().clone();
        let told = |target: &Value| target["engine"]["models"].is_array();
        targets.iter().all(told).then_some(())
    };
    until("both have told", both);
    wait_for(&gateway, &["base", "lora"]);
    let mut client = gateway.client();
    for _ in 0..12 {
        ask(&mut client, "lora", "").assert_ok();
        ask(&mut client, "base", "").assert_ok();
    }
    assert_eq!((one.chats("lora"), two.chats("lora")), (12, 0));
    assert!(two.chats("base") > 0);
    gateway.assert_gauges_zero();
}

#[test]
fn scopes_of_keys_hold_for_what_engines_serve() {
    let engine = Engine::start(&["base", "lora"]);
    let key = |name: &str, scope: &str| {
        format!(
            "[[key]]\nname = \"{name}\"\ngateway = \"main\"\nsecret = \"tg_{name}_served-models-secret-{name}-0001\"\n{scope}\n"
        )
    };
    let secret = |name: &str| bearer(&format!("tg_{name}_served-models-secret-{name}-0001"));
    let more = format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n{}{}{}",
        key("all", ""),
        key("lora", "models = [\"lora\"]"),
        key("other", "services = [\"elsewhere\"]"),
    ) + &service("elsewhere", "else", "http://127.0.0.1:9");
    let gateway = start(&more, &[&engine]);
    until("the models to be listed", || {
        (listed(&gateway, &secret("all")) == ["base", "else", "lora"]).then_some(())
    });
    assert_eq!(listed(&gateway, &secret("lora")), ["lora"]);
    assert_eq!(listed(&gateway, &secret("other")), ["else"]);
    let mut client = gateway.client();
    ask(&mut client, "lora", &secret("lora")).assert_ok();
    for (model, who) in [("base", "lora"), ("lora", "other")] {
        let reply = ask(&mut client, model, &secret(who));
        reply.assert_refused(403, "permission_denied");
    }
}
