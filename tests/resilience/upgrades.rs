//! Many upgrades in a row, under every kind of client at once: no request fails, no stream is cut, nothing goes uncounted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::upgrade::{gone, upgrade};
use crate::harness::{CHAT, Client, Process, chat, engine, get, post, service, streamed, until};

const UPGRADES: usize = 6;

/// What clients saw.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    answered: AtomicUsize,
    streams: AtomicUsize,
    probes: AtomicUsize,
}

impl Seen {
    /// Does something again and again until it is over.
    fn again(&self, count: &AtomicUsize, mut work: impl FnMut()) {
        while !self.over.load(Ordering::SeqCst) {
            work();
            count.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Requests on one connection for as long as the server keeps it.
    fn keep(&self, address: SocketAddr) {
        let mut client = Client::connect(address);
        self.again(&self.answered, || {
            let reply = client.chat("m", "");
            reply.assert_ok();
            assert!(reply.complete);
            if reply.header("connection") == Some("close") {
                client = Client::connect(address);
            }
        });
    }

    /// A connection for every request.
    fn connect(&self, address: SocketAddr) {
        self.again(&self.answered, || {
            let mut client = Client::connect(address);
            let fields = "connection: close\r\n";
            client.send(post(CHAT, fields, chat("m")));
            client.reply().assert_ok();
        });
    }

    fn stream(&self, address: SocketAddr) {
        self.again(&self.streams, || {
            let mut client = Client::connect(address);
            client.send(post(CHAT, "x-sim: itl=40ms\r\n", streamed("m", 20)));
            let reply = client.reply();
            reply.assert_ok();
            let text = reply.text();
            assert!(text.ends_with("data: [DONE]\n\n"), "cut: {text}");
        });
    }

    /// What a load balancer does: readiness, on new connections and on one that is kept.
    fn probe(&self, admin: SocketAddr) {
        let mut kept = Client::connect(admin);
        self.again(&self.probes, || {
            let mut fresh = Client::connect(admin);
            for client in [&mut fresh, &mut kept] {
                client.send(get("/readyz", ""));
                let reply = client.reply();
                assert_eq!(reply.status, 200, "{}", reply.text());
                if reply.header("connection") == Some("close") {
                    *client = Client::connect(admin);
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        });
    }
}

#[test]
fn nobody_notices_upgrades() {
    let engine = engine();
    let plugins = "plugins = [{ name = \"budget\", settings = { by = \"global\", unit = \"tokens\", limit = 1e12 } }, { name = \"rate_limiter\", settings = { limits = { global = { limit = 100000000, window = \"1h\" } } } }]\n";
    let toml = "[server]\nstate = \"./tollgate.db\"\n[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\n".to_owned()
        + plugins
        + &service("m", "m", &engine.url());
    let process = Process::start_own(&toml, &[]);
    let seen = Seen::default();
    let (address, admin) = (process.address, process.admin);
    let mut old = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| seen.keep(address));
            scope.spawn(|| seen.connect(address));
            scope.spawn(|| seen.stream(address));
        }
        scope.spawn(|| seen.probe(admin));
        // It must not outlive a failed assertion below.
        let end = End(&seen.over);
        let start = Instant::now();
        for round in 0..UPGRADES {
            let before = seen.answered.load(Ordering::SeqCst);
            old.push(upgrade(&process).0);
            until("requests to be answered", || {
                (seen.answered.load(Ordering::SeqCst) > before + 20).then_some(())
            });
            if round % 2 == 1 {
                let file = process.path("tollgate.toml");
                let text = std::fs::read_to_string(&file).unwrap();
                std::fs::write(&file, format!("{text}\n# {round}\n")).unwrap();
                process.api().cli(&["reload"]).done();
            }
        }
        while start.elapsed() < Duration::from_secs(6) {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(end);
    });
    for pid in old {
        gone(pid);
    }
    let [answered, streams, probes] =
        [&seen.answered, &seen.streams, &seen.probes].map(|count| count.load(Ordering::SeqCst));
    assert!(streams > 10 && probes > 100, "{streams} {probes}");
    // Every request is in the books of one of the processes, and only once.
    let total = (answered + streams) as u64;
    until("the books to agree", || {
        let usage = process.api().get("/v1/usage?by=service&since=1h").json();
        let requests = usage["items"][0]["requests"].as_u64();
        assert!(requests <= Some(total), "{requests:?} of {total}");
        (requests == Some(total)).then_some(())
    });
    let state = engine.state();
    let tokens = state.prompt_tokens + state.generated_tokens;
    until("the budget to agree", || {
        let file = rusqlite::Connection::open(process.path("tollgate.db")).unwrap();
        file.busy_timeout(Duration::from_secs(5)).unwrap();
        let used: i64 = { &file }
            .query_row("SELECT sum(used) FROM counter", [], |row| row.get(0))
            .unwrap();
        (used == tokens as i64).then_some(())
    });
    // The window has counted all that were admitted, but for what old processes admitted after they had told of theirs: some hundredths of a second's.
    // Had an upgrade begun it anew, most would be missing.
    let reply = process.client().chat("m", "");
    let left: u64 = { reply.header("x-ratelimit-remaining-requests").unwrap() }
        .parse()
        .unwrap();
    let counted = 100_000_000 - left;
    let late = (total + 1).saturating_sub(counted);
    assert!(counted <= total + 1, "{counted} of {total}");
    assert!(late < total / 4, "{late} of {total} were not counted");
    assert!(!process.read("stderr").contains("panicked"));
}

/// Sets what it is made of, also by a panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
