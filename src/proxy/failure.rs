//! Phase 7: what could not be served, and what broke on the way.
//!
//! Tells who failed: the client that left, the upstream, or a deadline; then ends the exchange: with an answer while none has
//! begun, with an error event in a stream that has, and with a broken connection in any case that must not look complete.

use http::Version;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::Instant;

use super::alarm::Deadline;
use super::disaggregate;
use super::exchange::{Exchange, Rescue};
use super::recover::{self, LastAnswer, Road, failure_of};
use super::reply::{self, Rejection};
use super::stream::Meter;
use super::verdict::{self, Verdict};
use crate::health::Failure;

/// The head of an answer on Pingora's road, come at `now`: either it is the client's, or it ends the attempt.
pub(super) fn take_head(x: &mut Exchange, head: &ResponseHeader, now: Instant) -> Result<()> {
    if head.status.is_informational() {
        return Ok(());
    }
    let Some(failure) = failure_of(head) else {
        verdict::praise(x, now);
        return Ok(());
    };
    if failure == Failure::Status(429) {
        verdict::cool(x, &head.headers);
    }
    let verdict = verdict::judge(x, failure);
    if verdict == Verdict::Final {
        return Ok(());
    }
    x.last = Some(LastAnswer {
        head: head.clone(),
        body: None,
    });
    let error = Error::new_up(ErrorType::HTTPStatus(head.status.as_u16()));
    Err(sentence(x, verdict, failure, error))
}

/// No connection came about.
pub(super) fn connecting(x: &mut Exchange, error: Box<Error>) -> Box<Error> {
    let verdict = verdict::judge(x, Failure::Connect);
    sentence(x, verdict, Failure::Connect, error)
}

/// An error after a connection stood. Notes a rung alarm, and allows the one retry that is always safe and no attempt: on a
/// pooled connection that the peer had closed meanwhile.
pub(super) fn while_proxying(
    session: &mut Session,
    x: &mut Exchange,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    if let ErrorType::HTTPStatus(_) = error.etype() {
        // Judged at the head.
        return error;
    }
    x.clear_deadline();
    if x.refusal.as_ref().is_some_and(Rejection::is_final) {
        // A plugin has ended it: nobody failed.
        error.set_retry(false);
        return error;
    }
    if let Some(cause) = x.alarm.as_ref().and_then(|alarm| alarm.take()) {
        x.rung = Some(cause);
        error = Error::explain(ErrorType::ReadTimedout, cause.name()).into_up();
    }
    error.retry.decide_reuse(reused);
    let stale = error.retry();
    error.set_retry(false);
    if *error.esource() == ErrorSource::Downstream || x.rung == Some(Deadline::Total) {
        return error;
    }
    let failure = kind(x, &error);
    if has_begun(session) || session.as_ref().retry_buffer_truncated() && !x.replayable {
        verdict::blame(x, failure);
        return error;
    }
    if stale && x.replayable {
        x.attempts = x.attempts.saturating_sub(1);
        x.attempt = None;
        error.set_retry(true);
        return error;
    }
    let verdict = verdict::judge(x, failure);
    sentence(x, verdict, failure, error)
}

/// Tells Pingora what the verdict is, and `fail_to_proxy` what it may do.
fn sentence(
    x: &mut Exchange,
    verdict: Verdict,
    failure: Failure,
    mut error: Box<Error>,
) -> Box<Error> {
    let queues = x
        .offer
        .as_ref()
        .is_some_and(|offer| offer.service.queue.is_some());
    x.rescue = match verdict {
        Verdict::Elsewhere if failure == Failure::Status(429) && queues => Some(Rescue::Wait),
        Verdict::Elsewhere => Some(Rescue::FallBack),
        Verdict::Retry | Verdict::Final => None,
    };
    error.set_retry(verdict == Verdict::Retry);
    error
}

/// What kind of failure an upstream's error is.
pub(super) fn kind(x: &Exchange, error: &Error) -> Failure {
    match error.etype() {
        _ if x.rung.is_some() => Failure::Timeout,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::Timeout,
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed => {
            Failure::Reset
        }
        ErrorType::InvalidHTTPHeader
        | ErrorType::H1Error
        | ErrorType::H2Error
        | ErrorType::H2Downgrade
        | ErrorType::InvalidH2 => Failure::Protocol,
        bad if *bad == disaggregate::BAD_ANSWER => Failure::Protocol,
        _ => Failure::Connect,
    }
}

fn has_begun(session: &Session) -> bool {
    session
        .response_written()
        .is_some_and(|head| !head.status.is_informational())
}

/// The exchange failed on the road it took: it is served by the other if that can be, and ended if not.
pub(super) async fn end(session: &mut Session, x: &mut Exchange, error: &Error, road: &Road) {
    let Some(how) = x.rescue.take().filter(|_| !has_begun(session)) else {
        return give_up(session, x, error).await;
    };
    // After its attempts Pingora closes the connection in any case; say so.
    session.set_keepalive(None);
    x.cause = Some(describe(error));
    if let Err(error) = road.rescue(session, x, how).await {
        give_up(session, x, &error).await;
    }
}

async fn give_up(session: &mut Session, x: &mut Exchange, error: &Error) {
    if client_left(x, error) {
        x.client_left = true;
        return;
    }
    x.cause = Some(describe(error));
    let rejection = x.refusal.take().unwrap_or_else(|| blame(x, error));
    if has_begun(session) {
        if *error.esource() == ErrorSource::Upstream {
            verdict::blame(x, kind(x, error));
        }
        break_off(session, x, &rejection).await;
        return;
    }
    session.set_keepalive(None);
    if x.last.is_some() && x.rung != Some(Deadline::Total) && !rejection.is_final() {
        // What an upstream said last says more than that another could not be reached.
        let _ = recover::give_up(session, x).await;
        if let Some(rejection) = x.refusal.take().filter(|_| !has_begun(session)) {
            // A plugin did not let it pass.
            let _ = reply::reject(session, x, &rejection).await;
        }
        return;
    }
    let _ = reply::reject(session, x, &rejection).await;
}

fn client_left(x: &Exchange, error: &Error) -> bool {
    if x.rung.is_some() || x.refusal.is_some() {
        return false;
    }
    *error.esource() == ErrorSource::Downstream
        && matches!(
            error.etype(),
            ErrorType::ReadError
                | ErrorType::WriteError
                | ErrorType::ConnectionClosed
                | ErrorType::ConnectError
                | ErrorType::H2Error
                | ErrorType::WriteTimedout
        )
}

fn blame(x: &Exchange, error: &Error) -> Rejection {
    match (x.rung, error.etype()) {
        (Some(_), _) => Rejection::UpstreamTimeout,
        (None, ErrorType::ReadTimedout) if *error.esource() == ErrorSource::Downstream => {
            Rejection::RequestTimeout
        }
        (None, ErrorType::ReadTimedout | ErrorType::ConnectTimedout | ErrorType::WriteTimedout) => {
            Rejection::UpstreamTimeout
        }
        _ if *error.esource() == ErrorSource::Downstream => {
            Rejection::invalid("The request could not be read to its end.", None)
        }
        _ => Rejection::UpstreamError,
    }
}

/// A stream that has begun gets one last event, and then no clean end.
pub(super) async fn break_off(session: &mut Session, x: &mut Exchange, rejection: &Rejection) {
    x.error_code = Some(rejection.code());
    if x.event_stream && !x.grpc {
        let inside = matches!(&x.meter, Meter::Events { usage, .. } if usage.inside_event());
        let mut event = Vec::new();
        if inside {
            event.extend_from_slice(b"\n\n");
        }
        event.extend_from_slice(&rejection.event(reply::dialect_of(session)));
        let _ = session.write_response_body(Some(event.into()), false).await;
    }
    if session.req_header().version == Version::HTTP_2 {
        // The event must leave before the reset that follows it.
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// For the operator: what broke, and for a deadline which.
pub(super) fn describe(error: &Error) -> String {
    let told = match error.context.as_ref() {
        Some(context) => format!("{}: {}", error.etype().as_str(), context.as_str()),
        None => error.etype().as_str().to_owned(),
    };
    match error.etype() {
        // Only the innermost says what is wrong with a certificate.
        ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert if error.cause.is_some() => {
            format!("{told}: {}", error.root_cause())
        }
        _ => told,
    }
}

impl Deadline {
    /// The configuration's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Deadline::FirstByte => "first_byte",
            Deadline::Idle => "idle",
            Deadline::Total => "total",
        }
    }
}
