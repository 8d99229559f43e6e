//! Copies of requests: to services that a plugin names, whose answers nobody waits for.
//!
//! A copy is an exchange of its own on our own road, without a client: one attempt at one target, picked, held and judged like any other. It
//! delays nothing, and when too many are under way it is left out, which is counted.

use std::sync::Arc;
use std::time::Duration;

use pingora_http::RequestHeader;
use pingora_proxy::Session;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::account::Account;
use super::disaggregate::{self, Part};
use super::exchange::{Attempt, Body, Exchange};
use super::peer::{self, Found};
use super::recover::Road;
use super::{failure, verdict};
use crate::health::Failure;
use crate::snapshot::Offer;
use crate::telemetry::Metrics;

/// How many copies may be under way at once.
const MOST: usize = 256;
/// No copy is waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sends copies.
pub(super) struct Copies {
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Copies {
    pub(super) fn new(metrics: Arc<Metrics>) -> Copies {
        Copies {
            places: Arc::new(Semaphore::new(MOST)),
            metrics,
        }
    }

    /// Sends a copy of the exchange's request to each service it is to be copied to.
    pub(super) fn send(&self, session: &Session, x: &mut Exchange, road: &Arc<Road>, tls: bool) {
        for name in std::mem::take(&mut x.edits.copies) {
            let gateway = x.gateway.as_ref();
            let Some(offer) = gateway.and_then(|gateway| gateway.router.offer_named(&name)) else {
                self.metrics.copy_without_service();
                continue;
            };
            // A body that passes unread exists once.
            if !x.body.is_whole() && !x.replayable {
                offer.metrics.copied("skipped");
                continue;
            }
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                offer.metrics.copied("dropped");
                continue;
            };
            let offer = offer.clone();
            let copy = copy_of(x, offer.clone());
            let (head, road) = (session.req_header().clone(), road.clone());
            tokio::spawn(async move {
                let carried = timeout(PATIENCE, carry(copy, head, &road, tls, place)).await;
                offer.metrics.copied(carried.unwrap_or("timeout"));
            });
        }
    }
}

/// The exchange of the copy. It is in nobody's books.
fn copy_of(x: &Exchange, offer: Arc<Offer>) -> Exchange {
    let mut copy = Exchange::new(x.account.clone());
    copy.bounds.clone_from(&x.bounds);
    copy.gateway.clone_from(&x.gateway);
    copy.request_id = x.request_id.clone();
    (copy.peer, copy.client) = (x.peer, x.client);
    copy.trusted_peer = x.trusted_peer;
    copy.grpc = x.grpc;
    copy.key.clone_from(&x.key);
    copy.consumed = x.consumed;
    copy.body = match &x.body {
        Body::Unread => Body::Unread,
        Body::Short { original, .. } => Body::Short {
            original: original.clone(),
            outgoing: original.clone(),
        },
        Body::Long { pieces, bytes, .. } => Body::Long {
            pieces: pieces.clone(),
            bytes: *bytes,
            edits: Default::default(),
        },
    };
    copy.peek.clone_from(&x.peek);
    copy.target_path.clone_from(&x.target_path);
    copy.reports_usage = x.reports_usage;
    copy.timeouts = offer.service.timeouts.clone();
    copy.edits
        .request_headers
        .clone_from(&x.edits.request_headers);
    copy.offer = Some(offer);
    copy.splice_body();
    Account::leave_out(&mut copy);
    copy
}

/// Asks and reads the answer to its end. Returns the metric's word for how it went.
async fn carry(
    mut x: Exchange,
    head: RequestHeader,
    road: &Road,
    tls: bool,
    _place: OwnedSemaphorePermit,
) -> &'static str {
    // Nobody waits for a copy's tokens: one target serves it, or none.
    if disaggregate::part(&x) == Some(Part::Prefill) && !x.serve_whole("copy") {
        return "unavailable";
    }
    let Found::Target(index, guard, ticket) = peer::try_find(&x, None, Instant::now()) else {
        return "unavailable";
    };
    x.attempt = Some(Attempt {
        target: index,
        guard,
        ticket,
        asked: Instant::now(),
    });
    let asked = match peer::of_attempt(&x) {
        Ok(peer) => road.ask_alone(&x, &head, &peer, tls).await,
        Err(_) => return "unavailable",
    };
    let failure = match asked {
        Ok(failure) => failure,
        Err(error) => Some(failure::kind(&x, &error)),
    };
    match failure {
        None => {
            verdict::praise(&mut x, Instant::now());
            "answered"
        }
        Some(failure) => {
            if failure != Failure::Status(429) {
                verdict::blame(&mut x, failure);
            }
            match failure {
                Failure::Timeout => "timeout",
                _ => "failed",
            }
        }
    }
}
