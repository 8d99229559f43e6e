//! Whatever stands in a field is taken or refused, in either dialect; nothing breaks, and what is kept can be shown.

use serde_json::{Value, json};

use super::coreweave::{ALL, deployment, gateway, made};
use super::trustgate::{Tenant, target};
use super::trustgate_chains::limiter;
use super::{done, id, named, start};
use crate::harness::Api;

fn values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("***"),
        json!("${HOME}"),
        json!("\u{0}a/b"),
        json!([]),
        json!([[]]),
        json!([{}]),
        json!({}),
        json!({"name": {"name": []}}),
        json!(["***", null, 1]),
    ]
}

/// Makes an object with every value in every field, and takes away what came of it.
fn try_all(api: &Api, list: &str, whole: &Value, wrapped: Option<&str>) {
    let mut taken = 0;
    for field in whole.as_object().unwrap().keys() {
        for value in values() {
            let mut body = whole.clone();
            body[field] = value;
            let reply = api.ask("POST", list, &body);
            let told = reply.json();
            match reply.status {
                200 | 201 => {
                    taken += 1;
                    let spec = wrapped.map_or(&told, |kind| &told[kind]["spec"]);
                    let one = format!("{list}/{}", id(spec));
                    done(&api.get(&one), 200);
                    let gone = api.ask("DELETE", &one, &Value::Null);
                    assert!([200, 204].contains(&gone.status), "{body}: {gone:?}");
                }
                400 | 409 => {}
                status => panic!("{status}: {body}: {told}"),
            }
        }
    }
    assert!(taken > 5, "{list}: {taken}");
    done(&api.get(list), 200);
}

#[test]
fn of_trustgate() {
    let upstream = named("pool");
    let gateway = start();
    let api = gateway.api();
    let tenant = Tenant::of(&api, "Edge", "edge", json!([target(&upstream, 1)]));
    let chain = json!([limiter(1000)]);
    for (list, whole) in [
        (
            "upstreams",
            json!({"id": null, "name": "u", "algorithm": "random", "targets": [target(&upstream, 1)], "health_checks": {}, "tags": [], "websocket_config": {}}),
        ),
        (
            "services",
            json!({"name": "s", "type": "upstream", "upstream_id": tenant.upstream, "retries": 1, "tags": []}),
        ),
        (
            "rules",
            json!({"name": "r", "path": "/r/*", "paths": ["/s"], "service_id": tenant.service, "methods": ["GET"], "plugin_chain": chain, "headers": {}, "public": false}),
        ),
        (
            "keys",
            json!({"name": "k", "key": "a-secret-of-some-length", "expires_at": null, "policies": [tenant.rule], "subject": null}),
        ),
    ] {
        try_all(&api, &format!("{}/{list}", tenant.at), &whole, None);
    }
    let whole = json!({"name": "g", "subdomain": "g", "required_plugins": chain, "security_config": {}, "client_tls": {}, "status": "active"});
    try_all(&api, "/api/v1/gateways", &whole, None);
    // It still serves.
    assert_eq!(tenant.ask(gateway.address(), "/v1/x").status, 200);
}

#[test]
fn of_coreweave() {
    let running = start();
    let api = running.api();
    let front = id(&made(&api, "gateway", "", &gateway("front"))["spec"]);
    let claim =
        json!({"instanceId": "i", "instanceCount": 1, "zones": ["z"], "capacityType": "CUSTOMER"});
    for (list, whole, kind) in [
        ("gateways", gateway("more"), "gateway"),
        ("deployments", deployment("chat", &front, 1), "deployment"),
        ("capacityclaims", claim, "capacityClaim"),
    ] {
        try_all(&api, &format!("{ALL}/{list}"), &whole, Some(kind));
    }
}
