//! `concurrency_limiter`: so many exchanges at the same time, counted by whoever or whatever they concern.
//!
//! It owns what is counted by what; the counting is the engine's ([`charge`](tollgate_sdk::plugin::charge)). A request gets all the places it needs or none,
//! and they are free again when its exchange is over: answered, refused, failed, or left by its client.

use std::sync::Arc;

use http::HeaderName;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading, json};
use tollgate_sdk::plugin::{
    Builds, Built, By, Charge, Host, Plugin, Reached, Refusal, Stage, Takes, at_least_one,
};
use tollgate_sdk::quota::Rule;

document! {
    /// So many exchanges at the same time, counted by whom or what they concern. Others get 429. An exchange ends with its answer's last byte, or
    /// when its client leaves.
    pub struct ConcurrencyLimiter {
        /// The limits: at least one.
        limits: Limits,
    }
}

document! {
    /// Limits by whom or what requests concern.
    pub struct Limits (checked) {
        /// Of every client that tells its fingerprint by the header `X-Fingerprint`.
        #[range(1..=1000000)]
        per_fingerprint: Option<u64>,
        /// Of every client address.
        #[range(1..=1000000)]
        per_ip: Option<u64>,
        /// Of every user: by the headers `X-User-ID`, `X-UserID` and `User-ID`, else by the body's field `user`.
        #[range(1..=1000000)]
        per_user: Option<u64>,
        /// Of every API key.
        #[range(1..=1000000)]
        per_key: Option<u64>,
        /// Of every model.
        #[range(1..=1000000)]
        per_model: Option<u64>,
        /// Of every value of a header.
        per_header: Option<PerHeader>,
        /// Of all together.
        #[range(1..=1000000)]
        global: Option<u64>,
    }
}

document! {
    /// So many at the same time, for each value of a header.
    pub struct PerHeader {
        /// The header.
        #[example = "X-Team"]
        name: HeaderName,
        /// How many.
        #[range(1..=1000000)]
        limit: u64,
    }
}

impl Limits {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        at_least_one(node, at, r, &json!(4));
        self
    }
}

impl Builds for ConcurrencyLimiter {
    const NAME: &'static str = "concurrency_limiter";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, host: &Host) -> Built {
        let limits = &self.limits;
        let header = limits.per_header.as_ref();
        let header = header.map(|of| (By::Header(of.name.clone()), Some(of.limit)));
        let numbers = [
            (By::Fingerprint, limits.per_fingerprint),
            (By::Ip, limits.per_ip),
            (By::User, limits.per_user),
            (By::Key, limits.per_key),
            (By::Model, limits.per_model),
        ];
        let charges = numbers
            .into_iter()
            .chain(header)
            .chain([(By::All, limits.global)])
            .filter_map(|(by, limit)| {
                let limit = by.limit(host, Rule::Concurrent { limit: limit? });
                Some(Charge::new(by, limit, Takes::Place))
            });
        Arc::new(Limiter(charges.collect()))
    }
}

struct Limiter(Arc<[Charge]>);

impl Plugin for Limiter {
    fn charges(&self) -> Arc<[Charge]> {
        self.0.clone()
    }

    fn refuse(&self, reached: &Reached<'_>) -> Refusal {
        let (by, denied) = (reached.by.name(), &reached.denied);
        let limit = denied.standing.limit;
        let message = format!("{by} concurrency limit exceeded: {limit} requests at the same time");
        Refusal::too_many(message, denied.wait())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use serde_json::{Value as Json, json};
    use tollgate_sdk::plugin::Built;

    use crate::testing::{Call, Counting, failed, problems, took};

    fn limiter(limits: Json) -> (Counting, Built) {
        let counting = Counting::new();
        let plugin = counting.plugin("concurrency_limiter", json!({ "limits": limits }));
        (counting, plugin)
    }

    #[test]
    fn a_place_is_free_again_when_its_exchange_is_over() {
        let (_counting, limiter) = limiter(json!({"global": 2}));
        let mut calls = [(); 3].map(|()| Call::post("{}"));
        let [served, left, third] = &mut calls;
        assert_eq!(served.refused(&limiter), None);
        assert_eq!(left.refused(&limiter), None);
        let refusal = third.pre_request(&limiter).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (429, "rate_limit_exceeded"));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(1)));
        assert!(refusal.message.contains("global"), "{}", refusal.message);
        // One that was refused holds nothing that it could give back.
        third.end(&limiter, failed(429));
        assert_eq!(third.refused(&limiter), Some(429));
        served.end(&limiter, took(1, 0, 1));
        assert_eq!(third.refused(&limiter), None);
        assert_eq!(served.refused(&limiter), Some(429));
        // A client that leaves: nothing but the exchange's state is dropped.
        *left = Call::post("{}");
        assert_eq!(served.refused(&limiter), None);
    }

    #[test]
    fn each_scope_counts_for_itself_and_all_or_none_are_taken() {
        let limits = json!({
            "per_key": 1, "per_ip": 2, "per_user": 1, "per_model": 3, "per_fingerprint": 1,
            "per_header": {"name": "X-Team", "limit": 1}, "global": 4,
        });
        let (_counting, limiter) = limiter(limits);
        let body = r#"{"model": "m", "user": "u"}"#;
        let mut held = Vec::new();
        let mut enter = |call: Call, by: Option<&str>| {
            let mut call = call;
            let refusal = call.pre_request(&limiter).err();
            match (by, refusal) {
                (None, None) => held.push(call),
                (Some(by), Some(refusal)) => {
                    assert!(refusal.message.starts_with(by), "{refusal:?}")
                }
                (by, refusal) => panic!("{by:?}, {refusal:?}"),
            }
        };
        enter(Call::post(body).key("a").header("x-team", "t"), None);
        enter(Call::post("{}").key("a"), Some("per_key "));
        enter(Call::post(body), Some("per_user "));
        enter(Call::post("{}").header("x-team", "t"), Some("per_header "));
        let other = || Call::post("{}").header("x-fingerprint", "f").key("b");
        enter(other(), None);
        enter(other().from("192.0.2.8"), Some("per_fingerprint "));
        enter(Call::post("{}"), Some("per_ip "));
        let model = || Call::post(r#"{"model": "m"}"#);
        enter(model().from("192.0.2.9"), None);
        enter(model().from("192.0.2.9"), None);
        enter(model().from("192.0.2.10"), Some("per_model "));
        enter(Call::get().from("192.0.2.10"), Some("global "));
    }

    #[test]
    fn never_are_more_inside_than_there_are_places() {
        let (_counting, limiter) = limiter(json!({"per_key": 3, "global": 5}));
        let (inside, most, entered) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let (limiter, inside, most, entered) = (&limiter, &inside, &most, &entered);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let mut call = Call::get().key(["a", "b"][thread % 2]);
                        if call.refused(limiter).is_some() {
                            continue;
                        }
                        let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        entered.fetch_add(1, Ordering::SeqCst);
                        call.end(limiter, failed(502));
                    }
                });
            }
        });
        assert!(most.into_inner() <= 5 && entered.into_inner() > 0);
        // All places are free: nothing counts any more.
        let mut calls: Vec<_> = (0..6).map(|_| Call::get()).collect();
        let passes = |call: &mut Call| call.refused(&limiter).is_none();
        let passed: usize = calls.iter_mut().map(|call| usize::from(passes(call))).sum();
        assert_eq!(passed, 5);
    }

    #[test]
    fn mistakes_in_settings() {
        let of = |settings| problems("concurrency_limiter", settings);
        assert_eq!(
            of(json!({"limits": {}})),
            ["limits: there must be at least one limit (for example: \"per_ip\": 4)"]
        );
        assert_eq!(
            of(json!({"limits": {"per_key": 0}})),
            ["limits.per_key: 0 is out of range (from 1 to 1000000)"]
        );
        assert_eq!(of(json!({})).len(), 1);
        let wrong = json!({"limits": {"per_header": {"limit": 1}, "per_team": 1}});
        assert_eq!(of(wrong).len(), 2);
    }
}
