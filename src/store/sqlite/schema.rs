//! The tables, and how a file of an earlier version gets them.
//!
//! Version *n* of the schema is what the first *n* scripts make; SQLite's `user_version` holds *n*. A script that was released is never
//! changed: a new one is added. All that a file lacks is run in one transaction, so that there is no version in between.

use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::super::StoreError;

/// The scripts, the first version's first.
pub(super) const SCRIPTS: [&str; 1] = [include_str!("001.sql")];
/// What is between two tries to change the journal's mode.
const PAUSE: Duration = Duration::from_millis(10);

/// Makes a file what this version needs. A file that is not to be used is left as it was.
///
/// # Errors
/// [`StoreError::Newer`], [`StoreError::Foreign`], and what reading and writing can come to.
pub(super) fn prepare(
    connection: &mut Connection,
    scripts: &[&str],
    patience: Duration,
) -> Result<(), StoreError> {
    // Both questions in one transaction: whoever makes the tables at this moment has made all of them or none.
    let look = connection.transaction()?;
    version(&look, scripts)?;
    drop(look);
    write_ahead(connection, patience)?;
    // Whoever opens the file at the same time waits here and then finds it done.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction, scripts)?;
    for script in scripts.iter().skip(found) {
        transaction.execute_batch(script)?;
    }
    if found < scripts.len() {
        transaction.pragma_update(None, "user_version", scripts.len() as i64)?;
    }
    Ok(transaction.commit()?)
}

/// How many scripts made the file.
fn version(connection: &Connection, scripts: &[&str]) -> Result<usize, StoreError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = scripts.len() as i64;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'";
    let tables: i64 = connection.query_row(tables, [], |row| row.get(0))?;
    match usize::try_from(found) {
        Ok(0) if tables > 0 => Err(StoreError::Foreign),
        Ok(found) => Ok(found),
        Err(_) => Err(StoreError::Foreign),
    }
}

/// Readers and the writer do not wait for each other with a write-ahead log.
fn write_ahead(connection: &Connection, patience: Duration) -> Result<(), StoreError> {
    let until = Instant::now() + patience;
    loop {
        let mode = connection.query_row("PRAGMA journal_mode = wal", [], |row| {
            row.get::<_, String>(0)
        });
        match mode.map_err(StoreError::from) {
            // The busy timeout does not hold for this change.
            Err(StoreError::Busy) if Instant::now() < until => std::thread::sleep(PAUSE),
            Ok(mode) if mode != "wal" => {
                return Err(StoreError::Refused {
                    message: "the file system of the state file allows no write-ahead log".into(),
                });
            }
            result => return result.map(drop),
        }
    }
}
