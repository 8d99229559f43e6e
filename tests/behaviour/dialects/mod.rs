//! The admin APIs of other systems: what their own scripts do, and the traffic through what these have made.

mod any_value;
mod coreweave;
mod coreweave_refusals;
mod trustgate;
mod trustgate_chains;
mod trustgate_refusals;

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::{Api, Client, Gateway, Reply, Upstream, request, until};

/// A file with a gateway that is in nobody's way.
const FILE: &str = "[[gateway]]\nname = \"other\"\nhosts = [\"other.example\"]\n";

/// An upstream that answers everything with its name.
fn named(name: &str) -> Upstream {
    let length = name.len();
    Upstream::replying(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}"
    ))
}

fn start() -> Gateway {
    Gateway::start(FILE)
}

/// It was answered with this status; its body.
#[track_caller]
fn done(reply: &Reply, status: u16) -> Value {
    assert_eq!(reply.status, status, "{}", reply.text());
    match reply.body.is_empty() {
        true => Value::Null,
        false => reply.json(),
    }
}

/// The id of what was made.
#[track_caller]
fn id(value: &Value) -> String {
    let id = value["id"].as_str().unwrap();
    assert_eq!((id.len(), id.matches('-').count()), (36, 4), "{id}");
    id.to_owned()
}

/// One request with a key.
#[track_caller]
fn ask(address: SocketAddr, host: &str, path: &str, fields: &str) -> Reply {
    let fields = format!("host: {host}\r\ncontent-type: application/json\r\n{fields}");
    let mut client = Client::connect(address);
    let body = r#"{"model":"acme/chat","messages":[]}"#;
    client.send(request("POST", path, &fields, body));
    client.reply()
}

/// How often each answered so many requests.
#[track_caller]
fn shares(count: usize, names: &[&str], ask: impl Fn() -> Reply) -> Vec<usize> {
    let mut got = vec![0; names.len()];
    for _ in 0..count {
        let reply = ask();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let from = reply.text();
        got[names.iter().position(|name| *name == from).unwrap()] += 1;
    }
    got
}

/// Waits until so many targets are known to be up.
#[track_caller]
fn all_up(api: &Api, count: usize) {
    until("the targets to be up", || {
        let status = api.get("/v1/status").json();
        let targets = status["targets"].as_array().unwrap();
        let up = targets.iter().filter(|target| target["health"] == "up");
        (up.count() == count).then_some(())
    });
}
