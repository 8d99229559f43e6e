//! What a change leaves alone, and how many rules decide.

use super::*;
use crate::snapshot::Who;

fn changed(edit: impl Fn(&mut Config)) -> (Snapshot, Snapshot) {
    let (registry, metrics) = (Registry::new(Arc::new(NoHttp)), Arc::new(Metrics::new()));
    let mut config = read(TWO);
    let before = compile(&config, 1, &registry, &metrics, None);
    edit(&mut config);
    let after = compile(&config, 2, &registry, &metrics, Some(&before));
    (before, after)
}

const TWO: &str = r#"
    [[listener]]
    address = "127.0.0.1:8080"
    [[gateway]]
    name = "one"
    hosts = ["one.example"]
    auth = "none"
    [[gateway]]
    name = "two"
    hosts = ["two.example"]
    [[upstream]]
    name = "pool"
    targets = ["http://127.0.0.1:1"]
    [[service]]
    name = "a"
    gateways = ["one"]
    models = ["m"]
    upstream = "pool"
    [[service]]
    name = "b"
    gateways = ["two"]
    models = ["m"]
    targets = ["http://127.0.0.1:2"]
    [[key]]
    name = "k"
    gateway = "two"
    hash = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
    limits = { rate_limiter = { limits = { global = { limit = 5, window = "1m" } } } }
"#;

/// Which of gateway one, gateway two, service a, service b, the pool, the targets in place and the hosts are shared.
fn shared((before, after): &(Snapshot, Snapshot)) -> [bool; 7] {
    [
        Arc::ptr_eq(&before.gateways[0], &after.gateways[0]),
        Arc::ptr_eq(&before.gateways[1], &after.gateways[1]),
        Arc::ptr_eq(&before.services[0], &after.services[0]),
        Arc::ptr_eq(&before.services[1], &after.services[1]),
        Arc::ptr_eq(&before.upstreams[0], &after.upstreams[0]),
        Arc::ptr_eq(&before.upstreams[1], &after.upstreams[1]),
        Arc::ptr_eq(&before.hosts, &after.hosts),
    ]
}

#[test]
fn what_a_change_does_not_touch_is_shared_and_nothing_else() {
    let nothing = changed(|_| ());
    assert_eq!(shared(&nothing), [true; 7]);
    let pool = changed(|config| {
        Arc::make_mut(&mut config.upstreams[0]).http2 = true;
    });
    assert_eq!(shared(&pool), [false, true, false, true, false, true, true]);
    let service = changed(|config| {
        Arc::make_mut(&mut config.services[1]).model = Some("alias".into());
    });
    assert_eq!(
        shared(&service),
        [true, false, true, false, true, true, true]
    );
    assert_eq!(
        service.1.gateways[1].router.offers()[0]
            .service
            .alias
            .as_deref(),
        Some("alias")
    );
    let gateway = changed(|config| {
        Arc::make_mut(&mut config.gateways[0]).hosts.clear();
    });
    assert_eq!(
        shared(&gateway),
        [false, true, true, true, true, true, false]
    );
    assert_eq!(gateway.1.hosts.find("one.example"), None);
    let key = changed(|config| config.keys.clear());
    assert_eq!(shared(&key), [true, false, true, true, true, true, true]);
    assert!(key.1.gateways[1].key_chains.is_empty());
}

#[test]
fn a_gateway_that_changes_keeps_its_keys_and_offers() {
    let (before, after) = changed(|config| {
        Arc::make_mut(&mut config.gateways[1]).status = model::Status::Paused;
    });
    let (before, after) = (&before.gateways[1], &after.gateways[1]);
    assert!(after.paused && !before.paused);
    assert!(Arc::ptr_eq(&before.key_chains, &after.key_chains));
    assert!(Arc::ptr_eq(
        &before.router.offers()[0],
        &after.router.offers()[0]
    ));
    // Who decides stands in the gateway's own document.
    let authorities = [before, after].map(|gateway| gateway.authority.clone().unwrap());
    assert!(!Arc::ptr_eq(&authorities[0], &authorities[1]));
}

/// Among many rules the same one is found as among few, whatever its pattern.
#[test]
fn many_rules_decide_like_few() {
    let patterns = [
        "/a",
        "/a/",
        "/a/*",
        "/a/b",
        "/a/b/*",
        "/a/b/c",
        "/a/{x}",
        "/a/{x}/c",
        "/{x}",
        "/{x}/b/*",
        "/*",
        "/b/c/d/e/*",
        "/b",
        "/b/*",
        "/%C3%A9/*",
        "/%C3%A9/b",
    ];
    let rule = |n: usize, pattern: &str| {
        format!(
            "[[rule]]\nname = \"r{n:03}\"\ngateway = \"one\"\npath = \"{pattern}\"\nservices = [\"a\"]\n"
        )
    };
    let few = |pattern: &str| snapshot(&format!("{TWO}{}", rule(0, pattern)));
    let many: String = patterns
        .iter()
        .enumerate()
        .map(|(n, p)| rule(n, p))
        .collect();
    let more: String = (0..300)
        .map(|n| rule(100 + n, &format!("/more/{n}")))
        .collect();
    let many = snapshot(&format!("{TWO}{more}{many}"));
    let taken = |snapshot: &Snapshot, path: &str| {
        let headers = http::HeaderMap::new();
        let method = http::Method::GET;
        let head = Head {
            method: &method,
            path,
            headers: &headers,
            service: None,
            who: Who::Anybody,
        };
        match snapshot.gateways[0].router.decide(head, ModelName::Absent) {
            Decision::Route(route) => route.rule,
            _ => None,
        }
    };
    let alone: Vec<Snapshot> = patterns.iter().map(|pattern| few(pattern)).collect();
    let classes = |n: usize| match patterns[n] {
        pattern if pattern.ends_with('*') => 2,
        pattern if pattern.contains('{') => 1,
        _ => 0,
    };
    for path in [
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/a/b/",
        "/a/b/c",
        "/a/b/c/d",
        "/a/x/c",
        "/a/x",
        "/x",
        "/x/b",
        "/x/b/c",
        "/b/c/d/e",
        "/b/c/d",
        "/%C3%A9/b",
        "/%C3%A9",
        "/a//b",
        "/a/../b",
        "*",
        "",
        "/more/7",
    ] {
        let found = taken(&many, path);
        let matching: Vec<usize> = (0..patterns.len())
            .filter(|n| taken(&alone[*n], path).is_some())
            .collect();
        if path == "/more/7" {
            assert_eq!(found.as_deref(), Some("r107"));
            continue;
        }
        let best = matching.iter().map(|n| classes(*n)).min();
        let found = found.map(|name| name[1..].parse::<usize>().unwrap());
        assert_eq!(found.is_some(), !matching.is_empty(), "{path}");
        assert!(
            found.is_none_or(|n| matching.contains(&n) && Some(classes(n)) == best),
            "{path}: {found:?} of {matching:?}"
        );
    }
}
