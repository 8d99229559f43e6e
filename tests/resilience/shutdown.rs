//! The end of the process: open streams finish, or do not.

use std::time::{Duration, Instant};

use crate::harness::{CHAT, Client, Process, chat, engine, post, service, streamed, until};

#[test]
fn sigterm_lets_an_open_stream_finish() {
    let engine = engine();
    let mut process = Process::run(&service("m", "m", &engine.url()));
    let mut client = process.client();
    client.send(post(
        CHAT,
        "x-sim: itl=60ms, tokens=30\r\n",
        streamed("m", 30),
    ));
    let mut reply = client.head().unwrap();
    client.chunk().unwrap();
    // A second connection that has nothing under way does not hold anybody up.
    let mut idle = process.client();
    idle.chat("m", "").assert_ok();
    let start = Instant::now();
    process.signal("TERM");
    until("readiness to go first", || {
        (process.admin_status("/readyz") != Some(200)).then_some(())
    });
    until("the listener to close", || {
        Client::try_connect(process.address).is_err().then_some(())
    });
    assert!(process.has_ended().is_none(), "it ended with a stream open");
    client.body(&mut reply).unwrap();
    reply.assert_ok();
    assert!(
        reply.text().ends_with("data: [DONE]\n\n"),
        "{}",
        reply.text()
    );
    assert!(
        start.elapsed() > Duration::from_millis(1000),
        "the stream was over before"
    );
    let (status, took) = process.end();
    assert!(status.success(), "{status}: {}", process.read("stderr"));
    assert!(
        took < Duration::from_secs(3),
        "grace is 30 s, but nothing was left to do: {took:?}"
    );
    let log = process.read("access.log");
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(
        !process.read("stderr").contains("panicked"),
        "{}",
        process.read("stderr")
    );
}

#[test]
fn sigterm_with_nothing_open_ends_at_once() {
    let engine = engine();
    let mut process = Process::run(&service("m", "m", &engine.url()));
    process.client().chat("m", "").assert_ok();
    process.signal("TERM");
    let (status, took) = process.end();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// A stream that does not come to an end is cut when `grace` is over.
#[test]
fn grace_has_an_end() {
    let engine = engine();
    let toml = "[server]\ngrace = \"1s\"\n".to_owned() + &service("m", "m", &engine.url());
    let mut process = Process::run(&toml);
    let mut client = process.client();
    client.send(post(
        CHAT,
        "x-sim: itl=100ms, tokens=1000\r\n",
        streamed("m", 1_000),
    ));
    let mut reply = client.head().unwrap();
    process.signal("TERM");
    let (_, took) = process.end();
    assert!(
        took > Duration::from_millis(800) && took < Duration::from_secs(6),
        "{took:?}"
    );
    client.body(&mut reply).unwrap();
    assert!(!reply.complete);
}

#[test]
fn sigint_ends_at_once() {
    let engine = engine();
    let mut process = Process::run(&service("m", "m", &engine.url()));
    let mut client = process.client();
    client.send(post(
        CHAT,
        "x-sim: itl=100ms, tokens=1000\r\n",
        streamed("m", 1_000),
    ));
    client.head().unwrap();
    process.signal("INT");
    let (_, took) = process.end();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// HTTP/2 streams are waited for like any other.
#[test]
fn sigterm_lets_an_http2_stream_finish() {
    let engine = engine();
    let mut process = Process::run(&service("m", "m", &engine.url()));
    let client =
        crate::harness::runtime().block_on(crate::harness::H2Client::connect(process.address));
    let mut stream = client.open("POST", CHAT, &[("x-sim", "itl=50ms, tokens=20")], false);
    stream.send(streamed("m", 20), true).unwrap();
    let mut reply = stream.head().unwrap();
    stream.piece().unwrap();
    process.signal("TERM");
    stream.body(&mut reply).unwrap();
    assert!(
        reply.text().ends_with("data: [DONE]\n\n"),
        "{}",
        reply.text()
    );
    let (status, took) = process.end();
    assert!(status.success());
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// What died is started again on the same addresses.
#[test]
fn addresses_can_be_used_again_at_once() {
    let engine = engine();
    for _ in 0..2 {
        let toml = service("m", "m", &engine.url());
        let mut process = Process::run(&toml);
        let mut client = process.client();
        client.send(post(CHAT, "", chat("m")));
        client.reply().assert_ok();
        process.signal("INT");
        process.end();
    }
}
