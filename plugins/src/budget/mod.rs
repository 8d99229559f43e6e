//! `budget`: so much money, or so many tokens, in a day or a month of the calendar.
//!
//! It owns what an exchange is taken to cost and what it did cost; the counting is the engine's ([`Quota`](tollgate_sdk::quota::Quota)). An estimate is
//! reserved before the request goes on and settled to the truth when the exchange is over. Invariant: of an exchange for which nothing was
//! generated nothing remains.

mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tollgate_sdk::codes;
use tollgate_sdk::document::Quoted;
use tollgate_sdk::llm::usage::Usage;
use tollgate_sdk::plugin::{
    Builds, Built, By, End, Exchange, Host, Needs, Plugin, Refusal, Stage, State, Step, estimate,
};
use tollgate_sdk::quota::{Denied, Lease, Limit, Quota, Rule, Who};

use crate::price::{Prices, Rates};

pub use settings::Budget;
use settings::{Per, Unit, Unpriced};

impl Builds for Budget {
    const NAME: &'static str = "budget";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, host: &Host) -> Built {
        let rule = Rule::Calendar {
            limit: self.most(),
            period: self.per.period(),
        };
        // Money and tokens are nothing that could be added up.
        let id = format!("{}/{}/{}", host.identity, self.unit.word(), self.by.name());
        Arc::new(Purse {
            quota: host.quota.clone(),
            limit: Limit {
                id: id.into(),
                rule,
            },
            by: self.by.clone(),
            unit: self.unit,
            per: self.per,
            prices: Prices::new(&self.prices),
            default_output: self.default_output,
            enforce: self.enforce,
            unpriced: self.unpriced,
        })
    }
}

struct Purse {
    quota: Arc<dyn Quota>,
    limit: Limit,
    by: By,
    unit: Unit,
    per: Per,
    prices: Prices,
    default_output: u64,
    enforce: bool,
    unpriced: Unpriced,
}

/// What is to be settled of one exchange.
struct Pending {
    /// By the model it asked for.
    rates: Option<Rates>,
    lease: Option<Lease>,
}

impl Plugin for Purse {
    fn needs(&self) -> Needs {
        Needs {
            request_peek: true,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        let reserved = self.reserve(x);
        Step::Done(reserved.map(|pending| x.state.put(pending)))
    }

    fn end(&self, state: &mut State, end: &mut End) {
        // What is dropped gives back.
        let (Some(pending), Some(tokens)) = (state.take::<Pending>(), end.tokens) else {
            return;
        };
        let used = self.amount(pending.rates, &tokens.usage);
        if let (Some(lease), Some(used)) = (pending.lease, used) {
            lease.settle(used);
        }
        if let Some(rates) = pending.rates {
            end.cost.get_or_insert(rates.cost(&tokens.usage));
        }
    }
}

impl Purse {
    /// Reserves what the request may use.
    fn reserve(&self, x: &Exchange<'_>) -> Result<Pending, Refusal> {
        let rates = self.prices.of(x.request.model);
        let request = &x.request;
        let guess = estimate(request.peek, request.length, self.default_output);
        let guess = self.amount(rates, &guess);
        let Some(guess) = guess else {
            return match self.unpriced {
                Unpriced::Refuse if self.enforce => Err(unpriced(x.request.model)),
                Unpriced::Refuse | Unpriced::Pass => Ok(Pending { rates, lease: None }),
            };
        };
        let subject;
        let who = match self.by.user(request.principal) {
            Some(user) => user.who(),
            None => match self.by.subject(request) {
                Some(named) => {
                    subject = named;
                    Who::new(&subject)
                }
                None => return Ok(Pending { rates, lease: None }),
            },
        };
        // Nothing is always there to be had: what is not enforced is only settled.
        let amount = match self.enforce {
            true => guess.min(self.limit.rule.most()),
            false => 0,
        };
        match self
            .quota
            .take_at(&self.limit, &who, amount, x.request.at, false)
        {
            Ok((lease, _)) => Ok(Pending {
                rates,
                lease: Some(lease),
            }),
            Err(denied) if self.enforce => Err(self.refusal(&denied)),
            Err(_) => Ok(Pending { rates, lease: None }),
        }
    }

    /// How much of the budget that is, if it can be told.
    fn amount(&self, rates: Option<Rates>, usage: &Usage) -> Option<u64> {
        match self.unit {
            Unit::Tokens => Some(usage.input.saturating_add(usage.output)),
            Unit::Money => Some(rates?.cost(usage)),
        }
    }

    fn refusal(&self, denied: &Denied) -> Refusal {
        let message = format!(
            "what is left of this {}'s budget ({}) does not cover the request",
            self.per.word(),
            self.by.name()
        );
        Refusal::of(&codes::INSUFFICIENT_QUOTA, message).until(denied.wait())
    }
}

fn unpriced(model: Option<&str>) -> Refusal {
    let message = match model {
        Some(model) => format!(
            "the model {} has no price here and may not be used",
            Quoted(model)
        ),
        None => "the request names no model, and without one it has no price".into(),
    };
    Refusal::forbidden(message).about("model")
}
