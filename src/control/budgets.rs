//! What budgets have counted, kept over the end of the process and shared by those that use the same file.
//!
//! What this process counts since it looked last is added to the store, which tells the sum of all; what the others added is then counted here,
//! too. So a process that drains and the one that has taken over count the same budget, and nothing is lost or counted twice.
//!
//! Invariant: `here = known + what is not yet added`, where `known` is what the store had when it was asked last.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tollgate_sdk::quota::{Held, Period, Quota};

use crate::store::{Added, Counter, Store, StoreError};

/// What the store had when it was asked last: period and amount, by limit and who.
#[derive(Default)]
pub(super) struct Budgets {
    // Only the one who writes looks.
    known: Mutex<Known>,
}

type Known = HashMap<(String, String), (i64, u64)>;

impl Budgets {
    /// Adds what was counted here since the last time.
    pub(super) fn keep(&self, store: &dyn Store, quota: &dyn Quota) -> Result<(), StoreError> {
        let mut known = self.lock();
        let added = added(&known, quota);
        if added.is_empty() {
            return Ok(());
        }
        for (counter, added) in store.count(&added)?.into_iter().zip(added) {
            if counter.period != added.period {
                // It is over, and another process has begun the next.
                continue;
            }
            let here = of(&known, &counter).saturating_add_signed(added.by);
            learn(&mut known, quota, counter, here);
        }
        Ok(())
    }

    /// Counts what others have added, also of what nobody asks for here.
    pub(super) fn catch_up(&self, store: &dyn Store, quota: &dyn Quota) -> Result<(), StoreError> {
        let mut known = self.lock();
        for counter in store.counters()?.into_iter().filter(is_current) {
            let here = of(&known, &counter);
            learn(&mut known, quota, counter, here);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the store does not know yet.
fn added(known: &Known, quota: &dyn Quota) -> Vec<Added> {
    let mut added = Vec::new();
    let mut seen = HashSet::new();
    for counter in quota.export().iter().map(counter) {
        let by = difference(counter.used, of(known, &counter));
        if by != 0 {
            added.push(Added {
                limit: counter.limit.clone(),
                who: counter.who.clone(),
                period: counter.period,
                by,
            });
        }
        seen.insert((counter.limit, counter.who));
    }
    // All of it was given back: there is no counter any more.
    let gone = known.iter().filter(|(name, _)| !seen.contains(*name));
    let gone = gone.map(|((limit, who), (period, used))| Counter {
        limit: limit.clone(),
        who: who.clone(),
        period: *period,
        used: *used,
    });
    let gone = gone.filter(|counter| counter.used > 0 && is_current(counter));
    added.extend(gone.map(|counter| Added {
        by: difference(0, counter.used),
        limit: counter.limit,
        who: counter.who,
        period: counter.period,
    }));
    added
}

/// Whether its period is not over.
fn is_current(counter: &Counter) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    held(counter).is_some_and(|held| held.start == held.period.start(now))
}

/// What is known of a counter's period.
fn of(known: &Known, counter: &Counter) -> u64 {
    match known.get(&(counter.limit.clone(), counter.who.clone())) {
        Some((period, used)) if *period == counter.period => *used,
        _ => 0,
    }
}

/// The store has this, of which `here` was counted here already.
fn learn(known: &mut Known, quota: &dyn Quota, counter: Counter, here: u64) {
    let by = difference(counter.used, here);
    if let (Some(held), true) = (held(&counter), by != 0) {
        quota.adjust(&held, by);
    }
    let stands = (counter.period, counter.used);
    known.insert((counter.limit, counter.who), stands);
}

fn difference(now: u64, before: u64) -> i64 {
    let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    signed(now).saturating_sub(signed(before))
}

fn counter(held: &Held) -> Counter {
    let period = match held.period {
        Period::Day => "day",
        Period::Month => "month",
    };
    Counter {
        limit: format!("{period}:{}", held.limit),
        who: held.who.to_string(),
        period: i64::try_from(held.start).unwrap_or(i64::MAX),
        used: held.used,
    }
}

fn held(counter: &Counter) -> Option<Held> {
    let (period, limit) = counter.limit.split_once(':')?;
    let period = match period {
        "day" => Period::Day,
        "month" => Period::Month,
        _ => return None,
    };
    Some(Held {
        limit: limit.into(),
        who: counter.who.as_str().into(),
        period,
        start: u64::try_from(counter.period).ok()?,
        used: counter.used,
    })
}

#[cfg(test)]
mod tests {
    use tollgate_sdk::quota::{Limit, Local, Rule};

    use super::*;
    use crate::store::Memory;

    /// A process, as far as it counts.
    #[derive(Default)]
    struct One {
        quota: Local,
        budgets: Budgets,
    }

    impl One {
        fn begin(store: &Memory) -> One {
            let one = One::default();
            one.budgets.catch_up(store, &one.quota).unwrap();
            one
        }

        fn uses(&self, reserved: u64, used: u64) {
            let lease = self.quota.reserve(&limit(), "who", reserved).unwrap();
            lease.settle(used);
        }

        fn keep(&self, store: &Memory) {
            self.budgets.keep(store, &self.quota).unwrap();
        }

        fn used(&self) -> u64 {
            1_000 - self.quota.standing(&limit(), "who").remaining
        }
    }

    fn limit() -> Limit {
        Limit {
            id: "budget".into(),
            rule: Rule::Calendar {
                limit: 1_000,
                period: Period::Month,
            },
        }
    }

    fn stored(store: &Memory) -> u64 {
        let counters = store.counters().unwrap();
        counters.iter().map(|counter| counter.used).sum()
    }

    #[test]
    fn two_processes_count_one_budget() {
        let store = Memory::default();
        let old = One::begin(&store);
        old.uses(10, 10);
        let open = old.quota.reserve(&limit(), "who", 100).unwrap();
        old.keep(&store);
        let new = One::begin(&store);
        assert_eq!(new.used(), 110, "what is reserved counts");
        new.uses(5, 5);
        // The old one's last exchange came to less, the next to more.
        open.settle(40);
        old.uses(1, 20);
        for process in [&new, &old, &new] {
            process.keep(&store);
        }
        assert_eq!(stored(&store), 75);
        new.budgets.catch_up(&store, &new.quota).unwrap();
        assert_eq!(new.used(), 75);
        // Again and again changes nothing.
        for process in [&old, &new, &old] {
            process.keep(&store);
            process.budgets.catch_up(&store, &process.quota).unwrap();
            assert_eq!((process.used(), stored(&store)), (75, 75));
        }
    }

    #[test]
    fn what_is_given_back_whole_is_taken_off() {
        let store = Memory::default();
        let one = One::begin(&store);
        let open = one.quota.reserve(&limit(), "who", 100).unwrap();
        one.keep(&store);
        assert_eq!(stored(&store), 100);
        drop(open);
        one.keep(&store);
        assert_eq!(stored(&store), 0);
        one.uses(7, 7);
        one.keep(&store);
        assert_eq!((stored(&store), one.used()), (7, 7));
    }

    #[test]
    fn a_restart_adds_nothing() {
        let store = Memory::default();
        let one = One::begin(&store);
        one.uses(7, 7);
        one.uses(3, 3);
        one.keep(&store);
        let next = One::begin(&store);
        assert_eq!(next.used(), 10);
        next.keep(&store);
        assert_eq!(stored(&store), 10, "what was read is not added again");
    }
}
