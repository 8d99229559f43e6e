//! The only place that writes an answer of our own.
//!
//! [`Rejection`] is the closed set of them; this file turns one into status, headers and a body in the caller's dialect.
//! None says an internal address, an upstream's error text or a secret.

use std::time::Duration;

use bytes::Bytes;
use http::header::{STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use smallvec::SmallVec;
use tokio::time::Instant;
use tollgate_sdk::codes::{self, Code};
use tollgate_sdk::llm::dialect::{Dialect, error_body, error_event};
use tollgate_sdk::plugin::{HeaderEdit, Refusal};

use super::account;
use super::exchange::Exchange;
use super::plugins;

/// What a client is told whose request head does not come to an end.
pub(super) const SLOW_HEAD: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n\
content-length: 136\r\nconnection: close\r\n\r\n\
{\"error\":{\"message\":\"The request's head took too long to arrive.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"request_timeout\"}}";

/// What a client is told for whose connection there is no place.
pub(super) const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
retry-after: 1\r\ncontent-length: 132\r\nconnection: close\r\n\r\n\
{\"error\":{\"message\":\"Too many connections are open. Try again in a moment.\",\"type\":\"server_error\",\"param\":null,\"code\":\"overloaded\"}}";

/// Why Tollgate answers itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The request is malformed; says how, and which field.
    Invalid {
        message: String,
        param: Option<&'static str>,
    },
    /// The client's address may not ask.
    Forbidden,
    /// No key, or none that opens this gateway now.
    InvalidKey,
    /// Whoever would know the token does not answer.
    UnknownForNow,
    /// The key does not open this.
    OutOfScope,
    /// A plugin refused it.
    Plugin(Refusal),
    /// A plugin broke down.
    Internal,
    /// No service of the gateway answers to the model.
    ModelNotFound(String),
    /// No rule takes the request and it names no model.
    RouteNotFound,
    /// The path exists, for these methods.
    MethodNotAllowed(String),
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body is larger than this many bytes.
    TooLarge(u64),
    /// No gateway has this host.
    UnknownHost,
    /// The connection is another gateway's.
    Misdirected,
    /// The gateway asks for certificates, and none can be shown here.
    Uncertified,
    /// The upstream could not be reached or spoke nonsense.
    UpstreamError,
    /// Nothing can serve the request now.
    NoHealthyUpstream,
    /// Tollgate itself is at a limit.
    Overloaded,
    /// The gateway is paused.
    Paused,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream has too many requests, and its own words for it are not to be had.
    RateLimited,
}

/// After how long a refused client may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Rejection {
    pub(super) fn invalid(message: impl Into<String>, param: Option<&'static str>) -> Rejection {
        Rejection::Invalid {
            message: message.into(),
            param,
        }
    }

    /// Status and error code.
    fn told(&self) -> (u16, &'static str) {
        let Code { status, name, .. } = match self {
            Rejection::Plugin(refusal) => return (refusal.status, refusal.code),
            Rejection::Invalid { .. } => &codes::INVALID_REQUEST,
            Rejection::Forbidden | Rejection::OutOfScope | Rejection::Uncertified => {
                &codes::PERMISSION_DENIED
            }
            Rejection::InvalidKey => &codes::INVALID_API_KEY,
            Rejection::Internal => &codes::INTERNAL_ERROR,
            Rejection::UnknownForNow => &codes::IDENTITY_UNAVAILABLE,
            Rejection::ModelNotFound(_) => &codes::MODEL_NOT_FOUND,
            Rejection::RouteNotFound => &codes::ROUTE_NOT_FOUND,
            Rejection::MethodNotAllowed(_) => &codes::METHOD_NOT_ALLOWED,
            Rejection::RequestTimeout => &codes::REQUEST_TIMEOUT,
            Rejection::TooLarge(_) => &codes::REQUEST_TOO_LARGE,
            Rejection::UnknownHost | Rejection::Misdirected => &codes::UNKNOWN_HOST,
            Rejection::UpstreamError => &codes::UPSTREAM_ERROR,
            Rejection::NoHealthyUpstream => &codes::NO_HEALTHY_UPSTREAM,
            Rejection::Overloaded => &codes::OVERLOADED,
            Rejection::Paused => &codes::GATEWAY_PAUSED,
            Rejection::UpstreamTimeout => &codes::UPSTREAM_TIMEOUT,
            Rejection::RateLimited => &codes::RATE_LIMIT_EXCEEDED,
        };
        (*status, name)
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.told().0).unwrap_or(StatusCode::FORBIDDEN)
    }

    /// The error code, which is also the metric's label.
    pub(super) fn code(&self) -> &'static str {
        self.told().1
    }

    /// Whether it is about the exchange itself, so that no other target or service is asked.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Rejection::Plugin(_) | Rejection::Internal)
    }

    fn param(&self) -> Option<&str> {
        match self {
            Rejection::Invalid { param, .. } => *param,
            Rejection::Plugin(refusal) => refusal.param.as_deref(),
            Rejection::ModelNotFound(_) => Some("model"),
            _ => None,
        }
    }

    fn message(&self) -> String {
        match self {
            Rejection::Invalid { message, .. } => message.clone(),
            Rejection::Forbidden => "Your address may not use this gateway.".into(),
            Rejection::InvalidKey => {
                "The API key is missing or not valid. Send it as `Authorization: Bearer KEY`.".into()
            }
            Rejection::Plugin(refusal) => refusal.message.clone(),
            Rejection::Internal => "The gateway could not check this request.".into(),
            Rejection::UnknownForNow => {
                "Your token cannot be checked now. Try again in a moment.".into()
            }
            Rejection::OutOfScope => "This API key may not be used for that.".into(),
            Rejection::ModelNotFound(model) => {
                format!("The model `{model}` does not exist or you do not have access to it.")
            }
            Rejection::RouteNotFound => {
                "Nothing is served at this path. Name a model in the request's JSON body, or ask GET /v1/models."
                    .into()
            }
            Rejection::MethodNotAllowed(allow) => {
                format!("This path does not take that method. Allowed: {allow}.")
            }
            Rejection::RequestTimeout => "The request's body took too long to arrive.".into(),
            Rejection::TooLarge(limit) => {
                format!("The request's body is larger than the {limit} bytes allowed here.")
            }
            Rejection::UnknownHost => "No gateway serves this host name.".into(),
            Rejection::Misdirected => {
                "This connection is for another host name. Open one for this.".into()
            }
            Rejection::Uncertified => {
                "This gateway asks for client certificates, which only TLS has.".into()
            }
            Rejection::UpstreamError => "The upstream could not answer.".into(),
            Rejection::NoHealthyUpstream => "No upstream can serve this request now.".into(),
            Rejection::Overloaded => "Too many requests are being served now.".into(),
            Rejection::Paused => "This gateway is paused.".into(),
            Rejection::UpstreamTimeout => "The upstream did not answer in time.".into(),
            Rejection::RateLimited => "Too many requests. Try again later.".into(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        if let Rejection::Plugin(refusal) = self {
            // In whole seconds, and not too early.
            let up = |after: Duration| after.as_secs() + u64::from(after.subsec_nanos() > 0);
            return refusal
                .retry_after
                .map(|after| Duration::from_secs(up(after)));
        }
        matches!(
            self,
            Rejection::NoHealthyUpstream
                | Rejection::Overloaded
                | Rejection::Paused
                | Rejection::UnknownForNow
                | Rejection::RateLimited
        )
        .then_some(RETRY_AFTER)
    }

    fn kind(&self, dialect: Dialect) -> &'static str {
        dialect.error_type(self.status().as_u16(), self.code())
    }

    /// The error as a body in this dialect.
    pub(super) fn body(&self, dialect: Dialect) -> String {
        error_body(
            dialect,
            self.kind(dialect),
            self.code(),
            &self.message(),
            self.param(),
        )
    }

    /// The error as the last event of a stream that has begun.
    pub(super) fn event(&self, dialect: Dialect) -> Bytes {
        error_event(
            dialect,
            self.kind(dialect),
            self.code(),
            &self.message(),
            self.param(),
        )
        .into()
    }
}

/// Answers with a rejection. Afterwards the exchange counts as answered, whatever the client made of it.
pub(super) async fn reject(
    session: &mut Session,
    x: &mut Exchange,
    rejection: &Rejection,
) -> Result<()> {
    x.refused(rejection);
    if x.grpc {
        return reject_grpc(session, x, rejection).await;
    }
    let mut head = ResponseHeader::build(rejection.status(), Some(8))?;
    let own = match rejection {
        Rejection::Plugin(refusal) => {
            for (name, value) in &refusal.headers {
                head.append_header(name, value)?;
            }
            refusal.body.clone()
        }
        _ => None,
    };
    let (kind, body) = own.unwrap_or_else(|| {
        let json = HeaderValue::from_static("application/json");
        (json, rejection.body(dialect_of(session)).into())
    });
    if !body.is_empty() {
        head.insert_header(http::header::CONTENT_TYPE, kind)?;
        // It says words of the client: no browser shall take it for a page.
        head.insert_header(X_CONTENT_TYPE_OPTIONS, "nosniff")?;
    }
    if let Rejection::MethodNotAllowed(allow) = rejection {
        head.insert_header(http::header::ALLOW, allow.as_str())?;
    }
    if *rejection == Rejection::InvalidKey {
        head.insert_header(http::header::WWW_AUTHENTICATE, "Bearer")?;
    }
    if let Some(after) = rejection.retry_after() {
        head.insert_header(http::header::RETRY_AFTER, after.as_secs())?;
    }
    send(session, x, head, body).await
}

/// What the caller speaks.
pub(super) fn dialect_of(session: &Session) -> Dialect {
    Dialect::of_path(session.req_header().uri.path())
}

/// Answers with a body of ours.
pub(super) async fn send(
    session: &mut Session,
    x: &mut Exchange,
    mut head: ResponseHeader,
    body: Bytes,
) -> Result<()> {
    x.status = head.status.as_u16();
    account::give_back(x, Instant::now());
    let bodiless =
        session.req_header().method == http::Method::HEAD || head.status == StatusCode::NO_CONTENT;
    if head.status != StatusCode::NO_CONTENT {
        head.insert_header(http::header::CONTENT_LENGTH, body.len())?;
    }
    head.insert_header("x-request-id", x.request_id.value())?;
    if let Some(hsts) = insists(x) {
        head.insert_header(STRICT_TRANSPORT_SECURITY, hsts)?;
    }
    let mut standings = SmallVec::<[_; 6]>::new();
    x.edits
        .standings
        .put(|name, value| standings.push((name, value)));
    for (name, value) in standings {
        // What a refusal says of its own limit counts more.
        if !head.headers.contains_key(&name) {
            head.insert_header(name, value)?;
        }
    }
    for (name, edit) in plugins::response_edits(x) {
        match edit {
            HeaderEdit::Set(value) => head.insert_header(name, value)?,
            HeaderEdit::Add(value) => {
                head.append_header(name, value)?;
            }
            HeaderEdit::Remove => {
                head.remove_header(name);
            }
        }
    }
    session
        .write_response_header(Box::new(head), bodiless)
        .await?;
    if !bodiless {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// What a client that came by TLS is told of how long to insist on it.
pub(super) fn insists(x: &Exchange) -> Option<&HeaderValue> {
    x.handshake.as_ref()?;
    x.gateway.as_ref()?.hsts.as_ref()
}

/// gRPC's own way to fail: status 200 and trailers only, which here are the header block.
async fn reject_grpc(session: &mut Session, x: &mut Exchange, rejection: &Rejection) -> Result<()> {
    account::give_back(x, Instant::now());
    let status = match rejection.status().as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 | 405 => 12,
        408 | 504 => 4,
        413 | 429 => 8,
        _ => 14,
    };
    let mut head = ResponseHeader::build(StatusCode::OK, Some(4))?;
    head.insert_header(http::header::CONTENT_TYPE, "application/grpc")?;
    head.insert_header("grpc-status", status)?;
    head.insert_header("grpc-message", rejection.message())?;
    head.insert_header("x-request-id", x.request_id.value())?;
    session.write_response_header(Box::new(head), true).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_written_down_are_well_formed() {
        for (answer, code) in [(SLOW_HEAD, "request_timeout"), (NO_PLACE, "overloaded")] {
            let text = std::str::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("content-length: {}", body.len())),
                "{}",
                body.len()
            );
            let value: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(value["error"]["code"], code);
        }
    }
}
