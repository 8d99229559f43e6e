//! The 429 queue: a service that said "later" is asked again, in order and within bounds.

use std::time::{Duration, Instant};

use super::{
    Script, always, answer, assert_fell_back, depth, in_turn, offer, ok, wait_for_depth, within,
};
use crate::harness::{
    CHAT, Client, Gateway, Upstream, chat, chunked, engine, h2c, padded, post, unix_nanos, until,
};

const LATER: &str = "429 Too Many Requests";
const SLACK: Duration = Duration::from_millis(150);

fn later() -> String {
    answer(
        LATER,
        "x-own: 1\r\ncontent-type: text/plain\r\n",
        "slow down",
    )
}

fn queue(knobs: &str) -> String {
    format!("retry = \"off\"\nqueue = {{ {knobs} }}\n")
}

fn with_backup(service: &str, target: &str, backup: &Upstream) -> String {
    offer(
        "m",
        &format!("{service}fallback = [\"backup\"]\n"),
        "",
        &[target.to_owned()],
    ) + &offer("backup", "", "", &[backup.url()])
}

/// Sends a request and leaves its answer for later.
fn ask(gateway: &Gateway, n: usize) -> Client {
    let mut client = gateway.client();
    client.send(post(CHAT, &format!("x-n: {n}\r\n"), chat("m")));
    client
}

#[test]
fn two_refusals_and_an_answer_are_one_answer() {
    let ms = Duration::from_millis;
    for (length, in_chunks) in [(200, false), (200_000, false), (200_000, true)] {
        let script = Script::of(vec![later(), later(), later(), ok()]);
        let service = queue("initial_delay = \"100ms\"");
        let gateway = Gateway::start(&offer("m", &service, "", &[script.url()]));
        let mut client = gateway.client();
        let body = padded("m", length);
        client.send(match in_chunks {
            true => chunked(CHAT, "", &body, 10_000),
            false => post(CHAT, "", &body),
        });
        let reply = client.reply();
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-attempts"), Some("4"));
        assert_eq!(script.calls(), 4);
        for (gap, whole) in script.gaps().into_iter().zip([100, 200, 400]) {
            assert!(
                gap >= ms(whole) / 2 && gap <= ms(whole) + SLACK,
                "{gap:?} of {whole}"
            );
        }
        for request in script.upstream.requests() {
            assert!(request.body == body, "another body");
        }
        gateway.assert_gauges_zero();
        assert_eq!(depth(&gateway, "m"), 0.0);
    }
}

/// Waits grow up to their bound: 40, 80, 100, 100.
#[test]
fn waits_are_bounded() {
    let script = Script::of(vec![later(), later(), later(), later(), ok()]);
    let service = queue("initial_delay = \"40ms\", max_delay = \"100ms\", max_retries = -1");
    let gateway = Gateway::start(&offer("m", &service, "", &[script.url()]));
    gateway.client().chat("m", "").assert_ok();
    for (gap, whole) in script.gaps().into_iter().zip([40, 80, 100, 100]) {
        let whole = Duration::from_millis(whole);
        assert!(
            gap >= whole / 2 && gap <= whole + SLACK,
            "{gap:?} of {whole:?}"
        );
    }
}

#[test]
fn seconds_to_wait_are_waited() {
    let told = answer(LATER, "retry-after: 2\r\n", "");
    let script = Script::of(vec![told, ok()]);
    let gateway = Gateway::start(&offer(
        "m",
        &queue("initial_delay = \"9s\""),
        "",
        &[script.url()],
    ));
    gateway.client().chat("m", "").assert_ok();
    let late = script.gaps()[0].as_secs_f64() - 2.0;
    assert!((-0.005..=0.1).contains(&late), "{late} s late");
}

#[test]
fn a_date_to_wait_for_is_waited_for() {
    let at = (unix_nanos() / 1_000_000_000) as i64 + 2;
    let date = jiff::Timestamp::from_second(at).unwrap();
    let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let told = answer(LATER, &format!("retry-after: {date}\r\n"), "");
    let script = Script::of(vec![told, ok()]);
    let gateway = Gateway::start(&offer(
        "m",
        &queue("initial_delay = \"9s\", max_delay = \"9s\""),
        "",
        &[script.url()],
    ));
    gateway.client().chat("m", "").assert_ok();
    let (came, now) = (script.times()[1], Instant::now());
    let came = unix_nanos() as i128 - (now - came).as_nanos() as i128;
    let late = came - i128::from(at) * 1_000_000_000;
    assert!((-5_000_000..=150_000_000).contains(&late), "{late} ns late");
}

#[test]
fn when_waiting_was_in_vain_the_last_refusal_is_the_answer() {
    for (retries, calls) in [(2, 3), (1, 2), (0, 1)] {
        let script = Script::of(vec![later()]);
        let service = queue(&format!(
            "initial_delay = \"20ms\", max_retries = {retries}"
        ));
        let gateway = Gateway::start(&offer("m", &service, "", &[script.url()]));
        let reply = gateway.client().chat("m", "");
        assert_eq!(reply.status, 429);
        assert_eq!(script.calls(), calls);
        assert_eq!(reply.header("x-own"), Some("1"), "{retries}");
        assert_eq!(reply.text(), "slow down", "max_retries = {retries}");
        assert!(reply.complete);
        let attempts = calls.to_string();
        assert_eq!(reply.header("x-tollgate-attempts"), Some(attempts.as_str()));
        gateway.assert_gauges_zero();
    }
}

#[test]
fn who_is_told_to_wait_too_long_goes_elsewhere_at_once() {
    let told = answer(LATER, "retry-after: 60\r\nx-own: 1\r\n", "come back");
    let upstream = Upstream::replying(told);
    let backup = Upstream::obliging();
    let service = queue("max_wait = \"1s\"");
    let gateway = Gateway::start(&with_backup(&service, &upstream.url(), &backup));
    let reply = within(Duration::from_millis(500), "falling back", || {
        gateway.client().chat("m", "")
    });
    reply.assert_ok();
    assert_eq!(reply.header("x-tollgate-service"), Some("backup"));
    assert_eq!(upstream.requests().len(), 1);
    assert_fell_back(&gateway, "m", "backup", "429", 1.0);
    // Its target cools: nobody else asks it.
    let reply = gateway.client().chat("m", "");
    assert_eq!(reply.header("x-tollgate-attempts"), Some("1"));
    assert_eq!(upstream.requests().len(), 1);
    // Nobody else serves.
    let gateway = Gateway::start(&offer("m", &service, "", &[upstream.url()]));
    let reply = within(Duration::from_millis(500), "giving up", || {
        gateway.client().chat("m", "")
    });
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, Some("60"))
    );
    assert_eq!(upstream.requests().len(), 2);
    assert_eq!(reply.text(), "come back");
}

#[test]
fn one_more_than_may_wait_does_not_wait() {
    let upstream = Upstream::replying(later());
    let backup = Upstream::obliging();
    let service = queue("size = 3, initial_delay = \"8s\", max_delay = \"8s\"");
    for falls_back in [true, false] {
        let toml = match falls_back {
            true => with_backup(&service, &upstream.url(), &backup),
            false => offer("m", &service, "", &[upstream.url()]),
        };
        let gateway = Gateway::start(&toml);
        let mut waiting: Vec<Client> = (0..3).map(|n| ask(&gateway, n)).collect();
        wait_for_depth(&gateway, "m", 3.0);
        let reply = within(Duration::from_millis(500), "the fourth", || {
            gateway.client().chat("m", "")
        });
        match falls_back {
            true => {
                reply.assert_ok();
                assert_eq!(reply.header("x-tollgate-service"), Some("backup"));
            }
            false => {
                assert_eq!(reply.status, 429);
                assert_eq!(reply.header("x-own"), Some("1"));
                assert_eq!(reply.text(), "slow down");
            }
        }
        // Who leaves makes room at once.
        for left in (0..3).rev() {
            waiting.pop();
            let gone = Instant::now();
            wait_for_depth(&gateway, "m", f64::from(left));
            let took = gone.elapsed();
            assert!(
                took < Duration::from_millis(100),
                "the place was kept for {took:?}"
            );
        }
        gateway.assert_gauges_zero();
        gateway.wait_for("tollgate_client_disconnects_total", &[], |n| n == 3.0);
    }
}

#[test]
fn an_http2_client_that_leaves_frees_its_place() {
    let upstream = Upstream::replying(later());
    let service = queue("size = 1, initial_delay = \"8s\", max_delay = \"8s\"");
    let gateway = Gateway::start(&offer("m", &service, "", &[upstream.url()]));
    let client = gateway.h2();
    let mut stream = client.open("POST", CHAT, &[("content-type", "application/json")], false);
    stream.send(chat("m"), true).unwrap();
    wait_for_depth(&gateway, "m", 1.0);
    stream.cancel();
    let gone = Instant::now();
    wait_for_depth(&gateway, "m", 0.0);
    assert!(
        gone.elapsed() < Duration::from_millis(100),
        "{:?}",
        gone.elapsed()
    );
    gateway.assert_gauges_zero();
}

#[test]
fn another_status_ends_the_waiting() {
    let failed = answer("500 Internal Server Error", "x-own: 2\r\n", "broken");
    let backup = Upstream::obliging();
    let service = queue("initial_delay = \"20ms\"");
    let script = Script::of(vec![later(), failed.clone(), ok()]);
    let gateway = Gateway::start(&with_backup(&service, &script.url(), &backup));
    let reply = gateway.client().chat("m", "");
    reply.assert_ok();
    assert_eq!(reply.header("x-tollgate-service"), Some("backup"));
    assert_eq!(script.calls(), 2);
    assert_fell_back(&gateway, "m", "backup", "5xx", 1.0);
    for (text, status, body) in [
        (failed, 500, "broken"),
        (answer("400 Bad Request", "", "yours"), 400, "yours"),
    ] {
        let script = Script::of(vec![later(), text, ok()]);
        let gateway = Gateway::start(&offer("m", &service, "", &[script.url()]));
        let reply = gateway.client().chat("m", "");
        assert_eq!((reply.status, reply.text()), (status, body.to_owned()));
        assert_eq!(script.calls(), 2);
        gateway.assert_gauges_zero();
    }
}

/// Each time it is sent again, a request has its retries anew.
#[test]
fn a_second_round_has_its_own_retries() {
    let failed = answer("500 Internal Server Error", "", "broken");
    let rounds = vec![
        failed.clone(),
        later(),
        failed.clone(),
        later(),
        failed,
        ok(),
    ];
    let script = Script::of(rounds);
    let service =
        "retry = { attempts = 1, backoff = \"1ms\" }\nqueue = { initial_delay = \"20ms\" }\n";
    let gateway = Gateway::start(&offer("m", service, "", &[script.url()]));
    let reply = gateway.client().chat("m", "");
    reply.assert_ok();
    assert_eq!(reply.header("x-tollgate-attempts"), Some("6"));
    let labels = [("service", "m"), ("reason", "5xx")];
    let retries = gateway.metrics().sum("tollgate_retries_total", &labels);
    assert_eq!(retries, 3.0);
    gateway.assert_gauges_zero();
}

/// The same over HTTP/2 upstreams: the queue, the fallback, and what is left when all fail.
#[test]
fn http2_upstreams_are_waited_for_and_passed_over() {
    let engines = [engine(), engine()];
    let service = "retry = \"off\"\nqueue = { initial_delay = \"20ms\" }\nfallback = [\"b\"]\n";
    let toml = offer("m", service, "", &[h2c(&engines[0])])
        + &offer("b", "retry = \"off\"\n", "", &[h2c(&engines[1])]);
    let gateway = Gateway::start(&toml);
    let ask = |mut client: Client, length: usize| {
        client.send(post(CHAT, "", padded("m", length)));
        client.reply()
    };
    for length in [200, 200_000] {
        in_turn(&engines[0], &["status=429", "status=429"]);
        let reply = ask(gateway.client(), length);
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-service"), Some("m"));
        assert_eq!(reply.header("x-tollgate-attempts"), Some("3"));
        always(&engines[0], "status=500, body=first");
        let reply = ask(gateway.client(), length);
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-service"), Some("b"));
        always(&engines[1], "status=503, body=last");
        let reply = ask(gateway.client(), length);
        assert_eq!((reply.status, reply.text()), (503, "last".into()));
        engines.iter().for_each(|engine| engine.clear_faults());
    }
    gateway.assert_gauges_zero();
}

/// The one worker is held up while the others become due: then they go in the order in which they came.
#[test]
fn first_come_is_first_served() {
    let seen = std::sync::Mutex::new(std::collections::HashSet::new());
    let script = Script::start(move |_, n, connection| {
        if seen.lock().unwrap().insert(n.to_owned()) {
            return later();
        }
        if n == "0" {
            connection.pause(Duration::from_millis(1_200));
        }
        ok()
    });
    let service = queue("workers = 1, initial_delay = \"200ms\"");
    let gateway = Gateway::start(&offer("m", &service, "", &[script.url()]));
    let mut clients = vec![ask(&gateway, 0)];
    until("the worker to be busy", || {
        (script.calls() == 2).then_some(())
    });
    for n in 1..5 {
        clients.push(ask(&gateway, n));
        wait_for_depth(&gateway, "m", n as f64);
    }
    for client in &mut clients {
        client.reply().assert_ok();
    }
    assert_eq!(
        script.order(),
        ["0", "0", "1", "2", "3", "4", "1", "2", "3", "4"]
    );
    wait_for_depth(&gateway, "m", 0.0);
    gateway.assert_gauges_zero();
}

/// A target that asks for patience gets it from everybody.
#[test]
fn a_target_cools_for_all() {
    let told = answer(LATER, "retry-after: 1\r\n", "");
    let a = Script::of(vec![told, ok()]);
    let b = Upstream::obliging();
    let gateway = Gateway::start(&offer(
        "m",
        "",
        "policy = \"round_robin\"\n",
        &[a.url(), b.url()],
    ));
    until("the refusal", || {
        (gateway.client().chat("m", "").status == 429).then_some(())
    });
    let mut client = gateway.client();
    for _ in 0..20 {
        client.chat("m", "").assert_ok();
    }
    assert_eq!(a.calls(), 1, "the cooling target was asked");
    until("the target to be asked again", || {
        client.chat("m", "").assert_ok();
        (a.calls() > 1).then_some(())
    });
    let gap = a.gaps()[0];
    assert!(
        gap >= Duration::from_millis(990) && gap <= Duration::from_millis(1_300),
        "{gap:?}"
    );
}

/// With nobody else to ask, who finds the only target cooling waits too, instead of asking it before its time.
#[test]
fn nobody_asks_a_cooling_target_before_its_time() {
    let told = answer(LATER, "retry-after: 1\r\n", "");
    let script = Script::of(vec![told, ok()]);
    let gateway = Gateway::start(&offer("m", &queue("size = 10"), "", &[script.url()]));
    let mut first = ask(&gateway, 0);
    wait_for_depth(&gateway, "m", 1.0);
    let mut second = ask(&gateway, 1);
    first.reply().assert_ok();
    second.reply().assert_ok();
    let gap = script.gaps()[0];
    assert!(gap >= Duration::from_millis(990), "asked after {gap:?}");
}
