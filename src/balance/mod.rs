//! How an upstream picks one of its targets.
//!
//! One file per policy, all over the same [`Target`] view. A pick returns a [`Guard`] that holds the load
//! accounting: what it counted is given back when it is dropped, whatever ended the request.

mod least_connections;
mod round_robin;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

pub use least_connections::LeastConnections;
pub use round_robin::RoundRobin;

/// What is known of a target apart from its configuration. It is kept by identity (upstream and URL), so that it
/// survives every change of configuration.
#[derive(Debug, Default)]
pub struct TargetState {
    in_flight: AtomicUsize,
    addresses: ArcSwap<Vec<SocketAddr>>,
    turn: AtomicUsize,
}

impl TargetState {
    /// Requests at the target now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
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

/// A target as a policy sees it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its share relative to the others, at least 1.
    pub weight: u32,
    /// Its live state.
    pub state: Arc<TargetState>,
}

/// One request's hold on a target: counted while it lives.
#[derive(Debug)]
pub struct Guard {
    state: Arc<TargetState>,
}

impl Guard {
    fn hold(state: &Arc<TargetState>) -> Guard {
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Guard {
            state: state.clone(),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.state.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A way to choose among targets.
pub trait Policy: Send + Sync + std::fmt::Debug {
    /// The index of the chosen target and its guard. `usable` says which may be chosen; `None` when none may.
    fn pick(&self, targets: &[Target], usable: &dyn Fn(usize) -> bool) -> Option<(usize, Guard)>;
}
