//! Writing usage: records with the sums they belong to, and deleting what is old.
//!
//! Statements are kept ready, since most of a small batch would else be their preparation.
//!
//! Invariant: a record and its part of the sums are written by one transaction.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, Transaction, params};

use super::super::StoreError;
use super::super::models::Models;
use super::super::usage::{self, UsageRecord};
use super::batch::Batch;

/// Batches of records deleted at once, so that nobody waits long for it.
const DELETED: i64 = 100;

/// Writes a batch.
pub(super) fn batch(
    transaction: &Transaction<'_>,
    batch: &mut Batch,
    models: &mut Models,
    records: &[UsageRecord],
) -> Result<(), StoreError> {
    batch.clear();
    for record in records {
        batch.add(record, || {
            models.name(record, |hour, gateway| known(transaction, hour, gateway))
        })?;
    }
    models.forget();
    let mut insert = transaction.prepare(
        "INSERT INTO batch (base, first, last, count, names, records) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for row in batch.rows() {
        let [names, records] = row.texts().map(ToSqlOutput::Borrowed);
        insert.execute(params![
            row.base, row.first, row.last, row.count, names, records,
        ])?;
    }
    add(transaction, batch)
}

/// The names of models that already count in an hour.
fn known(
    connection: &Connection,
    hour: i64,
    gateway: &str,
) -> Result<HashSet<Arc<str>>, rusqlite::Error> {
    let mut select =
        connection.prepare("SELECT DISTINCT model FROM rollup WHERE hour = ?1 AND gateway = ?2")?;
    let names = select.query_map(params![hour, gateway], |row| row.get::<_, Arc<str>>(0))?;
    names.collect()
}

fn add(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), StoreError> {
    let mut add = transaction.prepare(
        "INSERT INTO rollup (hour, gateway, key, service, model, requests, errors, input, cached, output, cost,
         duration_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, errors = errors + excluded.errors,
         input = input + excluded.input, cached = cached + excluded.cached, output = output + excluded.output,
         cost = cost + excluded.cost, duration_us = duration_us + excluded.duration_us",
    )?;
    let mut see = transaction.prepare(
        "INSERT INTO seen (gateway, key, first, last) VALUES (?1, ?2, ?3, ?3)
         ON CONFLICT DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last)
         WHERE excluded.first < first OR excluded.last > last",
    )?;
    let mut seen = HashSet::new();
    for (group, sums) in batch.sums() {
        add.execute(params![
            group.hour,
            &*group.gateway,
            &*group.key,
            &*group.service,
            &*group.model,
            sums.requests,
            sums.errors,
            sums.input,
            sums.cached,
            sums.output,
            sums.cost,
            sums.duration,
        ])?;
        if seen.insert((group.hour, &group.gateway, &group.key)) {
            see.execute(params![&*group.gateway, &*group.key, group.hour])?;
        }
    }
    Ok(())
}

/// Deletes a little of what is older than it is kept; whether there is more. Records go by whole hours, which no
/// batch crosses, so that a question about such an hour finds either all of them or is answered from the sums.
pub(super) fn delete_old(
    transaction: &Transaction<'_>,
    now: SystemTime,
    keep_records: Duration,
    keep_rollups: Duration,
) -> Result<bool, StoreError> {
    let before = |keep: Duration| {
        let at = now.checked_sub(keep).unwrap_or(SystemTime::UNIX_EPOCH);
        usage::floor(usage::milliseconds(at))
    };
    let records = before(keep_records);
    transaction.execute(
        "UPDATE meta SET value = max(value, ?1) WHERE name = 'records_from'",
        [records],
    )?;
    let deleted = transaction.execute(
        "DELETE FROM batch WHERE rowid IN (SELECT rowid FROM batch WHERE last < ?1 LIMIT ?2)",
        [records, DELETED],
    )?;
    if deleted as i64 == DELETED {
        return Ok(true);
    }
    let rollups = before(keep_rollups) / 1000;
    let deleted = transaction.execute(
        "DELETE FROM rollup WHERE hour = (SELECT min(hour) FROM rollup WHERE hour < ?1)",
        [rollups],
    )?;
    transaction.execute("DELETE FROM seen WHERE last < ?1", [rollups])?;
    transaction.execute("DELETE FROM counter WHERE period < ?1", [rollups])?;
    Ok(deleted > 0)
}
