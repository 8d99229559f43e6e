//! Upstreams that fail before their answer began: the client learns that, and nothing else.

use std::time::Duration;

use super::assert_discreet;
use crate::harness::{
    CHAT, Gateway, Upstream, chat, chunked, closed_address, engine, h2c, noise, padded, post,
    service,
};

/// Asks for the model in every way there is and wants the same refusal each time.
fn refused_everywhere(gateway: &Gateway, model: &str, status: u16, code: &str, secret: &str) {
    let check = |reply: &crate::harness::Reply| {
        reply.assert_refused(status, code);
        assert_discreet(reply, &[secret]);
    };
    check(&gateway.client().chat(model, ""));
    check(&gateway.client().post(CHAT, padded(model, 100_000)));
    // No tail of this one fits Pingora's buffer: it goes over our own connector.
    let mut client = gateway.client();
    client.send(chunked(CHAT, "", &padded(model, 100_000), 10_000));
    check(&client.reply());
    check(&gateway.h2().post(CHAT, &[], chat(model), true).unwrap());
    check(
        &gateway
            .h2()
            .post(CHAT, &[], padded(model, 100_000), false)
            .unwrap(),
    );
    gateway.assert_gauges_zero();
    let labels = [("gateway", "main"), ("code", code)];
    gateway.wait_for("tollgate_rejections_total", &labels, |n| n == 5.0);
    assert_eq!(
        gateway
            .metrics()
            .sum("tollgate_client_disconnects_total", &[]),
        0.0
    );
}

#[test]
fn a_refused_connection_gets_502() {
    for scheme in ["http", "h2c"] {
        let address = closed_address();
        let gateway = Gateway::start(&service("m", "m", &format!("{scheme}://{address}")));
        refused_everywhere(
            &gateway,
            "m",
            502,
            "upstream_error",
            &address.port().to_string(),
        );
    }
}

/// Answers that are none. None of them may reach the client, whole or in part.
#[test]
fn an_upstream_that_talks_nonsense_gets_502() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(2 << 20));
    let nonsense: [(&str, &str); 10] = [
        ("nothing", ""),
        ("half a head", "HTTP/1.1 200 OK\r\ncontent-le"),
        ("no HTTP", "upstream-secret garbage\r\n\r\n"),
        ("no status", "HTTP/1.1 abc OK\r\ncontent-length: 0\r\n\r\n"),
        (
            "a space in a name",
            "HTTP/1.1 200 OK\r\nupstream secret: 1\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        ),
        (
            "a length that is none",
            "HTTP/1.1 200 OK\r\ncontent-length: ten\r\n\r\nab",
        ),
        (
            "a negative length",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nab",
        ),
        ("a status of HTTP/2", "\0\0\x12\x04\0\0\0\0\0"),
        ("an endless head", &long),
    ];
    for (what, answer) in nonsense {
        let upstream = Upstream::closing(answer);
        let gateway = Gateway::start(&service("m", "m", &upstream.url()));
        let reply = gateway.client().chat("m", "");
        assert_eq!(reply.status, 502, "{what}: {}", reply.text());
        reply.assert_refused(502, "upstream_error");
        assert_discreet(&reply, &[&upstream.address().port().to_string()]);
        gateway.assert_gauges_zero();
    }
}

#[test]
fn an_upstream_that_closes_before_its_head_gets_502() {
    let upstream = Upstream::closing("");
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    refused_everywhere(&gateway, "m", 502, "upstream_error", "\0");
}

#[test]
fn an_upstream_that_resets_gets_502() {
    let upstream = Upstream::start(|connection| {
        if connection.request().is_some() {
            connection.reset();
        }
    });
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    refused_everywhere(&gateway, "m", 502, "upstream_error", "\0");
}

/// An HTTP/1.1 server behind an `h2c` URL.
#[test]
fn an_upstream_of_another_protocol_gets_502() {
    let upstream = Upstream::closing("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    let gateway = Gateway::start(&service("m", "m", &format!("h2c://{}", upstream.address())));
    let reply = gateway.client().chat("m", "");
    reply.assert_refused(502, "upstream_error");
    assert_discreet(&reply, &[]);
    gateway.assert_gauges_zero();
}

/// An upstream's own errors are its answer: status, headers and body pass.
#[test]
fn an_upstreams_own_error_passes() {
    let engine = engine();
    let gateway = Gateway::start(&(service("m", "m", &engine.url()) + "retry = \"off\"\n"));
    for status in [400, 401, 404, 422, 429, 500, 503] {
        let fields = format!("x-sim: status={status}, retry-after=7, body=theirs\r\n");
        let reply = gateway.client().chat("m", &fields);
        assert_eq!((reply.status, reply.text()), (status, "theirs".to_owned()));
        assert_eq!(reply.header("retry-after"), Some("7"));
        assert_eq!(reply.header("x-tollgate-service"), Some("m"));
        assert_eq!(reply.header("x-tollgate-attempts"), Some("1"));
    }
}

/// An upstream that answers before it has read the body, and stops reading: the client gets to see that answer.
#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let engine = engine();
    let http =
        |name: &str, target: &str| format!("{}type = \"http\"\n", service(name, name, target));
    let mut toml = "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\nrouting = { by = \"header\", header = \"X-Model\" }\n".to_owned();
    toml += &service("json1", "json1", &engine.url());
    toml += &service("json2", "json2", &h2c(&engine));
    toml += &http("raw1", &engine.url());
    toml += &http("raw2", &h2c(&engine));
    let gateway = Gateway::start(&toml);
    for model in ["json1", "json2", "raw1", "raw2"] {
        for status in [413, 401] {
            let fields = format!(
                "x-model: {model}\r\nx-sim: early={status}\r\ncontent-type: application/octet-stream\r\n"
            );
            let body = noise(8 << 20);
            for request in [
                post(CHAT, &fields, &body),
                chunked(CHAT, &fields, &body, 50_000),
            ] {
                let mut client = gateway.client();
                let sending = client.send_aside(request);
                match client.try_reply() {
                    Ok(reply) => assert_eq!(reply.status, status, "{model}: {}", reply.text()),
                    Err(error) => panic!("{model}, early {status}: {error}"),
                }
                drop(client);
                let _ = sending.join();
            }
            let sim = format!("early={status}");
            let fields = [
                ("x-model", model),
                ("x-sim", sim.as_str()),
                ("content-type", "application/octet-stream"),
            ];
            let reply = gateway.h2().post(CHAT, &fields, body, false);
            match reply {
                Ok(reply) => assert_eq!(reply.status, status, "{model} h2: {}", reply.text()),
                Err(error) => panic!("{model} over h2, early {status}: {error}"),
            }
        }
    }
    gateway.assert_gauges_zero();
}

/// The upstream closes a kept connection at the moment the next request arrives on it. Nobody did anything wrong, so
/// the client must not notice.
#[test]
fn a_kept_connection_that_closes_costs_nothing() {
    for (what, length, in_chunks) in [
        ("small", 200, false),
        ("large", 300_000, false),
        ("our own road", 300_000, true),
    ] {
        let upstream = Upstream::start(|connection| {
            let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            if connection.index > 0 {
                while connection.request().is_some() {
                    connection.send(ok);
                }
                return;
            }
            connection.request();
            connection.send(ok);
            // The second request is read, and not answered.
            connection.request();
        });
        let gateway = Gateway::start(&service("m", "m", &upstream.url()));
        for _ in 0..2 {
            let mut client = gateway.client();
            let body = padded("m", length);
            client.send(match in_chunks {
                true => chunked(CHAT, "", &body, 10_000),
                false => post(CHAT, "", &body),
            });
            let reply = client.reply();
            assert_eq!(reply.status, 200, "{what}: {}", reply.text());
        }
        assert_eq!(
            upstream.connections(),
            2,
            "{what}: the first connection was not kept"
        );
        assert_eq!(
            upstream.last().body.len(),
            length,
            "{what}: sent again whole"
        );
        gateway.assert_gauges_zero();
    }
}

/// The same where the upstream had closed some time before: the pool must have noticed.
#[test]
fn a_kept_connection_that_has_closed_is_not_used() {
    let upstream = Upstream::closing("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    let mut client = gateway.client();
    for _ in 0..5 {
        let reply = client.chat("m", "");
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-attempts"), Some("1"));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(upstream.connections(), 5);
}

/// What failed on a fresh connection is not sent a second time behind the client's back.
#[test]
fn a_request_is_not_repeated_on_a_fresh_connection() {
    let upstream = Upstream::closing("");
    let gateway = Gateway::start(&(service("m", "m", &upstream.url()) + "retry = \"off\"\n"));
    assert_eq!(gateway.client().chat("m", "").status, 502);
    assert_eq!(upstream.requests().len(), 1);
}
