//! How many retries a service may make: a share of its requests, and always a few a second.
//!
//! Retries are what turns a sick pool into a dead one, so they are paid for by requests. A small service, whose share of few
//! requests is nothing, retries from an allowance that refills with time.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Retries a second that are always allowed.
const ALLOWANCE: f64 = 10.0;
/// Retries that requests can have saved up for at most.
const SAVINGS: f64 = 100.0;

/// A hundred shares of a fifth are twenty, whatever binary fractions make of it.
const ROUNDING: f64 = 1e-6;

/// The account of one service. Two buckets of tokens, a retry takes one from either.
#[derive(Debug)]
pub struct RetryBudget {
    // Held for a few additions.
    account: Mutex<Account>,
}

#[derive(Debug)]
struct Account {
    saved: f64,
    allowance: f64,
    refilled: Option<Instant>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget {
            account: Mutex::new(Account {
                saved: 0.0,
                allowance: ALLOWANCE,
                refilled: None,
            }),
        }
    }
}

impl RetryBudget {
    /// A request was made; `share` of a retry is saved.
    pub fn deposit(&self, share: f64) {
        let mut account = self.account.lock().unwrap_or_else(|p| p.into_inner());
        account.saved = (account.saved + share).min(SAVINGS);
    }

    /// Whether a retry may be made now; if so it is paid for.
    pub fn withdraw(&self, now: Instant) -> bool {
        let mut account = self.account.lock().unwrap_or_else(|p| p.into_inner());
        let since = account
            .refilled
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        account.refilled = Some(now);
        account.allowance = (account.allowance + since.as_secs_f64() * ALLOWANCE).min(ALLOWANCE);
        if account.saved >= 1.0 - ROUNDING {
            account.saved = (account.saved - 1.0).max(0.0);
            return true;
        }
        if account.allowance >= 1.0 - ROUNDING {
            account.allowance = (account.allowance - 1.0).max(0.0);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_requests_and_ten_a_second() {
        let budget = RetryBudget::default();
        let start = Instant::now();
        let tries = |n: usize, at| (0..n).filter(|_| budget.withdraw(at)).count();
        assert_eq!(tries(50, start), 10, "the allowance alone");
        assert_eq!(tries(50, start + Duration::from_millis(500)), 5);
        for _ in 0..100 {
            budget.deposit(0.2);
        }
        assert_eq!(tries(50, start + Duration::from_millis(500)), 20);
        assert_eq!(
            tries(50, start + Duration::from_secs(60)),
            10,
            "it does not grow for ever"
        );
    }
}
