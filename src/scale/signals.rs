//! What is measured of one service over a window: once a second the counters and gauges that its requests leave behind are read, and remembered in
//! slots of a second each. Requests know nothing of it.

use std::collections::VecDeque;
use std::time::Duration;

use super::decide::Measured;
pub use super::reading::Reading;
use crate::model::{Role, Scaling, ScalingMetric};

/// One service's readings within its window, oldest first.
#[derive(Debug, Default)]
pub struct Signals {
    readings: VecDeque<(Duration, Reading)>,
}

impl Signals {
    /// Remembers what was read at `now`, and forgets what is older than the scaling's window.
    pub fn add(&mut self, reading: Reading, now: Duration, scaling: &Scaling) {
        if self.readings.is_empty() {
            let before = match scaling.role {
                // Requests are counted from zero: those that came before the first look are asked for, too.
                Role::Both => Reading {
                    came: 0,
                    refused: 0,
                    ..reading
                },
                // What other services of the upstream counted may be as old as they are.
                Role::Prefill | Role::Decode => reading,
            };
            self.readings.push_back((now, before));
        }
        self.readings.push_back((now, reading));
        // The oldest one is what the window began with.
        while self
            .readings
            .get(1)
            .is_some_and(|(at, _)| *at + scaling.window <= now)
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
