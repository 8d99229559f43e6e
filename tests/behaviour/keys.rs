//! Keys: who may pass, to what, and what of it upstreams and logs see.

use std::time::{Duration, SystemTime};

use tollgate::model::KeyHash;
use tollgate_sdk::document::FromText;

use crate::harness::{
    CHAT, Gateway, Reply, Upstream, bearer, chat, engine, get, post, service, until,
};

const SECRET: &str = "tg_a1_0123456789abcdef0123456789abcdef";
const OTHER: &str = "tg_b2_fedcba9876543210fedcba9876543210";

/// A gateway that asks for keys.
fn gateway(auth: &str) -> String {
    format!("[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n{auth}\n")
}

fn key(name: &str, secret: &str, fields: &str) -> String {
    format!("[[key]]\nname = \"{name}\"\ngateway = \"main\"\nsecret = \"{secret}\"\n{fields}\n")
}

fn ask(gateway: &Gateway, model: &str, fields: &str) -> Reply {
    gateway.client().chat(model, fields)
}

fn models(gateway: &Gateway, fields: &str) -> Vec<String> {
    let mut client = gateway.client();
    client.send(get("/v1/models", fields));
    let reply = client.reply();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let list: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    let data = list["data"].as_array().unwrap();
    data.iter()
        .map(|model| model["id"].as_str().unwrap().to_owned())
        .collect()
}

fn in_time(seconds: i64) -> String {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    at.strftime("%Y-%m-%dT%H:%M:%S.%fZ").to_string()
}

#[test]
fn only_with_a_key() {
    let engine = engine();
    let toml = gateway("")
        + &key("a", SECRET, "")
        + &key("off", OTHER, "active = false")
        + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    for fields in [
        String::new(),
        bearer("tg_a1_0123456789abcdef0123456789abcdee"),
        bearer(""),
        bearer(OTHER),
        format!("authorization: Basic {SECRET}\r\n"),
        format!("authorization: {SECRET}\r\n"),
        format!("x-tg-api-key: {SECRET}\r\n"),
    ] {
        let reply = ask(&gateway, "m", &fields);
        reply.assert_refused(401, "invalid_api_key");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        let mut client = gateway.client();
        client.send(get("/v1/models", &fields));
        client.reply().assert_refused(401, "invalid_api_key");
    }
    assert_eq!(engine.state().started, 0, "somebody passed");
    for fields in [
        bearer(SECRET),
        format!("authorization: bearer  {SECRET} \r\n"),
        format!("x-api-key: {SECRET}\r\n"),
        format!("authorization: Bearer something-else\r\nx-api-key: {SECRET}\r\n"),
    ] {
        ask(&gateway, "m", &fields).assert_ok();
    }
    gateway.assert_gauges_zero();
}

/// Who is refused before its body is read may send it or not; the connection stays in order.
#[test]
fn a_refused_body_does_not_become_a_request() {
    let engine = engine();
    let toml = gateway("") + &key("a", SECRET, "") + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    let inner = String::from_utf8(post(CHAT, &bearer(SECRET), chat("m"))).unwrap();
    client.send(post(CHAT, "", inner));
    client.reply().assert_refused(401, "invalid_api_key");
    client.send(post(CHAT, &bearer(SECRET), chat("m")));
    client.reply().assert_ok();
    assert_eq!(engine.state().started, 1);
}

#[test]
fn the_key_is_not_passed_on() {
    let upstream = Upstream::obliging();
    let toml = gateway("auth = { type = \"api_key\", header = \"X-TG-API-Key\" }")
        + &key("a", SECRET, "")
        + &service("m", "m", &upstream.url());
    let gateway = Gateway::start(&toml);
    for fields in [
        bearer(SECRET),
        format!("x-api-key: {SECRET}\r\n"),
        format!("x-tg-api-key: {SECRET}\r\nauthorization: Bearer mine\r\n"),
    ] {
        ask(&gateway, "m", &fields).assert_ok();
        let sent = upstream.last();
        for name in ["authorization", "x-api-key", "x-tg-api-key"] {
            assert_eq!(sent.header(name), None, "{name}");
        }
        let all = format!("{:?}", sent.headers);
        assert!(!all.contains("0123456789abcdef"), "{all}");
    }
}

/// Where no key is asked for, what the client sends is its own business.
#[test]
fn without_keys_credentials_pass() {
    let upstream = Upstream::obliging();
    let toml = gateway("auth = \"none\"") + &service("m", "m", &upstream.url());
    let gateway = Gateway::start(&toml);
    ask(&gateway, "m", "authorization: Bearer mine\r\n").assert_ok();
    let sent = upstream.last().header("authorization");
    assert_eq!(sent.as_deref(), Some("Bearer mine"));
}

#[test]
fn a_hash_does_as_well_as_a_secret() {
    let engine = engine();
    let hash = KeyHash::of(SECRET.as_bytes()).to_text();
    let toml = gateway("")
        + &format!("[[key]]\nname = \"a\"\ngateway = \"main\"\nhash = \"{hash}\"\n")
        + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    ask(&gateway, "m", &bearer(SECRET)).assert_ok();
    ask(&gateway, "m", &bearer(&hash)).assert_refused(401, "invalid_api_key");
}

#[test]
fn a_key_ends_at_its_second() {
    let engine = engine();
    let toml = gateway("")
        + &key("a", SECRET, &format!("expires_at = \"{}\"", in_time(2)))
        + &key(
            "b",
            OTHER,
            &format!("expires_at = \"{}\"\nwarn_before = \"1h\"", in_time(7_200)),
        )
        + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    let start = SystemTime::now();
    let reply = ask(&gateway, "m", &bearer(SECRET));
    reply.assert_ok();
    let told = reply.header("x-tollgate-key-expires").unwrap().to_owned();
    let told: jiff::Timestamp = told.parse().unwrap();
    until("the key to end", || {
        (ask(&gateway, "m", &bearer(SECRET)).status == 401).then_some(())
    });
    let (ended, told) = (SystemTime::now(), SystemTime::from(told));
    assert!(ended >= told, "ended before its time");
    let late = ended.duration_since(told).unwrap();
    assert!(late < Duration::from_millis(500), "{late:?} late");
    assert!(told.duration_since(start).unwrap() <= Duration::from_secs(2));
    let reply = ask(&gateway, "m", &bearer(OTHER));
    reply.assert_ok();
    assert_eq!(reply.header("x-tollgate-key-expires"), None);
    let left = |key| {
        let labels = [("gateway", "main"), ("key", key)];
        gateway
            .metrics()
            .sum("tollgate_key_expiry_seconds", &labels)
    };
    assert!(left("a") < 0.0 && left("a") > -60.0, "{}", left("a"));
    assert!((7_000.0..7_200.0).contains(&left("b")), "{}", left("b"));
}

#[test]
fn scopes_hold_for_services_models_and_rules() {
    let engine = engine();
    let rule = "[[rule]]\nname = \"direct\"\ngateway = \"main\"\npath = \"/direct/*\"\nservices = [\"a\"]\nstrip_path = true\n";
    let toml = gateway("")
        + &key("a", SECRET, "services = [\"a\"]")
        + &key("b", OTHER, "models = [\"b*\"]")
        + &key("c", "tg_c3_0123456789abcdef", "rules = [\"direct\"]")
        + &service("a", "a", &engine.url())
        + &service("b", "b", &engine.url())
        + rule;
    let gateway = Gateway::start(&toml);
    let direct = |secret: &str, model: &str| {
        let mut client = gateway.client();
        let path = format!("/direct{CHAT}");
        client.send(post(&path, &bearer(secret), chat(model)));
        client.reply()
    };
    for (secret, allowed, refused, sees) in
        [(SECRET, "a", "b", vec!["a"]), (OTHER, "b", "a", vec!["b"])]
    {
        ask(&gateway, allowed, &bearer(secret)).assert_ok();
        let reply = ask(&gateway, refused, &bearer(secret));
        reply.assert_refused(403, "permission_denied");
        assert_eq!(models(&gateway, &bearer(secret)), sees);
        let mut client = gateway.client();
        client.send(get(&format!("/v1/models/{refused}"), &bearer(secret)));
        client.reply().assert_refused(404, "model_not_found");
    }
    direct(SECRET, "a").assert_ok();
    direct(OTHER, "a").assert_refused(403, "permission_denied");
    let third = "tg_c3_0123456789abcdef";
    direct(third, "a").assert_ok();
    ask(&gateway, "a", &bearer(third)).assert_refused(403, "permission_denied");
    gateway.assert_gauges_zero();
}

/// Of services that share a model, a key goes to those it opens, whatever their weights.
#[test]
fn a_scope_decides_among_services_of_one_model() {
    let engine = engine();
    let shared = |name: &str, weight: u16| {
        service(name, "m", &engine.url()) + &format!("weight = {weight}\n")
    };
    let toml = gateway("")
        + &key("a", SECRET, "services = [\"rare\"]")
        + &key("b", OTHER, "")
        + &shared("often", 990)
        + &shared("rare", 10);
    let gateway = Gateway::start(&toml);
    for _ in 0..50 {
        let reply = ask(&gateway, "m", &bearer(SECRET));
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-service"), Some("rare"));
    }
    ask(&gateway, "m", &bearer(OTHER)).assert_ok();
}

#[test]
fn a_service_may_be_published() {
    let engine = engine();
    let toml = gateway("")
        + &key("a", SECRET, "")
        + &service("open", "open", &engine.url())
        + "auth = \"none\"\n"
        + &service("closed", "closed", &engine.url());
    let gateway = Gateway::start(&toml);
    ask(&gateway, "open", "").assert_ok();
    ask(&gateway, "open", &bearer("nonsense-of-some-length")).assert_ok();
    ask(&gateway, "closed", "").assert_refused(401, "invalid_api_key");
    assert_eq!(models(&gateway, ""), ["open"]);
    assert_eq!(models(&gateway, &bearer(SECRET)), ["closed", "open"]);
    ask(&gateway, "closed", &bearer(SECRET)).assert_ok();
    gateway.assert_gauges_zero();
}

#[test]
fn keys_of_other_gateways_open_nothing() {
    let engine = engine();
    let toml = "[[gateway]]\nname = \"main\"\nhosts = [\"a.test\"]\n[[gateway]]\nname = \"other\"\nhosts = [\"b.test\"]\n".to_owned()
        + &key("a", SECRET, "")
        + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    let at = |host: &str| {
        let mut client = gateway.client();
        let body = chat("m");
        client.send(format!(
            "POST {CHAT} HTTP/1.1\r\nhost: {host}\r\n{}content-length: {}\r\n\r\n{body}",
            bearer(SECRET),
            body.len()
        ));
        client.reply()
    };
    at("a.test").assert_ok();
    at("b.test").assert_refused(401, "invalid_api_key");
}
