//! The settings of `token_rate_limiter`: its own form and TrustGate's, and what can be wrong with them.
//!
//! It owns the reading of both forms. What leaves it is one list of limits, each with how much a request takes of it.

use std::time::Duration;

use http::HeaderName;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading, json};
use tollgate_sdk::plugin::{By, Charge, Count, Host, Takes, at_least_one};
use tollgate_sdk::quota::{Limit, Rule};

const MINUTE: Duration = Duration::from_secs(60);

document! {
    /// So many tokens in any window, counted by whom or what requests concern. Others get 429 `rate_limit_exceeded`. Either `limits`, or the fields
    /// that TrustGate has: a bucket (`tokens_per_request`, `bucket_size`, `tokens_per_minute`, `requests_per_minute`) or a `window`, for each key or each value of
    /// `identifier_header`.
    ///
    /// Before a request goes on an estimate is reserved: a token for every 4 bytes of its body, and as many generated as it allows by `max_tokens`,
    /// `max_completion_tokens` or `max_output_tokens`, else `default_output`; at most the whole limit. With `tokens_per_request` that many are reserved instead. With the end it is settled
    /// to what was used, and given back if nothing was generated. No request is let in whose reservation the window has no room for, so a window can come to more only
    /// by what exchanges used beyond their reservations, which counts from their end. Each exceeds it at most by: its prompt's tokens beyond a quarter of its
    /// body's bytes (none for most text; more for images by URL and for scripts with many tokens a byte), what it generated beyond its estimate (none if it named
    /// a maximum that the engine keeps; with `n` answers up to `n` times that), and what was cut from an estimate above the whole limit. Once a window stands at or
    /// above its limit nothing passes, so only exchanges already under way can exceed it.
    ///
    /// Of a stream that broke off or was left before it told its usage, a token is counted for every event with content, and for the prompt as many
    /// for each byte of the request as the service's prompts have had lately, a quarter of one before any was told: that is off by as much as the
    /// request's own tokens a byte differ from that. An answer in one piece that its client does not wait for is not known and not charged.
    pub struct TokenRateLimiter (checked) {
        /// The limits: at least one.
        limits: Option<Limits>,
        /// Tokens that a request is taken to generate when it does not say.
        #[range(0..=10000000)]
        default_output: u64 = 512,
        /// Tokens that must be there for a request, and that it is charged until it says what it used, or for good if its answer never does.
        #[example = 20]
        #[range(1..=1000000000)]
        tokens_per_request: Option<u64>,
        /// Tokens that can be had at once after a rest.
        #[example = 1000]
        #[range(1..=1000000000)]
        bucket_size: Option<u64>,
        /// Tokens that come back to the bucket in a minute, evenly.
        #[example = 500]
        #[range(0..=1000000000)]
        tokens_per_minute: Option<u64>,
        /// Requests in any minute.
        #[example = 60]
        #[range(1..=1000000000)]
        requests_per_minute: Option<u64>,
        /// So many tokens in any window, instead of a bucket.
        window: Option<UnitWindow>,
        /// The header whose values are counted apart, instead of keys.
        #[example = "X-Team"]
        identifier_header: Option<HeaderName>,
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
    /// So many tokens in any window.
    pub struct PerWindow {
        /// How many.
        #[example = 100000]
        #[range(1..=1000000000000)]
        limit: u64,
        /// In how much time.
        #[example = "1m"]
        window: Duration,
        /// Which are counted.
        count: Count = Count::Total,
    }
}

document! {
    /// So many tokens in any window, for each value of a header.
    pub struct PerHeader {
        /// The header.
        #[example = "X-Team"]
        name: HeaderName,
        /// How many.
        #[example = 100000]
        #[range(1..=1000000000000)]
        limit: u64,
        /// In how much time.
        #[example = "1m"]
        window: Duration,
        /// Which are counted.
        count: Count = Count::Total,
    }
}

document! {
    /// So many tokens in any second, minute, hour or day.
    pub struct UnitWindow {
        /// How long the window is.
        unit: Unit,
        /// How many tokens.
        #[example = 100000]
        #[range(1..=1000000000000)]
        max: u64,
    }
}

document! {
    /// How long a window is.
    pub enum Unit {
        /// 60 seconds.
        Minute = "minute",
        /// One second.
        Second = "second",
        /// 60 minutes.
        Hour = "hour",
        /// 24 hours.
        Day = "day",
    }
}

impl Unit {
    fn length(self) -> Duration {
        match self {
            Self::Second => Duration::from_secs(1),
            Self::Minute => MINUTE,
            Self::Hour => 60 * MINUTE,
            Self::Day => 24 * 60 * MINUTE,
        }
    }
}

impl Limits {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let example = json!({"limit": 100_000, "window": "1m"});
        at_least_one(node, at, r, &example);
        self
    }

    fn charges(&self, host: &Host, default_output: u64) -> Vec<Charge> {
        let of = |by: By, window: &PerWindow| {
            let rule = Rule::Window {
                limit: window.limit,
                window: window.window,
            };
            let limit = by.limit(host, rule);
            let takes = Takes::Tokens {
                count: window.count,
                default_output,
            };
            Charge::new(by, limit, takes)
        };
        let header = self.per_header.as_ref().map(|header| {
            let window = PerWindow {
                limit: header.limit,
                window: header.window,
                count: header.count,
            };
            of(By::Header(header.name.clone()), &window)
        });
        let before = [
            (By::Fingerprint, &self.per_fingerprint),
            (By::Ip, &self.per_ip),
            (By::User, &self.per_user),
            (By::Key, &self.per_key),
            (By::Model, &self.per_model),
        ];
        let before = before
            .into_iter()
            .filter_map(|(by, window)| Some(of(by, window.as_ref()?)));
        let global = self.global.as_ref().map(|window| of(By::All, window));
        before.chain(header).chain(global).collect()
    }
}

impl TokenRateLimiter {
    /// The fields of the bucket, which belong together.
    const BUCKET: [&'static str; 4] = [
        "tokens_per_request",
        "bucket_size",
        "tokens_per_minute",
        "requests_per_minute",
    ];

    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let given = |name: &&str| node.entry(name).is_some();
        let theirs = Self::BUCKET.iter().chain(&["window", "identifier_header"]);
        let theirs: Vec<_> = theirs.copied().filter(|name| given(name)).collect();
        if node.entry("limits").is_some() {
            let help = "keep `limits` and take the others out, or the other way round";
            refuse(node, at, r, &theirs, "it does not go with `limits`", help);
        } else if theirs.is_empty() {
            let example = json!({"per_key": {"limit": 100_000, "window": "1m"}});
            let help = format!("add: {}", r.format.field("limits", &example));
            r.error(node.span, at, "there is no limit", help);
        } else if node.entry("window").is_some() {
            let bucket = ["bucket_size", "tokens_per_minute"];
            let bucket: Vec<_> = bucket.into_iter().filter(given).collect();
            let help = "keep `window`, or the bucket";
            refuse(node, at, r, &bucket, "it does not go with `window`", help);
        } else {
            for name in Self::BUCKET.iter().filter(|name| !given(name)) {
                let help = format!("add: {}", r.format.field(name, &json!(1000)));
                let message = format!("a bucket needs `{name}` too");
                r.error(node.span, at, message, help);
            }
        }
        self.check_room(node, at, r);
        self
    }

    /// What a request takes must fit.
    fn check_room(&self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) {
        let window = self.window.as_ref().map(|window| window.max);
        let room = self.bucket_size.into_iter().chain(window).min();
        if let (Some(room), Some(taken)) = (room, self.tokens_per_request)
            && taken > room
        {
            let message = format!("no request could pass: there are never more than {room} tokens");
            let help = format!("at most {room}");
            refuse(node, at, r, &["tokens_per_request"], &message, &help);
        }
    }

    /// What is counted, with either form.
    pub(super) fn charges(&self, host: &Host) -> Vec<Charge> {
        if let Some(limits) = &self.limits {
            return limits.charges(host, self.default_output);
        }
        let tokens = match (&self.window, self.bucket_size) {
            (Some(window), _) => Some(Rule::Window {
                limit: window.max,
                window: window.unit.length(),
            }),
            (None, Some(burst)) => Some(Rule::Bucket {
                rate: self.tokens_per_minute.unwrap_or(0) as f64 / 60.0,
                burst,
            }),
            (None, None) => None,
        };
        let takes = match self.tokens_per_request {
            Some(tokens) => Takes::Fixed(tokens),
            None => Takes::Tokens {
                count: Count::Total,
                default_output: self.default_output,
            },
        };
        let requests = self.requests_per_minute.map(|limit| Rule::Window {
            limit,
            window: MINUTE,
        });
        let of = |rule: Option<Rule>, takes, what| {
            let by = self.by(host, rule?, what);
            Some(Charge { by, takes })
        };
        let both = [
            of(requests, Takes::Request, "requests"),
            of(tokens, takes, "tokens"),
        ];
        both.into_iter().flatten().collect()
    }

    /// The first of them that a request names: the header, the key, or nothing. Their counts are apart, so that nobody can use up a key's by
    /// giving its name in the header.
    fn by(&self, host: &Host, rule: Rule, what: &str) -> Vec<(By, Limit)> {
        let header = self.identifier_header.clone().map(By::Header);
        let all = header.into_iter().chain([By::Key, By::All]);
        all.map(|by| {
            let id = format!("{}/{}/{what}", host.identity, by.name()).into();
            (by, Limit { id, rule })
        })
        .collect()
    }
}

/// Reports the same of several fields.
fn refuse(
    node: &Node,
    at: &At<'_>,
    r: &mut Reading<'_>,
    names: &[&str],
    message: &str,
    help: &str,
) {
    for name in names {
        let span = node.entry(name).map_or(node.span, |node| node.span);
        r.error(span, &at.field(name), message, help);
    }
}
