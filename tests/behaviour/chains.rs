//! Chains around the answer: heads, bodies and streams that plugins change, plugins that break down, and those that run together.

use std::time::{Duration, Instant};

use crate::harness::{
    CHAT, Gateway, Upstream, chat, chunked, engine, engine_with, padded, post, service, streamed,
    until,
};

fn gateway(plugins: &str) -> String {
    format!(
        "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\nplugins = [{plugins}]\n"
    )
}

fn plugin(name: &str, rest: &str, settings: &str) -> String {
    format!("{{ name = \"{name}\", {rest} settings = {{ {settings} }} }},")
}

fn fault(stage: &str, rest: &str, settings: &str) -> String {
    plugin(
        "fault_injection",
        &format!("stage = \"{stage}\", {rest}"),
        settings,
    )
}

fn json(body: &str, framing: &str) -> Upstream {
    let framing = match framing {
        "chunked" => format!(
            "transfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            5,
            &body[..5],
            body.len() - 5,
            &body[5..]
        ),
        _ => format!("content-length: {}\r\n\r\n{body}", body.len()),
    };
    Upstream::replying(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{framing}"
    ))
}

/// A changed answer is whole and rightly framed for every client, on both roads.
#[test]
fn answers_are_transformed() {
    let transform = plugin(
        "transform",
        "",
        "response = { remove = [\"system_fingerprint\"], set = { owner = \"us\" } }",
    );
    let body =
        r#"{"id":"x","system_fingerprint":"fp","usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    for framing in ["length", "chunked"] {
        let upstream = json(body, framing);
        let gateway = Gateway::start(&(gateway(&transform) + &service("m", "m", &upstream.url())));
        for request in [
            post(CHAT, "", chat("m")),
            chunked(CHAT, "", &padded("m", 100_000), 9_000),
        ] {
            let mut client = gateway.client();
            for _ in 0..2 {
                client.send(&request);
                let reply = client.reply();
                reply.assert_ok();
                let answer = reply.json();
                assert_eq!(answer["owner"], "us", "{framing}");
                assert!(answer.get("system_fingerprint").is_none(), "{framing}");
                assert_eq!(answer["id"], "x");
            }
        }
        let reply = gateway.h2().post(CHAT, &[], chat("m"), true).unwrap();
        assert_eq!(reply.json()["owner"], "us");
        assert!(reply.complete);
        let requests = upstream.requests();
        assert!(
            requests
                .iter()
                .all(|r| r.header("accept-encoding").is_none())
        );
        // What was used is still read.
        let used = 2.0 * requests.len() as f64;
        gateway.wait_for(
            "tollgate_tokens_total",
            &[("direction", "output")],
            |tokens| tokens == used,
        );
        gateway.assert_gauges_zero();
    }
}

/// A card number that the engine's chunks cut in two does not reach the client, and the stream still ends well.
#[test]
fn streams_are_masked() {
    let upstream = Upstream::start(|connection| {
        while connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            for text in ["my card is 4111 11", "11 1111 ", "1111, thanks"] {
                connection.send_chunk(format!(
                    "data: {{\"id\":\"1\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
                ));
            }
            connection.send_chunk("data: [DONE]\n\n");
            connection.send_chunk("");
        }
    });
    let masking = plugin("data_masking", "", "apply_all = true");
    let gateway = Gateway::start(&(gateway(&masking) + &service("m", "m", &upstream.url())));
    let check = |text: String| {
        assert!(!text.contains("4111") && !text.contains("1111"), "{text}");
        assert!(
            text.contains("thanks") && text.trim_end().ends_with("data: [DONE]"),
            "{text}"
        );
    };
    let mut client = gateway.client();
    client.send(post(CHAT, "", streamed("m", 3)));
    check(client.reply().text());
    client.send(post(CHAT, "", streamed("m", 3)));
    check(client.reply().text());
    let reply = gateway
        .h2()
        .post(CHAT, &[], streamed("m", 3), true)
        .unwrap();
    check(reply.text());
    gateway.assert_gauges_zero();
}

/// What no plugin waits for comes at once: a stream through a masking chain is not held to its end.
#[test]
fn masked_streams_flow() {
    let engine = engine_with(|c| c.itl = Duration::from_millis(40));
    let masking = plugin("data_masking", "", "apply_all = true");
    let gateway = Gateway::start(&(gateway(&masking) + &service("m", "*", &engine.url())));
    let mut client = gateway.client();
    client.send(post(CHAT, "", streamed("m", 20)));
    let began = Instant::now();
    client.head().unwrap();
    let first = client.chunk().unwrap().expect("a chunk");
    let early = began.elapsed();
    assert!(!first.is_empty());
    while client.chunk().unwrap().is_some() {}
    assert!(
        early * 2 < began.elapsed(),
        "{early:?} of {:?}",
        began.elapsed()
    );
}

/// In each stage a refusal reaches the client as an answer, and nobody's health suffers.
#[test]
fn every_stage_can_refuse() {
    for stage in ["pre_request", "post_request", "pre_response"] {
        let engine = engine();
        let refuse = fault(stage, "", "fault = \"refuse\", status = 451");
        let toml = gateway(&refuse)
            + "[[service]]\nname = \"spare\"\nmodels = [\"spare\"]\ntargets = [\"http://127.0.0.1:1\"]\n"
            + &service("m", "m", &engine.url())
            + "fallback = [\"spare\"]\n";
        let gateway = Gateway::start(&toml);
        for body in [chat("m").into_bytes(), padded("m", 100_000)] {
            for _ in 0..6 {
                let mut client = gateway.client();
                client.send(post(CHAT, "", &body));
                client.reply().assert_refused(451, "fault_injected");
            }
            let reply = gateway.h2().post(CHAT, &[], body, true).unwrap();
            assert_eq!(reply.status, 451, "{stage}");
        }
        let metrics = gateway.metrics();
        assert_eq!(
            metrics.sum("tollgate_target_breaker_state", &[]),
            0.0,
            "{stage}"
        );
        assert_eq!(metrics.sum("tollgate_fallbacks_total", &[]), 0.0, "{stage}");
        assert_eq!(metrics.sum("tollgate_retries_total", &[]), 0.0, "{stage}");
        gateway.assert_gauges_zero();
    }
}

/// A plugin that panics refuses or is passed over, as its entry says, is counted, and harms no other exchange.
#[test]
fn a_plugin_that_breaks_down_harms_nobody_else() {
    for stage in [
        "pre_request",
        "post_request",
        "pre_response",
        "post_response",
    ] {
        for on_error in ["refuse", "skip"] {
            let upstream = json(r#"{"id":"x","object":"chat.completion"}"#, "length");
            let broken = fault(
                stage,
                &format!("on_error = \"{on_error}\","),
                "fault = \"panic\"",
            );
            let toml = gateway("")
                + &service("good", "good", &upstream.url())
                + &service("bad", "bad", &upstream.url())
                + &format!("plugins = [{broken}]\n");
            let gateway = Gateway::start(&toml);
            let mut client = gateway.client();
            client.chat("good", "").assert_ok();
            let mut other = gateway.client();
            other.send(post(CHAT, "", chat("bad")));
            let reply = other.try_reply();
            match (stage, on_error) {
                ("pre_request" | "post_request", "refuse") => {
                    reply.unwrap().assert_refused(500, "internal_error");
                }
                // If the head is gone already, what must not look whole is broken off.
                ("pre_response", "refuse") => {
                    if let Ok(reply) = reply {
                        assert!(reply.status == 500 || !reply.complete, "{}", reply.text());
                    }
                }
                _ => reply.unwrap().assert_ok(),
            }
            client.chat("good", "").assert_ok();
            until("the panic to be counted", || {
                let counted = gateway.metrics().sum("tollgate_plugin_errors_total", &[]);
                (counted == 1.0).then_some(())
            });
            gateway.assert_gauges_zero();
        }
    }
}

/// Neighbours that say so run at the same time; others wait for each other.
#[test]
fn parallel_plugins_run_together() {
    let upstream = Upstream::obliging();
    let slow = |rest: &str| fault("pre_request", rest, "fault = \"delay\", delay = \"300ms\"");
    let time = |plugins: String| {
        let gateway = Gateway::start(&(gateway(&plugins) + &service("m", "m", &upstream.url())));
        let began = Instant::now();
        gateway.client().chat("m", "").assert_ok();
        began.elapsed()
    };
    let together = time(slow("parallel = true,").repeat(4));
    let apart = time(slow("").repeat(2));
    assert!(together < apart, "{together:?} together, {apart:?} apart");
    assert!(together >= Duration::from_millis(300));
}

/// The first refusal in order is what the client hears, and nothing of the others is lost.
#[test]
fn of_parallel_plugins_the_first_refusal_counts() {
    let upstream = Upstream::obliging();
    let refuse = |status: u16| {
        fault(
            "pre_request",
            "parallel = true,",
            &format!("fault = \"refuse\", status = {status}"),
        )
    };
    let mark = plugin(
        "headers",
        "parallel = true,",
        "response = { set = { X-Seen = \"yes\" } }",
    );
    let toml = gateway(&(refuse(418) + &mark + &refuse(451))) + &service("m", "m", &upstream.url());
    let gateway = Gateway::start(&toml);
    let reply = gateway.client().chat("m", "");
    assert_eq!(reply.status, 418);
    assert_eq!(reply.header("x-seen"), Some("yes"));
    assert!(upstream.requests().is_empty());
}

/// What only counts is no call, and yet one of those that run together.
#[test]
fn limits_count_beside_their_neighbours() {
    let upstream = Upstream::obliging();
    let limiter = |name: &str, limits: &str| {
        let limits = format!("limits = {{ {limits} }}");
        plugin(name, "parallel = true,", &limits)
    };
    let mark = plugin(
        "headers",
        "parallel = true,",
        "response = { set = { X-Seen = \"yes\" } }",
    );
    let plugins = limiter("concurrency_limiter", "global = 1")
        + &mark
        + &limiter("rate_limiter", "global = { limit = 2, window = \"1h\" }");
    let toml = gateway(&plugins) + &service("m", "m", &upstream.url());
    let gateway = Gateway::start(&toml);
    for (status, left) in [(200, "1"), (200, "0"), (429, "0")] {
        let reply = gateway.client().chat("m", "");
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some(left));
        assert_eq!(reply.header("x-seen"), Some("yes"));
    }
    assert_eq!(upstream.requests().len(), 2);
}

/// A plugin that takes too long is cut short, and what it wanted is forgotten.
#[test]
fn a_plugin_has_so_much_time() {
    let upstream = Upstream::obliging();
    for (on_error, status) in [("refuse", 500), ("skip", 200)] {
        let slow = fault(
            "pre_request",
            &format!("timeout = \"50ms\", on_error = \"{on_error}\","),
            "fault = \"delay\", delay = \"20s\"",
        );
        let gateway = Gateway::start(&(gateway(&slow) + &service("m", "m", &upstream.url())));
        let began = Instant::now();
        assert_eq!(gateway.client().chat("m", "").status, status, "{on_error}");
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(
            gateway.metrics().sum("tollgate_plugin_errors_total", &[]),
            1.0
        );
    }
}
