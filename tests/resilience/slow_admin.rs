//! Clients of the admin listener that are slow, silent or too many: it is served all the same.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, Gateway, closed_address, service};

/// More than any of the listener's patience.
const LONG: Duration = Duration::from_secs(25);
/// The preface of HTTP/2, and empty settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn start() -> Gateway {
    Gateway::start(&service("a", "a", &format!("http://{}", closed_address())))
}

/// All places are taken by connections that say nothing or stop in the middle of a head: they are let go, and others are served.
#[test]
fn the_silent_do_not_hold_it() {
    let gateway = start();
    let silent: Vec<Client> = (0..300)
        .map(|n| {
            let mut client = gateway.admin_client();
            match n % 3 {
                0 => client.send("GET /v1/status HTTP/1.1\r\nhost: te"),
                1 => client.send(HTTP2),
                _ => {}
            }
            client
        })
        .collect();
    let mut client = gateway.admin_client();
    client.patience(LONG);
    assert_eq!(client.get("/v1/status", "").status, 200);
    drop(silent);
}

#[test]
fn a_body_has_a_time_and_a_watcher_has_none() {
    let gateway = start();
    let mut watch = gateway.watch();
    watch.patience(LONG);
    let mut slow = gateway.admin_client();
    slow.patience(LONG);
    slow.send(
        "POST /v1/keys HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n{\"name\": \"slow\"",
    );
    let reply = slow.reply();
    assert_eq!(reply.status, 408, "{}", reply.text());
    assert_eq!(reply.json()["error"]["code"], "request_timeout");
    slow.assert_closed();
    assert_eq!(gateway.api().get("/v1/keys/slow").status, 404);
    // Whoever watches has been silent for longer than that.
    gateway
        .api()
        .create(&json!({"name": "k", "gateway": "main"}));
    let told = watch.wait_for("change", |_| true);
    assert_eq!(told.data["changes"][0]["name"], "k");
    // And hears now and then that the stream is alive.
    watch.comment();
}

#[test]
fn bodies_have_a_size_however_they_are_framed() {
    let gateway = start();
    let mut client = gateway.admin_client();
    // Refused by its length, before any of it is sent.
    client.send("POST /v1/keys HTTP/1.1\r\nhost: test\r\ncontent-length: 99999999999\r\n\r\n");
    let reply = client.reply();
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (413, &json!("request_too_large"))
    );
    let body = vec![b' '; 3 << 20];
    let request = crate::harness::chunked("/v1/keys", "", &body, 65_536);
    let mut client = gateway.admin_client();
    let sending = client.send_aside(request);
    assert_eq!(client.reply().status, 413);
    drop(client);
    let _ = sending.join().unwrap();
    assert_eq!(gateway.admin("/healthz").status, 200);
}
