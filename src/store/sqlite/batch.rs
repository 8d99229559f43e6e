//! A batch of records as it is kept: sums by group, and for each hour one row with all of its records as text.
//!
//! A row for each record costs ten times as much as everything here. What a record has in common with others, its names, is looked up
//! once by a cheap hash and written once per row; the rest are numbers, appended to text that is used again for the next batch. The
//! text is JSON, so that SQLite's own functions can take it apart; 001.sql says what stands where.
//!
//! Invariant: all records of a row began in the same hour, so that rows grow old by whole hours, and a part of an hour is found in rows of
//! that hour only.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;

use super::super::StoreError;
use super::super::usage::{self, Group, HOUR, Sums, UsageRecord};

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
    pub(super) names: String,
    pub(super) records: String,
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
            for text in [&mut hour.names, &mut hour.records] {
                text.clear();
                text.shrink_to(KEPT);
            }
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
            hour.records.push(']');
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
                && group.hour * 1000 == start
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
        self.records
            .push_str(if self.count == 0 { "[[" } else { ",[" });
        self.count += 1;
        let text = &mut self.records;
        put(text, at - self.base);
        put(text, place);
        put(text, record.status.into());
        put(text, sums.input);
        put(text, sums.cached);
        put(text, sums.output);
        put(text, sums.duration);
        put_or_null(text, record.first_byte.map(usage::microseconds));
        put_or_null(text, record.price());
        text.push_str(if record.estimated { "1]" } else { "0]" });
    }
}

fn put(text: &mut String, number: i64) {
    text.push_str(itoa::Buffer::new().format(number));
    text.push(',');
}

fn put_or_null(text: &mut String, number: Option<i64>) {
    match number {
        Some(number) => put(text, number),
        None => text.push_str("null,"),
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
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let mut hash = hash ^ (text.len() as u64).rotate_left(32);
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word));
    }
    let last = rest
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte));
    fold(hash ^ last)
}

/// What a row's records say, in the order of 001.sql.
#[derive(Deserialize)]
struct Line(
    i64,
    usize,
    u16,
    i64,
    i64,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
    u8,
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
    let lines: Vec<Line> = serde_json::from_str(records).map_err(damaged)?;
    for Line(at, place, status, input, cached, output, duration, _, cost, _) in lines {
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
