//! Nothing lost: an engine that dies, drowns or says 429 is not seen by the client while any other way to serve is left.

mod cache_aware;
mod chaos;
mod disaggregation;
mod fallback;
mod health;
mod kv_events;
mod late_binding;
mod limits;
mod llumnix;
mod queue;
mod replaced;
mod retry;
mod scaled_by_keda;
mod scaled_by_others;
mod scaled_roles;
mod scaling;
mod shares;
mod store;
mod store_start;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tollgate_bench::engine::{Engine, FaultStep, Faults};

use crate::harness::{Connection, Gateway, Upstream, until};

/// A service of its own upstream, both named `name`; its model too. Nobody asks its targets whether they serve, and no breaker
/// opens, unless `upstream` says so.
fn offer(name: &str, service: &str, upstream: &str, targets: &[String]) -> String {
    let quoted: Vec<String> = targets
        .iter()
        .map(|target| match target.starts_with('{') {
            true => target.clone(),
            false => format!("\"{target}\""),
        })
        .collect();
    let mut text = format!(
        "[[service]]\nname = \"{name}\"\nmodels = [\"{name}\"]\nupstream = \"{name}\"\n{service}\n[[upstream]]\nname = \"{name}\"\ntargets = [{}]\n{upstream}\n",
        quoted.join(", ")
    );
    for field in ["health", "breaker"] {
        if !upstream.contains(&format!("{field} =")) {
            text.push_str(&format!("{field} = \"off\"\n"));
        }
    }
    text
}

/// What the simulated engine is to do, as `x-sim` has it.
fn faults(text: &str) -> Faults {
    text.parse().unwrap()
}

/// From now on it does that with every request.
fn always(engine: &Engine, text: &str) {
    engine.set_faults([FaultStep::always(faults(text))]);
}

/// One step per text.
fn in_turn(engine: &Engine, texts: &[&str]) {
    engine.set_faults(texts.iter().map(|text| FaultStep::times(1, faults(text))));
}

fn calls(engine: &Engine) -> u64 {
    engine.state().started
}

/// Adds another engine at the address of one that died.
fn restart(config: &tollgate_bench::engine::EngineConfig) -> Engine {
    until("the address to be free again", || {
        Engine::start(config.clone()).ok()
    })
}

/// How many wait in the queue of a service.
fn depth(gateway: &Gateway, service: &str) -> f64 {
    gateway
        .metrics()
        .sum("tollgate_queue_depth", &[("service", service)])
}

#[track_caller]
fn wait_for_depth(gateway: &Gateway, service: &str, wanted: f64) {
    gateway.wait_for("tollgate_queue_depth", &[("service", service)], |n| {
        n == wanted
    });
}

#[track_caller]
fn assert_fell_back(gateway: &Gateway, from: &str, to: &str, reason: &str, count: f64) {
    let labels = [("from", from), ("to", to), ("reason", reason)];
    gateway.wait_for("tollgate_fallbacks_total", &labels, |n| n == count);
}

/// An answer as an upstream sends it.
fn answer(status: &str, fields: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn ok() -> String {
    answer("200 OK", "", "ok")
}

/// An upstream whose answers follow the number of the request, with the times at which requests came.
struct Script {
    upstream: Upstream,
    seen: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Script {
    /// `answer` gets the request's number and the value of its `x-n`.
    fn start(
        answer: impl Fn(usize, &str, &Connection) -> String + Send + Sync + 'static,
    ) -> Script {
        let seen = Arc::<Mutex<Vec<(Instant, String)>>>::default();
        let theirs = seen.clone();
        let upstream = Upstream::start(move |connection| {
            while let Some(request) = connection.request() {
                let n = request.header("x-n").unwrap_or_default();
                let number = {
                    let mut seen = theirs.lock().unwrap();
                    seen.push((Instant::now(), n.clone()));
                    seen.len() - 1
                };
                let text = answer(number, &n, connection);
                connection.send(text);
            }
        });
        Script { upstream, seen }
    }

    /// These answers in turn, and the last of them for ever.
    fn of(answers: Vec<String>) -> Script {
        Self::start(move |number, _, _| answers[number.min(answers.len() - 1)].clone())
    }

    fn url(&self) -> String {
        self.upstream.url()
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn times(&self) -> Vec<Instant> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|(at, _)| *at)
            .collect()
    }

    fn order(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|(_, n)| n.clone())
            .collect()
    }

    /// The times between requests.
    fn gaps(&self) -> Vec<Duration> {
        self.times()
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .collect()
    }
}

/// It happened in less than this.
#[track_caller]
fn within<T>(limit: Duration, what: &str, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    let took = start.elapsed();
    assert!(took < limit, "{what} took {took:?}");
    result
}
