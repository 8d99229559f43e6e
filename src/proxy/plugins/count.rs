//! Limits that plugins declare, counted for an exchange.
//!
//! Nothing is called and nothing waits: what is taken of limits is held by the exchange itself, and settled with its end. The arithmetic, and what
//! is taken when, are the SDK's ([`charge`]); here is what it has to know of an exchange.

use std::borrow::Cow;
use std::time::Instant;

use pingora_http::RequestHeader;
use tollgate_sdk::llm::usage::Usage;
use tollgate_sdk::plugin::{By, Charged, Leases, Principal, Request, charge, estimate};
use tollgate_sdk::quota::Standings;

use super::call::tell;
use crate::proxy::exchange::{Exchange, asked_model};
use crate::proxy::reply::Rejection;
use crate::snapshot::Link;

/// Takes what a link's charges ask, or refuses the exchange. `now` is when what was before it ended, and moves on.
pub(super) fn count(
    head: &RequestHeader,
    x: &mut Exchange,
    link: &Link,
    now: &mut Instant,
) -> Result<(), Rejection> {
    let at = *now;
    let mut counted = Counted { head, x, at };
    let taken = charge(&link.charges, &*link.quota, at, &mut counted);
    tell(link, now);
    taken.map_err(|reached| Rejection::Plugin(link.plugin.refuse(&reached)))
}

/// An exchange as limits see it.
struct Counted<'v> {
    head: &'v RequestHeader,
    x: &'v mut Exchange,
    at: Instant,
}

impl Charged for Counted<'_> {
    fn principal(&self) -> Option<&Principal> {
        self.x.key.as_ref().map(|key| &key.principal)
    }

    fn subject(&self, by: &By) -> Option<Cow<'_, str>> {
        let x = &*self.x;
        by.subject(&request!(self.head, x, self.at))
    }

    fn estimate(&self, default_output: u64) -> Usage {
        estimate(self.x.peek.as_ref(), self.x.body.len(), default_output)
    }

    fn leases(&mut self) -> &mut Leases {
        &mut self.x.leases
    }

    fn standings(&mut self) -> &mut Standings {
        &mut self.x.edits.standings
    }
}
