//! The target that can answer soonest without work being done twice: by what its cache should hold of the prompt, and by what it has to
//! do already.
//!
//! All in seconds, without thresholds. `cost.rs` has the sum, `index.rs` what the caches should hold, `place.rs` what is learned of
//! each target, `charge.rs` what a request owes and teaches. The prompt is put into the index when it is sent, so that those that
//! come in the same burst follow it. The ideas are those of Preble (Srivatsa et al. 2024: exploit or explore, by cost) and LMetric;
//! the price of duplication is ours.

mod charge;
mod cost;
mod index;
mod place;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use tollgate_sdk::llm::prompt::Prompt;

pub(in crate::balance) use charge::Charge;
pub use charge::Computed;
pub use cost::Terms;
use cost::{AllTerms, Known, Question, costs};
use index::{Index, Matched};
use place::surely_over;
pub use place::{Caches, Foretold, Place};

use super::{Ask, Guard, Policy, Target, settle, weights};
use crate::model;

/// Costs that differ by less are the same.
const NEAR: f64 = 0.001;
/// A target that holds nothing yet gets this share of the prompts that nobody holds.
const SLICE: f64 = 0.25;
/// Unless those that hold something make them wait this much longer, in seconds.
const DROWNING: f64 = 2.0;

/// The policy.
#[derive(Debug)]
pub struct CacheAware {
    settings: Arc<model::CacheAware>,
    caches: Arc<Caches>,
    /// In the order of the targets.
    places: Arc<[Arc<Place>]>,
}

/// A request's prompt, as far as policies go by it.
#[derive(Clone, Copy, Debug)]
pub struct Prompted<'a> {
    /// What it begins with.
    pub prompt: &'a Prompt,
    /// Whether its answer is a stream, whose first byte comes when the prompt is computed.
    pub streamed: bool,
}

/// The costs of a request at each target, as they are now.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Length of the prompt, in tokens as they are reckoned.
    pub tokens: f64,
    /// What a second of work that is done twice costs.
    pub price: f64,
    /// In the order of the targets.
    pub terms: Vec<Terms>,
    /// Tokens each computes in a second.
    pub rates: Vec<f64>,
}

impl CacheAware {
    /// Over targets of these names.
    pub fn new(
        settings: model::CacheAware,
        caches: Arc<Caches>,
        targets: impl Iterator<Item = Arc<str>>,
    ) -> CacheAware {
        let now = Instant::now();
        CacheAware {
            settings: Arc::new(settings),
            places: targets.map(|name| caches.place(&name, now)).collect(),
            caches,
        }
    }

    /// What the upstream's caches are taken to hold.
    pub fn caches(&self) -> &Arc<Caches> {
        &self.caches
    }

    /// What is learned of the targets, in their order.
    pub fn places(&self) -> &[Arc<Place>] {
        &self.places
    }

    /// What a request would cost at each target now.
    pub fn explain(&self, targets: &[Target], ask: &Ask<'_>) -> Explained {
        let weights = weights(targets, ask);
        let matched = self.look(&mut self.caches.index(), targets, ask);
        let known = self.known(targets, &weights, &matched, ask);
        let (terms, price) = costs(&self.question(ask, &known));
        Explained {
            tokens: self.tokens(ask),
            price,
            terms: terms.into_vec(),
            rates: known.iter().map(|known| known.rate).collect(),
        }
    }

    /// Whether a request that can wait had better.
    fn has_too_much(&self, index: usize, ask: &Ask<'_>) -> bool {
        let most = self.settings.max_pending.filter(|_| ask.patient);
        let place = self.places.get(index);
        most.zip(place)
            .is_some_and(|(most, place)| place.pending() > most.as_secs_f64())
    }

    fn tokens(&self, ask: &Ask<'_>) -> f64 {
        let bytes = ask.prompt.map_or(0, |asked| asked.prompt.bytes);
        self.caches.tokens.tokens(bytes) as f64
    }

    fn question<'a>(&'a self, ask: &Ask<'_>, targets: &'a [Known]) -> Question<'a> {
        Question {
            settings: &self.settings,
            tokens: self.tokens(ask),
            targets,
        }
    }

    /// How much of the prompt each place holds, by its number; brings the index up to date first.
    fn look(&self, index: &mut Index, targets: &[Target], ask: &Ask<'_>) -> Matched {
        let now = Instant::now();
        for (target, place) in targets.iter().zip(&*self.places) {
            place.settle(now);
            let signals = target.state.signals();
            place.follow(index, signals, &self.settings, now);
        }
        let blocks = ask.prompt.map(|asked| &*asked.prompt.blocks);
        index.matched(blocks.unwrap_or_default())
    }

    fn known(
        &self,
        targets: &[Target],
        weights: &[f64],
        matched: &Matched,
        ask: &Ask<'_>,
    ) -> smallvec::SmallVec<[Known; 8]> {
        let usable = weights.iter().filter(|weight| **weight > 0.0).count();
        let mean = weights.iter().sum::<f64>() / usable.max(1) as f64;
        let tokens = self.tokens(ask);
        let block = self.caches.tokens_of_block(&self.settings);
        let known = targets.iter().zip(&*self.places).zip(weights);
        let known = known.map(|((target, place), weight)| {
            let weight = weight / mean.max(f64::MIN_POSITIVE);
            let blocks = matched.get(place.number).copied().unwrap_or(0);
            let rate = place
                .rate()
                .unwrap_or(f64::from(self.settings.prefill_rate));
            Known {
                matched: (f64::from(blocks) * block).min(tokens),
                pending: place.pending(),
                rate: rate * weight,
                load: target.state.in_flight() as f64 / weight.max(f64::MIN_POSITIVE),
                usable: weight > 0.0,
            }
        });
        known.collect()
    }

    /// The cheapest of the targets that have a weight; of several that cost the same, any.
    fn cheapest(&self, known: &[Known], weights: &[f64], ask: &Ask<'_>) -> Option<usize> {
        let (terms, _) = costs(&self.question(ask, known));
        let all = |i: usize| weights.get(i).is_some_and(|weight| *weight > 0.0);
        let mut chosen = least(&terms, all)?;
        if let Some(other) = self.instead_of_cold(&terms, chosen, &all) {
            chosen = other;
        }
        if let Some(slo) = self.settings.slo.map(|slo| slo.as_secs_f64()) {
            let keeps = |i: usize| terms.get(i).is_some_and(|t| t.first_token() <= slo);
            if !keeps(chosen) {
                chosen = least(&terms, |i| all(i) && keeps(i)).unwrap_or(chosen);
            }
        }
        Some(chosen)
    }

    /// A target that holds nothing yet is the cheapest for every prompt that nobody holds, and would get all of them at once. Most go
    /// to those that are at work already, unless these drown.
    fn instead_of_cold(
        &self,
        terms: &AllTerms,
        chosen: usize,
        all: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let now = Instant::now();
        let cold = |i: usize| {
            let place = self.places.get(i);
            let since = place.map(|place| now.saturating_duration_since(place.warm_since()));
            since.is_some_and(|since| since < self.settings.warm_up)
        };
        let missed = terms.iter().all(|terms| terms.matched == 0.0);
        if !missed || !cold(chosen) || rand::random::<f64>() < SLICE {
            return None;
        }
        let other = least(terms, |i| all(i) && !cold(i))?;
        let wait = |i: usize| terms.get(i).map_or(0.0, Terms::first_token);
        (wait(other) - wait(chosen) < DROWNING).then_some(other)
    }

    /// Charges the chosen target.
    fn charge(
        &self,
        index: &mut Index,
        chosen: usize,
        known: Known,
        ask: &Ask<'_>,
    ) -> Option<Charge> {
        let place = self.places.get(chosen)?.clone();
        let asked = ask.prompt?;
        let tokens = self.tokens(ask);
        let uncached = (tokens - known.matched).max(1.0);
        let seconds = cost::prefill(&self.settings, known.rate, uncached, tokens.max(1.0));
        let number = self.caches.number();
        index.insert(place.number, &asked.prompt.blocks, number);
        let calm = place.pending() == 0.0;
        let micros = Arc::new(AtomicU64::new((seconds * 1e6) as u64));
        place.charge((seconds * 1e6) as u64);
        if !asked.streamed {
            let end = Instant::now() + surely_over(known.pending + seconds);
            place.until(end, &micros);
        }
        Some(Charge {
            place,
            all: self.places.clone(),
            settings: self.settings.clone(),
            micros,
            blocks: asked.prompt.blocks.clone(),
            number,
            bytes: asked.prompt.bytes,
            matched: known.matched,
            calm,
            answered: false,
        })
    }
}

impl Policy for CacheAware {
    fn pick(&self, targets: &[Target], ask: &Ask<'_>) -> Option<(usize, Guard)> {
        let mut weights = weights(targets, ask);
        for (i, weight) in weights.iter_mut().enumerate() {
            if self.has_too_much(i, ask) {
                *weight = 0.0;
            }
        }
        // Held until the prompt is put in, so that of two that come together the second follows the first.
        let mut index = self.caches.index();
        let matched = self.look(&mut index, targets, ask);
        let known = self.known(targets, &weights, &matched, ask);
        let (chosen, guard) = settle(targets, &mut weights, |weights| {
            self.cheapest(&known, weights, ask)
        })?;
        let known = known.get(chosen).copied()?;
        if let (Some(_), Some(target)) = (ask.prompt, targets.get(chosen)) {
            let uncached = (self.tokens(ask) - known.matched).max(0.0);
            target.state.signals().kv().sent(uncached as u64);
        }
        let charge = self.charge(&mut index, chosen, known, ask);
        Some((chosen, guard.charged(charge)))
    }

    fn reads_prompts(&self) -> Option<usize> {
        Some(self.settings.block as usize)
    }

    fn cache_aware(&self) -> Option<&CacheAware> {
        Some(self)
    }

    fn all_full(&self, targets: &[Target], ask: &Ask<'_>) -> bool {
        super::all_full(targets, ask, |i, _| self.has_too_much(i, ask))
    }

    fn work(&self, ask: &Ask<'_>) -> Option<f64> {
        ask.prompt?;
        let rate =
            place::usual(&self.places).map_or(f64::from(self.settings.prefill_rate), |s| 1.0 / s);
        let tokens = self.tokens(ask);
        Some(cost::prefill(&self.settings, rate, tokens, tokens))
    }
}

/// The index of one of the cheapest.
fn least(terms: &AllTerms, among: impl Fn(usize) -> bool) -> Option<usize> {
    let among = || terms.iter().enumerate().filter(|(i, _)| among(*i));
    let best = among().map(|(_, t)| t.cost).min_by(f64::total_cmp)?;
    let near = || among().filter(|(_, t)| t.cost <= best + NEAR);
    let which = match near().count() {
        0 | 1 => 0,
        several => rand::random_range(0..several),
    };
    near().nth(which).map(|(i, _)| i)
}
