//! Connections to upstreams that are ours alone, kept between requests.

use pingora_core::Result;
use pingora_core::connectors::http::Connector;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as Http1;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::upstreams::peer::{HttpPeer, Peer};

use super::gather::Gathering;

/// An exchange on a connection to an upstream.
pub(super) type Upstream = HttpSession<()>;

/// Where they are kept.
pub(super) struct Pool {
    /// Those that speak HTTP/1.1 and nothing else; all of them gather.
    plain: TransportConnector,
    any: Connector,
}

impl Pool {
    pub(super) fn new(threads: usize) -> Pool {
        let mut options = ConnectorOptions::new(128 * threads.max(1));
        options.offload_threadpool = None;
        Pool {
            plain: TransportConnector::new(Some(options.clone())),
            any: Connector::new(Some(options)),
        }
    }

    /// A connection to this peer, and whether it has served before.
    ///
    /// # Errors
    /// It could not be made.
    pub(super) async fn take(&self, peer: &HttpPeer) -> Result<(Upstream, bool)> {
        if !is_plain(peer) {
            return self.any.get_http_session(peer).await;
        }
        let kept = self.plain.reused_stream(peer).await;
        let reused = kept.is_some();
        let stream = match kept {
            Some(stream) => stream,
            None => {
                let new = Box::pin(self.plain.new_stream(peer)).await?;
                Box::new(Gathering::new(new)) as Stream
            }
        };
        let session = Http1::new_with_options(stream, peer);
        Ok((Upstream::H1(session), reused))
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(super) async fn keep(&self, upstream: Upstream, peer: &HttpPeer) {
        let idle = peer.idle_timeout();
        match upstream {
            Upstream::H1(mut session) if is_plain(peer) => {
                session.respect_keepalive();
                if let Some(stream) = session.reuse().await {
                    self.plain.release_stream(stream, peer.reuse_hash(), idle);
                }
            }
            upstream => self.any.release_http_session(upstream, peer, idle).await,
        }
    }
}

fn is_plain(peer: &HttpPeer) -> bool {
    matches!(peer.options.alpn, ALPN::H1)
}
