//! A store that is gone with the process.
//!
//! It answers like the one in a file, but keeps only so much: the latest records, and sums of the latest hours. Hours whose records are
//! gone count whole, and what was used in hours whose sums are gone is forgotten. Recording waits for a question that is being
//! answered, some milliseconds at worst: this store is for trying things out.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::anomaly::{self, Activity, History};
use super::models::Models;
use super::usage::{self, Group, HOUR, Plan, Query, Row, Sums, UsageRecord};
use super::{Added, Change, Counter, Health, Resource, Store, StoreError};

/// How many records are kept, some 30 MB.
const RECORDS: usize = 100_000;
/// How many sums are kept, some 20 MB.
const SUMS: usize = 100_000;
/// Names of models that are told apart in an hour of a gateway.
const MODELS: usize = 10_000;

/// A store that is gone with the process.
pub struct Memory {
    inner: Mutex<Inner>,
}

/// What a resource is known by: kind, gateway, name.
type Identity = (String, Option<String>, String);

struct Inner {
    revision: u64,
    resources: BTreeMap<Identity, (u64, Value)>,
    /// By limit and who; period and used.
    counters: BTreeMap<(String, String), (i64, u64)>,
    /// In the order in which they came; models are named as in the sums.
    records: VecDeque<UsageRecord>,
    most_records: usize,
    /// Records before this time may be gone; milliseconds since 1970, the start of an hour.
    records_from: i64,
    sums: BTreeMap<Group, Sums>,
    /// What is to be added to them, all of one group: the next record is often of the same.
    latest: Option<(Group, Sums)>,
    /// The first hour of each gateway and key.
    seen: BTreeMap<(Arc<str>, Arc<str>), i64>,
    models: Models,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(RECORDS)
    }
}

impl Memory {
    /// A store that keeps so many records.
    fn new(most_records: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                revision: 0,
                resources: BTreeMap::new(),
                counters: BTreeMap::new(),
                records: VecDeque::new(),
                most_records,
                records_from: 0,
                sums: BTreeMap::new(),
                latest: None,
                seen: BTreeMap::new(),
                models: Models::new(MODELS),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Held for short, and nothing panics meanwhile.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn record(&mut self, mut record: UsageRecord) {
        match &mut self.latest {
            Some((group, sums)) if group.has(&record) => {
                record.model = group.model.clone();
                *sums += record.sums();
            }
            _ => self.turn_to(&mut record),
        }
        if self.records.len() >= self.most_records
            && let Some(oldest) = self.records.pop_front()
        {
            let next = usage::floor(oldest.milliseconds()) + HOUR;
            self.records_from = self.records_from.max(next);
        }
        self.records.push_back(record);
    }

    /// Adds a record of another group than the latest.
    fn turn_to(&mut self, record: &mut UsageRecord) {
        self.gather();
        let nothing = |_: i64, _: &str| Ok::<_, Infallible>(HashSet::new());
        let Ok(model) = self.models.name(record, nothing);
        record.model = model.clone();
        let group = Group::of(record, model);
        if !self.sums.contains_key(&group) {
            self.models.forget();
            if self.sums.len() >= SUMS {
                self.forget_hour();
            }
        }
        let key = (record.gateway.clone(), record.key.clone());
        let first = self.seen.entry(key).or_insert(group.hour);
        *first = group.hour.min(*first);
        self.sums.entry(group.clone()).or_default();
        self.latest = Some((group, record.sums()));
    }

    /// Makes the sums complete.
    fn gather(&mut self) {
        if let Some((group, sums)) = self.latest.take() {
            *self.sums.entry(group).or_default() += sums;
        }
    }

    /// Forgets the sums of the first hour.
    fn forget_hour(&mut self) {
        let Some(hour) = self.sums.first_key_value().map(|(group, _)| group.hour) else {
            return;
        };
        while let Some(first) = self.sums.first_entry()
            && first.key().hour == hour
        {
            first.remove();
        }
        let sums = &self.sums;
        let known: HashSet<_> = sums.keys().map(|g| (&g.gateway, &g.key)).collect();
        self.seen
            .retain(|(gateway, key), _| known.contains(&(gateway, key)));
    }

    fn usage(&mut self, query: &Query) -> Vec<Row> {
        self.gather();
        let (since, until) = (query.since, query.until);
        let (since, until) = (usage::milliseconds(since), usage::milliseconds(until));
        let Plan { hours, edges } = Plan::new(since, until, self.records_from);
        let mine = |gateway: &str, key: &str| {
            query.gateway.as_deref().is_none_or(|g| g == gateway)
                && query.key.as_deref().is_none_or(|k| k == key)
        };
        let mut groups: BTreeMap<String, Sums> = BTreeMap::new();
        let mut add = |group: &Group, sums: Sums| {
            if mine(&group.gateway, &group.key) {
                *groups.entry(query.by.name(group)).or_default() += sums;
            }
        };
        for (group, sums) in &self.sums {
            if hours.contains(&group.hour) {
                add(group, *sums);
            }
        }
        for record in &self.records {
            let at = record.milliseconds();
            if edges.iter().any(|edge| edge.contains(&at)) {
                add(&Group::of(record, record.model.clone()), record.sums());
            }
        }
        let mut rows: Vec<Row> = groups.into_iter().map(|(n, sums)| sums.row(n)).collect();
        usage::sort(query.by, &mut rows);
        rows
    }

    fn hourly(&mut self, until: SystemTime, hours: u32) -> Vec<History> {
        self.gather();
        let window = anomaly::window(until, hours);
        let mut found: BTreeMap<(&Arc<str>, &Arc<str>), BTreeMap<i64, Activity>> = BTreeMap::new();
        for (group, sums) in &self.sums {
            if !window.contains(&group.hour) {
                continue;
            }
            let key = found.entry((&group.gateway, &group.key)).or_default();
            let activity = key.entry(group.hour).or_default();
            activity.requests += sums.requests.unsigned_abs();
            activity.errors += sums.errors.unsigned_abs();
            activity.tokens += (sums.input + sums.output).unsigned_abs();
        }
        let histories = found.into_iter().map(|((gateway, key), hours)| {
            let first = self.seen.get(&(gateway.clone(), key.clone()));
            let first = first.copied().unwrap_or(window.start);
            let mut history = History::new(gateway.to_string(), key.to_string(), &window, first);
            for (hour, activity) in hours {
                history.set(&window, hour, activity);
            }
            history
        });
        histories.collect()
    }
}

fn shown(((kind, gateway, name), (revision, body)): (&Identity, &(u64, Value))) -> Resource {
    Resource {
        kind: kind.clone(),
        name: name.clone(),
        gateway: gateway.clone(),
        revision: *revision,
        body: body.clone(),
    }
}

impl Store for Memory {
    fn list(&self, kind: &str) -> Result<Vec<Resource>, StoreError> {
        let inner = self.lock();
        let of_kind = inner.resources.iter().filter(|((k, ..), _)| k == kind);
        Ok(of_kind.map(shown).collect())
    }

    fn apply(&self, changes: &[Change], expected: Option<u64>) -> Result<u64, StoreError> {
        let mut inner = self.lock();
        let now = inner.revision;
        if expected.is_some_and(|expected| expected != now) {
            return Err(StoreError::Stale { now });
        }
        if changes.is_empty() {
            return Ok(now);
        }
        inner.revision += 1;
        let next = inner.revision;
        for change in changes.iter().cloned() {
            match change {
                Change::Put {
                    kind,
                    name,
                    gateway,
                    body,
                } => drop(inner.resources.insert((kind, gateway, name), (next, body))),
                Change::Delete {
                    kind,
                    name,
                    gateway,
                } => drop(inner.resources.remove(&(kind, gateway, name))),
            }
        }
        Ok(next)
    }

    fn advance(&self, least: u64) -> Result<u64, StoreError> {
        let mut inner = self.lock();
        inner.revision = (inner.revision + 1).max(least);
        Ok(inner.revision)
    }

    fn revision(&self) -> Result<u64, StoreError> {
        Ok(self.lock().revision)
    }

    fn record(&self, mut record: UsageRecord) {
        record.bound();
        self.lock().record(record);
    }

    fn flush(&self, _: Duration) -> bool {
        true
    }

    fn usage(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        Ok(self.lock().usage(query))
    }

    fn hourly(&self, until: SystemTime, hours: u32) -> Result<Vec<History>, StoreError> {
        Ok(self.lock().hourly(until, hours))
    }

    fn count(&self, added: &[Added]) -> Result<Vec<Counter>, StoreError> {
        let mut inner = self.lock();
        let counted = added.iter().cloned().map(|added| {
            let identity = (added.limit.clone(), added.who.clone());
            let kept = { inner.counters.entry(identity) }.or_insert((added.period, 0));
            if added.period > kept.0 {
                *kept = (added.period, 0);
            }
            if added.period == kept.0 {
                kept.1 = kept.1.saturating_add_signed(added.by);
            }
            Counter {
                limit: added.limit,
                who: added.who,
                period: kept.0,
                used: kept.1,
            }
        });
        Ok(counted.collect())
    }

    fn counters(&self) -> Result<Vec<Counter>, StoreError> {
        let inner = self.lock();
        let counters = inner.counters.iter();
        let counters = counters.map(|((limit, who), (period, used))| Counter {
            limit: limit.clone(),
            who: who.clone(),
            period: *period,
            used: *used,
        });
        Ok(counters.collect())
    }

    fn unshared(&self) -> Option<(u64, Vec<Resource>)> {
        let inner = self.lock();
        Some((inner.revision, inner.resources.iter().map(shown).collect()))
    }

    fn health(&self) -> Health {
        Health {
            ok: true,
            ..Health::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, everything, record};
    use super::super::usage::By;
    use super::*;

    #[test]
    fn an_hour_whose_records_are_gone_counts_whole() {
        let store = Memory::new(3);
        for minutes in [10, 50, 70, 110, 115] {
            store.record(record(minutes * 60_000, "a", "m"));
        }
        let requests = |from: u64, to: u64| {
            let query = Query {
                since: at(from * 60_000),
                until: at(to * 60_000),
                ..everything(By::Key)
            };
            let rows = store.usage(&query).unwrap();
            rows.iter().map(|row| row.requests).sum::<u64>()
        };
        assert_eq!(
            requests(40, 55),
            2,
            "of the first hour only the sum is left"
        );
        assert_eq!(requests(60, 112), 2);
        assert_eq!(requests(0, 120), 5);
    }

    #[test]
    fn the_first_hours_are_forgotten_when_there_are_too_many_sums() {
        let store = Memory::new(10);
        for n in 0..SUMS as u64 / 2 {
            store.record(record(0, &format!("first{n}"), "m"));
            store.record(record(HOUR as u64, &format!("second{n}"), "m"));
        }
        let keys = || store.usage(&everything(By::Key)).unwrap().len();
        assert_eq!(keys(), SUMS);
        store.record(record(HOUR as u64, "third", "m"));
        assert_eq!(keys(), SUMS / 2 + 1);
        assert_eq!(store.lock().seen.len(), SUMS / 2 + 1);
    }
}
