//! Policies, health, breakers, retry, fallback and the queue: their short forms, and that they read as they are written.

use tollgate_sdk::document::FromNode;

use super::*;
use crate::model::{
    Breaker, HashKey, Health, HttpProbe, Policy, Probe, Queue, Retry, RetryLimit, RetryOn, Switch,
    Upstream,
};

/// The upstream of these fields.
#[track_caller]
fn upstream(given: &str) -> Upstream {
    let text = format!("[[upstream]]\nname = \"a\"\ntargets = [\"http://a\"]\n{given}\n");
    Upstream::clone(&accepted(&text).upstreams.pop().unwrap())
}

#[test]
fn policies_have_a_short_and_a_long_form() {
    let hash = |key| Policy::ConsistentHash(key);
    for (given, policy) in [
        ("", Policy::LeastConnections),
        (r#"policy = "round_robin""#, Policy::RoundRobin),
        (r#"policy = { name = "random" }"#, Policy::Random),
        (r#"policy = "power_of_two""#, Policy::PowerOfTwo),
        (
            r#"policy = { name = "consistent_hash", key = "ip" }"#,
            hash(HashKey::Ip),
        ),
        (
            r#"policy = { name = "consistent_hash", key = "cookie:Session" }"#,
            hash(HashKey::Cookie("Session".into())),
        ),
    ] {
        assert_eq!(upstream(given).policy, policy, "{given}");
    }
}

#[test]
fn health_is_by_tcp_unless_it_is_said_otherwise() {
    for (given, probe) in [
        ("", Probe::Tcp),
        ("health = true", Probe::Tcp),
        ("health = false", Probe::Off),
        (r#"health = "off""#, Probe::Off),
        (r#"health = "http""#, Probe::Http(HttpProbe::default())),
        (r#"health = { type = "grpc" }"#, Probe::Grpc),
    ] {
        let expected = Health {
            probe,
            ..Health::default()
        };
        assert_eq!(upstream(given).health, expected, "{given}");
    }
    let given = r#"health = { type = "http", path = "/ready?full=1", expect = [204, "20${NUMBER}", "${STATUS:-503}"] }"#;
    let text = format!("{SMALLEST}\n[[upstream]]\nname = \"a\"\ntargets = [\"http://a\"]\n");
    // A number made of parts is text; one reference may be a number.
    let said = said(&format!("{text}{given}\n"));
    assert!(
        said.contains("health.expect[1]: expected a status"),
        "{said}"
    );
    assert!(
        !said.contains("expect[2]") && !said.contains("path:"),
        "{said}"
    );
}

#[test]
fn what_has_a_switch_is_turned_on_and_off() {
    for (given, breaker) in [
        ("", Switch::On(Breaker::default())),
        (r#"breaker = "on""#, Switch::On(Breaker::default())),
        (r#"breaker = "off""#, Switch::Off),
        (r#"breaker = "${UNSET:-off}""#, Switch::Off),
    ] {
        assert_eq!(upstream(given).breaker, breaker, "{given}");
    }
    let service = |given: &str| {
        let text = format!("[[service]]\nname = \"a\"\ntargets = [\"http://a\"]\n{given}\n");
        accepted(&text).services.remove(0)
    };
    let queue = |max_retries| {
        Switch::On(Queue {
            max_retries,
            ..Queue::default()
        })
    };
    for (given, expected) in [
        ("", Switch::Off),
        ("queue = false", Switch::Off),
        (r#"queue = "${TRUE}""#, Switch::On(Queue::default())),
        ("queue = {}", Switch::On(Queue::default())),
        ("queue = { max_retries = -1 }", queue(RetryLimit(None))),
        ("queue = { max_retries = 0 }", queue(RetryLimit(Some(0)))),
    ] {
        assert_eq!(service(given).queue, expected, "{given}");
    }
    assert_eq!(service("").retry, Retry::default());
    assert_eq!(service(r#"retry = "off""#).retry.attempts, 0);
}

#[test]
fn a_rule_says_what_differs_from_its_service() {
    let retry = |given: &str| {
        let text = format!("[[rule]]\ngateway = \"main\"\nservices = [\"qwen\"]\n{given}\n");
        accepted(&text).rules.remove(0).retry.clone()
    };
    let service = Retry::default();
    assert_eq!(retry("").over(&service), service);
    assert_eq!(retry(r#"retry = "off""#).over(&service).attempts, 0);
    let merged = retry(r#"retry = { on = ["502", "timeout"], budget = 1 }"#).over(&service);
    let expected = Retry {
        on: vec![RetryOn::Status(502), RetryOn::Timeout],
        budget: 1.0,
        ..service
    };
    assert_eq!(merged, expected);
    let covers = |status| merged.on.iter().any(|on| on.covers(status));
    assert!(covers(502) && !covers(503));
}

#[test]
fn a_target_may_have_a_limit_of_its_own() {
    let given = r#"
        [[upstream]]
        name = "a"
        max_in_flight = 8
        targets = ["http://a", { url = "http://b", max_in_flight = 2 }]
    "#;
    let upstream = accepted(given).upstreams.remove(0);
    let limits: Vec<_> = upstream
        .targets
        .iter()
        .map(|target| upstream.limit_of(target))
        .collect();
    assert_eq!(limits, [Some(8), Some(2)]);
    let in_place = Upstream::of_targets(upstream.name.clone(), upstream.targets.clone());
    let first = upstream.targets.first().unwrap();
    assert_eq!(in_place.limit_of(first), None);
    assert_eq!(in_place.health, Health::default());
}

#[test]
fn what_is_written_reads_as_what_it_was() {
    let written = |given: &str| {
        let mut fields = FromNode::value(&upstream(given));
        let fields_of = fields.as_object_mut().unwrap();
        fields_of.insert("name".into(), "b".into());
        let more = serde_json::json!({"upstream": [fields]}).to_string();
        let read = read_as(Format::Json, &more).map(|loaded| loaded.config.upstreams);
        (upstream(given), read)
    };
    for given in [
        "",
        r#"policy = { name = "consistent_hash", key = "header:X-Session" }"#,
        r#"health = { type = "http", body = "x", expect = [204] }"#,
        r#"health = "off""#,
        r#"breaker = "off""#,
        "max_in_flight = 8",
    ] {
        let (mut before, read) = written(given);
        before.name = Name::new("b").unwrap_or(before.name);
        let read = read.map_err(|diagnostics| diagnostics.to_string());
        assert_eq!(read, Ok(vec![std::sync::Arc::new(before)]), "{given}");
    }
}

#[test]
fn what_is_only_a_fallback_is_reached() {
    let text = format!(
        "{SMALLEST}fallback = [\"other\"]\n[[service]]\nname = \"other\"\ntargets = [\"http://a\"]\nfallback = []\n"
    );
    assert_eq!(said(&text), "");
    let itself = format!(
        "{SMALLEST}[[service]]\nname = \"other\"\ntargets = [\"http://a\"]\nfallback = [\"other\"]\n"
    );
    assert!(said(&itself).contains("cannot be its own fallback"));
}
