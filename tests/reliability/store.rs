//! A state file that is away, held or full while requests are served: they are answered as ever, it is said aloud, no change of a key is half done,
//! and nothing that was used is lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::Connection;
use serde_json::{Value, json};
use tollgate::calls::Calls;
use tollgate::control::Control;
use tollgate::store::{self, Sqlite, Store, UsageRecord};
use tollgate::telemetry::Metrics as Counters;
use tollgate_bench::engine::Engine;

use crate::harness::{
    Client, Gateway, Metrics, Process, Reply, bearer, engine, free_port, get, runtime, service,
    until,
};

/// A gateway that asks for keys and keeps its state in a folder of its own.
struct World {
    folder: tempfile::TempDir,
    engine: Engine,
    gateway: Option<Gateway>,
    /// Requests that were let in.
    served: u64,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        let mut world = World {
            folder,
            engine: engine(),
            gateway: None,
            served: 0,
        };
        world.start();
        world
    }

    /// Starts the gateway, or starts it again.
    fn start(&mut self) {
        // The one that runs lets go of the file first.
        self.gateway = None;
        let toml = format!("[server]\nstate = \"{}\"\n", self.file().display())
            + "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n"
            + &service("m", "m", &self.engine.url());
        self.gateway = Some(Gateway::start(&toml));
    }

    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn file(&self) -> PathBuf {
        self.state().join("tollgate.db")
    }

    fn ask(&mut self, secret: &str) -> Reply {
        let reply = self.gateway().client().chat("m", &bearer(secret));
        self.served += u64::from(reply.status == 200);
        reply
    }

    /// So many requests, none of which waits for the file: whoever did would for five seconds.
    fn serve(&mut self, secret: &str, count: usize) {
        for _ in 0..count {
            let start = Instant::now();
            self.ask(secret).assert_ok();
            let took = start.elapsed();
            assert!(took < Duration::from_secs(2), "{took:?}");
        }
    }

    fn api(&self, method: &str, path: &str, body: &str) -> Reply {
        let mut client = self.gateway().admin_client();
        client.patience(Duration::from_secs(30));
        client.send(request(method, path, body));
        client.reply()
    }

    /// A new key's secret.
    fn create(&self, name: &str) -> String {
        let body = json!({"name": name, "gateway": "main"}).to_string();
        let reply = self.api("POST", "/v1/keys", &body);
        assert_eq!(reply.status, 201, "{}", reply.text());
        reply.json()["secret"].as_str().unwrap().to_owned()
    }

    /// What is shown of the keys, by their names.
    fn keys(&self) -> Vec<Value> {
        let list = self.api("GET", "/v1/keys", "").json();
        let mut keys = list["items"].as_array().unwrap().clone();
        keys.sort_by_key(|key| key["name"].to_string());
        keys
    }

    fn metric(&self, name: &str) -> f64 {
        self.gateway().metrics().sum(name, &[])
    }

    /// Whether a key that is in force has this name and an end.
    fn has_end(&self, name: &str) -> bool {
        let metrics = self.gateway().metrics();
        metrics.sum("tollgate_key_expiry_seconds", &[("key", name)]) > 0.0
    }

    /// Waits until it is said that the store is in trouble, and why.
    #[track_caller]
    fn assert_troubled(&self, words: &str) {
        until("trouble to be told of", || {
            let ready = self.gateway().admin("/readyz");
            assert_eq!(ready.status, 200, "traffic goes on");
            let told = ready.text().contains("store: ") && ready.text().contains(words);
            told.then_some(())
        });
        assert_eq!(self.metric("tollgate_store_up"), 0.0);
    }

    /// Waits until the store is well again by itself, and compares the books with what was served.
    #[track_caller]
    fn assert_healed(&self) {
        let gateway = self.gateway();
        gateway.wait_for("tollgate_store_up", &[], |up| up == 1.0);
        gateway.wait_for("tollgate_usage_buffered", &[], |n| n == 0.0);
        assert_eq!(gateway.admin("/readyz").text(), "ready\n");
        assert_eq!(self.metric("tollgate_usage_dropped_total"), 0.0);
        // An exchange is in the books a moment after its answer; more than was served is never there.
        until("all that was served to be in the books", || {
            let used = self.used();
            assert!(used <= self.served, "{used} of {}", self.served);
            (used == self.served).then_some(())
        });
    }

    /// Requests in the books.
    fn used(&self) -> u64 {
        requests(&self.gateway().admin("/v1/usage?by=service").json())
    }

    /// Every change of keys is refused with these words, and nothing has changed.
    #[track_caller]
    fn assert_refuses_changes(&mut self, secret: &str, words: &str) {
        let before = self.keys();
        let revision = self.metric("tollgate_config_revision");
        let new = json!({"name": "new", "gateway": "main"}).to_string();
        for (method, path, body) in [
            ("POST", "/v1/keys", new.as_str()),
            ("POST", "/v1/keys/team/rotate", "{\"grace\":\"0s\"}"),
            ("DELETE", "/v1/keys/team", ""),
        ] {
            let reply = self.api(method, path, body);
            assert_eq!(reply.status, 503, "{method} {path}: {}", reply.text());
            let error = &reply.json()["error"];
            assert_eq!(error["code"], "store_unavailable");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(words), "{message}");
            assert!(!reply.text().contains("tg_"), "a secret: {}", reply.text());
            assert!(!reply.text().contains("/tmp"), "a path: {}", reply.text());
        }
        assert_eq!(self.keys(), before);
        assert_eq!(self.metric("tollgate_config_revision"), revision);
        self.serve(secret, 1);
    }
}

fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: admin\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn requests(usage: &Value) -> u64 {
    let items = usage["items"].as_array().unwrap().iter();
    items.map(|item| item["requests"].as_u64().unwrap()).sum()
}

/// Another process writes to the file and does not come to an end.
fn hold(file: &Path) -> Connection {
    let other = Connection::open(file).unwrap();
    other.busy_timeout(Duration::from_secs(10)).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    other
}

#[test]
fn a_file_that_is_away_is_waited_for() {
    let mut world = World::new();
    let secret = world.create("team");
    world.serve(&secret, 5);
    let revision = world.metric("tollgate_config_revision");
    let away = world.folder.path().join("away");
    std::fs::rename(world.state(), &away).unwrap();
    world.serve(&secret, 20);
    world.assert_troubled("moved or deleted");
    assert!(world.metric("tollgate_usage_buffered") >= 20.0);
    world.assert_refuses_changes(&secret, "moved or deleted");
    // No new file is begun: keys would seem to be gone.
    assert!(!world.state().exists());
    std::fs::rename(&away, world.state()).unwrap();
    world.assert_healed();
    // What was refused can be done now, and only that is found again.
    let rotated = world.api("POST", "/v1/keys/team/rotate", "{\"grace\":\"0s\"}");
    assert_eq!(rotated.status, 200, "{}", rotated.text());
    assert_eq!(world.metric("tollgate_config_revision"), revision + 1.0);
    let new = rotated.json()["secret"].as_str().unwrap().to_owned();
    world.ask(&secret).assert_refused(401, "invalid_api_key");
    world.serve(&new, 3);
    let keys = world.keys();
    world.start();
    assert_eq!(world.keys(), keys);
    assert_eq!(keys.len(), 1);
    world.ask(&secret).assert_refused(401, "invalid_api_key");
    world.serve(&new, 1);
    world.assert_healed();
}

#[test]
fn a_file_that_somebody_holds_is_waited_for() {
    let mut world = World::new();
    let secret = world.create("team");
    world.serve(&secret, 5);
    let holder = hold(&world.file());
    let mut change = world.gateway().admin_client();
    change.patience(Duration::from_secs(30));
    let body = json!({"name": "new", "gateway": "main"}).to_string();
    change.send(request("POST", "/v1/keys", &body));
    let waiting = std::thread::spawn(move || change.reply());
    while !waiting.is_finished() {
        world.serve(&secret, 1);
    }
    let reply = waiting.join().unwrap();
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(
        reply.text().contains("nother process holds the state file"),
        "{}",
        reply.text()
    );
    world.assert_troubled("another process holds");
    assert!(world.metric("tollgate_usage_buffered") > 0.0);
    holder.execute_batch("ROLLBACK").unwrap();
    world.assert_healed();
    let names: Vec<Value> = world.keys().iter().map(|key| key["name"].clone()).collect();
    assert_eq!(names, ["team"]);
    world.create("new");
}

/// Whoever asked for a change may leave while the file is waited for: what is stored then is also in force.
#[test]
fn a_change_whose_caller_leaves_is_not_half_done() {
    let mut world = World::new();
    let secret = world.create("team");
    world.serve(&secret, 1);
    let left = json!({"name": "left", "gateway": "main", "expires_at": "2100-01-01T00:00:00Z"});
    for (method, path, body) in [
        (
            "POST",
            "/v1/keys/team/rotate",
            "{\"grace\":\"0s\"}".to_owned(),
        ),
        ("POST", "/v1/keys", left.to_string()),
        ("DELETE", "/v1/keys/left", String::new()),
    ] {
        let holder = hold(&world.file());
        let mut caller = world.gateway().admin_client();
        caller.send(request(method, path, &body));
        until("the change to begin", || {
            // The next change waits for it.
            let mut next = world.gateway().admin_client();
            next.patience(Duration::from_millis(200));
            next.send(request("DELETE", "/v1/keys/nobody", ""));
            next.try_reply().is_err().then_some(())
        });
        drop(caller);
        // Its end is seen before others are answered.
        for _ in 0..20 {
            world.gateway().admin("/healthz");
        }
        holder.execute_batch("ROLLBACK").unwrap();
        drop(holder);
        until("the change to be in force", || match (method, path) {
            ("POST", "/v1/keys") => world.has_end("left").then_some(()),
            ("DELETE", _) => (!world.has_end("left")).then_some(()),
            _ => (world.ask(&secret).status == 401).then_some(()),
        });
        let keys = world.keys();
        world.start();
        assert_eq!(world.keys(), keys, "{method} {path}");
    }
    world.ask(&secret).assert_refused(401, "invalid_api_key");
}

/// A file that may not grow is as good as a full disk, and must not be the end of the process.
#[test]
fn a_file_that_cannot_grow_is_waited_for() {
    let engine = engine();
    let mut process = Process::run(&service("m", "m", &engine.url()));
    let admin = |path: &str| Client::connect(process.admin).get(path, "");
    let metric = |name: &str| Metrics::read(&admin("/metrics").text()).sum(name, &[]);
    let serve = |count: usize| {
        for _ in 0..count {
            process.client().chat("m", "").assert_ok();
        }
    };
    serve(5);
    until("the first to be written", || {
        (metric("tollgate_usage_buffered") == 0.0).then_some(())
    });
    let length = |name: &str| std::fs::metadata(process.path(name)).unwrap().len();
    let longest = length("tollgate.db").max(length("tollgate.db-wal"));
    process.limit_files(Some(longest));
    let mut served = 5;
    until("writing to fail", || {
        serve(10);
        served += 10;
        (metric("tollgate_store_up") == 0.0).then_some(())
    });
    let ready = admin("/readyz");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("store: ") && ready.text().contains("state file"));
    assert!(metric("tollgate_usage_buffered") > 0.0);
    let mut client = Client::connect(process.admin);
    let body = json!({"name": "new", "gateway": "main"}).to_string();
    client.send(request("POST", "/v1/keys", &body));
    let refused = client.reply();
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["error"]["code"], "store_unavailable");
    assert_eq!(admin("/v1/keys").json()["items"], json!([]));
    process.limit_files(None);
    until("the store to be well", || {
        let well = metric("tollgate_store_up") == 1.0;
        (well && metric("tollgate_usage_buffered") == 0.0).then_some(())
    });
    assert_eq!(metric("tollgate_usage_dropped_total"), 0.0);
    until("all that was served to be in the books", || {
        let used = requests(&admin("/v1/usage?by=service").json());
        assert!(used <= served, "{used} of {served}");
        (used == served).then_some(())
    });
    process.signal("TERM");
    let (status, _) = process.end();
    assert!(status.success(), "{status}: {}", process.read("stderr"));
}

/// With little room, since it takes long to fill what a gateway has.
#[test]
fn what_waits_is_bounded_and_what_is_lost_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (state, away) = (folder.path().join("state"), folder.path().join("away"));
    std::fs::create_dir(&state).unwrap();
    let options = store::Options {
        capacity: 100,
        batch: 10,
        interval: Duration::from_millis(5),
        ..store::Options::default()
    };
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&state.join("db"), options).unwrap());
    let toml =
        "[[listener]]\naddress = \"127.0.0.1:1\"\n[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n";
    let no_file = |_: &str| Err(String::new());
    let format = tollgate::config::Format::Toml;
    let config = tollgate::config::parse("t.toml", toml, format, &|_| None, &no_file);
    let config = config.unwrap().config;
    let (counters, http) = (Arc::new(Counters::new()), Arc::new(Calls::new()));
    let patience = Duration::from_secs(1);
    let control = Control::start(&config, counters, store.clone(), http, None, patience);
    let control = Arc::new(runtime().block_on(control).unwrap());
    control.set_ready(true);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let listener = runtime().block_on(tokio::net::TcpListener::bind(address));
    let served = tollgate::admin::serve(
        listener.unwrap(),
        None,
        Default::default(),
        control,
        std::future::pending(),
    );
    let served = runtime().spawn(served);
    until("the admin listener", || Client::try_connect(address).ok());
    let page = |path: &str| {
        let mut client = Client::connect(address);
        client.send(get(path, ""));
        client.reply().text()
    };
    let metric = |name: &str| Metrics::read(&page("/metrics")).sum(name, &[]);
    let record = || UsageRecord {
        at: SystemTime::now(),
        gateway: "main".into(),
        key: "team".into(),
        service: "m".into(),
        model: "m".into(),
        status: 200,
        input: 7,
        cached: 0,
        output: 3,
        estimated: false,
        duration: Duration::from_millis(5),
        first_byte: None,
        cost: None,
    };
    std::fs::rename(&state, &away).unwrap();
    let start = Instant::now();
    (0..150).for_each(|_| store.record(record()));
    assert!(start.elapsed() < Duration::from_secs(1), "recording waited");
    until("writing to fail", || {
        (metric("tollgate_store_up") == 0.0).then_some(())
    });
    // Scraping twice counts nothing twice.
    for _ in 0..2 {
        assert_eq!(metric("tollgate_usage_buffered"), 100.0);
        assert_eq!(metric("tollgate_usage_dropped_total"), 50.0);
    }
    let ready = page("/readyz");
    assert!(
        ready.contains("(100 usage records wait, 50 are lost)"),
        "{ready}"
    );
    std::fs::rename(&away, &state).unwrap();
    until("the store to be well", || {
        let well = metric("tollgate_store_up") == 1.0;
        (well && metric("tollgate_usage_buffered") == 0.0).then_some(())
    });
    (0..20).for_each(|_| store.record(record()));
    let usage: Value = serde_json::from_str(&page("/v1/usage?by=key")).unwrap();
    assert_eq!(usage["items"][0]["requests"], 120);
    assert_eq!(usage["items"][0]["output_tokens"], 360);
    assert_eq!(metric("tollgate_usage_dropped_total"), 50.0);
    served.abort();
}
