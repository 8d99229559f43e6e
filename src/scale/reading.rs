//! What is read once a second of a service that is scaled, or of one role of its upstream: counters and gauges that requests leave behind.
//!
//! A role belongs to its upstream, not to a service: whichever service scales it, what all services of the upstream ask counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::Role;
use crate::snapshot::{Offer, Service};

/// What an engine said longer ago is not gone by.
const FRESH: Duration = Duration::from_secs(5);

/// What has been counted of a service, requests since it is scaled, and what its gauges say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Requests that came; of prefill without those that were served whole.
    pub came: u64,
    /// Requests that no target could take.
    pub refused: u64,
    /// Tokens, read and written; of prefill those read, of decode those written.
    pub tokens: u64,
    /// Seconds until first tokens, all together, and how many there were.
    pub first_token: (f64, u64),
    /// Seconds between tokens, and how many there were.
    pub inter_token: (f64, u64),
    /// Requests being served or waiting; where one role is scaled, those that targets of it have.
    pub in_flight: u64,
    /// Those of them that wait; where one role is scaled, also in its engines, as far as these tell.
    pub waiting: u64,
}

/// A service in all gateways that offer it.
pub(super) struct Offered {
    pub(super) service: Arc<Service>,
    pub(super) offers: Vec<Arc<Offer>>,
}

impl Reading {
    /// Of a service that is scaled. `all` are those whose requests count: itself, and where one role is scaled every service of the upstream.
    pub(super) fn of(scaled: &Service, all: &[Offered], now: Instant) -> Reading {
        let role = scaled.scaling().map_or(Role::Both, |scaling| scaling.role);
        let mut reading = Reading::default();
        for one in all {
            reading.add(one, role);
        }
        if role != Role::Both {
            let states = || scaled.replicas().map(|target| &target.state);
            let held = states().map(|state| state.in_flight() as u64);
            // What waits in an engine is in flight there already.
            reading.in_flight = reading.waiting + held.sum::<u64>();
            let told = states().filter_map(|state| state.signals().told(now, FRESH)?.waiting);
            reading.waiting += told.sum::<f64>() as u64;
        }
        reading
    }

    /// Adds what one service counted.
    fn add(&mut self, one: &Offered, role: Role) {
        let state = &one.service.state;
        let asked = state.demand.asked();
        let undecoded = asked.undecoded.min(asked.refused);
        for offer in &one.offers {
            let handles = offer.metrics.handles();
            self.tokens += match role {
                Role::Both => handles.input.get() + handles.output.get(),
                // Whoever decodes may call cached what was computed for it, so all that is read counts.
                Role::Prefill => handles.input.get(),
                Role::Decode => handles.output.get(),
            };
            let told = |histogram: &prometheus::Histogram| {
                (histogram.get_sample_sum(), histogram.get_sample_count())
            };
            let (first, between) = (told(&handles.first_token), told(&handles.inter_token));
            self.first_token.0 += first.0;
            self.first_token.1 += first.1;
            self.inter_token.0 += between.0;
            self.inter_token.1 += between.1;
            if role == Role::Both {
                // The same gauge for every gateway.
                self.in_flight = u64::try_from(handles.in_flight.get()).unwrap_or(0);
            }
        }
        let (came, refused, waiting) = match role {
            Role::Both => (asked.came, asked.refused, state.waiting() as u64),
            // Whoever waits is to be prefilled first.
            Role::Prefill => (
                asked.came.saturating_sub(asked.whole),
                asked.refused - undecoded,
                state.waiting() as u64,
            ),
            Role::Decode => (asked.came, undecoded, 0),
        };
        self.came += came;
        self.refused += refused;
        self.waiting += waiting;
    }
}
