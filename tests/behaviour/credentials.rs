//! Credentials: an upstream's own replaces the client's.

use crate::harness::{Gateway, Upstream, chat, chunked, padded, service};

fn gateway(upstream: &Upstream, fields: &str) -> Gateway {
    Gateway::start(&format!(
        "[[service]]\nname = \"m\"\nmodels = [\"m\"]\nupstream = \"pool\"\n[[upstream]]\nname = \"pool\"\ntargets = [\"{}\"]\n{fields}\n",
        upstream.url()
    ))
}

const CLIENTS: &str =
    "authorization: Bearer client-key\r\nx-api-key: client-key\r\napi-key: client-key\r\n";

#[test]
fn an_upstreams_key_replaces_the_clients() {
    let upstream = Upstream::obliging();
    let gateway = gateway(
        &upstream,
        "api_key = \"sk-upstream\"\nheaders = { X-Team = \"research\" }",
    );
    let mut client = gateway.client();
    client.chat("m", CLIENTS).assert_ok();
    client.send(chunked(
        "/v1/chat/completions",
        CLIENTS,
        &padded("m", 100_000),
        10_000,
    ));
    client.reply().assert_ok();
    for seen in upstream.requests() {
        assert_eq!(
            seen.header("authorization").as_deref(),
            Some("Bearer sk-upstream")
        );
        assert_eq!(seen.header("x-api-key"), None, "{seen:?}");
        assert_eq!(seen.header("x-team").as_deref(), Some("research"));
    }
    let reply = gateway.h2().post(
        "/v1/chat/completions",
        &[
            ("authorization", "Bearer client-key"),
            ("x-api-key", "client-key"),
        ],
        chat("m"),
        true,
    );
    let reply = reply.unwrap();
    reply.assert_ok();
    assert_eq!(
        upstream.last().header("authorization").as_deref(),
        Some("Bearer sk-upstream")
    );
    // It shows nowhere on the way back.
    assert!(!format!("{:?}", reply.headers).contains("sk-upstream"));
}

#[test]
fn without_one_the_clients_passes() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    gateway.client().chat("m", CLIENTS).assert_ok();
    let seen = upstream.last();
    assert_eq!(
        seen.header("authorization").as_deref(),
        Some("Bearer client-key")
    );
    assert_eq!(seen.header("x-api-key").as_deref(), Some("client-key"));
}

/// A header the configuration sets is not a header a client can set beside it.
#[test]
fn configured_headers_replace_the_clients() {
    let upstream = Upstream::obliging();
    let gateway = gateway(&upstream, "headers = { X-Team = \"research\" }");
    gateway
        .client()
        .chat("m", "x-team: evil\r\nx-team: worse\r\n")
        .assert_ok();
    assert_eq!(
        upstream.last().header("x-team").as_deref(),
        Some("research")
    );
}
