//! The calls of KEDA's external scaler: whoever has no token learns nothing, its own token opens nothing else, and what is malformed does no harm.

use crate::harness::keda::{Keda, framed, object, question};
use crate::harness::{Gateway, learn, scaled};

const ADMIN: &str = "admin-token-abcdef0123";
const SCALER: &str = "scaler-token-abcdef0123";
const NOBODYS: &str = "nobodys-token-abcdef0123";
const PROCEDURES: [&str; 4] = ["IsActive", "StreamIsActive", "GetMetricSpec", "GetMetrics"];

fn start(tokens: &str) -> Gateway {
    for token in [ADMIN, SCALER, NOBODYS] {
        learn(token);
    }
    let service = scaled("min = 1\nmax = 1\ntarget = 1.0", "{ type = \"none\" }", "");
    let gateway = Gateway::start(&format!(
        "{service}[admin]\naddress = \"$ADMIN\"\n{tokens}\n"
    ));
    let keda = Keda::connect(gateway.admin_address());
    let with = object(&[("service", "qwen"), ("token", SCALER)]);
    crate::harness::until("the first decision", || {
        (keda.call("IsActive", &with).status == 0).then_some(())
    });
    gateway
}

/// A call of each procedure: refused as one that has no token or a wrong one.
#[track_caller]
fn assert_shut(keda: &Keda, metadata: &[(&str, &str)]) {
    for name in ["qwen", "nobody"] {
        let object = object(&[&[("service", name)], metadata].concat());
        for procedure in PROCEDURES {
            let called = match procedure {
                "GetMetrics" => keda.call(procedure, &question(&object, "desired_replicas")),
                _ => keda.call(procedure, &object),
            };
            called.assert_refused(16, "admin.scaler_token");
        }
    }
}

#[test]
fn only_with_a_token() {
    let gateway = start(&format!("token = \"{ADMIN}\"\nscaler_token = \"{SCALER}\""));
    let address = gateway.admin_address();
    let connect = || Keda::connect(address);
    let saying = |token: &str| connect().saying("authorization", &format!("Bearer {token}"));
    assert_shut(&connect(), &[]);
    assert_shut(&connect(), &[("token", NOBODYS), ("tokenFromEnv", "")]);
    assert_shut(&connect(), &[("token", &SCALER[1..]), ("Token", SCALER)]);
    assert_shut(&saying(NOBODYS), &[]);
    // A wrong one is not made good by a second.
    assert_shut(&saying(NOBODYS), &[("token", SCALER)]);
    let plain = object(&[("service", "qwen")]);
    for keda in [saying(SCALER), saying(ADMIN)] {
        keda.call("IsActive", &plain).assert_is(&[8, 1]);
        assert!(keda.watch("qwen").next());
    }
    for (name, token) in [
        ("token", SCALER),
        ("tokenFromEnv", SCALER),
        ("token", ADMIN),
    ] {
        let object = object(&[("service", "qwen"), (name, token)]);
        connect().call("IsActive", &object).assert_is(&[8, 1]);
    }
    let page = saying(SCALER).saying("origin", "http://evil.example");
    page.call("IsActive", &plain)
        .assert_refused(7, "other origins");
    let api = gateway.api();
    assert_eq!(api.clone().with_token(ADMIN).get("/v1/status").status, 200);
    for path in ["/v1/status", "/v1/services/qwen/scaling", "/v1/keys"] {
        let reply = api.clone().with_token(SCALER).get(path);
        assert_eq!(reply.status, 401, "{path}");
    }
}

/// As with the pages: on the gateway's own machine none is asked for, if there is no admin token, but only under names that nobody else can give.
#[test]
fn without_an_admin_token_this_machine_may_ask() {
    let gateway = start("");
    let keda = Keda::connect(gateway.admin_address());
    keda.call("IsActive", &object(&[("service", "qwen")]))
        .assert_is(&[8, 1]);
    let led_here = gateway.admin_h2();
    let path = "/externalscaler.ExternalScaler/IsActive";
    let fields = [("content-type", "application/grpc")];
    for (host, status) in [("localhost", None), ("evil.example", Some("7"))] {
        let mut stream = led_here.open_at(host, "POST", path, &fields, false);
        let _ = stream.send(framed(&object(&[("service", "qwen")])), true);
        let reply = stream.reply().unwrap();
        assert_eq!(reply.header("grpc-status"), status, "{reply:?}");
    }
}

#[test]
fn what_is_malformed_is_refused_and_nothing_else_suffers() {
    let gateway = start("");
    let keda = Keda::connect(gateway.admin_address());
    let good = framed(&object(&[("service", "qwen")]));
    let mut compressed = good.clone();
    compressed[0] = 1;
    let mut strange = good.clone();
    strange[0] = 7;
    let mut longer = good.clone();
    longer[4] += 1;
    let mut endless = good.clone();
    endless[1..5].fill(0xff);
    let large = framed(&object(&[("service", &"x".repeat(64 << 10))]));
    for procedure in PROCEDURES {
        for (bytes, status) in [
            (&b""[..], 3),
            (&good[..4], 3),
            (&good[..good.len() - 1], 3),
            (&[&good[..], &good].concat(), 3),
            (&strange, 3),
            (&longer, 3),
            (&compressed, 12),
            (&endless, 8),
            (&large, 8),
            // A length that is longer than the message, a wire type there is none of, a tag without an end, text that is none.
            (&framed(&[0x1a, 100, 1]), 3),
            (&framed(&[0x0f]), 3),
            (&framed(&[0xff; 11]), 3),
            (&framed(&[0x1a, 4, 0x0a, 2, 0xff, 0xfe]), 3),
            // The whole of another message in the field's place.
            (&framed(&[0x18, 1]), 3),
        ] {
            keda.send(procedure, bytes).assert_refused(status, "");
        }
    }
    keda.send("IsActive", &good).assert_is(&[8, 1]);
    assert_eq!(gateway.admin("/healthz").status, 200);
}

/// A head that is longer than any honest one ends its call.
#[test]
fn heads_are_bounded() {
    let gateway = start("");
    let long = "x".repeat(32 << 10);
    let keda = gateway.admin_h2();
    let fields = [("content-type", "application/grpc"), ("x-long", &long)];
    let path = "/externalscaler.ExternalScaler/IsActive";
    let reply = keda.open("POST", path, &fields, true).reply();
    let is_refused = reply.as_ref().map_or(true, |reply| reply.status == 431);
    assert!(is_refused, "{reply:?}");
    assert_eq!(gateway.admin("/healthz").status, 200);
}
