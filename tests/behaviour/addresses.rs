//! Who asks: allowed and denied addresses, and whose word on them counts.

use crate::harness::{Gateway, Upstream, service};

fn gateway(upstream: &Upstream, server: &str, rules: &str) -> Gateway {
    let toml = format!(
        "[server]\n{server}\n[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\n{rules}\n"
    );
    Gateway::start(&(toml + &service("m", "m", &upstream.url())))
}

#[test]
fn an_address_that_is_not_allowed_gets_403() {
    let upstream = Upstream::obliging();
    for (rules, passes) in [
        ("allowed_ips = [\"127.0.0.0/8\"]", true),
        ("allowed_ips = [\"10.0.0.0/8\", \"127.0.0.1/32\"]", true),
        ("allowed_ips = [\"10.0.0.0/8\"]", false),
        ("denied_ips = [\"127.0.0.1/32\"]", false),
        ("denied_ips = [\"10.0.0.0/8\"]", true),
        // What is denied is denied, even within what is allowed.
        (
            "allowed_ips = [\"127.0.0.0/8\"]\ndenied_ips = [\"127.0.0.1/32\"]",
            false,
        ),
    ] {
        let gateway = gateway(&upstream, "", rules);
        let reply = gateway.client().chat("m", "");
        if passes {
            assert_eq!(reply.status, 200, "{rules}");
        } else {
            reply.assert_refused(403, "permission_denied");
            gateway
                .client()
                .get("/v1/models", "")
                .assert_refused(403, "permission_denied");
        }
    }
}

/// Nobody's word on who the client is counts, unless it is trusted.
#[test]
fn a_claimed_address_opens_nothing() {
    let upstream = Upstream::obliging();
    let gateway = gateway(&upstream, "", "allowed_ips = [\"10.0.0.0/8\"]");
    for claim in [
        "x-forwarded-for: 10.1.2.3\r\n",
        "forwarded: for=10.1.2.3\r\n",
        "x-real-ip: 10.1.2.3\r\n",
    ] {
        gateway
            .client()
            .chat("m", claim)
            .assert_refused(403, "permission_denied");
    }
}

#[test]
fn a_trusted_proxy_is_believed() {
    let upstream = Upstream::obliging();
    let trusted = "trusted_proxies = [\"127.0.0.0/8\", \"192.0.2.0/24\"]";
    let gateway = gateway(&upstream, trusted, "allowed_ips = [\"10.0.0.0/8\"]");
    for (chain, passes) in [
        ("10.1.2.3", true),
        ("198.51.100.1", false),
        // The nearest hop that is no proxy of ours is the client; what stands before it is only claimed.
        ("10.1.2.3, 198.51.100.1", false),
        ("198.51.100.1, 10.1.2.3", true),
        ("198.51.100.1, 10.1.2.3, 192.0.2.7", true),
        ("10.9.9.9, nonsense", false),
        ("", false),
    ] {
        let reply = gateway
            .client()
            .chat("m", &format!("x-forwarded-for: {chain}\r\n"));
        assert_eq!(reply.status == 200, passes, "{chain}: {}", reply.text());
    }
    // Two lines are one list.
    let lines = "x-forwarded-for: 198.51.100.1\r\nx-forwarded-for: 10.1.2.3\r\n";
    gateway.client().chat("m", lines).assert_ok();
}
