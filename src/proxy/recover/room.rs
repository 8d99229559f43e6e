//! Waiting for a target with room, when all that are to be trusted stand at their limit.
//!
//! Those who wait take turns in the service's line, and only its head looks for a place whenever one is given back; so who is placed, and
//! where, is decided when there is room. Keys share by their weight, and the urgent go first (see [`crate::balance::Queue`]).

use std::time::Duration;

use pingora_core::Result;
use pingora_proxy::Session;
use tokio::time::{Instant, timeout, timeout_at};

use super::while_present;
use crate::balance::Guard;
use crate::health::Ticket;
use crate::proxy::affinity;
use crate::proxy::exchange::Exchange;
use crate::proxy::peer::{self, Found};

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

/// How often the head of the line looks without having been told: a target may also come back by itself.
const LOOK: Duration = Duration::from_millis(100);

/// Waits for a place, within the bounds of the service's queue. `None`: there was none in time, or nobody is to be
/// trusted any more.
pub(in crate::proxy) async fn wait(
    session: &mut Session,
    x: &mut Exchange,
) -> Result<Option<(usize, Guard, Ticket)>> {
    let Some(offer) = x.offer.clone() else {
        return Ok(None);
    };
    let targets = &offer.service.upstream.targets;
    let (Some(settings), Some(target)) = (&offer.service.queue, targets.first()) else {
        return Ok(None);
    };
    let state = &offer.service.state;
    let size = (settings.size as usize).saturating_sub(state.queue.depth());
    let Some(mut place) = state.room.enter_as(size, x.claim()) else {
        return Ok(None);
    };
    let began = Instant::now();
    let deadline = x.latest(began + settings.max_wait);
    let key = affinity::key(session.req_header(), x);
    let mut waiting = target.state.freed().waiting();
    let look = async {
        loop {
            // The turn is given on once a place is held, or another is to go first.
            let _turn = place.turn(1).await;
            // The head of the line waits like the others.
            place.again();
            while !place.is_outranked() {
                match peer::try_find(x, key, Instant::now()) {
                    Found::Target(index, guard, ticket) => {
                        place.served();
                        return Some((index, guard, ticket));
                    }
                    Found::Nobody => return None,
                    Found::Full => {
                        let _ = timeout(LOOK, waiting.freed()).await;
                    }
                }
            }
        }
    };
    let found = while_present(session, Box::pin(timeout_at(deadline, look))).await?;
    offer.metrics.waited(began.elapsed());
    Ok(found.ok().flatten())
}
