//! Keys that are changed: their secrets stay what they were.

use serde_json::json;

use super::resources::{details, refused};
use crate::harness::{Gateway, Upstream, bearer, service};

/// A key keeps its secret whatever is done to the rest of it.
#[test]
fn a_key_changes_and_its_secret_stays() {
    let upstream = Upstream::obliging();
    let toml = "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n".to_owned()
        + &service("a", "a", &upstream.url())
        + &service("b", "b", &upstream.url());
    let gateway = Gateway::start(&toml);
    let api = gateway.api();
    let status = |model: &str, secret: &str| gateway.client().chat(model, &bearer(secret)).status;
    let secret = api.create(&json!({"name": "k", "gateway": "main"}));
    let path = "/v1/keys/k";
    let shown = api.get(path);
    assert!(!shown.text().contains("sha256") && shown.json().get("secret").is_none());
    let patched = api.ask(
        "PATCH",
        path,
        &json!({"services": ["a"], "limits": {"global": {"limit": 1000, "window": "1m"}}}),
    );
    assert_eq!(patched.status, 200, "{}", patched.text());
    assert!(patched.json().get("secret").is_none());
    assert_eq!((status("a", &secret), status("b", &secret)), (200, 403));
    let mut body = api.get(path).json();
    body["services"] = json!([]);
    assert_eq!(api.ask("PUT", path, &body).status, 200);
    assert_eq!((status("a", &secret), status("b", &secret)), (200, 200));
    let next = api.rotate("k", "1h");
    assert_eq!(
        api.ask("PATCH", path, &json!({"active": false})).status,
        200
    );
    assert_eq!((status("a", &secret), status("a", &next)), (401, 401));
    assert_eq!(
        api.ask(
            "PATCH",
            path,
            &json!({"active": null, "expires_at": "2040-01-01T00:00:00Z"})
        )
        .status,
        200
    );
    assert_eq!((status("a", &secret), status("a", &next)), (200, 200));
    for (field, value) in [
        ("secret", json!("tg_x_0123456789abcdef")),
        ("hash", json!(format!("sha256:{}", "0".repeat(64)))),
    ] {
        let error = refused(
            &api.ask("PATCH", path, &json!({field: value})),
            422,
            "invalid",
        );
        assert_eq!(details(&error)[0].0, field);
        assert!(!error.to_string().contains("0123456789"), "{error}");
    }
    // A new one may bring its hash.
    let hash = format!("sha256:{}", crate::harness::sha256(b"brought-along-secret"));
    let made = api.ask(
        "POST",
        "/v1/keys",
        &json!({"name": "brought", "gateway": "main", "hash": hash}),
    );
    assert_eq!((made.status, made.json().get("secret")), (201, None));
    assert_eq!(status("a", "brought-along-secret"), 200);
    let twin = json!({"name": "twin", "gateway": "main", "hash": hash});
    refused(&api.ask("POST", "/v1/keys", &twin), 422, "invalid");
}
