//! What can go wrong with a store, by cause. No message holds a path: whoever opened the file knows it, and others need not.

use rusqlite::{Error, ErrorCode};

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The caller looked at an older revision than the present one.
    #[error("the store is at revision {now}, not at the one expected: read it again")]
    Stale {
        /// The present revision.
        now: u64,
    },
    /// A later version of Tollgate wrote the file.
    #[error(
        "the state file has version {found}, and this Tollgate knows versions up to {known}: run the newer Tollgate, or name another file in server.state"
    )]
    Newer {
        /// The file's version.
        found: i64,
        /// The latest version that is known.
        known: i64,
    },
    /// It is an SQLite file with tables that are not Tollgate's.
    #[error("the state file is the database of something else: name another file in server.state")]
    Foreign,
    /// It is no SQLite file, or parts of it cannot be understood.
    #[error(
        "the state file is damaged or no SQLite database: restore a copy, or name another file in server.state"
    )]
    Damaged,
    /// Another process held the file for longer than the busy timeout.
    #[error("another process holds the state file: wait for it or end it")]
    Busy,
    /// The file, its folder or its file system cannot be written.
    #[error(
        "the state file cannot be written: look at its permissions, its folder's and the mount"
    )]
    ReadOnly,
    /// There is no room for more.
    #[error("there is no room for the state file to grow: make room on its disk")]
    Full,
    /// The file is not where it was opened.
    #[error("the state file was moved or deleted: put it back, or restart to begin a new one")]
    Missing,
    /// It could not be opened or made.
    #[error(
        "the state file cannot be opened: its folder must exist, and both must be readable and writable"
    )]
    Unopened,
    /// The system failed a read or a write.
    #[error("reading or writing the state file failed (SQLite code {code}): look at its disk")]
    Io {
        /// SQLite's extended result code.
        code: i32,
    },
    /// A URL of a kind of store that this version does not have.
    #[error("there is no store of the kind `{scheme}`: name a file in server.state, or `memory`")]
    Unsupported {
        /// What stood before `://`.
        scheme: String,
    },
    /// SQLite refused for a reason that is none of the above.
    #[error("SQLite refused: {message}")]
    Refused {
        /// SQLite's message.
        message: String,
    },
    /// The store's writer has ended.
    #[error("the store is closed")]
    Closed,
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error.sqlite_error() {
            Some(failure) => match failure.code {
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy,
                ErrorCode::ReadOnly | ErrorCode::PermissionDenied => StoreError::ReadOnly,
                ErrorCode::DiskFull => StoreError::Full,
                ErrorCode::CannotOpen => StoreError::Unopened,
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Damaged,
                ErrorCode::SystemIoFailure => StoreError::Io {
                    code: failure.extended_code,
                },
                _ => StoreError::Refused {
                    message: error.to_string(),
                },
            },
            // A value of another type than the schema allows: not what we wrote.
            None => StoreError::Damaged,
        }
    }
}
