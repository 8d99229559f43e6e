//! What happens when others fail.

mod acme;
mod broken_streams;
mod broken_upstreams;
mod changes;
mod client_gone;
mod disaggregated;
mod identity_services;
mod idle_connections;
mod issuers;
mod killed;
mod killed_in_a_storm;
mod many_writers;
mod scaler_streams;
mod scaling;
mod shutdown;
mod slow_admin;
mod slow_readers;
mod storm;
mod storms_by_the_api;
mod storms_of_changes;
mod timeouts;
mod tls;
mod unit;
mod upgrade;
mod upgrades;

use crate::harness::Reply;

/// Nothing of the inside shows: no address, no text of the system's or the library's errors.
#[track_caller]
pub(crate) fn assert_discreet(reply: &Reply, secrets: &[&str]) {
    let mut told = reply.text();
    for (name, value) in reply.headers.iter().chain(&reply.trailers) {
        told.push_str(&format!("\n{name}: {value}"));
    }
    let told = told.to_lowercase();
    let words = [
        "127.0.0.1",
        "localhost:",
        "refused",
        "os error",
        "pingora",
        "connect",
        "reset by",
        "hyper",
        "h2 error",
        "src/",
        "panicked",
        "upstream-secret",
    ];
    for secret in words.iter().chain(secrets) {
        let secret = secret.to_lowercase();
        // `connection: close` is the protocol's.
        let told = told
            .replace("connection: close", "")
            .replace("connection: keep-alive", "");
        assert!(!told.contains(&secret), "`{secret}` shows in: {told}");
    }
}
