//! Targets that are not to be trusted: by checks, by breakers, and when nobody is left.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollgate_bench::engine::EngineConfig;

use super::{Script, always, answer, calls, faults, offer, ok, restart};
use crate::harness::{
    CHAT, Gateway, Upstream, chat, closed_address, engine, engine_with, post, streamed, until,
};

const CHECKED: &str = "policy = \"round_robin\"\nhealth = { type = \"http\", interval = \"300ms\", timeout = \"200ms\", unhealthy_after = 2 }\n";

fn up(gateway: &Gateway) -> f64 {
    gateway
        .metrics()
        .sum("tollgate_target_up", &[("upstream", "m")])
}

/// Only a target that is known to be down is chosen in panic; one that was not asked yet is not.
fn panic_picks(gateway: &Gateway) -> f64 {
    let labels = [("service", "m")];
    gateway.metrics().sum("tollgate_panic_picks_total", &labels)
}

/// About 200 requests a second; one engine of three dies in the middle, and comes back.
#[test]
fn an_engine_dies_and_nobody_notices() {
    let ms = Duration::from_millis;
    let mut engines: Vec<_> = (0..3)
        .map(|_| engine_with(|config| config.ttft = ms(10)))
        .collect();
    let urls: Vec<String> = engines.iter().map(|e| e.url()).collect();
    let upstream = "breaker = { failures = 5, open = \"60s\" }\nhealth = \"off\"\n";
    let gateway = Gateway::start(&offer("m", "", upstream, &urls));
    let label = engines[0].address().to_string();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    // Each asks every 40 ms.
    let clients = 8;
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    while !stop.load(Ordering::SeqCst) {
                        let start = Instant::now();
                        let reply = client.chat("m", "");
                        reply.assert_ok();
                        sent.fetch_add(1, Ordering::SeqCst);
                        if reply.header("connection") == Some("close") {
                            client = gateway.client();
                        }
                        std::thread::sleep(ms(40).saturating_sub(start.elapsed()));
                    }
                })
            })
            .collect();
        until("some load", || {
            (sent.load(Ordering::SeqCst) > 150).then_some(())
        });
        engines.remove(0).stop();
        let then = sent.load(Ordering::SeqCst);
        until("more load", || {
            (sent.load(Ordering::SeqCst) > then + 400).then_some(())
        });
        stop.store(true, Ordering::SeqCst);
        for client in working {
            client.join().expect("a request was lost");
        }
    });
    let metrics = gateway.metrics();
    let retries = |reason| {
        let labels = [("service", "m"), ("reason", reason)];
        metrics.sum("tollgate_retries_total", &labels)
    };
    // What it held when it died breaks off. Whoever asks it from then on is refused a connection.
    let (broken, refused) = (retries("reset"), retries("connect"));
    assert!(broken <= f64::from(clients), "{broken} broke off");
    assert!(refused >= 1.0, "it died unnoticed");
    // Five open the breaker; who was on the way there by then finds out for itself.
    let most = f64::from(5 + clients - 1);
    assert!(refused <= most, "{refused} requests tried the dead engine");
    let labels = [("upstream", "m")];
    let open = metrics.sum("tollgate_target_breaker_state", &labels);
    assert_eq!(open, 2.0, "one breaker is open: {label}");
    gateway.assert_gauges_zero();
}

/// Out within one interval of crossing the threshold, and back within one of recovering.
#[test]
fn checks_take_a_target_out_and_back() {
    let (sick, well) = (engine(), engine());
    let gateway = Gateway::start(&offer("m", "", CHECKED, &[sick.url(), well.url()]));
    gateway.wait_for("tollgate_target_up", &[("upstream", "m")], |n| n == 2.0);
    // It goes on serving, but says that it is not well.
    sick.set_faults([
        tollgate_bench::engine::FaultStep::always(faults("status=503")).at("/health"),
    ]);
    let start = Instant::now();
    until("the target to be out", || {
        (up(&gateway) == 1.0).then_some(())
    });
    let took = start.elapsed();
    // Two checks 300 ms apart at most, the first within as much.
    assert!(
        took < Duration::from_millis(300 * 2 + 150),
        "out after {took:?}"
    );
    let before = calls(&sick);
    for _ in 0..20 {
        let reply = gateway.client().chat("m", "");
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-attempts"), Some("1"));
    }
    assert_eq!(calls(&sick), before, "a target that is out was asked");
    sick.clear_faults();
    let start = Instant::now();
    until("the target to be back", || {
        (up(&gateway) == 2.0).then_some(())
    });
    let took = start.elapsed();
    assert!(
        took < Duration::from_millis(300 + 150),
        "back after {took:?}"
    );
    let mut client = gateway.client();
    until("requests to reach it", || {
        client.chat("m", "").assert_ok();
        (calls(&sick) > before).then_some(())
    });
    gateway.assert_gauges_zero();
}

/// A check that hangs is a failure, and delays no other target's.
#[test]
fn a_check_that_hangs_is_a_failure() {
    let (hangs, well) = (engine(), engine());
    let step = tollgate_bench::engine::FaultStep::always(faults("delay=30s"));
    hangs.set_faults([step.at("/health")]);
    let start = Instant::now();
    let gateway = Gateway::start(&offer("m", "", CHECKED, &[hangs.url(), well.url()]));
    until("the other to be up", || (up(&gateway) == 1.0).then_some(()));
    assert!(start.elapsed() < Duration::from_millis(1_000));
    for _ in 0..10 {
        gateway.client().chat("m", "").assert_ok();
    }
    assert_eq!(calls(&hangs), 0);
    let gateway = Gateway::start(&offer("m", "", CHECKED, &[hangs.url()]));
    until("it to be known as down", || {
        gateway.client().chat("m", "").assert_ok();
        (panic_picks(&gateway) > 0.0).then_some(())
    });
}

/// Our judgement may be wrong: rather than none, one is tried.
#[test]
fn when_all_are_down_one_is_tried_all_the_same() {
    let engines = [engine(), engine()];
    for engine in &engines {
        engine.set_faults([
            tollgate_bench::engine::FaultStep::always(faults("status=503")).at("/health"),
        ]);
    }
    let urls: Vec<String> = engines.iter().map(|e| e.url()).collect();
    let gateway = Gateway::start(&offer("m", "", CHECKED, &urls));
    let before = until("both to be out", || {
        gateway.client().chat("m", "").assert_ok();
        Some(panic_picks(&gateway)).filter(|n| *n > 0.0)
    });
    for _ in 0..10 {
        gateway.client().chat("m", "").assert_ok();
    }
    assert_eq!(panic_picks(&gateway) - before, 10.0);
    // Dead ones: every other is tried before the client hears of it.
    let urls = [closed_address(), closed_address()].map(|address| format!("http://{address}"));
    let gateway = Gateway::start(&offer("m", "", CHECKED, &urls));
    until("both to be out", || {
        let before = panic_picks(&gateway);
        let reply = gateway.client().chat("m", "");
        reply.assert_refused(502, "upstream_error");
        (panic_picks(&gateway) - before == 3.0).then_some(())
    });
    gateway.assert_gauges_zero();
}

/// What the client did says nothing about the target.
#[test]
fn clients_never_open_a_breaker() {
    let engine = engine();
    let upstream = "breaker = { failures = 1, open = \"60s\" }\n";
    let gateway = Gateway::start(&offer("m", "retry = \"off\"\n", upstream, &[engine.url()]));
    for status in [400, 401, 404, 408, 413, 422, 429] {
        let reply = gateway
            .client()
            .chat("m", &format!("x-sim: status={status}\r\n"));
        assert_eq!(reply.status, status);
    }
    // Clients that leave: before the first byte, in a stream, over HTTP/2, in the middle of their body.
    let mut left = 0.0;
    for (fields, tokens) in [("x-sim: delay=20s\r\n", 5), ("x-sim: itl=50ms\r\n", 500)] {
        let before = calls(&engine);
        let mut client = gateway.client();
        client.send(post(CHAT, fields, streamed("m", tokens)));
        until("the request to arrive", || {
            (calls(&engine) > before).then_some(())
        });
        drop(client);
        left += 1.0;
        gateway.wait_for("tollgate_client_disconnects_total", &[], |n| n == left);
    }
    let before = calls(&engine);
    let fields = [("content-type", "application/json"), ("x-sim", "delay=20s")];
    let mut stream = gateway.h2().open("POST", CHAT, &fields, false);
    stream.send(chat("m"), true).unwrap();
    until("the request to arrive", || {
        (calls(&engine) > before).then_some(())
    });
    stream.cancel();
    gateway.assert_gauges_zero();
    let open = gateway.metrics().sum("tollgate_target_breaker_state", &[]);
    assert_eq!(open, 0.0);
    gateway.client().chat("m", "").assert_ok();
    // And the same breaker does open when it should.
    gateway.client().chat("m", "x-sim: status=500\r\n");
    let open = gateway.metrics().sum("tollgate_target_breaker_state", &[]);
    assert_eq!(open, 2.0);
}

/// Open, half open with one request at a time, closed.
#[test]
fn a_breaker_opens_tries_and_closes() {
    let script = Script::start(|number, _, connection| match number {
        0..=1 => answer("500 Internal Server Error", "", "no"),
        2 => {
            connection.pause(Duration::from_millis(300));
            ok()
        }
        _ => ok(),
    });
    let backup = Upstream::obliging();
    let upstream = "breaker = { failures = 2, open = \"500ms\" }\n";
    let toml = offer(
        "m",
        "retry = \"off\"\nfallback = [\"backup\"]\n",
        upstream,
        &[script.url()],
    ) + &offer("backup", "", "", &[backup.url()]);
    let gateway = Gateway::start(&toml);
    for _ in 0..2 {
        gateway.client().chat("m", "").assert_ok();
    }
    let opened = Instant::now();
    gateway.client().chat("m", "").assert_ok();
    assert_eq!(script.calls(), 2, "an open breaker lets nobody in");
    let mut trial = gateway.client();
    until("the breaker to let one in", || {
        trial.send(post(CHAT, "", chat("m")));
        // The one that is let in takes 300 ms; others are served at once by the other service.
        trial.patience(Duration::from_millis(150));
        let Ok(reply) = trial.try_reply() else {
            return Some(());
        };
        reply.assert_ok();
        None
    });
    trial.patience(crate::harness::PATIENCE);
    assert_eq!(script.calls(), 3);
    assert!(
        opened.elapsed() >= Duration::from_millis(490),
        "{:?}",
        opened.elapsed()
    );
    for _ in 0..5 {
        let reply = gateway.client().chat("m", "");
        assert_eq!(reply.header("x-tollgate-service"), Some("backup"));
    }
    assert_eq!(script.calls(), 3, "one at a time");
    let reply = trial.reply();
    assert_eq!(reply.header("x-tollgate-service"), Some("m"));
    until("the breaker to be closed", || {
        let reply = gateway.client().chat("m", "");
        reply.assert_ok();
        (reply.header("x-tollgate-service") == Some("m")).then_some(())
    });
    gateway.assert_gauges_zero();
}

/// TCP checks, as they are by default: a dead engine is out and, started again, back.
#[test]
fn a_dead_engine_is_found_dead() {
    let (a, b) = (engine(), engine());
    let address = a.address();
    let upstream = "health = { type = \"tcp\", interval = \"300ms\", timeout = \"200ms\" }\n";
    let gateway = Gateway::start(&offer("m", "", upstream, &[a.url(), b.url()]));
    gateway.wait_for("tollgate_target_up", &[("upstream", "m")], |n| n == 2.0);
    drop(a);
    until("the target to be out", || {
        (up(&gateway) == 1.0).then_some(())
    });
    for _ in 0..10 {
        let reply = gateway.client().chat("m", "");
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-attempts"), Some("1"));
    }
    let again = restart(&EngineConfig {
        address,
        ..EngineConfig::default()
    });
    let start = Instant::now();
    until("the target to be back", || {
        (up(&gateway) == 2.0).then_some(())
    });
    assert!(
        start.elapsed() < Duration::from_millis(300 + 150),
        "{:?}",
        start.elapsed()
    );
    drop(again);
    always(&b, "status=200");
    gateway.client().chat("m", "").assert_ok();
}
