//! Phase 7: what could not be served, and what broke on the way.
//!
//! Tells who failed: the client that left, the upstream, or a deadline; then ends the exchange: with an answer while none has
//! begun, with an error event in a stream that has, and with a broken connection in any case that must not look complete.

use http::Version;
use pingora_core::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::connection::Deadline;
use super::exchange::Exchange;
use super::reply::{self, Rejection};
use super::stream::Meter;

/// An error after a connection stood. Notes a rung alarm, and allows the one retry that is always safe: on a pooled
/// connection that the peer had closed meanwhile.
pub(super) fn while_proxying(
    session: &mut Session,
    x: &mut Exchange,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    x.clear_deadline();
    if let Some(cause) = x.alarm.as_ref().and_then(|alarm| alarm.take()) {
        x.rung = Some(cause);
        error = Error::explain(ErrorType::ReadTimedout, cause.name()).into_up();
    }
    let begun = session
        .response_written()
        .is_some_and(|head| !head.status.is_informational());
    let replayable = x.body.is_whole() || !session.as_ref().retry_buffer_truncated();
    if begun || !replayable || *error.esource() == ErrorSource::Downstream {
        error.set_retry(false);
    } else {
        error.retry.decide_reuse(reused);
    }
    error
}

/// The exchange failed for good.
pub(super) async fn end(session: &mut Session, x: &mut Exchange, error: &Error) {
    let begun = session
        .response_written()
        .is_some_and(|head| !head.status.is_informational());
    if client_left(x, error) {
        x.client_left = true;
        return;
    }
    x.cause = Some(describe(error));
    let rejection = x.refusal.take().unwrap_or_else(|| blame(x, error));
    if begun {
        break_off(session, x, &rejection).await;
        return;
    }
    // After its attempts Pingora closes the connection in any case; say so.
    session.set_keepalive(None);
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
fn describe(error: &Error) -> String {
    match error.context.as_ref() {
        Some(context) => format!("{}: {}", error.etype().as_str(), context.as_str()),
        None => error.etype().as_str().to_owned(),
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
