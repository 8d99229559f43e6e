//! TrustGate's API: chains of plugins, and keys by their subject.

use serde_json::{Value, json};

use super::trustgate::{Tenant, target};
use super::{ask, done, id, named, start};
use crate::harness::learn;

const PLUGINS: &str = "/api/v1/plugins";
const KEYS: &str = "/api/v1/iam/api-keys";

pub(super) fn limiter(limit: u32) -> Value {
    json!({
        "name": "rate_limiter", "enabled": true, "stage": "pre_request", "priority": 1,
        "settings": {"limits": {"global": {"limit": limit, "window": "1h"}}, "actions": {"type": "reject", "retry_after": "60"}},
    })
}

#[test]
fn plugins_come_and_go() {
    let upstream = named("pool");
    let gateway = start();
    let api = gateway.api();
    let tenant = Tenant::of(&api, "Edge", "edge", json!([target(&upstream, 1)]));
    let asked = || tenant.ask(gateway.address(), "/v1/x").status;
    let owner = tenant.at.rsplit('/').next().unwrap();
    let call = |method: &str, mut body: Value| {
        body["type"] = json!("gateway");
        body["id"] = json!(owner);
        api.ask(method, PLUGINS, &body)
    };
    let chain = || done(&api.get(&tenant.at), 200)["required_plugins"].clone();

    done(&call("POST", json!({"plugins": [limiter(2)]})), 204);
    assert_eq!(chain(), json!([limiter(2)]));
    assert_eq!([asked(), asked(), asked()], [200, 200, 429]);
    let twice = done(&call("POST", json!({"plugins": [limiter(3)]})), 400);
    let why = twice["error"].as_str().unwrap();
    assert!(why.contains("already exists for stage"), "{why}");

    let edit = json!({"updates": [{"operation": "edit", "plugin": limiter(100)}]});
    done(&call("PUT", edit), 204);
    assert_eq!(asked(), 200);
    let unknown = json!({"updates": [{"operation": "delete", "plugin_name": "cors"}]});
    done(&call("PUT", unknown), 400);
    assert_eq!(chain(), json!([limiter(100)]));
    done(&call("DELETE", json!({"plugins": ["rate_limiter"]})), 204);
    assert_eq!(chain(), json!([]));

    // Some revisions send a map from the plugins' names.
    let mut unnamed = limiter(50);
    unnamed.as_object_mut().unwrap().remove("name");
    let map = json!({"required_plugins": {"rate_limiter": unnamed}});
    done(&api.ask("PUT", &tenant.at, &map), 204);
    assert_eq!(chain()["rate_limiter"], unnamed);
    done(&call("DELETE", json!({})), 204);
    assert_eq!(chain(), json!([]));

    // A rule has a chain of its own.
    let of_rule = json!({"type": "rule", "id": tenant.rule, "plugins": [limiter(1)]});
    done(&api.ask("POST", PLUGINS, &of_rule), 204);
    let rule = tenant.get("rules", &tenant.rule);
    assert_eq!(rule["plugin_chain"], json!([limiter(1)]));
    assert_eq!([asked(), asked()], [200, 429]);

    for (body, words) in [
        (
            json!({"type": "service", "id": owner, "plugins": [limiter(1)]}),
            "type must be",
        ),
        (
            json!({"type": "rule", "id": owner, "plugins": [limiter(1)]}),
            "invalid rule ID",
        ),
        (
            json!({"type": "rule", "id": "r", "plugins": [limiter(1)]}),
            "invalid rule ID",
        ),
        (
            json!({"type": "gateway", "id": owner, "plugins": []}),
            "plugins",
        ),
        (
            json!({"type": "gateway", "id": owner, "plugins": [{"name": "nobody"}]}),
            "no such plugin",
        ),
    ] {
        let answer = done(&api.ask("POST", PLUGINS, &body), 400);
        assert!(
            answer["error"].as_str().unwrap().contains(words),
            "{answer}"
        );
    }
}

/// A key of a gateway opens all of its rules, or those that its policies name.
#[test]
fn keys_by_their_subject() {
    let upstream = named("pool");
    let gateway = start();
    let api = gateway.api();
    let tenant = Tenant::of(&api, "Edge", "edge", json!([target(&upstream, 1)]));
    let owner = tenant.at.rsplit('/').next().unwrap();
    let second = json!({"name": "second", "path": "/v2/*", "methods": ["POST"], "service_id": tenant.service});
    let second = id(&done(
        &api.ask("POST", &format!("{}/rules", tenant.at), &second),
        201,
    ));
    let body = json!({"name": "one", "subject_type": "gateway", "subject": owner, "policies": [tenant.rule]});
    let made = done(&api.ask("POST", KEYS, &body), 201);
    let secret = made["key"].as_str().unwrap().to_owned();
    learn(&secret);
    let asked = || {
        let key = format!("authorization: Bearer {secret}\r\n");
        ["/v1/x", "/v2/x"].map(|path| ask(gateway.address(), "edge.localhost", path, &key).status)
    };
    assert_eq!(asked(), [200, 403]);
    let one = format!("{KEYS}/{}", id(&made));
    assert_eq!(done(&api.get(&one), 200)["policies"], json!([tenant.rule]));
    assert!(!api.get(KEYS).text().contains(&secret));
    assert_eq!(done(&api.get(KEYS), 200)["count"], 2);

    // A rule that a key names is in use.
    done(
        &api.ask("DELETE", &tenant.one("rules", &tenant.rule), &Value::Null),
        400,
    );
    let both = json!({"policies": [tenant.rule, second]});
    done(
        &api.ask("PUT", &format!("{one}/policies?subject_id={owner}"), &both),
        204,
    );
    assert_eq!(asked(), [200, 200]);
    done(
        &api.ask(
            "PUT",
            &format!("{one}/policies"),
            &json!({"policies": [owner]}),
        ),
        400,
    );
    assert_eq!(asked(), [200, 200]);

    let of_rules = json!({"name": "two", "subject_type": "policy", "policies": [second]});
    done(&api.ask("POST", KEYS, &of_rules), 201);
    for body in [
        json!({"name": "x"}),
        json!({"name": "x", "subject": second}),
        json!({"name": "x", "subject_type": "policy"}),
        json!({"name": "x", "subject_type": "policy", "subject": owner, "policies": [second]}),
        json!({"name": "x", "subject_type": "team", "subject": owner}),
    ] {
        done(&api.ask("POST", KEYS, &body), 400);
    }
    done(&api.ask("DELETE", &one, &Value::Null), 204);
    assert_eq!(asked(), [401, 401]);
    done(&api.get(&one), 404);
}
