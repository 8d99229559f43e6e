//! Connections to upstreams that are ours alone, kept between requests.
//!
//! Those that speak only HTTP/1.1 have a place of our own: Pingora's watches each idle connection by a task and asks the system whose it is
//! before it serves again, which costs a small request more than all its headers. Here a connection is looked at when it is taken, and once a second those
//! are closed that nobody took in time.
//!
//! Invariant: nobody gets a connection that has been idle for longer than its peer allows, was closed, or has something to say unasked.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use pingora_core::Result;
use pingora_core::connectors::http::Connector;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as Http1;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep};

use super::gather::Gathering;
use crate::proxy::body::at_once;
use crate::tls::Credentials;

/// An exchange on a connection to an upstream. Large, so it stays where it is.
pub(super) type Upstream = Box<HttpSession<()>>;

/// How often those are closed that nobody took.
const SWEEP: Duration = Duration::from_secs(1);

/// Where they are kept.
pub(super) struct Pool {
    plain: TransportConnector,
    shelf: Arc<Mutex<Shelf>>,
    /// At most so many of one peer.
    most: usize,
    any: Connector,
}

/// Idle connections of HTTP/1.1; all of them gather.
#[derive(Default)]
struct Shelf {
    /// By what makes a peer another one; the one used last is the last.
    idle: HashMap<u64, Vec<Idle>>,
    /// Somebody closes what is not taken.
    swept: bool,
}

struct Idle {
    stream: Stream,
    address: SocketAddr,
    until: Instant,
}

impl Pool {
    pub(super) fn new(threads: usize) -> Pool {
        let most = 128 * threads.max(1);
        let mut options = ConnectorOptions::new(most);
        options.offload_threadpool = None;
        Pool {
            plain: TransportConnector::new(Some(options.clone())),
            shelf: Arc::default(),
            most,
            any: Connector::new(Some(options)),
        }
    }

    /// A connection to this peer at `now` that its credentials admit, and whether it has served before.
    ///
    /// # Errors
    /// It could not be made, or may not be used.
    pub(super) async fn take(
        &self,
        peer: &HttpPeer,
        credentials: Option<&Arc<Credentials>>,
        now: Instant,
    ) -> Result<(Upstream, bool)> {
        let (upstream, reused) = self.connect(peer, now).await?;
        if let Some(credentials) = credentials
            && let Err(error) = credentials.admit(peer, upstream.digest())
        {
            if let HttpSession::H2(session) = &*upstream {
                // It is in the pool already, for others to send on.
                session.conn.mark_shutdown();
                self.any.release_http_session(*upstream, peer, None).await;
            }
            return Err(error);
        }
        Ok((upstream, reused))
    }

    async fn connect(&self, peer: &HttpPeer, now: Instant) -> Result<(Upstream, bool)> {
        if !is_plain(peer) {
            let (session, reused) = Box::pin(self.any.get_http_session(peer)).await?;
            return Ok((Box::new(session), reused));
        }
        let kept = self.kept(peer, now).await;
        let reused = kept.is_some();
        let stream = match kept {
            Some(stream) => stream,
            None => {
                let new = Box::pin(self.plain.new_stream(peer)).await?;
                Box::new(Gathering::new(new))
            }
        };
        let session = Http1::new_with_options(stream, peer);
        Ok((Box::new(HttpSession::H1(session)), reused))
    }

    /// One that is idle and stands.
    async fn kept(&self, peer: &HttpPeer, now: Instant) -> Option<Stream> {
        let key = peer.reuse_hash();
        loop {
            let Idle {
                mut stream,
                address,
                until,
            } = lock(&self.shelf).idle.get_mut(&key)?.pop()?;
            if address == *peer.address() && until > now && stands(&mut stream).await {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection whose answer had been read to its end at `now`.
    pub(super) async fn keep(&self, upstream: Upstream, peer: &HttpPeer, now: Instant) {
        let idle = peer.idle_timeout();
        let mut session = match *upstream {
            HttpSession::H1(session) if is_plain(peer) => session,
            other => return self.any.release_http_session(other, peer, idle).await,
        };
        session.respect_keepalive();
        let (Some(idle), Some(stream)) = (idle, session.reuse().await) else {
            return;
        };
        let kept = Idle {
            stream,
            address: peer.address().clone(),
            until: now + idle,
        };
        let mut shelf = lock(&self.shelf);
        let of_peer = shelf.idle.entry(peer.reuse_hash()).or_default();
        if of_peer.len() < self.most {
            of_peer.push(kept);
        }
        if !std::mem::replace(&mut shelf.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.shelf)));
        }
    }
}

/// Whether it is neither closed nor has anything to say.
async fn stands(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let read = pin!(stream.read(&mut byte));
    at_once(read).await.is_none()
}

/// Closes what is not taken, until there is nothing left.
async fn sweep(shelf: Weak<Mutex<Shelf>>) {
    loop {
        sleep(SWEEP).await;
        let Some(shelf) = shelf.upgrade() else { return };
        let now = Instant::now();
        let mut closed = Vec::new();
        let mut shelf = lock(&shelf);
        for of_peer in shelf.idle.values_mut() {
            closed.extend(of_peer.extract_if(.., |idle| idle.until <= now));
        }
        shelf.idle.retain(|_, of_peer| !of_peer.is_empty());
        shelf.swept = !shelf.idle.is_empty();
        let done = !shelf.swept;
        drop(shelf);
        // Not under the lock.
        drop(closed);
        if done {
            return;
        }
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    // Held for short, and nothing panics meanwhile.
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_plain(peer: &HttpPeer) -> bool {
    matches!(peer.options.alpn, ALPN::H1)
}

#[cfg(test)]
mod tests {
    use pingora_http::RequestHeader;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// A server, and a peer that stands for it.
    async fn server(idle: Duration) -> (TcpListener, HttpPeer) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = HttpPeer::new(listener.local_addr().unwrap(), false, String::new());
        peer.options.idle_timeout = Some(idle);
        (listener, peer)
    }

    /// Asks and is answered on a connection that was taken.
    async fn exchange(upstream: &mut Upstream, server: &mut TcpStream) {
        let head = RequestHeader::build("GET", b"/", None).unwrap();
        upstream.write_request_header(Box::new(head)).await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(server.read_u8().await.unwrap());
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        server.write_all(answer).await.unwrap();
        upstream.read_response_header().await.unwrap();
        assert_eq!(upstream.read_response_body().await.unwrap(), None);
    }

    /// A pool that keeps one connection, and the other end of that.
    async fn kept(listener: &TcpListener, peer: &HttpPeer) -> (Pool, TcpStream) {
        let pool = Pool::new(1);
        let now = Instant::now();
        let (taken, accepted) = tokio::join!(pool.take(peer, None, now), listener.accept());
        let (mut upstream, reused) = taken.unwrap();
        let mut server = accepted.unwrap().0;
        assert!(!reused);
        exchange(&mut upstream, &mut server).await;
        pool.keep(upstream, peer, now).await;
        (pool, server)
    }

    #[tokio::test]
    async fn what_is_kept_serves_again_and_only_one_at_a_time() {
        let (listener, peer) = server(LONG).await;
        let (pool, mut server) = kept(&listener, &peer).await;
        let (mut first, reused) = pool.take(&peer, None, Instant::now()).await.unwrap();
        assert!(reused);
        let (_second, reused) = pool.take(&peer, None, Instant::now()).await.unwrap();
        assert!(!reused);
        exchange(&mut first, &mut server).await;
        pool.keep(first, &peer, Instant::now()).await;
        assert!(pool.take(&peer, None, Instant::now()).await.unwrap().1);
    }

    #[tokio::test]
    async fn another_peer_gets_none_of_it() {
        let (listener, peer) = server(LONG).await;
        let (pool, _server) = kept(&listener, &peer).await;
        let (_listener, other) = self::server(LONG).await;
        assert!(!pool.take(&other, None, Instant::now()).await.unwrap().1);
    }

    #[tokio::test]
    async fn what_was_idle_for_too_long_does_not_serve() {
        let (listener, peer) = server(LONG).await;
        let (pool, _server) = kept(&listener, &peer).await;
        assert!(
            !pool
                .take(&peer, None, Instant::now() + LONG)
                .await
                .unwrap()
                .1
        );
    }

    #[tokio::test]
    async fn what_nobody_takes_is_closed() {
        let (listener, peer) = server(Duration::from_millis(1)).await;
        let (pool, mut server) = kept(&listener, &peer).await;
        let mut rest = Vec::new();
        let closed = timeout(LONG, server.read_to_end(&mut rest)).await;
        closed.expect("nobody closed it").unwrap();
        let swept = || !lock(&pool.shelf).swept;
        while !swept() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_its_server_closed_or_spoke_on_unasked_does_not_serve() {
        for unasked in [
            None,
            Some(b"HTTP/1.1 408 Request Timeout\r\n\r\n".as_slice()),
        ] {
            let (listener, peer) = server(LONG).await;
            let (pool, mut server) = kept(&listener, &peer).await;
            match unasked {
                Some(words) => server.write_all(words).await.unwrap(),
                None => drop(server),
            }
            // It takes a moment until that is here.
            let key = peer.reuse_hash();
            let mut idle = lock(&pool.shelf).idle.get_mut(&key).unwrap().pop().unwrap();
            let gone = async {
                while stands(&mut idle.stream).await {
                    tokio::task::yield_now().await;
                }
            };
            timeout(LONG, gone).await.expect("nothing came");
            lock(&pool.shelf).idle.get_mut(&key).unwrap().push(idle);
            assert!(!pool.take(&peer, None, Instant::now()).await.unwrap().1);
        }
    }
}
