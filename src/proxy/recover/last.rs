//! The last answer: what the client gets when everything is spent.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, LAST_MODIFIED, TRANSFER_ENCODING,
};
use http::{HeaderName, Version};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::{Instant, timeout};

use super::pool::Upstream;
use super::while_present;
use crate::proxy::exchange::Exchange;
use crate::proxy::plugins;
use crate::proxy::reply::{self, Rejection};
use crate::proxy::response::{self, Telling};

/// An answer that was not passed on, in case none better comes.
pub(in crate::proxy) struct LastAnswer {
    pub(in crate::proxy) head: ResponseHeader,
    /// Not known of an answer that Pingora's road had to drop at its head.
    pub(in crate::proxy) body: Option<Bytes>,
}

const DESCRIBES_BODY: [HeaderName; 6] = [
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_RANGE,
    ETAG,
    LAST_MODIFIED,
    ACCEPT_RANGES,
];

/// Of an error's body no more is kept than this.
const MOST: usize = 256 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads an error's body; `None` if it does not end in time or bounds, since half of it may be worth nothing.
pub(super) async fn read(session: &mut Session, upstream: &mut Upstream) -> Result<Option<Bytes>> {
    let mut body = BytesMut::new();
    let read = async {
        loop {
            match upstream.read_response_body().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= MOST => {
                    body.extend_from_slice(&chunk)
                }
                Ok(None) => return true,
                _ => return false,
            }
        }
    };
    // Boxed: this is no hot path, and the body is wanted back.
    let whole = while_present(session, Box::pin(timeout(PATIENCE, read))).await?;
    Ok((whole == Ok(true)).then(|| body.freeze()))
}

/// Answers with the last answer, or with our own word when there was none. What was not known of why is left to
/// `fail_to_proxy`.
pub(in crate::proxy) async fn give_up(session: &mut Session, x: &mut Exchange) -> Result<()> {
    let Some(LastAnswer { mut head, body }) = x.last.take() else {
        let nothing = "nothing is left to try";
        let told = match x.cause.take() {
            Some(cause) => format!("{nothing} after {cause}"),
            None => nothing.to_owned(),
        };
        return Err(Error::explain(ErrorType::ConnectError, told).into_up());
    };
    x.refusal = None;
    response::head(session, x, &mut head, Instant::now(), Telling::InHead)?;
    head.remove_header(&TRANSFER_ENCODING);
    head.remove_header(&CONTENT_LENGTH);
    if !session.as_downstream().is_http2() {
        // The answer may have come over HTTP/2; Pingora writes no such version to an HTTP/1 client.
        head.set_version(Version::HTTP_11);
    }
    if body.is_none() {
        // The words will be ours: what described the lost ones goes.
        for name in DESCRIBES_BODY {
            head.remove_header(&name);
        }
        head.insert_header(CONTENT_TYPE, "application/json")?;
    }
    let body = body.unwrap_or_else(|| {
        let rejection = match head.status.as_u16() {
            429 => Rejection::RateLimited,
            _ => Rejection::UpstreamError,
        };
        rejection.body(reply::dialect_of(session)).into()
    });
    let body = plugins::last_chunk(x, Some(body))?.unwrap_or_default();
    reply::send(session, x, head, body)
        .await
        .map_err(|e| e.into_down())
}
