//! CoreWeave's API: what is refused, with Connect's codes.

use serde_json::{Value, json};

use super::coreweave::{ALL, deployment, gateway, made};
use super::{done, id, start};
use crate::harness::{Gateway, learn};

/// It has this code, and names this field.
#[track_caller]
fn refused(body: &Value, code: &str, words: &str) {
    assert_eq!(body["code"], code, "{body}");
    assert!(body["details"].is_array(), "{body}");
    let message = body["message"].as_str().unwrap();
    assert!(message.contains(words), "`{words}`: {body}");
}

fn with(mut whole: Value, change: Value) -> Value {
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(whole.as_object_mut().unwrap().remove(name)),
            value => whole[name] = value.clone(),
        }
    }
    whole
}

#[test]
fn what_is_wrong_is_told_by_its_field() {
    let running = start();
    let api = running.api();
    let front = id(&made(&api, "gateway", "", &gateway("front"))["spec"]);
    let before = api.get("/v1/status").json()["revision"].clone();
    let gateway = |change: Value| with(gateway("more"), change);
    let deployment = |change: Value| with(deployment("chat", &front, 1), change);
    let nobody = "0d3f6a52-91c4-4f5e-8a37-2b1d00000001";
    for (kind, body, code, words) in [
        (
            "gateways",
            gateway(json!({"name": null})),
            "invalid_argument",
            "name",
        ),
        (
            "gateways",
            gateway(json!({"name": "front"})),
            "already_exists",
            "front",
        ),
        (
            "gateways",
            gateway(json!({"id": front})),
            "already_exists",
            "id",
        ),
        (
            "gateways",
            gateway(json!({"id": "front"})),
            "invalid_argument",
            "UUID",
        ),
        (
            "gateways",
            gateway(json!({"zones": []})),
            "invalid_argument",
            "zones",
        ),
        (
            "gateways",
            gateway(json!({"coreWeaveAuth": null})),
            "invalid_argument",
            "coreWeaveAuth",
        ),
        (
            "gateways",
            gateway(json!({"weightsAndBiasesAuth": {}})),
            "invalid_argument",
            "weightsAndBiasesAuth",
        ),
        (
            "gateways",
            gateway(json!({"coreWeaveAuth": null, "weightsAndBiasesAuth": {"apiKey": "k"}})),
            "invalid_argument",
            "serverUrl",
        ),
        (
            "gateways",
            gateway(json!({"pathBasedRouting": {}})),
            "invalid_argument",
            "pathBasedRouting",
        ),
        (
            "gateways",
            gateway(json!({"bodyBasedRouting": null, "headerBasedRouting": {"headerName": ""}})),
            "invalid_argument",
            "headerName",
        ),
        (
            "gateways",
            gateway(json!({"endpointConfiguration": {"additionalDns": ["front.example"]}})),
            "invalid_argument",
            "front.example",
        ),
        (
            "gateways",
            gateway(json!({"nmae": 1})),
            "invalid_argument",
            "nmae",
        ),
        (
            "deployments",
            deployment(json!({"gatewayIds": []})),
            "invalid_argument",
            "gatewayIds",
        ),
        (
            "deployments",
            deployment(json!({"gatewayIds": [nobody]})),
            "invalid_argument",
            "gatewayIds[0]",
        ),
        (
            "deployments",
            deployment(json!({"model": {"name": "abc"}})),
            "invalid_argument",
            "model.name",
        ),
        (
            "deployments",
            deployment(json!({"traffic": {"weight": 1001}})),
            "invalid_argument",
            "traffic.weight",
        ),
        (
            "deployments",
            deployment(json!({"runtime": {"engine": "vllm", "version": "v1"}})),
            "invalid_argument",
            "runtime.version",
        ),
        (
            "deployments?target=nowhere:",
            deployment(json!({})),
            "invalid_argument",
            "target",
        ),
        ("deployments", json!([]), "invalid_argument", "object"),
    ] {
        let reply = api.ask("POST", &format!("{ALL}/{kind}"), &body);
        let status = if code == "already_exists" { 409 } else { 400 };
        refused(&done(&reply, status), code, words);
    }
    assert_eq!(api.get("/v1/status").json()["revision"], before);

    // What the conversion refuses is told field by field.
    let body = gateway(json!({"zones": ["a"], "nmae": 1, "pathBasedRouting": {}}));
    let body = done(&api.ask("POST", &format!("{ALL}/gateways"), &body), 400);
    let violations = body["details"][0]["fieldViolations"].as_array().unwrap();
    let fields: Vec<&Value> = violations
        .iter()
        .map(|violation| &violation["field"])
        .collect();
    assert!(
        fields.contains(&&json!("nmae")) && fields.contains(&&json!("pathBasedRouting")),
        "{body}"
    );
}

#[test]
fn what_is_fixed_cannot_be_patched() {
    let running = start();
    let api = running.api();
    let front = made(&api, "gateway", "", &gateway("front"));
    let at = format!("{ALL}/gateways/{}", id(&front["spec"]));
    let same = done(&api.ask("PATCH", &at, &front["spec"]), 200);
    assert_eq!(same["gateway"]["spec"], front["spec"]);
    for body in [
        json!({"name": "back"}),
        json!({"id": "0d3f6a52-91c4-4f5e-8a37-2b1d00000001"}),
        json!({"organizationId": "o"}),
    ] {
        let told = done(&api.ask("PATCH", &at, &body), 400);
        refused(&told, "invalid_argument", "cannot be changed");
    }
    let nobody = format!("{ALL}/gateways/0d3f6a52-91c4-4f5e-8a37-2b1d00000001");
    for method in ["GET", "PATCH", "DELETE"] {
        let body = if method == "PATCH" {
            json!({})
        } else {
            Value::Null
        };
        refused(
            &done(&api.ask(method, &nobody, &body), 404),
            "not_found",
            "0d3f",
        );
    }
}

/// It is never shown, and stays when what was shown is sent back.
#[test]
fn the_key_of_weights_and_biases_stays() {
    let running = start();
    let api = running.api();
    let secret = "a-key-of-weights-and-biases";
    learn(secret);
    let wandb = json!({"apiKey": secret, "serverUrl": "https://wandb.example", "enableUsageReports": false});
    let body = with(
        gateway("front"),
        json!({"coreWeaveAuth": null, "weightsAndBiasesAuth": wandb}),
    );
    let told = done(&api.ask("POST", &format!("{ALL}/gateways"), &body), 200);
    let spec = &told["gateway"]["spec"];
    let shown = json!({"serverUrl": "https://wandb.example", "enableUsageReports": false});
    assert_eq!(spec["weightsAndBiasesAuth"], shown);
    let at = format!("{ALL}/gateways/{}", id(spec));
    done(&api.ask("PATCH", &at, spec), 200);
    // Without its server the key would be refused: so it is still there.
    let told = done(
        &api.ask(
            "PATCH",
            &at,
            &json!({"weightsAndBiasesAuth": {"apiKey": "other"}}),
        ),
        400,
    );
    refused(&told, "invalid_argument", "serverUrl");
    assert_eq!(
        done(&api.get(&at), 200)["gateway"]["spec"]["weightsAndBiasesAuth"],
        shown
    );
}

#[test]
fn it_is_behind_the_same_token() {
    let running =
        Gateway::start("[admin]\naddress = \"$ADMIN\"\ntoken = \"a-token-of-the-admin\"\n");
    let at = format!("{ALL}/gateways");
    let told = done(&running.api().get(&at), 401);
    refused(&told, "unauthenticated", "token");
    let api = running.api().with_token("a-token-of-the-admin");
    done(&api.get(&at), 200);
    let large = vec![b' '; (1 << 20) + 1];
    let fields = crate::harness::bearer("a-token-of-the-admin");
    let told = done(&api.send("POST", &at, &fields, &large), 413);
    refused(&told, "resource_exhausted", "larger");
}
