//! Listeners: addresses that accept connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tollgate_sdk::document;

use super::{ListenerTls, Name};

document! {
    /// An address that accepts connections.
    pub struct Listener {
        /// Its name; by default made from the address.
        #[example = "127.0.0.1-8080"]
        name: Name = Name::made(),
        /// What it is for.
        #[example = "the public side"]
        description: Option<String>,
        /// Labels of your own.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// Where it listens: "127.0.0.1:8080", "[::]:8080", or ":8080" for every IPv4 interface.
        address: SocketAddr,
        /// TLS: `{ certificate = "api.pem", key = "api.key" }`, or "auto" for the certificates of the gateways, by the host that a client names. A
        /// listener with a certificate of its own shows it where the gateway has none. Without `tls` it is plain.
        tls: Option<ListenerTls>,
        /// Whether a proxy in front says whose each connection is, by the PROXY protocol (version 1 or 2), as HAProxy and load balancers of TCP do. It must be
        /// among `server.trusted_proxies`; connections that do not begin so are closed.
        proxy_protocol: bool = false,
        /// Whether clients may speak HTTP/2 (without TLS: by prior knowledge).
        http2: bool = true,
    }
}
