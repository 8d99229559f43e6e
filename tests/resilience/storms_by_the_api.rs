//! One change after another by the admin API, of every sort, under streams and requests: each is in force with its answer, nobody else
//! notices, and nothing of it stays.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tollgate_bench::engine::Engine;

use super::storms_of_changes::{EndsAll, assert_no_load, begin, finish, metrics};
use crate::harness::{
    Api, CHAT, Client, Process, Reply, bearer, chat, engine_with, post, service, until,
};

/// Twelve changes each.
const ROUNDS: usize = 5;
const STREAMS: usize = 20;
/// Of a stream, one every 20 ms: they last as long as the storm.
const TOKENS: usize = 200;

struct Storm {
    process: Process,
    engines: [Engine; 2],
    /// The file as it began.
    whole: String,
    /// What is between two changes.
    pause: Duration,
    /// Tokens of the streams that begin meanwhile.
    tokens: usize,
}

impl Storm {
    fn start() -> Storm {
        let engines = ["one", "two"].map(|name| {
            engine_with(|config| {
                config.name = Some(name.to_owned());
                config.itl = Duration::from_millis(20);
                config.record = 0;
            })
        });
        let one = engines[0].url();
        let toml = "[server]\nstate = \"./tollgate.db\"\n".to_owned()
            + "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\n"
            + "[[gateway]]\nname = \"keyed\"\nhosts = [\"keyed.example\"]\n"
            + &service("kept", "kept", &one)
            // Nothing is held against a target that was never asked.
            + &format!("[[upstream]]\nname = \"pool\"\npolicy = \"round_robin\"\nhealth = \"off\"\ntargets = [\"{one}\"]\n")
            + "[[service]]\nname = \"pooled\"\nmodels = [\"pooled\"]\nupstream = \"pool\"\n";
        let process = Process::start(&toml);
        let whole = process.read("tollgate.toml");
        let storm = Storm {
            process,
            engines,
            whole,
            pause: Duration::from_millis(40),
            tokens: TOKENS / 2,
        };
        let served = |name: &str, model: &str| json!({"kind": "service", "name": name, "models": [model], "targets": [one]});
        storm.ask(
            "POST",
            "/v1/apply",
            &json!([
                served("left", "split"),
                served("right", "split"),
                served("plugged", "plugged")
            ]),
        );
        storm
    }

    /// Makes a change.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Reply {
        let reply = Api::new(self.process.admin).ask(method, path, body);
        let done = [200, 201, 204].contains(&reply.status);
        assert!(done, "{method} {path}: {}", reply.text());
        reply
    }

    /// One round of changes. After each, `client` and one who comes anew see it; `open` is given streams that begin meanwhile.
    fn round(&self, round: usize, client: &mut Client, open: &mut Vec<Client>) {
        let see =
            |client: &mut Client, request: &[u8], what: &str, wanted: &dyn Fn(&Reply) -> bool| {
                for client in [client, &mut self.process.client()] {
                    client.send(request);
                    let reply = client.reply();
                    assert!(wanted(&reply), "round {round}, {what}: {reply:?}");
                }
                std::thread::sleep(self.pause);
            };
        let status = |status: u16| move |reply: &Reply| reply.status == status;
        let short = "x-sim: tokens=1\r\n";
        let asks = |model: &str| post(CHAT, short, chat(model));

        let name = format!("s{round}");
        let own = format!("/v1/services/{name}");
        let one = self.engines[0].url();
        let made = json!({"name": name, "models": [name], "targets": [one]});
        self.ask("POST", "/v1/services", &made);
        see(client, &asks(&name), "a new service", &status(200));

        self.target(client, open);

        let (light, heavy) = match round % 2 {
            0 => ("left", "right"),
            _ => ("right", "left"),
        };
        for (service, weight) in [(heavy, 100), (light, 0)] {
            self.ask(
                "PATCH",
                &format!("/v1/services/{service}"),
                &json!({"weight": weight}),
            );
        }
        see(client, &asks("split"), "weights", &|reply| {
            reply.header("x-tollgate-service") == Some(heavy)
        });

        let key = format!("k{round}");
        let secret = self
            .process
            .api()
            .create(&json!({"name": key, "gateway": "keyed"}));
        let fields = format!("{short}{}", bearer(&secret));
        let keyed = String::from_utf8(post(CHAT, &fields, chat("kept"))).unwrap();
        let keyed = keyed.replace("host: test", "host: keyed.example");
        see(client, keyed.as_bytes(), "a new key", &status(200));
        self.process.api().revoke(&key);
        see(client, keyed.as_bytes(), "a revoked key", &status(401));

        let rule = json!({"name": format!("r{round}"), "gateway": "main", "path": format!("/r{round}/*"), "strip_path": true, "services": [name]});
        self.ask("POST", "/v1/rules", &rule);
        let ruled = post(&format!("/r{round}{CHAT}"), short, chat("nobody"));
        see(client, &ruled, "a new rule", &status(200));

        let told = json!({"response": {"set": {"x-round": round.to_string()}}});
        let plugins = json!({"plugins": [{"name": "headers", "settings": told}]});
        self.ask("PATCH", "/v1/services/plugged", &plugins);
        see(client, &asks("plugged"), "a plugin", &|reply| {
            reply.header("x-round") == Some(&*round.to_string())
        });

        let filed = service(&format!("f{round}"), &format!("f{round}"), &one);
        let beside = self.process.path("new.toml");
        std::fs::write(&beside, self.whole.clone() + &filed).unwrap();
        std::fs::rename(&beside, self.process.path("tollgate.toml")).unwrap();
        self.ask("POST", "/v1/reload", &Value::Null);
        see(
            client,
            &asks(&format!("f{round}")),
            "the file",
            &status(200),
        );

        self.ask("DELETE", &format!("/v1/rules/r{round}"), &Value::Null);
        see(client, &ruled, "a deleted rule", &status(404));
        self.ask("DELETE", &own, &Value::Null);
        see(client, &asks(&name), "a deleted service", &status(404));
    }

    /// A target joins, takes its part at once, and leaves; streams that began on it go on.
    fn target(&self, client: &mut Client, open: &mut Vec<Client>) {
        let path = "/v1/upstreams/pool/targets/two";
        let mut who = |request: &[u8]| {
            client.send(request);
            let reply = client.reply();
            reply.assert_ok();
            reply.header("x-sim-engine").unwrap().to_owned()
        };
        let asks = post(CHAT, "x-sim: tokens=1\r\n", chat("pooled"));
        self.ask("PUT", path, &json!(self.engines[1].url()));
        let mut both = [who(&asks), who(&asks)];
        both.sort();
        assert_eq!(both, ["one", "two"], "a new target");
        // One of two that follow each other is on it.
        open.extend((0..2).map(|_| begin(&self.process, "pooled", self.tokens)));
        self.ask("DELETE", path, &Value::Null);
        assert_eq!([who(&asks), who(&asks)], ["one", "one"], "a drained target");
        std::thread::sleep(self.pause);
    }
}

#[test]
fn a_storm_of_changes_is_in_force_at_once_and_nobody_notices() {
    let mut storm = Storm::start();
    let process = &storm.process;
    let over = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let mut open: Vec<Client> = (0..STREAMS)
        .map(|_| begin(process, "kept", TOKENS))
        .collect();
    let before = revision(process);
    std::thread::scope(|threads| {
        let ends = EndsAll(&over);
        for model in ["kept", "split", "plugged"] {
            let (over, answered) = (&over, &answered);
            threads.spawn(move || {
                let mut client = process.client();
                while !over.load(Ordering::SeqCst) {
                    client.send(post(CHAT, "x-sim: tokens=2\r\n", chat(model)));
                    client.reply().assert_ok();
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let mut client = process.client();
        for round in 0..ROUNDS {
            storm.round(round, &mut client, &mut open);
        }
        drop(ends);
    });
    assert!(answered.load(Ordering::SeqCst) > ROUNDS);
    // What did not change anything made no revision: the first weights of the first round.
    let revisions = revision(process) - before;
    assert!(revisions >= 12 * ROUNDS as u64 - 1, "{revisions}");
    for stream in open {
        finish(stream);
    }
    assert_no_load(process);
    assert_forgotten(process);

    // Without anybody else: nothing stays of two storms more.
    let settled = process.resident();
    (storm.pause, storm.tokens) = (Duration::ZERO, 3);
    let process = &storm.process;
    let mut client = process.client();
    let mut open = Vec::new();
    for round in ROUNDS..3 * ROUNDS {
        storm.round(round, &mut client, &mut open);
        open.drain(..).for_each(finish);
    }
    assert_no_load(process);
    assert_forgotten(process);
    until("memory to be as it was", || {
        (process.resident() < settled + (16 << 20)).then_some(())
    });
}

fn revision(process: &Process) -> u64 {
    let list = process.api().get("/v1/services").json();
    list["revision"].as_u64().unwrap()
}

/// Of what came and went nothing is told any more.
#[track_caller]
fn assert_forgotten(process: &Process) {
    until("what is gone to be forgotten", || {
        let metrics = metrics(process);
        let mut services = metrics.values("service");
        services.retain(|name| name.len() > 1 && name[1..].bytes().all(|b| b.is_ascii_digit()));
        // The file's last is there still.
        (services.len() <= 1 && services.iter().all(|name| name.starts_with('f'))).then_some(())
    });
}
