//! The rule of SGLang's router, for those who come from there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Ask, Guard, Policy, Target, settle, weights};
use crate::model;

/// Where the longest known beginning of the prompt went last, if that is more than `cache_threshold` of it; else, and whenever
/// requests in flight differ too much, the target with the fewest.
///
/// After `cache_aware` of sglang-router 0.3.2. There a tree of characters says what is known; here it is the chain of the prompt's blocks,
/// which also tells tools, models and salts apart.
#[derive(Debug)]
pub struct SglangCacheAware {
    settings: model::SglangCacheAware,
    tree: Arc<Tree>,
    /// In the order of the targets: what the tree knows them by.
    names: Vec<u64>,
}

/// Which target each known block went to last. Kept across revisions.
#[derive(Debug, Default)]
pub struct Tree(Mutex<Owners>);

#[derive(Debug, Default)]
struct Owners {
    by_block: HashMap<u64, (u64, u32)>,
    /// Requests so far.
    time: u32,
}

impl SglangCacheAware {
    /// Over targets that are known by these [`Target::id`]s.
    pub fn new(settings: model::SglangCacheAware, tree: Arc<Tree>, names: Vec<u64>) -> Self {
        Self {
            settings,
            tree,
            names,
        }
    }

    fn owner(&self, blocks: &[u64], bytes: usize) -> Option<u64> {
        let tree = self.tree.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = blocks.iter().map_while(|block| tree.by_block.get(block));
        let mut matched = 0;
        let (owner, _) = known.by_ref().inspect(|_| matched += 1).last()?;
        let share = (matched * self.settings.block as usize) as f64 / bytes.max(1) as f64;
        (share > self.settings.cache_threshold).then_some(*owner)
    }

    fn insert(&self, blocks: &[u64], owner: u64) {
        let mut tree = self.tree.0.lock().unwrap_or_else(PoisonError::into_inner);
        tree.time = tree.time.wrapping_add(1);
        let time = tree.time;
        for block in blocks {
            tree.by_block.insert(*block, (owner, time));
        }
        let size = self.settings.max_tree_size as usize / self.settings.block as usize;
        if tree.by_block.len() > size.max(1) * self.names.len() {
            // Half goes at once, so that it is seldom.
            let mut times: Vec<u32> = tree.by_block.values().map(|(_, time)| *time).collect();
            let middle = times.len() / 2;
            let (_, middle, _) = times.select_nth_unstable(middle);
            let middle = *middle;
            tree.by_block.retain(|_, (_, time)| *time >= middle);
        }
    }

    fn imbalanced(&self, targets: &[Target], weights: &[f64]) -> bool {
        let loads = targets.iter().zip(weights).filter(|(_, w)| **w > 0.0);
        let loads = loads.map(|(target, _)| target.state.in_flight());
        let (least, most) = loads.fold((usize::MAX, 0), |(least, most), load| {
            (least.min(load), most.max(load))
        });
        let settings = &self.settings;
        most.saturating_sub(least) > settings.balance_abs_threshold as usize
            && most as f64 > settings.balance_rel_threshold * least as f64
    }
}

impl Policy for SglangCacheAware {
    fn pick(&self, targets: &[Target], ask: &Ask<'_>) -> Option<(usize, Guard)> {
        let mut weights = weights(targets, ask);
        let prompt = ask.prompt.map(|asked| asked.prompt);
        let owner = prompt
            .filter(|_| !self.imbalanced(targets, &weights))
            .and_then(|prompt| self.owner(&prompt.blocks, prompt.bytes));
        let owner = owner.and_then(|owner| self.names.iter().position(|name| *name == owner));
        let (chosen, guard) = settle(targets, &mut weights, |weights| {
            let usable = |i: &usize| weights.get(*i).is_some_and(|weight| *weight > 0.0);
            owner.filter(usable).or_else(|| least(targets, weights))
        })?;
        if let (Some(prompt), Some(name)) = (prompt, self.names.get(chosen)) {
            self.insert(&prompt.blocks, *name);
        }
        Some((chosen, guard))
    }

    fn reads_prompts(&self) -> Option<usize> {
        Some(self.settings.block as usize)
    }
}

/// The target with the fewest requests per weight, any of several.
fn least(targets: &[Target], weights: &[f64]) -> Option<usize> {
    let usable = targets.iter().zip(weights).enumerate();
    let usable = usable.filter(|(_, (_, weight))| **weight > 0.0);
    let load = |target: &Target, weight: &f64| target.state.in_flight() as f64 / weight;
    let loads =
        usable.map(|(i, (target, weight))| (i, load(target, weight), rand::random::<u32>()));
    let order =
        |a: &(usize, f64, u32), b: &(usize, f64, u32)| a.1.total_cmp(&b.1).then(a.2.cmp(&b.2));
    loads.min_by(order).map(|(i, ..)| i)
}

#[cfg(test)]
mod tests {
    use tollgate_sdk::llm::prompt::{Prompt, prompt};

    use super::*;
    use crate::balance::Prompted;
    use crate::balance::tests::{any, targets};

    fn of(targets: &[Target], settings: model::SglangCacheAware) -> SglangCacheAware {
        let names = (0..targets.len() as u64).collect();
        SglangCacheAware::new(settings, Arc::default(), names)
    }

    fn text(seed: usize, words: usize) -> Prompt {
        let text: String = (0..words).map(|i| format!("{} ", seed * 7 + i)).collect();
        prompt(format!(r#"{{"prompt":"{text}"}}"#).as_bytes(), "m", 256)
    }

    fn pick(policy: &SglangCacheAware, targets: &[Target], prompt: &Prompt) -> (usize, Guard) {
        let asked = Prompted {
            prompt,
            streamed: true,
        };
        let ask = Ask {
            prompt: Some(asked),
            ..any()
        };
        policy.pick(targets, &ask).unwrap()
    }

    #[test]
    fn a_known_beginning_goes_where_it_went_until_the_load_differs_too_much() {
        let targets = targets(&[1, 1, 1]);
        let policy = of(&targets, model::SglangCacheAware::default());
        let prompt = text(1, 900);
        let (owner, first) = pick(&policy, &targets, &prompt);
        let mut held = vec![first];
        for _ in 0..64 {
            let (chosen, guard) = pick(&policy, &targets, &prompt);
            assert_eq!(chosen, owner);
            held.push(guard);
        }
        // 65 here and none there: more than 64 apart.
        let (chosen, _other) = pick(&policy, &targets, &prompt);
        assert_ne!(chosen, owner);
        drop(held);
        // It was put in there, too, and is that one's now.
        assert_eq!(pick(&policy, &targets, &prompt).0, chosen);
        // Another beginning goes to whoever has least.
        let busy: Vec<_> = (0..3).map(|_| targets[0].state.try_hold()).collect();
        assert_ne!(pick(&policy, &targets, &text(1_000_000, 900)).0, 0);
        drop(busy);
    }

    #[test]
    fn the_tree_does_not_grow_beyond_its_bound() {
        let targets = targets(&[1]);
        let settings = model::SglangCacheAware {
            max_tree_size: 25_600,
            ..model::SglangCacheAware::default()
        };
        let policy = of(&targets, settings);
        for seed in 0..500 {
            pick(&policy, &targets, &text(seed * 100_000, 300));
        }
        let held = policy.tree.0.lock().unwrap().by_block.len();
        assert!((1..=100).contains(&held), "{held}");
        // The newest is what stays.
        assert!(
            policy
                .owner(&text(499 * 100_000, 300).blocks, 256)
                .is_some()
        );
    }
}
