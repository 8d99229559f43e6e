//! TLS with clients: which certificate they see, what is spoken, and where those are sent that come without.

use std::path::Path;
use std::process::Command;

use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, Error, ProtocolVersion};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{
    Authority, CHAT, Client, Gateway, H2Client, Manner, Process, TlsUpstream, Upstream, chat, get,
    post, replace, service, until,
};

/// Two hosts with certificates of their own, `a.example` and everything below `b.example`.
pub(crate) struct Two {
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
    pub(crate) upstream: Upstream,
}

impl Two {
    pub(crate) fn new() -> Two {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
        authority.issue(&["a.example"]).write(folder.path(), "a");
        authority.issue(&["*.b.example"]).write(folder.path(), "b");
        authority
            .issue(&["own.example"])
            .write(folder.path(), "own");
        Two {
            folder,
            authority,
            upstream: Upstream::obliging(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `listener`: how the listener speaks; `a`: more of the gateway of `a.example`.
    pub(crate) fn start(&self, listener: &str, a: &str) -> Gateway {
        let path = self.path().display();
        let files = |name| {
            format!("{{ certificate = \"{path}/{name}.pem\", key = \"{path}/{name}.key\" }}")
        };
        let (a_files, b_files) = (files("a"), files("b"));
        let listener = listener.replace("OWN", &files("own"));
        Gateway::start(&format!(
            "[[listener]]\naddress = \"$LISTENER\"\n{listener}\n\
             [[gateway]]\nname = \"a\"\nhosts = [\"a.example\"]\nauth = \"none\"\ncertificate = {a_files}\n{a}\n\
             [[gateway]]\nname = \"b\"\nhosts = [\"*.b.example\"]\nauth = \"none\"\ncertificate = {b_files}\n\
             [[gateway]]\nname = \"c\"\nhosts = [\"c.example\"]\nauth = \"none\"\n{}",
            service("m", "m", &self.upstream.url())
        ))
    }

    pub(crate) fn manner(&self) -> Manner {
        self.authority.trusted()
    }
}

/// A request for a host.
pub(crate) fn at(host: &str, request: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8(request).unwrap();
    text.replacen("host: test", &format!("host: {host}"), 1)
        .into_bytes()
}

pub(crate) fn ask(client: &mut Client, host: &str) -> u16 {
    client.send(at(host, post(CHAT, "", chat("m"))));
    client.reply().status
}

/// What a client that asks for this name is told in the handshake.
fn refused(gateway: &Gateway, name: &str, manner: &Manner) -> String {
    match Client::try_secure(gateway.address(), name, manner.config()) {
        Ok(_) => panic!("{name} was let in"),
        Err(error) => match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            Some(Error::AlertReceived(alert)) => format!("{alert:?}"),
            _ => error.to_string(),
        },
    }
}

#[test]
fn both_versions_of_tls_and_of_http_are_spoken() {
    let two = Two::new();
    let gateway = two.start("tls = \"auto\"", "");
    for (only, version) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let manner = two.manner().only(only);
        let mut client = Client::secure(gateway.address(), "a.example", &manner);
        assert_eq!(client.tls().protocol_version(), Some(version));
        assert_eq!(client.tls().alpn_protocol(), None);
        // More than one, on a connection that is kept.
        assert_eq!(
            [ask(&mut client, "a.example"), ask(&mut client, "a.example")],
            [200; 2]
        );
        let mut client = Client::secure(
            gateway.address(),
            "a.example",
            &manner.clone().offering(&["http/1.1"]),
        );
        assert_eq!(client.tls().alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(ask(&mut client, "a.example"), 200);
        let h2 = H2Client::secure(gateway.address(), "a.example", &manner);
        let mut stream = h2.open_at("a.example", "POST", CHAT, &[], false);
        stream.send(chat("m"), true).unwrap();
        stream.reply().unwrap().assert_ok();
    }
    let requests = two.upstream.requests();
    assert_eq!(requests.len(), 8);
    for request in requests {
        assert_eq!(
            request.header("x-forwarded-proto").as_deref(),
            Some("https")
        );
    }
    gateway.assert_gauges_zero();
}

/// By lines beside the head in HTTP/1, by headers in HTTP/2.
#[test]
fn limits_are_told_over_tls() {
    let two = Two::new();
    let plugins = r#"plugins = [{ name = "rate_limiter", settings = { limits = { global = { limit = 5, window = "1m" } } } }]"#;
    let gateway = two.start("tls = \"auto\"", plugins);
    let left = "x-ratelimit-remaining-requests";
    let mut client = Client::secure(gateway.address(), "a.example", &two.manner());
    for expected in ["4", "3"] {
        client.send(at("a.example", post(CHAT, "", chat("m"))));
        let reply = client.reply();
        reply.assert_ok();
        assert_eq!(reply.headers(left), [expected]);
    }
    let h2 = H2Client::secure(gateway.address(), "a.example", &two.manner());
    let mut stream = h2.open_at("a.example", "POST", CHAT, &[], false);
    stream.send(chat("m"), true).unwrap();
    let reply = stream.reply().unwrap();
    reply.assert_ok();
    assert_eq!(reply.headers(left), ["2"]);
}

#[test]
fn http2_is_not_offered_where_it_is_off() {
    let two = Two::new();
    let gateway = two.start("tls = \"auto\"\nhttp2 = false", "");
    let manner = two.manner().offering(&["h2", "http/1.1"]);
    let mut client = Client::secure(gateway.address(), "a.example", &manner);
    assert_eq!(client.tls().alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(ask(&mut client, "a.example"), 200);
    let only = two.manner().offering(&["h2"]);
    let told = refused(&gateway, "a.example", &only);
    assert_eq!(
        told,
        format!("{:?}", AlertDescription::NoApplicationProtocol)
    );
}

#[test]
fn the_host_that_is_named_decides_the_certificate() {
    let two = Two::new();
    let gateway = two.start("tls = \"auto\"", "");
    let manner = two.manner();
    // Each name is verified by the client.
    for name in ["a.example", "x.b.example", "y.b.example"] {
        let mut client = Client::secure(gateway.address(), name, &manner);
        assert_eq!(ask(&mut client, name), 200, "{name}");
    }
    let nobody = format!("{:?}", AlertDescription::UnrecognisedName);
    // One without a certificate, one that is not known, and none at all: nobody's certificate is shown.
    for name in ["c.example", "d.example", "b.example", "127.0.0.1"] {
        assert_eq!(refused(&gateway, name, &manner), nobody, "{name}");
    }
    let refusals = gateway.metrics();
    let count = |result| refusals.sum("tollgate_tls_handshakes_total", &[("result", result)]);
    assert_eq!([count("ok"), count("unknown_name")], [3.0, 4.0]);
}

#[test]
fn a_default_gateway_takes_the_names_that_nobody_has() {
    let two = Two::new();
    let gateway = two.start("tls = \"auto\"", "default = true");
    let manner = two.manner();
    let told = refused(&gateway, "d.example", &manner);
    assert!(told.contains("not valid for name"), "{told}");
}

#[test]
fn a_listeners_own_certificate_is_for_those_that_have_none() {
    let two = Two::new();
    let gateway = two.start("tls = OWN", "");
    let manner = two.manner();
    let mut client = Client::secure(gateway.address(), "own.example", &manner);
    // It is bound to no host.
    assert_eq!(
        [ask(&mut client, "c.example"), ask(&mut client, "a.example")],
        [200; 2]
    );
    let mut client = Client::secure(gateway.address(), "a.example", &manner);
    assert_eq!(ask(&mut client, "a.example"), 200);
}

/// A certificate that is good for both would let a client believe that the connection is, too.
#[test]
fn a_connection_is_for_the_hosts_of_one_gateway() {
    let two = Two::new();
    let both = two.authority.issue(&["a.example", "*.b.example"]);
    both.write(two.path(), "a");
    both.write(two.path(), "b");
    let gateway = two.start("tls = \"auto\"", "");
    let mut client = Client::secure(gateway.address(), "a.example", &two.manner());
    let other = |client: &mut Client, host: &str| {
        client.send(at(host, get("/v1/models", "")));
        client.reply()
    };
    let reply = other(&mut client, "x.b.example");
    assert_eq!(reply.status, 421);
    assert_eq!(reply.json()["error"]["code"], "unknown_host");
    // It goes on.
    other(&mut client, "a.example").assert_ok();
    let h2 = H2Client::secure(gateway.address(), "x.b.example", &two.manner());
    for (host, status) in [
        ("a.example", 421),
        ("x.b.example", 200),
        ("y.b.example", 200),
    ] {
        let reply = h2
            .open_at(host, "GET", "/v1/models", &[], true)
            .reply()
            .unwrap();
        assert_eq!(reply.status, status, "{host}");
    }
}

#[test]
fn who_comes_in_the_clear_is_sent_to_https() {
    let two = Two::new();
    let more = "redirect_https = true\nhsts = \"365d\"";
    let gateway = two.start("", more);
    let mut client = gateway.client();
    client.send(at(
        "a.example:8080",
        post(&format!("{CHAT}?x=1"), "", chat("m")),
    ));
    let reply = client.reply();
    assert_eq!(reply.status, 308);
    let location = format!("https://a.example{CHAT}?x=1");
    assert_eq!(reply.header("location"), Some(&*location));
    // Nobody is told to insist on what may not be there.
    assert_eq!(reply.header("strict-transport-security"), None);
    // What a stranger says of how it came is not believed.
    client.send(at(
        "a.example",
        get("/v1/models", "x-forwarded-proto: https\r\n"),
    ));
    assert_eq!(client.reply().status, 308);
    // Other gateways are as they were.
    assert_eq!(ask(&mut client, "c.example"), 200);
    assert_eq!(two.upstream.requests().len(), 1);
    // Whoever ends TLS before us is.
    let trusting = format!("{more}\n[server]\ntrusted_proxies = [\"127.0.0.1/32\"]");
    let gateway = two.start("", &trusting);
    let mut client = gateway.client();
    for (proto, status) in [("https", 200), ("http", 308)] {
        let how = format!("x-forwarded-proto: {proto}\r\n");
        client.send(at("a.example", post(CHAT, &how, chat("m"))));
        assert_eq!(client.reply().status, status, "{proto}");
    }
}

#[test]
fn browsers_are_told_to_insist() {
    let two = Two::new();
    let gateway = two.start("tls = \"auto\"", "hsts = \"365d\"\nredirect_https = true");
    let mut client = Client::secure(gateway.address(), "a.example", &two.manner());
    for request in [
        post(CHAT, "", chat("m")),
        get("/v1/models", ""),
        get("/none", ""),
    ] {
        client.send(at("a.example", request));
        let said = client.reply();
        assert_eq!(
            said.header("strict-transport-security"),
            Some("max-age=31536000")
        );
    }
    let mut client = Client::secure(gateway.address(), "x.b.example", &two.manner());
    client.send(at("x.b.example", get("/v1/models", "")));
    assert_eq!(client.reply().header("strict-transport-security"), None);
}

#[test]
fn plain_http_gets_an_answer_that_says_so() {
    let two = Two::new();
    let gateway = two.start("tls = \"auto\"", "");
    let mut client = gateway.client();
    client.send(get("/", ""));
    let reply = client.reply();
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("use https"), "{}", reply.text());
    client.assert_closed();
    // Noise gets none.
    let mut client = gateway.client();
    client.send(b"\0\0\0\0");
    assert!(client.rest().is_empty());
}

#[test]
fn curl_is_served() {
    let two = Two::new();
    let gateway = two.start("tls = \"auto\"", "");
    let authority = two.authority.write(two.path(), "ca.pem");
    let port = gateway.address().port();
    for (version, shown) in [("--http1.1", "1.1 200"), ("--http2", "2 200")] {
        let told = Command::new("curl")
            .args(["-sS", version, "--cacert"])
            .arg(&authority)
            .args(["--resolve", &format!("a.example:{port}:127.0.0.1")])
            .args(["-d", &chat("m"), "-o", "/dev/null"])
            .args(["-w", "%{http_version} %{http_code}"])
            .arg(format!("https://a.example:{port}{CHAT}"))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert_eq!(told, shown);
    }
}

#[test]
fn certificates_are_listed_and_counted() {
    let two = Two::new();
    let gateway = two.start("tls = OWN", "");
    let listed = gateway.api().get("/v1/status").json()["certificates"].clone();
    let source = two.path().join("a.pem").display().to_string();
    assert_eq!(
        listed[0],
        json!({
            "name": "a", "of": "gateway", "hosts": ["a.example"], "issuer": "ours",
            "expires_at": listed[0]["expires_at"], "source": source, "order": null,
        })
    );
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!(listed[2]["of"], "listener");
    let metrics = gateway.metrics();
    let left = |label| metrics.sum("tollgate_certificate_expiry_seconds", &[label]);
    assert!(left(("gateway", "a")) > 86_400.0);
    assert!(left(("listener", listed[2]["name"].as_str().unwrap())) > 86_400.0);
    let table = gateway.api().cli(&["get", "certificates"]).done();
    assert!(
        table.lines().any(|line| line.contains("a.example")),
        "{table}"
    );
}

/// A gateway of the API brings its certificate along.
#[test]
fn a_gateway_that_is_made_has_its_certificate_at_once() {
    let two = Two::new();
    let gateway = two.start("tls = \"auto\"", "");
    two.authority.issue(&["n.example"]).write(two.path(), "n");
    let path = |name: &str| two.path().join(name).display().to_string();
    let body = |key: &str| {
        json!({
            "name": "n", "hosts": ["n.example"], "auth": "none",
            "certificate": {"certificate": path("n.pem"), "key": path(key)},
        })
    };
    let put = |key| gateway.api().ask("PUT", "/v1/gateways/n", &body(key));
    for (key, why) in [
        ("a.key", "not the key of the certificate"),
        ("none.key", "there is no file"),
    ] {
        let reply = put(key);
        assert_eq!(reply.status, 422, "{}", reply.text());
        let detail = &reply.json()["error"]["details"][0];
        assert_eq!(detail["path"], "certificate.key");
        let message = detail["message"].as_str().unwrap();
        assert!(message.contains(why), "{message}");
    }
    assert_eq!(put("n.key").status, 201);
    let mut client = Client::secure(gateway.address(), "n.example", &two.manner());
    assert_eq!(ask(&mut client, "n.example"), 200);
}

/// Sessions are resumed, and not over a change of the certificate.
#[test]
fn sessions_resume() {
    use rustls::HandshakeKind::{Full, Resumed};
    let two = Two::new();
    let gateway = two.start("tls = \"auto\"", "");
    for version in [&TLS12, &TLS13] {
        let config = two.manner().only(version).config();
        let connect = || {
            let config = config.clone();
            let mut client = Client::try_secure(gateway.address(), "a.example", config).unwrap();
            assert_eq!(ask(&mut client, "a.example"), 200);
            client.tls().handshake_kind()
        };
        assert_eq!(connect(), Some(Full));
        assert_eq!(connect(), Some(Resumed));
        let renewed = two.authority.issue(&["a.example"]);
        replace(&two.path().join("a.key"), &renewed.key);
        replace(&two.path().join("a.pem"), &renewed.certificate);
        until("a full handshake", || {
            (connect() == Some(Full)).then_some(())
        });
    }
}

/// Towards upstreams, too: a handshake that is not made whole costs half.
#[test]
fn sessions_with_upstreams_resume() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let upstream = TlsUpstream::start(&authority.issue(&["localhost"]), None);
    let trusted = authority.write(folder.path(), "ca.pem");
    let toml = service("m", "m", &upstream.url("localhost"));
    let trusted = trusted.display().to_string();
    let process = Process::start_own(&toml, &[("SSL_CERT_FILE", &trusted)]);
    for _ in 0..3 {
        process.client().chat("m", "").assert_ok();
    }
    let begun = upstream.begun();
    assert_eq!(begun.len(), 3, "{begun:?}");
    assert!(begun[1..].iter().any(|begun| begun.resumed), "{begun:?}");
}
