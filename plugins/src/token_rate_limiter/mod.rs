//! `token_rate_limiter`: so many tokens in any window, counted by whoever or whatever requests concern.
//!
//! It owns what a request is counted by and what who is refused is told; the counting is the engine's ([`charge`](tollgate_sdk::plugin::charge)). What
//! may be used is reserved before the request goes on, of every limit that concerns it or of none, and settled to what was used when the
//! exchange is over.

mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tollgate_sdk::plugin::{Builds, Built, Charge, Host, Plugin, Reached, Refusal, Stage, Takes};
use tollgate_sdk::quota::Standing;

pub use settings::TokenRateLimiter;

impl Builds for TokenRateLimiter {
    const NAME: &'static str = "token_rate_limiter";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, host: &Host) -> Built {
        Arc::new(Limiter(self.charges(host).into()))
    }
}

struct Limiter(Arc<[Charge]>);

impl Plugin for Limiter {
    fn charges(&self) -> Arc<[Charge]> {
        self.0.clone()
    }

    fn refuse(&self, reached: &Reached<'_>) -> Refusal {
        let (by, amount) = (reached.by.name(), reached.amount);
        let standing = &reached.denied.standing;
        let left = standing.remaining;
        let (message, names) = match reached.takes {
            Takes::Request => (
                format!("{by} rate limit exceeded: no requests are left"),
                Standing::REQUESTS,
            ),
            _ => (
                format!(
                    "{by} token rate limit exceeded: the request needs {amount}, {left} are left"
                ),
                Standing::TOKENS,
            ),
        };
        Refusal::too_many(message, reached.denied.wait()).telling(standing, names)
    }
}
