//! From a model's name to the services that answer to it: exact, else an engine that serves it, else the longest prefix.
//!
//! Prefixes stand in order, each with the longest of the others that it begins with. So the longest that a name begins with is found by one binary search and
//! a few steps, however many there are.

use std::collections::HashMap;
use std::sync::Arc;

use super::automatic::Automatic;
use super::{Offer, Split};
use crate::model::ModelPattern;

#[derive(Debug, Default)]
pub(super) struct Models {
    exact: HashMap<Box<str>, Split>,
    pub(super) automatic: Option<Automatic>,
    /// In order.
    prefixes: Vec<Prefix>,
}

#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    /// Where the longest of the others stands that this one begins with.
    within: Option<usize>,
    split: Split,
}

impl Models {
    /// Every model name and prefix with the offers that answer to it.
    pub(super) fn new(
        patterns: Vec<(ModelPattern, Vec<(Arc<Offer>, u64)>)>,
        automatic: Option<Automatic>,
    ) -> Models {
        let mut models = Models {
            automatic,
            ..Models::default()
        };
        for (pattern, offers) in patterns {
            let Some(split) = Split::new(offers) else {
                continue;
            };
            match pattern {
                ModelPattern::Exact(name) => {
                    models.exact.insert(name.into(), split);
                }
                ModelPattern::Prefix(prefix) => models.prefixes.push(Prefix {
                    text: prefix.into(),
                    within: None,
                    split,
                }),
            }
        }
        models.exact.shrink_to_fit();
        models.nest();
        models
    }

    /// Puts the prefixes in order and finds for each the longest that it begins with: it is the one before it, or one of those that that one begins with.
    fn nest(&mut self) {
        self.prefixes.sort_by(|a, b| a.text.cmp(&b.text));
        for place in 1..self.prefixes.len() {
            let Some(text) = self.prefixes.get(place).map(|prefix| prefix.text.clone()) else {
                return;
            };
            let within = self.longest(place.checked_sub(1), &text);
            if let Some(prefix) = self.prefixes.get_mut(place) {
                prefix.within = within;
            }
        }
    }

    /// The first of a prefix and those it begins with that `text` begins with, too.
    fn longest(&self, mut place: Option<usize>, text: &str) -> Option<usize> {
        while let Some(prefix) = place.and_then(|place| self.prefixes.get(place)) {
            if text.starts_with(&*prefix.text) {
                return place;
            }
            place = prefix.within;
        }
        None
    }

    /// Whose turn it is of those that answer to a model's name.
    pub(super) fn next_for(
        &self,
        model: &str,
        admits: impl Fn(&Offer) -> bool,
    ) -> Option<Arc<Offer>> {
        if let Some(split) = self.exact.get(model) {
            return split.next_for(admits).cloned();
        }
        let automatic = self.automatic.as_ref();
        if let Some(offer) = automatic.and_then(|a| a.next_for(model, &admits)) {
            return Some(offer);
        }
        self.by_prefix(model)?.next_for(admits).cloned()
    }

    fn by_prefix(&self, model: &str) -> Option<&Split> {
        // Whatever the model begins with stands before it, and the last that stands before it begins with all of that, too.
        let after = self.prefixes.partition_point(|p| *p.text <= *model);
        let longest = self.longest(after.checked_sub(1), model)?;
        self.prefixes.get(longest).map(|prefix| &prefix.split)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::offer;

    fn models(patterns: &[&str]) -> Models {
        let pattern = |text: &&str| match text.strip_suffix('*') {
            Some(prefix) => ModelPattern::Prefix(prefix.to_owned()),
            None => ModelPattern::Exact((*text).to_owned()),
        };
        let all = patterns.iter();
        Models::new(
            all.map(|text| (pattern(text), vec![(offer(text), 1)]))
                .collect(),
            None,
        )
    }

    fn found(models: &Models, name: &str) -> String {
        let offer = models.next_for(name, |_| true);
        offer.map_or_else(String::new, |offer| offer.service.name.to_string())
    }

    #[test]
    fn the_longest_prefix_is_found_among_many() {
        let patterns = [
            "a*", "ab*", "abc*", "abcde*", "abd*", "abd", "b/*", "b/é*", "zz*",
        ];
        let nested = models(&patterns);
        let every = models(&[&patterns[..], &["*"]].concat());
        for name in [
            "", "a", "ab", "abb", "abc", "abcd", "abcde", "abcdz", "abcdef", "abd", "abdx", "abz",
            "b", "b/", "b/é/x", "b/ê", "c", "z", "zz", "zzz",
        ] {
            let begins = |text: &&&str| text.strip_suffix('*').is_some_and(|p| name.starts_with(p));
            let longest = patterns.iter().filter(begins).max_by_key(|text| text.len());
            let wanted = patterns.iter().find(|text| **text == name).or(longest);
            assert_eq!(
                found(&nested, name),
                wanted.map_or("", |text| *text),
                "{name}"
            );
            assert_eq!(
                found(&every, name),
                wanted.map_or("*", |text| *text),
                "{name}"
            );
        }
    }
}
