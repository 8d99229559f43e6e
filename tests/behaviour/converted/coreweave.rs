//! CoreWeave Inference: a gateway that finds the model's deployments, and splits traffic between them.

use serde_json::{Value, json};
use tollgate::config::foreign::{Fate, Options};

use super::{Caller, Conversion, assert_from, document, named, targets};
use crate::harness::{CHAT, Upstream, chat};

/// A gateway with these fields, many of them the seeds' fragments.
fn gateway(fragments: &[Value]) -> Value {
    let mut whole = json!({"id": "g", "name": "front", "zones": ["US-EAST-04A"]});
    for (name, value) in fragments.iter().filter_map(Value::as_object).flatten() {
        whole[name] = value.clone();
    }
    whole
}

fn seed(name: &str) -> Value {
    serde_json::from_str(&document(&format!("coreweave/seed-{name}.json"), &[])).unwrap()
}

fn deployment(name: &str, model: &str, weight: Option<u32>) -> Value {
    let mut whole = json!({
        "name": name, "gatewayIds": ["g"], "runtime": {"engine": "vllm"}, "resources": {"instanceType": "H100_80GB_SXM5", "gpuCount": 1},
        "model": {"name": model, "bucket": "weights", "path": "v2"}, "autoscaling": {"min": 1, "max": 4, "concurrency": 16},
    });
    if let Some(weight) = weight {
        whole["traffic"] = json!({"weight": weight});
    }
    whole
}

fn convert(documents: &[Value], places: &[(&str, &Upstream)]) -> Conversion {
    let places: Vec<_> = { places.iter() }
        .map(|(name, upstream)| (*name, upstream.url()))
        .collect();
    let places: Vec<(&str, &str)> = { places.iter() }
        .map(|(name, url)| (*name, url.as_str()))
        .collect();
    Conversion::of(&[&Value::from(documents).to_string()], &targets(&places))
}

/// The seeds' fragments make a gateway for each of the three routings.
#[test]
fn the_model_is_in_the_body_the_path_or_a_header() {
    let (one, two) = (named("one"), named("two"));
    let deployments = [
        deployment("one", "my/model", Some(1)),
        deployment("two", "other", None),
    ];
    let start = |routing: &str| {
        let front = gateway(&[seed("auth"), seed(routing)]);
        let all = [vec![front], deployments.to_vec()].concat();
        let conversion = convert(&all, &[("one", &one), ("two", &two)]);
        conversion.tells("[0].coreWeaveAuth", Fate::Adapted, "tollgate key create");
        conversion.tells(
            "[0].endpointConfiguration",
            Fate::Assumed,
            "api.ID.gw.cwinference.com, stays with CoreWeave",
        );
        conversion.start()
    };
    let model_of = |upstream: &Upstream| upstream.last().path().to_owned();

    let running = start("body");
    let caller = Caller::new(&running, "any.example").with_key("front");
    assert_from(&caller.chat("my/model"), "one");
    assert_from(&caller.chat("other"), "two");
    caller
        .chat("my%2Fmodel")
        .assert_refused(404, "model_not_found");
    caller
        .send("POST", CHAT, "{}")
        .assert_refused(400, "invalid_request");
    Caller::new(&running, "any.example")
        .chat("other")
        .assert_refused(401, "invalid_api_key");

    let running = start("path");
    let caller = Caller::new(&running, "any.example").with_key("front");
    // The body may repeat the model; the path decides.
    for body in [chat("my/model"), chat("else"), r#"{"messages":[]}"#.into()] {
        assert_from(
            &caller.send("POST", "/my%2Fmodel/v1/chat/completions?a=1", &body),
            "one",
        );
        assert_eq!(model_of(&one), "/v1/chat/completions?a=1");
        assert_eq!(one.last().body, body.as_bytes());
    }
    assert_from(
        &caller.send("POST", "/other/v1/completions", &chat("other")),
        "two",
    );
    caller
        .send("POST", "/my/model/v1/chat/completions", "{}")
        .assert_refused(404, "model_not_found");
    caller.chat("other").assert_refused(404, "model_not_found");

    let running = start("header");
    let caller = Caller::new(&running, "any.example").with_key("front");
    caller.chat("other").assert_refused(400, "invalid_request");
    let named = |model: &str| {
        Caller::new(&running, "any.example")
            .with_key("front")
            .with(&format!("X-Model-Name: {model}\r\n"))
    };
    assert_from(&named("my/model").chat("other"), "one");
    assert_from(&named("other").chat("my/model"), "two");
    named("nobody")
        .chat("other")
        .assert_refused(404, "model_not_found");
}

/// 900 beside 100 get nine tenths; what is disabled gets nothing, and two that say nothing share evenly.
#[test]
fn traffic_is_split_by_weight() {
    let upstreams =
        ["chat", "chat-canary", "chat-old", "even-a", "even-b"].map(|name| (name, named(name)));
    let places: Vec<(&str, &Upstream)> = upstreams
        .iter()
        .map(|(name, upstream)| (*name, upstream))
        .collect();
    let split: Value = serde_json::from_str(&document("coreweave/split.json", &[])).unwrap();
    // A place of a deployment that is left out is of no use.
    let places: Vec<_> = places
        .into_iter()
        .filter(|(name, _)| *name != "chat-old")
        .collect();
    let conversion = convert(split.as_array().unwrap(), &places);
    conversion.tells("[3].disabled", Fate::Adapted, "it gets no requests");
    conversion.tells("[4].traffic.weight", Fate::Assumed, "share it evenly");
    let running = conversion.start();
    let caller = Caller::new(&running, "any.example").with_key("front");
    let count = |model: &str, name: &str| {
        (0..1000)
            .filter(|_| caller.chat(model).text() == name)
            .count()
    };
    // Within four standard deviations of a draw for every request; what is exact is within them, too.
    let most = count("acme/chat", "chat");
    assert!((862..=938).contains(&most), "{most} of 1000 for 900");
    let half = count("acme/even", "even-a");
    assert!((437..=563).contains(&half), "{half} of 1000 for a half");
    assert!(upstreams[2].1.requests().is_empty(), "it is disabled");
}

/// Alone a weight of 0 serves; beside others it gets nothing, and serves when they are gone.
#[test]
fn a_weight_of_nothing() {
    let (zero, other) = (named("zero"), named("other"));
    let front = gateway(&[seed("auth"), seed("body")]);
    let documents = |weight: Option<u32>, disabled: bool| {
        let mut other = deployment("other", "acme/chat", Some(5));
        other["disabled"] = json!(disabled);
        vec![
            front.clone(),
            deployment("zero", "acme/chat", weight),
            other,
        ]
    };
    for weight in [None, Some(0)] {
        let running = convert(
            &documents(weight, false),
            &[("zero", &zero), ("other", &other)],
        )
        .start();
        let caller = Caller::new(&running, "any.example").with_key("front");
        for _ in 0..50 {
            assert_from(&caller.chat("acme/chat"), "other");
        }
        let running = convert(&documents(weight, true), &[("zero", &zero)]).start();
        let caller = Caller::new(&running, "any.example").with_key("front");
        assert_from(&caller.chat("acme/chat"), "zero");
    }
}

#[test]
fn names_and_addresses_that_may_call() {
    let upstream = named("chat");
    let fragment = json!({"endpointConfiguration": {
        "additionalDns": ["LLM.example.org"], "allowedSourceIpRanges": ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"],
    }});
    let front = gateway(&[seed("auth"), seed("body"), fragment]);
    let all = [front, deployment("chat", "acme/chat", None)];
    let conversion = convert(&all, &[("chat", &upstream)]);
    conversion.tells(
        "[0].endpointConfiguration",
        Fate::Assumed,
        "only these hosts are answered",
    );
    let running = conversion.start_beside("[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n");
    let from = |host: &str, address: &str| {
        let field = format!("x-forwarded-for: {address}\r\n");
        let caller = Caller::new(&running, host).with_key("front").with(&field);
        caller.chat("acme/chat")
    };
    for address in ["192.0.2.200", "2001:db8:1::1", "198.51.100.7"] {
        assert_from(&from("llm.example.org", address), "chat");
    }
    for address in ["192.0.3.1", "2001:db9::1", "198.51.100.8"] {
        from("llm.example.org", address).assert_refused(403, "permission_denied");
    }
    from("any.example", "192.0.2.200").assert_refused(421, "unknown_host");
}

/// Two gateways, told apart by their names; a deployment may be of both.
#[test]
fn deployments_belong_to_their_gateways() {
    let (both, one) = (named("both"), named("one"));
    let named_gateway = |id: &str| {
        let dns =
            json!({"endpointConfiguration": {"additionalDns": [format!("{id}.example.org")]}});
        let name = json!({"id": id, "name": format!("front-{id}")});
        gateway(&[seed("wandb-auth"), seed("body"), dns, name])
    };
    let mut shared = deployment("both", "acme/both", None);
    shared["gatewayIds"] = json!(["a", "b"]);
    let mut own = deployment("one", "acme/one", None);
    own["gatewayIds"] = json!(["b"]);
    let all = [named_gateway("a"), named_gateway("b"), shared, own];
    let conversion = convert(&all, &[("both", &both), ("one", &one)]);
    conversion.tells(
        "[0].weightsAndBiasesAuth.enableUsageReports",
        Fate::Warned,
        "nothing is sent to W&B",
    );
    let running = conversion.start();
    let at = |id: &str| {
        Caller::new(&running, &format!("{id}.example.org")).with_key(&format!("front-{id}"))
    };
    for id in ["a", "b"] {
        assert_from(&at(id).chat("acme/both"), "both");
    }
    assert_from(&at("b").chat("acme/one"), "one");
    at("a")
        .chat("acme/one")
        .assert_refused(404, "model_not_found");
    let other = Caller::new(&running, "a.example.org").with_key("front-b");
    other
        .chat("acme/both")
        .assert_refused(401, "invalid_api_key");
}

/// As it is answered, and with names as some clients write them.
#[test]
fn other_spellings() {
    let upstream = named("chat");
    let answer: Value = serde_json::from_str(&document("coreweave/answer.json", &[])).unwrap();
    let mut chat_deployment = deployment("chat", "acme/chat", None);
    chat_deployment["gatewayIds"] = json!(["0d3f6a52-91c4-4f5e-8a37-2b1d00000001"]);
    let running = convert(&[answer, chat_deployment.clone()], &[("chat", &upstream)]).start();
    let caller = Caller::new(&running, "any.example")
        .with_key("front")
        .with("x-model: acme/chat\r\n");
    assert_from(&caller.send("POST", CHAT, "{}"), "chat");

    let snake: Value = serde_json::from_str(&document("coreweave/snake-case.json", &[])).unwrap();
    chat_deployment["gateway_ids"] = chat_deployment["gatewayIds"].take();
    chat_deployment
        .as_object_mut()
        .unwrap()
        .remove("gatewayIds");
    let running = convert(&[snake, chat_deployment], &[("chat", &upstream)]).start();
    let caller = Caller::new(&running, "llm.example.org").with_key("front");
    assert_from(&caller.chat("acme/chat"), "chat");
}

/// Where a deployment's engines are is not in its document: what is not told is made up and said to be.
#[test]
fn a_place_that_nobody_told_is_named() {
    let all = [
        gateway(&[seed("auth"), seed("body")]),
        deployment("chat", "acme/chat", None),
    ];
    let conversion = Conversion::of(
        &[&Value::from(all.to_vec()).to_string()],
        &Options::default(),
    );
    conversion.tells("[1]", Fate::Assumed, "give them with --target chat=URL");
    assert!(conversion.toml.contains("http://chat:8000"));
}
