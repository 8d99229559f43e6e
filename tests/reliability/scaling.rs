//! Replicas that are started by a command follow what is asked, from none and back, and no client sees more of it than a wait.

use serde_json::{Value, json};

use crate::harness::{
    CHAT, Client, Gateway, chat, engine, engines, is_running, post, processes, scaled, scaling,
    service, stands, streamed, until,
};

/// Decides as soon as anything is seen.
const QUICK: &str = "window = \"1s\"\nup_delay = \"0s\"\ndown_delay = \"0s\"\n";

fn quick(rest: &str) -> String {
    format!("{QUICK}{rest}")
}

fn ready(count: u64) -> impl Fn(&Value) -> bool {
    move |told| told["ready"] == count && told["desired"] == count
}

fn stream(gateway: &Gateway, tokens: usize) -> Client {
    let mut client = gateway.client();
    client.send(post(CHAT, "x-sim: itl=25ms\r\n", streamed("qwen", tokens)));
    assert_eq!(client.head().unwrap().status, 200);
    client
}

#[track_caller]
fn assert_whole(client: &mut Client) {
    let text = client.rest_of_stream();
    let text = String::from_utf8_lossy(&text);
    assert!(text.ends_with("data: [DONE]\n\n"), "cut: {text}");
}

/// An engine takes three seconds to start. Nobody is refused, and nobody is asked to come again.
#[test]
fn fifty_who_come_to_a_sleeping_service_are_all_served() {
    let gateway = Gateway::start(&scaled("max = 1\ntarget = 100.0", &engines(1, "3", ""), ""));
    let api = gateway.api();
    stands(&api, "its beginning", |told| told["desired"] == 0);
    assert_eq!(processes(&api), [], "nothing runs before somebody asks");
    std::thread::scope(|threads| {
        for _ in 0..50 {
            threads.spawn(|| {
                let reply = gateway.client().chat("qwen", "");
                reply.assert_ok();
                assert_eq!(reply.header("x-tollgate-attempts"), Some("1"));
            });
        }
        until("all of them to wait", || {
            (scaling(&api)["waiting"] == 50).then_some(())
        });
    });
    let told = stands(&api, "one replica", ready(1));
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("a request came"), "{reason}");
    let metrics = gateway.metrics();
    let of_service = [("service", "qwen")];
    assert_eq!(metrics.sum("tollgate_desired_replicas", &of_service), 1.0);
    assert_eq!(metrics.sum("tollgate_rejections_total", &[]), 0.0);
    assert_eq!(
        metrics.sum("tollgate_queue_wait_seconds_count", &of_service),
        50.0
    );
    let status = api.get("/v1/status").json();
    assert_eq!(status["services"][0]["scaling"]["desired"], 1);
    gateway.assert_gauges_zero();
}

#[test]
fn replicas_follow_demand_and_go_again() {
    let gateway = Gateway::start(&scaled(
        &quick("max = 3\ntarget = 1.0"),
        &engines(3, "0", "--tokens 1000"),
        "",
    ));
    let api = gateway.api();
    let mut streams: Vec<Client> = (0..3).map(|_| stream(&gateway, 300)).collect();
    stands(&api, "a replica for each", ready(3));
    let running = processes(&api);
    assert_eq!(running.len(), 3);
    for stream in &mut streams {
        assert_whole(stream);
    }
    let told = stands(&api, "none", |told| ready(0)(told) && told["draining"] == 0);
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("in_flight is"), "{reason}");
    for (id, pid) in running {
        assert!(!is_running(pid), "{id} lives on");
    }
    assert_eq!(processes(&api), []);
    gateway.client().chat("qwen", "").assert_ok();
}

/// By arrivals two replicas are one too many; each has a stream, which comes to its end.
#[test]
fn a_replica_with_a_stream_is_not_cut() {
    let gateway = Gateway::start(&scaled(
        &quick("max = 2\ntarget = 2.0\nmetric = \"rps\""),
        &engines(2, "0", "--tokens 1000"),
        "",
    ));
    let api = gateway.api();
    let mut client = gateway.client();
    until("two replicas", || {
        for _ in 0..4 {
            client.chat("qwen", "").assert_ok();
        }
        (scaling(&api)["ready"] == 2).then_some(())
    });
    let mut streams = [stream(&gateway, 250), stream(&gateway, 250)];
    let busy = |told: &Value| told["draining"] == 1 && told["ready"] == 1;
    stands(&api, "one to drain", busy);
    for stream in &mut streams {
        assert_whole(stream);
    }
    stands(&api, "the drained one to end", |told| told["draining"] == 0);
    gateway.assert_gauges_zero();
}

/// Its grace is what it has, and no more.
#[test]
fn a_replica_that_drains_for_too_long_ends() {
    let gateway = Gateway::start(&scaled(
        &quick("max = 2\ntarget = 2.0\nmetric = \"rps\"\ngrace = \"1s\""),
        &engines(2, "0", "--tokens 1000"),
        "",
    ));
    let api = gateway.api();
    let mut client = gateway.client();
    until("two replicas", || {
        for _ in 0..4 {
            client.chat("qwen", "").assert_ok();
        }
        (scaling(&api)["ready"] == 2).then_some(())
    });
    let streams = [stream(&gateway, 1_000), stream(&gateway, 1_000)];
    stands(&api, "one to drain", |told| told["draining"] == 1);
    stands(&api, "it to end", |told| told["draining"] == 0);
    drop(streams);
}

#[test]
fn a_replica_that_dies_is_followed_by_another() {
    let gateway = Gateway::start(&scaled(
        "min = 1\nmax = 1\ntarget = 100.0",
        &engines(1, "0", ""),
        "",
    ));
    let api = gateway.api();
    stands(&api, "a replica without anybody asking", ready(1));
    let before = processes(&api);
    let [(_, pid)] = before[..] else {
        panic!("{before:?}")
    };
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
    stands(&api, "its death to be seen", |told| {
        told["problem"].is_string()
    });
    // Whoever comes meanwhile waits.
    gateway.client().chat("qwen", "").assert_ok();
    let told = stands(&api, "another one", ready(1));
    assert_eq!(told["problem"], Value::Null);
    assert_ne!(processes(&api), before);
}

#[test]
fn what_cannot_be_started_is_told_and_nobody_waits_for_ever() {
    for (start, why) in [
        (r#"["./no-such-program"]"#, "cannot be run"),
        (
            r#"["sh", "-c", "exit 3"]"#,
            "ended before it served (exit status: 3)",
        ),
    ] {
        let actuator = format!(
            "{{ type = \"exec\", start = {start}, url = \"http://127.0.0.1:{{port}}\", ports = \"1025\" }}"
        );
        let gateway = Gateway::start(&scaled(
            "max = 1\ntarget = 1.0\nhold = { max_wait = \"1s\" }",
            &actuator,
            "",
        ));
        let reply = gateway.client().chat("qwen", "");
        reply.assert_refused(503, "no_healthy_upstream");
        assert!(reply.header("retry-after").is_some());
        let told = stands(&gateway.api(), "the reason", |told| {
            told["problem"]
                .as_str()
                .is_some_and(|problem| problem.contains(why))
        });
        assert_eq!(told["desired"], 1);
    }
}

#[test]
fn waiting_is_bounded_and_a_client_that_leaves_makes_room() {
    let gateway = Gateway::start(&scaled(
        "max = 1\ntarget = 1.0\nhold = { size = 1 }",
        &engines(1, "600", ""),
        "",
    ));
    let api = gateway.api();
    let waits = |count: u64| {
        until("who waits", || {
            (scaling(&api)["waiting"] == count).then_some(())
        })
    };
    let mut first = gateway.client();
    first.send(post(CHAT, "", chat("qwen")));
    waits(1);
    let second = gateway.client().chat("qwen", "");
    second.assert_refused(503, "no_healthy_upstream");
    drop(first);
    waits(0);
    let mut third = gateway.client();
    third.send(post(CHAT, "", chat("qwen")));
    waits(1);
    drop(third);
    gateway.assert_gauges_zero();
}

#[test]
fn with_holding_off_the_first_is_refused_and_wakes_a_replica() {
    let gateway = Gateway::start(&scaled(
        "max = 1\ntarget = 1.0\nhold = \"off\"",
        &engines(1, "0", ""),
        "",
    ));
    let refused = gateway.client().chat("qwen", "");
    refused.assert_refused(503, "no_healthy_upstream");
    stands(&gateway.api(), "a replica", |told| told["ready"] == 1);
    gateway.client().chat("qwen", "").assert_ok();
}

/// Whoever scales a service looks at it a moment after it is there. Who was refused by then is seen all the same, each time the service is made.
#[test]
fn who_was_refused_before_the_first_look_wakes_a_replica() {
    let gateway = Gateway::start(&service("other", "other", "http://127.0.0.1:9"));
    let api = gateway.api();
    let body = json!({"models": ["qwen"], "targets": [], "scaling": {"max": 1, "target": 1.0, "hold": "off"}});
    for _ in 0..2 {
        let made = api.ask("PUT", "/v1/services/qwen", &body);
        assert_eq!(made.status, 201, "{}", made.text());
        let refused = gateway.client().chat("qwen", "");
        refused.assert_refused(503, "no_healthy_upstream");
        stands(&api, "a replica to be wanted", |told| told["desired"] == 1);
        let gone = api.ask("DELETE", "/v1/services/qwen", &Value::Null);
        assert_eq!(gone.status, 204, "{}", gone.text());
    }
}

/// Somebody else serves until there is a replica, unless waiting is better.
#[test]
fn a_fallback_that_serves_is_better_than_a_wait() {
    let other = engine();
    let start = |hold: &str| {
        let own = scaled(
            &format!("max = 1\ntarget = 1.0\n{hold}"),
            &engines(1, "1", ""),
            "fallback = [\"other\"]",
        );
        Gateway::start(&(own + &service("other", "other", &other.url())))
    };
    for (hold, by) in [("", "other"), ("hold = { before_fallback = true }", "qwen")] {
        let gateway = start(hold);
        let reply = gateway.client().chat("qwen", "");
        reply.assert_ok();
        assert_eq!(reply.header("x-tollgate-service"), Some(by));
        stands(&gateway.api(), "a replica", |told| told["ready"] == 1);
        let reply = gateway.client().chat("qwen", "");
        assert_eq!(reply.header("x-tollgate-service"), Some("qwen"));
    }
}

/// Those that wait for the first replica do not wait for a second one: each gets its place at the first.
#[test]
fn who_waited_is_served_within_the_limit_of_the_first_replica() {
    let own = format!(
        "[[service]]\nname = \"qwen\"\nmodels = [\"qwen\"]\nupstream = \"qwen\"\n[service.scaling]\nmax = 1\ntarget = 1.0\nactuator = {}\n[[upstream]]\nname = \"qwen\"\ntargets = []\nmax_in_flight = 2\n",
        engines(1, "1", "--ttft 20ms")
    );
    let gateway = Gateway::start(&own);
    std::thread::scope(|threads| {
        for _ in 0..20 {
            threads.spawn(|| gateway.client().chat("qwen", "").assert_ok());
        }
    });
    gateway.assert_gauges_zero();
}

#[test]
fn replicas_end_with_the_gateway() {
    let gateway = Gateway::start(&scaled(
        "min = 2\nmax = 2\ntarget = 1.0",
        &engines(2, "0", ""),
        "",
    ));
    let api = gateway.api();
    stands(&api, "two replicas", ready(2));
    let running = processes(&api);
    assert_eq!(running.len(), 2);
    drop(gateway);
    for (id, pid) in running {
        assert!(!is_running(pid), "{id} lives on");
    }
}

/// Who may change the configuration by the API is not thereby given the machine.
#[test]
fn commands_and_accounts_are_the_files_alone() {
    let gateway = Gateway::start(&service("other", "other", "http://127.0.0.1:9"));
    let api = gateway.api();
    let of = |actuator: Value| json!({"models": ["m"], "targets": [], "scaling": {"max": 1, "target": 1.0, "actuator": actuator}});
    let exec = json!({"type": "exec", "start": ["true"], "url": "http://127.0.0.1:{port}", "ports": "1025"});
    let pods = json!({"type": "kubernetes", "deployment": "d", "port": 80, "account": "/etc"});
    for (actuator, field) in [(exec, "start"), (pods, "account")] {
        let refused = api.ask("PUT", "/v1/services/m", &of(actuator));
        assert_eq!(refused.status, 422, "{}", refused.text());
        let path = &refused.json()["error"]["details"][0]["path"];
        assert_eq!(*path, format!("scaling.actuator.{field}"));
    }
    let made = api.ask("PUT", "/v1/services/m", &of(json!({"type": "none"})));
    assert_eq!(made.status, 201, "{}", made.text());
    let told = until("its beginning", || {
        let told = api.get("/v1/services/m/scaling");
        (told.status == 200 && told.json()["desired"] == 0).then(|| told.json())
    });
    assert_eq!((&told["min"], &told["max"]), (&json!(0), &json!(1)));
    assert_eq!(api.get("/v1/services/other/scaling").status, 404);
    // Nobody starts anything: who registers a target serves whoever waits.
    let engine = engine();
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| gateway.client().chat("m", ""));
        until("it to wait", || {
            let told = api.get("/v1/services/m/scaling").json();
            (told["waiting"] == 1 && told["desired"] == 1).then_some(())
        });
        let put = api.ask(
            "PUT",
            "/v1/upstreams/m/targets/a",
            &json!({"url": engine.url()}),
        );
        assert_eq!(put.status, 201, "{}", put.text());
        waiting.join().unwrap().assert_ok();
    });
}

/// A window without requests, and one with: what the loop adds up is what was asked.
#[test]
fn what_is_measured_is_what_was_asked() {
    let gateway = Gateway::start(&scaled(
        "min = 1\nmax = 1\ntarget = 1.0\nmetric = \"rps\"\nwindow = \"2s\"",
        &engines(1, "0", ""),
        "",
    ));
    let api = gateway.api();
    stands(&api, "a replica", |told| told["ready"] == 1);
    let mut client = gateway.client();
    for _ in 0..20 {
        client.chat("qwen", "").assert_ok();
    }
    stands(&api, "the requests", |told| {
        told["measured"].as_f64() >= Some(5.0)
    });
    stands(&api, "silence", |told| told["measured"] == 0.0);
}
