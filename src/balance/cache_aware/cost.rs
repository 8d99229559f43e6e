//! What it would cost to send a request to each of the targets, in seconds.
//!
//! Two things are weighed: the client's wait, which is the work that is before it at the target and its own, and the work that is
//! done again because a target lacks what another has, which all others will wait for. Taking only the first copies what many prompts
//! share to every target and drives out what else they held; taking only the second lets one target drown. So the
//! price of the second rises with how long the queues are.

use smallvec::SmallVec;

use crate::model;

/// What is asked of the targets, and what is known of each.
pub(super) struct Question<'a> {
    pub(super) settings: &'a model::CacheAware,
    /// The prompt, in tokens.
    pub(super) tokens: f64,
    pub(super) targets: &'a [Known],
}

/// What is known of a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Tokens of the prompt it should have cached.
    pub(super) matched: f64,
    /// Seconds of computing that are before it.
    pub(super) pending: f64,
    /// Tokens of a prompt it computes in a second.
    pub(super) rate: f64,
    /// Requests there, for each unit of its weight.
    pub(super) load: f64,
    /// Whether it may be chosen at all.
    pub(super) usable: bool,
}

/// The terms of a target's cost, all in seconds but the first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Tokens of the prompt it should have cached.
    pub matched: f64,
    /// What is before it.
    pub pending: f64,
    /// What the prompt takes there.
    pub own: f64,
    /// The part of that which another would not have to compute.
    pub duplicate: f64,
    /// What the requests there weigh.
    pub load: f64,
    /// All of it.
    pub cost: f64,
}

impl Terms {
    /// How long the first token is expected to take.
    pub fn first_token(&self) -> f64 {
        self.pending + self.own
    }
}

/// A term for each target; few upstreams have more.
pub(super) type AllTerms = SmallVec<[Terms; 8]>;

/// Seconds of computing `uncached` tokens of a prompt of `tokens`: each by itself, and with all that come before it.
pub(super) fn prefill(settings: &model::CacheAware, rate: f64, uncached: f64, tokens: f64) -> f64 {
    let attention = settings.attention.max(0.0) * uncached * (tokens - uncached / 2.0);
    uncached / rate.max(1.0) + attention
}

/// The costs, and the price of a second of work that is done again.
pub(super) fn costs(question: &Question<'_>) -> (AllTerms, f64) {
    let Question {
        settings,
        tokens,
        targets,
    } = question;
    let usable = || targets.iter().filter(|target| target.usable);
    let best = usable().map(|target| target.matched).fold(0.0, f64::max);
    let pending: f64 = usable().map(|target| target.pending).sum();
    let mean = pending / usable().count().max(1) as f64;
    let (least, most) = (settings.duplication, settings.max_duplication);
    let rise = settings.duplication_rise.max(0.0) * mean;
    let price = (least.max(0.0) + rise).min(most.max(least).max(0.0));
    let terms = targets.iter().map(|target| {
        let own = (tokens - target.matched).max(1.0);
        let own = prefill(settings, target.rate, own, tokens.max(1.0));
        let lacking = (best - target.matched).max(0.0);
        let duplicate = prefill(settings, target.rate, lacking, tokens.max(1.0));
        let load = settings.load.as_secs_f64() * target.load;
        Terms {
            matched: target.matched,
            pending: target.pending,
            own,
            duplicate,
            load,
            cost: target.pending + own + price * duplicate + load,
        }
    });
    (terms.collect(), price)
}
