//! What is known of a target apart from its configuration: its load, its limit, its pace, its addresses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::cache_aware::{Charge, Computed};
use super::smoothed::Smoothed;
use super::{Freed, Signals};

/// A target's live state. It is kept by identity (upstream and URL), so that it survives every change of
/// configuration.
#[derive(Debug, Default)]
pub struct TargetState {
    in_flight: AtomicUsize,
    // 0: none.
    limit: AtomicUsize,
    first_byte: Smoothed,
    addresses: ArcSwap<Vec<SocketAddr>>,
    turn: AtomicUsize,
    freed: Arc<Freed>,
    signals: Signals,
}

impl TargetState {
    /// An idle target that tells `freed` when it gives a place back.
    pub fn new(freed: Arc<Freed>) -> TargetState {
        TargetState {
            freed,
            ..TargetState::default()
        }
    }

    /// Requests at the target now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Sets the most requests it takes at a time; 0: any number. What is there already stays.
    pub fn set_limit(&self, limit: usize) {
        let before = self.limit.swap(limit, Ordering::SeqCst);
        if before != 0 && (limit == 0 || limit > before) {
            self.freed.tell();
        }
    }

    /// The most requests it takes at a time; 0: any number.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether it takes no more.
    pub fn at_limit(&self) -> bool {
        let limit = self.limit();
        limit != 0 && self.in_flight() >= limit
    }

    /// Counts one more request unless the target is at its limit: one atomic step.
    pub fn try_hold(self: &Arc<Self>) -> Option<Guard> {
        match self.limit() {
            0 => {
                self.in_flight.fetch_add(1, Ordering::SeqCst);
                Some(Guard::of(self))
            }
            limit => self.hold_below(limit),
        }
    }

    /// Counts one more request if there are fewer than `bound`, and fewer than the limit.
    pub(super) fn try_hold_below(self: &Arc<Self>, bound: usize) -> Option<Guard> {
        match self.limit() {
            0 => self.hold_below(bound),
            limit => self.hold_below(bound.min(limit)),
        }
    }

    fn hold_below(self: &Arc<Self>, most: usize) -> Option<Guard> {
        self.in_flight
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                (n < most).then_some(n + 1)
            })
            .ok()?;
        Some(Guard::of(self))
    }

    /// Who is told when a place is given back.
    pub fn freed(&self) -> &Arc<Freed> {
        &self.freed
    }

    /// What its engine says of itself.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Learns how long an answer's first byte took.
    pub fn first_byte(&self, took: Duration, now: Instant) {
        self.first_byte.add(took, now);
    }

    /// How long answers' first bytes take, over the last ten seconds or so. `None`: not known yet.
    pub fn smoothed_first_byte(&self) -> Option<Duration> {
        self.first_byte.value(Instant::now())
    }

    /// Where the target's host name led last; replaced in the background, never empty again once filled.
    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        if !addresses.is_empty() {
            self.addresses.store(Arc::new(addresses));
        }
    }

    /// Whether an address is known.
    pub fn resolved(&self) -> bool {
        !self.addresses.load().is_empty()
    }

    /// The address to connect to, taking turns among several. `None`: the name was never resolved.
    pub fn address(&self) -> Option<SocketAddr> {
        let addresses = self.addresses.load();
        match addresses.len() {
            0 => None,
            1 => addresses.first().copied(),
            n => addresses
                .get(self.turn.fetch_add(1, Ordering::Relaxed) % n)
                .copied(),
        }
    }
}

/// One request's hold on a target: counted while it lives.
#[derive(Debug)]
pub struct Guard {
    state: Arc<TargetState>,
    charge: Option<Box<Charge>>,
}

impl Guard {
    fn of(state: &Arc<TargetState>) -> Guard {
        Guard {
            state: state.clone(),
            charge: None,
        }
    }

    /// With the work that the request brings.
    pub(super) fn charged(mut self, charge: Option<Charge>) -> Guard {
        self.charge = charge.map(Box::new);
        self
    }

    /// The answer's first byte came: the prompt is computed.
    pub fn first_byte(&mut self) {
        if let Some(charge) = &mut self.charge {
            charge.first_byte();
            self.state.freed.tell();
        }
    }

    /// Learns what the answer told of its prompt.
    pub fn learn(&self, computed: Computed) {
        if let Some(charge) = &self.charge {
            charge.learn(computed);
        }
    }

    /// The target held.
    pub fn state(&self) -> &Arc<TargetState> {
        &self.state
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Before anybody is told that there is room.
        self.charge = None;
        self.state.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.state.freed.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_never_exceeded_by_eight_threads() {
        // One place is what two threads that run at the same time fight for most.
        for limit in [1, 5] {
            let state = Arc::new(TargetState::default());
            state.set_limit(limit);
            let most = AtomicUsize::new(0);
            let start = std::sync::Barrier::new(8);
            std::thread::scope(|threads| {
                for _ in 0..8 {
                    threads.spawn(|| {
                        start.wait();
                        for _ in 0..200_000 {
                            if let Some(guard) = state.try_hold() {
                                most.fetch_max(state.in_flight(), Ordering::SeqCst);
                                drop(guard);
                            }
                        }
                    });
                }
            });
            assert!((1..=limit).contains(&most.into_inner()));
            assert_eq!(state.in_flight(), 0);
        }
    }

    #[test]
    fn a_limit_can_be_lifted_and_lowered_under_load() {
        let state = Arc::new(TargetState::default());
        let held: Vec<_> = (0..3).filter_map(|_| state.try_hold()).collect();
        state.set_limit(2);
        assert!(state.at_limit() && state.try_hold().is_none());
        drop(held);
        assert!(!state.at_limit() && state.try_hold().is_some());
        assert_eq!(state.in_flight(), 0);
    }
}
