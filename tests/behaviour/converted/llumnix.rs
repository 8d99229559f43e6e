//! Llumnix: routes by model or weight, an internal pool, and what is fallen back on.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tollgate::config::foreign::{Fate, Options};

use super::{Caller, Conversion, all_up, answering, assert_from, document, named};
use crate::harness::{CHAT, Gateway, Upstream, chat, closed_address, engine};

/// The document's routes with these flags, and the internal pool at these places.
pub(super) fn convert(routes: &str, flags: &[(&str, &str)], local: &[String]) -> Conversion {
    let flags = { flags.iter() }.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let options = Options {
        local: local.to_vec(),
        flags: flags.collect::<BTreeMap<_, _>>(),
        ..Options::default()
    };
    Conversion::of(&[routes], &options)
}

pub(super) fn anybody(gateway: &Gateway) -> Caller<'_> {
    Caller::new(gateway, "any.example")
}

const PREFIX: (&str, &str) = ("route-policy", "prefix");
const WEIGHT: (&str, &str) = ("route-policy", "weight");
const EXTERNAL: &str = "http://vllm-external:8000";

#[test]
fn the_seed_by_prefix() {
    let (local, external) = (named("local"), named("external"));
    let routes = document("llumnix/seed-prefix.json", &[(EXTERNAL, &external.url())]);
    let conversion = convert(&routes, &[PREFIX], &[local.url()]);
    let gateway = conversion.start();
    for (model, by) in [
        ("Qwen/Qwen3-8B", "local"),
        ("Qwen/Qwen3-", "local"),
        ("Qwen/Qwen2.5-7B", "external"),
        // What no prefix matches goes along the fallbacks.
        ("Qwen/Qwen3", "external"),
        ("qwen/qwen3-8b", "external"),
        ("llama", "external"),
    ] {
        assert_from(&anybody(&gateway).chat(model), by);
    }
    conversion.tells("[1]", Fate::Adapted, "go to the first fallback");
    // Theirs goes to the internal pool, and so does what is no JSON.
    conversion.tells("", Fate::Assumed, "names no model gets 400");
    for body in ["{}", "not JSON"] {
        anybody(&gateway)
            .send("POST", CHAT, body)
            .assert_refused(400, "invalid_request");
    }
}

#[test]
fn the_seed_by_weight() {
    let (local, external) = (named("local"), named("external"));
    let routes = document("llumnix/seed-weight.json", &[(EXTERNAL, &external.url())]);
    let gateway = convert(&routes, &[WEIGHT], &[local.url()]).start();
    let count = |count: usize| {
        (0..count)
            .filter(|_| anybody(&gateway).chat("any").text() == "local")
            .count()
    };
    let half = count(1000);
    assert!((437..=563).contains(&half), "{half} of 1000 for a half");

    let three = json!([
        {"base_url": "local", "weight": 30}, {"base_url": external.url(), "weight": 50}, {"base_url": named("third").url(), "weight": 20},
    ]);
    let third = named("third");
    let mut three = three;
    three[2]["base_url"] = json!(third.url());
    let gateway = convert(&three.to_string(), &[WEIGHT], &[local.url()]).start();
    let answers: Vec<String> = (0..1000)
        .map(|_| anybody(&gateway).chat("any").text())
        .collect();
    for (name, share) in [("local", 300), ("external", 500), ("third", 200_usize)] {
        let got = answers.iter().filter(|answer| *answer == name).count();
        assert!(
            got.abs_diff(share) <= 64,
            "{got} of 1000 for {share} ({name})"
        );
    }
}

/// Exact names first, then the longest prefix, the first of the list among equals; a star is everything else.
#[test]
fn prefixes_as_in_their_tests() {
    let places = ["any", "family", "size", "exact", "late"].map(|name| (name, named(name)));
    let route = |at: usize, prefix: &str| json!({"base_url": places[at].1.url(), "prefix": prefix});
    let routes = json!([
        route(0, "*"), route(1, "qwen-*"), route(2, "qwen-72*"), route(3, "qwen-7b"), route(4, "qwen-72*"), {"base_url": "local", "prefix": "in/*"},
    ]);
    let local = named("local");
    let conversion = convert(&routes.to_string(), &[PREFIX], &[local.url()]);
    conversion.tells("[4].prefix", Fate::Warned, "leads to an earlier route");
    let gateway = conversion.start();
    for (model, by) in [
        ("qwen-7b", "exact"),
        ("qwen-7", "family"),
        ("qwen-72b", "size"),
        ("qwen", "any"),
        ("in/x", "local"),
        ("*", "any"),
    ] {
        assert_from(&anybody(&gateway).chat(model), by);
    }
    // Without a star and a fallback it leads nowhere.
    let routes = json!([route(1, "qwen-*")]).to_string();
    let conversion = convert(&routes, &[PREFIX], &[]);
    conversion.tells("", Fate::Assumed, "what leads nowhere gets 404");
    let gateway = conversion.start();
    anybody(&gateway)
        .chat("llama")
        .assert_refused(404, "model_not_found");
}

/// An endpoint's key replaces the client's; without one the client's own goes on, as is said.
#[test]
fn keys_of_endpoints() {
    let (keyed, open, failing) = (
        named("keyed"),
        named("open"),
        answering("500 Internal Server Error"),
    );
    let routes = json!([
        {"base_url": format!("{}/api/v3", keyed.url()), "prefix": "k*", "api_key": "k1-not-real", "model": "ignored"},
        {"base_url": failing.url(), "prefix": "f*", "api_key": "k2-not-real"},
        {"base_url": format!("{}/v1/", open.url()), "prefix": "*", "fallback": true},
    ]);
    let conversion = convert(&routes.to_string(), &[PREFIX], &[]);
    conversion.tells(
        "[2].api_key",
        Fate::Assumed,
        "the client's own credential is passed on",
    );
    conversion.tells("[0].model", Fate::Warned, "the request's model stays");
    let gateway = conversion.start();
    let caller = anybody(&gateway)
        .with("authorization: Bearer of-the-client\r\nx-api-key: of-the-client\r\n");
    assert_from(&caller.chat("k"), "keyed");
    let sent = keyed.last();
    assert_eq!(sent.path(), "/api/v3/chat/completions");
    assert_eq!(
        sent.header("authorization").as_deref(),
        Some("Bearer k1-not-real")
    );
    assert_eq!(sent.header("x-api-key"), None);
    assert_eq!(sent.body, chat("k").as_bytes());
    for (model, from_failing) in [("other", false), ("f", true)] {
        assert_from(&caller.chat(model), "open");
        let sent = open.last();
        assert_eq!(sent.path(), CHAT);
        assert_eq!(
            sent.header("authorization").as_deref(),
            Some("Bearer of-the-client"),
            "{from_failing}"
        );
    }
    assert_eq!(
        failing.last().header("authorization").as_deref(),
        Some("Bearer k2-not-real")
    );
}

/// In the order of the list, each once; never to the internal pool, and not to where it failed.
#[test]
fn fallbacks_in_their_order() {
    let failing: Vec<Upstream> = (0..3)
        .map(|_| answering("503 Service Unavailable"))
        .collect();
    let last = named("last");
    let local = answering("500 Internal Server Error");
    let routes = json!([
        {"base_url": failing[0].url(), "prefix": "a", "fallback": true},
        {"base_url": "local", "prefix": "*", "fallback": true},
        {"base_url": failing[1].url(), "fallback": true},
        {"base_url": format!("{}/", failing[0].url()), "prefix": "b", "fallback": true},
        {"base_url": format!("http://{}", closed_address()), "fallback": true},
        {"base_url": failing[2].url()},
        {"base_url": last.url(), "fallback": true},
    ]);
    let conversion = convert(
        &routes.to_string(),
        &[PREFIX, ("retry-max-count", "0")],
        &[local.url()],
    );
    conversion.tells(
        "[1].fallback",
        Fate::Warned,
        "nothing falls back to the internal pool",
    );
    conversion.tells("[5].prefix", Fate::Warned, "so it is left out");
    let gateway = conversion.start();
    let calls = || {
        [
            failing[0].requests().len(),
            failing[1].requests().len(),
            failing[2].requests().len(),
            local.requests().len(),
        ]
    };
    for (model, asked) in [("a", [1, 1, 0, 0]), ("else", [2, 1, 0, 1])] {
        let before = calls();
        let reply = anybody(&gateway).chat(model);
        assert_from(&reply, "last");
        let after = calls();
        let made: Vec<usize> = after
            .iter()
            .zip(before)
            .map(|(after, before)| after - before)
            .collect();
        // The first of the list is there twice under two names; each of these is once.
        assert!(
            made.iter().zip(asked).all(|(made, most)| *made <= most),
            "{model}: {made:?}"
        );
        assert!(
            made[1] <= 1 && made[2] == 0 && made[3] == asked[3],
            "{model}: {made:?}"
        );
    }
}

/// A client's own mistake goes back to it at once: theirs sends it round every fallback.
#[test]
fn what_the_client_did_wrong_is_its_own() {
    let (wrong, other) = (answering("422 Unprocessable Content"), named("other"));
    let routes = json!([{"base_url": wrong.url(), "prefix": "*"}, {"base_url": other.url(), "fallback": true}]);
    let conversion = convert(&routes.to_string(), &[PREFIX], &[]);
    conversion.tells(
        "[1].fallback",
        Fate::Adapted,
        "a client's own 4xx goes back to it at once",
    );
    let gateway = conversion.start();
    assert_eq!(anybody(&gateway).chat("m").status, 422);
    assert!(other.requests().is_empty());
}

/// `retry-max-count` further tries within the pool, on another engine than the one that failed; 4xx is none.
#[test]
fn the_internal_pool_tries_again() {
    for (count, status, calls) in [("0", 500, 1), ("1", 200, 2), ("3", 200, 2)] {
        let (failing, good) = (answering("500 Internal Server Error"), named("good"));
        let routes = r#"[{"base_url": "local", "prefix": "*"}]"#;
        let flags = [
            PREFIX,
            ("retry-max-count", count),
            ("scheduling-policy", "round-robin"),
        ];
        let conversion = convert(routes, &flags, &[failing.url(), good.url()]);
        let gateway = conversion.start();
        all_up(&gateway, 2);
        let mut seen = Vec::new();
        for _ in 0..2 {
            seen.push(anybody(&gateway).chat("m").status);
        }
        // By turns one of two begins at the failing one.
        assert!(
            seen.contains(&status) && seen.contains(&200),
            "{count}: {seen:?}"
        );
        let all = failing.requests().len() + good.requests().len();
        assert_eq!(all, calls + 1, "{count}");
    }
    let wrong = answering("400 Bad Request");
    let routes = r#"[{"base_url": "local", "prefix": "*"}]"#;
    let flags = [PREFIX, ("retry-max-count", "3")];
    let gateway = convert(
        routes,
        &flags,
        &[wrong.url(), wrong.url().replace("127.0.0.1", "localhost")],
    )
    .start();
    assert_eq!(anybody(&gateway).chat("m").status, 400);
    assert_eq!(wrong.requests().len(), 1);
}

/// Flags may come in one text, and say where to listen and where the engines are.
#[test]
fn flags_say_where() {
    let (one, two) = (engine(), engine());
    let endpoints = format!("{},{}", one.address(), two.address());
    let extra = format!(
        "route-policy=prefix,llm-backend-discovery=endpoints,llm-backend-endpoints=[{endpoints}],shiny=1,scheduling-policy='round-robin'"
    );
    let port = crate::harness::free_port().to_string();
    let flags = [
        ("route-policy", "weight"),
        ("extra-args", extra.as_str()),
        ("host", "127.0.0.1"),
        ("port", port.as_str()),
    ];
    let routes = document("llumnix/extra-args.json", &[]);
    let conversion = convert(&routes, &flags, &[]);
    conversion.tells("--extra-args", Fate::Warned, "\"shiny\"");
    conversion.tells(
        "--port",
        Fate::Adapted,
        "health and metrics are at the admin listener",
    );
    let gateway = conversion.start();
    all_up(&gateway, 2);
    let mut client =
        crate::harness::Client::connect(([127, 0, 0, 1], port.parse().unwrap()).into());
    for _ in 0..4 {
        client.chat("any", "").assert_ok();
    }
    assert_eq!([&one, &two].map(|engine| engine.state().started), [2, 2]);
    drop(gateway);
}

/// The request goes on as it came: theirs rewrites it to tokens and loses fields.
#[test]
fn every_field_of_a_request_survives() {
    let local = named("local");
    let routes = r#"[{"base_url": "local", "prefix": "*"}]"#;
    let gateway = convert(routes, &[PREFIX], &[local.url()]).start();
    let body = r#"{ "model":"m", "n":2, "stop":"x", "logit_bias":{"1":2.50}, "response_format":{"type":"json_object"}, "max_completion_tokens":1e2, "vendor":[null] }"#;
    assert_from(&anybody(&gateway).send("POST", CHAT, body), "local");
    assert_eq!(local.last().body, body.as_bytes());
    let sent: Value = super::sent_json(&local);
    assert_eq!(sent["n"], 2);
}
