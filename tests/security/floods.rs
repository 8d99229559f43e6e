//! HTTP/2 clients that cost more than they ask for: each is cut off, and the others do not notice.

use std::time::{Duration, Instant};

use crate::harness::{
    CHAT, Footprint, Frame, Gateway, HEADERS, RESET, RawH2, SETTINGS, Upstream, chat, engine, post,
};

/// More than any of these may send.
const MANY: u32 = 20_000;
const PING: u8 = 6;
const PRIORITY: u8 = 2;
const CONTINUATION: u8 = 9;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A gateway whose `/raw` never answers; what is asked of `model` is answered.
fn gateway(silent: &Upstream, engine: &str) -> Gateway {
    Gateway::start(&format!(
        "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\nstrip_prefix = false\ntargets = [\"{}\"]\n\
         [[service]]\nname = \"m\"\nmodels = [\"m\"]\ntargets = [\"{engine}\"]\n",
        silent.url()
    ))
}

fn silent() -> Upstream {
    Upstream::start(|connection| {
        connection.head();
        connection.wait_closed();
    })
}

/// The fields of a request for `/raw`.
const ASK: &[(&[u8], &[u8])] = &[
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":path", b"/raw/x"),
    (b":authority", b"test"),
];

/// Does what `round` says until the connection is over or it has been done [`MANY`] times. How often it was done, and whether the connection was over.
/// Others are served meanwhile.
fn flood(gateway: &Gateway, mut round: impl FnMut(&mut RawH2, u32)) -> (u32, bool) {
    let mut client = RawH2::connect(gateway.address());
    let mut other = gateway.client();
    for turn in 0..MANY {
        if turn % 1_000 == 0 {
            other.send(post(CHAT, "", chat("m")));
            assert_eq!(other.reply().status, 200, "somebody else, at turn {turn}");
        }
        round(&mut client, turn * 2 + 1);
        if client.skim() {
            return (turn, true);
        }
    }
    (MANY, false)
}

fn stays_whole(gateway: &Gateway) {
    let mut client = gateway.client();
    client.send(post(CHAT, "", chat("m")));
    assert_eq!(client.reply().status, 200);
    gateway.assert_gauges_zero();
}

/// Requests that are begun and reset at once (CVE-2023-44487).
#[test]
fn who_asks_and_resets_is_cut_off() {
    let (silent, engine) = (silent(), engine());
    let gateway = gateway(&silent, &engine.url());
    let (turns, over) = flood(&gateway, |client, stream| {
        client.headers(stream, ASK, true);
        client.frame(RESET, 0, stream, &CANCEL);
    });
    assert!(over, "{turns} requests were begun and reset");
    assert!(silent.connections() < 1_000, "{}", silent.connections());
    stays_whole(&gateway);
}

/// The same at leisure: each is with the upstream before it is reset.
#[test]
fn who_resets_what_was_begun_is_cut_off() {
    let (silent, engine) = (silent(), engine());
    let gateway = gateway(&silent, &engine.url());
    let (turns, over) = flood(&gateway, |client, stream| {
        client.headers(stream, ASK, true);
        let begun = Instant::now();
        while silent.connections() * 2 < stream as usize
            && begun.elapsed() < Duration::from_millis(200)
        {
            std::thread::yield_now();
        }
        client.frame(RESET, 0, stream, &CANCEL);
    });
    assert!(over, "{turns} requests were begun and reset");
    assert!(turns < 1_000, "{turns}");
    stays_whole(&gateway);
}

/// Frames that make the server reset streams itself (MadeYouReset, CVE-2025-8671).
#[test]
fn who_makes_us_reset_is_cut_off() {
    let (silent, engine) = (silent(), engine());
    let gateway = gateway(&silent, &engine.url());
    let (turns, over) = flood(&gateway, |client, stream| {
        client.headers(stream, ASK, true);
        // A stream that ended sends on; its window grows by nothing.
        client.data(stream, b"more", false);
        client.frame(8, 0, stream, &[0, 0, 0, 0]);
    });
    assert!(over, "{turns} streams were made to be reset");
    assert!(silent.connections() < 3_000, "{}", silent.connections());
    stays_whole(&gateway);
}

/// A head that never ends (CVE-2024-27316).
#[test]
fn a_head_without_end_is_cut_off() {
    let (silent, engine) = (silent(), engine());
    let gateway = gateway(&silent, &engine.url());
    let field = {
        let mut field = vec![0, 1, b'a', 100];
        field.extend([b'v'; 100]);
        field
    };
    let (turns, over) = flood(&gateway, |client, stream| match stream {
        1 => client.frame(HEADERS, 0, 1, &field),
        _ => client.frame(CONTINUATION, 0, 1, &field),
    });
    assert!(over, "{turns} pieces of one head");
    assert_eq!(silent.connections(), 0);
    stays_whole(&gateway);
}

/// Many small fields weigh more in memory than on the wire.
#[test]
fn a_head_of_many_small_fields_is_refused() {
    let (silent, engine) = (silent(), engine());
    let gateway = gateway(&silent, &engine.url());
    let mut client = RawH2::connect(gateway.address());
    let mut block = Vec::new();
    for (name, value) in ASK {
        for (at, text) in [name, value].into_iter().enumerate() {
            if at == 0 {
                block.push(0);
            }
            block.push(text.len() as u8);
            block.extend_from_slice(text);
        }
    }
    client.frame(HEADERS, 1, 1, &block);
    let small = [0, 1, b'a', 0].repeat(3_000);
    client.frame(CONTINUATION, 4, 1, &small);
    let frame = client.outcome(1);
    assert!(frame.as_ref().is_none_or(Frame::refuses), "{frame:?}");
    assert_eq!(silent.connections(), 0);
    stays_whole(&gateway);
}

/// Pings and settings want answers, which this client never reads: what is kept for it is bounded.
#[test]
fn answers_nobody_reads_are_not_piled_up() {
    let (silent, engine) = (silent(), engine());
    let gateway = gateway(&silent, &engine.url());
    let before = Footprint::settled();
    let mut client = RawH2::connect(gateway.address());
    let pings = 2_000_000 / 17;
    for turn in 0..pings {
        match turn % 3 {
            0 => client.frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
            1 => client.frame(PRIORITY, 0, turn * 2 + 1, &[0, 0, 0, 0, 1]),
            _ => client.frame(PING, 0, 0, b"12345678"),
        }
        // Nobody takes it any more, which is as good.
        if client.is_stuck() {
            break;
        }
    }
    stays_whole(&gateway);
    let after = Footprint::settled();
    let more = after.memory.saturating_sub(before.memory);
    assert!(more < 8 << 20, "{more} bytes: {before:?} {after:?}");
}
