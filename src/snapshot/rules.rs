//! A gateway's rules in order of precedence, and which of them a path can concern.
//!
//! Where there are many, they are found by their stem: the whole segments that every path they match begins with. A path has as many beginnings as
//! segments, so looking them up costs the same whatever the number of rules. What is found is a few too many at most: whether a rule matches is decided
//! by its pattern.

use std::collections::HashMap;

use super::paths::has_dot_segments;
use super::router::Rule;
use crate::model::{PathPattern, Segment};

/// So many rules are tried one after another.
const FEW: usize = 16;

/// Rules, the first that matches before the others.
#[derive(Debug, Default)]
pub(super) struct Rules {
    all: Vec<Rule>,
    /// Where the rules of a stem stand, if there are more than a few.
    stems: HashMap<Box<str>, Vec<usize>>,
    /// Bytes of the longest stem.
    longest: usize,
}

impl Rules {
    /// In order of precedence; equals stay as they are.
    pub(super) fn new(mut all: Vec<Rule>) -> Rules {
        all.sort_by_key(Rule::precedence);
        let mut rules = Rules {
            all,
            ..Rules::default()
        };
        if rules.all.len() > FEW {
            for (place, rule) in rules.all.iter().enumerate() {
                let stem = rule.rule.path.as_ref().map_or_else(String::new, stem);
                rules.longest = rules.longest.max(stem.len());
                rules.stems.entry(stem.into()).or_default().push(place);
            }
        }
        rules
    }

    pub(super) fn all(&self) -> &[Rule] {
        &self.all
    }

    /// Those that can match a path, in order. Of a path that walks up or stays, these are the rules without one.
    pub(super) fn candidates(&self, path: &str) -> impl Iterator<Item = &Rule> {
        let found = (self.all.len() > FEW).then(|| self.find(path));
        let (few, found) = match found {
            Some(found) => (&[][..], found),
            None => (&self.all[..], Vec::new()),
        };
        let found = found.into_iter().filter_map(|place| self.all.get(place));
        let dotted = !self.all.is_empty() && has_dot_segments(path);
        let can_match = move |rule: &&Rule| !dotted || rule.rule.path.is_none();
        few.iter().chain(found).filter(can_match)
    }

    fn find(&self, path: &str) -> Vec<usize> {
        let ends = path.match_indices('/').map(|(at, _)| at);
        let ends = ends
            .chain([path.len()])
            .take_while(|at| *at <= self.longest);
        let beginnings = ends.filter_map(|at| path.get(..at));
        // Every path begins with nothing, also one that begins with something else.
        let first = Some("").filter(|_| !path.starts_with('/'));
        let lists = first.into_iter().chain(beginnings);
        let mut found: Vec<usize> = lists
            .filter_map(|beginning| self.stems.get(beginning))
            .flatten()
            .copied()
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The whole segments that every path of a pattern begins with.
fn stem(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => path.clone(),
        PathPattern::Prefix(prefix) => prefix.strip_suffix('/').unwrap_or(prefix).to_owned(),
        PathPattern::Params { segments, .. } => {
            let mut stem = String::new();
            for segment in segments {
                let Segment::Literal(literal) = segment else {
                    break;
                };
                stem.push('/');
                stem.push_str(literal);
            }
            stem
        }
    }
}
