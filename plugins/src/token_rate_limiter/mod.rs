//! `token_rate_limiter`: so many tokens in any window, counted by whoever or whatever requests concern.
//!
//! It owns what a request reserves and what it is charged; the counting is the engine's ([`Quota`](tollgate_sdk::quota::Quota)). What may be used is
//! reserved before the request goes on, of every limit that concerns it or of none, and settled to what was used when the exchange is over.
//! Invariant: a lease lives as long as its exchange.

mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use smallvec::SmallVec;
use tollgate_sdk::llm::usage::Usage;
use tollgate_sdk::plugin::{
    Builds, Built, End, Exchange, Host, Needs, Plugin, Refusal, Stage, State, Step, Verdict,
};
use tollgate_sdk::quota::{Denied, Lease, Limit, Quota, Standing, Standings};

use crate::estimate::estimate;
use crate::subject::By;

use settings::Count;
pub use settings::TokenRateLimiter;

impl Builds for TokenRateLimiter {
    const NAME: &'static str = "token_rate_limiter";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, host: &Host) -> Built {
        let counted = self.counted(host);
        let estimates = |of: &Counted| matches!(of.takes, Takes::Estimate(_));
        let by_body = |of: &Counted| of.by.iter().any(|(by, _)| by.reads_body());
        Arc::new(Limiter {
            quota: host.quota.clone(),
            reads_body: counted.iter().any(|of| estimates(of) || by_body(of)),
            counted,
            default_output: self.default_output,
        })
    }
}

/// One limit.
struct Counted {
    /// What it counts by: the first that a request names.
    by: Vec<(By, Limit)>,
    takes: Takes,
}

/// What an exchange takes of a limit.
#[derive(Clone, Copy)]
enum Takes {
    /// Its tokens; until they are known an estimate of them.
    Estimate(Count),
    /// Its tokens; until they are known this many.
    Fixed(u64),
    /// One, being a request.
    Request,
}

impl Takes {
    fn reserved(self, estimate: &Usage) -> u64 {
        match self {
            Self::Estimate(count) => count.of(estimate),
            Self::Fixed(tokens) => tokens,
            Self::Request => 1,
        }
    }

    fn headers(self, standing: &Standing) -> Vec<(http::HeaderName, http::HeaderValue)> {
        standing.headers(match self {
            Self::Request => Standing::REQUESTS,
            Self::Estimate(_) | Self::Fixed(_) => Standing::TOKENS,
        })
    }
}

struct Limiter {
    quota: Arc<dyn Quota>,
    counted: Vec<Counted>,
    reads_body: bool,
    default_output: u64,
}

/// What is to be settled of one exchange. Most are counted by one limit.
struct Reserved(SmallVec<[(Takes, Lease); 1]>);

impl Plugin for Limiter {
    fn needs(&self) -> Needs {
        Needs {
            request_peek: self.reads_body,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        self.reserve(x).into()
    }

    fn end(&self, state: &mut State, end: &mut End) {
        let Some(Reserved(leases)) = state.get() else {
            return;
        };
        let usage = end.tokens.as_ref().map(|tokens| &tokens.usage);
        let succeeded = (200..300).contains(&end.status);
        while let Some((takes, lease)) = leases.pop() {
            match (takes, usage) {
                (Takes::Estimate(count), Some(usage)) => {
                    lease.settle_at(count.of(usage), end.at);
                }
                (Takes::Fixed(_), Some(usage)) => {
                    lease.settle_at(Count::Total.of(usage), end.at);
                }
                // An answer that was no model's is charged by the request.
                (Takes::Fixed(_), None) if succeeded => lease.keep(),
                (Takes::Request, _) => lease.keep(),
                (Takes::Estimate(_) | Takes::Fixed(_), None) => drop(lease),
            }
        }
    }
}

impl Limiter {
    fn reserve(&self, x: &mut Exchange<'_>) -> Verdict {
        let request = &x.request;
        let guess = match self.reads_body {
            true => estimate(x, self.default_output),
            false => Usage::default(),
        };
        let mut leases = SmallVec::new();
        let mut told = Standings::default();
        for of in &self.counted {
            let named = |(by, limit)| Some((by, limit, By::subject(by, request)?));
            let pairs = of.by.iter().map(|(by, limit)| (by, limit));
            let Some((by, limit, subject)) = { pairs }.find_map(named) else {
                continue;
            };
            // A first request passes, however large it may be.
            let amount = of.takes.reserved(&guess).min(limit.rule.most());
            // Leases that are dropped give back: all limits or none.
            match self.quota.reserve_at(limit, &subject, amount, request.at) {
                Ok((lease, standing)) => {
                    leases.push((of.takes, lease));
                    match of.takes {
                        Takes::Request => told.tell_requests(standing),
                        Takes::Estimate(_) | Takes::Fixed(_) => told.tell_tokens(standing),
                    }
                }
                Err(denied) => return Err(refusal(by, of.takes, amount, &denied)),
            }
        }
        x.edits.standings.tell_all(&told);
        x.state.put(Reserved(leases));
        Ok(())
    }
}

fn refusal(by: &By, takes: Takes, amount: u64, denied: &Denied) -> Refusal {
    let wait = denied.retry_after.unwrap_or(denied.standing.reset);
    let (by, left) = (by.name(), denied.standing.remaining);
    let message = match takes {
        Takes::Request => format!("{by} rate limit exceeded: no requests are left"),
        Takes::Estimate(_) | Takes::Fixed(_) => {
            format!("{by} token rate limit exceeded: the request needs {amount}, {left} are left")
        }
    };
    takes.headers(&denied.standing).into_iter().fold(
        Refusal::too_many(message, wait),
        |refusal, (name, value)| refusal.with(name, value),
    )
}
