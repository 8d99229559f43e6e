//! Weights: services that answer to one model, or share a rule, divide its traffic.

use std::collections::HashMap;

use crate::harness::{Gateway, Upstream, get};

/// How many of `count` requests each service got.
fn shares(gateway: &Gateway, count: usize, request: &[u8]) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    let mut client = gateway.client();
    for _ in 0..count {
        client.send(request);
        let reply = client.reply();
        reply.assert_ok();
        let name = reply.header("x-tollgate-service").unwrap().to_owned();
        *shares.entry(name).or_default() += 1;
    }
    shares
}

fn weighted(upstream: &Upstream, services: &[(&str, u32)]) -> String {
    services
        .iter()
        .map(|(name, weight)| {
            format!(
                "[[service]]\nname = \"{name}\"\nmodels = [\"m\"]\nweight = {weight}\ntargets = [\"{}\"]\n",
                upstream.url()
            )
        })
        .collect()
}

fn chat() -> Vec<u8> {
    crate::harness::post(crate::harness::CHAT, "", crate::harness::chat("m"))
}

#[test]
fn ninety_to_ten_is_ninety_to_ten() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&weighted(&upstream, &[("stable", 90), ("canary", 10)]));
    let shares = shares(&gateway, 2_000, &chat());
    let canary = shares["canary"] as f64 / 2_000.0;
    assert!((canary - 0.1).abs() <= 0.02, "{shares:?}");
    // A canary of one in ten is seen soon, not after ninety others.
    let gateway = Gateway::start(&weighted(&upstream, &[("stable", 90), ("canary", 10)]));
    let first = self::shares(&gateway, 30, &chat());
    assert!(
        (1..=6).contains(first.get("canary").unwrap_or(&0)),
        "{first:?}"
    );
}

#[test]
fn the_smallest_share_is_given() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&weighted(&upstream, &[("a", 995), ("b", 5)]));
    let shares = shares(&gateway, 2_000, &chat());
    let b = *shares.get("b").unwrap_or(&0);
    assert!((5..=15).contains(&b), "{shares:?}");
}

#[test]
fn zero_beside_others_gets_nothing() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&weighted(&upstream, &[("on", 1), ("off", 0), ("too", 1)]));
    let shares = shares(&gateway, 200, &chat());
    assert_eq!(shares.get("off"), None, "{shares:?}");
    assert_eq!(shares["on"], shares["too"], "{shares:?}");
}

#[test]
fn zero_alone_serves() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&weighted(&upstream, &[("only", 0)]));
    assert_eq!(shares(&gateway, 20, &chat())["only"], 20);
}

#[test]
fn a_rule_divides_too() {
    let upstream = Upstream::obliging();
    let toml = weighted(&upstream, &[("a", 100), ("b", 100), ("c", 0)])
        + "[[rule]]\nname = \"r\"\ngateway = \"main\"\npath = \"/shared/*\"\nservices = [{ name = \"a\", weight = 75 }, { name = \"b\", weight = 25 }]\n"
        + "[[rule]]\nname = \"lone\"\ngateway = \"main\"\npath = \"/lone\"\nservices = [{ name = \"c\", weight = 0 }]\n";
    let gateway = Gateway::start(&toml);
    let divided = shares(&gateway, 1_000, &get("/shared/x", ""));
    let a = divided["a"] as f64 / 1_000.0;
    assert!((a - 0.75).abs() <= 0.02, "{divided:?}");
    assert_eq!(shares(&gateway, 10, &get("/lone", ""))["c"], 10);
}

/// Services of other gateways and of other models take no part.
#[test]
fn only_those_that_answer_divide() {
    let upstream = Upstream::obliging();
    let url = upstream.url();
    let toml = format!(
        r#"
[[gateway]]
name = "one"
hosts = ["test"]
auth = "none"
[[gateway]]
name = "two"
hosts = ["two.test"]
auth = "none"
[[service]]
name = "mine"
gateways = ["one"]
models = ["m"]
weight = 1
targets = ["{url}"]
[[service]]
name = "theirs"
gateways = ["two"]
models = ["m"]
weight = 1000
targets = ["{url}"]
[[service]]
name = "wider"
models = ["m*"]
weight = 1000
targets = ["{url}"]
"#
    );
    let gateway = Gateway::start(&toml);
    assert_eq!(shares(&gateway, 50, &chat())["mine"], 50);
}
