//! The sockets of a process: offered by its predecessor, or bound anew.

use std::net::{SocketAddr, TcpListener};

use super::StartError;
use super::upgrade::Predecessor;
use crate::model::Config;

/// All that is listened on.
pub(super) struct Sockets {
    /// Those of clients, in the order of the configuration.
    pub(super) listeners: Vec<(SocketAddr, TcpListener)>,
    /// The admin listener's.
    pub(super) admin: (SocketAddr, TcpListener),
}

impl Sockets {
    /// Takes or binds them all. From then on clients can connect, and wait.
    pub(super) fn open(
        config: &Config,
        predecessor: &mut Option<Predecessor>,
    ) -> Result<Sockets, StartError> {
        let mut open = |address: SocketAddr, what: String| {
            let offered = predecessor.as_mut().and_then(|p| p.socket(address));
            let bound = offered.map_or_else(|| TcpListener::bind(address), Ok);
            let bound = bound.and_then(|bound| bound.set_nonblocking(true).map(|()| bound));
            match bound {
                Ok(bound) => Ok((address, bound)),
                Err(error) => Err(StartError::Listen {
                    address,
                    what,
                    error,
                }),
            }
        };
        let listeners = config.listeners.iter();
        let listeners = listeners.map(|l| open(l.address, format!("listener {}", l.name)));
        Ok(Sockets {
            listeners: listeners.collect::<Result<_, _>>()?,
            admin: open(config.admin.address, "admin".to_owned())?,
        })
    }

    /// Copies, to be handed over: the same sockets, which listen until the last copy is gone.
    pub(super) fn copies(&self) -> std::io::Result<Vec<(SocketAddr, TcpListener)>> {
        let all = self.listeners.iter().chain([&self.admin]);
        all.map(|(address, socket)| Ok((*address, socket.try_clone()?)))
            .collect()
    }
}
