//! TLS on the way in: which certificate a client is shown, and how long it may take until a request can come.
//!
//! A host's certificate is found as its gateway is, in the snapshot of the moment. Handshakes that are under way count as open exchanges: a process
//! that drains waits for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::protocols::Stream;
use prometheus::IntCounter;
use tokio::time::timeout;

use super::Proxy;
use super::doorway::is_at;
use crate::control::Control;
use crate::tls::{self, Choice, Handshake, Identity, Refused, Way};

/// A listener that speaks TLS.
pub struct SecureListener {
    /// Where it is bound.
    pub address: SocketAddr,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// Its own certificate, for those for whom no gateway has one.
    pub identity: Option<Arc<Identity>>,
}

/// The listeners of a service that speak TLS.
pub(super) struct Secure {
    control: Arc<Control>,
    listeners: Vec<SecureListener>,
    patience: Duration,
    open: Arc<AtomicUsize>,
    counts: Counts,
}

/// What handshakes come to.
struct Counts {
    done: IntCounter,
    unknown: IntCounter,
    failed: IntCounter,
    slow: IntCounter,
}

/// A handshake under way.
struct UnderWay<'s>(&'s AtomicUsize);

impl<'s> UnderWay<'s> {
    fn new(open: &'s AtomicUsize) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        Self(open)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Secure {
    /// `patience`: how long a handshake may take.
    pub(super) fn new(proxy: &Proxy, listeners: Vec<SecureListener>, patience: Duration) -> Self {
        let handshakes = &proxy.control.metrics().handshakes;
        let count = |result| handshakes.with_label_values(&[result]);
        Self {
            counts: Counts {
                done: count("ok"),
                unknown: count("unknown_name"),
                failed: count("failed"),
                slow: count("timeout"),
            },
            control: proxy.control.clone(),
            open: proxy.open(),
            listeners,
            patience,
        }
    }

    /// Shakes hands; nothing if there is nobody to serve after it.
    pub(super) async fn accept(&self, stream: Stream) -> Option<(Stream, Option<Arc<Handshake>>)> {
        let address = stream
            .get_socket_digest()?
            .local_addr()?
            .as_inet()
            .copied()?;
        let listener = { self.listeners.iter() }.find(|l| is_at(l.address, address))?;
        let under_way = || UnderWay::new(&self.open);
        let choose = |name: Option<&str>, proves| match proves {
            false => self.choose(listener, name).map(Way::Serve),
            true => self.control.challenges().handshake(name?).map(Way::Prove),
        };
        let shaken = tls::accept(stream, listener.http2, under_way, choose);
        let Ok(shaken) = timeout(self.patience, shaken).await else {
            self.counts.slow.inc();
            return None;
        };
        match shaken {
            Ok((stream, handshake)) => {
                self.counts.done.inc();
                Some((Box::new(stream), Some(Arc::new(handshake))))
            }
            Err(refused) => {
                log::debug!("no handshake: {refused}");
                match refused {
                    Refused::Unknown(_) => self.counts.unknown.inc(),
                    Refused::Proved => self.counts.done.inc(),
                    Refused::Plain | Refused::Failed(_) => self.counts.failed.inc(),
                }
                None
            }
        }
    }

    fn choose(&self, listener: &SecureListener, name: Option<&str>) -> Option<Choice> {
        let snapshot = self.control.snapshot();
        let entry = snapshot.hosts.find(name.unwrap_or_default());
        let gateway = entry.and_then(|entry| snapshot.gateways.get(entry.gateway));
        if let Some(gateway) = gateway
            && let Some(identity) = &gateway.identity
            // One that is ordered may not be there yet; then it is as if there was none.
            && (identity.is_loaded() || listener.identity.is_none())
        {
            return Some(Choice {
                identity: identity.clone(),
                gateway: Some(gateway.name.clone()),
            });
        }
        let identity = listener.identity.clone()?;
        Some(Choice {
            identity,
            gateway: None,
        })
    }
}
