//! How an upstream splits requests, compiled, and what is known of the engines that prefill.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::Target;
use crate::balance::{FreeKv, Policy};
use crate::model::{self, Role};

/// How an upstream splits requests.
#[derive(Debug)]
pub struct Disaggregation {
    /// As configured.
    pub settings: model::Disaggregation,
    /// How a target that decodes is picked; those that prefill are picked by the upstream's own policy.
    pub decode: Box<dyn Policy>,
}

impl Disaggregation {
    /// Compiles the settings.
    pub(super) fn of(settings: &model::Disaggregation) -> Disaggregation {
        Disaggregation {
            settings: settings.clone(),
            decode: Box::new(FreeKv::default()),
        }
    }

    /// Whether targets of which some `stand` can serve a request, split or whole.
    pub fn can_serve(&self, targets: &[Target], stands: impl Fn(&Target) -> bool) -> bool {
        let of =
            |role: Role| { targets.iter() }.any(|target| target.role == role && stands(target));
        let decode = of(Role::Decode);
        of(Role::Both) || (decode && (self.settings.protocol.decodes_whole() || of(Role::Prefill)))
    }
}

/// The engines behind a target that prefills, by data-parallel rank: what its bootstrap server last said.
#[derive(Debug, Default)]
pub struct Ranks {
    known: ArcSwapOption<(Instant, Vec<(u32, String)>)>,
    turn: AtomicUsize,
}

/// An engine that was started anew has another id, and is asked for it again after this time at the latest.
const FRESH: Duration = Duration::from_secs(10);

impl Ranks {
    /// The next rank in turn and the id of its engine. `None`: who knows must be asked.
    pub fn next(&self, now: Instant) -> Option<(u32, String)> {
        let known = self.known.load_full()?;
        let (at, engines) = &*known;
        if engines.is_empty() || now.saturating_duration_since(*at) > FRESH {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % engines.len();
        engines.get(turn).cloned()
    }

    /// Learns the ids of engines by rank.
    pub fn learn(&self, engines: Vec<(u32, String)>, now: Instant) {
        self.known.store(Some((now, engines).into()));
    }

    /// What is known may not be so any more.
    pub fn forget(&self) {
        self.known.store(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_take_turns_until_they_are_old_or_forgotten() {
        let ranks = Ranks::default();
        let now = Instant::now();
        assert_eq!(ranks.next(now), None);
        ranks.learn(vec![(0, "a".into()), (1, "b".into())], now);
        let took: Vec<u32> = (0..3)
            .filter_map(|_| ranks.next(now))
            .map(|(rank, _)| rank)
            .collect();
        assert_eq!(took, [0, 1, 0]);
        assert_eq!(ranks.next(now + FRESH * 2), None);
        ranks.forget();
        assert_eq!(ranks.next(now), None);
    }
}
