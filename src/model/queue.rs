//! The 429 queue of a service: where requests wait that its targets have no room for.

use std::time::Duration;

use tollgate_sdk::document;
use tollgate_sdk::document::{At, FromNode, Json, Node, Reading, json};

use super::health::refuse_zero;
use super::retry::warn_above;

document! {
    /// Where requests wait that were answered 429, or that no target has room for.
    pub struct Queue (default checked) {
        /// How many requests may wait; the next falls back at once.
        #[range(0..=100000)]
        size: u32 = 100,
        /// How many of them may be sent at once.
        #[range(1..=100000)]
        workers: u32 = 10,
        /// How often one request is sent again; -1 is without limit, 0 never.
        #[range(-1..=1000000)]
        max_retries: RetryLimit = RetryLimit(Some(3)),
        /// The wait before it is sent again, unless the upstream said how long; it doubles each time.
        initial_delay: Duration = Duration::from_millis(500),
        /// The longest such wait.
        max_delay: Duration = Duration::from_secs(5),
        /// How long a request may wait in all.
        max_wait: Duration = Duration::from_secs(30),
    }
}

impl Queue {
    /// What concerns several fields.
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let durations = [
            ("initial_delay", self.initial_delay),
            ("max_delay", self.max_delay),
            ("max_wait", self.max_wait),
        ];
        refuse_zero(durations, node, at, r);
        let [initial, max, _] = durations;
        warn_above(initial, max, node, at, r);
        self
    }
}

/// How often something may be done again; none is without limit, written -1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetryLimit(pub Option<u32>);

impl RetryLimit {
    /// Whether it may be done once more after so many times.
    pub fn allows(self, done: u32) -> bool {
        self.0.is_none_or(|limit| done < limit)
    }
}

/// The range is the field's: -1 is the only negative number.
impl FromNode for RetryLimit {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        i64::read(node, at, r).map(|limit| Self(u32::try_from(limit).ok()))
    }

    fn schema() -> Json {
        i64::schema()
    }

    fn value(&self) -> Json {
        self.0.map_or(json!(-1), Json::from)
    }

    fn example() -> Json {
        json!(3)
    }
}
