//! A gateway that lets everybody in and has keys: whoever shows one is known, and some services demand one.

use crate::harness::{Gateway, Upstream, bearer, engine, service, until};

const TEAM_A: &str = "tg_a1_0123456789abcdef0123456789abcdef";
const TEAM_B: &str = "tg_b2_fedcba9876543210fedcba9876543210";
const UNKNOWN: &str = "tg_c3_0000000000000000000000000000000f";

fn open_gateway() -> String {
    let key = |name: &str, secret: &str| {
        format!("[[key]]\nname = \"{name}\"\ngateway = \"main\"\nsecret = \"{secret}\"\n")
    };
    "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\n".to_owned()
        + &key("team-a", TEAM_A)
        + &key("team-b", TEAM_B)
}

#[test]
fn a_service_may_demand_a_key() {
    let engine = engine();
    let toml = open_gateway()
        + &service("free", "free", &engine.url())
        + &service("known", "known", &engine.url())
        + "plugins = [{ name = \"api_key\" }]\n"
        + &service("mine", "mine", &engine.url())
        + "plugins = [{ name = \"api_key\", settings = { keys = [\"team-a\"] } }]\n";
    let gateway = Gateway::start(&toml);
    let ask = |model: &str, fields: &str| gateway.client().chat(model, fields);
    for fields in [String::new(), bearer("somebody-elses"), bearer(UNKNOWN)] {
        ask("free", &fields).assert_ok();
        ask("known", &fields).assert_refused(401, "invalid_api_key");
        ask("mine", &fields).assert_refused(401, "invalid_api_key");
    }
    assert_eq!(engine.state().started, 3);
    for (secret, mine) in [(TEAM_A, 200), (TEAM_B, 403)] {
        ask("free", &bearer(secret)).assert_ok();
        ask("known", &bearer(secret)).assert_ok();
        ask("known", &format!("x-api-key: {secret}\r\n")).assert_ok();
        let reply = ask("mine", &bearer(secret));
        assert_eq!(reply.status, mine, "{}", reply.text());
        if mine == 403 {
            assert_eq!(reply.error_code(), "permission_denied");
        }
    }
    // An exchange is in the books a moment after its answer.
    until("both teams' requests in the books", || {
        let used = gateway.admin("/v1/usage?by=key").json();
        let requests = |name: &str| {
            let mut items = used["items"].as_array().unwrap().iter();
            items.find(|item| item["key"] == name)?["requests"].as_u64()
        };
        (requests("team-a") == Some(4) && requests("team-b") == Some(4)).then_some(())
    });
    gateway.assert_gauges_zero();
}

/// A key that is known is consumed; what is not is the client's own business where nobody demands a key.
#[test]
fn a_known_key_goes_no_further() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&(open_gateway() + &service("m", "m", &upstream.url())));
    let sent = |secret: &str| {
        gateway.client().chat("m", &bearer(secret)).assert_ok();
        upstream.last().header("authorization")
    };
    assert_eq!(sent(TEAM_A), None);
    assert_eq!(sent("mine").as_deref(), Some("Bearer mine"));
}
