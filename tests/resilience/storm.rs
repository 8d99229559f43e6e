//! A thousand clients that leave at the worst moments, all at once: nothing of them stays.

use std::time::Duration;

use crate::harness::{
    CHAT, Gateway, chat, chunked, engine_state, engine_with, h2c, padded, post, service, streamed,
};

const THREADS: usize = 20;
const EACH: usize = 50;

/// One client, in one of the ways there are to leave.
fn visit(gateway: &Gateway, turn: usize) {
    let model = if turn.is_multiple_of(2) { "h1" } else { "h2" };
    let pause = Duration::from_millis((turn * 7 % 40) as u64);
    let mut client = gateway.client();
    match turn % 7 {
        0 => client.send(post(CHAT, "x-sim: ttft=5s\r\n", chat(model))),
        1 => {
            client.send(post(CHAT, "", streamed(model, 5_000)));
            let _ = client.head();
            let _ = client.chunk();
        }
        2 => {
            let whole = post(CHAT, "", padded(model, 200_000));
            let _ = client.try_send(&whole[..150_000]);
        }
        3 => {
            let _ = client.try_send(&chunked(
                CHAT,
                "x-sim: ttft=5s\r\n",
                &padded(model, 80_000),
                9_000,
            ));
        }
        4 => client.send("POST /v1/chat/completions HTTP/1.1\r\nhost: te"),
        5 => {
            let client = gateway.h2();
            let mut stream = client.open("POST", CHAT, &[], false);
            let _ = stream.send(streamed(model, 5_000), true);
            std::thread::sleep(pause);
            stream.cancel();
        }
        _ => {
            let client = gateway.h2();
            let mut stream = client.open("POST", CHAT, &[("x-sim", "ttft=5s")], false);
            let _ = stream.send(padded(model, 80_000), turn.is_multiple_of(3));
            std::thread::sleep(pause);
            drop((stream, client));
        }
    }
    std::thread::sleep(pause);
}

#[test]
fn every_gauge_returns_to_zero() {
    let engine = engine_with(|config| {
        config.itl = Duration::from_millis(5);
        config.tokens = 10_000;
        config.record = 0;
    });
    let toml = service("h1", "h1", &engine.url()) + &service("h2", "h2", &h2c(&engine));
    let gateway = Gateway::start(&toml);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let gateway = &gateway;
            scope.spawn(move || {
                for turn in 0..EACH {
                    visit(gateway, thread * EACH + turn);
                }
            });
        }
    });
    gateway.assert_gauges_zero();
    engine_state(&engine, "the engine has nothing to do", |state| {
        state.running == 0 && state.waiting == 0
    });
    // Six in seven got as far as being an exchange; load is given back a moment before they are counted.
    let count = "tollgate_client_disconnects_total";
    let gone = gateway.wait_for(count, &[], |gone| gone >= 800.0);
    let count = "tollgate_requests_total";
    gateway.wait_for(count, &[("code", "499")], |counted| counted >= gone);
    let metrics = gateway.metrics();
    let gone = metrics.sum("tollgate_client_disconnects_total", &[]);
    assert_eq!(metrics.sum(count, &[("code", "499")]), gone);
    for model in ["h1", "h2"] {
        let mut client = gateway.client();
        client.send(post(CHAT, "x-sim: tokens=3\r\n", chat(model)));
        client.reply().assert_ok();
    }
}
