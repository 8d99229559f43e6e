//! Waiting for a target with room, when all that are to be trusted stand at their limit; and for the first one of a service that is scaled and has none.
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
use crate::model::Hold;
use crate::proxy::affinity;
use crate::proxy::exchange::Exchange;
use crate::proxy::peer::{self, Found};
use crate::snapshot::Service;

/// Whether the exchange waits for a target, after a look for one that came to this.
pub(in crate::proxy) fn may_wait(x: &Exchange, found: &Found) -> bool {
    let Some(offer) = x.offer.as_ref().filter(|_| x.replayable) else {
        return false;
    };
    // A fallback that can serve is better than to be held, unless it is said otherwise.
    let held = |hold: &Hold| hold.before_fallback || !x.has_fallback();
    let service = &offer.service;
    match found {
        Found::Target(..) => false,
        Found::Full => service.queue.is_some() || hold(service).is_some_and(held),
        Found::Nobody => is_asleep(x) && hold(service).is_some_and(held),
    }
}

/// Whether the exchange's service is scaled and has no target at all now.
pub(in crate::proxy) fn is_asleep(x: &Exchange) -> bool {
    x.offer.as_ref().is_some_and(|offer| {
        let service = &offer.service;
        service.scaling().is_some() && service.upstream.targets.is_empty()
    })
}

fn hold(service: &Service) -> Option<&Hold> {
    service.scaling()?.hold.on()
}

/// How many may wait at the service, and how long.
fn bounds(service: &Service) -> Option<(usize, Duration)> {
    let hold = hold(service).map(|hold| (hold.size as usize, hold.max_wait));
    let queue = service.queue.as_ref();
    let queue = queue.map(|queue| (queue.size as usize, queue.max_wait));
    match service.upstream.targets.is_empty() {
        true => hold.or(queue),
        false => queue.or(hold),
    }
}

/// Whether others wait for room already.
pub(in crate::proxy) fn is_waited_for(x: &Exchange) -> bool {
    x.offer
        .as_ref()
        .is_some_and(|offer| offer.service.state.room.depth() > 0)
}

/// How often the head of the line looks without having been told: a target may also come back by itself.
const LOOK: Duration = Duration::from_millis(100);

/// Waits for a place, within the bounds of the service. `None`: there was none in time, or nobody is to be
/// trusted any more.
pub(in crate::proxy) async fn wait(
    session: &mut Session,
    x: &mut Exchange,
) -> Result<Option<(usize, Guard, Ticket)>> {
    let Some(offer) = x.offer.clone() else {
        return Ok(None);
    };
    let service = &offer.service;
    let Some((size, max_wait)) = bounds(service) else {
        return Ok(None);
    };
    let state = &service.state;
    let size = size.saturating_sub(state.queue.depth());
    let Some(mut place) = state.room.enter_as(size, x.claim()) else {
        return Ok(None);
    };
    let began = Instant::now();
    let deadline = x.latest(began + max_wait);
    let key = affinity::key(session.req_header(), x);
    let mut waiting = service.upstream.freed.waiting();
    let look = async {
        loop {
            // The turn is given on once a place is held, or another is to go first.
            let _turn = place.turn(1).await;
            // The head of the line waits like the others.
            place.again();
            while !place.is_outranked() {
                x.renew();
                match peer::try_find(x, key, Instant::now()) {
                    Found::Target(index, guard, ticket) => {
                        place.served();
                        return Some((index, guard, ticket));
                    }
                    Found::Nobody if !is_asleep(x) => return None,
                    Found::Nobody | Found::Full => {
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
