//! The service that accepts clients, on sockets that are open already.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, RuntimeOpts, ShutdownWatch};
use pingora_core::services::Service;
use pingora_core::services::listening::Service as Listening;
use tokio::sync::watch;

use crate::proxy::Connections;

/// Pingora's service, with sockets for its addresses.
pub(super) struct Clients {
    inner: Listening<Connections>,
    sockets: Vec<(SocketAddr, TcpListener)>,
    /// Counts the services that accept.
    accepting: watch::Sender<usize>,
}

impl Clients {
    pub(super) fn new(
        inner: Listening<Connections>,
        sockets: Vec<(SocketAddr, TcpListener)>,
        accepting: watch::Sender<usize>,
    ) -> Clients {
        Clients {
            inner,
            sockets,
            accepting,
        }
    }
}

#[async_trait]
impl Service for Clients {
    async fn start_service(
        &mut self,
        sockets: Option<ListenFds>,
        shutdown: ShutdownWatch,
        tasks: usize,
    ) {
        if let Some(known) = &sockets {
            // Pingora takes these instead of binding anew, and owns them from here on.
            let mut known = known.lock();
            for (address, socket) in self.sockets.drain(..) {
                known.add(address.to_string(), socket.into_raw_fd());
            }
        }
        self.accepting.send_modify(|count| *count += 1);
        self.inner.start_service(sockets, shutdown, tasks).await;
    }

    fn name(&self) -> &str {
        Service::name(&self.inner)
    }

    fn threads(&self) -> Option<usize> {
        Service::threads(&self.inner)
    }

    fn runtime_opts_override(&self, all: &RuntimeOpts) -> Option<RuntimeOpts> {
        Service::runtime_opts_override(&self.inner, all)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Service::listen_addresses(&self.inner)
    }
}
