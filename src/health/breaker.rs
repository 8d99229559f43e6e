//! One target's circuit breaker: a state machine of plain values, told what time it is.
//!
//! Closed, it counts failures over a sliding window and opens at the configured number. Open, it admits nobody until
//! its time is over. Half-open, it admits one request at a time: one success closes it, one failure opens it again.
//! (Nygard, "Release It!", 2007; the sliding window as in Resilience4j's count per time.)
//!
//! An epoch counts its turns. A pass from an earlier epoch proves nothing about this one: an answer that timed out
//! after two minutes must not open the breaker of a target that recovered meanwhile.

use std::collections::VecDeque;
use std::time::Instant;

use crate::model;

#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// `None`: it never opens.
    settings: Option<model::Breaker>,
    state: State,
    /// When failures happened that still count, oldest first, and whether they were ones of not reaching the target.
    /// Never more than it takes to open.
    failures: VecDeque<(Instant, bool)>,
    /// Whether not reaching the target is all that opened it.
    unreachable: bool,
    epoch: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum State {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen {
        busy: bool,
    },
}

/// Leave to try the target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    pub(super) epoch: u64,
    /// Whether it is the one request a half-open breaker admits.
    pub(super) trial: bool,
}

impl Breaker {
    pub(super) fn configure(&mut self, settings: Option<&model::Breaker>) {
        if settings.is_none() && self.state != State::Closed {
            self.close();
        }
        self.settings = settings.cloned();
    }

    pub(super) fn state(&mut self, now: Instant) -> State {
        if matches!(self.state, State::Open { until } if until <= now) {
            self.state = State::HalfOpen { busy: false };
        }
        self.state
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn enter(&mut self, now: Instant) -> Option<Pass> {
        let trial = match self.state(now) {
            State::Closed => false,
            State::HalfOpen { busy: false } => {
                self.state = State::HalfOpen { busy: true };
                true
            }
            State::HalfOpen { busy: true } | State::Open { .. } => return None,
        };
        Some(Pass {
            epoch: self.epoch,
            trial,
        })
    }

    /// Admits when nothing better is left.
    pub(super) fn enter_anyway(&mut self, now: Instant) -> Pass {
        self.enter(now).unwrap_or(Pass {
            epoch: self.epoch,
            trial: false,
        })
    }

    /// Whether this closed it.
    pub(super) fn succeeded(&mut self, pass: Pass) -> bool {
        let closes = pass.epoch == self.epoch && self.state != State::Closed;
        if closes {
            self.close();
        }
        closes
    }

    /// Whether this opened it.
    pub(super) fn failed(&mut self, pass: Pass, unreachable: bool, now: Instant) -> bool {
        if pass.epoch != self.epoch {
            return false;
        }
        let state = self.state(now);
        let Some(settings) = &self.settings else {
            return false;
        };
        match state {
            State::Closed => {
                let (window, most) = (settings.window, settings.failures as usize);
                let counts = |at: Instant| now.saturating_duration_since(at) <= window;
                while self.failures.front().is_some_and(|(at, _)| !counts(*at)) {
                    self.failures.pop_front();
                }
                self.failures.push_back((now, unreachable));
                let opens = self.failures.len() >= most;
                if opens {
                    let all = self.failures.iter().all(|(_, unreachable)| *unreachable);
                    self.open(all, now);
                }
                opens
            }
            State::HalfOpen { .. } if pass.trial => {
                self.open(unreachable, now);
                true
            }
            State::HalfOpen { .. } | State::Open { .. } => false,
        }
    }

    /// A pass ended without a verdict.
    pub(super) fn left(&mut self, pass: Pass) {
        let place = State::HalfOpen { busy: true };
        if pass.trial && pass.epoch == self.epoch && self.state == place {
            self.state = State::HalfOpen { busy: false };
        }
    }

    /// The target answered a probe. If not reaching it was all that was wrong, or it had not answered before
    /// (`recovered`), it may be tried at once.
    pub(super) fn reached(&mut self, recovered: bool, now: Instant) {
        let doubtful = self.unreachable || recovered;
        if doubtful && matches!(self.state(now), State::Open { .. }) {
            self.state = State::HalfOpen { busy: false };
        }
    }

    fn open(&mut self, unreachable: bool, now: Instant) {
        if let Some(settings) = &self.settings {
            self.state = State::Open {
                until: now + settings.open,
            };
            self.unreachable = unreachable;
            self.failures.clear();
            self.epoch += 1;
        }
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.failures.clear();
        self.epoch += 1;
    }
}
