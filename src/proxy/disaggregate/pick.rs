//! A further target within an attempt: who decodes what was computed, or serves the request whole after all.
//!
//! The service stays the one that the attempt began with: what was computed there is of no use to another.

use pingora_core::Result;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::proxy::exchange::Exchange;
use crate::proxy::peer::{self, Found};
use crate::proxy::recover::room;
use crate::proxy::reply::Rejection;

/// The target for what is wanted next. It is the same attempt.
///
/// # Errors
/// There is none, or the client left.
pub(in crate::proxy) async fn again(
    session: &mut Session,
    x: &mut Exchange,
) -> Result<Box<HttpPeer>> {
    x.attempt = None;
    let now = Instant::now();
    let (found, otherwise) = match peer::find(session, x, now) {
        Found::Target(index, guard, ticket) => {
            (Some((index, guard, ticket)), Rejection::NoHealthyUpstream)
        }
        found @ Found::Full if room::may_wait(x, &found) => {
            let found = Box::pin(room::wait(session, x)).await?;
            (found, Rejection::Overloaded)
        }
        Found::Full => (None, Rejection::Overloaded),
        Found::Nobody => (peer::least_bad_of(x), Rejection::NoHealthyUpstream),
    };
    let Some((index, guard, ticket)) = found else {
        return Err(x.refuse(otherwise));
    };
    let peer = peer::hold(session, x, index, guard, ticket, Instant::now());
    x.attempts = x.attempts.saturating_sub(1);
    peer.map_err(|rejection| x.refuse(rejection))
}
