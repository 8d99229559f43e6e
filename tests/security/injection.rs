//! Bytes in one place that could mean something in another.

use std::time::Duration;

use crate::harness::{CHAT, Gateway, Upstream, chat, get, post, service};

fn two_tenants(a: &Upstream, b: &Upstream) -> Gateway {
    let gateway = |name: &str| {
        format!("[[gateway]]\nname = \"{name}\"\nhosts = [\"{name}.test\"]\nauth = \"none\"\n")
    };
    let offer = |name: &str, upstream: &Upstream| {
        service(name, "m", &upstream.url()) + &format!("gateways = [\"{name}\"]\n")
    };
    Gateway::start(&(gateway("a") + &gateway("b") + &offer("a", a) + &offer("b", b)))
}

/// The request line names another host than `Host` does: RFC 9112 section 3.2.2 lets the line decide, and what is
/// sent upstream must agree with what was decided.
#[test]
fn an_absolute_target_and_a_host_that_differ() {
    let (a, b) = (Upstream::obliging(), Upstream::obliging());
    let gateway = two_tenants(&a, &b);
    let body = chat("m");
    let mut client = gateway.client();
    client.send(format!(
        "POST http://a.test{CHAT} HTTP/1.1\r\nhost: b.test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let reply = client.reply();
    if reply.status == 200 {
        let served = (a.requests().len(), b.requests().len());
        assert_eq!(served, (1, 0), "the request line decides");
        a.last().assert_unambiguous();
        assert_eq!(a.last().path(), CHAT, "an upstream is sent a path");
        assert_ne!(
            a.last().header("x-forwarded-host").as_deref(),
            Some("b.test")
        );
    } else {
        assert_eq!(reply.status / 100, 4);
        assert!(a.requests().is_empty() && b.requests().is_empty());
    }
}

/// A tenant's hosts, models and error texts are its own.
#[test]
fn a_tenant_sees_nothing_of_another() {
    let (a, b) = (Upstream::obliging(), Upstream::obliging());
    let toml = "[[gateway]]\nname = \"a\"\nhosts = [\"a.test\"]\nauth = \"none\"\n[[gateway]]\nname = \"b\"\nhosts = [\"b.test\"]\nauth = \"none\"\n".to_owned()
        + &service("sa", "model-a", &a.url()) + "gateways = [\"a\"]\n"
        + &service("sb", "model-b", &b.url()) + "gateways = [\"b\"]\n";
    let gateway = Gateway::start(&toml);
    let ask = |host: &str, model: &str| {
        let body = chat(model);
        let request = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut client = gateway.client();
        client.send(request);
        client.reply()
    };
    assert_eq!(ask("a.test", "model-a").status, 200);
    ask("a.test", "model-b").assert_refused(404, "model_not_found");
    ask("b.test", "model-a").assert_refused(404, "model_not_found");
    let mut client = gateway.client();
    client.send("GET /v1/models HTTP/1.1\r\nhost: a.test\r\n\r\n");
    let list = client.reply().text();
    assert!(
        list.contains("model-a") && !list.contains("model-b"),
        "{list}"
    );
    assert!(b.requests().is_empty());
}

/// A header an upstream sends with a line feed in it does not become two for the client.
#[test]
fn an_upstreams_header_does_not_split() {
    for value in ["a\rset-cookie: x=1", "a\0b", "a\nset-cookie: x=1"] {
        let upstream = Upstream::replying(format!(
            "HTTP/1.1 200 OK\r\nx-thing: {value}\r\ncontent-length: 2\r\n\r\nok"
        ));
        let gateway = Gateway::start(&service("m", "m", &upstream.url()));
        let reply = gateway.client().chat("m", "");
        if reply.status == 200 {
            let thing = reply.header("x-thing").unwrap_or_default();
            assert!(
                !thing.bytes().any(|b| matches!(b, 0 | b'\r' | b'\n')),
                "{thing:?}"
            );
            // Whoever splits at a bare line feed must do so for all: then it was a header of the upstream's.
            assert!(
                reply.header("set-cookie").is_none() || value.contains('\n'),
                "{reply:?}"
            );
        } else {
            reply.assert_refused(502, "upstream_error");
        }
    }
}

/// What stands in a model's name is shown as text and splits nothing.
#[test]
fn a_model_name_is_only_a_name() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    for name in [
        r#"a\"b"#,
        r"a\r\nx-injected: 1",
        r"a\u0000b",
        r"\ud83d\ude00",
        "a</script>",
        &"x".repeat(200),
    ] {
        let reply = gateway.client().chat(name, "");
        reply.assert_refused(404, "model_not_found");
        assert!(reply.header("x-injected").is_none());
    }
    let labels = gateway.metrics().values("service");
    assert!(
        labels.iter().all(|label| label.is_empty() || label == "m"),
        "{labels:?}"
    );
}

/// Label values come from the configuration: a client cannot make up new series.
#[test]
fn clients_do_not_make_metrics() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    let count = |gateway: &Gateway| gateway.metrics().families().len();
    let mut client = gateway.client();
    client.chat("m", "").assert_ok();
    client.chat("made-up-0", "");
    client.get("/made-up", "");
    // An exchange is counted when it is over, a moment after its answer.
    gateway.wait_for("tollgate_requests_total", &[], |n| n == 3.0);
    let before = count(&gateway);
    for n in 1..20 {
        client.chat(&format!("made-up-{n}"), "");
        client.get(&format!("/made-up-{n}"), "");
        client.send(post(
            &format!("/v1/x{n}"),
            &format!("x-request-id: id-{n}\r\n"),
            chat("m"),
        ));
        client.reply();
    }
    gateway.wait_for("tollgate_requests_total", &[], |n| n == 3.0 + 3.0 * 19.0);
    assert_eq!(count(&gateway), before);
    assert!(!gateway.admin("/metrics").text().contains("made-up"));
}

/// Paths with dots do not leave the prefix they were routed by.
#[test]
fn dots_do_not_climb() {
    let upstream = Upstream::obliging();
    let toml = format!(
        "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/open\"\ntargets = [\"{}/inside\"]\n",
        upstream.url()
    );
    let gateway = Gateway::start(&toml);
    for path in [
        "/open/../secret",
        "/open/%2e%2e/secret",
        "/open/%2E./secret",
        "/open/x/../../secret",
        "/open/..",
        "/../open/x",
    ] {
        let mut client = gateway.client();
        client.patience(Duration::from_secs(2));
        client.send(get(path, ""));
        let _ = client.try_reply();
        for request in upstream.requests() {
            let sent = request.path().to_lowercase().replace("%2e", ".");
            assert!(
                !sent.split('/').any(|segment| segment == ".."),
                "{path} became {sent}"
            );
            assert!(sent.starts_with("/inside"), "{path} became {sent}");
        }
    }
    let mut client = gateway.client();
    client.get("/open/a..b/x", "").assert_ok();
    assert_eq!(upstream.last().path(), "/inside/a..b/x");
}

/// A request id is a client's, and goes into logs and headers: only sane ones are kept.
#[test]
fn a_request_id_is_kept_only_if_sane() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    let long = "x".repeat(129);
    for (id, kept) in [
        ("abc-123_X.y:z", true),
        (&"x".repeat(128), true),
        (&long, false),
        ("with space", false),
        ("<script>", false),
        ("quote\"", false),
        ("\u{e9}", false),
        ("", false),
    ] {
        let reply = gateway
            .client()
            .chat("m", &format!("x-request-id: {id}\r\n"));
        reply.assert_ok();
        let answered = reply.header("x-request-id").unwrap().to_owned();
        assert_eq!(answered == id, kept, "{id}: {answered}");
        assert_eq!(upstream.last().header("x-request-id"), Some(answered));
    }
}
