//! Waiting for a target with room, when all that are to be trusted stand at their limit.
//!
//! First come first served: those who wait take turns in the service's line, and only its head looks for a place
//! whenever one is given back.

use pingora_core::Result;
use pingora_proxy::Session;
use tokio::time::{Instant, timeout_at};

use super::while_present;
use crate::balance::Guard;
use crate::health::Ticket;
use crate::proxy::exchange::Exchange;
use crate::proxy::peer;
use crate::proxy::reply::Rejection;

/// Whether the exchange's service lets requests wait for room.
pub(in crate::proxy) fn may_wait(x: &Exchange) -> bool {
    x.replayable
        && x.offer
            .as_ref()
            .is_some_and(|offer| offer.service.queue.is_some())
}

/// Whether others wait for room already.
pub(in crate::proxy) fn is_waited_for(x: &Exchange) -> bool {
    x.offer
        .as_ref()
        .is_some_and(|offer| offer.service.state.room.depth() > 0)
}

/// Waits for a place, within the bounds of the service's queue.
pub(in crate::proxy) async fn wait(
    session: &mut Session,
    x: &mut Exchange,
) -> Result<(usize, Guard, Ticket)> {
    let Some(offer) = x.offer.clone() else {
        return Err(x.refuse(Rejection::Overloaded));
    };
    let (Some(settings), Some(target)) =
        (&offer.service.queue, offer.service.upstream.targets.first())
    else {
        return Err(x.refuse(Rejection::Overloaded));
    };
    let state = &offer.service.state;
    let size = (settings.size as usize).saturating_sub(state.queue.depth());
    let Some(mut place) = state.room.enter(size) else {
        return Err(x.refuse(Rejection::Overloaded));
    };
    let began = Instant::now();
    let deadline = x.latest(began + settings.max_wait);
    let key = peer::affinity(session.req_header(), x);
    let mut waiting = target.state.freed().waiting();
    let look = async {
        // The turn is given on once a place is held.
        let _turn = place.turn(1).await;
        loop {
            if let Some(found) = peer::try_pick(x, key) {
                return found;
            }
            waiting.freed().await;
        }
    };
    let found = while_present(session, Box::pin(timeout_at(deadline, look))).await?;
    offer.metrics.waited(began.elapsed());
    found.map_err(|_| x.refuse(Rejection::Overloaded))
}
