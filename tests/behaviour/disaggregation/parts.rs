//! Who is asked for what: which targets prefill, decode, and serve whole.

use tollgate_bench::engine::EngineRole;

use crate::harness::{
    Gateway, WAYS, Way, assert_nothing_held, both, calls_of, chat, decode, padded,
};

const NIXL: &Way = &WAYS[1];

fn undivided(gateway: &Gateway, reason: &str) -> f64 {
    let labels = [("service", "m"), ("reason", reason)];
    gateway.metrics().sum("tollgate_undivided_total", &labels)
}

#[test]
fn short_prompts_are_computed_where_they_are_decoded() {
    let prefill = NIXL.engine(EngineRole::Prefill, |_| ());
    let decoder = NIXL.engine(EngineRole::Decode, |_| ());
    let way = Way {
        settings: "protocol = \"vllm-nixl\", min_prefill_tokens = 500",
        ..*NIXL
    };
    let targets = [way.prefill(prefill.address()), decode(decoder.address())];
    let gateway = Gateway::start(&way.service(&targets, "", ""));
    gateway.client().chat("m", "").assert_ok();
    assert_eq!((calls_of(&prefill), calls_of(&decoder)), (0, 1));
    assert_eq!(undivided(&gateway, "short"), 1.0);
    gateway
        .client()
        .post(crate::harness::CHAT, padded("m", 20_000))
        .assert_ok();
    assert_eq!((calls_of(&prefill), calls_of(&decoder)), (1, 2));
    assert_eq!(undivided(&gateway, "short"), 1.0);
}

#[test]
fn what_cannot_be_split_never_goes_to_a_target_that_prefills() {
    let prefill = NIXL.engine(EngineRole::Prefill, |_| ());
    let decoder = NIXL.engine(EngineRole::Decode, |_| ());
    let targets = [NIXL.prefill(prefill.address()), decode(decoder.address())];
    let gateway = Gateway::start(&NIXL.service(&targets, "", ""));
    for (path, body) in [
        ("/v1/embeddings", r#"{"model":"m","input":"a"}"#),
        ("/v1/completions", r#"{"model":"m","prompt":["a","b"]}"#),
        ("/v1/completions", r#"{"model":"m","prompt":"a","n":2}"#),
    ] {
        gateway.client().post(path, body).assert_ok();
    }
    assert_eq!((calls_of(&prefill), calls_of(&decoder)), (0, 3));
    assert_eq!(undivided(&gateway, "batch"), 2.0);
}

#[test]
fn targets_for_both_share_requests_and_serve_what_is_whole() {
    let engines = [(); 2].map(|()| NIXL.engine(EngineRole::Both, |_| ()));
    let targets = engines.each_ref().map(|engine| both(engine.address()));
    let gateway = Gateway::start(&NIXL.service(&targets, "", ""));
    for _ in 0..6 {
        gateway.client().chat("m", "").assert_ok();
    }
    // Each request went to both, and neither computed for itself.
    let [first, second] = engines.each_ref().map(calls_of);
    assert_eq!((first, second), (6, 6));
    let fetched: u64 = { engines.iter() }
        .map(|engine| assert_nothing_held(engine).fetched)
        .sum();
    assert_eq!(fetched, 6);
}

#[test]
fn decode_goes_to_who_has_the_least_to_do() {
    let prefill = NIXL.engine(EngineRole::Prefill, |_| ());
    let decoders = [(); 3].map(|()| NIXL.engine(EngineRole::Decode, |_| ()));
    let mut targets = vec![NIXL.prefill(prefill.address())];
    targets.extend(decoders.iter().map(|engine| decode(engine.address())));
    let gateway = Gateway::start(&NIXL.service(&targets, "", ""));
    for _ in 0..6 {
        gateway.client().chat("m", "").assert_ok();
    }
    assert_eq!(calls_of(&prefill), 6);
    assert_eq!(decoders.each_ref().map(calls_of), [2, 2, 2]);
}

#[test]
fn what_is_ours_to_set_is_refused() {
    let prefill = NIXL.engine(EngineRole::Prefill, |_| ());
    let decoder = NIXL.engine(EngineRole::Decode, |_| ());
    let targets = [NIXL.prefill(prefill.address()), decode(decoder.address())];
    let gateway = Gateway::start(&NIXL.service(&targets, "", ""));
    for field in [
        "\"kv_transfer_params\":{\"do_remote_prefill\":true}",
        "\"kv_transfer_\\u0070arams\":null",
        "\"bootstrap_room\":1",
    ] {
        let body = chat("m").replacen('{', &format!("{{{field},"), 1);
        let reply = gateway.client().post(crate::harness::CHAT, body);
        reply.assert_refused(400, "invalid_request");
    }
    assert_eq!((calls_of(&prefill), calls_of(&decoder)), (0, 0));
    gateway.assert_gauges_zero();
}
