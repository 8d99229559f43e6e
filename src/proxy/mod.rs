//! The proxy: Pingora's phases, one file each, in the order a request passes them.
//!
//! This file only connects: what a phase does stands in its own. [`exchange`] is what they share, [`reply`] the only place that
//! answers for ourselves, [`recover`] the road over our own connector for what Pingora's cannot carry.

mod account;
mod admit;
mod affinity;
mod alarm;
mod authenticate;
mod beside;
mod body;
mod chain;
mod challenge;
#[cfg(any(test, feature = "fuzz"))]
pub mod check;
mod conduct;
mod connection;
mod copy;
mod disaggregate;
mod doorway;
mod exchange;
mod failure;
mod forward;
mod front;
mod identify;
mod peer;
mod plugins;
mod preamble;
mod recover;
mod reply;
mod request_id;
mod response;
mod secure;
mod stream;
mod tokens;
mod verdict;
mod waiting;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio::time::Instant;

use self::account::Account;
use self::alarm::Deadline;
use self::body::BodyMemory;
use self::copy::Copies;
use self::doorway::Places;
use self::exchange::Exchange;
use self::recover::Road;
use self::recover::aside::{self, Aside};
use crate::control::Control;
use crate::telemetry::AccessLog;

pub use doorway::Most;
pub use front::{Connections, Spoken, serve};
pub use secure::SecureListener;
pub use waiting::Waiting;

/// Tollgate as Pingora sees it. Clones share everything.
#[derive(Clone)]
pub struct Proxy {
    control: Arc<Control>,
    account: Arc<Account>,
    bodies: Arc<BodyMemory>,
    road: Arc<Road>,
    copies: Arc<Copies>,
    places: Arc<Places>,
}

impl Proxy {
    /// Serves what `control` holds.
    pub fn new(
        control: Arc<Control>,
        access: AccessLog,
        body_memory: u64,
        most: Most,
        threads: usize,
    ) -> Proxy {
        let metrics = control.metrics().clone();
        Proxy {
            places: Places::new(most, &metrics),
            copies: Arc::new(Copies::new(metrics.clone())),
            bodies: BodyMemory::new(body_memory, metrics.body_memory.clone()),
            account: Arc::new(Account::new(access, &control)),
            road: Arc::new(Road::new(threads)),
            control,
        }
    }

    /// Counts the exchanges that have not ended.
    pub fn open(&self) -> Arc<AtomicUsize> {
        self.account.open.clone()
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Box<Exchange>;

    fn new_ctx(&self) -> Self::CTX {
        Box::new(Exchange::new(self.account.clone()))
    }

    /// No modules: compression is the upstream's business, and each costs every request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, x: &mut Self::CTX) -> Result<()> {
        session
            .as_downstream_mut()
            .set_total_drain_timeout(Some(Duration::from_secs(5)));
        // Bytes read behind this request's body are the next one, not a reason to close.
        session.as_downstream_mut().set_pipelining_enabled(true);
        if self.account.tells() {
            let head = session.req_header();
            x.method = head.method.to_string();
            x.path = head.uri.path().to_owned();
        }
        identify::identify(session, x, &self.control.snapshot());
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, x: &mut Self::CTX) -> Result<bool> {
        if let Some(answer) = challenge::answer(session, x, &self.control) {
            Box::pin(challenge::send(session, x, answer)).await?;
            return Ok(true);
        }
        let answered = admit::admit(session, x, &self.bodies).await?;
        if !x.edits.copies.is_empty() && !answered {
            self.copies
                .send(session, x, &self.road, x.handshake.is_some());
        }
        Ok(answered)
    }

    async fn proxy_upstream_filter(
        &self,
        session: &mut Session,
        x: &mut Self::CTX,
    ) -> Result<bool> {
        if !recover::wanted(session, x) {
            return Ok(true);
        }
        // Boxed, here and below: a future that is not awaited should not be part of every request's.
        aside::allow(session, x);
        let served = Box::pin(self.road.carry(session, x)).await;
        // From here on it is not on the road, whatever is still tried.
        match std::mem::take(&mut x.aside) {
            Aside::Left(at) => aside::leave(session, x, at).await?,
            _ => served?,
        }
        Ok(false)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        x: &mut Self::CTX,
    ) -> Result<Box<HttpPeer>> {
        peer::next(session, x).await
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        peer: &HttpPeer,
        _socket: RawFd,
        digest: Option<&Digest>,
        x: &mut Self::CTX,
    ) -> Result<()> {
        match x.credentials() {
            None => Ok(()),
            Some(credentials) => credentials.admit(peer, digest).map_err(|e| e.into_up()),
        }
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        head: &mut RequestHeader,
        x: &mut Self::CTX,
    ) -> Result<()> {
        forward::prepare(x, head, x.handshake.is_some())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        x: &mut Self::CTX,
    ) -> Result<()> {
        if let Some(chunk) = body {
            x.streamed(chunk.len())?;
        }
        if end {
            x.request_is_read();
            peer::sent(x);
        } else if x.unbounded && x.status != 0 {
            // In a stream that goes both ways the client's word counts as life, too.
            x.set_deadline(Instant::now(), Deadline::Idle);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        x: &mut Self::CTX,
    ) -> Result<()> {
        let now = Instant::now();
        failure::take_head(x, head, now)?;
        response::head(session, x, head, now, response::Telling::InHead)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        _x: &mut Self::CTX,
    ) -> Result<()> {
        // Pingora has framed the answer by now.
        response::frame_for(session, head);
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        x: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        let now = Instant::now();
        if let Some(chunk) = body.take() {
            let metered = stream::chunk(x, chunk, now);
            *body = Some(match end {
                true => metered,
                false => plugins::chunk(x, metered)?,
            });
        }
        if end {
            *body = stream::end(x, body.take(), now)?;
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        x: &mut Self::CTX,
        error: Box<Error>,
    ) -> Box<Error> {
        failure::connecting(x, error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        x: &mut Self::CTX,
        reused: bool,
    ) -> Box<Error> {
        failure::while_proxying(session, x, error, reused)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        x: &mut Self::CTX,
    ) -> FailToProxy {
        Box::pin(failure::end(session, x, error, &self.road)).await;
        FailToProxy {
            error_code: x.status,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, _session: &mut Session, _error: Option<&Error>, x: &mut Self::CTX) {
        self.account.settle(x);
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _x: &Self::CTX,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    /// Failures have their place in the access line and the metrics; Pingora's own line would only repeat them.
    fn suppress_error_log(&self, _session: &Session, _x: &Self::CTX, _error: &Error) -> bool {
        true
    }
}
