//! `/v1/events`: what happens is told, in order, to whoever watches, and to whoever comes back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tollgate::calls::Calls;
use tollgate::config::{self, Format};
use tollgate::control::Control;
use tollgate::control::events::{EventKind, KEPT, Seen};
use tollgate::store::{Memory, Store, UsageRecord};
use tollgate::telemetry::Metrics as Counters;
use tollgate_bench::engine::{Engine, EngineConfig};

use crate::harness::{
    Client, Gateway, Process, Upstream, Watch, closed_address, engine, get, runtime, service, until,
};

fn told(event: &crate::harness::Told) {
    let at: jiff::Timestamp = event.data["at"].as_str().unwrap().parse().unwrap();
    assert!(at <= jiff::Timestamp::now());
    assert!(event.id > 0);
}

#[test]
fn targets_that_go_and_come_back_are_told_of() {
    let engine = engine();
    let config = EngineConfig {
        address: engine.address(),
        ..EngineConfig::default()
    };
    let toml = service("m", "m", &engine.url())
        + "[[upstream]]\nname = \"u\"\ntargets = [\"http://127.0.0.1:9\"]\nhealth = \"off\"\n";
    let toml = toml.replace(
        &format!("targets = [\"{}\"]\n", engine.url()),
        &format!(
            "upstream = \"m\"\n[[upstream]]\nname = \"m\"\ntargets = [\"{}\"]\nhealth = {{ type = \"tcp\", interval = \"100ms\", timeout = \"80ms\" }}\n",
            engine.url()
        ),
    );
    let gateway = Gateway::start(&toml);
    gateway.wait_for("tollgate_target_up", &[("upstream", "m")], |n| n == 1.0);
    let mut watch = gateway.watch();
    engine.stop();
    let down = watch.wait_for("target", |data| data["health"] == "down");
    told(&down);
    assert_eq!(down.data["upstream"], "m");
    assert_eq!(down.data["target"], format!("http://{}", config.address));
    let _engine = until("the address to be free again", || {
        Engine::start(config.clone()).ok()
    });
    let up = watch.wait_for("target", |data| data["health"] == "up");
    assert!(up.id > down.id);
    assert_eq!(up.data["upstream"], "m");
}

#[test]
fn breakers_that_open_and_close_are_told_of() {
    let upstream = Upstream::start(|connection| {
        while let Some(request) = connection.request() {
            let status = request.header("x-want").unwrap_or("200".to_owned());
            connection.send(format!(
                "HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n"
            ));
        }
    });
    let toml = format!(
        "[[service]]\nname = \"m\"\nmodels = [\"m\"]\nupstream = \"m\"\nretry = \"off\"\n[[upstream]]\nname = \"m\"\ntargets = [\"{}\"]\nhealth = \"off\"\nbreaker = {{ failures = 2, open = \"200ms\" }}\n",
        upstream.url()
    );
    let gateway = Gateway::start(&toml);
    let mut watch = gateway.watch();
    let ask = |status: &str| gateway.client().chat("m", &format!("x-want: {status}\r\n"));
    ask("500");
    ask("500");
    let opened = watch.wait_for("breaker", |_| true);
    told(&opened);
    assert_eq!(
        (
            &opened.data["breaker"],
            &opened.data["upstream"],
            &opened.data["target"]
        ),
        (&json!("open"), &json!("m"), &json!(upstream.url()))
    );
    until("the breaker to let one through", || {
        (ask("200").status == 200).then_some(())
    });
    let closed = watch.wait_for("breaker", |_| true);
    assert_eq!(closed.data["breaker"], "closed");
}

/// With every change its revision and what it touched; refusals, too. Nothing of a secret.
#[test]
fn changes_and_reloads_are_told_of() {
    let engine = engine();
    let process = Process::run(&service("a", "a", &engine.url()));
    let whole = process.read("tollgate.toml");
    let mut watch = Watch::open(process.admin, "");
    let write = |text: &str| {
        std::fs::write(process.path("new.toml"), text).unwrap();
        std::fs::rename(process.path("new.toml"), process.path("tollgate.toml")).unwrap();
        process.api().ask("POST", "/v1/reload", &Value::Null);
    };
    write(&(whole.clone() + &service("b", "b", &engine.url())));
    let reload = watch.wait_for("reload", |_| true);
    told(&reload);
    assert_eq!(
        (&reload.data["result"], &reload.data["revision"]),
        (&json!("ok"), &json!(2))
    );
    let change = watch.wait_for("change", |_| true);
    assert_eq!(change.data["revision"], 2);
    assert_eq!(
        change.data["changes"],
        json!([{"kind": "service", "name": "b", "action": "created"}])
    );
    write(&whole.replace("models = ", "modells = "));
    let refused = watch.wait_for("reload", |data| data["result"] == "refused");
    assert_eq!(refused.data["revision"], 2);
    let secret = process
        .api()
        .create(&json!({"name": "k", "gateway": "main"}));
    let change = watch.wait_for("change", |data| data["by"] == "api");
    assert_eq!(change.data["changes"][0]["name"], "k");
    assert!(!change.data.to_string().contains(&secret));
}

#[test]
fn who_comes_back_finds_what_was_missed() {
    let engine = engine();
    let process = Process::run(&service("a", "a", &engine.url()));
    let make = |name: &str| {
        process
            .api()
            .create(&json!({"name": name, "gateway": "main"}))
    };
    let of = |event: &crate::harness::Told| event.data["changes"][0]["name"].clone();
    let mut watch = Watch::open(process.admin, "");
    make("one");
    let first = watch.wait_for("change", |_| true);
    drop(watch);
    make("two");
    make("three");
    let last = format!("last-event-id: {}\r\n", first.id);
    let mut back = Watch::open(process.admin, &last);
    let missed: Vec<Value> = (0..2)
        .map(|_| of(&back.wait_for("change", |_| true)))
        .collect();
    assert_eq!(missed, ["two", "three"]);
    // A number of another process: what is gone cannot be said, and what is there follows.
    for number in ["7", "18446744073709551615"] {
        let mut lost = Watch::open(process.admin, &format!("last-event-id: {number}\r\n"));
        let told = lost.next();
        assert_eq!(
            (told.event.as_str(), &told.data["count"]),
            ("lost", &Value::Null)
        );
        assert_eq!(of(&lost.wait_for("change", |_| true)), "one");
    }
    for wrong in ["x", "-1", "", "1.5", "18446744073709551616"] {
        let fields = format!("last-event-id: {wrong}\r\n");
        let reply = process.api().send("GET", "/v1/events", &fields, b"");
        assert_eq!(reply.status, 400, "{wrong}");
        assert_eq!(reply.json()["error"]["code"], "malformed");
    }
}

#[test]
fn a_key_that_ends_soon_is_told_of_once() {
    let gateway = Gateway::start(&service("a", "a", &format!("http://{}", closed_address())));
    let mut watch = gateway.watch();
    let soon = (jiff::Timestamp::now() + Duration::from_secs(3600)).to_string();
    let far = (jiff::Timestamp::now() + Duration::from_secs(30 * 86_400)).to_string();
    for (name, end) in [("far", &far), ("soon", &soon), ("later", &soon)] {
        let key = json!({"name": name, "gateway": "main", "expires_at": end});
        gateway.api().create(&key);
    }
    let mut names: Vec<Value> = (0..2)
        .map(|_| watch.wait_for("key", |_| true).data["key"].clone())
        .collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, ["later", "soon"]);
    // The next thing told of a key is of another.
    gateway
        .api()
        .create(&json!({"name": "third", "gateway": "main", "expires_at": soon}));
    let third = watch.wait_for("key", |_| true);
    assert_eq!(
        (&third.data["key"], &third.data["gateway"]),
        (&json!("third"), &json!("main"))
    );
    assert!(third.data["expires_at"].is_string());
}

#[test]
fn a_store_that_fails_and_is_well_again_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let (state, away) = (folder.path().join("state"), folder.path().join("away"));
    std::fs::create_dir(&state).unwrap();
    let engine = engine();
    let toml = format!("[server]\nstate = \"{}\"\n", state.join("db").display())
        + &service("m", "m", &engine.url());
    let gateway = Gateway::start(&toml);
    let mut watch = gateway.watch();
    std::fs::rename(&state, &away).unwrap();
    gateway.client().chat("m", "").assert_ok();
    let failed = watch.wait_for("store", |_| true);
    told(&failed);
    assert_eq!(failed.data["ok"], false);
    assert!(failed.data["reason"].is_string());
    std::fs::rename(&away, &state).unwrap();
    let well = watch.wait_for("store", |_| true);
    assert_eq!(well.data["ok"], true);
}

/// The control of a process without its listeners.
fn control(store: Arc<dyn Store>) -> Arc<Control> {
    let toml =
        "[[listener]]\naddress = \"127.0.0.1:1\"\n[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n";
    let no_file = |_: &str| Err(String::new());
    let config = config::parse("t.toml", toml, Format::Toml, &|_| None, &no_file);
    let config = config.unwrap().config;
    let (counters, http) = (Arc::new(Counters::new()), Arc::new(Calls::new()));
    let patience = Duration::from_secs(1);
    let started = Control::start(&config, counters, store, http, None, patience);
    Arc::new(runtime().block_on(started).unwrap())
}

fn used(at: SystemTime) -> UsageRecord {
    UsageRecord {
        at,
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
    }
}

#[test]
fn a_key_that_leaves_its_history_is_told_of() {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let control = control(store.clone());
    let hour = Duration::from_secs(3600);
    let now = SystemTime::UNIX_EPOCH + hour * 500_000;
    for back in 1..=48_u32 {
        let requests = if back == 1 { 2_000 } else { 25 };
        (0..requests).for_each(|_| store.record(used(now - hour * back)));
    }
    assert!(store.flush(Duration::from_secs(5)));
    let mut reader = control.events().read(None);
    let seen = runtime().block_on(async {
        control.look_for_anomalies(now).await;
        reader.next().await
    });
    let Seen::Event(event) = seen else {
        panic!("{seen:?}");
    };
    assert_eq!(event.kind, EventKind::Key);
    assert_eq!(event.fields["key"], "team");
    assert_eq!(event.fields["left"], "requests");
    assert!(event.fields["score"].as_f64().unwrap() > 6.0);
}

/// Who does not read holds nobody up, loses the oldest, is told so, and then has the rest without a gap.
#[test]
fn slow_readers_lose_the_oldest_and_are_told() {
    let control = control(Arc::new(Memory::default()));
    control.set_ready(true);
    let address = closed_address();
    let listener = runtime().block_on(tokio::net::TcpListener::bind(address));
    let over = std::future::pending();
    let served = tollgate::admin::serve(
        listener.unwrap(),
        None,
        Default::default(),
        control.clone(),
        over,
    );
    let served = runtime().spawn(served);
    until("the admin listener", || Client::try_connect(address).ok());
    let mut watch = Watch::open(address, "");
    let mut eager = Watch::open(address, "");
    // More than all buffers on the way hold.
    let long = "x".repeat(32_000);
    let all = 4 * KEPT as u64;
    for n in 0..all {
        let events = control.events();
        events.announce(log::Level::Trace, EventKind::Store, &long, json!({"n": n}));
        if n == 0 {
            assert_eq!(eager.next().data["n"], 0);
        }
    }
    drop(eager);
    let mut next = 0;
    let mut lost = 0;
    while next < all {
        let told = watch.next();
        match told.event.as_str() {
            "lost" => {
                let count = told.data["count"].as_u64().unwrap();
                lost += count;
                next += count;
            }
            _ => {
                assert_eq!(told.data["n"], next);
                next += 1;
            }
        }
    }
    assert!(lost > 0 && lost <= all - KEPT as u64, "{lost}");
    // There is an end to watchers, and others are still served.
    let mut watchers: Vec<Client> = Vec::new();
    let refused = loop {
        let mut client = Client::connect(address);
        client.send(get("/v1/events", ""));
        let head = client.head().unwrap();
        if head.status != 200 {
            break head.status;
        }
        watchers.push(client);
        assert!(watchers.len() < 300, "no end");
    };
    assert_eq!(refused, 503);
    let mut client = Client::connect(address);
    assert_eq!(client.get("/v1/status", "").status, 200);
    served.abort();
}
