//! An exchange with an upstream for which no client waits.

use pingora_core::Result;
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_http::RequestHeader;

use super::{Road, dressed, failure_of, is_stale, send};
use crate::health::Failure;
use crate::proxy::exchange::Exchange;

impl Road {
    /// Sends the exchange's request and reads the answer to its end, for the sake of the connection. Returns what the answer counts as, if it is a
    /// failure. How long that may take is the caller's to say.
    pub(in crate::proxy) async fn ask_alone(
        &self,
        x: &Exchange,
        head: &RequestHeader,
        peer: &HttpPeer,
        tls: bool,
    ) -> Result<Option<Failure>> {
        loop {
            let connected = self.connector.get_http_session(peer).await;
            let (mut upstream, reused) = connected.map_err(|e| e.into_up())?;
            upstream.set_write_timeout(peer.options.write_timeout);
            let head = dressed(x, head.clone(), tls, &upstream, peer)?;
            let answer = match send(&mut upstream, head, x.body.outgoing()).await {
                Ok(answer) => answer,
                Err(error) if reused && is_stale(&error) => continue,
                Err(error) => return Err(error.into_up()),
            };
            while upstream.read_response_body().await?.is_some() {}
            if upstream.response_done() {
                let idle = peer.idle_timeout();
                self.connector
                    .release_http_session(upstream, peer, idle)
                    .await;
            }
            return Ok(failure_of(&answer));
        }
    }
}
