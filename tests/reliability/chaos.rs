//! Engines die, hang, fail, refuse and break off for as long as `TOLLGATE_CHAOS_SECONDS` says, while one of them is well
//! at any time. No client may notice before its answer has begun; who had one that broke must be told.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tollgate_bench::engine::{Engine, EngineConfig};

use super::{always, offer, restart, wait_for_depth};
use crate::harness::{CHAT, Footprint, Gateway, chat, post, streamed};

const CLIENTS: usize = 64;
const SEED: u64 = 0x7011_6a7e;
/// How long one engine stays the one that is well.
const REIGN: Duration = Duration::from_secs(4);
/// How long it and its successor are well together.
const OVERLAP: Duration = Duration::from_millis(1_500);

const TROUBLES: [&str; 7] = [
    "delay=30s",
    "status=500",
    "status=429",
    "status=429, retry-after=1",
    "close-after=2",
    "reset-after=4",
    "drop=reset",
];

#[derive(Default)]
struct Outcome {
    served: AtomicU64,
    broken: AtomicU64,
    lost: Mutex<Vec<String>>,
}

impl Outcome {
    fn lost(&self, what: String) {
        self.lost.lock().unwrap().push(what);
    }
}

#[test]
fn nobody_notices() {
    let seconds = std::env::var("TOLLGATE_CHAOS_SECONDS").ok();
    let seconds: u64 = seconds.and_then(|text| text.parse().ok()).unwrap_or(12);
    let mut engines: Vec<Option<Engine>> = (0..4)
        .map(|_| Some(Engine::start(config(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap()))
        .collect();
    let addresses: Vec<SocketAddr> = engines.iter().flatten().map(Engine::address).collect();
    let urls: Vec<String> = addresses.iter().map(|a| format!("http://{a}")).collect();
    let service = "retry = { attempts = 3, budget = 1.0 }\ntimeouts = { connect = \"500ms\", first_byte = \"500ms\" }\nqueue = { size = 200, workers = 64, max_retries = -1, initial_delay = \"20ms\", max_delay = \"200ms\" }\n";
    let upstream = "breaker = { failures = 5, window = \"5s\", open = \"500ms\" }\nhealth = { type = \"tcp\", interval = \"300ms\", timeout = \"200ms\" }\n";
    let gateway = Gateway::start(&offer("m", service, upstream, &urls));
    let outcome = Outcome::default();
    let mut random = StdRng::seed_from_u64(SEED);
    let mut reign = |seconds| {
        let stop = AtomicBool::new(false);
        let began = Instant::now();
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (gateway, outcome, stop) = (&gateway, &outcome, &stop);
                scope.spawn(move || visit(gateway, number, outcome, stop, began));
            }
            let duration = Duration::from_secs(seconds);
            disturb(&mut engines, &addresses, duration, &mut random);
            stop.store(true, Ordering::SeqCst);
        });
        wait_for_depth(&gateway, "m", 0.0);
        gateway.assert_gauges_zero();
        Footprint::settled()
    };
    // What is kept for good, pools and buffers, is there after a while; what grows from then on leaks.
    let before = reign(seconds.div_ceil(4));
    let after = reign(seconds);
    let metrics = gateway.metrics();
    let count = |name| metrics.sum(name, &[("service", "m")]);
    let (served, broken) = (outcome.served.into_inner(), outcome.broken.into_inner());
    let lost = outcome.lost.into_inner().unwrap();
    println!(
        "served {served}, broken off {broken}, lost {}; {} retries, {} waits, {} panic picks",
        lost.len(),
        count("tollgate_retries_total"),
        count("tollgate_queue_wait_seconds_count"),
        count("tollgate_panic_picks_total"),
    );
    assert!(
        lost.is_empty(),
        "{} of {served} lost: {:#?}",
        lost.len(),
        &lost[..lost.len().min(12)]
    );
    assert!(served > 20 * seconds, "only {served} served");
    assert!(
        broken > 0,
        "no stream was broken: this tested less than it says"
    );
    println!("before {before:?}, after {after:?}");
    assert!(
        after.files <= before.files + 16,
        "sockets leak: {before:?}, {after:?}"
    );
    // Those that wait for the disk come and go.
    assert!(
        after.threads <= before.threads + 2,
        "threads leak: {before:?}, {after:?}"
    );
    assert!(
        after.memory <= before.memory + (16 << 20),
        "memory leaks: {before:?}, {after:?}"
    );
}

fn config(address: SocketAddr) -> EngineConfig {
    EngineConfig {
        address,
        ttft: Duration::from_millis(30),
        itl: Duration::from_millis(4),
        ..EngineConfig::default()
    }
}

/// One client: it keeps its connection for as long as it may.
fn visit(gateway: &Gateway, number: usize, outcome: &Outcome, stop: &AtomicBool, began: Instant) {
    let streams = number.is_multiple_of(2);
    let mut client = gateway.client();
    while !stop.load(Ordering::SeqCst) {
        client.send(match streams {
            true => post(CHAT, "", streamed("m", 12)),
            false => post(CHAT, "", chat("m")),
        });
        let asked = Instant::now();
        let what = format!("client {number} at {:?}", asked - began);
        let again = match client.try_reply() {
            Err(error) => {
                outcome.lost(format!("{what}: {error} after {:?}", asked.elapsed()));
                true
            }
            Ok(reply) if reply.status != 200 => {
                let tries = reply.header("x-tollgate-attempts").unwrap_or("?");
                let (status, text) = (reply.status, reply.text());
                outcome.lost(format!(
                    "{what}: {status} after {:?} and {tries} tries: {text}",
                    asked.elapsed()
                ));
                true
            }
            Ok(reply) if reply.complete => {
                let ends = !streams || reply.events().last().is_some_and(|last| last == "[DONE]");
                if ends {
                    outcome.served.fetch_add(1, Ordering::SeqCst);
                } else {
                    outcome.lost(format!("{what}: looks complete: {}", reply.text()));
                }
                reply.header("connection") == Some("close")
            }
            Ok(reply) => {
                let told = reply
                    .events()
                    .last()
                    .is_some_and(|last| last.contains("\"error\""));
                if streams && !told {
                    outcome.lost(format!(
                        "{what}: broken off without a word: {}",
                        reply.text()
                    ));
                }
                outcome.broken.fetch_add(1, Ordering::SeqCst);
                true
            }
        };
        if again {
            client = gateway.client();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every engine but the one that is well, and its successor, gets into trouble.
fn disturb(
    engines: &mut [Option<Engine>],
    addresses: &[SocketAddr],
    duration: Duration,
    random: &mut StdRng,
) {
    let began = Instant::now();
    let (mut well, mut next) = (0, None);
    let mut since = Instant::now();
    while began.elapsed() < duration {
        if next.is_none() && since.elapsed() > REIGN - OVERLAP {
            let chosen = (well + random.random_range(1..engines.len())) % engines.len();
            heal(&mut engines[chosen], addresses[chosen]);
            next = Some(chosen);
        }
        if let Some(successor) = next.filter(|_| since.elapsed() > REIGN) {
            (well, next, since) = (successor, None, Instant::now());
        }
        let victim = random.random_range(0..engines.len());
        if victim != well && Some(victim) != next {
            let engine = &mut engines[victim];
            match random.next_u32() % 10 {
                0 | 1 => heal(engine, addresses[victim]),
                2 | 3 => drop(engine.take()),
                n => {
                    heal(engine, addresses[victim]);
                    let trouble =
                        TROUBLES[(n as usize + random.random_range(0..7)) % TROUBLES.len()];
                    always(engine.as_ref().unwrap(), trouble);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(120));
    }
    for (engine, address) in engines.iter_mut().zip(addresses) {
        heal(engine, *address);
    }
}

fn heal(engine: &mut Option<Engine>, address: SocketAddr) {
    match engine {
        Some(engine) => engine.clear_faults(),
        None => *engine = Some(restart(&config(address))),
    }
}
