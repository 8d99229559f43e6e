//! Who may come in: how many connections, from where, and whose they are when a proxy in front says so.

use std::time::Duration;

use crate::harness::{
    Authority, CHAT, Gateway, Upstream, chat, closed_address, post, program_with, service, until,
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn gateway(server: &str, listener: &str, upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "[server]\n{server}\n[[listener]]\naddress = \"$LISTENER\"\n{listener}\n{}",
        service("m", "m", &upstream.url())
    ))
}

fn announced(upstream: &Upstream) -> Gateway {
    let server = "trusted_proxies = [\"127.0.0.1/32\"]\nheader_timeout = \"300ms\"";
    gateway(server, "proxy_protocol = true", upstream)
}

/// A header of version 2.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend((rest.len() as u16).to_be_bytes());
    header.extend(rest);
    header
}

fn forwarded_for(upstream: &Upstream) -> String {
    upstream.last().header("x-forwarded-for").unwrap()
}

#[test]
fn the_client_is_who_the_proxy_says() {
    let upstream = Upstream::obliging();
    let gateway = announced(&upstream);
    let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x1F, 0x90, 0, 80];
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    v6[15] = 9;
    let with_more = [&v4[..], &[4, 0, 1, 0]].concat();
    for (preamble, client) in [
        (
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n".to_vec(),
            "192.0.2.1",
        ),
        (
            b"PROXY TCP6 2001:db8::5 2001:db8::6 4711 80\r\n".to_vec(),
            "2001:db8::5",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (binary(0x21, 0x11, &v4), "192.0.2.7"),
        (binary(0x21, 0x11, &with_more), "192.0.2.7"),
        (binary(0x21, 0x21, &v6), "2001:db8::9"),
        (binary(0x20, 0, &[]), "127.0.0.1"),
    ] {
        let request = post(CHAT, "", chat("m"));
        // At once, and in the smallest pieces.
        let mut client_at_once = gateway.client();
        client_at_once.send([&preamble[..], &request].concat());
        assert_eq!(client_at_once.reply().status, 200, "{client}");
        assert_eq!(forwarded_for(&upstream), client);
        let mut slow = gateway.client();
        for byte in &preamble {
            slow.send([*byte]);
        }
        for _ in 0..2 {
            slow.send(&request);
            assert_eq!(slow.reply().status, 200, "{client}");
            assert_eq!(forwarded_for(&upstream), client);
        }
    }
    gateway.assert_gauges_zero();
}

/// What the client says of itself counts for nothing, and nobody else may say it.
#[test]
fn only_whom_we_trust_may_say_it() {
    let upstream = Upstream::obliging();
    let gateway = gateway(
        "trusted_proxies = [\"192.0.2.0/24\"]",
        "proxy_protocol = true",
        &upstream,
    );
    let mut client = gateway.client();
    client.send(b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n");
    let _ = client.try_send(&post(CHAT, "", chat("m")));
    assert!(client.rest().is_empty());
    assert!(upstream.requests().is_empty());
    until("it to be counted", || {
        let refused = [("reason", "proxy_header")];
        let count = gateway
            .metrics()
            .sum("tollgate_connections_refused_total", &refused);
        (count == 1.0).then_some(())
    });
}

#[test]
fn a_listener_that_expects_none_takes_it_for_a_request() {
    let upstream = Upstream::obliging();
    let gateway = gateway("", "", &upstream);
    let mut client = gateway.client();
    client.send(b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n");
    let _ = client.try_send(&post(CHAT, "", chat("m")));
    let answer = client.rest();
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    assert!(upstream.requests().is_empty());
}

#[test]
fn what_is_none_is_closed() {
    let upstream = Upstream::obliging();
    let gateway = announced(&upstream);
    let plain = post(CHAT, "", chat("m"));
    let udp = binary(0x21, 0x12, &[0; 12]);
    let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 300]].concat();
    for bytes in [
        &plain[..],
        &udp,
        &endless,
        b"PROXY TCP4 1.2.3.4\r\n",
        b"\x16\x03\x01\x02\x00",
    ] {
        let mut client = gateway.client();
        let _ = client.try_send(bytes);
        assert!(client.rest().is_empty(), "{bytes:?}");
    }
    // Who says nothing, or stops in the middle, is not waited for.
    for bytes in [&b""[..], b"PROXY TC", &SIGNATURE[..7]] {
        let mut client = gateway.client();
        let _ = client.try_send(bytes);
        client.patience(Duration::from_secs(5));
        client.assert_closed();
    }
    assert!(upstream.requests().is_empty());
    gateway.assert_gauges_zero();
}

/// The header comes before the handshake.
#[test]
fn before_tls_too() {
    let upstream = Upstream::obliging();
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    authority.issue(&["a.example"]).write(folder.path(), "a");
    let path = folder.path().display();
    let listener = format!(
        "proxy_protocol = true\ntls = {{ certificate = \"{path}/a.pem\", key = \"{path}/a.key\" }}"
    );
    let gateway = gateway("trusted_proxies = [\"127.0.0.1/32\"]", &listener, &upstream);
    let mut client = gateway.client();
    client.send(b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n");
    let manner = authority.trusted();
    client.shake_hands("a.example", manner.config()).unwrap();
    client.send(post(CHAT, "", chat("m")));
    assert_eq!(client.reply().status, 200);
    assert_eq!(forwarded_for(&upstream), "192.0.2.1");
}

#[test]
fn a_listener_that_believes_nobody_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let text = format!(
        "[[listener]]\naddress = \"{}\"\nproxy_protocol = true\n[[gateway]]\nname = \"g\"\nhosts = [\"*\"]\nauth = \"none\"\n",
        closed_address()
    );
    std::fs::write(&file, text).unwrap();
    let ran = program_with(&["check", "-c", "t.toml"], &[], Some(folder.path()), "");
    assert_eq!(ran.code, 1);
    let told = ran.stderr + &ran.stdout;
    assert!(
        told.contains("t.toml:3:") && told.contains("trusted_proxies"),
        "{told}"
    );
}

/// Beyond the bound a connection is answered at once and closed; when one ends, there is room again.
#[test]
fn connections_are_bounded() {
    let upstream = Upstream::obliging();
    let gateway = gateway("max_connections = 3", "", &upstream);
    let mut held: Vec<_> = (0..3).map(|_| gateway.client()).collect();
    for client in &mut held {
        assert_eq!(client.post(CHAT, chat("m")).status, 200);
    }
    let mut further = gateway.client();
    let answer = String::from_utf8(further.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("retry-after: 1") && answer.contains("overloaded"),
        "{answer}"
    );
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("tollgate_connections", &[]), 3.0);
    let refused = [("reason", "total")];
    assert_eq!(
        metrics.sum("tollgate_connections_refused_total", &refused),
        1.0
    );
    // Those that are in go on.
    assert_eq!(held[0].post(CHAT, chat("m")).status, 200);
    held.pop();
    until("a place", || {
        let mut client = gateway.client();
        client.try_send(&post(CHAT, "", chat("m"))).ok()?;
        (client.try_reply().ok()?.status == 200).then_some(())
    });
    drop(held);
    until("all to be gone", || {
        (gateway.metrics().sum("tollgate_connections", &[]) == 0.0).then_some(())
    });
}

/// One address fills its own places only.
#[test]
fn each_address_has_its_own_places() {
    let upstream = Upstream::obliging();
    let gateway = gateway(
        "max_connections_per_address = 2\ntrusted_proxies = [\"127.0.0.1/32\"]",
        "proxy_protocol = true",
        &upstream,
    );
    let open = |from: &str| {
        let mut client = gateway.client();
        client.send(format!("PROXY TCP4 {from} 10.0.0.1 4711 80\r\n"));
        let _ = client.try_send(&post(CHAT, "", chat("m")));
        let status = client.try_reply().map(|reply| reply.status);
        (client, status.unwrap_or_default())
    };
    let held = [open("192.0.2.1"), open("192.0.2.1"), open("192.0.2.2")];
    assert!(held.iter().all(|(_, status)| *status == 200));
    assert_eq!(open("192.0.2.1").1, 503);
    assert_eq!(open("192.0.2.2").1, 200);
    drop(held);
    until("a place", || (open("192.0.2.1").1 == 200).then_some(()));
}
