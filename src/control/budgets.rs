//! What budgets have counted, kept over the end of the process.

use tollgate_sdk::quota::{Held, Period, Quota};

use crate::store::{Counter, Store, StoreError};

/// Writes what is counted now.
pub(super) fn keep(store: &dyn Store, quota: &dyn Quota) -> Result<(), StoreError> {
    let counters: Vec<Counter> = quota.export().iter().map(counter).collect();
    match counters.is_empty() {
        true => Ok(()),
        false => store.save_counters(&counters),
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
