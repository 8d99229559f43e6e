//! TrustGate: a gateway with its keys and plugins, targets and how they are picked, judged and tried again.

use serde_json::{Value, json};
use tollgate::config::foreign::{Fate, Options};

use super::{
    Caller, Conversion, all_up, answering, assert_from, document, key, named, port, sent_json,
};
use crate::harness::{CHAT, Connection, Gateway, Upstream, bearer, chat, until};

pub(super) const HOST: &str = "edge.localhost";

/// A whole set of documents: a gateway, a pool of these targets, a service and a rule; more fields of each in these tables.
pub(super) struct Set {
    pub(super) gateway: Value,
    pub(super) upstream: Value,
    pub(super) rule: Value,
    pub(super) more: Vec<Value>,
}

impl Set {
    pub(super) fn of(targets: Value) -> Set {
        Set {
            gateway: json!({"id": "g", "name": "Edge", "subdomain": "edge", "status": "active"}),
            upstream: json!({"id": "u", "name": "pool", "algorithm": "round-robin", "targets": targets}),
            rule: json!({"id": "r", "path": "/v1", "service_id": "s", "methods": ["POST", "GET"], "gateway_id": "g"}),
            more: Vec::new(),
        }
    }

    pub(super) fn convert(&self) -> Conversion {
        let service = json!({"id": "s", "name": "chat", "type": "upstream", "upstream_id": "u"});
        let mut all = vec![
            self.gateway.clone(),
            self.upstream.clone(),
            service,
            self.rule.clone(),
        ];
        all.extend(self.more.iter().cloned());
        Conversion::of(&[&Value::from(all).to_string()], &Options::default())
    }

    pub(super) fn start(&self) -> Gateway {
        self.convert().start()
    }
}

pub(super) fn target(upstream: &Upstream) -> Value {
    json!({"host": "127.0.0.1", "port": port(upstream), "protocol": "http"})
}

/// Who has a new key.
pub(super) fn caller(gateway: &Gateway) -> Caller<'_> {
    Caller::new(gateway, HOST).with_key("edge")
}

#[test]
fn keys_are_taken_from_three_headers() {
    let upstream = named("pool");
    let conversion = Set::of(json!([target(&upstream)])).convert();
    let gateway = conversion.start();
    let secret = key(&gateway, "edge");
    for field in ["X-TG-API-Key", "x-api-key"] {
        let caller = Caller::new(&gateway, HOST).with(&format!("{field}: {secret}\r\n"));
        assert_from(&caller.chat("m"), "pool");
    }
    // A credential of the client's own that is no key of the gateway does not stand in the way.
    let both = format!("x-tg-api-key: {secret}\r\nauthorization: Bearer of-another\r\n");
    assert_from(&Caller::new(&gateway, HOST).with(&both).chat("m"), "pool");
    let caller = Caller::new(&gateway, HOST).with(&bearer(&secret));
    assert_from(&caller.chat("m"), "pool");
    let shown = format!("{:?}", upstream.requests());
    assert!(!shown.contains(&secret), "the key went on");
    for field in ["", "x-tg-api-key: tg_nobody_knows-this-one\r\n"] {
        let caller = Caller::new(&gateway, HOST).with(field);
        caller.chat("m").assert_refused(401, "invalid_api_key");
    }
    conversion.tells(
        "[0]",
        Fate::Assumed,
        "X-TG-API-Key, X-Api-Key and Authorization",
    );
    conversion.tells("[0]", Fate::Assumed, "OpenAI's errors");
}

/// Keys of the documents: one for some rules, one for all, and two that open nothing.
#[test]
fn keys_open_their_rules() {
    let upstream = named("pool");
    let mut set = Set::of(json!([target(&upstream)]));
    set.rule["path"] = json!("/v1/*");
    let secret = |n: u8| format!("secret-of-{n}-{}", "x".repeat(24));
    set.more = vec![
        json!({"id": "r2", "path": "/v2/*", "service_id": "s", "methods": ["POST"]}),
        json!({"name": "one", "key": secret(1), "policies": ["r"], "expires_at": "2099-01-01T00:00:00Z"}),
        json!({"name": "all", "key": secret(2), "policies": []}),
        json!({"name": "late", "key": secret(3), "expires_at": "2020-01-01T00:00:00Z"}),
        json!({"name": "off", "key": secret(4), "active": false, "policies": []}),
    ];
    let gateway = set.start();
    for (n, v1, v2) in [(1, 200, 403), (2, 200, 200), (3, 401, 401), (4, 401, 401)] {
        let caller = Caller::new(&gateway, HOST).with(&format!("x-tg-api-key: {}\r\n", secret(n)));
        let paths = ["/v1/a", "/v2/a"].map(|path| caller.send("POST", path, &chat("m")).status);
        assert_eq!(paths, [v1, v2], "key {n}");
    }
}

#[test]
fn paused_gateways_and_other_hosts() {
    let upstream = named("pool");
    let mut set = Set::of(json!([target(&upstream)]));
    let conversion = set.convert();
    conversion.tells("[0].subdomain", Fate::Assumed, "base domain");
    conversion.tells("[0]", Fate::Assumed, "it takes requests for every host");
    let gateway = conversion.start();
    assert_from(
        &Caller::new(&gateway, "any.example")
            .with_key("edge")
            .chat("m"),
        "pool",
    );
    set.gateway["security_config"] = json!({
        "allowed_hosts": ["api.example.com"], "sts_seconds": 86400, "frame_deny": true, "content_type_nosniff": true,
        "browser_xss_filter": true, "referrer_policy": "no-referrer", "content_security_policy": "default-src 'self'",
    });
    let gateway = set.start();
    let reply = Caller::new(&gateway, "api.example.com")
        .with_key("edge")
        .chat("m");
    assert_from(&reply, "pool");
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("x-xss-protection", "1; mode=block"),
        ("referrer-policy", "no-referrer"),
        ("strict-transport-security", "max-age=86400"),
        ("content-security-policy", "default-src 'self'"),
    ] {
        assert_eq!(reply.header(name), Some(value));
    }
    let other = Caller::new(&gateway, HOST).with_key("edge");
    other.chat("m").assert_refused(421, "unknown_host");
    set.gateway["status"] = json!("inactive");
    let gateway = set.start();
    let caller = Caller::new(&gateway, "api.example.com").with_key("edge");
    caller.chat("m").assert_refused(503, "gateway_paused");
}

#[test]
fn weights_repeat_targets_in_proportion() {
    let (heavy, light, none) = (named("heavy"), named("light"), named("none"));
    let weighted = |upstream: &Upstream, weight: u32| {
        let mut target = target(upstream);
        target["weight"] = json!(weight);
        target
    };
    let mut set = Set::of(json!([
        weighted(&heavy, 3),
        weighted(&light, 1),
        weighted(&none, 0)
    ]));
    for algorithm in ["weighted-round-robin", "weighted"] {
        set.upstream["algorithm"] = json!(algorithm);
        let gateway = set.start();
        all_up(&gateway, 2);
        let caller = caller(&gateway);
        let answers: Vec<String> = (0..40).map(|_| caller.chat("m").text()).collect();
        let count = |name: &str| answers.iter().filter(|answer| *answer == name).count();
        assert_eq!([count("heavy"), count("light"), count("none")], [30, 10, 0]);
    }
}

/// What is busy gets no more as long as another is idle: theirs did not count what is under way.
#[test]
fn least_conn_counts_what_is_under_way() {
    let idle = named("idle");
    let hold = |connection: &mut Connection| {
        if connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            connection.wait_closed();
        }
    };
    let busy = Upstream::start(hold);
    let mut set = Set::of(json!([target(&busy), target(&idle)]));
    set.upstream["algorithm"] = json!("least-conn");
    let gateway = set.start();
    all_up(&gateway, 2);
    let secret = key(&gateway, "edge");
    // Until one of them is held at the busy one.
    let mut held = gateway.client();
    until("a request at the busy one", || {
        let body = chat("m");
        let fields = format!("host: {HOST}\r\n{}", bearer(&secret));
        held = gateway.client();
        held.send(crate::harness::request("POST", CHAT, &fields, &body));
        let head = held.head().unwrap();
        (head.header("transfer-encoding") == Some("chunked")).then_some(())
    });
    let caller = Caller::new(&gateway, HOST).with(&bearer(&secret));
    for _ in 0..20 {
        // An answer may be here before its place is given back.
        until("only the one that is held", || {
            let under_way = gateway.metrics().sum("tollgate_target_in_flight", &[]);
            (under_way == 1.0).then_some(())
        });
        assert_from(&caller.chat("m"), "idle");
    }
    assert_eq!(busy.requests().len(), 1);
}

/// `retry_attempts` 0 means 2: three tries, each of another target.
#[test]
fn retries_go_to_the_next_target() {
    for (attempts, tries) in [
        (json!(0), 3),
        (json!(null), 3),
        (json!(1), 2),
        (json!(3), 4),
    ] {
        let failing: Vec<Upstream> = (0..4)
            .map(|_| answering("500 Internal Server Error"))
            .collect();
        let mut set = Set::of(failing.iter().map(target).collect());
        set.rule["retry_attempts"] = attempts.clone();
        let gateway = set.start();
        all_up(&gateway, 4);
        let reply = caller(&gateway).chat("m");
        assert_eq!((reply.status, reply.text().as_str()), (500, "theirs"));
        let calls: Vec<usize> = failing
            .iter()
            .map(|upstream| upstream.requests().len())
            .collect();
        assert_eq!(calls.iter().sum::<usize>(), tries, "{attempts}: {calls:?}");
        assert!(
            calls.iter().all(|calls| *calls <= 1),
            "one was asked twice: {calls:?}"
        );
    }
    // What the client did wrong is its own.
    let (wrong, right) = (
        answering("422 Unprocessable Content"),
        answering("422 Unprocessable Content"),
    );
    let gateway = Set::of(json!([target(&wrong), target(&right)])).start();
    assert_eq!(caller(&gateway).chat("m").status, 422);
    assert_eq!(wrong.requests().len() + right.requests().len(), 1);
}

/// After `threshold` failures a target is left alone.
#[test]
fn passive_health_leaves_a_failing_target_alone() {
    let (failing, good) = (answering("500 Internal Server Error"), named("good"));
    let mut set = Set::of(json!([target(&failing), target(&good)]));
    set.upstream["health_checks"] = json!({"passive": true, "threshold": 3, "interval": 60});
    let conversion = set.convert();
    conversion.tells(
        "[1].health_checks",
        Fate::Assumed,
        "10 seconds at a time, not for an hour",
    );
    let gateway = conversion.start();
    all_up(&gateway, 2);
    let caller = caller(&gateway);
    let open = || gateway.metrics().sum("tollgate_target_breaker_state", &[]) > 0.0;
    until("the breaker to open", || {
        assert_from(&caller.chat("m"), "good");
        open().then_some(())
    });
    assert_eq!(failing.requests().len(), 3);
    for _ in 0..20 {
        assert_from(&caller.chat("m"), "good");
    }
    // One trial may have come round on a machine that is slow.
    assert!(failing.requests().len() <= 4);
}

/// A provider gets its path, its key and a model it has, whatever the request names.
#[test]
fn a_provider_gets_its_default_model() {
    let provider = named("provider");
    let mut set = Set::of(json!([{
        "provider": "openai", "models": ["gpt-4o-mini"], "default_model": "gpt-4o-mini", "credentials": {"api_key": "sk-not-a-real-key"},
        "weight": 1, "stream": true,
    }]));
    set.rule["path"] = json!("/chat/*");
    let gateway = set
        .convert()
        .with("https://api.openai.com", &provider.url())
        .start();
    let caller = caller(&gateway);
    for body in [chat("anything"), r#"{"messages":[],"seed":7}"#.into()] {
        assert_from(&caller.send("POST", "/chat/now?x=1", &body), "provider");
        let sent = provider.last();
        assert_eq!(sent.path(), "/v1/chat/completions?x=1");
        assert_eq!(
            sent.header("authorization").as_deref(),
            Some("Bearer sk-not-a-real-key")
        );
        assert_eq!(sent_json(&provider)["model"], "gpt-4o-mini", "{body}");
    }
    assert_eq!(sent_json(&provider)["seed"], 7);
}

/// Of several models the request chooses; one that is not among them is refused, as is said.
#[test]
fn providers_share_by_weight() {
    let (openai, azure) = (named("openai"), named("azure"));
    let documents = document(
        "trustgate/providers.json",
        &[(
            "\"tokens_per_minute\": 100,",
            "\"tokens_per_minute\": 100000,",
        )],
    );
    let documents = documents.replace("\"bucket_size\": 1000", "\"bucket_size\": 100000");
    let documents = documents.replace(
        "\"requests_per_minute\": 60",
        "\"requests_per_minute\": 6000",
    );
    let conversion = Conversion::of(&[&documents], &Options::default());
    conversion.tells(
        "[1].targets[0].default_model",
        Fate::Warned,
        "gets 403 instead",
    );
    let conversion = conversion
        .with("https://api.openai.com", &openai.url())
        .with("https://team.openai.azure.com", &azure.url());
    let gateway = conversion.start();
    let caller = Caller::new(&gateway, "ai.localhost").with_key("ai");
    let answers: Vec<String> = { 0..500 }
        .map(|_| caller.send("POST", "/chat", &chat("gpt-4o")).text())
        .collect();
    let share = answers.iter().filter(|answer| *answer == "openai").count();
    assert!(
        (370..=430).contains(&share),
        "{share} of 500 for weights 2000 and 500"
    );
    assert_eq!(openai.last().path(), "/v1/chat/completions");
    assert_eq!(azure.last().path(), "/openai/v1/chat/completions");
    assert_eq!(azure.last().header("api-key").as_deref(), Some("azure-key"));
    assert_eq!(azure.last().header("authorization"), None);
    assert_eq!(sent_json(&azure)["model"], "gpt-4o");
}
