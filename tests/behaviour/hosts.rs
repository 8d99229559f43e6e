//! Hosts decide whose request it is.

use crate::harness::{Gateway, Reply, Upstream, chat, service};

/// Gateways with these `hosts` lines; each has one service that answers with the gateway's name.
struct Tenants {
    gateway: Gateway,
    _upstreams: Vec<Upstream>,
}

impl Tenants {
    fn new(tenants: &[(&str, &str)]) -> Tenants {
        let mut toml = String::new();
        let mut upstreams = Vec::new();
        for (name, hosts) in tenants {
            let body = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}",
                name.len()
            );
            let upstream = Upstream::replying(body);
            toml += &format!("[[gateway]]\nname = \"{name}\"\nauth = \"none\"\n{hosts}\n");
            toml += &service(&format!("s-{name}"), "m", &upstream.url());
            toml += &format!("gateways = [\"{name}\"]\n");
            upstreams.push(upstream);
        }
        Tenants {
            gateway: Gateway::start(&toml),
            _upstreams: upstreams,
        }
    }

    fn ask(&self, host: &str) -> Reply {
        let body = chat("m");
        let mut client = self.gateway.client();
        client.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        client.reply()
    }

    #[track_caller]
    fn assert_served(&self, host: &str, by: &str) {
        let reply = self.ask(host);
        assert_eq!((reply.status, reply.text().as_str()), (200, by), "{host}");
    }
}

#[test]
fn the_closest_name_wins() {
    let tenants = Tenants::new(&[
        ("any", "hosts = [\"*\"]"),
        ("wild", "hosts = [\"*.example.com\"]"),
        ("deep", "hosts = [\"*.eu.example.com\"]"),
        ("exact", "hosts = [\"api.example.com\", \"other.test\"]"),
    ]);
    for (host, by) in [
        ("api.example.com", "exact"),
        ("API.Example.COM", "exact"),
        ("api.example.com:8443", "exact"),
        ("api.example.com.", "exact"),
        ("other.test", "exact"),
        ("chat.example.com", "wild"),
        ("a.b.example.com", "wild"),
        ("x.eu.example.com", "deep"),
        ("example.com", "any"),
        ("notexample.com", "any"),
        ("127.0.0.1:8080", "any"),
        ("[::1]:8080", "any"),
    ] {
        tenants.assert_served(host, by);
    }
}

#[test]
fn an_unknown_host_gets_421() {
    let tenants = Tenants::new(&[
        ("a", "hosts = [\"a.test\"]"),
        ("b", "hosts = [\"*.b.test\"]"),
    ]);
    for host in ["c.test", "b.test", "a.test.evil", "", "127.0.0.1"] {
        tenants.ask(host).assert_refused(421, "unknown_host");
    }
    tenants.assert_served("a.test", "a");
    let labels = [("code", "unknown_host")];
    let count = "tollgate_rejections_total";
    tenants.gateway.wait_for(count, &labels, |n| n == 5.0);
}

#[test]
fn a_default_gateway_takes_the_rest() {
    let tenants = Tenants::new(&[
        ("a", "hosts = [\"a.test\"]"),
        ("b", "hosts = [\"b.test\"]\ndefault = true"),
    ]);
    tenants.assert_served("a.test", "a");
    tenants.assert_served("b.test", "b");
    tenants.assert_served("c.test", "b");
}

/// Over HTTP/2 the host is `:authority`.
#[test]
fn http2_has_hosts_too() {
    let tenants = Tenants::new(&[("a", "hosts = [\"a.test\"]"), ("b", "hosts = [\"test\"]")]);
    let reply = tenants
        .gateway
        .h2()
        .post("/v1/chat/completions", &[], chat("m"), true);
    assert_eq!(reply.unwrap().text(), "b");
    let tenants = Tenants::new(&[("a", "hosts = [\"a.test\"]")]);
    let reply = tenants
        .gateway
        .h2()
        .post("/v1/chat/completions", &[], chat("m"), true);
    reply.unwrap().assert_refused(421, "unknown_host");
}

#[test]
fn a_paused_gateway_says_so() {
    let tenants = Tenants::new(&[
        ("a", "hosts = [\"a.test\"]\nstatus = \"paused\""),
        ("b", "hosts = [\"b.test\"]"),
    ]);
    let reply = tenants.ask("a.test");
    reply.assert_refused(503, "gateway_paused");
    assert!(reply.header("retry-after").is_some());
    tenants.assert_served("b.test", "b");
}

/// With a domain each service has a host of its own, and the models one together.
#[test]
fn a_domain_gives_every_service_a_host() {
    let tenants = Tenants::new(&[("a", "domain = \"example.com\"\nsubdomain = \"team\"")]);
    for host in ["team.example.com", "gateway.example.com", "s-a.example.com"] {
        tenants.assert_served(host, "a");
    }
    tenants
        .ask("nobody.example.com")
        .assert_refused(421, "unknown_host");
}
