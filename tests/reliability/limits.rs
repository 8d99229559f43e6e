//! How much a target takes at once, and what becomes of the rest.

use std::time::{Duration, Instant};

use super::{Script, assert_fell_back, depth, offer, ok, wait_for_depth, within};
use crate::harness::{
    CHAT, Client, Footprint, Gateway, Upstream, chat, engine, engine_state, get, post, streamed,
    until,
};

const TWO: &str = "max_in_flight = 2\n";

fn ask(gateway: &Gateway, fields: &str) -> Client {
    let mut client = gateway.client();
    client.send(post(CHAT, fields, chat("m")));
    client
}

/// An upstream that answers each request when it is told to: `x-n: <milliseconds>`.
fn slow() -> Script {
    Script::start(|_, n, connection| {
        let time = n.split('-').next().and_then(|text| text.parse().ok());
        connection.pause(Duration::from_millis(time.unwrap_or(0)));
        ok()
    })
}

#[test]
fn who_finds_no_room_waits_for_it() {
    let engine = engine();
    let gateway = Gateway::start(&offer("m", "queue = true\n", TWO, &[engine.url()]));
    let mut clients: Vec<Client> = (0..2)
        .map(|_| ask(&gateway, "x-sim: delay=600ms\r\n"))
        .collect();
    engine_state(&engine, "two to run", |state| state.started == 2);
    clients.push(ask(&gateway, ""));
    wait_for_depth(&gateway, "m", 1.0);
    assert_eq!(engine.state().started, 2, "the third was sent at once");
    for client in &mut clients {
        client.reply().assert_ok();
    }
    assert_eq!(engine.state().started, 3);
    wait_for_depth(&gateway, "m", 0.0);
    gateway.wait_for(
        "tollgate_queue_wait_seconds_count",
        &[("service", "m")],
        |n| n == 1.0,
    );
    gateway.assert_gauges_zero();
}

/// Who waits costs a connection, its request and a timer. Both ends of each connection are in this process, and it is not built for
/// size; bench/README.md says what a release takes.
#[test]
fn waiting_costs_little() {
    const WAITING: usize = 1_000;
    let engine = engine();
    let queue = "queue = { size = 2000, max_wait = \"120s\" }\n";
    let gateway = Gateway::start(&offer("m", queue, "max_in_flight = 1\n", &[engine.url()]));
    let first = ask(&gateway, "x-sim: delay=120s\r\n");
    engine_state(&engine, "one to run", |state| state.started == 1);
    let before = Footprint::settled();
    let clients: Vec<Client> = (0..WAITING).map(|_| ask(&gateway, "")).collect();
    wait_for_depth(&gateway, "m", WAITING as f64);
    let after = Footprint::settled();
    assert_eq!(after.threads, before.threads);
    let each = (after.memory - before.memory) / WAITING;
    println!("{each} bytes each");
    assert!(each < 100 << 10, "{each} bytes each");
    drop((clients, first));
    wait_for_depth(&gateway, "m", 0.0);
    gateway.assert_gauges_zero();
    assert_eq!(engine.state().started, 1, "somebody was sent after it left");
}

/// Who waits does so outside of Pingora: what is sent meanwhile, and later, is served like anything else on the connection.
#[test]
fn a_connection_outlives_the_waiting_of_its_requests() {
    let engine = engine();
    let toml = offer(
        "m",
        "queue = true\n",
        "max_in_flight = 1\n",
        &[engine.url()],
    );
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    for round in 0..3 {
        let mut first = ask(&gateway, "x-sim: delay=300ms\r\n");
        engine_state(&engine, "one to run", |state| {
            state.started == round * 4 + 1
        });
        client.send(post(CHAT, "", chat("m")));
        wait_for_depth(&gateway, "m", 1.0);
        client.send(post(CHAT, "x-sim: status=400\r\n", chat("m")));
        first.reply().assert_ok();
        client.reply().assert_ok();
        assert_eq!(client.reply().status, 400);
        client.send(post(CHAT, "", chat("m")));
        client.reply().assert_ok();
        assert_eq!(engine.state().started, round * 4 + 4);
    }
    gateway.assert_gauges_zero();
}

/// Two services over one upstream: what one gives back the other may take.
#[test]
fn room_that_another_service_gives_back_is_taken() {
    let engine = engine();
    let service = |name: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nmodels = [\"{name}\"]\nupstream = \"m\"\nqueue = true\n"
        )
    };
    let toml = offer("m", "", "max_in_flight = 1\n", &[engine.url()]) + &service("other");
    let gateway = Gateway::start(&toml);
    let mut first = ask(&gateway, "x-sim: delay=400ms\r\n");
    engine_state(&engine, "one to run", |state| state.started == 1);
    let mut second = gateway.client();
    second.send(post(CHAT, "", chat("other")));
    wait_for_depth(&gateway, "other", 1.0);
    first.reply().assert_ok();
    within(Duration::from_millis(250), "taking the place", || {
        second.reply().assert_ok()
    });
    gateway.assert_gauges_zero();
}

#[test]
fn who_came_first_gets_the_place() {
    let script = slow();
    let gateway = Gateway::start(&offer(
        "m",
        "queue = true\n",
        "max_in_flight = 1\n",
        &[script.url()],
    ));
    let mut clients = vec![ask(&gateway, "x-n: 500\r\n")];
    until("the first to be served", || {
        (script.calls() == 1).then_some(())
    });
    for n in 1..6 {
        clients.push(ask(&gateway, &format!("x-n: 5-{n}\r\n")));
        wait_for_depth(&gateway, "m", f64::from(n));
    }
    for client in &mut clients {
        client.reply().assert_ok();
    }
    assert_eq!(script.order(), ["500", "5-1", "5-2", "5-3", "5-4", "5-5"]);
    gateway.assert_gauges_zero();
}

/// The limit is kept under load, and everybody is served.
#[test]
fn a_limit_is_never_exceeded() {
    let engine = engine();
    let gateway = Gateway::start(&offer(
        "m",
        "queue = { size = 100 }\n",
        TWO,
        &[engine.url()],
    ));
    let most = std::sync::atomic::AtomicI64::new(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..24)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    for _ in 0..8 {
                        client.chat("m", "x-sim: ttft=5ms\r\n").assert_ok();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let now = engine.state().running;
                most.fetch_max(now, std::sync::atomic::Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        for end in ended {
            end.unwrap();
        }
    });
    assert_eq!(most.into_inner(), 2);
    assert_eq!(engine.state().started, 24 * 8);
    wait_for_depth(&gateway, "m", 0.0);
    gateway.assert_gauges_zero();
}

#[test]
fn without_a_queue_the_rest_is_refused() {
    let engine = engine();
    let gateway = Gateway::start(&offer("m", "", TWO, &[engine.url()]));
    let mut clients: Vec<Client> = (0..2)
        .map(|_| ask(&gateway, "x-sim: delay=400ms\r\n"))
        .collect();
    engine_state(&engine, "two to run", |state| state.started == 2);
    let reply = within(Duration::from_millis(300), "the refusal", || {
        gateway.client().chat("m", "")
    });
    reply.assert_refused(503, "overloaded");
    assert!(reply.header("retry-after").is_some());
    for client in &mut clients {
        client.reply().assert_ok();
    }
    assert_eq!(engine.state().started, 2);
    gateway.client().chat("m", "").assert_ok();
    gateway.assert_gauges_zero();
}

/// With another service to go to, full is no end: without a queue at once, with one when that is full too.
#[test]
fn what_finds_no_room_falls_back() {
    for (service, waiting) in [("", 0), ("queue = { size = 1 }\n", 1)] {
        let engine = engine();
        let backup = Upstream::obliging();
        let toml = offer(
            "m",
            &format!("{service}fallback = [\"backup\"]\n"),
            TWO,
            &[engine.url()],
        ) + &offer("backup", "", "", &[backup.url()]);
        let gateway = Gateway::start(&toml);
        let mut clients: Vec<Client> = (0..2)
            .map(|_| ask(&gateway, "x-sim: delay=800ms\r\n"))
            .collect();
        engine_state(&engine, "two to run", |state| state.started == 2);
        for _ in 0..waiting {
            clients.push(ask(&gateway, ""));
        }
        wait_for_depth(&gateway, "m", f64::from(waiting));
        let reply = within(Duration::from_millis(400), "falling back", || {
            gateway.client().chat("m", "")
        });
        assert_eq!(reply.status, 200, "{service}: {}", reply.text());
        assert_eq!(reply.header("x-tollgate-service"), Some("backup"));
        assert_fell_back(&gateway, "m", "backup", "full", 1.0);
        for client in &mut clients {
            client.reply().assert_ok();
        }
        gateway.assert_gauges_zero();
    }
}

/// Waiting for room ends, too, and then another service serves.
#[test]
fn waiting_for_room_is_bounded() {
    for falls_back in [true, false] {
        let engine = engine();
        let backup = Upstream::obliging();
        let service = "queue = { max_wait = \"300ms\" }\n";
        let more = if falls_back {
            "fallback = [\"backup\"]\n"
        } else {
            ""
        };
        let toml = offer(
            "m",
            &format!("{service}{more}"),
            "max_in_flight = 1\n",
            &[engine.url()],
        ) + &offer("backup", "", "", &[backup.url()]);
        let gateway = Gateway::start(&toml);
        let mut first = ask(&gateway, "x-sim: delay=1500ms\r\n");
        engine_state(&engine, "one to run", |state| state.started == 1);
        let start = Instant::now();
        let reply = gateway.client().chat("m", "");
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(290) && took < Duration::from_millis(700),
            "{took:?}"
        );
        match falls_back {
            true => assert_eq!(
                (reply.status, reply.header("x-tollgate-service")),
                (200, Some("backup")),
                "{}",
                reply.text()
            ),
            false => reply.assert_refused(503, "overloaded"),
        }
        assert_eq!(depth(&gateway, "m"), 0.0);
        first.reply().assert_ok();
        gateway.assert_gauges_zero();
    }
}

#[test]
fn who_leaves_while_waiting_frees_the_place() {
    let script = slow();
    let gateway = Gateway::start(&offer(
        "m",
        "queue = { size = 2 }\n",
        "max_in_flight = 1\n",
        &[script.url()],
    ));
    let mut first = ask(&gateway, "x-n: 900\r\n");
    until("the first to be served", || {
        (script.calls() == 1).then_some(())
    });
    let head = ask(&gateway, "x-n: 1\r\n");
    wait_for_depth(&gateway, "m", 1.0);
    let mut next = ask(&gateway, "x-n: 2\r\n");
    wait_for_depth(&gateway, "m", 2.0);
    // The head of the line leaves: the one behind it must still be called.
    drop(head);
    let gone = Instant::now();
    wait_for_depth(&gateway, "m", 1.0);
    assert!(
        gone.elapsed() < Duration::from_millis(100),
        "{:?}",
        gone.elapsed()
    );
    first.reply().assert_ok();
    next.reply().assert_ok();
    assert_eq!(script.order(), ["900", "2"]);
    wait_for_depth(&gateway, "m", 0.0);
    gateway.assert_gauges_zero();
}

/// A target's own limit wins over its upstream's, and room anywhere is room.
#[test]
fn each_target_has_its_own_limit() {
    let (a, b) = (engine(), engine());
    let small = format!("{{ url = \"{}\", max_in_flight = 1 }}", a.url());
    let gateway = Gateway::start(&offer("m", "", TWO, &[small, b.url()]));
    let mut clients: Vec<Client> = (0..3)
        .map(|_| ask(&gateway, "x-sim: delay=400ms\r\n"))
        .collect();
    engine_state(&a, "one on the small", |state| state.started == 1);
    engine_state(&b, "two on the other", |state| state.started == 2);
    gateway
        .client()
        .chat("m", "")
        .assert_refused(503, "overloaded");
    for client in &mut clients {
        client.reply().assert_ok();
    }
    gateway.assert_gauges_zero();
}

/// With the last byte of its answer a client has everything: whoever asks next finds room, on whichever connection, and whichever
/// road the request takes.
#[test]
fn who_has_its_answer_holds_no_place() {
    const ROUNDS: usize = 1_000;
    let engine = engine();
    let one = "max_in_flight = 1\n";
    let prefix = "path_prefix = \"/m\"\nstrip_prefix = true\n";
    let gateway = Gateway::start(&offer("m", prefix, one, &[engine.url()]));
    let kinds = [
        post(CHAT, "", chat("m")),
        post(CHAT, "", streamed("m", 3)),
        get("/m/v1/models", ""),
    ];
    for request in kinds {
        let mut clients = [gateway.client(), gateway.client()];
        for round in 0..ROUNDS {
            for client in &mut clients {
                client.send(&request);
                let reply = client.reply();
                assert_eq!(reply.status, 200, "round {round}: {}", reply.text());
            }
        }
    }
    gateway.assert_gauges_zero();
}
