//! How many names of models are told apart.
//!
//! Clients choose the names, so whoever sends a new one each time would make sums as many as requests. A gateway has so many names in an
//! hour, and what comes after counts as [`OTHER`]; one gateway's clients do not use up another's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::usage::{OTHER, UsageRecord};

/// The names of the last hours.
pub(super) struct Models {
    most: usize,
    other: Arc<str>,
    hours: HashMap<(i64, Arc<str>), HashSet<Arc<str>>>,
}

impl Models {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            other: OTHER.into(),
            hours: HashMap::new(),
        }
    }

    /// The name under which a record's model counts. `seed` has the names that were counted before, for an hour that is not remembered.
    pub(super) fn name<E>(
        &mut self,
        record: &UsageRecord,
        seed: impl FnOnce(i64, &str) -> Result<HashSet<Arc<str>>, E>,
    ) -> Result<Arc<str>, E> {
        let place = (record.hour(), record.gateway.clone());
        if !self.hours.contains_key(&place) {
            let known = seed(place.0, &place.1)?;
            self.hours.insert(place.clone(), known);
        }
        let known = self.hours.entry(place).or_default();
        if known.contains(&record.model) {
            return Ok(record.model.clone());
        }
        if known.len() >= self.most {
            return Ok(self.other.clone());
        }
        known.insert(record.model.clone());
        Ok(record.model.clone())
    }

    /// Forgets all but the last two hours; a late record's hour is seeded again.
    pub(super) fn forget(&mut self) {
        let last = self.hours.keys().map(|(hour, _)| *hour).max();
        let from = last.unwrap_or(0) - 3600;
        self.hours.retain(|(hour, _), _| *hour >= from);
    }
}
