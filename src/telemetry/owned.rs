//! Series that live as long as what they tell of: one owner of them for each identity, shared by all revisions that configure it.
//!
//! Invariant: while anybody holds the owner of a series, nobody takes the series away; once nobody does, it is gone, and whoever comes next under the same
//! identity begins anew.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, IntCounterVec};

/// What has series.
pub trait Owner {
    /// Takes all of them away. Called once nobody counts with them any more.
    fn withdraw(&self);
}

/// Names of a gateway and a service; one of them may be empty.
pub(super) type Identity = (Arc<str>, Arc<str>);

/// The owners of a kind, by identity.
pub(super) struct Owners<T> {
    // Locked for a look-up, when a configuration is compiled and when one is given up.
    held: Mutex<HashMap<Identity, Held<T>>>,
}

struct Held<T> {
    owner: Arc<T>,
    by: usize,
}

impl<T> Default for Owners<T> {
    fn default() -> Self {
        Self {
            held: Mutex::default(),
        }
    }
}

impl<T: Owner> Owners<T> {
    /// The owner of this identity, or the one that is made now.
    pub(super) fn hold(self: &Arc<Self>, identity: Identity, make: impl FnOnce() -> T) -> Owned<T> {
        let mut all = locked(&self.held);
        let held = all.entry(identity.clone()).or_insert_with(|| Held {
            owner: Arc::new(make()),
            by: 0,
        });
        held.by += 1;
        Owned {
            owner: held.owner.clone(),
            identity,
            owners: self.clone(),
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        locked(&self.held).len()
    }
}

/// A hold on an owner of series.
pub struct Owned<T: Owner> {
    owner: Arc<T>,
    identity: Identity,
    owners: Arc<Owners<T>>,
}

impl<T: Owner> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.owner
    }
}

impl<T: Owner> Drop for Owned<T> {
    fn drop(&mut self) {
        let mut all = locked(&self.owners.held);
        let Some(held) = all.get_mut(&self.identity) else {
            return;
        };
        held.by -= 1;
        if held.by == 0 {
            // Under the lock, so that whoever comes next finds none of the old series.
            self.owner.withdraw();
            all.remove(&self.identity);
        }
        let (len, room) = (all.len(), all.capacity());
        if room > 256 && len < room / 4 {
            all.shrink_to(len * 2);
        }
    }
}

/// Counters of one owner that differ in their last label, each made when it first counts.
pub(super) struct Counters<W> {
    vec: IntCounterVec,
    labels: Vec<Arc<str>>,
    known: Mutex<BTreeMap<W, IntCounter>>,
}

/// A label's value out of a small set.
pub(super) trait Word: Ord + Copy {
    fn label(self) -> Cow<'static, str>;
}

impl Word for &'static str {
    fn label(self) -> Cow<'static, str> {
        self.into()
    }
}

/// A status.
impl Word for u16 {
    fn label(self) -> Cow<'static, str> {
        self.to_string().into()
    }
}

impl<W: Word> Counters<W> {
    /// Of this family, with these first labels.
    pub(super) fn new(vec: &IntCounterVec, labels: &[&Arc<str>]) -> Self {
        Self {
            vec: vec.clone(),
            labels: labels.iter().map(|label| (*label).clone()).collect(),
            known: Mutex::default(),
        }
    }

    /// The counter for a word.
    pub(super) fn of(&self, word: W) -> IntCounter {
        let make = || self.vec.with_label_values(&self.values(&word.label()));
        locked(&self.known).entry(word).or_insert_with(make).clone()
    }

    /// Takes all of them away.
    pub(super) fn withdraw(&self) {
        for word in std::mem::take(&mut *locked(&self.known)).into_keys() {
            let _ = self.vec.remove_label_values(&self.values(&word.label()));
        }
    }

    fn values<'a>(&'a self, last: &'a str) -> Vec<&'a str> {
        let first = self.labels.iter().map(|label| &**label);
        first.chain([last]).collect()
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
