//! Orders while things go wrong: hosts that cannot be seen, authorities that are gone, restarts, handovers; what is there goes on being shown.

use std::time::{Duration, Instant};

use super::tls::Load;
use super::upgrade::{gone, upgrade};
use crate::behaviour::acme::{condition, handshake, order, wanting};
use crate::behaviour::tls::ask;
use crate::harness::{
    Authority, Client, Gateway, Pebble, Process, Setup, TlsUpstream, Upstream, service, until,
};

/// The certificate that is shown now.
fn shown(pebble: &Pebble, name: &str) -> Option<Vec<u8>> {
    let config = pebble.trusted().config();
    let client = Client::try_secure(pebble.tls(), name, config).ok()?;
    Some(client.tls().peer_certificates()?.first()?.to_vec())
}

/// `KEY` in a configuration is what seals.
const SEALED: &str = "encryption_key = \"an-encryption-key-of-a-test-0123456789\"";

/// The criterion: renewed under load without a failed handshake.
#[test]
fn certificates_are_renewed_under_load() {
    let upstream = Upstream::obliging();
    let life = 18;
    let pebble = Pebble::start(Setup {
        life,
        ..Setup::new()
    });
    let gateway = Gateway::start(&format!(
        "{}{}{}{}",
        pebble.listeners(),
        pebble.table("backoff = \"200ms\""),
        wanting("n", &["n.example"]),
        service("m", "m", &upstream.url())
    ));
    handshake(&pebble, "n.example");
    let first = shown(&pebble, "n.example").unwrap();
    let load = Load::start(pebble.tls(), "n.example", &pebble.trusted());
    let start = Instant::now();
    let mut known = vec![first];
    while known.len() < 2 {
        load.more(5);
        let now = shown(&pebble, "n.example").unwrap();
        if known.last() != Some(&now) {
            known.push(now);
        }
        assert!(
            start.elapsed() < Duration::from_secs(3 * life),
            "it is not renewed"
        );
    }
    load.more(20);
    load.end();
    let orders = |result| {
        let metrics = gateway.metrics();
        metrics.sum("tollgate_acme_orders_total", &[("result", result)])
    };
    until("the orders to be counted", || {
        (orders("ok") >= 2.0).then_some(())
    });
}

#[test]
fn a_host_that_cannot_be_seen_is_tried_again() {
    let upstream = Upstream::obliging();
    let pebble = Pebble::start(Setup::new());
    let toml = |listener: &str| {
        format!(
            "[[listener]]\naddress = \"{listener}\"\n[[listener]]\naddress = \"{}\"\ntls = \"auto\"\n{}{}{}",
            pebble.tls(),
            pebble.table("backoff = \"300ms\""),
            wanting("n", &["n.example"]),
            service("m", "m", &upstream.url())
        )
    };
    // The authority asks elsewhere.
    let gateway = Gateway::start(&toml("$LISTENER"));
    let mut watch = gateway.watch();
    let failures = |gateway: &Gateway| {
        let metrics = gateway.metrics();
        metrics.sum("tollgate_acme_orders_total", &[("result", "failed")])
    };
    until("two failures", || (failures(&gateway) >= 2.0).then_some(()));
    let event = watch.wait_for("certificate", |data| data["result"] == "failed");
    let message = event.data["message"].as_str().unwrap();
    assert!(
        message.contains("n.example: the authority refused"),
        "{message}"
    );
    assert!(message.contains("tried again at"), "{message}");
    let failed = until("the condition", || {
        let condition = condition(&gateway, "n");
        (condition["reason"] == "OrderFailed").then_some(condition)
    });
    assert_eq!(failed["status"], "False");
    let mut client = Client::connect(gateway.address());
    assert_eq!(ask(&mut client, "n.example"), 200);
    // Something forwards to us what the authority asks.
    forward(pebble.plain(), gateway.address());
    handshake(&pebble, "n.example");
    until("the order to be over", || {
        (order(&gateway, "n")["state"] == "issued").then_some(())
    });
    assert_eq!(order(&gateway, "n")["reason"], serde_json::Value::Null);
}

/// Forwards connections, until the process ends.
fn forward(from: std::net::SocketAddr, to: std::net::SocketAddr) {
    let listener = std::net::TcpListener::bind(from).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = std::net::TcpStream::connect(to) else {
                continue;
            };
            let (mut a, mut b) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let (mut client, mut server) = (client, server);
            std::thread::spawn(move || std::io::copy(&mut a, &mut server));
            std::thread::spawn(move || std::io::copy(&mut b, &mut client));
        }
    });
}

#[test]
fn a_restart_shows_what_is_kept_without_the_authority() {
    let upstream = Upstream::obliging();
    let mut pebble = Pebble::start(Setup::exact());
    let mut process = Process::start(&format!(
        "[server]\nstate = \"./tollgate.db\"\n{}{}{}{}",
        pebble.listeners(),
        pebble.table(SEALED),
        wanting("n", &["n.example"]),
        service("m", "m", &upstream.url())
    ));
    handshake(&pebble, "n.example");
    until("the certificate to be kept", || {
        kept(&process).contains("acme_certificate").then_some(())
    });
    let (manner, before) = (pebble.trusted(), shown(&pebble, "n.example"));
    process.signal("KILL");
    process.end();
    pebble.stop();
    process.restart();
    // With the first handshake.
    let mut client = Client::secure(pebble.tls(), "n.example", &manner);
    let after = client.tls().peer_certificates().unwrap()[0].to_vec();
    assert_eq!(before, Some(after));
    assert_eq!(ask(&mut client, "n.example"), 200);
    assert_eq!(pebble.orders(), 1);
}

/// Everything in the store's files, as it lies on the disk.
fn kept(process: &Process) -> String {
    let files = ["tollgate.db", "tollgate.db-wal"];
    let bytes = files.map(|name| std::fs::read(process.path(name)).unwrap_or_default());
    String::from_utf8_lossy(&bytes.concat()).into_owned()
}

#[test]
fn what_is_kept_is_sealed_and_the_wrong_key_loses_nothing() {
    let upstream = Upstream::obliging();
    let pebble = Pebble::start(Setup::exact());
    let mut process = Process::start(&format!(
        "[server]\nstate = \"./tollgate.db\"\n{}{}{}{}",
        pebble.listeners(),
        pebble.table(SEALED),
        wanting("n", &["n.example"]),
        service("m", "m", &upstream.url())
    ));
    handshake(&pebble, "n.example");
    until("the certificate to be kept", || {
        kept(&process).contains("acme_certificate").then_some(())
    });
    let (text, before) = (kept(&process), shown(&pebble, "n.example"));
    assert!(text.contains("acme_account"));
    for clear in ["PRIVATE", "BEGIN CERTIFICATE", "key_pkcs8"] {
        assert!(!text.contains(clear), "{clear} is in the file");
    }
    let file = process.path("tollgate.toml");
    let ours = std::fs::read_to_string(&file).unwrap();
    let theirs = ours.replace("0123456789", "9876543210");
    assert_ne!(ours, theirs);
    std::fs::write(&file, theirs).unwrap();
    process.signal("KILL");
    process.end();
    process.restart();
    let blocked = until("the word on it", || {
        let status = process.api().get("/v1/status").json();
        let order = status["certificates"][0]["order"].clone();
        (order["state"] == "blocked").then_some(order)
    });
    let reason = blocked["reason"].as_str().unwrap();
    assert!(reason.contains("another acme.encryption_key"), "{reason}");
    assert!(
        process
            .read("stderr")
            .contains("another acme.encryption_key")
    );
    assert_eq!(shown(&pebble, "n.example"), None);
    let mut client = Client::connect(pebble.plain());
    assert_eq!(ask(&mut client, "n.example"), 200);
    // The right one again, by a reload.
    std::fs::write(&file, ours).unwrap();
    handshake(&pebble, "n.example");
    assert_eq!(shown(&pebble, "n.example"), before);
    assert_eq!(pebble.orders(), 1);
}

#[test]
fn who_takes_over_shows_what_is_kept_and_orders() {
    let upstream = Upstream::obliging();
    let pebble = Pebble::start(Setup::exact());
    let process = Process::start_own(
        &format!(
            "[server]\nstate = \"./tollgate.db\"\n{}{}{}{}",
            pebble.listeners(),
            pebble.table(SEALED),
            wanting("n", &["n.example"]),
            service("m", "m", &upstream.url())
        ),
        &[],
    );
    handshake(&pebble, "n.example");
    until("the certificate to be kept", || {
        kept(&process).contains("acme_certificate").then_some(())
    });
    let load = Load::start(pebble.tls(), "n.example", &pebble.trusted());
    load.more(5);
    let (old, _) = upgrade(&process);
    load.more(5);
    load.end();
    gone(old);
    let body = serde_json::json!({
        "name": "later", "hosts": ["later.example"], "auth": "none", "certificate": "acme",
    });
    let made = until("changes to be taken", || {
        let reply = process.api().ask("PUT", "/v1/gateways/later", &body);
        (reply.status != 503).then_some(reply)
    });
    assert_eq!(made.status, 201, "{}", made.text());
    handshake(&pebble, "later.example");
    assert_eq!(pebble.orders(), 2);
}

#[test]
fn an_authority_that_is_gone_is_told_of_and_comes_back() {
    let upstream = Upstream::obliging();
    let mut pebble = Pebble::start(Setup::new());
    pebble.stop();
    let gateway = Gateway::start(&format!(
        "{}{}{}{}",
        pebble.listeners(),
        pebble.table("backoff = \"300ms\""),
        wanting("n", &["n.example"]),
        service("m", "m", &upstream.url())
    ));
    let failed = until("the failure", || {
        let order = order(&gateway, "n");
        (order["state"] == "failed").then_some(order)
    });
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("it could not be reached"), "{reason}");
    let mut client = Client::connect(pebble.plain());
    assert_eq!(ask(&mut client, "n.example"), 200);
    pebble.start_again();
    handshake(&pebble, "n.example");
    // It forgets its accounts when it starts again: another is made.
    pebble.stop();
    pebble.start_again();
    let patch = serde_json::json!({
        "name": "later", "hosts": ["later.example"], "auth": "none", "certificate": "acme",
    });
    let made = gateway.api().ask("PUT", "/v1/gateways/later", &patch);
    assert_eq!(made.status, 201, "{}", made.text());
    handshake(&pebble, "later.example");
}

/// What is no directory, and what asks for patience: both are told of, and the second is left alone for as long as it says.
#[test]
fn an_authority_that_answers_something_else_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("theirs");
    let own = authority.issue(&["127.0.0.1"]);
    let ca = authority.write(folder.path(), "directory.pem");
    let garbage: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n<html";
    let busy: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7200\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for (answer, why, wait) in [
        (garbage, "does not answer as ACME's do", 0),
        (busy, "answered 429", 7_000),
    ] {
        let upstream = Upstream::obliging();
        let directory = TlsUpstream::answering(&own, None, answer);
        let gateway = Gateway::start(&format!(
            "[acme]\ndirectory = \"{}\"\nca = \"{}\"\nterms_agreed = true\nbackoff = \"1s\"\n{}{}",
            directory.url("127.0.0.1"),
            ca.display(),
            wanting("n", &["n.example"]),
            service("m", "m", &upstream.url())
        ));
        let failed = until("the failure", || {
            let order = order(&gateway, "n");
            (order["state"] == "failed").then_some(order)
        });
        let reason = failed["reason"].as_str().unwrap();
        assert!(reason.contains(why), "{reason}");
        let next: jiff::Timestamp = failed["next_at"].as_str().unwrap().parse().unwrap();
        let left = next.as_second() - jiff::Timestamp::now().as_second();
        assert!((wait - 10..wait + 300).contains(&left), "{left}");
        let mut client = gateway.client();
        assert_eq!(ask(&mut client, "n.example"), 200);
    }
}
