//! What is measured of one service over a window: once a second the counters and gauges that its requests leave behind are read, and remembered in
//! slots of a second each. Requests know nothing of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::decide::Measured;
use crate::model::{Role, Scaling, ScalingMetric};
use crate::snapshot::{Offer, Service};

/// What has been counted of a service, requests since it is scaled, and what its gauges say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Requests that came.
    pub came: u64,
    /// Requests that no target could take.
    pub refused: u64,
    /// Tokens, read and written.
    pub tokens: u64,
    /// Seconds until first tokens, all together, and how many there were.
    pub first_token: (f64, u64),
    /// Seconds between tokens, and how many there were.
    pub inter_token: (f64, u64),
    /// Requests being served or waiting; where one role is scaled, those that targets of it have.
    pub in_flight: u64,
    /// Those of them that wait.
    pub waiting: u64,
}

impl Reading {
    /// A service's; `offers` are all of it.
    pub fn of(service: &Service, offers: &[Arc<Offer>]) -> Reading {
        let asked = service.state.demand.asked();
        let mut reading = Reading {
            came: asked.came,
            refused: asked.refused,
            waiting: service.state.waiting() as u64,
            ..Reading::default()
        };
        for offer in offers {
            let handles = offer.metrics.handles();
            reading.tokens += handles.input.get() + handles.output.get();
            let told = |histogram: &prometheus::Histogram| {
                (histogram.get_sample_sum(), histogram.get_sample_count())
            };
            let (first, between) = (told(&handles.first_token), told(&handles.inter_token));
            reading.first_token.0 += first.0;
            reading.first_token.1 += first.1;
            reading.inter_token.0 += between.0;
            reading.inter_token.1 += between.1;
            // The same gauge for every gateway.
            reading.in_flight = u64::try_from(handles.in_flight.get()).unwrap_or(0);
        }
        let role = service.scaling().map_or(Role::Both, |scaling| scaling.role);
        if role != Role::Both {
            // Whoever waits is to be prefilled first.
            let waiting = if role == Role::Prefill {
                reading.waiting
            } else {
                0
            };
            let held = service
                .replicas()
                .map(|target| target.state.in_flight() as u64);
            reading.in_flight = waiting + held.sum::<u64>();
        }
        reading
    }
}

/// One service's readings within its window, oldest first.
#[derive(Debug, Default)]
pub struct Signals {
    readings: VecDeque<(Duration, Reading)>,
}

impl Signals {
    /// Remembers what was read at `now`, and forgets what is older than the window.
    pub fn add(&mut self, reading: Reading, now: Duration, window: Duration) {
        if self.readings.is_empty() {
            // Requests are counted from zero: those that came before the first look are asked for, too.
            let before = Reading {
                came: 0,
                refused: 0,
                ..reading
            };
            self.readings.push_back((now, before));
        }
        self.readings.push_back((now, reading));
        // The oldest one is what the window began with.
        while self
            .readings
            .get(1)
            .is_some_and(|(at, _)| *at + window <= now)
        {
            self.readings.pop_front();
        }
    }

    /// What they come to.
    pub fn measure(&self, scaling: &Scaling, ready: u32) -> Measured {
        let (Some((began, first)), Some((ended, last))) =
            (self.readings.front(), self.readings.back())
        else {
            return Measured::default();
        };
        let seconds = ended.saturating_sub(*began).as_secs_f64().max(1.0);
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        let refused = rate(first.refused, last.refused);
        let value = match scaling.metric {
            // A request that was refused would be one more.
            ScalingMetric::InFlight => Some(self.mean(|r| r.in_flight) + refused),
            ScalingMetric::Queue => Some(self.mean(|r| r.waiting) + refused),
            ScalingMetric::Rps => Some(rate(first.came, last.came)),
            ScalingMetric::Tokens => Some(rate(first.tokens, last.tokens)),
            ScalingMetric::Ttft => between(first.first_token, last.first_token),
            ScalingMetric::Itl => between(first.inter_token, last.inter_token),
        };
        Measured {
            value,
            came: last.came.saturating_sub(first.came),
            in_flight: last.in_flight,
            ready,
        }
    }

    fn mean(&self, of: impl Fn(&Reading) -> u64) -> f64 {
        let sum: u64 = self.readings.iter().map(|(_, reading)| of(reading)).sum();
        sum as f64 / self.readings.len().max(1) as f64
    }
}

/// The mean of what was added between two readings of a sum and a count.
fn between(first: (f64, u64), last: (f64, u64)) -> Option<f64> {
    let count = last.1.saturating_sub(first.1);
    (count > 0).then(|| (last.0 - first.0) / count as f64)
}
