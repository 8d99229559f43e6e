//! The admin listener: health, readiness, metrics.

use crate::harness::{CHAT, Gateway, closed_address, engine, h2c, service, streamed};

/// Labels and their origin: a client must not be able to make one up. With interface.md, section 9.
const METRICS: [(&str, &[&str]); 13] = [
    ("tollgate_requests_total", &["code", "gateway", "service"]),
    (
        "tollgate_request_duration_seconds_count",
        &["gateway", "service"],
    ),
    ("tollgate_overhead_seconds_count", &["gateway", "service"]),
    (
        "tollgate_time_to_first_token_seconds_count",
        &["gateway", "service"],
    ),
    (
        "tollgate_inter_token_seconds_count",
        &["gateway", "service"],
    ),
    (
        "tollgate_tokens_total",
        &["direction", "gateway", "service"],
    ),
    ("tollgate_in_flight", &["service"]),
    ("tollgate_rejections_total", &["code", "gateway"]),
    ("tollgate_client_disconnects_total", &[]),
    ("tollgate_target_up", &["target", "upstream"]),
    ("tollgate_target_in_flight", &["target", "upstream"]),
    ("tollgate_config_revision", &[]),
    ("tollgate_config_reloads_total", &["result"]),
];

#[test]
fn health_and_readiness() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    assert_eq!(gateway.admin("/healthz").status, 200);
    assert_eq!(gateway.admin("/readyz").status, 200);
    assert_eq!(gateway.admin("/nothing").status, 404);
    // The traffic's listener has none of it.
    gateway
        .client()
        .get("/metrics", "")
        .assert_refused(404, "route_not_found");
    gateway
        .client()
        .get("/healthz", "")
        .assert_refused(404, "route_not_found");
}

#[test]
fn every_promised_metric_is_there() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    gateway.client().post(CHAT, streamed("m", 5)).assert_ok();
    gateway
        .client()
        .chat("nobody", "")
        .assert_refused(404, "model_not_found");
    // An exchange is counted when it is over, a moment after its answer.
    gateway.wait_for("tollgate_rejections_total", &[], |n| n == 1.0);
    gateway.wait_for("tollgate_tokens_total", &[], |n| n > 0.0);
    let families = gateway.metrics().families();
    for (name, labels) in METRICS {
        let found: Vec<_> = families.iter().filter(|(known, _)| known == name).collect();
        assert!(!found.is_empty(), "{name} is missing");
        for (_, known) in found {
            let mut known = known.clone();
            known.sort();
            assert_eq!(known, labels, "{name}");
        }
    }
    let reply = gateway.admin("/metrics");
    assert!(
        reply
            .header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    // Ours have a prefix; what does not is the process's.
    for (name, _) in families {
        assert!(
            name.starts_with("tollgate_") || name.starts_with("process_"),
            "{name}"
        );
    }
}

#[test]
fn numbers_tell_what_happened() {
    let engine = engine();
    let toml =
        service("a", "a", &engine.url()) + &service("b", "b", &h2c(&engine)) + "retry = \"off\"\n";
    let gateway = Gateway::start(&toml);
    for _ in 0..3 {
        gateway.client().chat("a", "").assert_ok();
    }
    gateway.client().chat("b", "x-sim: status=503\r\n");
    let of = |service, code| [("gateway", "main"), ("service", service), ("code", code)];
    gateway.wait_for("tollgate_requests_total", &of("a", "200"), |n| n == 3.0);
    gateway.wait_for("tollgate_requests_total", &of("b", "503"), |n| n == 1.0);
    let a = [("gateway", "main"), ("service", "a")];
    gateway.wait_for("tollgate_overhead_seconds_count", &a, |n| n == 3.0);
    let metrics = gateway.metrics();
    assert_eq!(
        metrics.sum("tollgate_request_duration_seconds_count", &a),
        3.0
    );
    assert_eq!(metrics.sum("tollgate_overhead_seconds_count", &a), 3.0);
    let (overhead, duration) = (
        metrics.sum("tollgate_overhead_seconds_sum", &a),
        metrics.sum("tollgate_request_duration_seconds_sum", &a),
    );
    assert!(
        overhead > 0.0 && overhead < duration,
        "{overhead} of {duration}"
    );
    assert_eq!(metrics.sum("tollgate_config_revision", &[]), 1.0);
    gateway.wait_for("tollgate_target_up", &[], |n| n == 2.0);
}

#[test]
fn what_is_being_served_shows() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let mut client = gateway.client();
    client.send(crate::harness::post(
        CHAT,
        "x-sim: ttft=400ms\r\n",
        crate::harness::chat("m"),
    ));
    gateway.wait_for("tollgate_in_flight", &[("service", "m")], |n| n == 1.0);
    gateway.wait_for("tollgate_target_in_flight", &[], |n| n == 1.0);
    client.reply().assert_ok();
    gateway.assert_gauges_zero();
}

/// A target whose name does not resolve is down, not fatal; requests for it are answered at once.
#[test]
fn a_name_that_does_not_resolve_is_down() {
    let engine = engine();
    let toml = service("good", "good", &engine.url())
        + &service("lost", "lost", "http://does-not-exist.invalid:8000")
        + &service("dead", "dead", &format!("http://{}", closed_address()));
    let gateway = Gateway::start(&toml);
    gateway.client().chat("good", "").assert_ok();
    let start = std::time::Instant::now();
    let reply = gateway.client().chat("lost", "");
    reply.assert_refused(503, "no_healthy_upstream");
    assert!(reply.header("retry-after").is_some());
    assert!(
        start.elapsed() < std::time::Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    let up = gateway
        .metrics()
        .sum("tollgate_target_up", &[("upstream", "lost")]);
    assert_eq!(up, 0.0);
}

/// `localhost` has two addresses; the one that listens is found.
#[test]
fn localhost_is_found() {
    let engine = engine();
    let target = format!("http://localhost:{}", engine.address().port());
    let gateway = Gateway::start(&service("m", "m", &target));
    for _ in 0..4 {
        gateway.client().chat("m", "").assert_ok();
    }
}
