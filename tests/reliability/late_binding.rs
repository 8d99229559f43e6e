//! Where all targets have more work before them than `max_pending`, requests wait in the gateway and are placed in their order when there is room.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tollgate_bench::engine::Engine;

use super::{Script, answer, offer};
use crate::harness::{CHAT, Client, Gateway, bearer, engine_with, post, until};

/// One target that holds the first request until it is told to go on, and answers all others at once.
struct Held {
    script: Script,
    release: Sender<()>,
}

impl Held {
    fn start() -> Held {
        let (release, released) = channel();
        let released = Mutex::new(released);
        let script = Script::start(move |number, _, _| {
            if number == 0 {
                // Also when the test has ended.
                let _ = released.lock().unwrap().recv();
            }
            answer("200 OK", "content-type: application/json\r\n", "{}")
        });
        Held { script, release }
    }

    /// The gateway before it; computing any prompt counts as minutes.
    fn gateway(&self, queue: &str, more: &str) -> Gateway {
        let policy =
            "policy = { name = \"cache_aware\", prefill_rate = 10, max_pending = \"1s\" }\n";
        let service = format!("queue = {{ {queue} }}\n");
        let toml = offer("m", &service, policy, &[self.script.url()]);
        Gateway::start(&format!("{more}{toml}"))
    }
}

fn waiting(gateway: &Gateway) -> u64 {
    let status = gateway.api().get("/v1/status").json();
    status["queues"][0]["waiting_for_target"].as_u64().unwrap()
}

#[track_caller]
fn wait_until(gateway: &Gateway, count: u64) {
    until("so many to wait", || {
        (waiting(gateway) == count).then_some(())
    });
}

/// A prompt that begins as all of its family do.
fn body(family: usize) -> String {
    let word = |i: usize| format!("w{} ", family * 7_919 + 10_000 + i);
    let text: String = (0..900).map(word).collect();
    json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string()
}

/// Sends a request, named so that the target knows it, and leaves its answer for later.
fn send(gateway: &Gateway, name: &str, family: usize, fields: &str) -> Client {
    let mut client = gateway.client();
    client.send(post(
        CHAT,
        &format!("x-n: {name}\r\n{fields}"),
        body(family),
    ));
    client
}

/// One that the target holds.
fn occupy(held: &Held, gateway: &Gateway, fields: &str) -> Client {
    let client = send(gateway, "first", 0, fields);
    until("the target to be busy", || {
        (held.script.calls() == 1).then_some(())
    });
    client
}

/// Lets all go on; the order in which those that waited were placed.
fn placed(held: &Held, first: Client, waiting: Vec<Client>) -> Vec<String> {
    held.release.send(()).unwrap();
    for mut client in std::iter::once(first).chain(waiting) {
        client.reply().assert_ok();
    }
    held.script.order().split_off(1)
}

fn key(name: &str, fields: &str) -> String {
    format!(
        "[[key]]\nname = \"{name}\"\ngateway = \"main\"\nsecret = \"{}\"\n{fields}\n",
        secret(name)
    )
}

fn secret(name: &str) -> String {
    format!("tg_{name}_late-binding-secret-{name}-0001")
}

fn keys(keys: &[(&str, &str)]) -> String {
    let keys: String = keys
        .iter()
        .map(|(name, fields)| key(name, fields))
        .collect();
    format!("[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n{keys}")
}

#[test]
fn the_urgent_are_placed_before_those_that_came_first() {
    let held = Held::start();
    let gateway = held.gateway(
        "size = 100",
        &keys(&[
            ("plain", ""),
            ("bulk", "priority = \"bulk\""),
            ("urgent", "priority = \"interactive\""),
        ]),
    );
    let fields = |name: &str| bearer(&secret(name));
    let first = occupy(&held, &gateway, &fields("plain"));
    let mut clients = Vec::new();
    for (i, name) in ["bulk", "bulk", "plain", "urgent", "urgent", "plain"]
        .into_iter()
        .enumerate()
    {
        clients.push(send(&gateway, name, i + 1, &fields(name)));
        wait_until(&gateway, i as u64 + 1);
    }
    assert_eq!(held.script.calls(), 1);
    let order = placed(&held, first, clients);
    assert_eq!(
        order,
        ["urgent", "urgent", "plain", "plain", "bulk", "bulk"]
    );
    gateway.assert_gauges_zero();
}

#[test]
fn keys_share_by_their_weight_whoever_came_first() {
    let held = Held::start();
    let gateway = held.gateway(
        "size = 100",
        &keys(&[
            ("plain", ""),
            ("light", "weight = 1"),
            ("heavy", "weight = 3"),
        ]),
    );
    let fields = |name: &str| bearer(&secret(name));
    let first = occupy(&held, &gateway, &fields("plain"));
    let mut clients = Vec::new();
    for i in 0..24 {
        let name = if i < 12 { "light" } else { "heavy" };
        clients.push(send(&gateway, name, i + 1, &fields(name)));
        wait_until(&gateway, i as u64 + 1);
    }
    let order = placed(&held, first, clients);
    let heavy = order
        .iter()
        .take(12)
        .filter(|name| *name == "heavy")
        .count();
    assert!((8..=10).contains(&heavy), "{order:?}");
    gateway.assert_gauges_zero();
}

#[test]
fn those_that_begin_alike_are_placed_together() {
    let held = Held::start();
    let gateway = held.gateway("size = 100", "");
    let first = occupy(&held, &gateway, "");
    let mut clients = Vec::new();
    for (i, family) in [1, 2, 1, 2, 1, 2].into_iter().enumerate() {
        clients.push(send(&gateway, &family.to_string(), family, ""));
        wait_until(&gateway, i as u64 + 1);
    }
    let order = placed(&held, first, clients);
    assert_eq!(order, ["1", "1", "1", "2", "2", "2"]);
    gateway.assert_gauges_zero();
}

#[test]
fn who_leaves_gives_its_place_to_another() {
    let held = Held::start();
    let gateway = held.gateway("size = 1", "");
    let first = occupy(&held, &gateway, "");
    let left = send(&gateway, "left", 1, "");
    wait_until(&gateway, 1);
    // There is no place for a second.
    let mut second = send(&gateway, "second", 2, "");
    second.reply().assert_refused(503, "overloaded");
    drop(left);
    wait_until(&gateway, 0);
    let third = send(&gateway, "third", 3, "");
    wait_until(&gateway, 1);
    assert_eq!(placed(&held, first, vec![third]), ["third"]);
    gateway.assert_gauges_zero();
}

#[test]
fn who_has_waited_long_enough_is_told_to_come_back() {
    let held = Held::start();
    let gateway = held.gateway("size = 10, max_wait = \"200ms\"", "");
    let first = occupy(&held, &gateway, "");
    let reply = send(&gateway, "late", 1, "").reply();
    reply.assert_refused(503, "overloaded");
    let after: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!(after >= 1);
    wait_until(&gateway, 0);
    assert!(placed(&held, first, Vec::new()).is_empty());
    gateway.assert_gauges_zero();
}

/// Two engines that compute: nobody is refused, and neither has more than one prompt before it.
#[test]
fn engines_get_the_next_prompt_when_they_have_computed_the_last() {
    let most = Arc::new(Mutex::new(0));
    let engines: Vec<Engine> = (0..2)
        .map(|_| engine_with(|config| config.ttft = Duration::from_millis(40)))
        .collect();
    let urls: Vec<String> = engines.iter().map(Engine::url).collect();
    let policy = "policy = { name = \"cache_aware\", prefill_rate = 10, max_pending = \"1s\" }\n";
    let gateway = Gateway::start(&offer("m", "queue = { size = 100 }\n", policy, &urls));
    let clients: Vec<Client> = (0..20)
        .map(|i| {
            let mut body: Value = serde_json::from_str(&body(i)).unwrap();
            body["stream"] = json!(true);
            body["max_tokens"] = json!(1);
            let mut client = gateway.client();
            client.send(post(CHAT, "", body.to_string()));
            client
        })
        .collect();
    until("all to be served", || {
        for engine in &engines {
            let mut most = most.lock().unwrap();
            *most = engine.state().running.max(*most);
        }
        let finished: u64 = engines.iter().map(|engine| engine.state().finished).sum();
        (finished == 20).then_some(())
    });
    for mut client in clients {
        client.reply().assert_ok();
    }
    // One in computing, and one whose last bytes are on their way.
    assert!(*most.lock().unwrap() <= 2);
    assert!(engines.iter().all(|engine| engine.state().started >= 5));
    gateway.assert_gauges_zero();
}
