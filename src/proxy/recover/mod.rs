//! The other road to an upstream: an exchange of our own over Pingora's `Connector`, and what needs it.
//!
//! It carries every body that was read, and what Pingora's own loop cannot: HTTP/2 where it could not end an exchange properly. And it
//! serves what that loop has given up: the 429 queue and the chain of fallbacks. Picking, heads, metering, judging
//! and failing are the same code as on the main road, and so is the connection's alarm; with HTTP/2 clients deadlines are plain timers.

mod alone;
pub(super) mod aside;
mod gather;
mod hop;
mod last;
mod pair;
mod pool;
mod present;
mod queue;
pub(super) mod room;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, Version};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use tokio::time::{Instant, timeout_at};

use self::aside::Point;
use self::gather::Gathering;
use self::pair::Asked;
use self::pool::{Pool, Upstream};
use self::present::look_for;
use super::alarm::Deadline;
use super::body::at_once;
use super::exchange::{Exchange, Rescue};
use super::reply::Rejection;
use super::response::Telling;
use super::verdict::{self, Verdict};
use super::{disaggregate, failure, forward, peer, plugins, response, stream};
use crate::health::Failure;

pub(super) use last::{LastAnswer, give_up};
pub(super) use pair::Prefilling;
pub(super) use present::while_present;

/// A request that is sent this soon after it came is sent without another look at its client.
const HASTE: Duration = Duration::from_millis(1);

/// What is copied rather than written for itself: a system call costs more.
const COPIED: usize = 8 << 10;

/// The road, with its connections.
pub(super) struct Road {
    pool: Arc<Pool>,
}

/// What a service came to.
enum Service {
    /// The client has its answer.
    Served,
    /// It answered 429.
    TooMany,
    /// It cannot serve; what it last said is kept.
    Failed,
}

/// An answer whose head has come.
struct Answer {
    upstream: Upstream,
    peer: Box<HttpPeer>,
    head: Box<ResponseHeader>,
    /// When it came.
    at: Instant,
    /// The first part of its body, or its end, where that was waited for.
    first: Option<Option<Bytes>>,
}

impl Road {
    pub(super) fn new(threads: usize) -> Road {
        Road {
            pool: Arc::new(Pool::new(threads)),
        }
    }

    /// Serves the exchange from its buffered body. An error is for `fail_to_proxy`, which knows how to end
    /// an exchange in whatever state it is.
    pub(super) async fn carry(&self, session: &mut Session, x: &mut Exchange) -> Result<()> {
        let first = self.service(session, x).await?;
        self.go_on(session, x, first).await
    }

    /// Serves what the main road gave up.
    pub(super) async fn rescue(
        &self,
        session: &mut Session,
        x: &mut Exchange,
        how: Rescue,
    ) -> Result<()> {
        x.clear_deadline();
        x.attempt = None;
        let so_far = match how {
            Rescue::Wait => Service::TooMany,
            Rescue::FallBack => Service::Failed,
        };
        self.go_on(session, x, so_far).await
    }

    /// From one service to the next: the queue where a 429 may pass, then the fallbacks, each once.
    async fn go_on(&self, session: &mut Session, x: &mut Exchange, first: Service) -> Result<()> {
        let mut came = first;
        loop {
            came = match came {
                Service::Served => return Ok(()),
                Service::TooMany => {
                    if x.has_queue() {
                        x.step_aside(Point::Queue)?;
                    }
                    match self.queue(session, x).await? {
                        Service::TooMany => Service::Failed,
                        other => other,
                    }
                }
                Service::Failed => {
                    let reason = x.failure.map_or("unavailable", verdict::reason);
                    if !x.fall_back(reason) {
                        return give_up(session, x).await;
                    }
                    self.service(session, x).await?
                }
            }
        }
    }

    /// Asks one service, with its retries.
    async fn service(&self, session: &mut Session, x: &mut Exchange) -> Result<Service> {
        loop {
            let peer = match peer::next(session, x).await {
                Ok(peer) => peer,
                Err(error) => return without_target(x, error),
            };
            x.refusal = None;
            // Boxed, so that who waits for a turn or for room does not carry what sending takes.
            let failure = match Box::pin(self.ask_part(session, x, peer)).await {
                Ok(Asked::Came(came)) => return Ok(came),
                Ok(Asked::Answer(mut answer)) => match failure_of(&answer.head) {
                    None => {
                        verdict::praise(x, answer.at);
                        x.turn = None;
                        Box::pin(self.relay(session, x, answer)).await?;
                        pair::settle(x);
                        return Ok(Service::Served);
                    }
                    Some(failure) => {
                        if failure == Failure::Status(429) {
                            verdict::cool(x, &answer.head.headers);
                        }
                        let body = last::read(session, &mut answer.upstream).await?;
                        x.last = Some(LastAnswer {
                            head: *answer.head,
                            body,
                        });
                        failure
                    }
                },
                Err(error) if *error.esource() == ErrorSource::Downstream => return Err(error),
                Err(error) => {
                    x.cause = Some(failure::describe(&error));
                    failure::kind(x, &error)
                }
            };
            let verdict = verdict::judge(x, failure);
            let whole = verdict != Verdict::Retry && disaggregate::degrade(x, failure);
            x.attempt = None;
            match verdict {
                _ if whole => {}
                Verdict::Retry => {}
                _ if failure == Failure::Status(429) => return Ok(Service::TooMany),
                _ => return Ok(Service::Failed),
            }
        }
    }

    /// Sends the request and waits for the answer's head.
    async fn ask(
        &self,
        session: &mut Session,
        x: &mut Exchange,
        peer: Box<HttpPeer>,
    ) -> Result<Answer> {
        // When it was found.
        let mut now = x
            .attempt
            .as_ref()
            .map_or_else(Instant::now, |attempt| attempt.asked);
        if now.saturating_duration_since(x.started) > HASTE {
            look_for(session).await?;
        }
        loop {
            let connected = {
                let mut connect = pin!(self.pool.take(&peer, x.credentials(), now));
                match at_once(connect.as_mut()).await {
                    Some(connected) => connected,
                    None => {
                        let connected = while_present(session, connect).await?;
                        now = Instant::now();
                        connected
                    }
                }
            };
            let (mut upstream, reused) = connected.map_err(|e| e.into_up())?;
            match ask_over(session, x, &mut upstream, &peer, now).await {
                Ok(head) => {
                    return Ok(Answer {
                        upstream,
                        peer,
                        head,
                        at: Instant::now(),
                        first: None,
                    });
                }
                // The upstream closed a pooled connection between two requests. That is no attempt.
                Err(error)
                    if reused && !x.leg().is_some_and(|leg| leg.once) && is_stale(&error) =>
                {
                    now = Instant::now()
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Passes the answer on.
    async fn relay(&self, session: &mut Session, x: &mut Exchange, answer: Answer) -> Result<()> {
        let Answer {
            mut upstream,
            peer,
            mut head,
            mut at,
            first,
        } = answer;
        let telling = Telling::of(session, x);
        response::head(session, x, &mut head, at, telling)?;
        let bodiless = bodiless(session, &head);
        hop::frame(session, &mut head, bodiless)?;
        response::write(session, x, head, bodiless, telling).await?;
        if !bodiless {
            at = relay_body(session, x, &mut upstream, first, at).await?;
        }
        if upstream.response_done() {
            self.pool.keep(upstream, &peer, at).await;
        }
        Ok(())
    }
}

/// What a service comes to for which there is no target.
fn without_target(x: &mut Exchange, error: Box<Error>) -> Result<Service> {
    match &x.refusal {
        _ if x.has_left() => Err(error),
        Some(Rejection::RateLimited) => {
            x.failure = Some(Failure::Status(429));
            Ok(Service::TooMany)
        }
        Some(rejection) if !rejection.is_final() => Ok(Service::Failed),
        _ => Err(error),
    }
}

async fn ask_over(
    session: &mut Session,
    x: &mut Exchange,
    upstream: &mut Upstream,
    peer: &HttpPeer,
    now: Instant,
) -> Result<Box<ResponseHeader>> {
    let tls = x.handshake.is_some();
    let head = dressed(x, session.req_header(), tls, upstream, peer)?;
    let body = x.outgoing();
    upstream.set_write_timeout(peer.options.write_timeout);
    let answer = pin!(send(upstream, head, body));
    let head = in_time(session, x, now, Deadline::FirstByte, answer).await?;
    head.map_err(|e| e.into_up())
}

/// Whether Pingora's own loop is to be passed by: because the body was read, or because that loop could not end
/// the exchange properly. It drops an answer that is not the client's at its head, so that its body is lost if none better comes from the queue or
/// a fallback. It cannot interrupt an HTTP/2 client's stream but by a reset, and forgets an HTTP/2
/// upstream's early answer when a long body does not go out.
pub(super) fn wanted(session: &mut Session, x: &Exchange) -> bool {
    let Some(offer) = &x.offer else { return false };
    if session.is_upgrade_req() || (!x.body.is_whole() && !offer.service.buffers()) {
        return false;
    }
    x.body.is_whole()
        || (x.replayable && x.has_other_ways())
        || session.as_downstream().is_http2()
        || offer.service.upstream.speaks_h2()
}

/// What an answer counts as, if it is not the client's to have at once.
pub(super) fn failure_of(head: &ResponseHeader) -> Option<Failure> {
    match head.status.as_u16() {
        status @ (429 | 500..) => Some(Failure::Status(status)),
        _ => None,
    }
}

/// The pool holds what was idle a moment ago, so this ends.
fn is_stale(error: &Error) -> bool {
    *error.esource() == ErrorSource::Upstream
        && matches!(
            error.etype(),
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
        )
}

/// Writes the body behind its head. What came with the client's head is short: it is copied to leave with what follows it.
async fn send_body(upstream: &mut Upstream, body: Vec<Bytes>) -> Result<()> {
    let last = body.iter().rposition(|piece| !piece.is_empty());
    for (n, piece) in body.into_iter().enumerate() {
        hold(upstream, n == 0 && last > Some(n) && piece.len() <= COPIED);
        if !piece.is_empty() {
            upstream.write_request_body(piece, false).await?;
        }
    }
    hold(upstream, false);
    upstream.finish_request_body().await
}

/// The client's head as this upstream gets it.
fn dressed(
    x: &Exchange,
    asked: &RequestHeader,
    tls: bool,
    upstream: &Upstream,
    peer: &HttpPeer,
) -> Result<Box<RequestHeader>> {
    fitted(head_for(x, asked, tls)?, upstream, peer)
}

/// The client's head as the target of the attempt under way gets it.
fn head_for(x: &Exchange, asked: &RequestHeader, tls: bool) -> Result<RequestHeader> {
    // Without the case in which each name was typed: a map fewer to copy.
    let mut parts = asked.as_owned_parts();
    hop::strip(&mut parts.headers);
    let odd_path = (!asked.raw_path_is_utf8()).then(|| asked.raw_path());
    forward::dress(x, parts, odd_path, tls)
}

/// A head in the version that is spoken on a connection.
fn fitted(head: RequestHeader, upstream: &Upstream, peer: &HttpPeer) -> Result<Box<RequestHeader>> {
    let mut head = Box::new(head);
    if upstream.as_http2().is_some() {
        hop::to_h2(&mut head, peer.is_tls())?;
    } else {
        head.set_version(Version::HTTP_11);
    }
    Ok(head)
}

/// Sends a request, and returns the head of its answer.
async fn send(
    upstream: &mut Upstream,
    head: Box<RequestHeader>,
    body: Vec<Bytes>,
) -> Result<Box<ResponseHeader>> {
    hold(upstream, !body.is_empty());
    upstream.write_request_header(head).await?;
    // An upstream that answers early may stop reading; its answer still counts.
    let sent = send_body(upstream, body).await;
    match read_head(upstream).await {
        Ok(head) => Ok(head),
        Err(error) => Err(sent.err().unwrap_or(error)),
    }
}

/// Whether what is written waits for more.
fn hold(upstream: &Upstream, holds: bool) {
    if let Some(http1) = upstream.as_http1() {
        Gathering::hold(http1.stream(), holds);
    }
}

async fn read_head(upstream: &mut Upstream) -> Result<Box<ResponseHeader>> {
    loop {
        upstream.read_response_header().await?;
        match upstream.response_header() {
            Some(head) if head.status.is_informational() => continue,
            Some(head) => return owned(head),
            None => return Error::e_explain(ErrorType::InvalidHTTPHeader, "no response head"),
        }
    }
}

/// A copy of a head without the case of its names.
fn owned(head: &ResponseHeader) -> Result<Box<ResponseHeader>> {
    let mut own = Box::new(ResponseHeader::from(head.as_owned_parts()));
    let reason = head.get_reason_phrase();
    if reason != head.status.canonical_reason() {
        own.set_reason_phrase(reason)?;
    }
    Ok(own)
}

/// Passes the answer's body on as it comes, from what came `first`. Its head came at `now`. Returns when it ended.
async fn relay_body(
    session: &mut Session,
    x: &mut Exchange,
    upstream: &mut Upstream,
    mut first: Option<Option<Bytes>>,
    mut now: Instant,
) -> Result<Instant> {
    let mut last = None;
    loop {
        let chunk = if let Some(first) = first.take() {
            Ok(first)
        } else {
            let mut read = pin!(upstream.read_response_body());
            match at_once(read.as_mut()).await {
                Some(chunk) => chunk,
                None => {
                    let chunk = in_time(session, x, now, Deadline::Idle, read).await?;
                    now = Instant::now();
                    chunk
                }
            }
        };
        let Some(chunk) = chunk.map_err(|e| e.into_up())? else {
            break;
        };
        let metered = stream::chunk(x, chunk, now);
        if upstream.response_done() {
            // With its last byte the client has its answer: what that came to is settled before.
            last = Some(metered);
            break;
        }
        let chunk = plugins::chunk(x, metered)?;
        if !chunk.is_empty() {
            session
                .write_response_body(Some(chunk), false)
                .await
                .map_err(|e| e.into_down())?;
        }
    }
    let rest = stream::end(x, last, now)?;
    session
        .write_response_body(Some(rest.unwrap_or_default()), true)
        .await
        .map_err(|e| e.into_down())?;
    Ok(now)
}

/// Awaits the upstream for as long as the service says, from `now` on, and the client is there.
async fn in_time<F: Future + Unpin>(
    session: &mut Session,
    x: &mut Exchange,
    now: Instant,
    cause: Deadline,
    work: F,
) -> Result<F::Output> {
    if session.as_downstream().is_http2() {
        // A stream's alarm could only reset it.
        x.silence_alarm();
        let (at, cause) = x.deadline(now, cause);
        let work = pin!(timeout_at(at, work));
        let done = while_present(session, work).await?;
        return done.map_err(|_| rung(x, cause));
    }
    x.set_deadline(now, cause);
    let done = while_present(session, work).await;
    x.clear_deadline();
    match x.alarm.as_ref().and_then(|alarm| alarm.take()) {
        Some(cause) if done.is_err() => Err(rung(x, cause)),
        _ => done,
    }
}

fn rung(x: &mut Exchange, cause: Deadline) -> Box<Error> {
    x.rung = Some(cause);
    Error::explain(ErrorType::ReadTimedout, cause.name()).into_up()
}

/// Whether an answer with this head has no body, whatever its length says.
pub(super) fn bodiless(session: &Session, head: &ResponseHeader) -> bool {
    session.req_header().method == Method::HEAD
        || matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
}
