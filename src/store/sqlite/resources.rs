//! Resources and counters in SQL.
//!
//! Invariant: the revision is read and counted up in the transaction that makes the change, so that it is right with other processes, too.

use rusqlite::{Connection, Transaction, params};
use serde_json::Value;

use super::super::{Added, Change, Counter, Resource, StoreError};

pub(super) fn list(connection: &Connection, kind: &str) -> Result<Vec<Resource>, StoreError> {
    let mut select = connection.prepare(
        "SELECT name, gateway, revision, body FROM resource WHERE kind = ?1 ORDER BY gateway, name",
    )?;
    let mut rows = select.query([kind])?;
    let mut resources = Vec::new();
    while let Some(row) = rows.next()? {
        let gateway: String = row.get(1)?;
        let body: String = row.get(3)?;
        resources.push(Resource {
            kind: kind.to_owned(),
            name: row.get(0)?,
            gateway: (!gateway.is_empty()).then_some(gateway),
            revision: count_of(row.get(2)?),
            body: serde_json::from_str(&body).map_err(|_| StoreError::Damaged)?,
        });
    }
    Ok(resources)
}

pub(super) fn revision(connection: &Connection) -> Result<u64, StoreError> {
    let select = "SELECT value FROM meta WHERE name = 'revision'";
    Ok(count_of(
        connection.query_row(select, [], |row| row.get(0))?,
    ))
}

pub(super) fn apply(
    transaction: &Transaction<'_>,
    changes: &[Change],
    expected: Option<u64>,
) -> Result<u64, StoreError> {
    let now = revision(transaction)?;
    if expected.is_some_and(|expected| expected != now) {
        return Err(StoreError::Stale { now });
    }
    if changes.is_empty() {
        return Ok(now);
    }
    let next = now + 1;
    for change in changes {
        match change {
            Change::Put {
                kind,
                name,
                gateway,
                body,
            } => put(transaction, kind, name, gateway.as_deref(), body, next)?,
            Change::Delete {
                kind,
                name,
                gateway,
            } => {
                transaction.execute(
                    "DELETE FROM resource WHERE kind = ?1 AND gateway = ?2 AND name = ?3",
                    [kind, gateway.as_deref().unwrap_or_default(), name],
                )?;
            }
        }
    }
    set_revision(transaction, next)?;
    Ok(next)
}

pub(super) fn advance(transaction: &Transaction<'_>, least: u64) -> Result<u64, StoreError> {
    let next = (revision(transaction)? + 1).max(least);
    set_revision(transaction, next)?;
    Ok(next)
}

fn set_revision(transaction: &Transaction<'_>, revision: u64) -> Result<(), StoreError> {
    let update = "UPDATE meta SET value = ?1 WHERE name = 'revision'";
    transaction.execute(update, [integer(revision)])?;
    Ok(())
}

fn put(
    transaction: &Transaction<'_>,
    kind: &str,
    name: &str,
    gateway: Option<&str>,
    body: &Value,
    revision: u64,
) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO resource (kind, gateway, name, revision, body) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET revision = excluded.revision, body = excluded.body",
        params![
            kind,
            gateway.unwrap_or_default(),
            name,
            integer(revision),
            body.to_string()
        ],
    )?;
    Ok(())
}

pub(super) fn count(
    transaction: &Transaction<'_>,
    added: &[Added],
) -> Result<Vec<Counter>, StoreError> {
    let mut add = transaction.prepare(
        "INSERT INTO counter (limit_id, who, period, used) VALUES (?1, ?2, ?3, max(?4, 0))
         ON CONFLICT DO UPDATE SET period = excluded.period,
         used = CASE WHEN excluded.period > period THEN excluded.used
         ELSE max(min(used, 9223372036854775807 - max(?4, 0)) + ?4, 0) END
         WHERE excluded.period >= period",
    )?;
    let mut look =
        transaction.prepare("SELECT period, used FROM counter WHERE limit_id = ?1 AND who = ?2")?;
    let mut counted = Vec::with_capacity(added.len());
    for added in added {
        add.execute(params![added.limit, added.who, added.period, added.by])?;
        counted.push(look.query_row([&added.limit, &added.who], |row| {
            Ok(Counter {
                limit: added.limit.clone(),
                who: added.who.clone(),
                period: row.get(0)?,
                used: count_of(row.get(1)?),
            })
        })?);
    }
    Ok(counted)
}

pub(super) fn counters(connection: &Connection) -> Result<Vec<Counter>, StoreError> {
    let mut select = connection
        .prepare("SELECT limit_id, who, period, used FROM counter ORDER BY limit_id, who")?;
    let counters = select.query_map([], |row| {
        Ok(Counter {
            limit: row.get(0)?,
            who: row.get(1)?,
            period: row.get(2)?,
            used: count_of(row.get(3)?),
        })
    })?;
    Ok(counters.collect::<Result<_, _>>()?)
}

/// SQLite's integers have a sign; nothing counted here comes near the end of either.
fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn count_of(integer: i64) -> u64 {
    u64::try_from(integer).unwrap_or(0)
}
