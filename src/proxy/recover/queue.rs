//! The 429 queue: a service that said "later" is asked again, in order, within bounds.

use std::pin::pin;
use std::time::Duration;

use pingora_core::Result;
use pingora_proxy::Session;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Road, Service, while_present};
use crate::model::Queue;
use crate::proxy::exchange::Exchange;

impl Exchange {
    /// Whether its service has a queue.
    pub(super) fn has_queue(&self) -> bool {
        let offer = self.offer.as_ref();
        offer.is_some_and(|offer| offer.service.queue.is_some())
    }
}

impl Road {
    /// Waits and asks again until the service answers otherwise, or until waits or patience are spent.
    pub(super) async fn queue(&self, session: &mut Session, x: &mut Exchange) -> Result<Service> {
        let Some(offer) = x.offer.clone() else {
            return Ok(Service::Failed);
        };
        let Some(settings) = &offer.service.queue else {
            return Ok(Service::Failed);
        };
        let state = &offer.service.state;
        let size = (settings.size as usize).saturating_sub(state.room.depth());
        let Some(mut place) = state.queue.enter(size) else {
            return Ok(Service::Failed);
        };
        let began = Instant::now();
        let deadline = x.latest(began + settings.max_wait);
        let mut round = 0;
        while settings.max_retries.allows(round) {
            let due = Instant::now() + delay(settings, round, x.retry_after);
            if due > deadline {
                break;
            }
            place.again();
            while_present(session, pin!(sleep_until(due))).await?;
            let turn = pin!(timeout_at(deadline, place.turn(settings.workers as usize)));
            let Ok(turn) = while_present(session, turn).await? else {
                break;
            };
            offer.metrics.retried("429");
            round += 1;
            x.turn = Some(turn);
            x.tried.clear();
            x.retries = 0;
            let came = self.service(session, x).await;
            x.turn = None;
            match came? {
                Service::TooMany => {}
                other => return Ok(other),
            }
        }
        offer.metrics.waited(began.elapsed());
        Ok(Service::Failed)
    }
}

/// What the upstream said, else a wait that doubles, between half and the whole of it, so that those
/// who were refused together do not come back together.
fn delay(settings: &Queue, round: u32, said: Option<Duration>) -> Duration {
    if let Some(said) = said {
        return said;
    }
    let whole = settings
        .initial_delay
        .saturating_mul(1 << round.min(20))
        .min(settings.max_delay);
    whole.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}
