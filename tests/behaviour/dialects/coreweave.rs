//! CoreWeave's API: the life of a gateway and its deployments.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{FILE, ask, done, id, named, shares, start};
use crate::harness::{Api, Process, Reply, Upstream, bearer, until};

pub(super) const ALL: &str = "/v1alpha1/inference";

pub(super) fn gateway(name: &str) -> Value {
    json!({
        "name": name, "zones": ["US-EAST-04A"], "coreWeaveAuth": {}, "bodyBasedRouting": {"apiType": "API_TYPE_OPENAI"},
        "endpointConfiguration": {"additionalDns": [format!("{name}.example")]},
    })
}

pub(super) fn deployment(name: &str, gateway: &str, weight: u32) -> Value {
    json!({
        "name": name, "gatewayIds": [gateway], "runtime": {"engine": "vllm", "version": "1.2.3"},
        "resources": {"instanceType": "H100_80GB_SXM5", "gpuCount": 1},
        "model": {"name": "acme/chat", "bucket": "weights", "path": "v2"},
        "autoscaling": {"min": 1, "max": 4, "concurrency": 16}, "traffic": {"weight": weight},
    })
}

/// Makes an object of this kind; what it says.
#[track_caller]
pub(super) fn made(api: &Api, kind: &str, query: &str, body: &Value) -> Value {
    let made = done(
        &api.ask("POST", &format!("{ALL}/{kind}s{query}"), body),
        200,
    );
    let spec = &made[kind]["spec"];
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(&spec[field], value, "{made}");
    }
    id(spec);
    made[kind].clone()
}

fn place(upstream: &Upstream) -> String {
    format!("?target={}", upstream.url())
}

#[track_caller]
fn wait(api: &Api, path: &str, kind: &str, status: &str) -> Value {
    until(status, || {
        let told = done(&api.get(path), 200)[kind].clone();
        (told["status"]["status"] == status).then_some(told)
    })
}

fn chat(address: SocketAddr, host: &str, secret: &str) -> Reply {
    ask(address, host, "/v1/chat/completions", &bearer(secret))
}

/// Made, asked with its weights, killed, asked again, patched and taken away.
#[test]
fn the_life_of_a_gateway() {
    let (new, old) = (named("new"), named("old"));
    let mut process = Process::start(&format!(
        "{FILE}[server]\nstate = \"./tollgate.db\"\ngrace = \"1s\"\n"
    ));
    let (api, address) = (process.api(), process.address);
    let front = made(&api, "gateway", "", &gateway("front"));
    let front_id = id(&front["spec"]);
    let at = format!("{ALL}/gateways/{front_id}");
    // An empty gateway is ready for its deployments.
    let ready = wait(&api, &at, "gateway", "STATUS_READY");
    let endpoints = ready["status"]["endpoints"].as_array().unwrap();
    let named = json!(format!("http://front.example:{}", address.port()));
    assert!(endpoints.contains(&named), "{endpoints:?}");
    let conditions = &ready["status"]["conditions"];
    assert_eq!(conditions[0]["type"], "Ready");
    assert_eq!(conditions[0]["status"], "True");
    assert_eq!(conditions[0]["reason"], "AsExpected");
    assert_eq!(conditions[0]["zone"], "US-EAST-04A");
    assert_eq!(
        (&conditions[1]["type"], &conditions[1]["status"]),
        (&json!("Progressing"), &json!("False"))
    );

    let first = made(
        &api,
        "deployment",
        &place(&new),
        &deployment("chat-new", &front_id, 900),
    );
    let second = made(
        &api,
        "deployment",
        &place(&old),
        &deployment("chat-old", &front_id, 100),
    );
    let one = |made: &Value| format!("{ALL}/deployments/{}", id(&made["spec"]));
    wait(&api, &one(&first), "deployment", "STATUS_READY");
    wait(&api, &one(&second), "deployment", "STATUS_READY");
    let secret = api.create(&json!({"name": "me", "gateway": "front"}));
    let split = |host: &str| shares(20, &["new", "old"], || chat(address, host, &secret));
    assert_eq!(split("front.example"), [18, 2]);
    // CoreWeave's form of a gateway's own address leads to it, too.
    let own = format!("api.{front_id}.gw.localhost");
    assert_eq!(chat(address, &own, &secret).status, 200);

    let shown = done(&api.get(&one(&first)), 200);
    process.signal("KILL");
    process.end();
    process.restart();
    wait(&api, &one(&first), "deployment", "STATUS_READY");
    wait(&api, &one(&second), "deployment", "STATUS_READY");
    let again = done(&api.get(&one(&first)), 200);
    assert_eq!(again["deployment"]["spec"], shown["deployment"]["spec"]);
    assert_eq!(split("front.example"), [18, 2]);

    // One field, and then the whole spec.
    let nothing = json!({"traffic": {"weight": 0}});
    done(&api.ask("PATCH", &one(&second), &nothing), 200);
    assert_eq!(split("front.example"), [20, 0]);
    let mut whole = shown["deployment"]["spec"].clone();
    whole["disabled"] = json!(true);
    let told = done(&api.ask("PATCH", &one(&first), &whole), 200);
    assert_eq!(
        told["deployment"]["status"]["conditions"][0]["reason"],
        "Disabled"
    );
    // A lone weight of 0 still serves.
    assert_eq!(split("front.example"), [0, 20]);

    let in_use = done(&api.ask("DELETE", &at, &Value::Null), 400);
    assert_eq!(in_use["code"], "failed_precondition");
    for (path, kind) in [(one(&first), "deployment"), (one(&second), "deployment")] {
        let last = done(&api.ask("DELETE", &path, &Value::Null), 200);
        assert_eq!(last[kind]["status"]["status"], "STATUS_DELETING");
        assert_eq!(done(&api.get(&path), 404)["code"], "not_found");
    }
    // The key is native, and refers to the gateway.
    let in_use = done(&api.ask("DELETE", &at, &Value::Null), 400);
    assert!(
        in_use["message"].as_str().unwrap().contains("key me"),
        "{in_use}"
    );
    api.revoke("me");
    done(&api.ask("DELETE", &at, &Value::Null), 200);
    done(&api.get(&at), 404);
    assert_eq!(
        done(&api.get(&format!("{ALL}/gateways")), 200),
        json!({"items": []})
    );
}

/// Without a place it waits for one, and says so; targets that register with its upstream are one.
#[test]
fn a_deployment_waits_for_its_engines() {
    let engine = named("engine");
    let running = start();
    let api = running.api();
    let front = id(&made(&api, "gateway", "", &gateway("front"))["spec"]);
    let chat = made(&api, "deployment", "", &deployment("chat", &front, 1));
    assert_eq!(chat["status"]["status"], "STATUS_CREATING");
    let ready = &chat["status"]["conditions"][0];
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&json!("False"), &json!("NoTargets"))
    );
    assert!(
        ready["message"]
            .as_str()
            .unwrap()
            .contains("/v1/upstreams/chat/targets/")
    );
    let target = json!({"url": engine.url()});
    done(
        &api.ask("PUT", "/v1/upstreams/chat/targets/a", &target),
        201,
    );
    let one = format!("{ALL}/deployments/{}", id(&chat["spec"]));
    wait(&api, &one, "deployment", "STATUS_READY");
    let secret = api.create(&json!({"name": "me", "gateway": "front"}));
    let reply = super::coreweave::chat(running.address(), "front.example", &secret);
    assert_eq!((reply.status, reply.text()), (200, "engine".to_owned()));
    // Another write does not take the target away.
    done(
        &api.ask("PATCH", &one, &json!({"traffic": {"weight": 7}})),
        200,
    );
    let native = done(&api.get("/v1/services/chat"), 200);
    assert_eq!(native["weight"], 7);
    let targets = done(&api.get("/v1/upstreams/chat/targets"), 200);
    assert!(targets.to_string().contains(&engine.url()), "{targets}");
}

/// In place, without naming what goes.
#[test]
fn routing_changes_from_body_to_header() {
    let engine = named("engine");
    let running = start();
    let api = running.api();
    let front = id(&made(&api, "gateway", "", &gateway("front"))["spec"]);
    made(
        &api,
        "deployment",
        &place(&engine),
        &deployment("chat", &front, 1),
    );
    let secret = api.create(&json!({"name": "me", "gateway": "front"}));
    let at = format!("{ALL}/gateways/{front}");
    assert_eq!(
        chat(running.address(), "front.example", &secret).status,
        200
    );
    let header = json!({"headerBasedRouting": {"headerName": "X-Model"}, "endpointConfiguration": {"additionalDns": ["b.example"]}});
    let told = done(&api.ask("PATCH", &at, &header), 200);
    let spec = &told["gateway"]["spec"];
    assert!(spec.get("bodyBasedRouting").is_none(), "{spec}");
    assert_eq!(spec["coreWeaveAuth"], json!({}));
    // Names are added to those there are.
    let names = json!(["front.example", "b.example"]);
    assert_eq!(spec["endpointConfiguration"]["additionalDns"], names);
    for host in ["front.example", "b.example"] {
        assert_eq!(chat(running.address(), host, &secret).status, 400);
        let fields = format!("{}x-model: acme/chat\r\n", bearer(&secret));
        let reply = ask(running.address(), host, "/v1/chat/completions", &fields);
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let nothing = json!({"endpointConfiguration": {"additionalDns": []}});
    let told = done(&api.ask("PATCH", &at, &nothing), 200);
    assert_eq!(
        told["gateway"]["spec"]["endpointConfiguration"]["additionalDns"],
        names
    );
}

/// Kept, and told not to be acted on.
#[test]
fn claims_and_choices() {
    let running = start();
    let api = running.api();
    let claim = json!({"instanceId": "H100_80GB_SXM5", "instanceCount": 2, "zones": ["US-EAST-04A"], "capacityType": "CUSTOMER"});
    let told = done(
        &api.ask("POST", &format!("{ALL}/capacityclaims"), &claim),
        200,
    );
    let told = &told["capacityClaim"];
    assert_eq!(told["spec"]["instanceCount"], 2);
    let ready = &told["status"]["conditions"][0];
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&json!("False"), &json!("NotActedOn"))
    );
    let list = done(&api.get(&format!("{ALL}/capacityclaims")), 200);
    assert_eq!(list["capacityClaims"].as_array().unwrap().len(), 1);
    let zones = done(&api.get(&format!("{ALL}/gateways/parameters")), 200);
    assert_eq!(zones["zones"], json!(["LOCAL", "US-EAST-04A"]));
    let front = id(&made(&api, "gateway", "", &gateway("front"))["spec"]);
    let choices = done(&api.get(&format!("{ALL}/deployments/parameters")), 200);
    assert_eq!(choices["gatewayIds"], json!([front]));
    let later = done(
        &api.get(&format!("{ALL}/gateways?updatedAfter=2099-01-01T00:00:00Z")),
        200,
    );
    assert_eq!(later, json!({"items": []}));
    let all = done(
        &api.get(&format!("{ALL}/gateways?updatedAfter=2000-01-01T00:00:00Z")),
        200,
    );
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
    let one = format!("{ALL}/capacityclaims/{}", id(&told["spec"]));
    done(&api.ask("DELETE", &one, &Value::Null), 200);
    done(&api.get(&one), 404);
}
