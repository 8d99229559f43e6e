//! Split requests whose clients leave, and engines that die and come back under them: nothing is held for ever, no id comes twice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tollgate_bench::engine::{Engine, EngineConfig, EngineRole, TransferConfig, TransferState};

use crate::harness::{
    CHAT, Gateway, WAYS, Way, assert_nothing_held, chat, decode, engine_state, post, streamed,
    until,
};

#[test]
fn a_client_that_leaves_cancels_the_leg_that_runs() {
    for way in WAYS.iter().filter(|way| way.asks_prefill) {
        let slow = |config: &mut EngineConfig| config.ttft = Duration::from_secs(20);
        let prefill = way.engine(EngineRole::Prefill, slow);
        let decoder = way.engine(EngineRole::Decode, |_| ());
        let targets = [way.prefill(prefill.address()), decode(decoder.address())];
        let gateway = Gateway::start(&way.service(&targets, "", ""));
        let mut client = gateway.client();
        client.send(post(CHAT, "", streamed("m", 5)));
        engine_state(&prefill, "a prefill", |state| state.running == 1);
        drop(client);
        engine_state(&prefill, "its end", |state| {
            state.running == 0 && state.aborted == 1
        });
        let state = assert_nothing_held(&prefill);
        assert_eq!((state.fetched, state.freed), (0, 1), "{}", way.settings);
        engine_state(&decoder, "no decode", |state| {
            // What it was to fetch may be gone before its own client is.
            state.running == 0 && state.started == state.aborted + state.finished
        });
        gateway.assert_gauges_zero();
    }
}

#[test]
fn a_client_that_leaves_cancels_its_decode() {
    for way in &WAYS {
        let prefill = way.engine(EngineRole::Prefill, |_| ());
        let slow = |config: &mut EngineConfig| config.ttft = Duration::from_secs(20);
        let decoder = way.engine(EngineRole::Decode, slow);
        let targets = [way.prefill(prefill.address()), decode(decoder.address())];
        let gateway = Gateway::start(&way.service(&targets, "", ""));
        let mut client = gateway.client();
        client.send(post(CHAT, "", chat("m")));
        engine_state(&decoder, "a decode", |state| state.running == 1);
        drop(client);
        engine_state(&decoder, "its end", |state| {
            state.running == 0 && state.aborted == 1
        });
        assert_eq!(assert_nothing_held(&prefill).fetched, 1, "{}", way.settings);
        gateway.assert_gauges_zero();
    }
}

const REQUESTS: usize = 1_000;
const CLIENTS: usize = 20;

/// Engines that die and come back at their addresses.
struct Mortals {
    way: &'static Way,
    engines: Vec<(SocketAddr, EngineRole, Option<Engine>)>,
    /// What those that died had counted.
    buried: Vec<TransferState>,
}

impl Mortals {
    fn start(way: &'static Way) -> Mortals {
        use EngineRole::{Decode, Prefill};
        let start = |role| {
            let engine = Engine::start(config(way, role, ([127, 0, 0, 1], 0).into())).unwrap();
            (engine.address(), role, Some(engine))
        };
        Mortals {
            way,
            engines: [Prefill, Prefill, Decode, Decode].map(start).into(),
            buried: Vec::new(),
        }
    }

    fn targets(&self) -> Vec<String> {
        let target = |(address, role, _): &(SocketAddr, EngineRole, _)| match role {
            EngineRole::Prefill => self.way.prefill(*address),
            _ => decode(*address),
        };
        self.engines.iter().map(target).collect()
    }

    /// One that lives dies; one that is dead comes back.
    fn turn(&mut self, index: usize) {
        let (address, role, engine) = &mut self.engines[index];
        match engine.take() {
            Some(engine) => {
                engine.stop();
                self.buried.push(engine.state().transfers);
            }
            None => {
                let config = config(self.way, *role, *address);
                *engine = Some(until("its address", || Engine::start(config.clone()).ok()));
            }
        }
    }
}

fn config(way: &Way, role: EngineRole, address: SocketAddr) -> EngineConfig {
    EngineConfig {
        address,
        ttft: Duration::from_millis(4),
        itl: Duration::from_millis(1),
        transfer: Some(TransferConfig {
            lease: Duration::from_secs(3),
            ..TransferConfig::new(way.protocol, role)
        }),
        ..EngineConfig::default()
    }
}

/// A request; what is wrong with how it ended, if anything is.
fn ask(gateway: &Gateway, number: usize) -> Result<bool, String> {
    let streams = number.is_multiple_of(2);
    let mut client = gateway.client();
    client.send(match streams {
        true => post(CHAT, "", streamed("m", 8)),
        false => post(CHAT, "", chat("m")),
    });
    let reply = client
        .try_reply()
        .map_err(|error| format!("{number}: {error}"))?;
    let last = reply.events().pop().unwrap_or_default();
    match (reply.status, reply.complete) {
        (200, true) if !streams || last == "[DONE]" => Ok(true),
        // It broke off, and says so.
        (200, false) if !streams || last.contains("\"error\"") => Ok(false),
        (500..=504 | 429, true) if reply.text().contains("\"error\"") => Ok(false),
        (status, complete) => Err(format!("{number}: {status} {complete} {}", reply.text())),
    }
}

fn storm(way: &'static Way) {
    let mut mortals = Mortals::start(way);
    let service = "retry = { attempts = 3, budget = 1.0, backoff = \"5ms\" }\ntimeouts = { connect = \"500ms\", first_byte = \"4s\", idle = \"4s\" }\n";
    let upstream = "breaker = { failures = 5, window = \"5s\", open = \"200ms\" }\n";
    let gateway = Gateway::start(&way.service(&mortals.targets(), upstream, service));
    let (next, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let done = AtomicBool::new(false);
    let mut random = StdRng::seed_from_u64(0x0D15_A66E);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut wrong = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= REQUESTS {
                            return wrong;
                        }
                        match ask(&gateway, number) {
                            Ok(true) => drop(served.fetch_add(1, Ordering::SeqCst)),
                            Ok(false) => {}
                            Err(what) => wrong.push(what),
                        }
                    }
                })
            })
            .collect();
        let reaper = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let index = random.random_range(0..mortals.engines.len());
                mortals.turn(index);
                std::thread::sleep(Duration::from_millis(40));
            }
        });
        let wrong = { clients.into_iter() }
            .flat_map(|client| client.join().unwrap())
            .collect();
        done.store(true, Ordering::SeqCst);
        reaper.join().unwrap();
        wrong
    });
    assert!(wrong.is_empty(), "{}: {wrong:#?}", way.settings);
    let served = served.into_inner();
    println!("{}: {served} of {REQUESTS} served", way.settings);
    assert!(
        served > REQUESTS / 4,
        "{}: only {served} were served",
        way.settings
    );
    gateway.assert_gauges_zero();
    for (_, _, engine) in &mortals.engines {
        if let Some(engine) = engine {
            engine_state(engine, "nothing to do", |state| state.running == 0);
            assert_nothing_held(engine);
        }
    }
    assert!(mortals.buried.len() > 3, "{}: nobody died", way.settings);
    for state in &mortals.buried {
        assert_eq!(state.duplicates, 0, "{}: {state:?}", way.settings);
    }
}

#[test]
fn a_storm_of_deaths_with_rooms() {
    storm(&WAYS[0]);
}

#[test]
fn a_storm_of_deaths_with_nixl() {
    storm(&WAYS[1]);
}

#[test]
fn a_storm_of_deaths_with_transfer_ids() {
    storm(&WAYS[3]);
}

#[test]
fn a_storm_of_deaths_with_kvt() {
    storm(&WAYS[4]);
}
