//! What Llumnix's own tests of its router, service and queue assert, said of this gateway. Elsewhere:
//!
//! - weights, a single one of zero: here and `behaviour::weights`; names: here and `behaviour::models`
//! - a policy that is not known, documents that are empty or broken: `documents::broken`
//! - order of fallbacks, each once, to the last: `fallback::services_are_tried_in_order_and_the_last_answer_counts`; nothing
//!   after the first byte: `retry::nothing_is_tried_again_after_the_first_byte`
//! - 500 then 200 are two calls, 400 is one, exhausted goes to the fallback: `retry`, `fallback::retries_come_first`
//! - nobody to schedule on, with and without a fallback: `fallback::a_pool_that_checks_found_down_is_passed_over`,
//!   `health::when_all_are_down_one_is_tried_all_the_same`
//! - the queue's counts, waits, ends and bounds, and a client that leaves: `queue`
//! - first come first served, capacity: `queue`, `limits`

use serde_json::Value;
use tollgate_bench::engine::Engine;

use super::{always, calls, offer};
use crate::harness::{CHAT, Gateway, Upstream, chat, closed_address, engine, post};

/// Services of one model, by weight.
fn divided(engine: &Engine, weights: &[(&str, u32)]) -> String {
    weights
        .iter()
        .map(|(name, weight)| {
            offer(name, &format!("weight = {weight}\n"), "", &[engine.url()])
                .replace(&format!("models = [\"{name}\"]"), "models = [\"m\"]")
        })
        .collect()
}

fn shares(gateway: &Gateway, names: &[&str], count: usize) -> Vec<usize> {
    let mut shares = vec![0; names.len()];
    let mut client = gateway.client();
    for _ in 0..count {
        let reply = client.chat("m", "");
        reply.assert_ok();
        let name = reply.header("x-tollgate-service").unwrap();
        shares[names.iter().position(|known| *known == name).unwrap()] += 1;
    }
    shares
}

#[test]
fn weights_come_out_in_their_order() {
    let engine = engine();
    let gateway = Gateway::start(&divided(&engine, &[("a", 30), ("b", 50), ("c", 20)]));
    let got = shares(&gateway, &["a", "b", "c"], 1_000);
    for (got, want) in got.iter().zip([300, 500, 200]) {
        assert!(got.abs_diff(want) <= 20, "{got} for {want}");
    }
    let gateway = Gateway::start(&divided(&engine, &[("local", 50), ("external", 50)]));
    let got = shares(&gateway, &["local", "external"], 1_000);
    assert!(got.iter().all(|n| *n > 300), "{got:?}");
    let gateway = Gateway::start(&divided(&engine, &[("only", 7)]));
    assert_eq!(shares(&gateway, &["only"], 10), [10]);
}

/// Theirs finds no route; ours must at least not fall over.
#[test]
fn weights_of_zero_do_no_harm() {
    let engine = engine();
    let toml = divided(&engine, &[("a", 0), ("b", 0)]) + &offer("other", "", "", &[engine.url()]);
    let gateway = Gateway::start(&toml);
    for _ in 0..5 {
        let reply = gateway.client().chat("m", "");
        assert!(matches!(reply.status, 200 | 404 | 503), "{}", reply.text());
        gateway.client().chat("other", "").assert_ok();
    }
    gateway.assert_gauges_zero();
}

#[test]
fn names_and_patterns() {
    let (internal, external) = (engine(), Upstream::obliging());
    let pattern = |name: &str, pattern: &str, url: String| {
        offer(name, "", "", &[url]).replace(
            &format!("models = [\"{name}\"]"),
            &format!("models = [\"{pattern}\"]"),
        )
    };
    for star in [internal.url(), format!("{}/v1", external.url())] {
        let toml = pattern("all", "*", star)
            + &pattern("exact", "qwen-7b", internal.url())
            + &pattern("family", "qwen-*", internal.url())
            + &pattern("size", "qwen-72*", external.url());
        let gateway = Gateway::start(&toml);
        for (model, service) in [
            ("qwen-7b", "exact"),
            ("qwen-7", "family"),
            ("qwen-72b", "size"),
            ("llama", "all"),
            ("qwen", "all"),
        ] {
            let reply = gateway.client().chat(model, "");
            reply.assert_ok();
            assert_eq!(reply.header("x-tollgate-service"), Some(service), "{model}");
        }
        let empty = gateway.client().chat("", "");
        assert!(
            empty.status == 200 || (400..500).contains(&empty.status),
            "{}",
            empty.text()
        );
    }
    let gateway = Gateway::start(&pattern("family", "qwen-*", internal.url()));
    gateway
        .client()
        .chat("llama", "")
        .assert_refused(404, "model_not_found");
}

#[test]
fn urls_are_joined() {
    let upstream = Upstream::obliging();
    for (base, want) in [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/api", "/api/v1/chat/completions"),
        ("/api/v3", "/api/v3/chat/completions"),
    ] {
        let target = format!("{}{base}", upstream.url());
        // As the first service, and as the one that is fallen back on.
        let down = format!("http://{}", closed_address());
        for toml in [
            offer("m", "", "", std::slice::from_ref(&target)),
            offer("m", "retry = \"off\"\nfallback = [\"b\"]\n", "", &[down])
                + &offer("b", "", "", std::slice::from_ref(&target)),
        ] {
            let gateway = Gateway::start(&toml);
            let mut client = gateway.client();
            client.send(post(&format!("{CHAT}?a=1"), "", chat("m")));
            client.reply().assert_ok();
            assert_eq!(upstream.last().path(), format!("{want}?a=1"), "{base}");
        }
    }
}

/// An external endpoint, with a key of its own.
#[test]
fn external_endpoints() {
    let upstream = Upstream::obliging();
    let key = "api_key = \"sk-external\"\n";
    let gateway = Gateway::start(&offer("m", "model = \"theirs\"\n", key, &[upstream.url()]));
    gateway
        .client()
        .chat("m", "authorization: Bearer client\r\nx-api-key: client\r\n")
        .assert_ok();
    let sent = upstream.last();
    assert_eq!(
        sent.header("authorization").as_deref(),
        Some("Bearer sk-external")
    );
    assert_eq!(sent.header("x-api-key"), None);
    let json: Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!(json["model"], "theirs");
    let failing = engine();
    for (fault, status) in [
        ("status=500, body=theirs", 500),
        ("status=429, body=theirs", 429),
    ] {
        always(&failing, fault);
        let gateway = Gateway::start(&offer("m", "", key, &[failing.url()]));
        let reply = gateway.client().chat("m", "");
        assert_eq!((reply.status, reply.text()), (status, "theirs".into()));
        let before = calls(&failing);
        let backup = offer("b", "", "", &[upstream.url()]);
        let gateway =
            Gateway::start(&(offer("m", "fallback = [\"b\"]\n", key, &[failing.url()]) + &backup));
        gateway.client().chat("m", "").assert_ok();
        assert_eq!(
            upstream.last().header("authorization"),
            None,
            "the key of the other"
        );
        // 500 is tried again here first; 429 is not.
        assert_eq!(calls(&failing) - before, if status == 500 { 3 } else { 1 });
    }
    let refused = format!("http://{}", closed_address());
    let gateway = Gateway::start(&offer("m", "", key, &[refused]));
    gateway
        .client()
        .chat("m", "")
        .assert_refused(502, "upstream_error");
}
