//! Prefill and decode apart, and one of them scaled by what its own targets have to do.

use serde_json::{Value, json};
use tollgate_bench::engine::{Engine, EngineRole};

use crate::harness::{
    CHAT, Client, Gateway, WAYS, Way, calls_of, engines, post, stands, streamed, until,
};

const NIXL: &Way = &WAYS[1];

/// The service `qwen`, whose upstream of the same name has one engine of each role and more of those of one role as they are needed.
fn scaled(prefill: &Engine, decode: &Engine, scaling: &str) -> String {
    let targets = [
        NIXL.prefill(prefill.address()),
        crate::harness::decode(decode.address()),
    ];
    let service = NIXL
        .service(&targets, "", &format!("[service.scaling]\n{scaling}\n"))
        .replace("\"m\"", "\"qwen\"");
    assert!(service.contains("models = [\"qwen\"]"), "{service}");
    service
}

fn pair() -> [Engine; 2] {
    let slow = |config: &mut tollgate_bench::engine::EngineConfig| config.tokens = 2_000;
    [EngineRole::Prefill, EngineRole::Decode].map(|role| NIXL.engine(role, slow))
}

fn stream(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    client.send(post(CHAT, "x-sim: itl=25ms\r\n", streamed("qwen", 2_000)));
    assert_eq!(client.head().unwrap().status, 200);
    client
}

/// The targets of a role, as the API tells them.
fn of_role(gateway: &Gateway, role: &str) -> Vec<Value> {
    let told = gateway.api().get("/v1/upstreams/qwen/targets").json();
    let all = told["items"].as_array().unwrap().iter();
    all.filter(|target| target["role"] == role)
        .cloned()
        .collect()
}

#[test]
fn decode_grows_by_its_own_work_and_prefill_stays() {
    let [prefill, decode] = pair();
    let more = engines(3, "0", "--kv nixl --role decode --tokens 2000");
    let scaling = format!(
        "role = \"decode\"\nmin = 1\nmax = 3\ntarget = 2.0\nwindow = \"1s\"\nup_delay = \"0s\"\ndown_delay = \"0s\"\nactuator = {more}"
    );
    let gateway = Gateway::start(&scaled(&prefill, &decode, &scaling));
    let api = gateway.api();
    let streams: Vec<Client> = (0..4).map(|_| stream(&gateway)).collect();
    stands(&api, "a second engine that decodes", |told| {
        told["ready"] == 2
    });
    assert_eq!(of_role(&gateway, "decode").len(), 2);
    assert_eq!(of_role(&gateway, "prefill").len(), 1);

    // What each role has to do is told apart: prefills are over, decodes run.
    let status = api.get("/v1/status").json();
    let roles = &status["services"][0]["roles"];
    let told = |role: &str, targets: u64, in_flight: u64| json!({"role": role, "targets": targets, "serving": targets, "in_flight": in_flight});
    until("all of them to serve", || {
        let roles = api.get("/v1/status").json()["services"][0]["roles"].clone();
        (roles == json!([told("prefill", 1, 0), told("decode", 2, 4)])).then_some(())
    });
    assert_eq!(roles.as_array().map(Vec::len), Some(2));
    let metrics = gateway.metrics();
    let at = |role: &str| {
        let labels = [("upstream", "qwen"), ("role", role)];
        metrics.sum("tollgate_role_in_flight", &labels)
    };
    assert_eq!((at("prefill"), at("decode")), (0.0, 4.0));

    // The new one decodes what the old one prefilled.
    let (before, decoded) = (calls_of(&prefill), calls_of(&decode));
    gateway.client().chat("qwen", "").assert_ok();
    assert_eq!(calls_of(&prefill), before + 1);
    assert_eq!(calls_of(&decode), decoded, "the one with less to do is new");

    drop(streams);
    stands(&api, "one again", |told| {
        told["ready"] == 1 && told["draining"] == 0
    });
    assert_eq!(of_role(&gateway, "decode").len(), 1);
    gateway.client().chat("qwen", "").assert_ok();
    gateway.assert_gauges_zero();
}

/// Each role by a service of its own: the second one is there for that alone.
#[test]
fn both_roles_are_scaled_apart() {
    let [prefill, decode] = pair();
    let quick = "max = 2\ntarget = 2.0\nwindow = \"1s\"\nup_delay = \"0s\"\n";
    let of = |role: &str| {
        let more = engines(2, "0", &format!("--kv nixl --role {role} --tokens 2000"));
        format!("role = \"{role}\"\nmin = 1\n{quick}actuator = {more}")
    };
    let decoding = scaled(&prefill, &decode, &of("decode"));
    let prefilling = format!(
        "[[service]]\nname = \"prefill\"\nmodels = [\"none\"]\nupstream = \"qwen\"\n[service.scaling]\n{}\n",
        of("prefill").replace("min = 1", "min = 2")
    );
    let gateway = Gateway::start(&format!("{prefilling}{decoding}"));
    until("another engine that prefills", || {
        (of_role(&gateway, "prefill").len() == 2).then_some(())
    });
    assert_eq!(of_role(&gateway, "decode").len(), 1);
    let streams: Vec<Client> = (0..4).map(|_| stream(&gateway)).collect();
    stands(&gateway.api(), "another that decodes", |told| {
        told["ready"] == 2
    });
    assert_eq!(of_role(&gateway, "prefill").len(), 2);
    drop(streams);
}

/// Both engines, the one that decodes with a single place, and a gateway in which services that nobody asks measure each role of the upstream of the one that is asked.
fn measured(metric: &str, disaggregation: &str) -> ([Engine; 2], Gateway) {
    let [prefill, decode] = pair();
    let one = format!(
        "{{ url = \"http://{}\", role = \"decode\", max_in_flight = 1 }}",
        decode.address()
    );
    let targets = [NIXL.prefill(prefill.address()), one];
    let asked = NIXL.service(&targets, "", "").replace("\"m\"", "\"qwen\"");
    let split = format!("{}{disaggregation}", NIXL.settings);
    let asked = asked.replace(NIXL.settings, &split);
    let idle = |role: &str| {
        format!(
            "[[service]]\nname = \"{role}\"\nmodels = [\"{role}\"]\nupstream = \"qwen\"\n[service.scaling]\nrole = \"{role}\"\nmin = 1\nmetric = \"{metric}\"\nwindow = \"1m\"\nactuator = \"none\"\n"
        )
    };
    let gateway = Gateway::start(&format!("{}{}{asked}", idle("prefill"), idle("decode")));
    // Each has begun to measure: only what comes afterwards is theirs to see.
    for role in ["prefill", "decode"] {
        until("a first look", || {
            of(&gateway, role).as_object()?.get("reason").cloned()
        });
    }
    ([prefill, decode], gateway)
}

/// How the scaling of this role's service stands.
fn of(gateway: &Gateway, role: &str) -> Value {
    gateway
        .api()
        .get(&format!("/v1/services/{role}/scaling"))
        .json()
}

/// What is measured of both roles, once this holds of it.
fn until_measured(gateway: &Gateway, what: &str, holds: impl Fn(f64, f64) -> bool) -> (f64, f64) {
    until(what, || {
        let value = |role: &str| of(gateway, role)["measured"].as_f64();
        let (prefill, decode) = (value("prefill")?, value("decode")?);
        holds(prefill, decode).then_some((prefill, decode))
    })
}

fn chat_of(words: usize) -> String {
    let text = "word ".repeat(words);
    json!({"model": "qwen", "max_tokens": 2, "messages": [{"role": "user", "content": text}]})
        .to_string()
}

#[test]
fn a_role_is_measured_by_what_all_services_of_its_upstream_ask() {
    let (_engines, gateway) = measured("rps", "");
    for _ in 0..5 {
        gateway.client().post(CHAT, chat_of(400)).assert_ok();
    }
    until_measured(&gateway, "requests of both roles", |prefill, decode| {
        prefill > 0.0 && decode > 0.0
    });
}

/// Prefill has nothing of what is too short to be split.
#[test]
fn what_is_served_whole_is_decodes_alone() {
    let (_engines, gateway) = measured("rps", ", min_prefill_tokens = 100000");
    for _ in 0..5 {
        gateway.client().post(CHAT, chat_of(4)).assert_ok();
    }
    let (prefill, _) = until_measured(&gateway, "requests to decode", |_, decode| decode > 0.0);
    assert_eq!(prefill, 0.0);
}

/// Long prompts and two tokens of each answer: prefill reads, decode writes.
#[test]
fn tokens_belong_to_who_computes_them() {
    let (_engines, gateway) = measured("tokens", "");
    for _ in 0..5 {
        gateway.client().post(CHAT, chat_of(1000)).assert_ok();
    }
    let (prefill, decode) = until_measured(&gateway, "tokens of both roles", |prefill, decode| {
        prefill > 0.0 && decode > 0.0
    });
    assert!(prefill > 100.0 * decode, "{prefill} {decode}");
}

#[test]
fn times_are_those_of_all_services_of_the_upstream() {
    for metric in ["ttft", "itl"] {
        let (_engines, gateway) = measured(metric, "");
        let _stream = stream(&gateway);
        until_measured(&gateway, "a time", |prefill, decode| {
            prefill > 0.0 && decode > 0.0
        });
    }
}

/// Who finds no place to be decoded misses an engine that decodes, and no other.
#[test]
fn who_is_refused_is_missed_by_the_role_that_lacks_a_place() {
    let (_engines, gateway) = measured("queue", "");
    let _stream = stream(&gateway);
    let refused = gateway.client().post(CHAT, chat_of(400));
    assert_eq!(refused.status, 503, "{}", refused.text());
    let (prefill, _) = until_measured(&gateway, "somebody to decode", |_, decode| decode > 0.0);
    assert_eq!(prefill, 0.0);
}
