//! Questions about usage in SQL. Each sees one state of the file, whatever is written meanwhile.

use std::time::SystemTime;

use rusqlite::{Connection, params};

use super::super::anomaly::{Activity, History};
use super::super::usage::{self, By, Plan, Query, Row, Sums};
use super::super::{StoreError, anomaly};

/// What a group is called, from the sums and from the records.
fn names(by: By) -> (&'static str, &'static str) {
    match by {
        By::Key => ("key", "key"),
        By::Model => ("model", "model"),
        By::Service => ("service", "service"),
        By::Gateway => ("gateway", "gateway"),
        By::Day => ("date(hour, 'unixepoch')", "date(at / 1000, 'unixepoch')"),
    }
}

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
    let (in_sums, in_records) = names(query.by);
    let mine = "(?7 IS NULL OR gateway = ?7) AND (?8 IS NULL OR key = ?8)";
    let edge = |from: u8, to: u8| {
        format!(
            "SELECT {in_records}, 1, status >= 400 AND status <> 499, input, cached, output, coalesce(cost, 0)
             FROM record WHERE at >= ?{from} AND at < ?{to} AND {mine}"
        )
    };
    let (first, last) = (edge(3, 4), edge(5, 6));
    let mut select = transaction.prepare(&format!(
        "SELECT name, sum(requests), sum(errors), sum(input), sum(cached), sum(output), sum(cost) FROM (
             SELECT {in_sums} AS name, requests, errors, input, cached, output, cost
             FROM rollup WHERE hour >= ?1 AND hour < ?2 AND {mine}
             UNION ALL {first} UNION ALL {last}
         ) GROUP BY name"
    ))?;
    let [first, last] = edges;
    let rows = select.query_map(
        params![
            hours.start,
            hours.end,
            first.start,
            first.end,
            last.start,
            last.end,
            query.gateway,
            query.key
        ],
        |row| {
            let sums = Sums {
                requests: row.get(1)?,
                errors: row.get(2)?,
                input: row.get(3)?,
                cached: row.get(4)?,
                output: row.get(5)?,
                cost: row.get(6)?,
                duration: 0,
            };
            Ok(sums.row(row.get(0)?))
        },
    )?;
    let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
    usage::sort(query.by, &mut rows);
    Ok(rows)
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
