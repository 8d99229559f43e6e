//! What budgets have counted, kept over the end of the process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tollgate_sdk::quota::{Held, Period, Quota};

use crate::store::{Counter, Store, StoreError};

/// What was written last, so that only what has changed is written again.
#[derive(Default)]
pub(super) struct Budgets {
    // Only the one who writes looks.
    written: Mutex<HashMap<(String, String), (i64, u64)>>,
}

impl Budgets {
    /// Writes what is counted now.
    pub(super) fn keep(&self, store: &dyn Store, quota: &dyn Quota) -> Result<(), StoreError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let held = quota.export();
        let counters: Vec<Counter> = { held.iter() }
            .map(counter)
            .filter(|counter| {
                let known = written.get(&(counter.limit.clone(), counter.who.clone()));
                known != Some(&(counter.period, counter.used))
            })
            .collect();
        if counters.is_empty() {
            return Ok(());
        }
        store.save_counters(&counters)?;
        let kept = counters.into_iter();
        written.extend(kept.map(|c| ((c.limit, c.who), (c.period, c.used))));
        Ok(())
    }
}

/// Reads what was counted before.
pub(super) fn restore(store: &dyn Store, quota: &dyn Quota) -> Result<(), StoreError> {
    let held: Vec<Held> = store.counters()?.iter().filter_map(held).collect();
    quota.restore(&held);
    Ok(())
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
