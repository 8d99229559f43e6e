//! The way of a prompt: in line for its turn and a running slot, then computed.
//!
//! Prompts are computed one after the other, and what the cache holds is looked up when a prompt's turn comes, so
//! that whoever waits behind the same prefix finds it. A turn begins when the one before it *should* have ended: a timer
//! that fires late delays its own answer and nobody else's, and a model that is compressed stays true.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::{MutexGuard, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep_until};

use super::exchange::Exchange;
use super::pace;
use super::peer::{End, Peer};
use super::shared::{Lease, Shared};
use super::text::Rng;

/// The turn to compute a prompt. It holds when the one before it should have ended.
type Turn<'s> = MutexGuard<'s, Option<Instant>>;

/// A place in the running batch.
#[derive(Debug)]
pub(super) struct Place<'s> {
    turn: Option<Turn<'s>>,
    /// From when on nothing but its turn was missing.
    since: Instant,
    /// Given back when dropped.
    _slot: Option<OwnedSemaphorePermit>,
}

impl<'x> Exchange<'x> {
    /// Waits in line, first come, first served: for the turn, if prompts take time, then for a running slot. The
    /// head of the line waits for the slot with the turn in its hands.
    pub(super) async fn take_place(&mut self, peer: &mut Peer<'_>) -> Result<Place<'x>, End> {
        let shared: &'x Shared = &self.worker.shared;
        let mut since = Instant::now();
        let turn = if shared.config.prefill_rate == 0 {
            None
        } else if let Ok(turn) = shared.prefill.try_lock() {
            Some(turn)
        } else {
            self.wait(peer).await?;
            Some(peer.until(shared.prefill.lock()).await?)
        };
        let slot = match &shared.slots {
            None => None,
            Some(slots) => match Arc::clone(slots).try_acquire_owned() {
                Ok(slot) => Some(slot),
                Err(_) => {
                    self.wait(peer).await?;
                    let slot = peer.until(Arc::clone(slots).acquire_owned()).await?;
                    since = Instant::now();
                    Some(slot.map_err(|_| End::Gone)?)
                }
            },
        };
        if let Some(ticket) = &mut self.ticket {
            ticket.run();
        }
        Ok(Place {
            turn,
            since,
            _slot: slot,
        })
    }

    /// Tells that the request waits, and sends what was held back.
    async fn wait(&mut self, peer: &mut Peer<'_>) -> Result<(), End> {
        if let Some(ticket) = &mut self.ticket {
            ticket.wait();
        }
        peer.flush().await
    }

    /// Prefill of a prompt of so many tokens, which ends its turn, and the time to the first token.
    pub(super) async fn compute_prompt(
        &self,
        peer: &mut Peer<'_>,
        place: &mut Place<'_>,
        lease: &mut Lease<'_>,
        prompt: usize,
        rng: &mut Rng,
    ) -> Result<(), End> {
        let (config, counters) = (&self.worker.shared.config, &self.worker.counters);
        if let Some(mut turn) = place.turn.take() {
            let time = pace::prefill(config, prompt.saturating_sub(lease.cached), prompt);
            let end = turn.map_or(place.since, |free| free.max(place.since)) + time;
            peer.flush().await?;
            let stayed = peer.until(sleep_until(end)).await;
            // Whoever leaves has used the time until now.
            *turn = Some(if stayed.is_ok() { end } else { Instant::now() });
            stayed?;
            counters.prefill.observe(time);
            let late = u64::try_from(end.elapsed().as_nanos()).unwrap_or(u64::MAX);
            counters.late.fetch_add(late, Relaxed);
            counters.latest.fetch_max(late, Relaxed);
        }
        lease.computed();
        let ttft = self.faults.ttft.unwrap_or(config.ttft);
        self.pause(peer, self.jittered(ttft, rng)).await
    }
}
