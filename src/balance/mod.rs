//! How an upstream picks one of its targets.
//!
//! One file per policy, all over the same [`Target`] view. A pick chooses and counts in one step and returns a
//! [`Guard`]: what it counted is given back when the guard is dropped, whatever ended the request. No policy takes a
//! target that is at its limit, and none knows why a target is not usable: that is the asker's to say ([`Ask`]).

mod budget;
mod cache_aware;
mod consistent_hash;
mod demand;
mod free_kv;
mod freed;
mod kv;
mod least_connections;
mod power_of_two;
mod prefix_hash;
mod prompts;
mod queue;
mod random;
mod round_robin;
mod served;
mod sglang_cache_aware;
mod signals;
mod smoothed;
mod state;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::Arc;

use smallvec::SmallVec;

pub use budget::RetryBudget;
pub use cache_aware::{
    CacheAware, Caches, Computed, Explained, Foretold, Place as CachePlace, Prompted, Terms,
};
pub use consistent_hash::{ConsistentHash, stable_hash};
pub use demand::{Asked, Demand};
pub use free_kv::FreeKv;
pub use freed::{Freed, Waiting};
pub use kv::{
    Block as KvBlock, Event as KvEvent, Kv, KvStatus, Sequence, Source as KvSource, Step,
};
pub use least_connections::LeastConnections;
pub use power_of_two::PowerOfTwo;
pub use prefix_hash::PrefixHash;
pub use prompts::Prompts;
pub use queue::{Claim, Place, Queue, Turn};
pub use random::Random;
pub use round_robin::RoundRobin;
pub use served::{Edition, Listed, Names, Served};
pub use sglang_cache_aware::{SglangCacheAware, Tree};
pub use signals::{Signals, Told};
pub use state::{Guard, TargetState};

/// A target as a policy sees it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its share relative to the others, at least 1.
    pub weight: u32,
    /// What hashing policies know it by: the [`stable_hash`] of its URL, so that every process agrees.
    pub id: u64,
    /// Its live state.
    pub state: Arc<TargetState>,
}

/// What one request asks of a policy.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// Whether the target at an index may be chosen. Prompted once per target and pick.
    pub usable: &'a dyn Fn(usize) -> Usable,
    /// The hash of what ties this request to others, for policies with affinity.
    pub key: Option<u64>,
    /// Its prompt, for policies that read it.
    pub prompt: Option<Prompted<'a>>,
    /// Whether it can wait for a target with less to do.
    pub patient: bool,
}

/// Whether a target may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Usable {
    /// Not by this request, or not now.
    No,
    /// With this share of its weight, from 0.0 to 1.0: less than 1 while it starts slowly. However small, it still
    /// serves when nothing else does.
    Yes(f32),
}

/// A way to choose among targets.
pub trait Policy: Send + Sync + Debug {
    /// The index of the chosen target and its guard. `None` when none is usable, or all that are stand at their limit;
    /// [`Policy::all_full`] tells these apart.
    fn pick(&self, targets: &[Target], ask: &Ask<'_>) -> Option<(usize, Guard)>;

    /// In blocks of how many bytes it reads prompts, if it does.
    fn reads_prompts(&self) -> Option<usize> {
        None
    }

    /// Whether there are usable targets, and all of them have too much to do for this request: waiting would help.
    fn all_full(&self, targets: &[Target], ask: &Ask<'_>) -> bool {
        all_full(targets, ask, |_, _| false)
    }

    /// Seconds of work that the request brings, if that is known.
    fn work(&self, _ask: &Ask<'_>) -> Option<f64> {
        None
    }

    /// This policy, if it is the one that can explain itself.
    fn cache_aware(&self) -> Option<&CacheAware> {
        None
    }
}

/// Whether there are usable targets and every one of them is at its limit, or full: waiting would help.
fn all_full(targets: &[Target], ask: &Ask<'_>, is_full: impl Fn(usize, &Target) -> bool) -> bool {
    let mut usable = targets
        .iter()
        .enumerate()
        .filter(|(i, _)| matches!((ask.usable)(*i), Usable::Yes(_)))
        .peekable();
    usable.peek().is_some()
        && usable.all(|(i, target)| target.state.at_limit() || is_full(i, target))
}

/// The smallest share of its weight that a usable target can have.
const LEAST_SHARE: f32 = 0.001;

/// A number for each target; few upstreams have more than this many.
type Weights = SmallVec<[f64; 8]>;

/// The weight each target has for this pick; 0 for those that may not be chosen.
fn weights(targets: &[Target], ask: &Ask<'_>) -> Weights {
    let weigh = |(i, target): (usize, &Target)| match (ask.usable)(i) {
        Usable::Yes(share) if !target.state.at_limit() => {
            f64::from(target.weight.max(1)) * f64::from(share.clamp(LEAST_SHARE, 1.0))
        }
        _ => 0.0,
    };
    targets.iter().enumerate().map(weigh).collect()
}

/// Holds the target that `choose` finds. If another request took its last place first, it is struck out
/// and the choice repeated.
fn settle(
    targets: &[Target],
    weights: &mut [f64],
    mut choose: impl FnMut(&[f64]) -> Option<usize>,
) -> Option<(usize, Guard)> {
    loop {
        let chosen = choose(weights)?;
        if let Some(guard) = targets.get(chosen).and_then(|t| t.state.try_hold()) {
            return Some((chosen, guard));
        }
        *weights.get_mut(chosen)? = 0.0;
    }
}

/// The index of one of `weights` at random, each as likely as it is heavy. `point` is uniform in [0, 1).
fn draw(weights: &[f64], point: f64) -> Option<usize> {
    let total: f64 = weights.iter().sum();
    let mut left = point * total;
    let mut last = None;
    for (i, weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        if left < *weight {
            return Some(i);
        }
        left -= weight;
        // What rounding leaves over is the last one's.
        last = Some(i);
    }
    last
}
