//! Snapshots: how a compiled configuration decides, and what revisions share.

mod changes;
mod sharing;

use std::sync::Arc;

use http::HeaderValue;
use tollgate_sdk::plugin::NoHttp;

use super::{Decision, Head, ModelName, Offer, Registry, Service, Snapshot, Upstream, compile};
use crate::balance::RoundRobin;
use crate::config;
use crate::model::{self, Config, ServiceKind};
use crate::telemetry::{Metrics, OfferMetrics};

/// An offer of a service of this name, for tests of its neighbours.
pub(super) fn offer(name: &str) -> Arc<Offer> {
    let service = Service {
        name: name.into(),
        document: read(BASE).services[0].clone(),
        header: HeaderValue::from_static("x"),
        chain: Arc::default(),
        rates: None,
        public: false,
        kind: ServiceKind::Openai,
        alias: None,
        upstream: Arc::new(Upstream {
            freed: Arc::default(),
            name: name.into(),
            document: None,
            watched: Arc::new([]),
            targets: Vec::new(),
            view: Vec::new(),
            policy: Box::new(RoundRobin::default()),
            affinity: None,
            disaggregation: None,
            health: Arc::default(),
            headers: Arc::new([]),
            served: Arc::default(),
            http2: false,
            verify: true,
            credentials: None,
        }),
        timeouts: model::Timeouts::default(),
        retry: Arc::default(),
        queue: None,
        state: Arc::default(),
    };
    let metrics = OfferMetrics::of(&Arc::new(Metrics::new()), &"main".into(), &name.into());
    Arc::new(Offer {
        service: Arc::new(service),
        metrics,
        fallback: Vec::new(),
    })
}

fn read(toml: &str) -> Config {
    let no_file = |file: &str| Err(file.to_owned());
    config::parse("test", toml, config::Format::Toml, &|_| None, &no_file)
        .unwrap()
        .config
}

fn snapshot(toml: &str) -> Snapshot {
    let config = read(toml);
    compile(
        &config,
        1,
        &Registry::new(Arc::new(NoHttp)),
        &Arc::new(Metrics::new()),
        None,
    )
}

const BASE: &str = r#"
    [[listener]]
    address = "127.0.0.1:8080"
    [[gateway]]
    name = "main"
    hosts = ["*"]
    auth = "none"
    [[service]]
    name = "a"
    models = ["m", "big/*", "big/x*"]
    targets = ["http://127.0.0.1:1"]
    [[service]]
    name = "b"
    type = "http"
    targets = ["http://127.0.0.1:2"]
    path_prefix = "/files"
    [[service]]
    name = "c"
    models = ["big/xy", "*"]
    targets = ["http://127.0.0.1:3"]
"#;

fn decide(snapshot: &Snapshot, method: &str, path: &str, model: ModelName<'_>) -> String {
    let headers = http::HeaderMap::new();
    let method = method.parse().unwrap();
    let head = Head {
        who: super::Who::Anybody,
        method: &method,
        path,
        headers: &headers,
        service: None,
    };
    match snapshot.gateways[0].router.decide(head, model) {
        Decision::Route(route) => {
            format!(
                "{}{}",
                route.offer.service.name,
                route.path.map(|p| format!(" {p}")).unwrap_or_default()
            )
        }
        Decision::MethodNotAllowed(allow) => format!("405 {allow}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn models_exact_then_longest_prefix() {
    let s = snapshot(BASE);
    for (model, service) in [
        ("m", "a"),
        ("big/q", "a"),
        ("big/xy", "c"),
        ("big/xz", "a"),
        ("other", "c"),
    ] {
        assert_eq!(
            decide(&s, "POST", "/v1/chat/completions", ModelName::Is(model)),
            service,
            "{model}"
        );
    }
    assert_eq!(
        decide(&s, "POST", "/v1/chat/completions", ModelName::Unread),
        "NeedsModel"
    );
    assert_eq!(decide(&s, "GET", "/v1/x", ModelName::Absent), "NoRoute");
}

#[test]
fn prefixes_are_stripped_and_do_not_match_half_a_segment() {
    let s = snapshot(BASE);
    assert_eq!(decide(&s, "GET", "/files/a/b", ModelName::Unread), "b /a/b");
    assert_eq!(decide(&s, "GET", "/files", ModelName::Unread), "b /");
    assert_eq!(
        decide(&s, "GET", "/filesystem", ModelName::Absent),
        "NoRoute"
    );
    assert_eq!(
        decide(&s, "GET", "/files/../secret", ModelName::Absent),
        "NoRoute"
    );
}

#[test]
fn rules_follow_precedence() {
    let rules = r#"
        [[rule]]
        gateway = "main"
        path = "/r/*"
        services = ["a"]
        [[rule]]
        gateway = "main"
        path = "/r/{id}/x"
        services = ["b"]
        rewrite = "/items/{id}"
        [[rule]]
        gateway = "main"
        path = "/r/1/x"
        methods = ["GET", "PUT"]
        services = ["c"]
        [[rule]]
        gateway = "main"
        path = "/r/long/*"
        strip_path = true
        services = ["b"]
        [[rule]]
        gateway = "main"
        path = "/only"
        methods = ["POST"]
        services = ["a"]
        [[rule]]
        gateway = "main"
        priority = 9
        path = "/r/vip/*"
        model = "gold*"
        services = ["c"]
    "#;
    let s = snapshot(&format!("{BASE}{rules}"));
    let gold = ModelName::Is("gold-1");
    for (method, path, model, want) in [
        ("GET", "/r/1/x", ModelName::Absent, "c"),
        ("POST", "/r/1/x", ModelName::Absent, "b /items/1"),
        ("GET", "/r/2/x", ModelName::Absent, "b /items/2"),
        ("GET", "/r/2/y", ModelName::Absent, "a"),
        ("GET", "/r/long/y/z", ModelName::Absent, "b /y/z"),
        ("GET", "/only", ModelName::Absent, "405 POST"),
        ("POST", "/r/vip/1", gold, "c"),
        ("POST", "/r/vip/1", ModelName::Is("tin"), "a"),
        ("POST", "/r/vip/1", ModelName::Unread, "NeedsModel"),
    ] {
        assert_eq!(decide(&s, method, path, model), want, "{method} {path}");
    }
}

#[test]
fn state_survives_a_change() {
    let registry = Registry::new(Arc::new(NoHttp));
    let metrics = Arc::new(Metrics::new());
    let config = read(BASE);
    let first = compile(&config, 1, &registry, &metrics, None);
    let second = compile(&config, 2, &registry, &metrics, None);
    let state = |s: &Snapshot| {
        s.upstreams
            .iter()
            .find(|u| &*u.name == "a")
            .map(|u| u.targets[0].state.clone())
            .unwrap()
    };
    assert!(Arc::ptr_eq(&state(&first), &state(&second)));
}
