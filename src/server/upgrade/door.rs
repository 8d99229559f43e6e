//! Where a process that somebody else started finds the one it is to take over from: a socket in a folder that only its owner can enter.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

/// Listens there, in the place of whoever listened there before; unless it is `first`, which must find nobody.
pub(in crate::server) fn open(path: &Path, first: bool) -> io::Result<UnixListener> {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Err(io::ErrorKind::InvalidInput.into()),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let found = fs::metadata(folder)?;
    if found.mode() & 0o077 != 0 || found.uid() != geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "others can enter its folder: name one that is this user's alone (mode 0700), or one that is not there yet",
        ));
    }
    if first && UnixStream::connect(path).is_ok() {
        let why = "another process listens there: take over from it with --upgrade, or end it";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether it is the same user, or root, who came in.
pub(in crate::server) fn is_ours(stream: &UnixStream) -> bool {
    socket_peercred(stream).is_ok_and(|who| who.uid.is_root() || who.uid == geteuid())
}
