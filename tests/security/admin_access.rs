//! The admin API opens to nobody but those it is meant for, and takes nothing that is malformed.

use serde_json::{Value, json};

use crate::harness::{Api, Gateway, bearer, engine, service};

const TOKEN: &str = "admin-token-0123456789";

/// Every page of the API, with what it gets when it may be used.
const PAGES: [(&str, &str); 9] = [
    ("GET", "/v1/keys"),
    ("POST", "/v1/keys"),
    ("GET", "/v1/keys/filed"),
    ("DELETE", "/v1/keys/made"),
    ("POST", "/v1/keys/made/rotate"),
    ("GET", "/v1/usage"),
    ("GET", "/v1/status"),
    ("GET", "/v1/openapi.json"),
    ("POST", "/v1/reload"),
];

fn start(engine: &str, admin: &str) -> Gateway {
    let admin = format!("[admin]\naddress = \"$ADMIN\"\n{admin}\n");
    let gateway = "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n";
    let key = "[[key]]\nname = \"filed\"\ngateway = \"main\"\nsecret = \"tg_0_0123456789abcdef\"\n";
    Gateway::start(&format!(
        "{admin}{gateway}{key}{}",
        service("a", "a", engine)
    ))
}

fn with_key(gateway: &Gateway, token: Option<&str>) -> (Api, String) {
    let api = match token {
        Some(token) => gateway.api().with_token(token),
        None => gateway.api(),
    };
    let secret = api.create(&json!({"name": "made", "gateway": "main"}));
    (api, secret)
}

/// Every page refuses these header lines, and nothing has happened.
#[track_caller]
fn assert_shut(gateway: &Gateway, api: &Api, secret: &str, fields: &str, status: u16, code: &str) {
    for (method, path) in PAGES {
        let body = json!({"name": "intruder", "gateway": "main"}).to_string();
        let reply = api.send(method, path, fields, body.as_bytes());
        assert_eq!(reply.status, status, "{method} {path} with {fields:?}");
        assert_eq!(reply.json()["error"]["code"], code);
        assert!(!reply.text().contains("filed"), "{}", reply.text());
        let allows = reply.header("access-control-allow-origin");
        assert_eq!(allows, None, "{method} {path}");
    }
    assert_eq!(
        api.get("/v1/keys").json()["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    gateway.client().chat("a", &bearer(secret)).assert_ok();
}

#[test]
fn only_with_the_token() {
    let engine = engine();
    let gateway = start(&engine.url(), &format!("token = \"{TOKEN}\""));
    let (api, secret) = with_key(&gateway, Some(TOKEN));
    let basic = format!("authorization: Basic {TOKEN}\r\n");
    for fields in [
        String::new(),
        bearer(""),
        bearer("admin-token-0123456788"),
        bearer("admin-token-012345678"),
        bearer("admin-token-01234567890"),
        basic,
        format!("authorization: {TOKEN}\r\n"),
        format!("x-api-key: {TOKEN}\r\n"),
        bearer(&secret),
        // A first wrong one is not made good by a second.
        bearer("wrong") + &bearer(TOKEN),
    ] {
        assert_shut(&gateway, &api, &secret, &fields, 401, "invalid_token");
    }
    for (method, path) in PAGES {
        if method == "GET" {
            assert_eq!(api.get(path).status, 200, "{path}");
        }
    }
    assert_eq!(gateway.api().get("/v1/events").status, 401);
    // Who watches over the process needs no token, and learns nothing of keys' secrets.
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(gateway.api().get(path).status, 200, "{path}");
    }
    // The token opens the admin API, not the gateway.
    gateway
        .client()
        .chat("a", &bearer(TOKEN))
        .assert_refused(401, "invalid_api_key");
    assert_eq!(gateway.client().get("/v1/keys", &bearer(TOKEN)).status, 401);
}

/// An empty token is none; it does not open the API to those who send an empty one.
#[test]
fn an_empty_token_is_none() {
    let engine = engine();
    let gateway = start(&engine.url(), "token = \"\"");
    let (api, secret) = with_key(&gateway, None);
    assert_eq!(api.get("/v1/keys").status, 200);
    let foreign = "origin: http://evil.example\r\n";
    assert_shut(&gateway, &api, &secret, foreign, 403, "permission_denied");
}

#[test]
fn pages_of_other_origins_may_not_use_it() {
    let engine = engine();
    for token in [None, Some(TOKEN)] {
        let admin = token.map_or(String::new(), |token| format!("token = \"{token}\""));
        let gateway = start(&engine.url(), &admin);
        let (api, secret) = with_key(&gateway, token);
        let own = token.map(bearer).unwrap_or_default();
        for origin in [
            "http://evil.example",
            "https://evil.example:8443",
            "http://localhost.evil.example",
            "http://test.evil.example",
            "http://tes",
            "null",
            "test",
            "",
        ] {
            let fields = format!("{own}origin: {origin}\r\n");
            assert_shut(&gateway, &api, &secret, &fields, 403, "permission_denied");
        }
        // Its own pages may: the host that was asked is `test`.
        let fields = format!("{own}origin: http://test\r\n");
        assert_eq!(api.send("GET", "/v1/keys", &fields, b"").status, 200);
    }
}

/// Without a token, a browser on this machine is let in by its address. A page whose own name was made to lead here is of our origin to it, so that
/// only the name it asked for gives it away.
#[test]
fn names_that_were_made_to_lead_here_are_refused() {
    let engine = engine();
    let gateway = start(&engine.url(), "");
    let (api, secret) = with_key(&gateway, None);
    for host in [
        "evil.example",
        "evil.example:9091",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
    ] {
        let plain = format!("host: {host}\r\n");
        assert_shut(&gateway, &api, &secret, &plain, 403, "permission_denied");
        let page = format!("host: {host}\r\norigin: http://{host}\r\n");
        assert_shut(&gateway, &api, &secret, &page, 403, "permission_denied");
    }
    for host in [
        "127.0.0.1:9091",
        "localhost:9091",
        "[::1]:9091",
        "gateway",
        "127.0.0.1",
    ] {
        let fields = format!("host: {host}\r\n");
        assert_eq!(
            api.send("GET", "/v1/keys", &fields, b"").status,
            200,
            "{host}"
        );
    }
    // Whoever has a token has said enough.
    let gateway = start(&engine.url(), &format!("token = \"{TOKEN}\""));
    let fields = bearer(TOKEN) + "host: admin.example\r\n";
    assert_eq!(
        gateway.api().send("GET", "/v1/keys", &fields, b"").status,
        200
    );
}

#[test]
fn what_is_malformed_is_refused_as_such() {
    let engine = engine();
    let gateway = start(&engine.url(), "");
    let (api, secret) = with_key(&gateway, None);
    let post = |path: &str, body: &[u8]| api.send("POST", path, "", body);
    for body in [
        "",
        "{",
        "[]",
        "7",
        "null",
        "\"text\"",
        "{\"name\":\"x\",}",
        "\u{1}",
        "name = \"x\"",
    ] {
        let reply = post("/v1/keys", body.as_bytes());
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (400, &json!("malformed")),
            "{body}"
        );
    }
    assert_eq!(post("/v1/keys", &[0xff, 0xfe]).status, 400);
    let deep = "[".repeat(100_000);
    assert_eq!(post("/v1/keys", deep.as_bytes()).status, 400);
    let large = json!({"name": "x", "gateway": "main", "description": "x".repeat(2 << 20)});
    for path in ["/v1/keys", "/v1/keys/made/rotate"] {
        let reply = post(path, large.to_string().as_bytes());
        assert_eq!(reply.status, 413, "{path}");
        assert_eq!(reply.json()["error"]["code"], "request_too_large", "{path}");
    }
    for body in [
        "{",
        "{\"grace\":7}",
        "{\"grace\":\"long\"}",
        "{\"grace\":\"-1s\"}",
        "{\"grace\":[]}",
    ] {
        assert_eq!(
            post("/v1/keys/made/rotate", body.as_bytes()).status,
            400,
            "{body}"
        );
    }
    for (method, path) in [
        ("GET", "/v1/keys/nobody"),
        ("DELETE", "/v1/keys/nobody"),
        ("POST", "/v1/keys/nobody/rotate"),
        ("GET", "/v1/keys/..%2f..%2fetc"),
        ("GET", "/v1/nonsense"),
        ("GET", "/"),
    ] {
        let reply = api.ask(method, path, &Value::Null);
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (404, &json!("not_found")),
            "{path}"
        );
    }
    let reply = api.ask("PUT", "/v1/keys", &json!({}));
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (405, &json!("method_not_allowed"))
    );
    assert!(
        reply
            .header("allow")
            .is_some_and(|allow| allow.contains("POST"))
    );
    for query in [
        "by=colour",
        "by=",
        "since=soon",
        "since=-1h",
        "until=soon",
        "nonsense=1",
        "since=",
        "By=key",
        "since=999999999999999h",
    ] {
        let reply = api.get(&format!("/v1/usage?{query}"));
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (400, &json!("malformed")),
            "{query}"
        );
    }
    for query in [
        "",
        "by=day&since=30d",
        "since=2031-01-01T00:00:00Z",
        "gateway=nowhere&key=nobody",
        "since=1h&until=2h",
    ] {
        let reply = api.get(&format!("/v1/usage?{query}"));
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
        assert_eq!(reply.json()["items"], json!([]), "{query}");
    }
    // What is ours to say is not the client's.
    let forged = json!({"name": "forged", "gateway": "main", "secret": "chosen-by-the-client"});
    let reply = api.ask("POST", "/v1/keys", &forged);
    assert_eq!(reply.status, 422, "{}", reply.text());
    let details = reply.json()["error"]["details"].clone();
    assert_eq!(details.as_array().unwrap().len(), 1, "{details}");
    assert_eq!(details[0]["path"], "secret");
    assert!(!reply.text().contains("chosen"), "{}", reply.text());
    let hash = crate::harness::sha256(b"chosen-by-the-client");
    let previous = json!([{"hash": hash, "until": "2100-01-01T00:00:00Z"}]);
    let forged = json!({"name": "forged", "gateway": "main", "previous": previous, "id": "chosen", "rotated_at": "2100-01-01T00:00:00Z"});
    let reply = api.ask("POST", "/v1/keys", &forged);
    assert_eq!(reply.status, 201, "{}", reply.text());
    let told = reply.text();
    assert!(!told.contains("chosen") && !told.contains("2100"), "{told}");
    let status = |secret: &str| gateway.client().chat("a", &bearer(secret)).status;
    assert_eq!(status("chosen-by-the-client"), 401);
    assert_eq!(status(&secret), 200);
}
