//! The new side: what the old process offers is used instead of what would have to be made.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;

use super::super::StartError;
use super::link::Link;
use super::{Offer, PATIENCE, Ready, Serving, VARIABLE, VERSION};
use crate::control::{Control, Counted};
use crate::store::Resource;

/// The process that is taken over from.
pub(in crate::server) struct Predecessor {
    link: Link,
    sockets: HashMap<SocketAddr, TcpListener>,
    /// Where this process is to say what it says, once it serves.
    stderr: Option<OwnedFd>,
    revision: u64,
    resources: Vec<Resource>,
}

impl Predecessor {
    /// The process that started this one to be replaced by it, if it was; else the one that listens at `socket`, if one is asked for.
    ///
    /// # Errors
    /// When there should be one, and it does not offer what it should.
    pub(in crate::server) fn find(
        socket: Option<&Path>,
    ) -> Result<Option<Predecessor>, StartError> {
        // Whom it starts in turn has the variable, too, but not the socket.
        let given = socket_domain(io::stdin()).is_ok_and(|of| of == AddressFamily::UNIX);
        let stream = match (std::env::var_os(VARIABLE), socket) {
            (Some(_), _) if given => input(),
            (_, Some(path)) => UnixStream::connect(path),
            _ => return Ok(None),
        };
        let offered = stream.and_then(Link::new).and_then(Self::hear);
        offered
            .map(Some)
            .map_err(|error| wrong(format!("nothing was offered: {error}")))
    }

    fn hear(link: Link) -> io::Result<Predecessor> {
        let (offer, mut along) = link.receive::<Offer>(Duration::from_secs(10))?;
        if offer.version != VERSION {
            let why = format!("it speaks version {}, not {VERSION}", offer.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let stderr = along.pop_if(|_| offer.stderr);
        let sockets = along.into_iter().map(TcpListener::from);
        let sockets = offer.sockets.into_iter().zip(sockets);
        Ok(Predecessor {
            link,
            // What is not what it is said to be is not used.
            sockets: sockets
                .filter(|(address, socket)| socket.local_addr().is_ok_and(|a| a == *address))
                .collect(),
            stderr,
            revision: offer.revision,
            resources: offer.resources,
        })
    }

    /// The socket that is bound to this address, if it was offered.
    pub(in crate::server) fn socket(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.sockets.remove(&address)
    }

    /// What the old one's store had that is gone with it: its revision and resources.
    pub(in crate::server) fn resources(&mut self) -> (u64, Vec<Resource>) {
        (self.revision, std::mem::take(&mut self.resources))
    }

    /// Says that everything that can fail is done, and goes on from what was counted until then. From its return on requests are to be taken.
    ///
    /// # Errors
    /// When the old one does not want to be replaced any more.
    pub(in crate::server) fn take_over(&mut self, control: &Control) -> Result<(), StartError> {
        let ready = Ready {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        // What was not claimed is not listened on any more once the old one lets go.
        self.sockets.clear();
        let said = self.link.send(&ready, &[]);
        let counted = said.and_then(|()| self.link.receive::<Counted>(PATIENCE));
        let (counted, _) = counted.map_err(|error| {
            wrong(format!(
                "the old process did not let go of its work: {error}"
            ))
        })?;
        control.go_on_from(&counted).map_err(StartError::Store)
    }

    /// Says that requests are taken. From now on this process speaks for itself.
    pub(in crate::server) fn serving(mut self) -> io::Result<()> {
        if let Some(stderr) = self.stderr.take() {
            rustix::stdio::dup2_stderr(stderr)?;
        }
        self.link.send(&Serving {}, &[])
    }
}

/// The socket that is this process's standard input; from now on that is empty.
fn input() -> io::Result<UnixStream> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(socket.into())
}

fn wrong(why: String) -> StartError {
    StartError::Upgrade(why)
}
