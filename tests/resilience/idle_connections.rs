//! Connections on which nothing is asked: what they cost, and that nothing is lost when something is asked again.

use crate::harness::{
    Authority, CHAT, Client, Gateway, Process, Upstream, chat, chunked, engine, get, post, service,
    until,
};

/// How much a connection may take, in bytes, of which a third is what allocators leave between things. With an exchange's memory it would be 40 KB and more.
const EACH: usize = 16 * 1024;
const MANY: usize = 400;

/// What each of many connections takes of a gateway's memory when it has been served once and waits.
fn each(process: &Process, open: impl Fn() -> Client) -> usize {
    // What is taken once is taken before.
    (0..20).for_each(|_| open().chat("m", "").assert_ok());
    until("them to be gone", || {
        (connections(process) == 0.0).then_some(())
    });
    let before = process.resident();
    let mut held: Vec<_> = (0..MANY).map(|_| open()).collect();
    for client in &mut held {
        client.chat("m", "").assert_ok();
    }
    let mut each = usize::MAX;
    until("memory to be given back", || {
        each = each.min(process.resident().saturating_sub(before) / MANY);
        (each < EACH).then_some(())
    });
    assert_eq!(connections(process), MANY as f64);
    // They are as good as before.
    for client in &mut held {
        client.chat("m", "").assert_ok();
    }
    each
}

fn connections(process: &Process) -> f64 {
    let mut client = Client::connect(process.admin);
    let text = client.get("/metrics", "").text();
    let mut lines = text.lines();
    let count = lines.find_map(|line| line.strip_prefix("tollgate_connections "));
    count.unwrap().parse().unwrap()
}

#[test]
fn a_connection_that_waits_takes_little() {
    let engine = engine();
    let process = Process::start(&service("m", "m", &engine.url()));
    let each = each(&process, || process.client());
    assert!(each > 0, "nothing was measured");
}

#[test]
fn one_with_tls_takes_little_more() {
    let engine = engine();
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let issued = authority.issue(&["a.example"]).write(folder.path(), "a");
    let process = Process::start(&format!(
        "[[listener]]\naddress = \"$LISTENER\"\ntls = {{ {issued} }}\n{}",
        service("m", "m", &engine.url())
    ));
    let manner = authority.trusted();
    each(&process, || {
        Client::secure(process.address, "a.example", &manner)
    });
}

/// Requests of every framing, one behind the other in one piece, and then one by one.
#[test]
fn what_came_too_early_is_served() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&service("m", "m", &upstream.url()));
    let body = chat("m");
    let framed = [
        post(CHAT, "", &body),
        chunked(CHAT, "", body.as_bytes(), 7),
        get("/v1/models", ""),
        // Pingora escapes what may not stand in a request line, so that its head is longer than what came.
        get("/v1/models?q=a b c", ""),
        [b"\r\n", &post(CHAT, "", &body)[..]].concat(),
        post(CHAT, "", chat("nobody")),
    ];
    let expected = [200, 200, 200, 200, 200, 404];
    for first in 0..framed.len() {
        let mut client = gateway.client();
        let order = (0..2 * framed.len()).map(|n| (first + n) % framed.len());
        let all: Vec<u8> = order.clone().flat_map(|n| framed[n].clone()).collect();
        client.send(all);
        for n in order.clone() {
            assert_eq!(client.reply().status, expected[n], "{first}, {n}");
        }
        for n in order {
            client.send(&framed[n]);
            assert_eq!(client.reply().status, expected[n], "{first}, {n} alone");
        }
    }
    gateway.assert_gauges_zero();
}

/// The next request begins, and goes on later: with the connection's end or not, its time is counted.
#[test]
fn a_head_that_begins_after_a_wait_has_its_time() {
    let upstream = Upstream::obliging();
    let gateway = Gateway::start(&format!(
        "[server]\nheader_timeout = \"300ms\"\n{}",
        service("m", "m", &upstream.url())
    ));
    let request = post(CHAT, "", chat("m"));
    for cut in [1, 10, 60] {
        let mut client = gateway.client();
        for _ in 0..2 {
            client.send(&request);
            client.reply().assert_ok();
            client.send(&request[..cut]);
            client.send(&request[cut..]);
            client.reply().assert_ok();
        }
        client.send(&request[..cut]);
        assert_eq!(client.reply().status, 408, "{cut}");
        client.assert_closed();
    }
}

/// Those that wait are closed when the process stops, whether they were ever asked on or not.
#[test]
fn a_process_that_stops_closes_them() {
    let engine = engine();
    let mut process = Process::run(&service("m", "m", &engine.url()));
    let mut used = process.client();
    used.chat("m", "").assert_ok();
    let mut unused = process.client();
    until("both to be in", || {
        (connections(&process) == 2.0).then_some(())
    });
    process.signal("TERM");
    used.assert_closed();
    unused.assert_closed();
    assert!(process.end().0.success());
}
