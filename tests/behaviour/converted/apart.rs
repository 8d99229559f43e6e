//! Prefill and decode apart, as Llumnix's flags and dstack's routers have it: what is converted serves with engines that are strict about it.

use tollgate::config::foreign::{Fate, Options};
use tollgate_bench::engine::{Engine, EngineRole};

use super::llumnix::{anybody, convert};
use super::{Caller, Conversion, document, targets};
use crate::harness::{WAYS, Way, assert_nothing_held, calls_of};

const SGLANG: &Way = &WAYS[0];
const MOONCAKE: &Way = &WAYS[2];
const KVT: &Way = &WAYS[4];
const KVT_AT_ONCE: &Way = &WAYS[5];

const ROUTES: &str = r#"[{"prefix": "*", "base_url": "local"}]"#;

/// One that prefills and one that decodes.
fn pair(way: &Way) -> [Engine; 2] {
    [EngineRole::Prefill, EngineRole::Decode].map(|role| way.engine(role, |_| ()))
}

/// Some requests were served by both, and each prefill was fetched by whoever decoded.
#[track_caller]
fn assert_shared(way: &Way, [prefill, decode]: &[Engine; 2], requests: u64) {
    assert_eq!(calls_of(decode), requests);
    if way.asks_prefill {
        assert_eq!(calls_of(prefill), requests);
    }
    assert_eq!(assert_nothing_held(prefill).fetched, requests);
}

#[test]
fn llumnix_by_every_protocol() {
    for (protocol, separate, way) in [
        ("vllm-kvt", "false", KVT_AT_ONCE),
        ("vllm-kvt", "true", KVT),
        ("vllm-mooncake", "true", MOONCAKE),
        ("vllm-mooncake", "false", MOONCAKE),
        ("sglang-mooncake", "false", SGLANG),
    ] {
        let engines = pair(way);
        let [prefill, decode] = engines.each_ref().map(Engine::address);
        let local = [
            format!(
                "http://{prefill},role=prefill,bootstrap_port={}",
                prefill.port()
            ),
            format!("http://{decode},role=decode"),
        ];
        let flags = [
            ("route-policy", "prefix"),
            ("pd-disagg-protocol", protocol),
            ("separate-pd-scheduling", separate),
        ];
        let gateway = convert(ROUTES, &flags, &local).start();
        for _ in 0..3 {
            anybody(&gateway).chat("m").assert_ok();
        }
        assert_shared(way, &engines, 3);
        gateway.assert_gauges_zero();
    }
}

const HEAD: &str = "type: service\nname: chat\nport: 30000\nauth: false\nmodel: m\n";

/// A router that splits requests is not needed any more, whether the service has it or a group is it.
#[test]
fn dstack_by_the_services_router_and_by_a_groups() {
    let engines = pair(SGLANG);
    let [prefill, decode] = engines.each_ref().map(Engine::address);
    let commands = format!(
        "[\"python -m sglang.launch_server --disaggregation-mode prefill --disaggregation-bootstrap-port {}\"]",
        prefill.port()
    );
    let groups = format!(
        "  - {{name: first, replicas: 1, commands: {commands}}}\n  - {{name: decode, replicas: 1, commands: [run]}}\n"
    );
    let router = "router: {type: sglang, policy: round_robin, pd_disaggregation: true}\n";
    let of_service = format!("{HEAD}{router}groups:\n{groups}");
    let of_group = format!(
        "{HEAD}groups:\n  - {{name: router, replicas: 1, commands: [run], router: {{type: sglang}}}}\n{groups}"
    );
    let options = targets(&[
        ("chat/first", &format!("http://{prefill}")),
        ("chat/decode", &format!("http://{decode}")),
    ]);
    let seed = document("dstack/seed-gateway.yaml", &[]);
    for (service, requests) in [(of_service, 2), (of_group, 4)] {
        let conversion = Conversion::of(&[&seed, &service], &with_gateway(&options));
        conversion.tells(
            "--target chat/first",
            Fate::Adapted,
            "by the command of its group",
        );
        conversion.tells(
            "--target chat/decode",
            Fate::Assumed,
            "by the name of its group",
        );
        let gateway = conversion.start();
        for host in ["chat.example.com", "gateway.example.com"] {
            Caller::new(&gateway, host).chat("m").assert_ok();
        }
        assert_shared(SGLANG, &engines, requests);
    }
}

/// Whoever gives the address of the router has its group do the work, as before.
#[test]
fn dstack_goes_on_with_a_router_whose_address_is_known() {
    let router = super::named("the router");
    let seed = document("dstack/seed-gateway.yaml", &[]);
    let service = format!(
        "{HEAD}groups:\n  - {{name: router, replicas: 1, commands: [run], router: {{type: sglang}}}}\n  - {{name: prefill, replicas: 1, commands: [run]}}\n"
    );
    let options = targets(&[
        ("chat/router", &router.url()),
        ("chat/prefill", "http://127.0.0.1:9"),
    ]);
    let conversion = Conversion::of(&[&seed, &service], &with_gateway(&options));
    conversion.tells("--target chat/prefill", Fate::Warned, "left out");
    let gateway = conversion.start();
    super::assert_from(
        &Caller::new(&gateway, "chat.example.com").chat("m"),
        "the router",
    );
}

fn with_gateway(options: &Options) -> Options {
    Options {
        gateway: Some("example-gateway".into()),
        ..options.clone()
    }
}
