//! The last answer: what the client gets when everything is spent.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora_core::protocols::http::client::HttpSession as Upstream;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::timeout;

use super::while_present;
use crate::proxy::exchange::Exchange;
use crate::proxy::reply::{self, Rejection};
use crate::proxy::response;

/// An answer that was not passed on, in case none better comes.
pub(in crate::proxy) struct LastAnswer {
    pub(in crate::proxy) head: ResponseHeader,
    /// Not known of an answer that Pingora's road had to drop at its head.
    pub(in crate::proxy) body: Option<Bytes>,
}

/// Of an error's body no more is kept than this.
const MOST: usize = 256 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads an error's body. One that does not end in time or bounds is cut: it is an error's explanation, no more.
pub(super) async fn read(session: &mut Session, upstream: &mut Upstream<()>) -> Result<Bytes> {
    let mut body = BytesMut::new();
    let read = async {
        while let Ok(Some(chunk)) = upstream.read_response_body().await {
            body.extend_from_slice(&chunk);
            if body.len() > MOST {
                break;
            }
        }
    };
    // Boxed: this is no hot path, and the body is wanted back.
    let _ = while_present(session, Box::pin(timeout(PATIENCE, read))).await?;
    Ok(body.freeze())
}

/// Answers with the last answer, or with our own word when there was none. What was not known of why is left to
/// `fail_to_proxy`.
pub(super) async fn give_up(session: &mut Session, x: &mut Exchange) -> Result<()> {
    let Some(LastAnswer { mut head, body }) = x.last.take() else {
        return Err(Error::explain(ErrorType::ConnectError, "nothing is left to try").into_up());
    };
    x.refusal = None;
    response::head(x, &mut head)?;
    head.remove_header(&TRANSFER_ENCODING);
    head.remove_header(&CONTENT_LENGTH);
    let body = body.unwrap_or_else(|| {
        let rejection = match head.status.as_u16() {
            429 => Rejection::RateLimited,
            _ => Rejection::UpstreamError,
        };
        rejection.body(reply::dialect_of(session)).into()
    });
    reply::send(session, x, head, body)
        .await
        .map_err(|e| e.into_down())
}
