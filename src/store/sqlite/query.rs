//! Questions about usage. Each sees one state of the file, whatever is written meanwhile.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::SystemTime;

use rusqlite::{Connection, params};

use super::super::anomaly::{Activity, History};
use super::super::usage::{self, By, Plan, Query, Row, Sums};
use super::super::{StoreError, anomaly};
use super::batch;

pub(super) fn usage(connection: &mut Connection, query: &Query) -> Result<Vec<Row>, StoreError> {
    let transaction = connection.transaction()?;
    let records_from = transaction.query_row(
        "SELECT value FROM meta WHERE name = 'records_from'",
        [],
        |row| row.get(0),
    )?;
    let (since, until) = (query.since, query.until);
    let (since, until) = (usage::milliseconds(since), usage::milliseconds(until));
    let Plan { hours, edges } = Plan::new(since, until, records_from);
    let mut groups = BTreeMap::new();
    whole(&transaction, query, hours, &mut groups)?;
    for edge in edges {
        broken(&transaction, query, edge, &mut groups)?;
    }
    let mut rows: Vec<Row> = groups.into_iter().map(|(n, sums)| sums.row(n)).collect();
    usage::sort(query.by, &mut rows);
    Ok(rows)
}

/// Adds what is answered from the sums.
fn whole(
    connection: &Connection,
    query: &Query,
    hours: Range<i64>,
    groups: &mut BTreeMap<String, Sums>,
) -> Result<(), StoreError> {
    let name = match query.by {
        By::Key => "key",
        By::Model => "model",
        By::Service => "service",
        By::Gateway => "gateway",
        By::Day => "date(hour, 'unixepoch')",
    };
    let mut select = connection.prepare(&format!(
        "SELECT {name} AS name, sum(requests), sum(errors), sum(input), sum(cached), sum(output), sum(cost)
         FROM rollup WHERE hour >= ?1 AND hour < ?2
         AND (?3 IS NULL OR gateway = ?3) AND (?4 IS NULL OR key = ?4) GROUP BY name"
    ))?;
    let asked = params![hours.start, hours.end, query.gateway, query.key];
    let mut rows = select.query(asked)?;
    while let Some(row) = rows.next()? {
        *groups.entry(row.get(0)?).or_default() += Sums {
            requests: row.get(1)?,
            errors: row.get(2)?,
            input: row.get(3)?,
            cached: row.get(4)?,
            output: row.get(5)?,
            cost: row.get(6)?,
            duration: 0,
        };
    }
    Ok(())
}

/// Adds the records of a part of an hour. Only batches of that hour that overlap with it are read.
fn broken(
    connection: &Connection,
    query: &Query,
    edge: Range<i64>,
    groups: &mut BTreeMap<String, Sums>,
) -> Result<(), StoreError> {
    if edge.is_empty() {
        return Ok(());
    }
    let mut select = connection.prepare(
        "SELECT base, names, records FROM batch WHERE last >= ?1 AND last < ?2 AND first < ?3",
    )?;
    let mut rows = select.query([edge.start, usage::ceil(edge.end), edge.end])?;
    while let Some(row) = rows.next()? {
        let (names, records) = (row.get_ref(1)?.as_str(), row.get_ref(2)?.as_str());
        let (Ok(names), Ok(records)) = (names, records) else {
            return Err(StoreError::Damaged);
        };
        for (group, sums) in batch::read(row.get(0)?, names, records, &edge)? {
            let wrong = |asked: &Option<String>, is: &str| asked.as_ref().is_some_and(|a| a != is);
            if !wrong(&query.gateway, &group.gateway) && !wrong(&query.key, &group.key) {
                *groups.entry(query.by.name(&group)).or_default() += sums;
            }
        }
    }
    Ok(())
}

pub(super) fn hourly(
    connection: &Connection,
    until: SystemTime,
    hours: u32,
) -> Result<Vec<History>, StoreError> {
    let window = anomaly::window(until, hours);
    let mut select = connection.prepare(
        "SELECT gateway, key, first, hour, requests, errors, tokens FROM (
             SELECT gateway, key, hour, sum(requests) AS requests, sum(errors) AS errors, sum(input + output) AS tokens
             FROM rollup WHERE hour >= ?1 AND hour < ?2 GROUP BY gateway, key, hour
         ) JOIN seen USING (gateway, key) ORDER BY gateway, key, hour",
    )?;
    let mut rows = select.query([window.start, window.end])?;
    let mut histories: Vec<History> = Vec::new();
    while let Some(row) = rows.next()? {
        let (gateway, key): (String, String) = (row.get(0)?, row.get(1)?);
        let count = |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.unsigned_abs());
        let activity = Activity {
            requests: count(4)?,
            errors: count(5)?,
            tokens: count(6)?,
        };
        let known = histories
            .last_mut()
            .filter(|history| history.gateway == gateway && history.key == key);
        let (first, hour) = (row.get(2)?, row.get(3)?);
        match known {
            Some(history) => history.set(&window, hour, activity),
            None => {
                let mut history = History::new(gateway, key, &window, first);
                history.set(&window, hour, activity);
                histories.push(history);
            }
        }
    }
    Ok(histories)
}
