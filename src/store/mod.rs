//! What outlives a process: resources, what was used, and what budgets have counted.
//!
//! A [`Store`] is either [`Memory`], which is gone with the process, or [`Sqlite`], one file. Resources and counters are durable when
//! the call returns; usage is handed over without waiting and written soon after. Callers of everything but [`Store::record`] and
//! [`Store::health`] may wait for the disk, so they stay off the threads that serve requests.
//!
//! Invariant: [`Store::record`] never waits for the disk and never fails; what it could not keep is counted in [`Health::dropped`].

pub mod anomaly;
mod buffer;
mod error;
mod memory;
mod models;
mod resource;
mod sqlite;
#[cfg(test)]
mod tests;
mod usage;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use anomaly::{Activity, Anomaly, History, What};
pub use error::StoreError;
pub use memory::Memory;
pub use resource::{Added, Change, Counter, Resource};
pub use sqlite::{Options, Sqlite};
pub use usage::{By, MODEL_BYTES, OTHER, Query, Row, UsageRecord};

/// Where state is kept.
pub trait Store: Send + Sync {
    /// All resources of a kind, by gateway and name.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn list(&self, kind: &str) -> Result<Vec<Resource>, StoreError>;

    /// Makes all of these changes or none, and returns the store's new revision, one more than before. They are durable then. Deleting
    /// what is not there is no error. An empty list changes nothing, not even the revision.
    ///
    /// The configuration's revision is the store's: a configuration that comes into force without a change here is counted by [`Store::advance`].
    ///
    /// # Errors
    /// [`StoreError::Stale`] when `expected` is given and is not the present revision; others when the file cannot be written.
    fn apply(&self, changes: &[Change], expected: Option<u64>) -> Result<u64, StoreError>;

    /// Counts the revision up, at least to this number, and returns it: no revision of a configuration comes twice, also after a restart.
    ///
    /// # Errors
    /// When the file cannot be written.
    fn advance(&self, least: u64) -> Result<u64, StoreError>;

    /// The present revision: how many times resources were changed, and what [`Store::advance`] added.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn revision(&self) -> Result<u64, StoreError>;

    /// Takes note of an exchange. Never waits for the disk; may be called where requests are served.
    fn record(&self, record: UsageRecord);

    /// Writes what was recorded before this call; `false` if that was not done within `patience`.
    fn flush(&self, patience: Duration) -> bool;

    /// What was used, in groups: by day sorted by name, else the group with most requests first. What is not yet written is written first,
    /// for which a second is waited at most.
    ///
    /// It is exact as long as the records of the first and the last hour are kept; where they are gone, that hour counts whole.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn usage(&self, query: &Query) -> Result<Vec<Row>, StoreError>;

    /// What each key did in each of the last `hours` whole hours before `until`, for [`anomaly::anomalies`]. Keys that did nothing in that time
    /// are left out.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn hourly(&self, until: SystemTime, hours: u32) -> Result<Vec<History>, StoreError>;

    /// Adds to what was counted, and tells how each of these counters stands now, with what other processes counted. For the same limit and the
    /// same `who` a later period takes the place of an earlier one, and an earlier one that comes late is left out. Nothing falls below 0.
    ///
    /// # Errors
    /// When the file cannot be written.
    fn count(&self, added: &[Added]) -> Result<Vec<Counter>, StoreError>;

    /// What was counted: the last period of every limit and `who`.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn counters(&self) -> Result<Vec<Counter>, StoreError>;

    /// What is gone with this process, unless another is told it: the revision, and resources of whatever kind. Nothing where another process that opens
    /// the store finds in it what this one wrote.
    fn unshared(&self) -> Option<(u64, Vec<Resource>)>;

    /// How the store stands. Never waits for the disk.
    fn health(&self) -> Health;
}

/// How a store stands, for `/readyz` and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What is recorded is also written.
    pub ok: bool,
    /// If not, why, without any path.
    pub reason: Option<String>,
    /// Records that wait to be written.
    pub buffered: usize,
    /// Records that were lost since the start because too many waited.
    pub dropped: u64,
}

/// Opens what `server.state` names: `memory`, or a file, which is made if it is not there.
///
/// # Errors
/// [`StoreError::Unsupported`] for a URL; others when the file cannot be opened.
pub fn open(state: &str, options: Options) -> Result<Arc<dyn Store>, StoreError> {
    if state == "memory" {
        return Ok(Arc::new(Memory::default()));
    }
    match state.split_once("://") {
        Some((scheme, _)) => Err(StoreError::Unsupported {
            scheme: scheme.to_owned(),
        }),
        None => Ok(Arc::new(Sqlite::open(Path::new(state), options)?)),
    }
}
