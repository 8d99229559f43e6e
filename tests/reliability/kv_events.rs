//! What engines tell of their caches over ZeroMQ: a publisher that follows a script, beside an engine that answers.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tollgate_bench::engine::Engine;
use zeromq::{PubSocket, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

use super::offer;
use crate::harness::{CHAT, Gateway, engine_with, free_port, runtime, until};

struct Publisher {
    socket: PubSocket,
    next: u64,
}

impl Publisher {
    fn bind(port: u16) -> Publisher {
        until("the port to be free", || {
            runtime().block_on(async {
                let mut socket = PubSocket::new();
                let bound = socket.bind(&format!("tcp://127.0.0.1:{port}")).await;
                bound.is_ok().then_some(Publisher { socket, next: 0 })
            })
        })
    }

    fn send_as(&mut self, number: u64, payload: Vec<u8>) {
        let number = Bytes::copy_from_slice(&number.to_be_bytes());
        let message = ZmqMessage::try_from(vec![Bytes::new(), number, payload.into()]).unwrap();
        runtime().block_on(self.socket.send(message)).unwrap();
    }

    fn send_bytes(&mut self, payload: Vec<u8>) {
        self.send_as(self.next, payload);
        self.next += 1;
    }

    fn send(&mut self, events: &Value) {
        self.send_bytes(packed(events));
    }

    /// The first batch, until it is heard: who publishes does not know when somebody listens. Then a block that comes and goes, so that no other first batch
    /// is still to come.
    fn begin(&mut self, gateway: &Gateway, events: &Value) {
        let before = events_of(gateway);
        until("the first batch to be heard", || {
            self.send_as(0, packed(events));
            (events_of(gateway) > before).then_some(())
        });
        self.next = 1;
        let tokens = shown(gateway)["tokens"].as_u64().unwrap();
        let marker = 1 << 40;
        self.send(&json!([stored(marker..marker + 1)]));
        wait_for(gateway, "tokens", json!(tokens + 16));
        self.send(&json!([removed(marker..marker + 1)]));
        wait_for(gateway, "tokens", json!(tokens));
    }
}

fn packed(events: &Value) -> Vec<u8> {
    rmp_serde::to_vec(&json!([1.5, events, 0])).unwrap()
}

fn stored(hashes: std::ops::Range<u64>) -> Value {
    let hashes: Vec<u64> = hashes.collect();
    json!(["BlockStored", hashes, null, [1, 2, 3], 16, null, "GPU"])
}

fn removed(hashes: std::ops::Range<u64>) -> Value {
    json!(["BlockRemoved", hashes.collect::<Vec<u64>>(), "GPU"])
}

/// One caching engine whose events come at this port.
fn start(port: u16, more: &str) -> (Engine, Gateway) {
    let engine = engine_with(|config| {
        config.ttft = Duration::from_millis(1);
        config.cache_blocks = 100_000;
    });
    let upstream = format!("policy = \"cache_aware\"\nkv_events = {{ port = {port}{more} }}\n");
    let gateway = Gateway::start(&offer("m", "", &upstream, &[engine.url()]));
    (engine, gateway)
}

fn shown(gateway: &Gateway) -> Value {
    let status = gateway.api().get("/v1/status").json();
    status["targets"][0]["kv_events"].clone()
}

fn events_of(gateway: &Gateway) -> u64 {
    shown(gateway)["events"].as_u64().unwrap()
}

#[track_caller]
fn wait_for(gateway: &Gateway, field: &str, wanted: Value) {
    let mut last = Value::Null;
    let found = || {
        last = shown(gateway);
        (last[field] == wanted).then_some(())
    };
    until(&format!("{field} to be {wanted}"), found);
}

fn body(family: usize) -> String {
    let word = |i: usize| format!("w{} ", family * 7_919 + 10_000 + i);
    let text: String = (0..900).map(word).collect();
    let messages = json!([{"role": "user", "content": text}]);
    json!({"model": "m", "max_tokens": 1, "messages": messages}).to_string()
}

fn ask(gateway: &Gateway, family: usize) {
    gateway.client().post(CHAT, body(family)).assert_ok();
}

/// The prompt's tokens, and those that the engine is taken to have.
fn explain(gateway: &Gateway, family: usize) -> (f64, f64) {
    let reply = gateway.api().send(
        "POST",
        "/v1/upstreams/m/explain",
        "",
        body(family).as_bytes(),
    );
    let explained = reply.json();
    let number = |value: &Value| value.as_f64().unwrap();
    (
        number(&explained["prompt_tokens"]),
        number(&explained["targets"][0]["matched_tokens"]),
    )
}

#[test]
fn both_encodings_are_counted_and_what_is_elsewhere_is_not() {
    let port = free_port();
    let mut publisher = Publisher::bind(port);
    let (_engine, gateway) = start(port, "");
    publisher.begin(&gateway, &json!([stored(0..10)]));
    wait_for(&gateway, "tokens", json!(160));
    let map = json!({"type": "BlockStored", "block_hashes": [100, 101], "token_ids": [], "block_size": 32});
    let other =
        json!({"type": "BlockStored", "block_hashes": [200], "block_size": 32, "medium": "CPU"});
    let batch = json!({"ts": 2.0, "events": [map, other, {"type": "BlockRemoved", "block_hashes": [0, 1]}]});
    publisher.send_bytes(rmp_serde::to_vec(&batch).unwrap());
    wait_for(&gateway, "tokens", json!(192));
    let told = shown(&gateway);
    assert_eq!(told["source"], "connected");
    assert_eq!(
        (&told["blocks"], &told["whole"], &told["gaps"]),
        (&json!(10), &json!(true), &json!(0))
    );
    let target = [("upstream", "m")];
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("tollgate_kv_held_tokens", &target), 192.0);
    assert!(metrics.sum("tollgate_kv_events_total", &target) >= 3.0);
    assert_eq!(metrics.sum("tollgate_kv_event_gaps_total", &target), 0.0);
}

#[test]
fn what_the_engine_drops_is_forgotten_from_the_oldest_on_and_a_clear_forgets_all() {
    let port = free_port();
    let mut publisher = Publisher::bind(port);
    let (_engine, gateway) = start(port, "");
    publisher.begin(&gateway, &json!([stored(0..1)]));
    for family in 0..3 {
        ask(&gateway, family);
    }
    let (tokens, _) = explain(&gateway, 0);
    for family in 0..3 {
        assert!(explain(&gateway, family).1 > 0.8 * tokens, "{family}");
    }
    let blocks = |families: f64| (families * tokens / 16.0) as u64;
    // It holds half as much again as one of them is long.
    publisher.send(&json!([stored(1..blocks(3.0)), removed(0..blocks(1.5))]));
    until("the oldest to be forgotten", || {
        (explain(&gateway, 0).1 == 0.0).then_some(())
    });
    assert!(explain(&gateway, 2).1 > 0.8 * tokens);
    publisher.send(&json!([["AllBlocksCleared"]]));
    until("all to be forgotten", || {
        (explain(&gateway, 2).1 == 0.0).then_some(())
    });
    wait_for(&gateway, "tokens", json!(0));
    ask(&gateway, 2);
    assert!(explain(&gateway, 2).1 > 0.8 * tokens);
    gateway.assert_gauges_zero();
}

#[test]
fn a_gap_makes_what_was_told_of_no_use() {
    let port = free_port();
    let mut publisher = Publisher::bind(port);
    let (_engine, gateway) = start(port, "");
    publisher.begin(&gateway, &json!([stored(0..10)]));
    publisher.send(&json!([stored(10..20)]));
    wait_for(&gateway, "tokens", json!(320));
    publisher.next += 3;
    publisher.send(&json!([stored(20..25)]));
    wait_for(&gateway, "tokens", json!(80));
    let told = shown(&gateway);
    assert_eq!((&told["gaps"], &told["whole"]), (&json!(1), &json!(false)));
    let gaps = gateway.metrics().sum("tollgate_kv_event_gaps_total", &[]);
    assert_eq!(gaps, 1.0);
    // Of a cache that is not known as a whole nothing is concluded for the shadow.
    ask(&gateway, 0);
    publisher.send(&json!([removed(20..25)]));
    wait_for(&gateway, "tokens", json!(0));
    assert!(explain(&gateway, 0).1 > 0.0);
}

/// Answers who asks with these batches from the number asked for, then with the end.
fn repeat(port: u16, batches: Vec<(u64, Value)>) {
    runtime().spawn(async move {
        let mut socket = RouterSocket::new();
        let bound = socket.bind(&format!("tcp://127.0.0.1:{port}")).await;
        bound.unwrap();
        while let Ok(asked) = socket.recv().await {
            let parts = asked.into_vec();
            let from: [u8; 8] = parts.last().unwrap().as_ref().try_into().unwrap();
            let from = u64::from_be_bytes(from);
            let known = batches.iter().filter(|(number, _)| *number >= from);
            let answers = known.map(|(number, events)| (*number, packed(events)));
            for (number, payload) in answers.chain([(u64::MAX, Vec::new())]) {
                let number = Bytes::copy_from_slice(&number.to_be_bytes());
                let answer = vec![parts[0].clone(), Bytes::new(), number, payload.into()];
                socket
                    .send(ZmqMessage::try_from(answer).unwrap())
                    .await
                    .unwrap();
            }
        }
    });
}

#[test]
fn what_was_missed_is_asked_for_where_it_is_repeated() {
    let (port, again) = (free_port(), free_port());
    let batches = (0..=4).map(|i| (i, json!([stored(10 * i..10 * i + 10)])));
    repeat(again, batches.collect());
    let mut publisher = Publisher::bind(port);
    let (_engine, gateway) = start(port, &format!(", replay_port = {again}"));
    // It began long before: all is asked for from the first.
    until("the first batch to be heard", || {
        publisher.send_as(2, packed(&json!([stored(20..30)])));
        (events_of(&gateway) > 0).then_some(())
    });
    wait_for(&gateway, "tokens", json!(16 * 50));
    assert_eq!(shown(&gateway)["whole"], json!(true));
    publisher.send_as(5, packed(&json!([stored(50..60)])));
    wait_for(&gateway, "tokens", json!(16 * 60));
    // Missing, and not repeated any more.
    publisher.send_as(9, packed(&json!([stored(90..100)])));
    wait_for(&gateway, "gaps", json!(1));
    wait_for(&gateway, "tokens", json!(160));
}

#[test]
fn a_publisher_that_goes_and_comes_back_is_heard_again() {
    let port = free_port();
    let mut publisher = Publisher::bind(port);
    let (_engine, gateway) = start(port, "");
    publisher.begin(&gateway, &json!([stored(0..10)]));
    ask(&gateway, 0);
    drop(publisher);
    wait_for(&gateway, "source", json!("lost"));
    ask(&gateway, 0);
    assert!(explain(&gateway, 0).1 > 0.0);
    // It begins anew, and so has nothing of what it had.
    let mut publisher = Publisher::bind(port);
    publisher.begin(&gateway, &json!([stored(0..3)]));
    wait_for(&gateway, "source", json!("connected"));
    wait_for(&gateway, "tokens", json!(48));
    assert_eq!(explain(&gateway, 0).1, 0.0);
}

#[test]
fn garbage_is_survived_and_told() {
    let port = free_port();
    let mut publisher = Publisher::bind(port);
    let (_engine, gateway) = start(port, "");
    publisher.begin(&gateway, &json!([stored(0..10)]));
    for garbage in [
        b"\xc1".to_vec(),
        vec![0xdd; 100],
        vec![0x91; 5_000],
        Vec::new(),
    ] {
        publisher.send_bytes(garbage);
    }
    wait_for(&gateway, "source", json!("lost"));
    wait_for(&gateway, "tokens", json!(0));
    publisher.send(&json!([stored(0..2)]));
    wait_for(&gateway, "tokens", json!(32));
    assert_eq!(shown(&gateway)["source"], "connected");
    ask(&gateway, 0);
}

#[test]
fn who_does_not_speak_zeromq_costs_nothing_but_knowledge() {
    for said in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        &[0xff; 4_096],
        b"",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                let mut stream = stream.unwrap();
                let _ = stream.write_all(said);
                let _ = stream.read(&mut [0; 64]);
                drop(stream);
                let _ = told.send(());
            }
        });
        let (_engine, gateway) = start(port, "");
        // It comes again after the first failure.
        for _ in 0..2 {
            heard.recv_timeout(crate::harness::PATIENCE).unwrap();
        }
        assert_eq!(shown(&gateway)["source"], "lost");
        ask(&gateway, 0);
    }
}

#[test]
fn a_source_that_tells_nothing_of_prompts_is_silent() {
    let port = free_port();
    let _publisher = Publisher::bind(port);
    let (_engine, gateway) = start(port, "");
    wait_for(&gateway, "source", json!("connected"));
    for family in 0..10 {
        ask(&gateway, family);
    }
    wait_for(&gateway, "source", json!("silent"));
}
