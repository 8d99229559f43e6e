//! Clients that do not read: they hold back their own upstream, and nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{CHAT, Gateway, Upstream, chat, padded, post, service};

const ALL: usize = 64 << 20;

/// An upstream that sends a long stream and counts what it got rid of.
fn flood() -> (Upstream, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let event = format!("data: {{\"x\":\"{}\"}}\n\n", "y".repeat(60_000));
    let upstream = Upstream::start(move |connection| {
        let Some(request) = connection.request() else {
            return;
        };
        if request.header("x-small").is_some() {
            connection.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            return;
        }
        connection.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        while count.load(Ordering::SeqCst) < ALL {
            connection.send_chunk(&event);
            count.fetch_add(event.len(), Ordering::SeqCst);
        }
    });
    (upstream, sent)
}

/// Waits until nothing more is taken from the upstream; how much was.
fn taken(sent: &AtomicUsize) -> usize {
    let mut last = usize::MAX;
    loop {
        let now = sent.load(Ordering::SeqCst);
        if now == last {
            return now;
        }
        last = now;
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn an_http1_client_that_does_not_read_holds_its_upstream_back() {
    let (upstream, sent) = flood();
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    let mut client = gateway.client();
    client.send(post(CHAT, "", chat("m")));
    client.head().unwrap();
    let buffered = taken(&sent);
    // Socket buffers hold some megabytes; the rest must not pile up in the gateway.
    assert!(
        buffered < ALL / 2,
        "{buffered} bytes were taken for a client that reads nothing"
    );
    gateway.client().chat("m", "x-small: 1\r\n").assert_ok();
    drop(client);
    gateway.assert_gauges_zero();
}

#[test]
fn an_http2_client_that_does_not_read_holds_its_upstream_back() {
    let (upstream, sent) = flood();
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    let client = gateway.h2();
    let mut stream = client.open("POST", CHAT, &[], false);
    stream.send(padded("m", 100_000), true).unwrap();
    stream.head().unwrap();
    let buffered = taken(&sent);
    assert!(
        buffered < ALL / 2,
        "{buffered} bytes were taken for a client that reads nothing"
    );
    // Another stream of the same connection is served meanwhile.
    let reply = client
        .post(CHAT, &[("x-small", "1")], chat("m"), true)
        .unwrap();
    reply.assert_ok();
    stream.cancel();
    gateway.assert_gauges_zero();
}
