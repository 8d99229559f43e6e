//! A batch of records as it is kept: sums by group, and for each hour one row with all of its records as text.
//!
//! A row for each record costs seven times as much. What a record has in common with others, its names, is looked up
//! once by a cheap hash and written once per row; the rest are numbers, appended to text that is used again for the next batch. The
//! text is JSON, so that SQLite's own functions can take it apart; 001.sql says what stands where.
//!
//! Invariant: all records of a row began in the same hour, so that rows grow old by whole hours, and a part of an hour is found in rows of
//! that hour only.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::ops::Range;
use std::sync::Arc;

use rusqlite::types::ValueRef;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::StoreError;
use super::super::usage::{self, Group, HOUR, Sums, UsageRecord};
use super::line::Line;

/// Slots for groups at the start; a power of two, like all later sizes.
const SLOTS: usize = 64;
/// Text that is kept for the next batch, at most; some three batches.
const KEPT: usize = 256 * 1024;

/// A batch that is being put together.
pub(super) struct Batch {
    groups: Vec<Counted>,
    /// Where groups are, by hash: one more than the place in `groups`, or 0. At least half are free.
    slots: Vec<u32>,
    /// Clients choose names, so they must not know which ones meet in a slot.
    seed: u64,
    hours: Vec<Hour>,
}

struct Counted {
    hash: u64,
    /// The start of its hour in milliseconds.
    start: i64,
    group: Group,
    sums: Sums,
    /// Its place among the names of its hour.
    place: i64,
}

/// One row.
#[derive(Default)]
pub(super) struct Hour {
    /// Milliseconds since 1970.
    start: i64,
    /// The time from which those of the records count: the first one's that came.
    pub(super) base: i64,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) count: i64,
    named: i64,
    /// Lists as JSON, without their end until the batch is ended.
    names: String,
    records: Vec<u8>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            slots: vec![0; SLOTS],
            seed: RandomState::new().hash_one(0),
            hours: Vec::new(),
        }
    }
}

impl Batch {
    /// Empties it. What a usual batch needs is kept.
    pub(super) fn clear(&mut self) {
        self.groups.clear();
        self.slots.clear();
        self.slots.resize(SLOTS, 0);
        self.hours.truncate(1);
        for hour in &mut self.hours {
            hour.count = 0;
            hour.named = 0;
            hour.names.clear();
            hour.names.shrink_to(KEPT);
            hour.records.clear();
            hour.records.shrink_to(KEPT);
        }
    }

    /// Adds a record. `name` says under which name its model counts; it is asked only for models that are new to the batch.
    pub(super) fn add<E>(
        &mut self,
        record: &UsageRecord,
        name: impl FnOnce() -> Result<Arc<str>, E>,
    ) -> Result<(), E> {
        let at = record.milliseconds();
        let hour = self.hour(at);
        let Some(start) = self.hours.get(hour).map(|hour| hour.start) else {
            return Ok(());
        };
        let hash = self.hash(start, record, &record.model);
        let found = match self.find(hash, start, record, &record.model) {
            Some(found) => found,
            None => self.other(hour, start, record, name()?),
        };
        let sums = record.sums();
        if let (Some(counted), Some(hour)) = (self.groups.get_mut(found), self.hours.get_mut(hour))
        {
            counted.sums += sums;
            hour.write(at, counted.place, record, &sums);
        }
        Ok(())
    }

    /// Ends it: the rows. Nothing can be added then.
    pub(super) fn rows(&mut self) -> impl Iterator<Item = &Hour> {
        for hour in &mut self.hours {
            hour.names.push(']');
            hour.records.push(b']');
        }
        self.hours.iter().filter(|hour| hour.count > 0)
    }

    /// What was added up.
    pub(super) fn sums(&self) -> impl Iterator<Item = (&Group, &Sums)> {
        self.groups
            .iter()
            .map(|counted| (&counted.group, &counted.sums))
    }

    /// Which row a time belongs to.
    fn hour(&mut self, at: i64) -> usize {
        let of = |hour: &Hour| hour.count > 0 && (hour.start..hour.start + HOUR).contains(&at);
        if let Some(known) = self.hours.iter().position(of) {
            return known;
        }
        let free = self.hours.iter().position(|hour| hour.count == 0);
        let place = free.unwrap_or(self.hours.len());
        if free.is_none() {
            self.hours.push(Hour::default());
        }
        if let Some(hour) = self.hours.get_mut(place) {
            hour.start = usage::floor(at);
            (hour.base, hour.first, hour.last) = (at, at, at);
        }
        place
    }

    /// The group of a record whose model was not found as it is called.
    fn other(&mut self, hour: usize, start: i64, record: &UsageRecord, model: Arc<str>) -> usize {
        let hash = self.hash(start, record, &model);
        if let Some(found) = self.find(hash, start, record, &model) {
            return found;
        }
        let group = Group::of(record, model);
        let place = self.hours.get_mut(hour).map_or(0, |hour| hour.name(&group));
        let found = self.groups.len();
        self.groups.push(Counted {
            hash,
            start,
            group,
            sums: Sums::default(),
            place,
        });
        if self.groups.len() * 2 > self.slots.len() {
            let size = self.slots.len() * 2;
            self.slots.clear();
            self.slots.resize(size, 0);
            for (place, counted) in self.groups.iter().enumerate() {
                take(&mut self.slots, counted.hash, place);
            }
        } else {
            take(&mut self.slots, hash, found);
        }
        found
    }

    fn find(&self, hash: u64, start: i64, record: &UsageRecord, model: &Arc<str>) -> Option<usize> {
        let same = |a: &Arc<str>, b: &Arc<str>| Arc::ptr_eq(a, b) || a == b;
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            // 0 is a free slot: none.
            let place = (*self.slots.get(slot)? as usize).checked_sub(1)?;
            let counted = self.groups.get(place)?;
            let group = &counted.group;
            if counted.hash == hash
                && counted.start == start
                && same(&group.key, &record.key)
                && same(&group.gateway, &record.gateway)
                && same(&group.service, &record.service)
                && same(&group.model, model)
            {
                return Some(place);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn hash(&self, start: i64, record: &UsageRecord, model: &str) -> u64 {
        let mut hash = self.seed ^ start.unsigned_abs();
        for name in [&record.gateway, &record.key, &record.service, model] {
            hash = mix(hash, name);
        }
        hash
    }
}

impl Hour {
    /// The row's columns `names` and `records`.
    pub(super) fn texts(&self) -> [ValueRef<'_>; 2] {
        [self.names.as_bytes(), &self.records].map(ValueRef::Text)
    }

    /// Adds a group's names; their place.
    fn name(&mut self, group: &Group) -> i64 {
        let names = [&group.gateway, &group.key, &group.service, &group.model];
        for (n, name) in names.into_iter().enumerate() {
            self.names.push_str(match (n, self.named) {
                (0, 0) => "[[",
                (0, _) => ",[",
                _ => ",",
            });
            // Text alone cannot fail to become JSON.
            self.names
                .push_str(&serde_json::to_string(&**name).unwrap_or_default());
        }
        self.names.push(']');
        self.named += 1;
        self.named - 1
    }

    fn write(&mut self, at: i64, place: i64, record: &UsageRecord, sums: &Sums) {
        self.first = self.first.min(at);
        self.last = self.last.max(at);
        let mut line = Line::default();
        line.byte(if self.count == 0 { b'[' } else { b',' });
        line.byte(b'[');
        let after = at - self.base;
        if after < 0 {
            line.byte(b'-');
        }
        line.put(after, b',');
        line.put(place, b',');
        line.put(record.status.into(), b',');
        for number in [sums.input, sums.cached, sums.output, sums.duration] {
            line.put(number, b',');
        }
        line.put_or_null(record.first_byte.map(usage::microseconds));
        line.put_or_null(record.price());
        line.put(record.estimated.into(), b']');
        self.records.extend_from_slice(line.text());
        self.count += 1;
    }
}

/// Enters a place in the first free slot.
fn take(slots: &mut [u32], hash: u64, place: usize) {
    let mask = slots.len() - 1;
    let mut slot = hash as usize & mask;
    while let Some(taken) = slots.get_mut(slot) {
        if *taken == 0 {
            *taken = u32::try_from(place + 1).unwrap_or(0);
            return;
        }
        slot = (slot + 1) & mask;
    }
}

/// Eight bytes at a time; the multiplication lets each of their bits change all of the hash.
fn mix(hash: u64, text: &str) -> u64 {
    let fold = |hash: u64| {
        let wide = u128::from(hash) * 0x9e37_79b9_7f4a_7c15_u128;
        (wide ^ (wide >> 64)) as u64
    };
    let bytes = text.as_bytes();
    let mut hash = hash ^ (bytes.len() as u64).rotate_left(32);
    for word in bytes.as_chunks::<8>().0 {
        hash = fold(hash ^ u64::from_le_bytes(*word));
    }
    // What is left, with bytes before it where that is simpler.
    let half = |half: Option<&[u8; 4]>| half.map(|half| u64::from(u32::from_le_bytes(*half)));
    let rest = match (
        bytes.last_chunk::<8>(),
        half(bytes.first_chunk()),
        half(bytes.last_chunk()),
    ) {
        (Some(word), ..) => u64::from_le_bytes(*word),
        (_, Some(first), Some(last)) => first | last << 32,
        _ => bytes
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    fold(hash ^ rest)
}

/// What a row's records say, in the order of 001.sql.
#[derive(Deserialize)]
struct Read(
    i64,
    usize,
    u16,
    i64,
    i64,
    i64,
    i64,
    IgnoredAny,
    Option<i64>,
    IgnoredAny,
);

/// What the records of a row that began in a time add up to, by group.
///
/// # Errors
/// [`StoreError::Damaged`] if we did not write it.
pub(super) fn read(
    base: i64,
    names: &str,
    records: &str,
    time: &Range<i64>,
) -> Result<Vec<(Group, Sums)>, StoreError> {
    let damaged = |_| StoreError::Damaged;
    let names: Vec<[String; 4]> = serde_json::from_str(names).map_err(damaged)?;
    let hour = usage::floor(time.start) / 1000;
    let group = |[gateway, key, service, model]: [String; 4]| Group {
        hour,
        gateway: gateway.into(),
        key: key.into(),
        service: service.into(),
        model: model.into(),
    };
    let mut groups: Vec<_> = names
        .into_iter()
        .map(|n| (group(n), Sums::default()))
        .collect();
    let lines: Vec<Read> = serde_json::from_str(records).map_err(damaged)?;
    for Read(at, place, status, input, cached, output, duration, _, cost, _) in lines {
        if !time.contains(&base.saturating_add(at)) {
            continue;
        }
        let (_, sums) = groups.get_mut(place).ok_or(StoreError::Damaged)?;
        *sums += Sums {
            requests: 1,
            errors: i64::from(usage::failed(status)),
            input,
            cached,
            output,
            cost: cost.unwrap_or(0),
            duration,
        };
    }
    // What has nothing in that time is no group of it.
    groups.retain(|(_, sums)| sums.requests > 0);
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::super::super::Store;
    use super::super::super::tests::{at, options, record};
    use super::super::Sqlite;
    use super::*;

    fn put_together(batch: &mut Batch, records: &[UsageRecord]) {
        batch.clear();
        for record in records {
            let added = batch.add(record, || Ok::<_, Infallible>(record.model.clone()));
            added.unwrap();
        }
    }

    proptest! {
        /// However many names, whatever is in them, however far apart, with text that was used before.
        #[test]
        fn what_is_read_is_what_was_added(
            few in prop::collection::vec((0..9_000_000_u64, any::<String>(), "[a-z]{0,20}"), 1..20),
            many in 0..300_u64,
        ) {
            let few = few.iter().map(|(ms, key, model)| record(*ms, key, model));
            let many = (0..many).map(|n| record(n * 40_000, "k", &n.to_string()));
            let records: Vec<_> = few.chain(many).collect();
            let mut batch = Batch::default();
            for records in [&records[..], &records[..records.len() / 2]] {
                put_together(&mut batch, records);
                let mut read_back = Vec::new();
                for row in batch.rows() {
                    let [ValueRef::Text(names), ValueRef::Text(lines)] = row.texts() else {
                        panic!("no text");
                    };
                    let text = |bytes| std::str::from_utf8(bytes).unwrap();
                    let whole = row.first..row.last + 1;
                    prop_assert_eq!(usage::floor(row.first), usage::floor(row.last));
                    read_back.extend(read(row.base, text(names), text(lines), &whole).unwrap());
                }
                read_back.sort_by(|a, b| a.0.cmp(&b.0));
                let mut sums: Vec<_> = batch.sums().map(|(g, s)| (g.clone(), *s)).collect();
                sums.sort_by(|a, b| a.0.cmp(&b.0));
                prop_assert_eq!(&read_back, &sums);
                let mut groups: Vec<_> = records.iter().map(|r| Group::of(r, r.model.clone())).collect();
                groups.sort();
                groups.dedup();
                prop_assert_eq!(groups, sums.into_iter().map(|(g, _)| g).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn what_we_did_not_write_is_damaged() {
        let time = 0..1;
        let names = r#"[["g","k","s","m"]]"#;
        for (names, records) in [
            (names, "[[0,1,200,1,1,1,1,null,null,0]]"),
            (names, "[[0,0,200,1,1,1,1,null,null]]"),
            (names, "[[0,0,200"),
            ("[[1]]", "[]"),
        ] {
            let read = read(0, names, records, &time);
            assert_eq!(read.err(), Some(StoreError::Damaged), "{records}");
        }
    }

    /// What operators ask with SQL.
    #[test]
    fn the_view_has_each_record_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tollgate.db");
        let store = Sqlite::open(&path, options()).unwrap();
        // It began before the first one.
        store.record(record(10, "a", "m"));
        store.record(UsageRecord {
            at: at(3),
            key: "".into(),
            service: "".into(),
            status: 499,
            estimated: true,
            first_byte: None,
            cost: None,
            ..record(0, "", "ä\"\\")
        });
        // Of another hour.
        store.record(record(HOUR as u64, "a", "m"));
        assert!(store.flush(Duration::from_secs(60)));
        let other = Connection::open(&path).unwrap();
        let one = "SELECT json_array(at, gateway, key, service, model, status, input, cached, output, estimated,
            duration_us, first_byte_us, cost) FROM record ORDER BY at";
        let mut select = other.prepare(one).unwrap();
        let rows = select.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let rows: Vec<_> = rows.map(Result::unwrap).collect();
        let noon = usage::milliseconds(at(0));
        let usual = |at: i64| {
            let at = noon + at;
            format!(r#"[{at},"main","a","qwen","m",200,10,4,3,0,20000,5000,1500000]"#)
        };
        let begun = noon + 3;
        let odd = format!(r#"[{begun},"main","","","ä\"\\",499,10,4,3,1,20000,null,null]"#);
        assert_eq!(rows, [odd, usual(10), usual(HOUR)]);
    }
}
