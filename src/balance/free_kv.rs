//! The target with the most room for another request's tokens.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Ask, Guard, Policy, Target, settle, weights};

/// What an engine said longer ago is not gone by.
const FRESH: Duration = Duration::from_secs(5);
/// One that is full still serves when nothing else does.
const LEAST_ROOM: f64 = 0.02;

/// For decoding: requests in flight for each unit of weight and of free KV cache, the lowest first. An engine that does not say how
/// full it is counts as half full, so that it is neither preferred nor shunned; where none says so, this is the fewest connections. Equals
/// take turns.
#[derive(Debug, Default)]
pub struct FreeKv {
    next: AtomicUsize,
}

impl Policy for FreeKv {
    fn pick(&self, targets: &[Target], ask: &Ask<'_>) -> Option<(usize, Guard)> {
        let mut weights = weights(targets, ask);
        let now = Instant::now();
        let load = |i: usize, weight: f64| {
            let state = targets.get(i).map(|target| &target.state);
            let told = state.and_then(|state| state.signals().told(now, FRESH));
            let usage = told.and_then(|told| told.kv_usage).unwrap_or(0.5);
            let in_flight = state.map_or(0, |state| state.in_flight());
            (in_flight + 1) as f64 / (weight * (1.0 - usage).max(LEAST_ROOM))
        };
        let next = self.next.load(Ordering::Relaxed);
        let turn = |i: usize| (i + targets.len()).wrapping_sub(next) % targets.len().max(1);
        let picked = settle(targets, &mut weights, |weights| {
            let usable = weights.iter().enumerate().filter(|(_, w)| **w > 0.0);
            let loads = usable.map(|(i, w)| (i, load(i, *w), turn(i)));
            let least = loads.min_by(|a, b| a.1.total_cmp(&b.1).then(a.2.cmp(&b.2)));
            least.map(|(i, ..)| i)
        })?;
        let next = (picked.0 + 1) % targets.len().max(1);
        self.next.store(next, Ordering::Relaxed);
        Some(picked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Told;
    use crate::balance::tests::{any, targets};

    fn full(target: &Target, usage: f64, at: Instant) {
        let told = Told {
            kv_usage: Some(usage),
            ..Told::default()
        };
        target.state.signals().tell(told, at);
    }

    #[test]
    fn room_counts_and_requests_that_are_there_already() {
        let (targets, policy) = (targets(&[1, 1]), FreeKv::default());
        let now = Instant::now();
        full(&targets[0], 0.9, now);
        full(&targets[1], 0.2, now);
        let mut held = Vec::new();
        for _ in 0..7 {
            let (chosen, guard) = policy.pick(&targets, &any()).unwrap();
            assert_eq!(chosen, 1);
            held.push(guard);
        }
        // Eight times the room, and by now more than that many times the requests.
        held.extend((0..2).filter_map(|_| targets[1].state.try_hold()));
        assert_eq!(policy.pick(&targets, &any()).unwrap().0, 0);
    }

    #[test]
    fn what_was_said_long_ago_is_nothing() {
        let (targets, policy) = (targets(&[1, 1]), FreeKv::default());
        full(&targets[0], 1.0, Instant::now() - Duration::from_secs(60));
        let (first, _one) = policy.pick(&targets, &any()).unwrap();
        let (second, _two) = policy.pick(&targets, &any()).unwrap();
        assert_ne!(first, second);
    }
}
