//! Llumnix: the queue of requests that a fallback answered 429.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::config::foreign::Fate;

use super::llumnix::{anybody, convert};
use super::{Conversion, answering, assert_from, named};
use crate::harness::{CHAT, Upstream, chat, post, until};

const LATER: &str = "HTTP/1.1 429 Too Many Requests\r\nx-own: 1\r\ncontent-length: 5\r\n\r\nlater";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ncured";

/// Answers 429 so many times, then 200; and when it was asked.
fn busy(times: usize) -> (Upstream, Arc<Mutex<Vec<Instant>>>) {
    let seen = Arc::<Mutex<Vec<Instant>>>::default();
    let theirs = seen.clone();
    let upstream = Upstream::start(move |connection| {
        while connection.request().is_some() {
            let number = {
                let mut seen = theirs.lock().unwrap();
                seen.push(Instant::now());
                seen.len()
            };
            connection.send(if number > times { OK } else { LATER });
        }
    });
    (upstream, seen)
}

/// An internal pool that fails, and these fallbacks.
fn routes(fallbacks: &[&Upstream], flags: &[(&str, &str)]) -> (Conversion, Upstream) {
    let local = answering("500 Internal Server Error");
    let mut routes = vec![json!({"base_url": "local", "prefix": "*"})];
    routes.extend(
        { fallbacks.iter() }.map(|upstream| json!({"base_url": upstream.url(), "fallback": true})),
    );
    let mut all = vec![("route-policy", "prefix"), ("retry-max-count", "0")];
    all.extend(flags);
    let routes = serde_json::Value::from(routes).to_string();
    (convert(&routes, &all, &[local.url()]), local)
}

const ON: (&str, &str) = ("fallback-retry-queue-enabled", "true");

/// 429, 429, 200 are three calls, with waits that double from the first to the longest.
#[test]
fn a_429_is_cured() {
    let (upstream, seen) = busy(3);
    let next = named("next");
    let flags = [
        ON,
        ("fallback-retry-max-count", "-1"),
        ("fallback-retry-init-delay-ms", "100"),
        ("fallback-retry-max-delay-ms", "150"),
    ];
    let (conversion, _local) = routes(&[&upstream, &next], &flags);
    conversion.tells(
        "--fallback-retry-queue-enabled",
        Fate::Adapted,
        "a Retry-After is kept",
    );
    let gateway = conversion.start();
    assert_from(&anybody(&gateway).chat("m"), "cured");
    assert!(next.requests().is_empty());
    let seen = seen.lock().unwrap();
    let gaps = seen.windows(2).map(|pair| pair[1] - pair[0]);
    // With jitter: from half of each wait on. How late a wait may end is not asserted.
    for (gap, whole) in gaps.zip([100, 150, 150]) {
        assert!(
            gap >= Duration::from_millis(whole / 2),
            "{gap:?} of {whole}"
        );
    }
    assert_eq!(seen.len(), 4);
}

/// After so many tries the next fallback is asked; without one the client has the 429, with its headers.
#[test]
fn a_429_that_stays_goes_on() {
    let flags = [
        ON,
        ("fallback-retry-max-count", "2"),
        ("fallback-retry-init-delay-ms", "5"),
    ];
    let (upstream, seen) = busy(usize::MAX);
    let next = named("next");
    let (conversion, local) = routes(&[&upstream, &next], &flags);
    let gateway = conversion.start();
    assert_from(&anybody(&gateway).chat("m"), "next");
    assert_eq!(seen.lock().unwrap().len(), 3);
    assert_eq!(local.requests().len(), 1);

    let (conversion, _local) = routes(&[&upstream], &flags);
    let gateway = conversion.start();
    let reply = anybody(&gateway).chat("m");
    assert_eq!((reply.status, reply.text().as_str()), (429, "later"));
    assert_eq!(reply.header("x-own"), Some("1"));
    assert_eq!(seen.lock().unwrap().len(), 6);
}

/// Another status ends the tries, and the chain goes on.
#[test]
fn another_answer_ends_the_tries() {
    let count = Arc::new(Mutex::new(0));
    let theirs = count.clone();
    let upstream = Upstream::start(move |connection| {
        while connection.request().is_some() {
            let mut count = theirs.lock().unwrap();
            *count += 1;
            connection.send(match *count {
                1 => LATER,
                _ => "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
            });
        }
    });
    let next = named("next");
    let flags = [ON, ("fallback-retry-init-delay-ms", "5")];
    let (conversion, _local) = routes(&[&upstream, &next], &flags);
    let gateway = conversion.start();
    assert_from(&anybody(&gateway).chat("m"), "next");
    assert_eq!(*count.lock().unwrap(), 2);
}

/// Without the queue, or when no try is allowed, a 429 goes on at once.
#[test]
fn without_a_queue_it_goes_on_at_once() {
    for flags in [
        vec![],
        vec![
            ("fallback-retry-queue-enabled", "false"),
            ("fallback-retry-max-count", "5"),
        ],
        vec![ON, ("fallback-retry-max-count", "0")],
    ] {
        let (upstream, seen) = busy(usize::MAX);
        let next = named("next");
        let (conversion, _local) = routes(&[&upstream, &next], &flags);
        let gateway = conversion.start();
        assert_from(&anybody(&gateway).chat("m"), "next");
        assert_eq!(seen.lock().unwrap().len(), 1, "{flags:?}");
    }
}

/// A full queue sends to the next fallback; who waits is not disturbed by it.
#[test]
fn a_full_queue_goes_on_at_once() {
    let (upstream, seen) = busy(2);
    let next = named("next");
    let flags = [
        ON,
        ("fallback-retry-queue-size", "1"),
        ("fallback-retry-worker-size", "1"),
        ("fallback-retry-init-delay-ms", "2000"),
        ("fallback-retry-max-delay-ms", "2000"),
        ("fallback-retry-max-count", "-1"),
    ];
    let (conversion, _local) = routes(&[&upstream, &next], &flags);
    let gateway = conversion.start();
    let mut waiting = gateway.client();
    waiting.send(post(CHAT, "", chat("m")));
    gateway.wait_for("tollgate_queue_depth", &[], |depth| depth == 1.0);
    assert_from(&anybody(&gateway).chat("m"), "next");
    until("both to have been refused", || {
        (seen.lock().unwrap().len() >= 2).then_some(())
    });
    let reply = waiting.reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "cured"));
    gateway.assert_gauges_zero();
}
