//! Limits of tokens: what is reserved, what it is settled to, for whom, what clients are told, and what settings may say.

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value as Json, json};
use tollgate_sdk::plugin::{Built, Needs, Outcome, Refusal};

use crate::testing::{Call, Counting, failed, problems, took};

const NAME: &str = "token_rate_limiter";

fn limiter(settings: Json) -> (Counting, Built) {
    let counting = Counting::new();
    let plugin = counting.plugin(NAME, settings);
    (counting, plugin)
}

/// A window of a minute.
fn minute(limit: u64) -> Json {
    json!({"limit": limit, "window": "1m"})
}

/// 40 bytes, 10 tokens, and as many generated as it says.
fn chat(max_tokens: u64) -> Call {
    let body = format!(r#"{{"model":"m","max_tokens":{max_tokens}}}"#);
    let call = Call::post(format!("{body:<40}"));
    assert_eq!(call.body.len(), 40);
    call
}

/// What is left of the tokens, as an answer's headers tell it.
fn left(call: &Call) -> u64 {
    let headers = call.answered_headers(HeaderMap::new());
    let left = headers.get("x-ratelimit-remaining-tokens").unwrap();
    left.to_str().unwrap().parse().unwrap()
}

/// What a request of 10 tokens' prompt finds left, without using any of it.
fn probe(limiter: &Built, call: Call) -> u64 {
    let mut call = call;
    call.pre_request(limiter).unwrap();
    call.end(limiter, failed(502));
    left(&call) + 10
}

fn pass(limiter: &Built, call: Call, outcome: Outcome) -> Call {
    let mut call = call;
    call.pre_request(limiter).unwrap();
    call.end(limiter, outcome);
    call
}

fn header(refusal: &Refusal, name: &str) -> Option<u64> {
    let (_, value) = refusal.headers.iter().find(|(is, _)| is == name)?;
    value.to_str().ok()?.parse().ok()
}

#[test]
fn an_estimate_is_reserved_and_settled_to_the_truth() {
    let (counting, limiter) = limiter(json!({"limits": {"global": minute(1000)}}));
    let mut call = chat(490);
    call.pre_request(&limiter).unwrap();
    assert_eq!(left(&call), 500);
    // While it runs, what it may use is taken.
    let refusal = chat(500).pre_request(&limiter).unwrap_err();
    assert_eq!((refusal.status, refusal.code), (429, "rate_limit_exceeded"));
    assert_eq!(
        refusal.message,
        "global token rate limit exceeded: the request needs 510, 500 are left"
    );
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(60)));
    for (name, value) in [
        ("x-ratelimit-limit-tokens", 1000),
        ("x-ratelimit-remaining-tokens", 500),
        ("x-ratelimit-reset-tokens", 60),
    ] {
        assert_eq!(header(&refusal, name), Some(value), "{name}");
    }
    assert_eq!(header(&refusal, "x-ratelimit-limit-requests"), None);
    call.end(&limiter, took(12, 4, 88));
    assert_eq!(probe(&limiter, chat(0)), 900);
    // More than was reserved is charged, too.
    pass(&limiter, chat(0), took(300, 0, 700));
    let refusal = chat(0).pre_request(&limiter).unwrap_err();
    assert_eq!(header(&refusal, "x-ratelimit-remaining-tokens"), Some(0));
    counting.clock.advance(Duration::from_secs(60));
    assert_eq!(probe(&limiter, chat(0)), 1000);
}

#[test]
fn retry_after_is_when_it_passes() {
    let (counting, limiter) = limiter(json!({"limits": {"global": minute(100)}}));
    pass(&limiter, chat(40), took(10, 0, 40));
    counting.clock.advance(Duration::from_secs(20));
    pass(&limiter, chat(40), took(10, 0, 40));
    counting.clock.advance(Duration::from_secs(20));
    let refusal = chat(30).pre_request(&limiter).unwrap_err();
    let wait = refusal.retry_after.unwrap();
    assert!(wait >= Duration::from_secs(20), "{wait:?}");
    counting.clock.advance(wait - Duration::from_secs(2));
    assert_eq!(chat(30).refused(&limiter), Some(429));
    counting.clock.advance(Duration::from_secs(2));
    assert_eq!(chat(30).refused(&limiter), None);
}

#[test]
fn what_generated_nothing_is_given_back() {
    let (_counting, limiter) = limiter(json!({"limits": {"global": minute(100)}}));
    pass(&limiter, chat(80), failed(502));
    pass(&limiter, chat(80), failed(499));
    pass(&limiter, chat(80), failed(200));
    // Not even an end: the exchange is only dropped.
    let mut cut_short = chat(80);
    cut_short.pre_request(&limiter).unwrap();
    drop(cut_short);
    // One that was refused has nothing to settle.
    let mut running = chat(80);
    running.pre_request(&limiter).unwrap();
    let mut refused = chat(80);
    refused.pre_request(&limiter).unwrap_err();
    refused.end(&limiter, failed(429));
    running.end(&limiter, failed(502));
    assert_eq!(probe(&limiter, chat(0)), 100);
}

#[test]
fn each_count_counts_its_own_tokens() {
    let per = |count: &str| json!({"limit": 1000, "window": "1m", "count": count});
    for (count, reserved, settled) in [("total", 70, 33), ("input", 10, 30), ("output", 60, 3)] {
        let (_counting, limiter) = limiter(json!({"limits": {"global": per(count)}}));
        let mut call = chat(60);
        call.pre_request(&limiter).unwrap();
        assert_eq!(left(&call), 1000 - reserved, "{count}");
        call.end(&limiter, took(30, 20, 3));
        let call = pass(&limiter, chat(0), failed(502));
        let prompt = if count == "output" { 0 } else { 10 };
        assert_eq!(left(&call), 1000 - settled - prompt, "{count}");
    }
}

#[test]
fn every_way_to_name_the_most_is_known_and_none_is_the_default() {
    let settings = json!({"limits": {"global": minute(10_000)}, "default_output": 700});
    let (_counting, limiter) = limiter(settings);
    for (body, output) in [
        (r#"{"max_tokens": 100}"#, 100),
        (r#"{"max_completion_tokens": 200}"#, 200),
        (r#"{"max_output_tokens": 300}"#, 300),
        (r#"{"max_tokens": 100, "max_completion_tokens": 400}"#, 400),
        (r#"{"max_tokens": null}"#, 700),
        ("", 700),
        ("no JSON", 700),
    ] {
        let call = pass(&limiter, Call::post(body), failed(502));
        let prompt = body.len().div_ceil(4) as u64;
        assert_eq!(left(&call), 10_000 - prompt - output, "{body}");
    }
    // What an earlier plugin made of the body is what is sent.
    let mut call = Call::post(r#"{"max_tokens": 5000}"#);
    call.edits.body = Some(r#"{"max_tokens": 50}"#.into());
    let call = pass(&limiter, call, failed(502));
    assert_eq!(left(&call), 10_000 - 5 - 50);
    let usual = Counting::new().plugin(NAME, json!({"limits": {"global": minute(1)}}));
    let body = Needs {
        request_peek: true,
        ..Needs::default()
    };
    assert_eq!(usual.needs(), body);
}

#[test]
fn a_first_request_passes_however_large_it_may_be() {
    let (_counting, limiter) = limiter(json!({"limits": {"global": minute(100)}}));
    let mut large = chat(5_000_000);
    large.pre_request(&limiter).unwrap();
    assert_eq!(left(&large), 0);
    assert_eq!(chat(0).refused(&limiter), Some(429));
    large.end(&limiter, took(10, 0, 20));
    assert_eq!(probe(&limiter, chat(0)), 70);
}

#[test]
fn scopes_count_for_themselves_and_refuse_together() {
    let limits = json!({
        "per_key": minute(100), "per_ip": minute(200), "per_user": minute(110), "per_model": minute(390),
        "per_fingerprint": minute(50),
        "per_header": {"name": "X-Team", "limit": 40, "window": "1m"}, "global": minute(400),
    });
    let (_counting, limiter) = limiter(json!({ "limits": limits }));
    let by = |call: Call| {
        let mut call = call;
        let refusal = call.pre_request(&limiter).unwrap_err();
        refusal.message.split(' ').next().unwrap().to_owned()
    };
    let first = chat(0).key("a").header("x-fingerprint", "f");
    pass(&limiter, first.header("x-team", "t"), took(60, 0, 30));
    assert_eq!(by(chat(10).key("a")), "per_key");
    assert_eq!(by(chat(50).header("x-fingerprint", "f")), "per_fingerprint");
    assert_eq!(by(chat(40).header("x-team", "t")), "per_header");
    pass(
        &limiter,
        chat(0).key("b").header("user-id", "u"),
        took(50, 0, 50),
    );
    assert_eq!(by(chat(5)), "per_ip");
    assert_eq!(
        by(chat(5).from("192.0.2.8").header("x-user-id", "u")),
        "per_user"
    );
    pass(&limiter, chat(0).from("192.0.2.8"), took(0, 0, 195));
    assert_eq!(by(chat(0).from("192.0.2.9")), "per_model");
    // Nothing was taken by those that were refused: the global limit has 15 left.
    let other =
        || Call::post(format!("{:<40}", r#"{"model":"o","max_tokens":5}"#)).from("192.0.2.9");
    let passed = pass(&limiter, other(), took(10, 0, 5));
    assert_eq!(passed.answered_headers(HeaderMap::new()).len(), 3);
    assert_eq!(by(other()), "global");
}

#[test]
fn leases_settle_in_whatever_order_threads_end_them() {
    let (_counting, limiter) = limiter(json!({"limits": {"per_key": minute(100_000)}}));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let limiter = &limiter;
            scope.spawn(move || {
                let mut held = Vec::new();
                for nth in 0..125_u64 {
                    let mut call = chat(40).key("a");
                    call.pre_request(limiter).unwrap();
                    held.push((call, nth));
                    if nth % 3 == thread % 3 {
                        let (mut call, nth) = held.remove(held.len() / 2);
                        let ends = if nth % 5 == 0 {
                            failed(502)
                        } else {
                            took(nth, 0, 7)
                        };
                        call.end(limiter, ends);
                    }
                }
                for (mut call, nth) in held {
                    let ends = if nth % 5 == 0 {
                        failed(502)
                    } else {
                        took(nth, 0, 7)
                    };
                    call.end(limiter, ends);
                }
            });
        }
    });
    let each: u64 = (0..125).filter(|nth| nth % 5 > 0).map(|nth| nth + 7).sum();
    assert_eq!(probe(&limiter, chat(0).key("a")), 100_000 - 8 * each);
}

#[test]
fn never_are_more_admitted_than_were_reserved() {
    let (_counting, limiter) = limiter(json!({"limits": {"global": minute(1500)}}));
    let held: Vec<Call> = std::thread::scope(|scope| {
        let ask = || {
            let mut calls: Vec<_> = (0..63).map(|_| chat(90)).collect();
            calls.retain_mut(|call| call.refused(&limiter).is_none());
            calls
        };
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    assert_eq!(held.len(), 15);
    drop(held);
    assert_eq!(probe(&limiter, chat(0)), 1500);
}

fn bucket(more: Json) -> Json {
    let mut settings = json!({
        "tokens_per_request": 20, "bucket_size": 100, "tokens_per_minute": 60, "requests_per_minute": 4,
    });
    let (Some(all), Json::Object(more)) = (settings.as_object_mut(), more) else {
        panic!("not a table");
    };
    all.extend(more);
    settings
}

#[test]
fn a_bucket_as_trustgate_has_it() {
    let (counting, limiter) = limiter(bucket(json!({})));
    assert_eq!(limiter.needs(), Needs::default());
    let ask = || Call::post("a body of any length").key("a");
    let mut call = ask();
    call.pre_request(&limiter).unwrap();
    let headers = call.answered_headers(HeaderMap::new());
    for (name, value) in [
        ("x-ratelimit-limit-tokens", "100"),
        ("x-ratelimit-remaining-tokens", "80"),
        ("x-ratelimit-reset-tokens", "20"),
        ("x-ratelimit-limit-requests", "4"),
        ("x-ratelimit-remaining-requests", "3"),
        ("x-ratelimit-reset-requests", "60"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    call.end(&limiter, took(50, 0, 35));
    let refusal = ask().pre_request(&limiter).unwrap_err();
    assert!(
        refusal
            .message
            .starts_with("per_key token rate limit exceeded")
    );
    // 15 are left; one comes back in a second.
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(5)));
    assert_eq!(ask().key("b").refused(&limiter), None);
    counting.clock.advance(Duration::from_secs(5));
    // An answer that says nothing of tokens is charged what a request is.
    pass(&limiter, ask(), failed(200));
    assert_eq!(ask().refused(&limiter), Some(429));
    counting.clock.advance(Duration::from_secs(20));
    // A failure is not.
    pass(&limiter, ask(), failed(502));
    pass(&limiter, ask(), failed(502));
    let refusal = ask().pre_request(&limiter).unwrap_err();
    assert_eq!(
        refusal.message,
        "per_key rate limit exceeded: no requests are left"
    );
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(35)));
    assert_eq!(header(&refusal, "x-ratelimit-remaining-requests"), Some(0));
    assert_eq!(header(&refusal, "x-ratelimit-remaining-tokens"), None);
}

#[test]
fn a_bucket_that_nothing_fills_is_empty_for_good() {
    let (counting, limiter) = limiter(bucket(json!({"tokens_per_minute": 0})));
    pass(&limiter, Call::get(), took(100, 0, 0));
    counting.clock.advance(Duration::from_secs(1_000_000));
    assert_eq!(Call::get().refused(&limiter), Some(429));
}

#[test]
fn a_header_tells_who_is_counted_or_else_the_key_or_nobody() {
    let (_counting, limiter) = limiter(json!({
        "window": {"unit": "hour", "max": 100}, "tokens_per_request": 60, "identifier_header": "X-Org",
    }));
    let mut held = Vec::new();
    let mut ask = |call: Call| {
        let mut call = call;
        let refused = call.refused(&limiter);
        held.push(call);
        refused
    };
    let of = |org: &str| Call::get().header("x-org", org);
    assert_eq!(ask(of("x")), None);
    assert_eq!(ask(of("x").key("a")), Some(429));
    assert_eq!(ask(of("id of a").key("b")), None);
    // Naming a key in the header takes nothing of the key's.
    assert_eq!(ask(Call::get().key("a")), None);
    assert_eq!(ask(Call::get().key("a")), Some(429));
    // Without either all are one.
    assert_eq!(ask(Call::get()), None);
    assert_eq!(ask(Call::get().from("192.0.2.8")), Some(429));
}

#[test]
fn a_window_reserves_an_estimate_unless_it_is_told_how_much() {
    let (counting, limiter) = limiter(json!({"window": {"unit": "second", "max": 1000}}));
    let mut call = chat(90);
    call.pre_request(&limiter).unwrap();
    assert_eq!(left(&call), 900);
    call.end(&limiter, took(500, 0, 500));
    assert_eq!(chat(0).refused(&limiter), Some(429));
    counting.clock.advance(Duration::from_secs(1));
    assert_eq!(chat(0).refused(&limiter), None);
}

#[test]
fn mistakes_in_settings() {
    let of = |settings| problems(NAME, settings);
    assert_eq!(
        of(json!({})),
        [
            ": there is no limit (add: \"limits\": { \"per_key\": { \"limit\": 100000, \"window\": \"1m\" } })"
        ]
    );
    assert_eq!(of(json!({"limits": {}})).len(), 1);
    let wrong = json!({"limits": {"per_key": {"limit": 0, "window": "1m", "count": "all"}, "per_header": minute(1)}});
    let told = of(wrong);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("limits.per_key.limit: 0 is out of range"));
    assert!(told[1].starts_with("limits.per_key.count: unknown value"));
    assert!(told[2].starts_with("limits.per_header: missing field `name`"));
    let both =
        json!({"limits": {"global": minute(1)}, "bucket_size": 5, "identifier_header": "X-Org"});
    assert_eq!(
        of(both),
        ["bucket_size", "identifier_header"].map(|name| format!(
            "{name}: it does not go with `limits` (keep `limits` and take the others out, or the other way round)"
        ))
    );
    assert_eq!(
        of(json!({"bucket_size": 100, "tokens_per_request": 10, "tokens_per_minute": 1})),
        [": a bucket needs `requests_per_minute` too (add: \"requests_per_minute\": 1000)"]
    );
    assert_eq!(
        of(bucket(json!({"bucket_size": 19}))),
        [
            "tokens_per_request: no request could pass: there are never more than 19 tokens (at most 19)"
        ]
    );
    assert_eq!(
        of(bucket(json!({"tokens_per_request": 0}))),
        ["tokens_per_request: 0 is out of range (from 1 to 1000000000)"]
    );
    let window = json!({"unit": "minute", "max": 5});
    let told = of(bucket(json!({"window": window, "tokens_per_request": 5})));
    assert_eq!(
        told,
        ["bucket_size", "tokens_per_minute"].map(|name| format!(
            "{name}: it does not go with `window` (keep `window`, or the bucket)"
        ))
    );
    assert_eq!(
        of(json!({"window": {"unit": "minute", "max": 5}, "tokens_per_request": 6})).len(),
        1
    );
    assert_eq!(of(json!({"window": {"unit": "week", "max": 5}})).len(), 1);
}
