//! Asking one target once, in the way its upstream's settings say.
//!
//! Everything is a `HealthCheck` of pingora-load-balancing. Its `TcpHealthCheck` is used as it is. Its `HttpHealthCheck` is
//! not: it carries no body, and each one owns a connector with its own copy of all trusted roots, so a hundred targets would
//! cost a hundred copies. Ours ([`RequestCheck`], [`GrpcCheck`]) share one connector.

use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddress;
use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::l4::socket::SocketAddr as Address;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, OrErr, Result};
use pingora_load_balancing::health_check::{HealthCheck, TcpHealthCheck};
use pingora_load_balancing::{Backend, Extensions};

use super::grpc::GrpcCheck;
use super::request::RequestCheck;
use crate::model::{Health, Probe, Scheme, TargetUrl};
use crate::tls::{Credentials, Uncertain};

/// Where a target is, and how it is spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// As configured. A path in it does not go before a probe's.
    pub url: TargetUrl,
    /// `Host` for requests.
    pub authority: HeaderValue,
    /// The name for TLS.
    pub server_name: String,
    /// Whether its certificate must be valid.
    pub verify: bool,
    /// What connections to it take along.
    pub credentials: Option<Arc<Credentials>>,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
}

impl Place {
    /// The target as pingora-load-balancing knows it. `address` is where its name leads now.
    pub(super) fn locate(&self, address: Option<SocketAddr>) -> Result<Backend> {
        let addr = match self.url.scheme {
            Scheme::Unix => {
                let path = UnixAddress::from_pathname(&self.url.path);
                Address::Unix(path.or_err(ErrorType::ConnectError, "no path for a socket")?)
            }
            _ => {
                let unknown =
                    || Error::explain(ErrorType::ConnectError, "its name does not resolve");
                Address::Inet(address.ok_or_else(unknown)?)
            }
        };
        Ok(Backend {
            addr,
            weight: 1,
            ext: Extensions::new(),
        })
    }

    /// A connection of its own to the target: each check goes all the way.
    pub(super) fn peer(&self, target: &Backend, alpn: ALPN) -> Result<HttpPeer> {
        let tls = self.url.scheme == Scheme::Https;
        let mut peer = match &target.addr {
            Address::Inet(address) => HttpPeer::new(*address, tls, self.server_name.clone()),
            Address::Unix(_) => HttpPeer::new_uds(&self.url.path, false, String::new())?,
        };
        peer.options.verify_cert = self.verify;
        peer.options.verify_hostname = self.verify;
        if let Some(credentials) = &self.credentials {
            let unknown =
                || Error::explain(ErrorType::InvalidCert, "its certificates could not be read");
            credentials
                .apply(&mut peer)
                .map_err(|Uncertain| unknown())?;
        }
        peer.options.alpn = alpn;
        // One stream and the connection is not kept for another.
        peer.options.max_h2_streams = 1;
        Ok(peer)
    }

    /// A connection to it on which something may be asked.
    pub(super) async fn connect(
        &self,
        connector: &Connector,
        peer: &HttpPeer,
    ) -> Result<HttpSession<()>> {
        let (session, _) = connector.get_http_session(peer).await?;
        if let Some(credentials) = &self.credentials {
            credentials.admit(peer, session.digest())?;
        }
        Ok(session)
    }
}

/// What all checks share. Made when first needed: each connector holds the system's trusted roots.
#[derive(Default)]
pub(super) struct Tools {
    connector: OnceLock<Arc<Connector>>,
    tcp: OnceLock<Arc<TcpHealthCheck>>,
}

impl Tools {
    /// The check these settings ask for; `None` when they ask for none.
    pub(super) fn check(
        &self,
        settings: &Health,
        place: &Place,
    ) -> Option<Arc<dyn HealthCheck + Send + Sync>> {
        match &settings.probe {
            Probe::Off => None,
            Probe::Tcp => Some(self.tcp.get_or_init(tcp).clone()),
            Probe::Http(probe) => Some(Arc::new(RequestCheck::new(probe, place, self.connector()))),
            Probe::Grpc => Some(Arc::new(GrpcCheck::new(place, self.connector()))),
        }
    }

    pub(super) fn connector(&self) -> Arc<Connector> {
        let new = || Arc::new(Connector::new(Some(ConnectorOptions::new(1))));
        self.connector.get_or_init(new).clone()
    }
}

/// Connects and leaves, without TLS even to `https` targets. Its own time limit is off: the one of the settings is set
/// around every check.
fn tcp() -> Arc<TcpHealthCheck> {
    let mut check = TcpHealthCheck::default();
    check.peer_template.options.connection_timeout = None;
    check.peer_template.options.total_connection_timeout = None;
    Arc::new(check)
}
