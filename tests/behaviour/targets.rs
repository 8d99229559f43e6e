//! Targets behind TLS and behind a Unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use tollgate_bench::engine::{Engine, TlsIdentity};

use crate::harness::{CHAT, Gateway, chunked, engine_with, padded, post};
use crate::resilience::assert_discreet;

/// An engine whose certificate nobody has signed.
fn tls_engine() -> Engine {
    let made = rcgen::generate_simple_self_signed(vec!["engine.test".to_owned()]).unwrap();
    engine_with(|config| {
        config.tls = Some(TlsIdentity {
            certificate: made.cert.pem().into_bytes(),
            key: made.signing_key.serialize_pem().into_bytes(),
        });
    })
}

fn gateway(engine: &Engine, fields: &str) -> Gateway {
    Gateway::start(&format!(
        "[[service]]\nname = \"m\"\nmodels = [\"m\"]\nupstream = \"pool\"\n[[upstream]]\nname = \"pool\"\ntargets = [\"{}\"]\n{fields}\n",
        engine.url()
    ))
}

#[test]
fn tls_is_spoken_to_https_targets() {
    let engine = tls_engine();
    for (http2, protocol) in [(false, "HTTP/1.1"), (true, "HTTP/2")] {
        let fields = format!("http2 = {http2}\ntls = {{ verify = false }}");
        let gateway = gateway(&engine, &fields);
        let body = padded("m", 200_000);
        for request in [
            post(CHAT, "x-sim: echo\r\n", &body),
            chunked(CHAT, "x-sim: echo\r\n", &body, 10_000),
        ] {
            let mut client = gateway.client();
            client.send(request);
            let reply = client.reply();
            reply.assert_ok();
            let seen = reply.json();
            assert_eq!(seen["protocol"], protocol);
            assert_eq!(seen["sha256"], crate::harness::sha256(&body));
        }
        gateway.assert_gauges_zero();
    }
}

/// A certificate that proves nothing is refused unless the configuration says otherwise.
#[test]
fn a_certificate_must_be_valid() {
    let engine = tls_engine();
    for fields in [
        "",
        "tls = { verify = true }",
        "tls = { server_name = \"engine.test\" }",
    ] {
        let gateway = gateway(&engine, fields);
        let reply = gateway.client().chat("m", "");
        reply.assert_refused(502, "upstream_error");
        assert_discreet(&reply, &["certificate", "issuer", "engine.test"]);
        gateway.assert_gauges_zero();
    }
    assert_eq!(engine.state().started, 0);
}

#[test]
fn a_unix_socket_is_a_target() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut seen = Vec::new();
            let mut piece = [0; 4096];
            while !seen.ends_with(b"]}") {
                match stream.read(&mut piece) {
                    Ok(n) if n > 0 => seen.extend_from_slice(&piece[..n]),
                    _ => return,
                }
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let toml = format!(
        "[[service]]\nname = \"m\"\nmodels = [\"m\"]\ntargets = [\"unix:{}\"]\n",
        path.display()
    );
    let gateway = Gateway::start(&toml);
    let reply = gateway.client().chat("m", "");
    reply.assert_ok();
    assert_eq!(reply.text(), "ok");
    gateway.assert_gauges_zero();
}
