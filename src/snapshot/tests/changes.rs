//! A change compiles what it touches; what comes of it is as if all had been compiled.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tollgate_sdk::document::Format;

use super::*;
use crate::snapshot::{Gateway, HostEntry, Who};

/// What is configured, small enough for changes to meet.
#[derive(Clone, Debug, Default)]
struct Draft {
    gateways: Vec<(usize, String)>,
    upstreams: Vec<(usize, String)>,
    services: Vec<(usize, String)>,
    rules: Vec<(usize, String)>,
    keys: Vec<(usize, String)>,
}

/// Puts a resource, or takes it away if there is no text.
#[derive(Clone, Debug)]
struct Change {
    kind: usize,
    number: usize,
    text: Option<String>,
    /// A new one comes first.
    first: bool,
}

impl Draft {
    /// With something of everything that others name.
    fn first() -> Draft {
        let numbered = |texts: &[&str]| {
            let texts = texts.iter().map(|text| (*text).to_owned());
            texts.enumerate().collect()
        };
        let upstream = "targets = [\"http://127.0.0.1:3\"]";
        Draft {
            gateways: numbered(&["default = true", "hosts = [\"h9.example\"]"]),
            upstreams: numbered(&[upstream; NUMBERS]),
            services: numbered(&["upstream = \"u0\""; NUMBERS]),
            ..Draft::default()
        }
    }

    fn change(&mut self, change: &Change) {
        let lists = [
            &mut self.gateways,
            &mut self.upstreams,
            &mut self.services,
            &mut self.rules,
            &mut self.keys,
        ];
        let Some(list) = lists.into_iter().nth(change.kind) else {
            return;
        };
        let known = list.iter().position(|(number, _)| *number == change.number);
        match (known, &change.text) {
            (Some(place), Some(text)) => list[place].1.clone_from(text),
            (Some(place), None) => {
                list.remove(place);
            }
            (None, Some(text)) if change.first => list.insert(0, (change.number, text.clone())),
            (None, Some(text)) => list.push((change.number, text.clone())),
            (None, None) => {}
        }
    }

    fn text(&self) -> String {
        let mut text = String::from("[[listener]]\naddress = \"127.0.0.1:8080\"\n");
        let kinds = [
            ("gateway", "g", &self.gateways),
            ("upstream", "u", &self.upstreams),
            ("service", "u", &self.services),
            ("rule", "r", &self.rules),
            ("key", "k", &self.keys),
        ];
        for (kind, letter, list) in kinds {
            for (number, body) in list {
                text += &format!("[[{kind}]]\nname = \"{letter}{number}\"\n{body}\n");
            }
        }
        text
    }

    /// The documents that are as they were are the same ones.
    fn config(&self, before: &Config) -> Option<Config> {
        fn share<T: PartialEq>(before: &[Arc<T>], now: &mut [Arc<T>]) {
            for document in now {
                if let Some(same) = before.iter().find(|known| **known == *document) {
                    *document = same.clone();
                }
            }
        }
        let no_file = |file: &str| Err(file.to_owned());
        let text = self.text();
        let loaded = config::parse("test", &text, Format::Toml, &|_| None, &no_file).ok()?;
        let mut config = loaded.config;
        share(&before.gateways, &mut config.gateways);
        share(&before.upstreams, &mut config.upstreams);
        share(&before.services, &mut config.services);
        share(&before.rules, &mut config.rules);
        share(&before.keys, &mut config.keys);
        Some(config)
    }
}

const NUMBERS: usize = 4;

fn gateway() -> impl Strategy<Value = String> {
    let plugins =
        r#"plugins = [{ name = "cors", settings = { allow_origins = ["https://a.example"] } }]"#;
    let host = (0..NUMBERS).prop_map(|n| format!("hosts = [\"h{n}.example\", \"*.w{n}.example\"]"));
    let domain = (0..NUMBERS).prop_map(|n| format!("domain = \"d{n}.example\""));
    let place = prop_oneof![host, domain, Just("default = true".to_owned())];
    let rest = prop::sample::subsequence(
        vec![
            "fallback = [\"u1\", \"u2\"]",
            "status = \"paused\"",
            plugins,
            "routing = \"path\"",
        ],
        0..3,
    );
    let auth = prop::sample::select(vec!["none", "api_key"]);
    (place, rest, auth)
        .prop_map(|(place, rest, auth)| format!("{place}\nauth = \"{auth}\"\n{}", rest.join("\n")))
}

fn service() -> impl Strategy<Value = String> {
    let targets = prop::sample::subsequence(
        vec!["\"http://127.0.0.1:1\"", "\"http://127.0.0.1:2\""],
        1..3,
    )
    .prop_map(|urls| format!("targets = [{}]", urls.join(", ")));
    let upstream = (0..NUMBERS).prop_map(|n| format!("upstream = \"u{n}\""));
    let pool = prop_oneof![targets, upstream];
    let models = prop::sample::subsequence(vec!["\"m\"", "\"n\"", "\"m*\"", "\"*\""], 0..3);
    let gateways = prop::sample::subsequence(vec!["\"g0\"", "\"g1\""], 0..3);
    let rest = prop::sample::subsequence(
        vec![
            "fallback = [\"u0\"]",
            "path_prefix = \"/p\"",
            "owner = \"team\"",
            "auth = \"none\"",
            "model = \"alias\"",
        ],
        0..3,
    );
    (pool, models, gateways, rest).prop_map(|(pool, models, gateways, rest)| {
        let (models, gateways) = (models.join(", "), gateways.join(", "));
        format!(
            "{pool}\nmodels = [{models}]\ngateways = [{gateways}]\n{}",
            rest.join("\n")
        )
    })
}

fn upstream() -> impl Strategy<Value = String> {
    (1..4, 0..3).prop_map(|(port, limit)| match limit {
        0 => format!("targets = [\"http://127.0.0.1:{port}\"]"),
        limit => {
            format!("targets = [{{ url = \"http://127.0.0.1:{port}\", max_in_flight = {limit} }}]")
        }
    })
}

fn rule() -> impl Strategy<Value = String> {
    let path = prop::sample::select(vec!["/a", "/a/*", "/a/{id}", "/*"]);
    let services = prop::sample::subsequence(vec!["\"u0\"", "\"u1\"", "\"u2\""], 0..3);
    (0..2, path, services).prop_map(|(gateway, path, services)| {
        let services = services.join(", ");
        format!("gateway = \"g{gateway}\"\npath = \"{path}\"\nservices = [{services}]")
    })
}

fn key() -> impl Strategy<Value = String> {
    let limits = prop::sample::select(vec![
        "",
        "limits = { rate_limiter = { limits = { global = { limit = 5, window = \"1m\" } } } }",
    ]);
    (0..2, 0..9, limits).prop_map(|(gateway, hash, limits)| {
        format!("gateway = \"g{gateway}\"\nhash = \"sha256:{hash:064x}\"\n{limits}")
    })
}

fn change() -> impl Strategy<Value = Change> {
    let bodies = prop_oneof![
        gateway().prop_map(|text| (0, text)),
        upstream().prop_map(|text| (1, text)),
        service().prop_map(|text| (2, text)),
        service().prop_map(|text| (2, text)),
        rule().prop_map(|text| (3, text)),
        key().prop_map(|text| (4, text)),
    ];
    (bodies, 0..NUMBERS, prop::bool::weighted(0.8), any::<bool>()).prop_map(
        |((kind, text), number, put, first)| Change {
            kind,
            number,
            text: put.then_some(text),
            first,
        },
    )
}

/// All that can be told of a gateway from outside, besides live state.
fn told(gateway: &Gateway) -> Vec<String> {
    let headers = http::HeaderMap::new();
    let method = http::Method::POST;
    let mut told = vec![format!(
        "{} {:?} {} {} {} {:?} {:?}",
        gateway.name,
        gateway.routing,
        gateway.paused,
        gateway.open,
        gateway.publishes,
        gateway.chain,
        gateway.listing().all
    )];
    let mut keys: Vec<String> = gateway
        .key_chains
        .iter()
        .map(|key| format!("{key:?}"))
        .collect();
    let authority = gateway.authority.as_deref().and_then(|a| a.keys());
    keys.extend(
        authority
            .iter()
            .flat_map(|k| k.iter())
            .map(|k| k.principal.name.to_string()),
    );
    keys.sort();
    told.extend(keys);
    for offer in gateway.router.offers() {
        let service = &offer.service;
        let limits = service
            .upstream
            .targets
            .iter()
            .map(|t| (&*t.label, t.state.limit()));
        told.push(format!(
            "{} {:?} {:?} {:?}",
            service.name,
            offer.fallback,
            service.alias,
            limits.collect::<Vec<_>>()
        ));
    }
    let services = std::iter::once(None).chain((0..gateway.router.offers().len()).map(Some));
    for service in services {
        for path in [
            "/a",
            "/a/b",
            "/p/x",
            "/m/v1/x",
            "/v1/chat/completions",
            "/a/../b",
        ] {
            for model in [
                ModelName::Unread,
                ModelName::Absent,
                ModelName::Is("m"),
                ModelName::Is("mn"),
                ModelName::Is("z"),
            ] {
                let head = Head {
                    method: &method,
                    path,
                    headers: &headers,
                    service,
                    who: Who::Anybody,
                };
                // All weigh the same: in so many turns each has one, wherever they begin.
                let turns = (0..2 * NUMBERS).map(|_| shown(gateway.router.decide(head, model)));
                told.extend(turns.collect::<BTreeSet<_>>());
            }
        }
    }
    told
}

fn shown(decision: Decision) -> String {
    match decision {
        Decision::Route(route) => format!(
            "{} {:?} {:?} {:?} {:?}",
            route.offer.service.name, route.rule, route.path, route.fallback, route.timeouts
        ),
        other => format!("{other:?}"),
    }
}

const HOSTS: [&str; 8] = [
    "h0.example",
    "h1.example",
    "x.w0.example",
    "gateway.d0.example",
    "u0.d0.example",
    "u1.d1.example",
    "u2.d2.example",
    "other",
];

fn hosts(snapshot: &Snapshot) -> Vec<Option<HostEntry>> {
    HOSTS.iter().map(|host| snapshot.hosts.find(host)).collect()
}

fn assert_same(one: &Snapshot, whole: &Snapshot) {
    assert_eq!(hosts(one), hosts(whole));
    assert_eq!(one.bounds, whole.bounds);
    assert_eq!(one.gateways.len(), whole.gateways.len());
    for (one, whole) in one.gateways.iter().zip(&whole.gateways) {
        assert_eq!(told(one), told(whole));
    }
    assert_eq!(one.services.len(), whole.services.len());
    for (one, whole) in one.services.iter().zip(&whole.services) {
        assert!(Arc::ptr_eq(&one.document, &whole.document));
        assert!(Arc::ptr_eq(&one.state, &whole.state));
    }
    assert_eq!(one.upstreams.len(), whole.upstreams.len());
    for (one, whole) in one.upstreams.iter().zip(&whole.upstreams) {
        assert_eq!(one.name, whole.name);
        assert_eq!(one.targets.len(), whole.targets.len());
        for (one, whole) in one.targets.iter().zip(&whole.targets) {
            assert!(Arc::ptr_eq(&one.state, &whole.state), "{}", one.label);
            assert!(Arc::ptr_eq(&one.health, &whole.health), "{}", one.label);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_change_comes_to_the_same_as_the_whole(changes in prop::collection::vec(change(), 1..40)) {
        let (registry, metrics) = (Registry::new(Arc::new(NoHttp)), Arc::new(Metrics::new()));
        let mut draft = Draft::first();
        let mut config = draft.config(&Config::default()).unwrap();
        let mut snapshot = compile(&config, 0, &registry, &metrics, None);
        for change in &changes {
            let mut next = draft.clone();
            next.change(change);
            // What names something that is not there is no configuration.
            let Some(changed) = next.config(&config) else { continue };
            (draft, config) = (next, changed);
            snapshot = compile(&config, snapshot.revision + 1, &registry, &metrics, Some(&snapshot));
            let limits = |snapshot: &Snapshot| -> Vec<usize> {
                let targets = snapshot.upstreams.iter().flat_map(|u| &u.targets);
                targets.map(|target| target.state.limit()).collect()
            };
            // The whole sets the limits of the states that both have anew: they must have been right before.
            let set = limits(&snapshot);
            let whole = compile(&config, snapshot.revision, &registry, &metrics, None);
            prop_assert_eq!(set, limits(&whole));
            assert_same(&snapshot, &whole);
        }
    }
}
