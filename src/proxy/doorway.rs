//! Who may come in: how many connections there are, from where, and whose they are if a proxy in front says so.
//!
//! What is refused here costs little and holds nothing: the connection is closed, in the clear after one answer that was written long ago.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use pingora_core::protocols::l4::stream::Stream as Socket;
use pingora_core::protocols::{GetSocketDigest, SocketDigest, Stream, UniqueID};
use prometheus::{IntCounter, IntGauge};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::preamble::{self, Read, Said};
use super::reply;
use crate::control::Control;
use crate::telemetry::Metrics;

/// How many connections clients may have.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// All together.
    pub all: usize,
    /// From one address, or one IPv6 network of 64 bits; 0: as many as all.
    pub from_one: usize,
}

/// The connections that are open.
pub(super) struct Places {
    most: Most,
    open: AtomicUsize,
    /// By address; empty unless these are limited.
    from: Mutex<HashMap<IpAddr, usize>>,
    gauge: IntGauge,
    full: IntCounter,
    too_many: IntCounter,
    nameless: IntCounter,
}

/// One open connection's; gone with it.
pub(super) struct Place {
    places: Arc<Places>,
    from: Option<IpAddr>,
}

impl Places {
    pub(super) fn new(most: Most, metrics: &Metrics) -> Arc<Places> {
        let refused = |reason| metrics.connections_refused.with_label_values(&[reason]);
        Arc::new(Places {
            most,
            open: AtomicUsize::new(0),
            from: Mutex::default(),
            gauge: metrics.connections.clone(),
            full: refused("total"),
            too_many: refused("address"),
            nameless: refused("proxy_header"),
        })
    }

    fn take(self: &Arc<Self>, from: Option<IpAddr>) -> Option<Place> {
        // First of all, so that it is given back in any case.
        let mut place = Place {
            places: self.clone(),
            from: None,
        };
        self.gauge.inc();
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most.all {
            self.full.inc();
            return None;
        }
        if let (Some(from), 1..) = (from.map(network), self.most.from_one) {
            let mut counts = self.counts();
            let count = counts.entry(from).or_default();
            if *count >= self.most.from_one {
                self.too_many.inc();
                return None;
            }
            *count += 1;
            place.from = Some(from);
        }
        Some(place)
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.from.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open.fetch_sub(1, Ordering::Relaxed);
        self.places.gauge.dec();
        let Some(from) = self.from else { return };
        let mut counts = self.places.counts();
        if let Some(count) = counts.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&from);
            }
        }
    }
}

/// One customer of a provider has a network of IPv6 addresses.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !0 << 64).into(),
        v4 => v4,
    }
}

/// The way in to the listeners of one service.
pub(super) struct Doorway {
    pub(super) places: Arc<Places>,
    /// Where listeners are bound at which a proxy says whose each connection is.
    pub(super) announced: Vec<SocketAddr>,
    pub(super) control: Arc<Control>,
    /// How long that may take.
    pub(super) patience: Duration,
    /// Whether somebody who is turned away may be told so.
    pub(super) plain: bool,
}

impl Doorway {
    /// Lets a connection in, or closes it.
    pub(super) async fn enter(&self, stream: Stream) -> Option<(Stream, Place)> {
        let mut stream = stream;
        if !self.announced.is_empty() && self.is_announced(&stream) {
            // Boxed, so that other connections do not carry it about.
            stream = match Box::pin(self.announce(stream)).await {
                Ok(stream) => stream,
                Err(why) => {
                    log::debug!("a connection was closed: {why}");
                    self.places.nameless.inc();
                    return None;
                }
            };
        }
        let from = match self.places.most.from_one {
            0 => None,
            _ => peer(&stream).map(|peer| peer.ip()),
        };
        match self.places.take(from) {
            Some(place) => Some((stream, place)),
            None => {
                if self.plain {
                    // Whoever does not take it has only lost a word.
                    let told = stream.write_all(reply::NO_PLACE);
                    let _ = timeout(Duration::from_millis(100), told).await;
                    let _ = stream.flush().await;
                }
                None
            }
        }
    }

    fn is_announced(&self, stream: &Stream) -> bool {
        let digest = stream.get_socket_digest();
        let local = digest.and_then(|digest| digest.local_addr()?.as_inet().copied());
        local.is_some_and(|local| self.announced.iter().any(|bound| is_at(*bound, local)))
    }

    /// Reads what the proxy says before anything else. Only those whose word counts may say it.
    async fn announce(&self, stream: Stream) -> Result<Stream, &'static str> {
        let peer = peer(&stream).ok_or("it has no address")?;
        let snapshot = self.control.snapshot();
        let mut trusted = snapshot.bounds.trusted_proxies.iter();
        if !trusted.any(|net| net.contains(&peer.ip().to_canonical())) {
            return Err("it comes from none of server.trusted_proxies");
        }
        let socket = stream.into_any().downcast::<Socket>();
        let mut socket = socket.map_err(|_| "it is no socket")?;
        let read = timeout(self.patience, said(&mut socket)).await;
        let (said, rest) = read.map_err(|_| "its PROXY header did not come")??;
        socket.rewind(&rest);
        if let Said::Client(client) = said {
            let digest = SocketDigest::from_raw_fd(socket.id());
            // It is new: nothing is set.
            let _ = digest.peer_addr.set(Some(client.into()));
            socket.set_socket_digest(digest);
        }
        Ok(socket)
    }
}

/// What is said, and what has come behind it.
async fn said(socket: &mut Socket) -> Result<(Said, BytesMut), &'static str> {
    let mut bytes = BytesMut::with_capacity(512);
    loop {
        match preamble::read(&bytes) {
            Read::Whole(said, length) => {
                let rest = bytes.split_off(length);
                return Ok((said, rest));
            }
            Read::Begun if bytes.len() >= preamble::LONGEST => {
                return Err("its PROXY header is too long");
            }
            Read::Begun => {}
            Read::Bad(why) => return Err(why),
        }
        let read: io::Result<usize> = socket.read_buf(&mut bytes).await;
        if !read.is_ok_and(|read| read > 0) {
            return Err("it ended before its PROXY header did");
        }
    }
}

fn peer(stream: &Stream) -> Option<SocketAddr> {
    stream.get_socket_digest()?.peer_addr()?.as_inet().copied()
}

/// Whether a connection to `local` came in at a listener that is bound to `bound`.
pub(super) fn is_at(bound: SocketAddr, local: SocketAddr) -> bool {
    let ip = bound.ip();
    bound.port() == local.port()
        && (ip.is_unspecified() || ip.to_canonical() == local.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: usize, from_one: usize) -> Arc<Places> {
        Places::new(Most { all, from_one }, &Metrics::new())
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn places_are_given_back() {
        let places = places(2, 0);
        let first = places.take(None).unwrap();
        let _second = places.take(None).unwrap();
        assert!(places.take(None).is_none());
        assert!(places.take(None).is_none());
        assert_eq!(places.gauge.get(), 2);
        drop(first);
        assert!(places.take(None).is_some());
        assert_eq!(places.full.get(), 2);
    }

    #[test]
    fn addresses_are_counted_apart_and_networks_together() {
        let places = places(100, 2);
        let held: Vec<_> = (0..2)
            .map(|_| places.take(ip("10.0.0.1")).unwrap())
            .collect();
        assert!(places.take(ip("10.0.0.1")).is_none());
        assert!(places.take(ip("::ffff:10.0.0.1")).is_none());
        let other = places.take(ip("10.0.0.2")).unwrap();
        let v6 = [
            places.take(ip("2001:db8::1")),
            places.take(ip("2001:db8::2:3")),
        ];
        assert!(v6.iter().all(Option::is_some));
        assert!(places.take(ip("2001:db8::9")).is_none());
        assert!(places.take(ip("2001:db8:0:1::9")).is_some());
        assert_eq!(places.too_many.get(), 3);
        drop((held, other, v6));
        assert!(places.counts().is_empty());
        assert_eq!(places.gauge.get(), 0);
        assert_eq!(places.open.load(Ordering::Relaxed), 0);
    }
}
