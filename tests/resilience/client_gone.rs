//! Clients that leave: the engine stops working for them at once.

use std::time::Duration;

use tollgate_bench::engine::{Engine, EngineConfig};

use crate::harness::{
    CHAT, Gateway, chat, chunked, engine_state, engine_with, h2c, noise, padded, post, service,
    streamed, unix_nanos,
};

const SOON: Duration = Duration::from_millis(100);

fn setup(change: impl FnOnce(&mut EngineConfig)) -> (Engine, Gateway) {
    let engine = engine_with(change);
    let http = format!(
        "[[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\ntargets = [\"{}\"]\n",
        engine.url()
    );
    let toml = service("h1", "h1", &engine.url()) + &service("h2", "h2", &h2c(&engine)) + &http;
    let gateway = Gateway::start(&toml);
    (engine, gateway)
}

/// Waits until the engine works for one client, lets that leave, and looks when the engine noticed.
#[track_caller]
fn leaves(what: &str, engine: &Engine, gateway: &Gateway, leave: impl FnOnce()) {
    let before = engine.state().aborted;
    let gone = gateway
        .metrics()
        .sum("tollgate_client_disconnects_total", &[]);
    engine_state(engine, what, |state| state.running + state.waiting == 1);
    let left = unix_nanos();
    leave();
    let state = engine_state(engine, what, |state| state.aborted == before + 1);
    let noticed = Duration::from_nanos(state.last_abort.unwrap().saturating_sub(left));
    assert!(noticed < SOON, "{what}: noticed after {noticed:?}");
    let count = "tollgate_client_disconnects_total";
    gateway.wait_for(count, &[], |n| n == gone + 1.0);
    gateway.assert_gauges_zero();
}

#[test]
fn before_the_first_byte() {
    let (engine, gateway) = setup(|config| {
        config.ttft = Duration::from_secs(20);
        config.late_head = true;
    });
    for model in ["h1", "h2"] {
        let mut client = gateway.client();
        client.send(post(CHAT, "", chat(model)));
        leaves(&format!("h1 to {model}"), &engine, &gateway, || {
            drop(client)
        });

        let mut client = gateway.client();
        client.send(post(CHAT, "", padded(model, 500_000)));
        leaves(&format!("large to {model}"), &engine, &gateway, || {
            drop(client)
        });

        let mut client = gateway.client();
        client.send(chunked(CHAT, "", &padded(model, 100_000), 9_999));
        leaves(&format!("other road to {model}"), &engine, &gateway, || {
            drop(client)
        });

        let client = gateway.h2();
        let mut stream = client.open("POST", CHAT, &[], false);
        stream.send(chat(model), true).unwrap();
        leaves(&format!("h2 to {model}"), &engine, &gateway, || {
            stream.cancel()
        });

        let mut stream = client.open("POST", CHAT, &[], false);
        stream.send(padded(model, 100_000), true).unwrap();
        leaves(
            &format!("h2, other road to {model}"),
            &engine,
            &gateway,
            || stream.cancel(),
        );
    }
    let mut client = gateway.client();
    client.send(post("/raw/v1/chat/completions", "", chat("x")));
    leaves("http", &engine, &gateway, || drop(client));
}

#[test]
fn in_a_stream() {
    let (engine, gateway) = setup(|config| {
        config.itl = Duration::from_millis(20);
        config.tokens = 10_000;
    });
    for model in ["h1", "h2"] {
        let mut client = gateway.client();
        client.send(post(CHAT, "", streamed(model, 5_000)));
        client.head().unwrap();
        client.chunk().unwrap();
        leaves(&format!("h1 to {model}"), &engine, &gateway, || {
            drop(client)
        });

        let body = streamed(model, 5_000).replace("go", &"x".repeat(100_000));
        let mut client = gateway.client();
        client.send(chunked(CHAT, "", body.as_bytes(), 9_999));
        client.head().unwrap();
        client.chunk().unwrap();
        leaves(&format!("other road to {model}"), &engine, &gateway, || {
            drop(client)
        });

        let client = gateway.h2();
        let mut stream = client.open("POST", CHAT, &[], false);
        stream.send(streamed(model, 5_000), true).unwrap();
        stream.head().unwrap();
        stream.piece().unwrap();
        leaves(&format!("h2 to {model}"), &engine, &gateway, || {
            stream.cancel()
        });
    }
    // What was produced is metered, though no usage was told: an estimate, a token an event.
    let labels = [("direction", "output")];
    gateway.wait_for("tollgate_tokens_total", &labels, |tokens| tokens > 0.0);
}

/// An engine that has a request waiting in its queue has nothing to say to the gateway for a long time.
#[test]
fn while_the_engine_lets_it_wait() {
    let (engine, gateway) = setup(|config| {
        config.ttft = Duration::from_secs(20);
        config.max_running = 1;
    });
    let mut first = gateway.client();
    first.send(post(CHAT, "", chat("h1")));
    engine_state(&engine, "the first runs", |state| state.running == 1);
    let mut second = gateway.client();
    second.send(post(CHAT, "", chat("h1")));
    engine_state(&engine, "the second waits", |state| state.waiting == 1);
    let left = unix_nanos();
    drop(second);
    let state = engine_state(&engine, "the second leaves", |state| state.aborted == 1);
    let noticed = Duration::from_nanos(state.last_abort.unwrap().saturating_sub(left));
    assert!(noticed < SOON, "{noticed:?}");
    drop(first);
    engine_state(&engine, "the first leaves", |state| state.aborted == 2);
    gateway.assert_gauges_zero();
}

/// The body never became whole: the engine hears nothing of a metered request, and of a streamed one it hears the end.
#[test]
fn while_its_body_is_being_read() {
    let (engine, gateway) = setup(|_| ());
    let count = "tollgate_client_disconnects_total";
    let body = padded("h1", 1 << 20);
    let whole = post(CHAT, "", &body);
    for (n, part) in [whole.len() / 2, 300, whole.len() - 1]
        .into_iter()
        .enumerate()
    {
        let mut client = gateway.client();
        client.send(&whole[..part]);
        drop(client);
        gateway.wait_for(count, &[], |gone| gone == 1.0 + n as f64);
    }
    let whole = chunked(CHAT, "", &body, 10_000);
    let mut client = gateway.client();
    client.send(&whole[..whole.len() - 5]);
    drop(client);
    gateway.wait_for(count, &[], |gone| gone == 4.0);
    let client = gateway.h2();
    let mut stream = client.open("POST", CHAT, &[], false);
    stream.send(body[..100_000].to_vec(), false).unwrap();
    stream.cancel();
    gateway.wait_for(count, &[], |gone| gone == 5.0);
    gateway.assert_gauges_zero();
    assert_eq!(engine.state().started, 0);

    for whole in [
        post("/raw/v1/chat/completions", "", noise(1 << 20)),
        chunked("/raw/v1/chat/completions", "", &noise(1 << 20), 10_000),
    ] {
        let before = engine.state().aborted;
        let mut client = gateway.client();
        client.send(&whole[..whole.len() / 2]);
        let started = before + 1;
        engine_state(&engine, "half a body", |state| state.started == started);
        let left = unix_nanos();
        drop(client);
        let state = engine_state(&engine, "the end of half a body", |state| {
            state.aborted == before + 1
        });
        let noticed = Duration::from_nanos(state.last_abort.unwrap().saturating_sub(left));
        assert!(noticed < SOON, "{noticed:?}");
    }
    gateway.wait_for(count, &[], |gone| gone == 7.0);
    gateway.assert_gauges_zero();
}

/// A client that goes on to its next request without waiting has not left.
#[test]
fn a_client_that_pipelines_has_not_left() {
    let (engine, gateway) = setup(|config| config.ttft = Duration::from_millis(200));
    let mut client = gateway.client();
    let request = post(CHAT, "", chat("h1"));
    client.send([request.clone(), request].concat());
    client.reply().assert_ok();
    client.reply().assert_ok();
    assert_eq!(engine.state().aborted, 0);
    assert_eq!(
        gateway
            .metrics()
            .sum("tollgate_client_disconnects_total", &[]),
        0.0
    );
}
