//! `rate_limiter`: so many requests in any window, counted by whoever or whatever they concern.
//!
//! It owns what is counted by what; the counting is the engine's ([`charge`](tollgate_sdk::plugin::charge)). A request passes when every limit that
//! concerns it lets it: the limits are taken together or not at all, so a refused request is charged to none. A limit whose
//! subject a request does not name (no key, no user) does not concern it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading, json};
use tollgate_sdk::plugin::{
    Builds, Built, By, Charge, Host, Plugin, Reached, Refusal, Stage, Takes, at_least_one,
};
use tollgate_sdk::quota::{Rule, Standing};

document! {
    /// So many requests in any window, counted by whom or what they concern. Others get 429.
    pub struct RateLimiter {
        /// The limits: at least one.
        limits: Limits,
        /// What becomes of a request beyond a limit.
        actions: Actions = Actions::default(),
    }
}

document! {
    /// Limits by whom or what requests concern.
    pub struct Limits (checked) {
        /// Of every client that tells its fingerprint by the header `X-Fingerprint`.
        per_fingerprint: Option<PerWindow>,
        /// Of every client address.
        per_ip: Option<PerWindow>,
        /// Of every user: by the headers `X-User-ID`, `X-UserID` and `User-ID`, else by the body's field `user`.
        per_user: Option<PerWindow>,
        /// Of every API key.
        per_key: Option<PerWindow>,
        /// Of every model.
        per_model: Option<PerWindow>,
        /// Of every value of a header.
        per_header: Option<PerHeader>,
        /// Of all together.
        global: Option<PerWindow>,
    }
}

document! {
    /// So many in any window.
    pub struct PerWindow {
        /// How many.
        #[range(1..=1000000000)]
        limit: u64,
        /// In how much time.
        #[example = "1m"]
        window: Duration,
    }
}

document! {
    /// So many in any window, for each value of a header.
    pub struct PerHeader {
        /// The header.
        #[example = "X-Team"]
        name: HeaderName,
        /// How many.
        #[range(1..=1000000000)]
        limit: u64,
        /// In how much time.
        #[example = "1m"]
        window: Duration,
    }
}

document! {
    /// What becomes of a request beyond a limit.
    pub struct Actions (default) {
        /// It is refused; both words mean the same.
        #[written = "type"]
        kind: Action = Action::Reject,
        /// Seconds after which a refused client is told to come again, where it would otherwise be told sooner.
        #[example = "60"]
        retry_after: Option<String>,
    }
}

document! {
    /// What becomes of a request.
    pub enum Action {
        /// It gets 429.
        Reject = "reject",
        /// It gets 429.
        Block = "block",
    }
}

impl Limits {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let example = json!({"limit": 30, "window": "1m"});
        at_least_one(node, at, r, &example);
        self
    }
}

impl Builds for RateLimiter {
    const NAME: &'static str = "rate_limiter";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, host: &Host) -> Built {
        let limits = &self.limits;
        let windows = [
            (By::Fingerprint, &limits.per_fingerprint),
            (By::Ip, &limits.per_ip),
            (By::User, &limits.per_user),
            (By::Key, &limits.per_key),
            (By::Model, &limits.per_model),
        ];
        let header = limits.per_header.as_ref().map(|of| {
            let window = PerWindow {
                limit: of.limit,
                window: of.window,
            };
            (By::Header(of.name.clone()), window)
        });
        let windows = { windows.into_iter() }
            .filter_map(|(by, window)| Some((by, window.clone()?)))
            .chain(header)
            .chain(limits.global.clone().map(|window| (By::All, window)));
        let charge = |(by, window): (By, PerWindow)| {
            let PerWindow { limit, window } = window;
            let limit = by.limit(host, Rule::Window { limit, window });
            Charge::new(by, limit, Takes::Request)
        };
        let least = self.actions.retry_after.as_deref();
        Arc::new(Limiter {
            charges: windows.map(charge).collect(),
            least: least.and_then(|text| text.trim_end_matches('s').parse().ok()),
        })
    }
}

struct Limiter {
    charges: Arc<[Charge]>,
    /// Seconds a refused client waits at least.
    least: Option<u64>,
}

impl Plugin for Limiter {
    fn charges(&self) -> Arc<[Charge]> {
        self.charges.clone()
    }

    fn refuse(&self, reached: &Reached<'_>) -> Refusal {
        let least = Duration::from_secs(self.least.unwrap_or(0));
        let wait = reached.denied.wait().max(least);
        let message = format!("{} rate limit exceeded", reached.by.name());
        Refusal::too_many(message, wait).telling(&reached.denied.standing, Standing::REQUESTS)
    }
}
