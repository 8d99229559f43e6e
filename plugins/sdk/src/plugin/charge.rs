//! Limits that a plugin declares and the engine counts.
//!
//! A plugin that does nothing but count says by [`charges`](super::Plugin::charges) what requests take of which limits, and is not called for them: the engine takes
//! all of it in one loop, tells how the limits stand, and settles what was taken by what the exchange came to. That is one
//! road for every limiter, and costs an exchange a fraction of what calls and states of their own would.
//!
//! Invariant: a request takes what all charges of a plugin ask or nothing of any, and what it took lives as long as its exchange.

use std::borrow::Cow;
use std::time::Instant;

use smallvec::SmallVec;

use super::{By, End, Principal};
use crate::document;
use crate::llm::usage::Usage;
use crate::quota::{Denied, Lease, Limit, Quota, Standing, Standings, Who};

/// Something that requests take of a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Charge {
    /// What it is counted by: the first that a request names, each with a limit of its own. It does not concern who names none.
    pub by: Vec<(By, Limit)>,
    /// How much.
    pub takes: Takes,
}

/// How much an exchange takes of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// One, being a request: for good, once its plugin lets it in.
    Request,
    /// One until it is over.
    Place,
    /// Its tokens; until they are known an [estimate](super::estimate) of them, at most the whole limit.
    Tokens {
        /// Which are counted.
        count: Count,
        /// What it is taken to generate if it does not say.
        default_output: u64,
    },
    /// Its tokens; until they are known this many. An answer that never tells is charged these.
    Fixed(u64),
}

document! {
    /// Which tokens are counted.
    pub enum Count {
        /// Those of the prompt and those generated.
        Total = "total",
        /// Those of the prompt.
        Input = "input",
        /// Those generated.
        Output = "output",
    }
}

impl Count {
    /// How many of these tokens it counts.
    pub fn of(self, usage: &Usage) -> u64 {
        match self {
            Self::Total => usage.input.saturating_add(usage.output),
            Self::Input => usage.input,
            Self::Output => usage.output,
        }
    }
}

impl Charge {
    /// What is counted by one thing.
    pub fn new(by: By, limit: Limit, takes: Takes) -> Self {
        Self {
            by: vec![(by, limit)],
            takes,
        }
    }

    /// Whether the request's body has to be read for it.
    pub fn reads_body(&self) -> bool {
        matches!(self.takes, Takes::Tokens { .. }) || self.by.iter().any(|(by, _)| by.reads_body())
    }
}

/// What the engine knows of an exchange that is charged, and keeps for it.
pub trait Charged {
    /// Who was authenticated.
    fn principal(&self) -> Option<&Principal>;

    /// Whom or what else it concerns; `None` if it does not say.
    fn subject(&self, by: &By) -> Option<Cow<'_, str>>;

    /// What it is taken to use, with so many tokens generated if it does not say.
    fn estimate(&self, default_output: u64) -> Usage;

    /// What it holds until it is over.
    fn leases(&mut self) -> &mut Leases;

    /// What its client is told of limits.
    fn standings(&mut self) -> &mut Standings;
}

/// A limit that was reached.
#[derive(Debug)]
pub struct Reached<'c> {
    /// By what it counts.
    pub by: &'c By,
    /// What was asked of it.
    pub takes: Takes,
    /// How much that was.
    pub amount: u64,
    /// Why that could not be had.
    pub denied: Denied,
}

/// What an exchange holds of limits. Dropped, it gives everything back.
#[derive(Debug, Default)]
pub struct Leases(SmallVec<[(Takes, Lease); 1]>);

impl Leases {
    /// Whether there is nothing to settle.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Settles all of it to what the exchange came to.
    pub fn settle(&mut self, end: &End) {
        let usage = end.tokens.as_ref().map(|tokens| &tokens.usage);
        while let Some((takes, lease)) = self.0.pop() {
            match (takes, usage) {
                (Takes::Tokens { count, .. }, Some(usage)) => {
                    lease.settle_at(count.of(usage), end.at);
                }
                (Takes::Fixed(_), Some(usage)) => {
                    lease.settle_at(Count::Total.of(usage), end.at);
                }
                // An answer that was no model's is charged by the request.
                (Takes::Fixed(_), None) if (200..300).contains(&end.status) => lease.keep(),
                (Takes::Request, _) => lease.keep(),
                (Takes::Tokens { .. } | Takes::Fixed(_) | Takes::Place, _) => drop(lease),
            }
        }
    }

    /// Of those after the first `before`, requests are charged for good.
    fn keep_requests(&mut self, before: usize) {
        let taken: SmallVec<[(Takes, Lease); 8]> = self.0.drain(before..).collect();
        for (takes, lease) in taken {
            match takes {
                Takes::Request => lease.keep(),
                _ => self.0.push((takes, lease)),
            }
        }
    }
}

/// Takes what all of a plugin's charges ask of limits, or nothing.
///
/// They are taken one after the other, so for a moment somebody else may be refused because of what is about to be given back; nobody is ever
/// admitted beyond a limit.
///
/// # Errors
/// The first limit that was reached.
pub fn charge<'c>(
    charges: &'c [Charge],
    quota: &dyn Quota,
    at: Instant,
    x: &mut impl Charged,
) -> Result<(), Box<Reached<'c>>> {
    match charges {
        // As nearly all have it: nobody can refuse after it, so what it takes for good need not be held.
        [only] => take(only, true, quota, at, x),
        _ => charge_all(charges, quota, at, x),
    }
}

#[inline(never)]
fn charge_all<'c>(
    charges: &'c [Charge],
    quota: &dyn Quota,
    at: Instant,
    x: &mut impl Charged,
) -> Result<(), Box<Reached<'c>>> {
    let (held, told) = (x.leases().0.len(), *x.standings());
    for charge in charges {
        if let Err(reached) = take(charge, false, quota, at, x) {
            // Leases that are dropped give back.
            x.leases().0.truncate(held);
            *x.standings() = told;
            return Err(reached);
        }
    }
    x.leases().keep_requests(held);
    Ok(())
}

/// Takes what one charge asks, for good or until the exchange is over.
#[inline]
fn take<'c>(
    charge: &'c Charge,
    only: bool,
    quota: &dyn Quota,
    at: Instant,
    x: &mut impl Charged,
) -> Result<(), Box<Reached<'c>>> {
    for (by, limit) in &charge.by {
        let amount = amount(charge.takes, limit, x);
        let for_good = only && charge.takes == Takes::Request;
        let ask = |who: Who<'_>| quota.take_at(limit, &who, amount, at, for_good);
        let taken = match by.user(x.principal()) {
            Some(user) => ask(user.who()),
            None => match named(by, x, &ask) {
                Some(taken) => taken,
                None => continue,
            },
        };
        return match taken {
            Ok((lease, standing)) => {
                tell(x.standings(), charge.takes, standing);
                if !for_good {
                    x.leases().0.push((charge.takes, lease));
                }
                Ok(())
            }
            Err(denied) => Err(reached(by, charge.takes, amount, &denied)),
        };
    }
    Ok(())
}

/// How much that is; at most the whole limit: a first request passes, however large it may be.
#[inline]
fn amount(takes: Takes, limit: &Limit, x: &impl Charged) -> u64 {
    let amount = match takes {
        Takes::Request | Takes::Place => 1,
        Takes::Tokens {
            count,
            default_output,
        } => count.of(&x.estimate(default_output)),
        Takes::Fixed(tokens) => tokens,
    };
    amount.min(limit.rule.most())
}

/// Asks for whom the request names otherwise than by its key.
#[inline(never)]
fn named<T>(by: &By, x: &impl Charged, ask: &impl Fn(Who<'_>) -> T) -> Option<T> {
    if let By::Key | By::All = by {
        return None;
    }
    let subject = x.subject(by)?;
    Some(ask(Who::new(&subject)))
}

#[cold]
fn reached<'c>(by: &'c By, takes: Takes, amount: u64, denied: &Denied) -> Box<Reached<'c>> {
    Box::new(Reached {
        by,
        takes,
        amount,
        denied: *denied,
    })
}

fn tell(told: &mut Standings, takes: Takes, standing: Standing) {
    match takes {
        Takes::Request => told.tell_requests(standing),
        Takes::Tokens { .. } | Takes::Fixed(_) => told.tell_tokens(standing),
        Takes::Place => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::plugin::Tokens;
    use crate::quota::{Local, ManualClock, Rule, User};

    /// A request of a key, with an estimate of 10 tokens and what it is taken to generate.
    struct Call {
        principal: Option<Principal>,
        leases: Leases,
        standings: Standings,
    }

    impl Default for Call {
        fn default() -> Self {
            let principal = Principal {
                name: "k".into(),
                id: User::new("k"),
            };
            Self {
                principal: Some(principal),
                leases: Leases::default(),
                standings: Standings::default(),
            }
        }
    }

    impl Charged for Call {
        fn principal(&self) -> Option<&Principal> {
            self.principal.as_ref()
        }

        fn subject(&self, by: &By) -> Option<Cow<'_, str>> {
            (*by == By::Model).then_some("m".into())
        }

        fn estimate(&self, default_output: u64) -> Usage {
            Usage {
                input: 10,
                cached: 0,
                output: default_output,
            }
        }

        fn leases(&mut self) -> &mut Leases {
            &mut self.leases
        }

        fn standings(&mut self) -> &mut Standings {
            &mut self.standings
        }
    }

    const TOKENS: Takes = Takes::Tokens {
        count: Count::Total,
        default_output: 40,
    };

    fn limit(id: &str, limit: u64) -> Limit {
        let window = Duration::from_secs(60);
        Limit {
            id: id.into(),
            rule: Rule::Window { limit, window },
        }
    }

    fn local() -> Local {
        Local::with_clock(Arc::new(ManualClock::default()))
    }

    fn left(quota: &Local, charge: &Charge) -> u64 {
        let (by, limit) = &charge.by[0];
        let who = if *by == By::Key { "k" } else { "" };
        quota.standing(limit, who).remaining
    }

    fn passes(
        charges: &[Charge],
        quota: &Local,
        call: &mut Call,
    ) -> Result<(), (&'static str, u64)> {
        let taken = charge(charges, quota, Instant::now(), call);
        taken.map_err(|reached| (reached.by.name(), reached.amount))
    }

    fn over(call: &mut Call, status: u16, usage: Option<(u64, u64)>) {
        let tokens = usage.map(|(input, output)| Tokens {
            usage: Usage {
                input,
                cached: 0,
                output,
            },
            estimated: false,
        });
        call.leases.settle(&End {
            status,
            tokens,
            ..End::default()
        });
        assert!(call.leases.is_empty());
    }

    #[test]
    fn all_is_taken_or_nothing() {
        let quota = local();
        let charges = [
            Charge::new(By::Key, limit("requests", 5), Takes::Request),
            Charge::new(By::Ip, limit("of nobody", 1), Takes::Request),
            Charge::new(By::All, limit("places", 4), Takes::Place),
            Charge::new(By::All, limit("tokens", 80), TOKENS),
        ];
        let (mut first, mut second) = (Call::default(), Call::default());
        assert_eq!(passes(&charges, &quota, &mut first), Ok(()));
        assert_eq!(passes(&charges, &quota, &mut second), Err(("global", 50)));
        // Who is refused holds nothing and is told nothing of what it was given for a moment.
        assert!(second.leases.is_empty() && second.standings.is_empty());
        let [requests, nobody, _, tokens] = &charges;
        assert_eq!((left(&quota, requests), left(&quota, tokens)), (4, 30));
        over(&mut first, 200, Some((7, 3)));
        assert_eq!((left(&quota, requests), left(&quota, tokens)), (4, 70));
        assert_eq!(left(&quota, nobody), 1);
    }

    #[test]
    fn requests_stay_charged_and_the_rest_is_given_back() {
        for others in [0, 1] {
            let quota = local();
            let requests = Charge::new(By::Key, limit("requests", 5), Takes::Request);
            let tokens = Charge::new(By::Key, limit("tokens", 80), TOKENS);
            let mut charges = vec![tokens; others];
            charges.push(requests);
            charges.reverse();
            let mut call = Call::default();
            assert_eq!(passes(&charges, &quota, &mut call), Ok(()));
            assert_eq!(call.leases.0.len(), others);
            drop(call);
            assert_eq!(left(&quota, &charges[0]), 4);
            assert!(charges[1..].iter().all(|of| left(&quota, of) == 80));
        }
    }

    #[test]
    fn what_other_plugins_took_stays_held() {
        let (quota, mut call) = (local(), Call::default());
        let places = [Charge::new(By::All, limit("places", 4), Takes::Place)];
        let several = [
            Charge::new(By::Key, limit("requests", 5), Takes::Request),
            Charge::new(By::All, limit("tokens", 80), TOKENS),
        ];
        assert_eq!(passes(&places, &quota, &mut call), Ok(()));
        assert_eq!(passes(&several, &quota, &mut call), Ok(()));
        assert_eq!(left(&quota, &places[0]), 3);
        // Nor does a refusal give back what was not asked for by who is refused.
        assert_eq!(passes(&several, &quota, &mut call), Err(("global", 50)));
        assert_eq!(
            (left(&quota, &places[0]), left(&quota, &several[1])),
            (3, 30)
        );
        over(&mut call, 200, Some((7, 3)));
        let all = [&places[0], &several[0], &several[1]].map(|of| left(&quota, of));
        assert_eq!(all, [4, 4, 70]);
    }

    #[test]
    fn an_end_settles_by_what_was_taken() {
        let cases = [
            (TOKENS, 200, Some((7, 3)), 10),
            (TOKENS, 200, None, 0),
            (Takes::Fixed(20), 200, Some((7, 3)), 10),
            (Takes::Fixed(20), 200, None, 20),
            (Takes::Fixed(20), 502, None, 0),
        ];
        for (takes, status, usage, charged) in cases {
            let (quota, mut call) = (local(), Call::default());
            let charges = [Charge::new(By::All, limit("tokens", 100), takes)];
            assert_eq!(passes(&charges, &quota, &mut call), Ok(()));
            over(&mut call, status, usage);
            let used = 100 - left(&quota, &charges[0]);
            assert_eq!(used, charged, "{takes:?} {status} {usage:?}");
        }
    }

    #[test]
    fn the_first_that_a_request_names_counts_and_a_large_one_takes_all() {
        let quota = local();
        let of = |by: By| (by.clone(), limit(by.name(), 30));
        let charge = Charge {
            by: vec![of(By::User), of(By::Key), of(By::Model), of(By::All)],
            takes: TOKENS,
        };
        assert!(charge.reads_body());
        let mut call = Call::default();
        let charges = [charge];
        assert_eq!(passes(&charges, &quota, &mut call), Ok(()));
        let mut stranger = Call {
            principal: None,
            ..Call::default()
        };
        assert_eq!(passes(&charges, &quota, &mut stranger), Ok(()));
        let left = |(by, who): (usize, &str)| quota.standing(&charges[0].by[by].1, who).remaining;
        let all = [(0, "k"), (1, "k"), (2, "m"), (3, "")];
        assert_eq!(all.map(left), [30, 0, 0, 30]);
    }
}
