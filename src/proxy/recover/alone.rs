//! An exchange with an upstream for which no client waits.

use std::future::Future;

use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use tokio::time::{Instant, timeout_at};

use super::{Road, dressed, failure_of, is_stale, send};
use crate::health::Failure;
use crate::proxy::alarm::Deadline;
use crate::proxy::exchange::Exchange;

impl Road {
    /// Sends the exchange's request and reads the answer to its end, for the sake of the connection. Returns what the answer counts as, if it is a
    /// failure. The timeouts of its service hold.
    pub(in crate::proxy) async fn ask_alone(
        &self,
        x: &Exchange,
        head: &RequestHeader,
        peer: &HttpPeer,
        tls: bool,
    ) -> Result<Option<Failure>> {
        loop {
            let connected = self.pool.take(peer, x.credentials(), Instant::now()).await;
            let (mut upstream, reused) = connected.map_err(|e| e.into_up())?;
            upstream.set_write_timeout(peer.options.write_timeout);
            let head = dressed(x, head, tls, &upstream, peer)?;
            let asked = send(&mut upstream, head, x.outgoing());
            let answer = match in_time(x, Deadline::FirstByte, asked).await {
                Ok(answer) => answer,
                Err(error) if reused && is_stale(&error) => continue,
                Err(error) => return Err(error.into_up()),
            };
            while in_time(x, Deadline::Idle, upstream.read_response_body())
                .await?
                .is_some()
            {}
            if upstream.response_done() {
                self.pool.keep(upstream, peer, Instant::now()).await;
            }
            return Ok(failure_of(&answer));
        }
    }
}

/// Awaits the upstream for as long as the service says.
async fn in_time<T>(
    x: &Exchange,
    cause: Deadline,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let (at, cause) = x.deadline(Instant::now(), cause);
    let late = |_| Error::explain(ErrorType::ReadTimedout, cause.name()).into_up();
    timeout_at(at, work).await.map_err(late)?
}
