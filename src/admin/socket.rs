//! The admin API's unix socket: only its owner may open it, so that its callers need no token.
//!
//! It is made in a folder nobody else can enter, gets its mode there, and is then moved to its place: at no moment can anybody else connect to it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket that listens; its file goes with it.
pub struct Socket {
    path: PathBuf,
    /// What tells its file from another of that name.
    identity: (u64, u64),
    listener: UnixListener,
}

impl Socket {
    /// Listens at `path`. A socket that is there already is replaced if nobody answers on it.
    ///
    /// # Errors
    /// When somebody answers there, when something else is there, or when its folder cannot be written.
    pub fn bind(path: &Path) -> io::Result<Socket> {
        clear(path)?;
        Self::replace(path)
    }

    /// Listens at `path`, whoever does so now: they keep those that have come to them.
    ///
    /// # Errors
    /// When its folder cannot be written.
    pub fn replace(path: &Path) -> io::Result<Socket> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let private = Private::within(folder)?;
        let made = private.0.join("s");
        let listener = UnixListener::bind(&made)?;
        fs::set_permissions(&made, Permissions::from_mode(0o600))?;
        let metadata = fs::symlink_metadata(&made)?;
        fs::rename(&made, path)?;
        listener.set_nonblocking(true)?;
        Ok(Socket {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
            listener,
        })
    }

    /// A listener on it, for tokio; within its runtime.
    pub(super) fn listen(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }

    /// Takes the file away, unless another has taken its place.
    pub fn remove(&self) {
        let there = fs::symlink_metadata(&self.path).map(|m| (m.dev(), m.ino()));
        if there.is_ok_and(|there| there == self.identity) {
            // Who starts next replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Makes sure that nothing at `path` is in anybody's use.
fn clear(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        let why = "there is something else of this name, which is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            let why = "another process answers on it";
            Err(io::Error::new(io::ErrorKind::AddrInUse, why))
        }
    }
}

/// A folder only its owner can enter; gone with this.
struct Private(PathBuf);

impl Private {
    fn within(folder: &Path) -> io::Result<Private> {
        let path = folder.join(format!(".tg-{:08x}", rand::random::<u32>()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Private(path))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0.join("s"));
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_owner_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let socket = Socket::bind(&path).unwrap();
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_stale_one_is_replaced_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        let first = Socket::bind(&path).unwrap();
        let refused = Socket::bind(&path).map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).is_ok());
        // What is in its place by now is another's.
        fs::remove_file(&path).unwrap();
        let second = Socket::bind(&path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert!(Socket::bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert!(Socket::bind(&folder.path().join("none/admin.sock")).is_err());
    }
}
