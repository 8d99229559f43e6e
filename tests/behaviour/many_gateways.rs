//! A large configuration does at its far end what a small one does.

use std::fmt::Write;

use crate::harness::{CHAT, Gateway, Reply, Upstream, chat};

const GATEWAYS: usize = 1_000;
const SERVICES: usize = 10;
const TARGETS: usize = 3;

/// A thousand tenants; `target` serves the last service of the last of them, and nobody all others.
fn many(target: &str) -> String {
    let mut text = String::new();
    for gateway in 0..GATEWAYS {
        let name = format!("g{gateway:04}");
        let _ = write!(
            text,
            "[[gateway]]\nname = \"{name}\"\nhosts = [\"{name}.example.com\"]\nauth = \"none\"\n[[rule]]\nname = \"{name}-r\"\ngateway = \"{name}\"\npath = \"/last/*\"\nstrip_path = true\nservices = [\"{name}-s9\"]\n"
        );
        for service in 0..SERVICES {
            let last = gateway == GATEWAYS - 1 && service == SERVICES - 1;
            let place = gateway * SERVICES + service;
            // Loopback refuses at once: probes of all these hold nothing up.
            let away = |n: usize| format!("\"http://127.{n}.{}.{}:9\"", place >> 8, place & 255);
            let targets: Vec<String> = match last {
                true => vec![format!("{target:?}")],
                false => (1..=TARGETS).map(away).collect(),
            };
            let _ = write!(
                text,
                "[[service]]\nname = \"{name}-s{service}\"\ngateways = [\"{name}\"]\nmodels = [\"m{service}\", \"own-{gateway}-{service}\"]\ntargets = [{}]\n",
                targets.join(", ")
            );
        }
    }
    text
}

fn ask(gateway: &Gateway, host: &str, path: &str, model: &str) -> Reply {
    let body = chat(model);
    let mut client = gateway.client();
    client.send(format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.reply()
}

#[test]
fn the_last_of_a_thousand_gateways_is_served_like_the_first() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&many(&upstream.url()));
    let last = "g0999.example.com";
    for (path, model) in [
        (CHAT, "m9"),
        (CHAT, "own-999-9"),
        ("/last/v1/chat/completions", "anything"),
    ] {
        let reply = ask(&gateway, last, path, model);
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-service"), Some("g0999-s9"));
    }
    // What is another's is not here, and what nobody serves is told as such.
    let reply = ask(&gateway, last, CHAT, "own-998-9");
    reply.assert_refused(404, "model_not_found");
    let reply = ask(&gateway, "g0000.example.com", CHAT, "own-999-9");
    reply.assert_refused(404, "model_not_found");
    assert_eq!(ask(&gateway, "g0500.example.com", CHAT, "m0").status, 502);
    let reply = ask(&gateway, "g1000.example.com", CHAT, "m0");
    reply.assert_refused(421, "unknown_host");
    let metrics = gateway.metrics();
    let targets = metrics.sum("tollgate_target_in_flight", &[]);
    assert_eq!(targets, 0.0);
    assert_eq!(
        metrics.values("target").len(),
        (GATEWAYS * SERVICES - 1) * TARGETS + 1
    );
    let served = [
        ("gateway", "g0999"),
        ("service", "g0999-s9"),
        ("code", "200"),
    ];
    assert_eq!(metrics.sum("tollgate_requests_total", &served), 3.0);
}
