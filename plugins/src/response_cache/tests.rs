//! The cache driven through exchanges, as the engine would.

use http::HeaderMap;
use serde_json::{Value as Json, json};
use tollgate_sdk::plugin::State;
use tollgate_sdk::quota::ManualClock;

use super::*;
use crate::testing::{Call, host, plugin_on, problems, settings};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const BODY: &str = r#"{"model":"m","temperature":0,"messages":[]}"#;

/// A cache with the clock that tells the age of its answers.
struct Bench {
    cache: Built,
    clock: Arc<ManualClock>,
}

fn bench(given: Json) -> Bench {
    let clock = Arc::new(ManualClock::default());
    let cache = Cache {
        settings: settings(&given),
        store: Arc::new(Store::new(clock.clone())),
    };
    Bench {
        cache: Arc::new(cache),
        clock,
    }
}

/// How a request fared.
#[derive(Debug, PartialEq, Eq)]
enum Fared {
    /// It got this body, of this content type and age.
    Hit(String, String, u64),
    /// It was told that nothing was kept.
    Miss,
    /// The cache had no part in it.
    Aside,
}

impl Bench {
    /// A request that is answered in these pieces if nothing was kept.
    fn asked(
        &self,
        mut call: Call,
        head: &[(&'static str, &'static str)],
        pieces: &[&str],
    ) -> Fared {
        let events = head.iter().any(|(_, value)| *value == "text/event-stream");
        if let Err(refusal) = call.pre_request(&self.cache) {
            return hit(refusal);
        }
        call.pre_response(&self.cache, head, events).unwrap();
        for (at, piece) in pieces.iter().enumerate() {
            let end = at + 1 == pieces.len();
            let passed = call.chunk(&self.cache, piece.to_string(), end);
            assert_eq!(passed.unwrap(), *piece);
        }
        let marked = call.answered_headers(HeaderMap::new());
        match marked.get("x-tollgate-cache") {
            Some(mark) => {
                assert_eq!(mark, "miss");
                Fared::Miss
            }
            None => Fared::Aside,
        }
    }

    fn fares(&self, call: Call) -> Fared {
        self.asked(call, JSON, &["{\"id\":", "1}"])
    }
}

fn hit(refusal: Refusal) -> Fared {
    assert_eq!(refusal.status, 200);
    let header = |wanted: &str| {
        let found = refusal.headers.iter().find(|(name, _)| name == wanted);
        found.unwrap().1.to_str().unwrap().to_owned()
    };
    assert_eq!(header("x-tollgate-cache"), "hit");
    let (content_type, body) = refusal.body.as_ref().unwrap();
    Fared::Hit(
        String::from_utf8(body.to_vec()).unwrap(),
        content_type.to_str().unwrap().to_owned(),
        header("age").parse().unwrap(),
    )
}

fn kept(age: u64) -> Fared {
    Fared::Hit("{\"id\":1}".into(), "application/json".into(), age)
}

#[test]
fn the_second_identical_request_gets_the_first_ones_answer_until_it_is_old() {
    let bench = bench(json!({"ttl": "10s"}));
    assert_eq!(bench.fares(Call::post(BODY)), Fared::Miss);
    bench.clock.advance(Duration::from_millis(9999));
    assert_eq!(bench.fares(Call::post(BODY)), kept(9));
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.fares(Call::post(BODY)), Fared::Miss);
    assert_eq!(bench.fares(Call::post(BODY)), kept(0));
}

#[test]
fn whatever_can_change_the_answer_makes_another_request() {
    let bench = bench(json!({"vary": ["X-Tier"], "when": "always"}));
    assert_eq!(bench.fares(Call::post(BODY).key("a")), Fared::Miss);
    let mut service = Call::post(BODY).key("a");
    service.service = Some("qwen".into());
    let mut tier_by_plugin = Call::post(BODY).key("a");
    let tier = HeaderName::from_static("x-tier");
    tier_by_plugin
        .edits
        .set_request(tier, HeaderValue::from_static("silver"));
    for (what, other) in [
        ("body", Call::post(BODY.replace("[]", "[ ]")).key("a")),
        ("path", Call::post(BODY).key("a").to("/v1/completions")),
        (
            "query",
            Call::post(BODY).key("a").to("/v1/chat/completions?"),
        ),
        (
            "host",
            Call::post(BODY).key("a").header("host", "b.example.com"),
        ),
        ("key", Call::post(BODY).key("b")),
        ("no key", Call::post(BODY)),
        (
            "accept",
            Call::post(BODY)
                .key("a")
                .header("accept", "text/event-stream"),
        ),
        (
            "content type",
            Call::post(BODY).key("a").header("content-type", "x"),
        ),
        ("vary", Call::post(BODY).key("a").header("x-tier", "gold")),
        (
            "vary twice",
            Call::post(BODY)
                .key("a")
                .header("x-tier", "gold")
                .header("x-tier", ""),
        ),
        ("vary by a plugin", tier_by_plugin),
        ("service", service),
    ] {
        assert_eq!(bench.fares(other), Fared::Miss, "{what}");
    }
    let same = Call::post(BODY)
        .key("a")
        .header("x-other", "1")
        .from("203.0.113.9");
    assert_eq!(bench.fares(same), kept(0));
}

#[test]
fn without_a_key_credentials_tell_clients_apart_and_with_one_they_do_not() {
    let bench = bench(json!({}));
    let with = |name: &str, value: &str| Call::post(BODY).header(name, value);
    assert_eq!(bench.fares(with("authorization", "Bearer a")), Fared::Miss);
    assert_eq!(bench.fares(with("authorization", "Bearer b")), Fared::Miss);
    assert_eq!(bench.fares(with("x-api-key", "Bearer a")), Fared::Miss);
    assert_eq!(bench.fares(with("cookie", "Bearer a")), Fared::Miss);
    assert_eq!(bench.fares(with("authorization", "Bearer a")), kept(0));
    // A key stays the same through rotations of its secret.
    assert_eq!(
        bench.fares(with("authorization", "Bearer old").key("k")),
        Fared::Miss
    );
    assert_eq!(
        bench.fares(with("authorization", "Bearer new").key("k")),
        kept(0)
    );
}

#[test]
fn a_shared_cache_serves_everybody_but_not_what_is_private() {
    let bench = bench(json!({"shared": true}));
    let private = [
        ("content-type", "application/json"),
        ("cache-control", "Private, max-age=9"),
    ];
    assert_eq!(
        bench.asked(Call::post(BODY).key("a"), &private, &["{}"]),
        Fared::Miss
    );
    assert_eq!(bench.fares(Call::post(BODY).key("a")), Fared::Miss);
    assert_eq!(bench.fares(Call::post(BODY).key("b")), kept(0));
    assert_eq!(
        bench.fares(Call::post(BODY).header("authorization", "x")),
        kept(0)
    );
}

#[test]
fn only_requests_with_one_right_answer_are_kept_unless_told_otherwise() {
    let deterministic = bench(json!({}));
    for (body, path, expected) in [
        (r#"{"temperature":0}"#, "/v1/chat/completions", Fared::Miss),
        (r#"{"temperature":0.0}"#, "/gpu/v1/messages", Fared::Miss),
        (r#"{"input":"x"}"#, "/v1/embeddings", Fared::Miss),
        (
            r#"{"temperature":0.1}"#,
            "/v1/chat/completions",
            Fared::Aside,
        ),
        (
            r#"{"temperature":null}"#,
            "/v1/chat/completions",
            Fared::Aside,
        ),
        (
            r#"{"temperature":1,"temperature":0}"#,
            "/v1/completions",
            Fared::Aside,
        ),
        (r#"{"temperature":"0"}"#, "/v1/completions", Fared::Aside),
        ("{}", "/v1/completions", Fared::Aside),
        ("", "/v1/completions", Fared::Aside),
        (r#"{"temperature":0}"#, "/v1/messages/batches", Fared::Aside),
        (
            r#"{"temperature":0}"#,
            "/v1/threads/t/messages",
            Fared::Aside,
        ),
    ] {
        assert_eq!(
            deterministic.fares(Call::post(body).to(path)),
            expected,
            "{body} {path}"
        );
    }
    let always = bench(json!({"when": "always", "methods": ["GET"], "paths": ["/docs/", "/faq"]}));
    for (path, expected) in [
        ("/docs", Fared::Miss),
        ("/docs/a", Fared::Miss),
        ("/faq", Fared::Miss),
        ("/faqs", Fared::Aside),
        ("/v1/embeddings", Fared::Aside),
    ] {
        assert_eq!(always.fares(Call::get().to(path)), expected, "{path}");
    }
    assert_eq!(always.fares(Call::post("").to("/docs/b")), Fared::Aside);
}

#[test]
fn clients_say_what_they_want_of_a_cache() {
    let bench = bench(json!({}));
    let with = |value: &str| Call::post(BODY).header("cache-control", value);
    assert_eq!(bench.fares(with("no-store")), Fared::Aside);
    assert_eq!(
        bench.fares(Call::post(BODY)),
        Fared::Miss,
        "nothing may have been kept"
    );
    assert_eq!(bench.fares(with("no-store")), Fared::Aside);
    bench.clock.advance(Duration::from_secs(20));
    assert_eq!(bench.fares(with("max-age=20")), kept(20));
    assert_eq!(bench.fares(with("max-age=nonsense")), Fared::Miss);
    bench.clock.advance(Duration::from_secs(20));
    assert_eq!(bench.fares(with("x, No-Cache")), Fared::Miss);
    // That answer was kept in the place of the old one.
    assert_eq!(bench.fares(Call::post(BODY)), kept(0));
}

#[test]
fn streams_are_kept_when_they_ended_well_and_given_again_byte_for_byte() {
    const EVENTS: &[(&str, &str)] = &[
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
    ];
    let bench = bench(json!({}));
    let cut = ["data: {\"a\":1}\n\n", ""];
    let failed = ["data: {\"error\":{}}\n\n", "data: [DONE]\n\n"];
    let whole = ["data: {\"a\"", ":1}\n\ndata: [DO", "NE]\n\n"];
    for pieces in [&cut[..], &failed, &whole] {
        assert_eq!(
            bench.asked(Call::post(BODY), EVENTS, pieces),
            Fared::Miss,
            "{pieces:?}"
        );
    }
    let again = Fared::Hit(whole.concat(), "text/event-stream".into(), 0);
    assert_eq!(bench.asked(Call::post(BODY), EVENTS, &[]), again);
}

#[test]
fn answers_that_are_no_whole_document_of_200_are_not_kept() {
    for head in [
        &[
            ("content-type", "application/json"),
            ("cache-control", "x, NO-STORE"),
        ][..],
        &[
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ],
        &[
            ("content-type", "application/json"),
            ("content-length", "33"),
        ],
        &[("content-type", "application/json"), ("vary", "*")],
        &[],
    ] {
        let bench = bench(json!({"max_entry": "32B"}));
        assert_eq!(bench.asked(Call::post(BODY), head, &["{}"]), Fared::Miss);
        assert_eq!(bench.fares(Call::post(BODY)), Fared::Miss, "{head:?}");
    }
    let bench = bench(json!({"max_entry": "32B"}));
    let long = "x".repeat(20);
    for pieces in [&[&*long, &*long][..], &[r#"{"error":{}}"#]] {
        assert_eq!(bench.asked(Call::post(BODY), JSON, pieces), Fared::Miss);
    }
    // Broken off: its last piece never comes.
    let mut broken = Call::post(BODY);
    assert_eq!(broken.pre_request(&bench.cache), Ok(()));
    broken.pre_response(&bench.cache, JSON, false).unwrap();
    broken.chunk(&bench.cache, "{}", false).unwrap();
    broken.state = State::default();
    assert_eq!(bench.fares(Call::post(BODY)), Fared::Miss);
    assert_eq!(bench.fares(Call::post(BODY)), kept(0));
}

#[test]
fn an_answer_with_another_status_is_not_kept() {
    let cache = Cache {
        settings: settings(&json!({})),
        store: Arc::default(),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (status, keeps) in [(200, true), (203, false), (404, false), (500, false)] {
        let head = ResponseHead {
            status,
            headers: &mut headers,
            events: false,
        };
        assert_eq!(cache.keeps(&head).is_some(), keeps, "{status}");
    }
}

#[test]
fn upstreams_are_asked_for_answers_that_can_be_kept() {
    let bench = bench(json!({}));
    let mut call = Call::post(BODY).header("accept-encoding", "gzip");
    assert_eq!(call.pre_request(&bench.cache), Ok(()));
    assert!(!call.sent_headers().contains_key("accept-encoding"));
    let mut aside = Call::post("{}").header("accept-encoding", "gzip");
    assert_eq!(aside.pre_request(&bench.cache), Ok(()));
    assert!(aside.sent_headers().contains_key("accept-encoding"));
}

#[test]
fn a_new_revision_finds_what_the_old_one_kept() {
    let host = host();
    let build = |given: Json| plugin_on(&host, "response_cache", given, None);
    let old = build(json!({"shared": true}));
    let mut call = Call::post(BODY);
    assert_eq!(call.pre_request(&old), Ok(()));
    call.pre_response(&old, JSON, false).unwrap();
    call.chunk(&old, "{}", true).unwrap();
    let new = build(json!({"shared": true, "max_entry": "2MiB"}));
    drop(old);
    assert_eq!(Call::post(BODY).refused(&new), Some(200));
    // Answers that were kept for everybody are not those kept for one.
    let narrow = build(json!({}));
    assert_eq!(Call::post(BODY).refused(&narrow), None);
}

#[test]
fn every_mistake_is_told_at_once() {
    let told = problems(
        "response_cache",
        json!({
            "ttl": "0s", "max_bytes": "1KiB", "max_entry": "2KiB", "methods": ["GET", "DELETE"],
            "paths": ["/a", "b"], "when": "sometimes", "vary": ["a b"],
        }),
    );
    let text = told.join("\n");
    for part in [
        "ttl: may not be 0",
        "max_entry: an answer may be longer than all of them together (make `max_entry` smaller",
        "methods[1]: answers to DELETE are not kept",
        "paths[1]: not a path (a path begins with a slash",
        "when: unknown value \"sometimes\"",
        "vary[0]: \"a b\": not a header name",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert_eq!(told.len(), 6, "{text}");
    let none = problems("response_cache", json!({"methods": []})).concat();
    assert!(none.contains("methods: no method is named"), "{none}");
}
