//! `rate_limiter`: so many requests in any window, counted by whoever or whatever they concern.
//!
//! It owns what is counted by what; the counting is the engine's ([`Quota`](tollgate_sdk::quota::Quota)). A request passes when every limit that
//! concerns it lets it: the limits are taken together or not at all, so a refused request is charged to none. A limit whose
//! subject a request does not name (no key, no user) does not concern it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading, json};
use tollgate_sdk::plugin::{
    Builds, Built, Exchange, Host, Needs, Plugin, Refusal, Stage, Step, Verdict,
};
use tollgate_sdk::quota::{Denied, Limit, Quota, Rule, Standing};

use crate::subject::{By, at_least_one};

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
        let limit = |by: By, limit: u64, window: Duration| {
            let limit = by.limit(host, Rule::Window { limit, window });
            (by, limit)
        };
        let mut counted: Vec<(By, Limit)> = Vec::new();
        for (by, window) in windows {
            if let Some(window) = window {
                counted.push(limit(by, window.limit, window.window));
            }
        }
        if let Some(header) = &limits.per_header {
            let by = By::Header(header.name.clone());
            counted.push(limit(by, header.limit, header.window));
        }
        if let Some(window) = &limits.global {
            counted.push(limit(By::All, window.limit, window.window));
        }
        let least = self.actions.retry_after.as_deref();
        Arc::new(Limiter {
            quota: host.quota.clone(),
            reads_body: counted.iter().any(|(by, _)| by.reads_body()),
            counted,
            least: least.and_then(|text| text.trim_end_matches('s').parse().ok()),
        })
    }
}

struct Limiter {
    quota: Arc<dyn Quota>,
    counted: Vec<(By, Limit)>,
    reads_body: bool,
    /// Seconds a refused client waits at least.
    least: Option<u64>,
}

impl Plugin for Limiter {
    fn needs(&self) -> Needs {
        Needs {
            request_peek: self.reads_body,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        self.count(x).into()
    }
}

impl Limiter {
    /// Takes one of every limit that concerns the request, or none: leases that are dropped give back.
    fn count(&self, x: &mut Exchange<'_>) -> Verdict {
        let Some(((by, limit), before)) = self.counted.split_last() else {
            return Ok(());
        };
        let (at, mut leases) = (x.request.at, Vec::new());
        for (by, limit) in before {
            if let Some(subject) = by.subject(&x.request) {
                match self.quota.reserve_at(limit, &subject, 1, at) {
                    Ok(lease) => leases.push(lease),
                    Err(denied) => return Err(self.refusal(by, &denied)),
                }
            }
        }
        // The last one decides, and need not be given back.
        if let Some(subject) = by.subject(&x.request) {
            match self.quota.charge_at(limit, &subject, 1, at) {
                Ok(standing) => x.edits.standings.tell_requests(standing),
                Err(denied) => return Err(self.refusal(by, &denied)),
            }
        }
        for (lease, standing) in leases {
            x.edits.standings.tell_requests(standing);
            lease.keep();
        }
        Ok(())
    }

    fn refusal(&self, by: &By, denied: &Denied) -> Refusal {
        let wait = denied.retry_after.unwrap_or(denied.standing.reset);
        let wait = wait.max(Duration::from_secs(self.least.unwrap_or(0)));
        let refusal = Refusal::too_many(format!("{} rate limit exceeded", by.name()), wait);
        let headers = denied.standing.headers(Standing::REQUESTS).into_iter();
        headers.fold(refusal, |refusal, (name, value)| refusal.with(name, value))
    }
}
