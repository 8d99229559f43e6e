//! `/v1/status`: what it says is so, and says since when.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    CHAT, Gateway, Process, Upstream, chat, closed_address, engine, engine_with, post, service,
    streamed, until,
};

fn status(gateway: &Gateway) -> Value {
    gateway.admin("/v1/status").json()
}

fn named<'v>(list: &'v Value, field: &str, name: &str) -> &'v Value {
    let mut items = list.as_array().unwrap().iter();
    items
        .find(|item| item[field] == name)
        .unwrap_or(&Value::Null)
}

/// The condition of this type of the only gateway.
fn condition(status: &Value, kind: &str) -> Value {
    named(&status["gateways"][0]["conditions"], "type", kind).clone()
}

/// Asks until the only gateway is so.
#[track_caller]
fn until_gateway(ask: impl Fn() -> Option<Value>, wanted: &str) -> Value {
    until(wanted, || {
        let status = ask()?;
        (status["gateways"][0]["status"] == wanted).then_some(status)
    })
}

const CHECKED: &str = "health = { type = \"tcp\", interval = \"100ms\", timeout = \"80ms\", unhealthy_after = 2 }\nbreaker = \"off\"\n";

fn pool(name: &str, targets: &str, more: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nmodels = [\"{name}\"]\nupstream = \"{name}\"\n[[upstream]]\nname = \"{name}\"\ntargets = [{targets}]\n{more}"
    )
}

#[test]
fn everything_is_there_and_so() {
    let engine = engine();
    let dead = closed_address();
    let two = format!(
        "\"{}\", {{ url = \"http://{dead}\", weight = 7 }}",
        engine.url()
    );
    let toml = pool("mixed", &two, CHECKED)
        + &pool("gone", &format!("\"http://{dead}\""), CHECKED)
        + &pool(
            "unasked",
            &format!("\"{}\"", engine.url()),
            "health = \"off\"\n",
        );
    let gateway = Gateway::start(&toml);
    let asked = until("all targets to be asked", || {
        let status = status(&gateway);
        let down = status["targets"].as_array()?.iter();
        (down.filter(|target| target["health"] == "down").count() == 2).then_some(status)
    });
    assert_eq!(asked["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(asked["revision"], 1);
    assert_eq!(asked["ready"], true);
    assert_eq!(
        (&asked["file"], &asked["last_reload"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(asked["store"]["ok"], true);
    let started: jiff::Timestamp = asked["started_at"].as_str().unwrap().parse().unwrap();
    assert!(started <= jiff::Timestamp::now());

    let main = &asked["gateways"][0];
    assert_eq!(
        (&main["name"], &main["status"]),
        (&json!("main"), &json!("ready"))
    );
    assert_eq!(main["hosts"], json!(["*"]));
    assert_eq!(main["services"], json!(["mixed", "gone", "unasked"]));
    assert_eq!(condition(&asked, "Accepted")["status"], "True");
    assert_eq!(condition(&asked, "Programmed")["status"], "True");
    let healthy = condition(&asked, "TargetsHealthy");
    assert_eq!(healthy["status"], "False");
    let message = healthy["message"].as_str().unwrap();
    assert!(
        message.contains("gone") && !message.contains("mixed"),
        "{message}"
    );

    let mixed = named(&asked["services"], "name", "mixed");
    assert_eq!(
        (&mixed["targets"], &mixed["serving"], &mixed["upstream"]),
        (&json!(2), &json!(1), &json!("mixed"))
    );
    let targets = asked["targets"].as_array().unwrap();
    let at = |upstream: &str, health: &str| {
        let mut all = targets.iter();
        all.find(|t| t["upstream"] == upstream && t["health"] == health)
            .unwrap()
            .clone()
    };
    let down = at("mixed", "down");
    assert_eq!(down["weight"], 7);
    assert_eq!(down["id"], dead.to_string());
    assert_eq!(down["url"], format!("http://{dead}"));
    assert_eq!(
        (&down["breaker"], &down["cooling_ms"]),
        (&json!("closed"), &json!(0))
    );
    assert_eq!(at("mixed", "up")["weight"], 1);
    // Nobody asks it, so nobody knows.
    at("unasked", "unknown");
}

#[test]
fn load_shows_while_it_lasts() {
    let engine = engine();
    let gateway = Gateway::start(&service("m", "m", &engine.url()));
    let mut client = gateway.client();
    client.send(post(CHAT, "x-sim: ttft=300ms\r\n", chat("m")));
    until("a request under way", || {
        let status = status(&gateway);
        let (service, target) = (&status["services"][0], &status["targets"][0]);
        (service["in_flight"] == 1 && target["in_flight"] == 1).then_some(())
    });
    client.reply().assert_ok();
    until("nothing under way", || {
        let status = status(&gateway);
        let (service, target) = (&status["services"][0], &status["targets"][0]);
        (service["in_flight"] == 0 && target["in_flight"] == 0).then_some(())
    });
}

/// The time of a condition is that of its turn, whoever asks and however often.
#[test]
fn a_condition_turns_and_remembers_when() {
    let engine = engine();
    let config = tollgate_bench::engine::EngineConfig {
        address: engine.address(),
        ..Default::default()
    };
    let gateway = Gateway::start(&pool("m", &format!("\"{}\"", engine.url()), CHECKED));
    let well = until_gateway(|| Some(status(&gateway)), "ready");
    let again = status(&gateway);
    assert_eq!(
        condition(&well, "TargetsHealthy"),
        condition(&again, "TargetsHealthy")
    );
    let time = |status: &Value, kind: &str| -> jiff::Timestamp {
        condition(status, kind)["updated_at"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    engine.stop();
    let ill = until_gateway(|| Some(status(&gateway)), "error");
    assert_eq!(condition(&ill, "TargetsHealthy")["reason"], "NoTarget");
    assert!(time(&ill, "TargetsHealthy") > time(&well, "TargetsHealthy"));
    assert_eq!(time(&ill, "Programmed"), time(&well, "Programmed"));
    let _engine = until("the address to be free again", || {
        tollgate_bench::engine::Engine::start(config.clone()).ok()
    });
    let mended = until_gateway(|| Some(status(&gateway)), "ready");
    assert!(time(&mended, "TargetsHealthy") > time(&ill, "TargetsHealthy"));
}

#[test]
fn breakers_and_cooling_show() {
    let broken = Upstream::replying("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
    let busy =
        Upstream::replying("HTTP/1.1 429 Later\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n");
    let breaker = "health = \"off\"\nbreaker = { failures = 1, open = \"60s\" }\n";
    let toml = pool("broken", &format!("\"{}\"", broken.url()), breaker)
        + &pool("busy", &format!("\"{}\"", busy.url()), breaker);
    let gateway = Gateway::start(&toml);
    gateway.client().chat("broken", "");
    gateway.client().chat("busy", "");
    until("both to show", || {
        let status = status(&gateway);
        let open = named(&status["targets"], "upstream", "broken");
        let cooling = named(&status["targets"], "upstream", "busy");
        let left = cooling["cooling_ms"].as_u64()?;
        let shows = open["breaker"] == "open" && (1..=30_000).contains(&left);
        (shows && cooling["breaker"] == "closed").then_some(())
    });
    assert_eq!(status(&gateway)["gateways"][0]["status"], "error");
}

#[test]
fn queues_show_who_waits() {
    let busy =
        Upstream::replying("HTTP/1.1 429 Later\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n");
    let toml = service("m", "m", &busy.url()) + "retry = \"off\"\nqueue = { size = 5 }\n";
    let gateway = Gateway::start(&toml);
    assert_eq!(
        status(&gateway)["queues"],
        json!([{"service": "m", "depth": 0, "waiting_for_target": 0}])
    );
    let mut client = gateway.client();
    client.send(post(CHAT, "", chat("m")));
    until("a request in the queue", || {
        let status = status(&gateway);
        (status["queues"][0]["depth"] == 1).then_some(())
    });
    drop(client);
    until("the queue to be empty", || {
        let status = status(&gateway);
        (status["queues"][0]["depth"] == 0).then_some(())
    });
}

/// A refused file leaves everything as it was, and the status says that it was refused until it is put right.
#[test]
fn reloads_show_also_those_that_are_refused() {
    let engine = engine();
    let process = Process::run(&service("a", "a", &engine.url()));
    let ask = || Some(process.api().get("/v1/status").json());
    let first = until_gateway(ask, "ready");
    assert!(first["file"].as_str().unwrap().ends_with("tollgate.toml"));
    let whole = process.read("tollgate.toml");
    let write = |text: &str| {
        std::fs::write(process.path("new.toml"), text).unwrap();
        std::fs::rename(process.path("new.toml"), process.path("tollgate.toml")).unwrap();
        process.api().ask("POST", "/v1/reload", &Value::Null).status
    };
    assert_eq!(write(&whole.replace("models = ", "modells = ")), 422);
    let refused = until_gateway(ask, "error");
    assert_eq!(refused["revision"], 1);
    assert_eq!(refused["last_reload"]["result"], "refused");
    let message = refused["last_reload"]["message"].as_str().unwrap();
    assert!(message.contains("modells"), "{message}");
    assert_eq!(condition(&refused, "Accepted")["reason"], "FileRefused");
    process.client().chat("a", "").assert_ok();
    assert_eq!(write(&whole.replace("\"a\"", "\"b\"")), 200);
    let mended = until_gateway(ask, "ready");
    assert_eq!(mended["last_reload"]["result"], "ok");
    assert_eq!(mended["revision"], 2);
    assert_eq!(mended["gateways"][0]["services"], json!(["b"]));
}

#[test]
fn who_drains_says_so() {
    let engine = engine_with(|config| config.itl = Duration::from_millis(40));
    let mut process = Process::run(&service("m", "m", &engine.url()));
    let mut stream = process.client();
    stream.send(post(CHAT, "", streamed("m", 60)));
    let mut reply = stream.head().unwrap();
    stream.chunk().unwrap();
    process.signal("TERM");
    let ask = || {
        // The listener closes with the process.
        let mut client = crate::harness::Client::try_connect(process.admin).ok()?;
        client.send(crate::harness::get("/v1/status", ""));
        client.try_reply().ok().map(|reply| reply.json())
    };
    let draining = until_gateway(ask, "deleting");
    assert_eq!(draining["ready"], false);
    let programmed = condition(&draining, "Programmed");
    assert_eq!(
        (&programmed["status"], &programmed["reason"]),
        (&json!("False"), &json!("Draining"))
    );
    stream.body(&mut reply).unwrap();
    reply.assert_ok();
    assert!(process.end().0.success());
}
