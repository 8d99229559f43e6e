//! Every fault, asked for by header.

use std::net::Shutdown;

use super::*;
use crate::engine::clock::unix_nanos;

/// Reads a streamed reply until it ends in whatever way: the chunks, and how it ended.
fn rest(client: &mut Client) -> (Vec<Vec<u8>>, Option<io::ErrorKind>) {
    let mut chunks = Vec::new();
    loop {
        match client.chunk() {
            Ok(Some(chunk)) => chunks.push(chunk),
            Ok(None) => return (chunks, None),
            Err(error) => return (chunks, Some(error.kind())),
        }
    }
}

fn tokens(chunks: &[Vec<u8>]) -> usize {
    let is_token = |chunk: &&Vec<u8>| {
        let text = String::from_utf8_lossy(chunk);
        text.contains("\"content\":\" ") && text.contains("\"finish_reason\":null")
    };
    chunks.iter().filter(is_token).count()
}

#[test]
fn a_status_comes_with_retry_after_and_body() {
    let engine = plain();
    let mut client = Client::new(&engine);
    let reply = client.sim("status=429, retry-after=2", &chat("x")).unwrap();
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, Some("2"))
    );
    assert_eq!(reply.json()["error"]["code"], 429);
    let reply = client
        .sim(
            "status=503, body=sorry%2C no, retry-after=date:5",
            &chat("x"),
        )
        .unwrap();
    assert_eq!(reply.body, b"sorry, no");
    assert!(reply.header("retry-after").unwrap().ends_with(" GMT"));
    let reply = client.sim("status=204", &chat("x")).unwrap();
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert_eq!(client.sim("status=200", &chat("x")).unwrap().status, 200);
    assert_eq!(client.sim("", &chat("x")).unwrap().status, 200);
}

#[test]
fn an_unknown_fault_is_refused() {
    let engine = plain();
    let reply = Client::new(&engine).sim("statsu=500", &chat("x")).unwrap();
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["error"]["param"], "x-sim");
}

#[test]
fn a_delay_holds_the_head_back() {
    let engine = plain();
    let start = Instant::now();
    Client::new(&engine).sim("delay=60ms", &chat("x")).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(60));
}

#[test]
fn the_head_of_a_stream_comes_first_unless_told_otherwise() {
    let engine = plain();
    for (faults, early) in [("ttft=400ms", true), ("ttft=400ms, late-head", false)] {
        let mut client = Client::new(&engine);
        client.send_post(CHAT, &format!("x-sim: {faults}"), &streamed(1));
        let start = Instant::now();
        client.head().unwrap();
        assert_eq!(
            start.elapsed() < Duration::from_millis(40),
            early,
            "{faults}"
        );
        client.chunk().unwrap();
        assert!(start.elapsed() >= Duration::from_millis(399));
    }
}

#[test]
fn a_stream_can_end_in_the_middle() {
    let engine = plain();
    for faults in ["close-after=3", "reset-after=3", "garbage-after=3"] {
        let mut client = Client::new(&engine);
        client.send_post(CHAT, &format!("x-sim: {faults}, itl=2ms"), &streamed(10));
        client.head().unwrap();
        let (chunks, end) = rest(&mut client);
        assert_eq!(tokens(&chunks), 3, "{faults}");
        let expected = match faults {
            "close-after=3" => io::ErrorKind::UnexpectedEof,
            "reset-after=3" => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::InvalidData,
        };
        assert_eq!(end, Some(expected), "{faults}");
    }
    assert_eq!(engine.state().broken, 3);
    assert_eq!(engine.state().aborted, 0);
}

#[test]
fn a_fault_beyond_the_end_does_not_strike() {
    let engine = plain();
    let reply = Client::new(&engine)
        .sim("close-after=11", &streamed(10))
        .unwrap();
    assert!(reply.body.ends_with(b"data: [DONE]\n\n"));
}

#[test]
fn a_stall_lasts_until_the_client_leaves() {
    let engine = plain();
    let mut client = Client::new(&engine);
    client
        .stream
        .set_read_timeout(Some(Duration::from_millis(80)))
        .unwrap();
    client.send_post(CHAT, "x-sim: stall-after=2", &streamed(10));
    client.head().unwrap();
    let (chunks, end) = rest(&mut client);
    assert_eq!(tokens(&chunks), 2);
    assert!(matches!(
        end,
        Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
    ));
    assert_eq!(engine.state().running, 1);
    drop(client);
    eventually(&engine, |state| state.running == 0 && state.aborted == 1);
}

#[test]
fn a_malformed_event_sits_between_good_ones() {
    let engine = plain();
    let reply = Client::new(&engine)
        .sim("malformed-after=2", &streamed(4))
        .unwrap();
    let events = reply.events();
    // Role, two tokens, the broken one, two tokens, finish, usage, done.
    assert_eq!(events.len(), 9);
    let broken = |text: &&String| serde_json::from_str::<Value>(text).is_err() && *text != "[DONE]";
    assert_eq!(events.iter().position(|text| broken(&text)), Some(3));
    assert_eq!(events.iter().filter(broken).count(), 1);
    let reply = Client::new(&engine)
        .sim("malformed-after=0", &chat("x"))
        .unwrap();
    assert!(serde_json::from_slice::<Value>(&reply.body).is_err());
}

#[test]
fn an_answer_in_one_piece_can_be_cut_too() {
    let engine = plain();
    for (faults, nothing) in [("close-after=0", true), ("close-after=1", false)] {
        let mut client = Client::new(&engine);
        client.send_post(CHAT, &format!("x-sim: {faults}"), &chat("x"));
        let head = client.head().unwrap();
        let length: usize = head.header("content-length").unwrap().parse().unwrap();
        let end = loop {
            if let Err(error) = client.fill() {
                break error;
            }
        };
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        assert!(client.ahead.len() < length);
        assert_eq!(client.ahead.is_empty(), nothing);
    }
}

#[test]
fn a_connection_can_be_dropped_before_the_head() {
    let engine = plain();
    let close = Client::new(&engine).sim("drop", &chat("x")).unwrap_err();
    assert_eq!(close.kind(), io::ErrorKind::UnexpectedEof);
    let reset = Client::new(&engine)
        .sim("drop=reset", &chat("x"))
        .unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    eventually(&engine, |state| state.broken == 2);
}

#[test]
fn an_early_answer_does_not_wait_for_the_body() {
    let engine = plain();
    let mut client = Client::new(&engine);
    client.send(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: sim\r\ncontent-length: 1000000\r\n\
         expect: 100-continue\r\nx-sim: early=413\r\n\r\n",
    );
    let reply = client.reply().unwrap();
    assert_eq!(
        (reply.status, reply.header("connection")),
        (413, Some("close"))
    );
    // The client may go on sending and still read the answer.
    client.send(&"x".repeat(100_000));
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(
        client.fill().unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[test]
fn a_slow_reader_takes_its_time() {
    let engine = plain();
    let body = chat(&"y".repeat(10_000));
    let start = Instant::now();
    let reply = Client::new(&engine)
        .sim("slow-read=100KiB/s, hash", &body)
        .unwrap();
    assert!(start.elapsed() >= Duration::from_millis(90));
    assert_eq!(
        reply.header("x-sim-body-bytes"),
        Some(body.len().to_string().as_str())
    );
}

#[test]
fn stamps_sizes_and_counts_are_as_asked() {
    let engine = plain();
    let before = unix_nanos();
    let reply = Client::new(&engine)
        .sim("stamp, tokens=3, itl=3ms", &streamed(10))
        .unwrap();
    let contents = |reply: &Reply| -> Vec<String> {
        let all = reply.events().into_iter().filter_map(|text| {
            let event: Value = serde_json::from_str(&text).ok()?;
            Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned())
        });
        all.filter(|text| !text.is_empty()).collect()
    };
    let stamps: Vec<u64> = contents(&reply)
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    assert_eq!(stamps.len(), 3);
    assert!(stamps[0] >= before && stamps[2] <= unix_nanos());
    assert!(stamps.is_sorted() && stamps[2] - before >= 6_000_000);
    let reply = Client::new(&engine)
        .sim("chunk=100, tokens=2", &streamed(10))
        .unwrap();
    assert_eq!(
        contents(&reply).iter().map(String::len).collect::<Vec<_>>(),
        [100, 100]
    );
    let reply = Client::new(&engine)
        .sim("stamp, chunk=64, tokens=1", &streamed(10))
        .unwrap();
    let first = &contents(&reply)[0];
    assert_eq!(first.len(), 64);
    assert!(first.split(' ').next().unwrap().parse::<u64>().is_ok());
}

#[test]
fn an_echo_answers_any_path() {
    let engine = plain();
    let reply = Client::new(&engine)
        .post("/some/where?a=1", "x-sim: echo\r\nx-Own: 1", "abc")
        .json();
    assert_eq!(reply["path"], "/some/where?a=1");
    assert_eq!(reply["bytes"], 3);
    assert_eq!(reply["headers"]["x-own"], "1");
}
