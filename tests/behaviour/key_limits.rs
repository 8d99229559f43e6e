//! `limits` and `budget` of keys, alike for keys of the file and for those made by the API.

use serde_json::{Value, json};

use crate::harness::{
    CHAT, Gateway, Process, Reply, bearer, chat, engine, engine_state, engine_with, post, service,
    until,
};

const SECRET: &str = "tg_a1_0123456789abcdef0123456789abcdef";
const FREE: &str = "tg_b2_fedcba9876543210fedcba9876543210";

/// A value as TOML on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|(name, value)| format!("\"{name}\" = {}", inline(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn toml(engine: &str, fields: &str) -> String {
    let key = |name: &str, secret: &str, fields: &str| {
        format!("[[key]]\nname = \"{name}\"\ngateway = \"main\"\nsecret = \"{secret}\"\n{fields}")
    };
    "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n".to_owned()
        + &key("filed", SECRET, fields)
        + &key("free", FREE, "")
        + &service("a", "a", engine)
        + &service("b", "b", engine)
}

/// The same limit twice, on a key of the file and on one of the API: for each what a client with its secret can do.
fn each(field: &str, value: &Value, check: impl Fn(&Gateway, &str)) {
    let engine = engine();
    let fields = format!("{field} = {}\n", inline(value));
    let gateway = Gateway::start(&toml(&engine.url(), &fields));
    let mut made = json!({"name": "made", "gateway": "main"});
    made[field] = value.clone();
    let made = gateway.api().create(&made);
    for secret in [SECRET, &made] {
        check(&gateway, secret);
        // Others are not concerned.
        assert_eq!(status(&gateway, "a", FREE), 200, "{value}");
    }
    let listed = gateway.api().get("/v1/keys").json();
    let shown = |name: &str| {
        let items = listed["items"].as_array().unwrap().iter();
        let mut found = items.filter(|item| item["name"] == name);
        found.next().unwrap()[field].clone()
    };
    assert_eq!(shown("filed"), shown("made"));
    assert!(!shown("made").as_object().unwrap().is_empty());
    gateway.assert_gauges_zero();
}

fn status(gateway: &Gateway, model: &str, secret: &str) -> u16 {
    gateway.client().chat(model, &bearer(secret)).status
}

/// A request whose answer has this many tokens.
fn tokens(gateway: &Gateway, secret: &str, most: u64) -> Reply {
    let body = chat("a").replacen('{', &format!("{{\"max_tokens\":{most},"), 1);
    let mut client = gateway.client();
    client.send(post(CHAT, &bearer(secret), body));
    client.reply()
}

#[test]
fn requests_in_the_short_form() {
    let limits = json!({"global": {"limit": 2, "window": "1h"}});
    each("limits", &limits, |gateway, secret| {
        for left in ["1", "0"] {
            let reply = gateway.client().chat("a", &bearer(secret));
            reply.assert_ok();
            assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some(left));
        }
        let reply = gateway.client().chat("b", &bearer(secret));
        reply.assert_refused(429, "rate_limit_exceeded");
        assert!(reply.header("retry-after").is_some());
        // Looking at the models is a request as well, or is free; but it does not fail otherwise.
        let models = gateway.client().get("/v1/models", &bearer(secret)).status;
        assert!([200, 429].contains(&models), "{models}");
    });
}

#[test]
fn requests_by_model() {
    let limits = json!({"rate_limiter": {"limits": {"per_model": {"limit": 1, "window": "1h"}}}});
    each("limits", &limits, |gateway, secret| {
        for (model, wanted) in [("a", 200), ("a", 429), ("b", 200), ("b", 429)] {
            assert_eq!(status(gateway, model, secret), wanted, "{model}");
        }
    });
}

#[test]
fn tokens_of_answers() {
    let window = json!({"limit": 10, "window": "1h", "count": "output"});
    let limits = json!({"token_rate_limiter": {"limits": {"per_key": window}}});
    each("limits", &limits, |gateway, secret| {
        tokens(gateway, secret, 6).assert_ok();
        let reply = tokens(gateway, secret, 5);
        reply.assert_refused(429, "rate_limit_exceeded");
        assert_eq!(reply.header("x-ratelimit-remaining-tokens"), Some("4"));
        tokens(gateway, secret, 4).assert_ok();
        tokens(gateway, secret, 1).assert_refused(429, "rate_limit_exceeded");
    });
}

#[test]
fn requests_at_the_same_time() {
    let limits = json!({"concurrency_limiter": {"limits": {"global": 1}}, "rate_limiter": {"limits": {"global": {"limit": 1000, "window": "1h"}}}});
    let engine = engine();
    let fields = format!("limits = {}\n", inline(&limits));
    let gateway = Gateway::start(&toml(&engine.url(), &fields));
    let made = json!({"name": "made", "gateway": "main", "limits": limits});
    let made = gateway.api().create(&made);
    for secret in [SECRET, &made] {
        let before = engine.state().started;
        let mut held = gateway.client();
        let fields = bearer(secret) + "x-sim: delay=30s\r\n";
        held.send(post(CHAT, &fields, chat("a")));
        engine_state(&engine, "one under way", |s| s.started == before + 1);
        let reply = gateway.client().chat("b", &bearer(secret));
        reply.assert_refused(429, "rate_limit_exceeded");
        assert_eq!(status(&gateway, "a", FREE), 200);
        drop(held);
        until("its place to be free", || {
            (status(&gateway, "a", secret) == 200).then_some(())
        });
    }
    gateway.assert_gauges_zero();
}

#[test]
fn budgets_of_tokens_and_of_money() {
    let prices = json!({"a": {"input": 0.0, "output": 1_000_000.0}});
    for budget in [
        json!({"limit": 10.0, "per": "month", "prices": prices}),
        json!({"limit": 10.0, "per": "day", "prices": prices, "by": "model"}),
    ] {
        each("budget", &budget, |gateway, secret| {
            let reply = gateway.client().chat("b", &bearer(secret));
            reply.assert_refused(403, "permission_denied");
            tokens(gateway, secret, 6).assert_ok();
            let reply = tokens(gateway, secret, 5);
            reply.assert_refused(429, "insufficient_quota");
            assert!(reply.header("retry-after").is_some());
            tokens(gateway, secret, 4).assert_ok();
            tokens(gateway, secret, 1).assert_refused(429, "insufficient_quota");
        });
    }
}

/// What a key has spent is spent after a restart and a rotation, too.
#[test]
fn budgets_outlive_the_process() {
    let engine = engine_with(|config| config.tokens = 1_000);
    let budget = json!({"limit": 300.0, "unit": "tokens", "per": "month"});
    let fields = format!("budget = {}\n", inline(&budget));
    let server = "[server]\nstate = \"./tollgate.db\"\n".to_owned();
    let mut process = Process::start(&(server + &toml(&engine.url(), &fields)));
    let made = json!({"name": "made", "gateway": "main", "budget": budget});
    let made = process.api().create(&made);
    let ask = |process: &Process, secret: &str, most: u64| {
        let body = chat("a").replacen('{', &format!("{{\"max_tokens\":{most},"), 1);
        let mut client = process.client();
        client.send(post(CHAT, &bearer(secret), body));
        client.reply()
    };
    for secret in [SECRET, &made] {
        ask(&process, secret, 200).assert_ok();
        ask(&process, secret, 200).assert_refused(429, "insufficient_quota");
    }
    process.signal("TERM");
    process.end();
    process.restart();
    let rotated = process.api().rotate("made", "1h");
    for secret in [SECRET, &made, &rotated] {
        ask(&process, secret, 200).assert_refused(429, "insufficient_quota");
        ask(&process, secret, 1).assert_ok();
    }
}

#[test]
fn wrong_limits_are_told_by_their_place() {
    let engine = engine();
    let gateway = Gateway::start(&toml(&engine.url(), ""));
    for (field, value, path) in [
        (
            "limits",
            json!({"global": {"limit": 0, "window": "1h"}}),
            "limits.global.limit",
        ),
        ("limits", json!({"global": {"limit": 1}}), "limits.global"),
        (
            "limits",
            json!({"rate_limiter": {"limits": {}}}),
            "limits.rate_limiter",
        ),
        (
            "limits",
            json!({"rate_limiter": {"limits": {"global": {"limit": 1, "window": "1h"}}}, "budget": {}}),
            "limits.budget",
        ),
        ("limits", json!({"everything": 1}), "limits"),
        ("limits", json!(7), "limits"),
        ("budget", json!({"limit": -1.0}), "budget"),
        ("budget", json!({"limit": 1.0, "per": "week"}), "budget.per"),
        ("budget", json!([]), "budget"),
    ] {
        let mut key = json!({"name": "made", "gateway": "main"});
        key[field] = value.clone();
        let reply = gateway.api().ask("POST", "/v1/keys", &key);
        assert_eq!(reply.status, 422, "{value}: {}", reply.text());
        let details = reply.json()["error"]["details"].clone();
        let told = { details.as_array().unwrap().iter() }
            .any(|detail| detail["path"].as_str().unwrap().starts_with(path));
        assert!(told, "{path}: {details}");
    }
    let list = gateway.api().get("/v1/keys").json();
    assert_eq!(list["items"].as_array().unwrap().len(), 2, "{list}");
}
