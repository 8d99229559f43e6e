//! The admin API's unix socket of this process: had from the start, or taken from a predecessor once this process serves.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::StartError;
use crate::admin::Socket;
use crate::model::{Admin, SocketPath};

/// The socket, if there is to be one.
#[derive(Clone)]
pub(super) struct AdminSocket {
    path: Option<PathBuf>,
    bound: Arc<OnceLock<Socket>>,
}

impl AdminSocket {
    /// As configured; nothing is listened on yet.
    pub(super) fn of(admin: &Admin) -> AdminSocket {
        AdminSocket {
            path: admin.socket.clone().map(|SocketPath(path)| path),
            bound: Arc::default(),
        }
    }

    /// Listens, where nobody else may.
    pub(super) fn open(&self) -> Result<(), StartError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let bound = Socket::bind(path).map_err(|error| StartError::Socket {
            path: path.clone(),
            error,
        })?;
        self.keep(bound);
        Ok(())
    }

    /// Listens in the place of a predecessor, which goes on with those that it has.
    pub(super) fn replace(&self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.keep(Socket::replace(path)?);
        }
        Ok(())
    }

    fn keep(&self, bound: Socket) {
        // It is bound once.
        let _ = self.bound.set(bound);
    }

    /// What is listened on.
    pub(super) fn get(&self) -> Option<&Socket> {
        self.bound.get()
    }

    /// Takes the file away, unless a successor's is in its place.
    pub(super) fn remove(&self) {
        if let Some(socket) = self.get() {
            socket.remove();
        }
    }
}
