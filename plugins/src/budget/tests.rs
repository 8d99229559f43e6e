//! Budgets: estimates and truths in money and tokens, periods, whom they concern, and what settings may say.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tollgate_sdk::plugin::{Built, Outcome};
use tollgate_sdk::quota::{Local, Period, Quota};

use crate::testing::{Call, Counting, failed, problems, took};

const DAY: u64 = 86_400;
/// 2026-02-27 12:00:00 UTC.
const FEBRUARY_27: u64 = 1_772_193_600;

fn with(settings: Json, more: Json) -> Json {
    let mut settings = settings;
    if let (Some(all), Json::Object(more)) = (settings.as_object_mut(), more) {
        all.extend(more);
    }
    settings
}

/// A hundred a month for all, at 2 for a million tokens of the prompt and 8 for those generated.
fn money(more: Json) -> Json {
    let settings = json!({
        "limit": 100, "unit": "money", "per": "month", "by": "global",
        "prices": {"m": {"input": 2, "cached": 0.5, "output": 8.0}},
    });
    with(settings, more)
}

fn tokens(more: Json) -> Json {
    let settings = json!({"limit": 1000, "unit": "tokens", "per": "day", "by": "global"});
    with(settings, more)
}

fn budget(settings: Json) -> (Counting, Built) {
    let counting = Counting::at(FEBRUARY_27);
    let plugin = counting.plugin("budget", settings);
    (counting, plugin)
}

/// 40 bytes, 10 tokens, and as many generated as it says.
fn chat(model: &str, max_tokens: u64) -> Call {
    let body = format!(r#"{{"model":"{model}","max_tokens":{max_tokens}}}"#);
    Call::post(format!("{body:<40}"))
}

/// What is used, of the only counter there is.
fn used(counting: &Counting) -> u64 {
    let held = counting.quota.export();
    assert!(held.len() < 2, "{held:?}");
    held.first().map_or(0, |held| held.used)
}

fn pass(budget: &Built, call: Call, outcome: Outcome) -> Outcome {
    let mut call = call;
    call.pre_request(budget).unwrap();
    call.end(budget, outcome)
}

#[test]
fn money_is_reserved_by_an_estimate_and_settled_to_what_it_cost() {
    let (counting, budget) = budget(money(json!({})));
    let mut call = chat("m", 1_000_000);
    call.pre_request(&budget).unwrap();
    // 10 at 2 millionths, and a million at 8.
    assert_eq!(used(&counting), 8_000_020);
    let outcome = call.end(&budget, took(3_000_000, 2_000_000, 100_000));
    assert_eq!(outcome.cost, Some(3_800_000));
    assert_eq!(used(&counting), 3_800_000);
    // 96.2 are left, and 96.3 are asked for.
    let refusal = chat("m", 12_037_500).pre_request(&budget).unwrap_err();
    assert_eq!((refusal.status, refusal.code), (429, "insufficient_quota"));
    assert_eq!(
        refusal.message,
        "what is left of this month's budget (global) does not cover the request"
    );
    let rest = Duration::from_secs(DAY / 2 + DAY);
    assert_eq!(refusal.retry_after, Some(rest));
    pass(&budget, chat("m", 12_000_000), took(10, 0, 13_000_000));
    assert_eq!(used(&counting), 107_800_020);
    assert_eq!(chat("m", 0).refused(&budget), Some(429));
    counting.clock.advance(rest - Duration::from_nanos(1));
    assert_eq!(chat("m", 0).refused(&budget), Some(429));
    counting.clock.advance(Duration::from_nanos(1));
    assert_eq!(chat("m", 12_000_000).refused(&budget), None);
}

#[test]
fn what_generated_nothing_costs_nothing() {
    let (counting, budget) = budget(money(json!({})));
    let outcome = pass(&budget, chat("m", 1000), failed(502));
    assert_eq!((outcome.cost, used(&counting)), (None, 0));
    let mut cut_short = chat("m", 1000);
    cut_short.pre_request(&budget).unwrap();
    assert_eq!(used(&counting), 8_020);
    drop(cut_short);
    assert_eq!(used(&counting), 0);
    // An end without a beginning, as of a request that was refused.
    let outcome = Call::get().end(&budget, took(5, 0, 5));
    assert_eq!((outcome.cost, used(&counting)), (None, 0));
}

#[test]
fn tokens_of_a_day() {
    let (counting, budget) = budget(tokens(json!({"default_output": 300})));
    let mut call = Call::post(r#"{"model": "any"}"#);
    call.pre_request(&budget).unwrap();
    assert_eq!(used(&counting), 304);
    assert_eq!(call.end(&budget, took(10, 5, 40)).cost, None);
    assert_eq!(used(&counting), 50);
    // A first request passes, however large; the next does not while it runs.
    counting.clock.advance(Duration::from_secs(DAY));
    let mut large = chat("any", 1_000_000);
    large.pre_request(&budget).unwrap();
    assert_eq!(used(&counting), 1000);
    let refusal = chat("any", 1).pre_request(&budget).unwrap_err();
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(DAY / 2)));
    // It ends tomorrow: tomorrow is not charged.
    counting.clock.advance(Duration::from_secs(DAY / 2));
    large.end(&budget, took(5000, 0, 5000));
    assert_eq!(used(&counting), 0);
}

#[test]
fn tokens_with_prices_tell_their_cost_too() {
    let prices = json!({"m*": {"input": 2, "output": 8}});
    let (counting, budget) = budget(tokens(json!({ "prices": prices })));
    assert_eq!(pass(&budget, chat("m2", 10), took(10, 0, 5)).cost, Some(60));
    assert_eq!(pass(&budget, chat("o", 10), took(10, 0, 5)).cost, None);
    assert_eq!(used(&counting), 30);
}

#[test]
fn a_model_without_a_price_is_refused_unless_it_may_pass() {
    let refuses = budget(money(json!({}))).1;
    let refusal = chat("other", 5).pre_request(&refuses).unwrap_err();
    assert_eq!((refusal.status, refusal.code), (403, "permission_denied"));
    assert_eq!(
        refusal.message,
        "the model \"other\" has no price here and may not be used"
    );
    assert_eq!(refusal.param.as_deref(), Some("model"));
    let refusal = Call::post("{}").pre_request(&refuses).unwrap_err();
    assert_eq!(refusal.status, 403);
    for settings in [json!({"unpriced": "pass"}), json!({"enforce": false})] {
        let (counting, passes) = budget(money(settings));
        let outcome = pass(&passes, chat("other", 5), took(1000, 0, 1000));
        assert_eq!((outcome.cost, used(&counting)), (None, 0));
    }
}

#[test]
fn what_is_not_enforced_is_counted() {
    let (counting, budget) = budget(tokens(json!({"enforce": false})));
    for nth in 1..=3 {
        pass(&budget, chat("m", 5), took(600, 0, 200));
        assert_eq!(used(&counting), nth * 800);
    }
    pass(&budget, chat("m", 5), failed(502));
    assert_eq!(used(&counting), 2400);
}

#[test]
fn it_is_counted_by_whom_or_what_it_says() {
    let key = |key: &str| chat("m", 0).key(key);
    let header = |team: &str| chat("m", 0).header("x-team", team);
    let ip = |ip: &str| chat("m", 0).from(ip);
    let user = |user: &str| chat("m", 0).header("x-user-id", user);
    let cases: [(Json, [Call; 3]); 6] = [
        (json!("key"), [key("a"), key("a"), key("b")]),
        (
            json!({"header": "X-Team"}),
            [header("a"), header("a"), header("b")],
        ),
        (
            json!("ip"),
            [ip("192.0.2.1"), ip("192.0.2.1"), ip("192.0.2.2")],
        ),
        (json!("user"), [user("a"), user("a"), user("b")]),
        (json!("model"), [chat("m", 0), chat("m", 0), chat("n", 0)]),
        // Who does not say is not counted.
        (json!("key"), [key("a"), key("a"), chat("m", 0)]),
    ];
    for (by, [first, same, other]) in cases {
        let (_, budget) = budget(tokens(json!({ "by": by })));
        pass(&budget, first, took(1000, 0, 0));
        let (mut same, mut other) = (same, other);
        assert_eq!(same.refused(&budget), Some(429), "{by}");
        assert_eq!(other.refused(&budget), None, "{by}");
    }
}

#[test]
fn the_first_cost_stands() {
    let counting = Counting::at(FEBRUARY_27);
    let dear = json!({"prices": {"*": {"input": 20, "output": 80}}, "by": "key"});
    let [first, second] = [json!({}), dear].map(|more| counting.plugin("budget", money(more)));
    let outcome = pass(&first, chat("m", 0), took(100, 0, 100));
    assert_eq!(outcome.cost, Some(1000));
    // It names no key, so it is not counted; its cost can be told all the same.
    assert_eq!(pass(&second, chat("m", 0), outcome).cost, Some(1000));
    let alone = pass(&second, chat("m", 0), took(100, 0, 100));
    assert_eq!(alone.cost, Some(10_000));
}

#[test]
fn a_budget_survives_a_restart() {
    let (counting, old) = budget(money(json!({"by": "key"})));
    pass(&old, chat("m", 0).key("a"), took(0, 0, 12_000_000));
    let held = counting.quota.export();
    assert_eq!((held[0].period, held[0].used), (Period::Month, 96_000_000));
    let quota = Local::with_clock(counting.clock.clone());
    for held in &held {
        quota.adjust(held, i64::try_from(held.used).unwrap());
    }
    let next = Counting {
        quota: quota.into(),
        clock: counting.clock,
    };
    let new = next.plugin("budget", money(json!({"by": "key"})));
    assert_eq!(chat("m", 500_000).key("a").refused(&new), Some(429));
    assert_eq!(chat("m", 499_000).key("a").refused(&new), None);
}

#[test]
fn many_threads_reserve_no_more_than_there_is() {
    let (counting, budget) = budget(tokens(json!({})));
    let held: Vec<Call> = std::thread::scope(|scope| {
        let ask = || {
            let mut calls: Vec<_> = (0..63).map(|_| chat("m", 90)).collect();
            calls.retain_mut(|call| call.refused(&budget).is_none());
            calls
        };
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    assert_eq!((held.len(), used(&counting)), (10, 1000));
    for mut call in held {
        call.end(&budget, took(3, 0, 4));
    }
    assert_eq!(used(&counting), 70);
}

#[test]
fn mistakes_in_settings() {
    let of = |settings| problems("budget", settings);
    let told = of(json!({}));
    assert_eq!(told.len(), 1, "{told:?}");
    for limit in [json!(0), json!(-1.5), json!(1e13), json!(0.000_000_1)] {
        let told = of(money(json!({ "limit": limit })));
        assert_eq!(
            told,
            [
                "limit: not an amount of money (from 0.000001 to 1000000000000, in the currency of the prices)"
            ]
        );
    }
    for limit in [json!(0), json!(10.5), json!(1e16)] {
        let told = of(tokens(json!({ "limit": limit })));
        assert_eq!(
            told,
            ["limit: not a number of tokens (a whole number from 1 to 1000000000000000)"]
        );
    }
    assert_eq!(
        of(money(json!({"prices": {}}))),
        [
            "prices: money can be counted only with prices (add: \"prices\": { \"*\": { \"input\": 2.5, \"output\": 10.0 } })"
        ]
    );
    let prices = json!({"a*b": {"input": 1, "output": 1}, "c": {"input": -1, "output": 2e6}, "d": {"output": 1}});
    let told = of(money(json!({ "prices": prices })));
    assert_eq!(told.len(), 4, "{told:?}");
    let at = |path: &str| assert!(told.iter().any(|told| told.starts_with(path)), "{told:?}");
    at("prices.a*b: `*` may only stand at the end");
    at("prices.c.input: not a price (from 0 to 1000000, for a million tokens)");
    at("prices.c.output: not a price");
    at("prices.d: missing field `input`");
    assert_eq!(of(tokens(json!({"by": {"header": "no header"}}))).len(), 1);
    assert_eq!(of(tokens(json!({"by": {"name": "X-Team"}}))).len(), 2);
    let told = of(tokens(
        json!({"by": "team", "per": "week", "unpriced": "free"}),
    ));
    assert_eq!(told.len(), 3, "{told:?}");
}
