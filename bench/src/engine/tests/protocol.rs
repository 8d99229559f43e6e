//! Framing, connections, HTTP/2, TLS, and the death of an engine.

use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream as AsyncStream;

use super::*;
use crate::engine::TlsIdentity;

#[test]
fn pipelined_requests_are_answered_in_order() {
    let engine = plain();
    let mut client = Client::new(&engine);
    let bodies: Vec<String> = (0..5).map(|k| chat(&k.to_string())).collect();
    // Fast, slow, fast, refused, fast: all in one write.
    let faults = ["", "x-sim: delay=20ms\r\n", "", "x-sim: status=418\r\n", ""];
    let text: String = bodies
        .iter()
        .zip(faults)
        .map(|(body, fields)| {
            let length = body.len();
            format!(
                "POST {CHAT} HTTP/1.1\r\nhost: s\r\n{fields}content-length: {length}\r\n\r\n{body}"
            )
        })
        .collect();
    client.send(&text);
    let replies: Vec<Reply> = (0..5).map(|_| client.reply().unwrap()).collect();
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [200, 200, 200, 418, 200]);
    for k in [0, 1, 2, 4] {
        let alone = Client::new(&engine).post(CHAT, "", &bodies[k]).json();
        assert_eq!(replies[k].json()["id"], alone["id"]);
    }
}

#[test]
fn a_request_in_single_bytes_is_understood() {
    let engine = plain();
    let mut client = Client::new(&engine);
    let body = chat("slow");
    let text = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: s\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for byte in text.as_bytes() {
        client.stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(client.reply().unwrap().status, 200);
}

#[test]
fn a_chunked_body_is_read() {
    let engine = plain();
    let mut client = Client::new(&engine);
    let body = chat("chunked");
    let (a, b) = body.split_at(10);
    client.send(&format!(
        "POST {CHAT} HTTP/1.1\r\nhost: s\r\ntransfer-encoding: chunked\r\n\r\na\r\n{a}\r\n{:x};e=1\r\n{b}\r\n0\r\n\r\n",
        b.len()
    ));
    let reply = client.reply().unwrap();
    assert_eq!(
        reply.json()["id"],
        client.post(CHAT, "", &body).json()["id"]
    );
    client.send(&format!(
        "POST {CHAT} HTTP/1.1\r\nhost: s\r\ntransfer-encoding: chunked\r\n\r\nno\r\n"
    ));
    let reply = client.reply().unwrap();
    assert_eq!(
        (reply.status, reply.header("connection")),
        (400, Some("close"))
    );
}

#[test]
fn expect_is_answered_before_the_body() {
    let engine = plain();
    let mut client = Client::new(&engine);
    let body = chat("please");
    client.send(&format!(
        "POST {CHAT} HTTP/1.1\r\nhost: s\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ));
    assert_eq!(client.head().unwrap().status, 100);
    client.send(&body);
    assert_eq!(client.reply().unwrap().status, 200);
}

#[test]
fn connections_close_when_asked_and_old_ones_always() {
    let engine = plain();
    let mut client = Client::new(&engine);
    let reply = client.post(CHAT, "connection: close", &chat("x"));
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(
        client.fill().unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
    let mut client = Client::new(&engine);
    let body = streamed(2);
    client.send(&format!(
        "POST {CHAT} HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.head().unwrap().header("transfer-encoding"), None);
    while client.fill().is_ok() {}
    assert!(client.ahead.ends_with(b"data: [DONE]\n\n"));
}

#[test]
fn head_requests_get_no_body() {
    let engine = plain();
    let mut client = Client::new(&engine);
    client.send("HEAD /v1/models HTTP/1.1\r\nhost: s\r\n\r\n");
    let head = client.head().unwrap();
    assert!(
        head.header("content-length")
            .is_some_and(|length| length != "0")
    );
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn nonsense_is_refused() {
    let engine = plain();
    for (text, status) in [
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\n\r\n", 505),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
        ),
    ] {
        let mut client = Client::new(&engine);
        client.send(text);
        let reply = client.reply().unwrap();
        assert_eq!(
            (reply.status, reply.header("connection")),
            (status, Some("close")),
            "{text}"
        );
    }
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let engine = engine(|config| config.max_body = 1000);
    let reply = Client::new(&engine).post(CHAT, "", &chat(&"x".repeat(2000)));
    assert_eq!(
        (reply.status, reply.header("connection")),
        (413, Some("close"))
    );
}

#[test]
fn a_name_is_sent_with_every_reply() {
    let engine = engine(|config| config.name = Some("east".into()));
    let mut client = Client::new(&engine);
    assert_eq!(
        client.post(CHAT, "", &chat("x")).header("x-sim-engine"),
        Some("east")
    );
    assert_eq!(client.get("/health").header("x-sim-engine"), Some("east"));
}

#[test]
fn connections_are_dealt_to_all_threads() {
    let engine = engine(|config| config.threads = 3);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::new(&engine)).collect();
    for client in &mut clients {
        assert_eq!(client.post(CHAT, "", &chat("x")).status, 200);
    }
    assert_eq!(engine.state().finished, 6);
    let each = engine
        .shared
        .counters
        .iter()
        .map(|c| c.finished.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(each.collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn a_stopped_engine_is_dead_and_its_port_free() {
    let engine = plain();
    let address = engine.address();
    let mut client = Client::new(&engine);
    client.send_post(CHAT, "x-sim: stall-after=1", &streamed(5));
    client.head().unwrap();
    let mut idle = Client::new(&engine);
    assert_eq!(idle.get("/health").status, 200);
    engine.stop();
    while client.fill().is_ok() {}
    assert!(!client.ahead.ends_with(b"0\r\n\r\n"));
    assert!(idle.fill().is_err());
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(engine.state().running, 0);
    let again = super::engine(|config| config.address = address);
    assert_eq!(Client::new(&again).get("/health").status, 200);
    assert!(
        Engine::start(EngineConfig {
            address,
            ..EngineConfig::default()
        })
        .is_err()
    );
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// One chat request over HTTP/2: status, body, and whether the stream ended well.
async fn ask(
    sender: &mut h2::client::SendRequest<Bytes>,
    faults: &str,
    body: String,
) -> Result<(u16, Vec<u8>), h2::Error> {
    let request = http::Request::post("http://sim/v1/chat/completions").header("x-sim", faults);
    let (response, mut send) = sender.send_request(request.body(()).unwrap(), false)?;
    send.send_data(body.into(), true)?;
    let response = response.await?;
    let status = response.status().as_u16();
    let (mut stream, mut all) = (response.into_body(), Vec::new());
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        all.extend_from_slice(&piece);
    }
    Ok((status, all))
}

#[test]
fn http2_by_prior_knowledge() {
    let engine = plain();
    block_on(async {
        let socket = AsyncStream::connect(engine.address()).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let (status, body) = ask(&mut sender, "", chat("x")).await.unwrap();
        let alone = Client::new(&engine).post(CHAT, "", &chat("x"));
        assert_eq!((status, body), (200, alone.body));
        let (_, body) = ask(&mut sender, "tokens=3", streamed(9)).await.unwrap();
        assert!(body.ends_with(b"data: [DONE]\n\n"));
        // More than the windows hold.
        let (_, body) = ask(&mut sender, "chunk=100000, tokens=30", streamed(99))
            .await
            .unwrap();
        assert!(body.len() > 3_000_000);
        let (status, _) = ask(&mut sender, "status=503", chat("x")).await.unwrap();
        assert_eq!(status, 503);
        let (status, _) = ask(&mut sender, "early=413", chat("x")).await.unwrap();
        assert_eq!(status, 413);
        let cut = ask(&mut sender, "close-after=2", streamed(9))
            .await
            .unwrap_err();
        assert_eq!(cut.reason(), Some(h2::Reason::INTERNAL_ERROR));
        let cut = ask(&mut sender, "garbage-after=2", streamed(9))
            .await
            .unwrap_err();
        assert_eq!(cut.reason(), Some(h2::Reason::PROTOCOL_ERROR));
        // The connection outlived all of that, and now goes.
        assert!(
            ask(&mut sender, "reset-after=2", streamed(9))
                .await
                .is_err()
        );
        assert!(ask(&mut sender, "", chat("x")).await.is_err());
    });
}

#[test]
fn a_reset_http2_stream_frees_its_slot() {
    let engine = plain();
    block_on(async {
        let socket = AsyncStream::connect(engine.address()).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let open = |faults: &str| {
            let request = http::Request::post("http://sim/v1/chat/completions");
            request.header("x-sim", faults).body(()).unwrap()
        };
        for (k, body) in [chat("x"), streamed(5)].into_iter().enumerate() {
            let (response, mut send) = sender.send_request(open("ttft=30s"), false).unwrap();
            send.send_data(body.into(), true).unwrap();
            let start = Instant::now();
            while engine.state().running == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(start.elapsed() < Duration::from_secs(2));
            }
            let start = Instant::now();
            send.send_reset(h2::Reason::CANCEL);
            drop(response);
            while engine.state().running != 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(start.elapsed() < Duration::from_millis(100));
            }
            assert_eq!(engine.state().aborted, k as u64 + 1);
        }
    });
}

#[test]
fn tls_serves_both_protocols() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let identity = TlsIdentity {
        certificate: made.cert.pem().into_bytes(),
        key: made.signing_key.serialize_pem().into_bytes(),
    };
    let engine = engine(|config| config.tls = Some(identity));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client_config = |alpn: &[&[u8]]| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    };
    let name = || rustls::pki_types::ServerName::try_from("localhost").unwrap();

    let session = rustls::ClientConnection::new(client_config(&[b"http/1.1"]), name()).unwrap();
    let socket = TcpStream::connect(engine.address()).unwrap();
    let mut client = Client::over(rustls::StreamOwned::new(session, socket));
    assert_eq!(client.post(CHAT, "", &chat("x")).status, 200);
    assert!(
        client
            .post(CHAT, "", &streamed(3))
            .body
            .ends_with(b"data: [DONE]\n\n")
    );

    block_on(async {
        let socket = AsyncStream::connect(engine.address()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(client_config(&[b"h2"]));
        let stream = connector.connect(name(), socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(ask(&mut sender, "", chat("x")).await.unwrap().0, 200);
    });
}

#[test]
fn a_bad_certificate_is_an_error() {
    let tls = Some(TlsIdentity {
        certificate: b"x".to_vec(),
        key: b"y".to_vec(),
    });
    assert!(
        Engine::start(EngineConfig {
            tls,
            ..EngineConfig::default()
        })
        .is_err()
    );
}
