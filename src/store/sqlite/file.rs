//! The file: opening it, knowing it again, and writing to it.
//!
//! A file that is moved or deleted stays open, and what is written to it then is lost without a sign. So before each transaction the
//! path is looked at: no file there is an error that ends when it is back, another one there is opened in its place. A new one is never made
//! then: keys that seem deleted would lock everybody out.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::super::StoreError;
use super::{Options, schema};

pub(super) struct File {
    path: PathBuf,
    pub(super) options: Options,
    connection: Connection,
    identity: Identity,
    /// Shared with those who ask.
    reader: Arc<Mutex<Connection>>,
    /// Whether commits wait for the disk.
    durable: bool,
}

/// Device and inode: which file a path leads to.
type Identity = (u64, u64);

impl File {
    pub(super) fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        create(path)?;
        let (connection, reader, identity) = connect(path, &options)?;
        Ok(Self {
            path: path.to_owned(),
            options,
            connection,
            identity,
            reader: Arc::new(Mutex::new(reader)),
            durable: true,
        })
    }

    /// The connection of those who ask.
    pub(super) fn reader(&self) -> Arc<Mutex<Connection>> {
        self.reader.clone()
    }

    /// Does something as a whole or not at all. `durable`: also the machine's death does not undo it.
    pub(super) fn transact<T>(
        &mut self,
        durable: bool,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.find()?;
        if durable != self.durable {
            let level = if durable { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.durable = durable;
        }
        let immediate = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(immediate)?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// Looks whether the file is where it was.
    fn find(&mut self) -> Result<(), StoreError> {
        if identity(&self.path)? == self.identity {
            return Ok(());
        }
        let (connection, reader, identity) = connect(&self.path, &self.options)?;
        // Readers go first, so that nobody asks a file that is no longer written.
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = reader;
        self.connection = connection;
        self.identity = identity;
        self.durable = true;
        log::warn!("another state file is in the place of the one that was open; it is used now");
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// Makes the file if there is none. It holds hashes of keys, so nobody else may read it; SQLite gives the files beside it the same mode.
fn create(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            ErrorKind::AlreadyExists => Ok(()),
            ErrorKind::ReadOnlyFilesystem => Err(StoreError::ReadOnly),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Err(StoreError::Full),
            _ => Err(StoreError::Unopened),
        },
    }
}

fn identity(path: &Path) -> Result<Identity, StoreError> {
    let found = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => StoreError::Missing,
        _ => StoreError::Unopened,
    })?;
    Ok((found.dev(), found.ino()))
}

/// A connection to write, one to read, and which file they are of.
fn connect(
    path: &Path,
    options: &Options,
) -> Result<(Connection, Connection, Identity), StoreError> {
    // One thread at a time uses a connection; without the flag for URIs a path is a path.
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let identity = identity(path)?;
    let write = flags | OpenFlags::SQLITE_OPEN_READ_WRITE;
    let mut connection = Connection::open_with_flags(path, write)?;
    connection.busy_timeout(options.busy)?;
    if connection.is_readonly("main")? {
        return Err(StoreError::ReadOnly);
    }
    schema::prepare(&mut connection, &schema::SCRIPTS, options.busy)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A log that grew while somebody read for long is cut again.
    connection.query_row("PRAGMA journal_size_limit = 67108864", [], |_| Ok(()))?;
    let read = flags | OpenFlags::SQLITE_OPEN_READ_ONLY;
    let reader = Connection::open_with_flags(path, read)?;
    reader.busy_timeout(options.busy)?;
    Ok((connection, reader, identity))
}
