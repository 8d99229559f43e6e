//! KEDA starts and ends the replicas: it asks by gRPC how many there should be, and is told at once when somebody comes to a service that sleeps.

use serde_json::{Value, json};

use crate::harness::keda::{Keda, double, field, object, question};
use crate::harness::{Gateway, engine, get, post, scaled, scaling, service, stands, until};

const NONE: &str = "{ type = \"none\" }";
const METRIC: &str = "desired_replicas";
/// `IsActiveResponse { result: true }`, and with false.
const ACTIVE: &[u8] = &[8, 1];
const ASLEEP: &[u8] = &[];

/// `qwen` sleeps until somebody comes; `awake` always has two; `plain` is not scaled.
fn start() -> Gateway {
    let awake = scaled("min = 2\nmax = 4\ntarget = 1.0", NONE, "").replace("\"qwen\"", "\"awake\"");
    let sleeping = scaled(
        "max = 4\ntarget = 1.0\nwindow = \"1s\"\ndown_delay = \"0s\"",
        NONE,
        "",
    );
    let plain = service("plain", "plain", "http://127.0.0.1:9");
    let gateway = Gateway::start(&format!("{awake}{sleeping}{plain}"));
    for name in ["awake", "qwen"] {
        let path = format!("/v1/services/{name}/scaling");
        until("the first decision", || {
            let told = gateway.api().get(&path).json();
            told["desired"].is_u64().then_some(())
        });
    }
    gateway
}

fn of(service: &str) -> Vec<u8> {
    object(&[("service", service), ("scalerAddress", "tollgate:9091")])
}

/// `GetMetricsResponse` of so many.
fn value(desired: u8) -> Vec<u8> {
    let mut value = field(1, METRIC);
    if desired > 0 {
        value.extend([0x10, desired]);
        value.extend(double(3, desired.into()));
    }
    field(1, value)
}

#[test]
fn what_keda_asks_is_answered_for_each_service() {
    let gateway = start();
    let keda = Keda::connect(gateway.admin_address());
    let specification = [field(1, METRIC), vec![0x10, 1], double(3, 1.0)].concat();
    for (name, active, desired) in [("awake", ACTIVE, 2), ("qwen", ASLEEP, 0)] {
        keda.call("IsActive", &of(name)).assert_is(active);
        let specified = keda.call("GetMetricSpec", &of(name));
        specified.assert_is(&field(1, &specification));
        let asked = question(&of(name), METRIC);
        keda.call("GetMetrics", &asked).assert_is(&value(desired));
        assert_eq!(keda.watch(name).next(), active == ACTIVE);
    }
}

/// The replica comes when KEDA is told, and not before: without the stream nobody would be served.
#[test]
fn who_comes_to_a_sleeping_service_wakes_it_by_the_stream() {
    let engine = engine();
    let gateway = start();
    let keda = Keda::connect(gateway.admin_address());
    let mut activity = keda.watch("qwen");
    assert!(!activity.next());
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| gateway.client().chat("qwen", ""));
        assert!(activity.next());
        let asked = question(&of("qwen"), METRIC);
        until("the number", || {
            (keda.call("GetMetrics", &asked).messages == [value(1)]).then_some(())
        });
        let path = "/v1/upstreams/qwen/targets/pod-1";
        let target = json!({"url": engine.url()});
        let reply = gateway.api().ask("PUT", path, &target);
        assert_eq!(reply.status, 201, "{}", reply.text());
        waiting.join().unwrap().assert_ok();
    });
    // Nobody asks any more.
    assert!(!activity.next());
    keda.call("IsActive", &of("qwen")).assert_is(ASLEEP);
    gateway.assert_gauges_zero();
}

#[test]
fn a_stream_ends_when_its_service_is_scaled_no_longer_or_gone() {
    let gateway = start();
    let api = gateway.api();
    let keda = Keda::connect(gateway.admin_address());
    for name in ["left", "gone"] {
        let scaling = json!({"max": 2, "target": 1.0});
        let made = json!({"name": name, "models": [name], "targets": [], "scaling": scaling});
        let reply = api.ask("POST", "/v1/services", &made);
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    let [mut left, mut gone] = ["left", "gone"].map(|name| keda.watch(name));
    assert!(!left.next() && !gone.next());
    let fixed = json!({"scaling": null, "targets": ["http://127.0.0.1:9"]});
    let reply = api.ask("PATCH", "/v1/services/left", &fixed);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let reply = api.ask("DELETE", "/v1/services/gone", &Value::Null);
    assert_eq!(reply.status, 204, "{}", reply.text());
    let (status, told) = left.ends();
    assert_eq!(status, 9, "{told}");
    assert!(told.contains("not scaled"), "{told}");
    let (status, told) = gone.ends();
    assert_eq!(status, 5, "{told}");
    assert!(told.contains("no service \"gone\""), "{told}");
}

#[test]
fn what_is_wrong_with_a_trigger_is_said() {
    let gateway = start();
    let keda = Keda::connect(gateway.admin_address());
    for procedure in ["IsActive", "StreamIsActive", "GetMetricSpec", "GetMetrics"] {
        let call = |object: &[u8]| match procedure {
            "GetMetrics" => keda.call(procedure, &question(object, METRIC)),
            _ => keda.call(procedure, object),
        };
        call(&of("nobody")).assert_refused(5, "no service \"nobody\"");
        call(&of("plain")).assert_refused(9, "\"plain\" is not scaled");
        call(&of("")).assert_refused(3, "needs `service`");
        call(&of(&"x".repeat(64))).assert_refused(3, "1 to 63");
        call(&object(&[])).assert_refused(3, "needs `service`");
        call(&[]).assert_refused(3, "needs `service`");
    }
    let asked = question(&of("awake"), "s0-other");
    keda.call("GetMetrics", &asked).assert_refused(5, METRIC);
    let unknown = keda.call("StreamMetricSpec", &of("awake"));
    unknown.assert_refused(12, "GetMetricSpec");
    keda.call("IsActive", &of("awake")).assert_is(ACTIVE);
}

/// Whoever asks the pages sees nothing of it, and the calls are not to be had by HTTP/1.
#[test]
fn pages_are_served_on_the_same_listener() {
    let gateway = start();
    let keda = Keda::connect(gateway.admin_address());
    let mut activity = keda.watch("awake");
    let mut client = gateway.admin_client();
    for path in ["/healthz", "/metrics", "/v1/status", "/v1/keys"] {
        client.send(get(path, ""));
        let reply = client.reply();
        assert_eq!((reply.status, reply.complete), (200, true), "{path}");
        assert!(reply.header("content-length").is_some(), "{path}");
    }
    let fields = "content-type: application/grpc\r\n";
    client.send(post("/externalscaler.ExternalScaler/IsActive", fields, "x"));
    assert_eq!(client.reply().status, 404);
    assert!(activity.next());
    let pages = gateway.admin_h2();
    for path in [
        "/healthz",
        "/metrics",
        "/externalscaler.ExternalScaler/IsActive",
    ] {
        let reply = pages.get(path, &[]).unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (505, ""), "{path}");
    }
    assert_eq!(scaling(&gateway.api())["desired"], 0);
    stands(&gateway.api(), "nobody to wait", |told| {
        told["waiting"] == 0
    });
}
