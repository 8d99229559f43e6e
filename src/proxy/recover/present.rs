//! Waiting while the client is there.

use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use crate::proxy::body::at_once;

/// Whether the client is still there: who has left while its request was looked at is not sent.
pub(super) async fn look_for(session: &mut Session) -> Result<()> {
    let left = pin!(session.as_downstream_mut().read_body_or_idle(true));
    match at_once(left).await {
        None => Ok(()),
        Some(left) => Err(gone(left)),
    }
}

fn gone(left: Result<Option<Bytes>>) -> Box<Error> {
    match left {
        Err(error) => error.into_down(),
        Ok(_) => Error::explain(ErrorType::ConnectionClosed, "the client left").into_down(),
    }
}

/// Awaits `work`, pinned where it stands, for as long as the client is there. Its request is read to the end, so that it
/// closes is all it can do, and ends the exchange.
pub(in crate::proxy) async fn while_present<F: Future + Unpin>(
    session: &mut Session,
    work: F,
) -> Result<F::Output> {
    let left = pin!(session.as_downstream_mut().read_body_or_idle(true));
    tokio::select! {
        biased;
        done = work => Ok(done),
        left = left => Err(gone(left)),
    }
}
