//! The other road to an upstream: an exchange of our own over Pingora's `Connector`.
//!
//! It carries what Pingora's own loop cannot: bodies of which no tail fits its retry buffer. Picking,
//! heads, metering and failing are the same code as on the main road; here is only the carrying. Deadlines are
//! plain timers here, so the connection's alarm stays silent.

mod hop;

use std::future::Future;

use bytes::Bytes;
use http::{Method, StatusCode, Version};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession as Upstream;
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::{Instant, timeout_at};

use super::connection::Deadline;
use super::exchange::{Body, Exchange};
use super::{forward, front, peer, response, stream};

/// Connections to upstreams that are ours alone.
pub(super) struct Road {
    connector: Connector,
}

impl Road {
    pub(super) fn new(threads: usize) -> Road {
        let mut options = ConnectorOptions::new(128 * threads.max(1));
        options.offload_threadpool = None;
        Road {
            connector: Connector::new(Some(options)),
        }
    }

    /// Serves the exchange from its buffered body. An error is for `fail_to_proxy`, which knows how to end
    /// an exchange in whatever state it is.
    pub(super) async fn carry(&self, session: &mut Session, x: &mut Exchange) -> Result<()> {
        x.silence_alarm();
        let peer = peer::next(x, false).map_err(|rejection| {
            x.refusal = Some(rejection);
            Error::explain(ErrorType::InternalError, "no target")
        })?;
        let (mut upstream, head) = loop {
            let connect = self.connector.get_http_session(&*peer);
            let (mut upstream, reused) = while_present(session, connect)
                .await?
                .map_err(|e| e.into_up())?;
            match self.ask(session, x, &mut upstream, &peer).await {
                Ok(head) => break (upstream, head),
                // The upstream closed a pooled connection between two requests. That is no attempt.
                Err(error) if reused && is_stale(&error) => continue,
                Err(error) => return Err(error),
            }
        };
        let bodiless = bodiless(session, &head);
        let head = hop::framed(session, head, bodiless)?;
        session
            .write_response_header(Box::new(head), bodiless)
            .await
            .map_err(|e| e.into_down())?;
        if !bodiless {
            relay(session, x, &mut upstream).await?;
        }
        if upstream.response_done() {
            self.connector
                .release_http_session(upstream, &*peer, peer.idle_timeout())
                .await;
        }
        Ok(())
    }

    /// Sends the request and waits for the answer's head.
    async fn ask(
        &self,
        session: &mut Session,
        x: &mut Exchange,
        upstream: &mut Upstream<()>,
        peer: &HttpPeer,
    ) -> Result<ResponseHeader> {
        let mut head = session.req_header().clone();
        hop::strip(&mut head);
        forward::prepare(x, &mut head, front::is_tls(session))?;
        if upstream.as_http2().is_some() {
            hop::to_h2(&mut head, peer.is_tls())?;
        } else {
            head.set_version(Version::HTTP_11);
        }
        let body = x.body.outgoing();
        let deadline = x.deadline(Instant::now(), Deadline::FirstByte);
        upstream.set_write_timeout(peer.options.write_timeout);
        let answer = async {
            upstream.write_request_header(Box::new(head)).await?;
            // An upstream that answers early may stop reading; its answer still counts.
            let sent = send_body(upstream, body).await;
            match read_head(upstream).await {
                Ok(head) => Ok(head),
                Err(error) => Err(sent.err().unwrap_or(error)),
            }
        };
        let answered = while_present(session, timeout_at(deadline.0, answer)).await?;
        let mut head = match answered {
            Ok(head) => head.map_err(|e| e.into_up())?,
            Err(_) => return Err(rung(x, deadline.1)),
        };
        response::head(x, &mut head)?;
        Ok(head)
    }
}

/// Whether Pingora's own loop is to be passed by: because it does not hold the body, or because it could not end
/// the exchange properly. It cannot interrupt an HTTP/2 client's stream but by a reset, and forgets an HTTP/2
/// upstream's early answer when a long body does not go out.
pub(super) fn wanted(session: &mut Session, x: &Exchange) -> bool {
    let Some(offer) = &x.offer else { return false };
    if session.is_upgrade_req() || (!x.body.is_whole() && !offer.service.buffers()) {
        return false;
    }
    matches!(x.body, Body::Long { .. })
        || session.as_downstream().is_http2()
        || offer.service.upstream.speaks_h2()
}

/// The pool holds what was idle a moment ago, so this ends.
fn is_stale(error: &Error) -> bool {
    *error.esource() == ErrorSource::Upstream
        && matches!(
            error.etype(),
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
        )
}

async fn send_body(upstream: &mut Upstream<()>, body: Vec<Bytes>) -> Result<()> {
    for piece in body {
        if !piece.is_empty() {
            upstream.write_request_body(piece, false).await?;
        }
    }
    upstream.finish_request_body().await
}

async fn read_head(upstream: &mut Upstream<()>) -> Result<ResponseHeader> {
    loop {
        upstream.read_response_header().await?;
        match upstream.response_header() {
            Some(head) if head.status.is_informational() => continue,
            Some(head) => return Ok(head.clone()),
            None => return Error::e_explain(ErrorType::InvalidHTTPHeader, "no response head"),
        }
    }
}

/// Passes the answer's body on as it comes.
async fn relay(session: &mut Session, x: &mut Exchange, upstream: &mut Upstream<()>) -> Result<()> {
    loop {
        let deadline = x.deadline(Instant::now(), Deadline::Idle);
        let read = timeout_at(deadline.0, upstream.read_response_body());
        let chunk = match while_present(session, read).await? {
            Ok(chunk) => chunk.map_err(|e| e.into_up())?,
            Err(_) => return Err(rung(x, deadline.1)),
        };
        match chunk {
            Some(chunk) => {
                let chunk = stream::chunk(x, chunk);
                if !chunk.is_empty() {
                    session
                        .write_response_body(Some(chunk), false)
                        .await
                        .map_err(|e| e.into_down())?;
                }
            }
            None => break,
        }
    }
    match stream::end(x) {
        stream::End::Whole(held) => session
            .write_response_body(Some(held.unwrap_or_default()), true)
            .await
            .map_err(|e| e.into_down()),
        stream::End::Truncated => {
            Err(Error::explain(ErrorType::ConnectionClosed, "stream without its end").into_up())
        }
    }
}

fn rung(x: &mut Exchange, cause: Deadline) -> Box<Error> {
    x.rung = Some(cause);
    Error::explain(ErrorType::ReadTimedout, cause.name()).into_up()
}

fn bodiless(session: &Session, head: &ResponseHeader) -> bool {
    session.req_header().method == Method::HEAD
        || matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
}

/// Awaits `work` for as long as the client is there. Its request is read to the end, so whatever it
/// sends now, or that it closes, ends the exchange.
async fn while_present<T>(session: &mut Session, work: impl Future<Output = T>) -> Result<T> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        left = session.as_downstream_mut().read_body_or_idle(true) => Err(match left {
            Err(error) => error.into_down(),
            Ok(_) => Error::explain(ErrorType::ConnectionClosed, "the client left").into_down(),
        }),
    }
}
