//! A process that is killed while many change its configuration, again and again: what was answered is there, what was under way is there
//! whole or not at all.
//!
//! When it dies is drawn from `TOLLGATE_KILL_SEED`; the seed of a run that failed stands in its message.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::harness::{Client, Process, Reply, Upstream, request, service};

const KILLS: u64 = 20;
const WRITERS: usize = 3;
const SEED: u64 = 0x5107_4a11;
/// How long a storm lasts, in microseconds: some die with their first change, some after many.
const LASTS: std::ops::Range<u64> = 1_000..300_000;

/// The number that each resource carries in a label, by its address. What is not there has none.
type Numbers = BTreeMap<String, u64>;

/// Somebody who changes resources of his own, one change after the other.
struct Writer {
    name: String,
    url: String,
    /// What he was told.
    known: Numbers,
    /// What he asked for and was not told of: what each address would have, 0 for nothing.
    open: Vec<(String, u64)>,
    number: u64,
}

/// A change: how it is asked for, and what each address has then, 0 for nothing.
struct Step {
    method: &'static str,
    path: String,
    body: Value,
    gives: Vec<(String, u64)>,
}

impl Writer {
    fn new(name: String, url: &str) -> Writer {
        let url = url.to_owned();
        let (known, open) = (Numbers::new(), Vec::new());
        Writer {
            name,
            url,
            known,
            open,
            number: 0,
        }
    }

    /// All addresses he ever writes to.
    fn addresses(&self) -> Vec<String> {
        let name = &self.name;
        let own = [
            "services/NAME-s",
            "keys/NAME-k",
            "gateways/NAME-t",
            "upstreams/pool/targets/NAME-r",
            "upstreams/NAME-u",
            "services/NAME-g",
            "rules/NAME-q",
        ];
        own.iter()
            .map(|path| format!("/v1/{}", path.replace("NAME", name)))
            .collect()
    }

    fn next(&mut self, random: &mut StdRng) -> Step {
        self.number += 1;
        let number = self.number;
        let all = self.addresses();
        let chosen = random.random_range(0..all.len());
        let path = all[chosen].clone();
        if chosen >= 4 {
            return self.together(&all[4..]);
        }
        let mut body = json!({"labels": {"n": number.to_string()}});
        let fields = match chosen {
            0 => json!({"models": [format!("{}-s", self.name)], "targets": [self.url]}),
            1 => json!({"gateway": "main"}),
            2 => json!({"hosts": [format!("{}.example", self.name)], "auth": "none"}),
            _ => json!({"url": format!("http://127.0.0.1:9/{}", self.name)}),
        };
        let is_there = self.known.contains_key(&path);
        match random.random_range(0..3) {
            0 if is_there => Step {
                method: "DELETE",
                body: Value::Null,
                gives: vec![(path.clone(), 0)],
                path,
            },
            1 if is_there && chosen < 3 => Step {
                method: "PATCH",
                body,
                gives: vec![(path.clone(), number)],
                path,
            },
            _ => {
                let table = body.as_object_mut().unwrap();
                table.extend(fields.as_object().unwrap().clone());
                Step {
                    method: "PUT",
                    body,
                    gives: vec![(path.clone(), number)],
                    path,
                }
            }
        }
    }

    /// An upstream, the service it serves and a rule to that, all with the same number.
    fn together(&self, addresses: &[String]) -> Step {
        let (name, labels) = (&self.name, json!({"n": self.number.to_string()}));
        let body = json!([
            {"kind": "rule", "name": format!("{name}-q"), "gateway": "main", "path": format!("/{name}/*"), "services": [format!("{name}-g")], "labels": labels},
            {"kind": "service", "name": format!("{name}-g"), "models": [format!("{name}-g")], "upstream": format!("{name}-u"), "labels": labels},
            {"kind": "upstream", "name": format!("{name}-u"), "targets": [self.url], "labels": labels},
        ]);
        let gives = addresses
            .iter()
            .map(|path| (path.clone(), self.number))
            .collect();
        Step {
            method: "POST",
            path: "/v1/apply".to_owned(),
            body,
            gives,
        }
    }

    /// Changes one thing after another until nobody answers. `highest`: of all revisions that were answered.
    fn write(&mut self, admin: SocketAddr, random: &mut StdRng, highest: &AtomicU64) -> usize {
        let mut done = 0;
        loop {
            let step = self.next(random);
            self.open = step.gives;
            let body = match &step.body {
                Value::Null => String::new(),
                body => body.to_string(),
            };
            let Ok(reply) = ask(admin, &request(step.method, &step.path, "", body)) else {
                return done;
            };
            assert!(
                [200, 201, 204].contains(&reply.status),
                "{} {}: {}",
                step.method,
                step.path,
                reply.text()
            );
            if reply.status != 204 {
                highest.fetch_max(
                    reply.json()["revision"].as_u64().unwrap(),
                    Ordering::Relaxed,
                );
            }
            give(&mut self.known, &self.open);
            self.open.clear();
            done += 1;
        }
    }

    /// What is there is what he knows of, with or without all of what was under way. Whether it is with that.
    #[track_caller]
    fn check(&mut self, process: &Process, told: &str) -> bool {
        let mut found = Numbers::new();
        for path in self.addresses() {
            let reply = process.api().get(&path);
            if reply.status == 404 {
                continue;
            }
            let number = reply.json()["labels"]["n"].as_str().unwrap().to_owned();
            found.insert(path, number.parse().unwrap());
        }
        let mut whole = self.known.clone();
        give(&mut whole, &self.open);
        assert!(
            found == self.known || found == whole,
            "{told}, {}: {found:?} is neither {:?} nor, with what was under way, {whole:?}",
            self.name,
            self.known
        );
        let came = !self.open.is_empty() && found == whole;
        (self.known, self.open) = (found, Vec::new());
        came
    }
}

fn give(numbers: &mut Numbers, gives: &[(String, u64)]) {
    for (path, number) in gives {
        match number {
            0 => numbers.remove(path),
            number => numbers.insert(path.clone(), *number),
        };
    }
}

/// A whole answer, or an error. A connection of its own: whether it can be made is part of the question.
fn ask(admin: SocketAddr, request: &[u8]) -> io::Result<Reply> {
    let mut client = Client::try_connect(admin)?;
    client.try_send(request)?;
    let reply = client.try_reply()?;
    match reply.complete {
        true => Ok(reply),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// What the process left behind is whole. Looked at in a copy, since looking at it mends it.
#[track_caller]
fn assert_undamaged(process: &Process, told: &str) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["tollgate.db", "tollgate.db-wal", "tollgate.db-shm"] {
        let from = process.path(name);
        if Path::new(&from).exists() {
            std::fs::copy(from, copy.path().join(name)).unwrap();
        }
    }
    let file = rusqlite::Connection::open(copy.path().join("tollgate.db")).unwrap();
    let check = file.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(check.as_deref(), Ok("ok"), "{told}");
}

/// Lets the file's own part change, too, until it is over.
fn reload(process: &Process, whole: &str, admin: SocketAddr, over: &AtomicBool) {
    let beside = process.path("new.toml");
    for number in 0.. {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let text = whole.replace("\"filed\"]", &format!("\"filed\", \"filed-{number}\"]"));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, process.path("tollgate.toml")).unwrap();
        let _ = ask(admin, &request("POST", "/v1/reload", "", ""));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn all_of_a_change_or_nothing_of_it_survives() {
    let seed = std::env::var("TOLLGATE_KILL_SEED").ok();
    let seed: u64 = seed.and_then(|text| text.parse().ok()).unwrap_or(SEED);
    let mut random = StdRng::seed_from_u64(seed);
    let upstream = Upstream::obliging();
    let url = upstream.url();
    let toml = "[server]\nstate = \"./tollgate.db\"\n".to_owned()
        + &service("filed", "filed", &url)
        + &format!("[[upstream]]\nname = \"pool\"\ntargets = [\"{url}\"]\n");
    let mut process = Process::start(&toml);
    let whole = process.read("tollgate.toml");
    let admin = process.admin;
    let mut writers: Vec<Writer> = (0..WRITERS)
        .map(|number| Writer::new(format!("w{number}"), &url))
        .collect();
    let highest = AtomicU64::new(0);
    let (mut done, mut under_way, mut came) = (0, 0, 0);
    for kill in 0..KILLS {
        let told = format!("seed {seed}, kill {kill}");
        let lasts = Duration::from_micros(random.random_range(LASTS));
        let over = AtomicBool::new(false);
        done += std::thread::scope(|scope| {
            let (highest, process, whole, over) = (&highest, &process, &whole, &over);
            let busy: Vec<_> = { writers.iter_mut() }
                .map(|writer| {
                    let mut random = StdRng::seed_from_u64(random.random());
                    scope.spawn(move || writer.write(admin, &mut random, highest))
                })
                .collect();
            scope.spawn(move || reload(process, whole, admin, over));
            std::thread::sleep(lasts);
            process.signal("KILL");
            over.store(true, Ordering::SeqCst);
            busy.into_iter().map(|w| w.join().unwrap()).sum::<usize>()
        });
        process.end();
        assert_undamaged(&process, &told);
        under_way += writers.iter().filter(|w| !w.open.is_empty()).count();
        process.restart();
        let revision = process.api().get("/v1/services").json()["revision"].clone();
        assert!(
            revision.as_u64().unwrap() > highest.load(Ordering::Relaxed),
            "{told}: {revision} after {highest:?}"
        );
        for writer in &mut writers {
            came += usize::from(writer.check(&process, &told));
        }
        assert_serves(&process, &writers);
    }
    println!("{done} changes answered; {under_way} under way at a kill, {came} of them there");
    assert!(done > KILLS as usize, "only {done} changes");
    assert!(under_way > 0, "nothing was under way at any kill");
}

/// What is there is also served.
#[track_caller]
fn assert_serves(process: &Process, writers: &[Writer]) {
    let mut client = process.client();
    client.chat("filed", "").assert_ok();
    for writer in writers {
        for (address, end) in [("services", "s"), ("services", "g")] {
            let name = format!("{}-{end}", writer.name);
            let is_there = writer.known.contains_key(&format!("/v1/{address}/{name}"));
            let expected = if is_there { 200 } else { 404 };
            assert_eq!(client.chat(&name, "").status, expected, "{name}");
        }
    }
}
