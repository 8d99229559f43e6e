//! A store in one SQLite file.
//!
//! One thread owns the connection that writes; everything that writes is a job for it, so that nothing within the process waits for a lock
//! of SQLite's. Questions have a read-only connection of their own, which the write-ahead log keeps free. Other processes may use the
//! file at the same time.
//!
//! Invariant: resources and counters are on the disk when the call returns (`synchronous = FULL`); records survive the process's death
//! once written, and the machine's at the latest from the next of those calls or checkpoint on (`NORMAL`).

mod batch;
mod file;
mod line;
mod query;
mod resources;
mod schema;
#[cfg(test)]
mod tests;
mod write;
mod writer;

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::buffer::{Buffer, Pace};
use super::{
    Added, Change, Counter, Health, History, Query, Resource, Row, Store, StoreError, UsageRecord,
};
use file::File;
use writer::Writer;

/// How long a question waits for what is not yet written.
const PATIENCE: Duration = Duration::from_secs(1);

/// What can be chosen about a file; the default is right for a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Records that may wait to be written; 100,000. Some 300 bytes each.
    pub capacity: usize,
    /// Waiting records that are written at once; 1,000.
    pub batch: usize,
    /// How long a record waits for others; 500 ms.
    pub interval: Duration,
    /// How long to wait for another process; 5 s.
    pub busy: Duration,
    /// How long records are kept; 30 days.
    pub keep_records: Duration,
    /// How long sums by the hour, and counters, are kept; 400 days.
    pub keep_rollups: Duration,
    /// Names of models that are told apart in an hour of a gateway; 10,000.
    pub models: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capacity: 100_000,
            batch: 1_000,
            interval: Duration::from_millis(500),
            busy: Duration::from_secs(5),
            keep_records: Duration::from_hours(30 * 24),
            keep_rollups: Duration::from_hours(400 * 24),
            models: 10_000,
        }
    }
}

/// A store in one SQLite file. Dropping it writes what waits, if that can be done at once.
pub struct Sqlite {
    buffer: Arc<Buffer<File>>,
    reader: Arc<Mutex<Connection>>,
    writer: Option<JoinHandle<()>>,
}

impl Sqlite {
    /// Opens a file, or makes it, readable by its owner only.
    ///
    /// # Errors
    /// When the file is not Tollgate's, is of a newer version, or cannot be written.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let pace = Pace {
            capacity: options.capacity,
            batch: options.batch.max(1),
            interval: options.interval,
        };
        let buffer = Arc::new(Buffer::new(pace));
        let file = File::open(path, options)?;
        let reader = file.reader();
        let writer = Writer::new(file, buffer.clone());
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Refused {
                message: format!("its thread could not be started: {error}"),
            })?;
        Ok(Self {
            buffer,
            reader,
            writer: Some(writer),
        })
    }

    /// Lets the writer do something and waits for it.
    fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut File) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = sync_channel(1);
        self.buffer.ask(Box::new(move |file| {
            // Nobody can have stopped waiting.
            let _ = sender.send(job(file));
        }));
        receiver.recv().map_err(|_| StoreError::Closed)?
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A question that panicked has changed nothing.
        read(&mut self.reader.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store for Sqlite {
    fn list(&self, kind: &str) -> Result<Vec<Resource>, StoreError> {
        self.read(|connection| resources::list(connection, kind))
    }

    fn apply(&self, changes: &[Change], expected: Option<u64>) -> Result<u64, StoreError> {
        let changes = changes.to_vec();
        self.write(move |file| {
            file.transact(true, |transaction| {
                resources::apply(transaction, &changes, expected)
            })
        })
    }

    fn advance(&self, least: u64) -> Result<u64, StoreError> {
        self.write(move |file| {
            file.transact(true, |transaction| resources::advance(transaction, least))
        })
    }

    fn revision(&self) -> Result<u64, StoreError> {
        self.read(|connection| resources::revision(connection))
    }

    fn record(&self, mut record: UsageRecord) {
        record.bound();
        self.buffer.push(record);
    }

    fn flush(&self, patience: Duration) -> bool {
        self.buffer.flush(patience, false)
    }

    fn usage(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        self.buffer.flush(PATIENCE, true);
        self.read(|connection| query::usage(connection, query))
    }

    fn hourly(&self, until: SystemTime, hours: u32) -> Result<Vec<History>, StoreError> {
        self.buffer.flush(PATIENCE, true);
        self.read(|connection| query::hourly(connection, until, hours))
    }

    fn count(&self, added: &[Added]) -> Result<Vec<Counter>, StoreError> {
        let added = added.to_vec();
        self.write(move |file| {
            file.transact(true, |transaction| resources::count(transaction, &added))
        })
    }

    fn counters(&self) -> Result<Vec<Counter>, StoreError> {
        self.read(|connection| resources::counters(connection))
    }

    fn unshared(&self) -> Option<(u64, Vec<Resource>)> {
        None
    }

    fn health(&self) -> Health {
        self.buffer.health()
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.buffer.close();
        if let Some(writer) = self.writer.take() {
            // It has said so itself if it ended badly.
            let _ = writer.join();
        }
    }
}
