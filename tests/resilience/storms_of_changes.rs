//! One changed file after another under streams and requests: nobody notices, and nothing of it stays.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    Api, CHAT, Client, Metrics, Process, chat, engine_with, post, service, streamed, until,
};

/// Services whose documents change with every other version.
const MANY: usize = 200;
const STREAMS: usize = 4;
const VERSIONS: usize = 100;
const TOKENS: usize = 60;

/// Version by version: a service and a gateway of the version's own, the kept service with another weight, and every second time all others, too.
fn version(number: usize, engine: &str) -> String {
    let weight = 100 + number % 7;
    let mut text = service("kept", "kept", engine) + &format!("weight = {weight}\n");
    text += &service(&format!("v{number}"), &format!("v{number}"), engine);
    text += &format!(
        "fallback = [\"kept\"]\n[[gateway]]\nname = \"t{number}\"\nhosts = [\"t{number}.example\"]\nauth = \"none\"\n"
    );
    for other in 0..MANY {
        let half = number / 2;
        text += &service(
            &format!("other-{other}"),
            &format!("other-{other}"),
            "http://127.0.0.1:9",
        );
        text += &format!("description = \"of version {half}\"\n");
    }
    text
}

struct Storm<'p> {
    process: &'p Process,
    whole: String,
    first: String,
    engine: String,
}

impl Storm<'_> {
    /// Brings a version into force.
    fn change(&self, number: usize) {
        let text = self
            .whole
            .replace(&self.first, &version(number, &self.engine));
        let (file, beside) = (
            self.process.path("tollgate.toml"),
            self.process.path("new.toml"),
        );
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &file).unwrap();
        let reply = Api::new(self.process.admin).ask("POST", "/v1/reload", &Value::Null);
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

/// A stream that has begun.
pub(super) fn begin(process: &Process, model: &str, tokens: usize) -> Client {
    let mut client = process.client();
    client.send(post(CHAT, "", streamed(model, tokens)));
    assert_eq!(client.head().unwrap().status, 200, "{model}");
    client
}

/// It comes to its proper end.
pub(super) fn finish(mut client: Client) {
    let mut text = Vec::new();
    while let Some(chunk) = client.chunk().unwrap() {
        text.extend(chunk);
    }
    let text = String::from_utf8_lossy(&text);
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

pub(super) fn metrics(process: &Process) -> Metrics {
    Metrics::read(&Client::connect(process.admin).get("/metrics", "").text())
}

#[test]
fn nobody_notices_a_hundred_changes_and_nothing_of_them_stays() {
    let engine = engine_with(|config| {
        config.itl = Duration::from_millis(20);
        config.record = 0;
    });
    let first = version(0, &engine.url());
    let process = Process::run(&first);
    let storm = Storm {
        whole: process.read("tollgate.toml"),
        process: &process,
        first,
        engine: engine.url(),
    };
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let again = || !over.load(Ordering::SeqCst);
    std::thread::scope(|threads| {
        let over = EndsAll(&over);
        for _ in 0..STREAMS {
            threads.spawn(|| {
                while again() {
                    finish(begin(&process, "kept", TOKENS));
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        threads.spawn(|| {
            let mut client = process.client();
            while again() {
                client.send(post(CHAT, "x-sim: tokens=3\r\n", chat("kept")));
                client.reply().assert_ok();
            }
        });
        for number in 1..=VERSIONS {
            storm.change(number);
            // The version is in force with the answer, and the one before it is not.
            let short = |model: &str| {
                let mut client = process.client();
                client.send(post(CHAT, "x-sim: tokens=1\r\n", chat(model)));
                client.reply().status
            };
            assert_eq!(short(&format!("v{number}")), 200);
            assert_eq!(short(&format!("v{}", number - 1)), 404);
            if number.is_multiple_of(10) {
                // One that is gone long before its end.
                let begun = begin(&process, &format!("v{number}"), TOKENS);
                threads.spawn(move || finish(begun));
            }
        }
        drop(over);
    });
    assert!(done.load(Ordering::SeqCst) >= STREAMS);
    assert_quiet(&process);
    let settled = process.resident();
    for number in VERSIONS + 1..=3 * VERSIONS {
        storm.change(number);
    }
    assert_quiet(&process);
    // A revision is about a megabyte here; two hundred were made.
    until("memory to be as it was", || {
        (process.resident() < settled + (24 << 20)).then_some(())
    });
}

/// Also when what is asserted meanwhile does not hold.
pub(super) struct EndsAll<'a>(pub(super) &'a AtomicBool);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// No load is left, and only what is configured now is told of.
fn assert_quiet(process: &Process) {
    assert_no_load(process);
    until("what is gone to be forgotten", || {
        let metrics = metrics(process);
        let passing = |label: &str, letter: char| {
            let values = metrics.values(label).into_iter();
            values.filter(|name| name.starts_with(letter)).count()
        };
        // `v` and its number; of gateways, `t` and its number.
        (passing("service", 'v') <= 1 && passing("gateway", 't') <= 1).then_some(())
    });
}

/// All load has been given back.
#[track_caller]
pub(super) fn assert_no_load(process: &Process) {
    until("all load to be given back", || {
        let metrics = metrics(process);
        let gauges = [
            "tollgate_in_flight",
            "tollgate_target_in_flight",
            "tollgate_queue_depth",
            "tollgate_body_memory_bytes",
        ];
        gauges
            .iter()
            .all(|name| metrics.sum(name, &[]) == 0.0)
            .then_some(())
    });
}
