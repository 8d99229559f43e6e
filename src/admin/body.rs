//! Bodies of requests: read whole before anything is done, within a size and a time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use tokio::time::timeout;
use tollgate_sdk::document::FromText;

use super::audit::Attempted;
use super::reply;
use crate::model::Name;

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the body of at most so many bytes, then goes on.
pub(super) async fn read(State(largest): State<usize>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let length = parts.headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > largest) {
        return too_large(largest);
    }
    let bytes = match timeout(PATIENCE, Limited::new(body, largest).collect()).await {
        Ok(Ok(read)) => read.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(largest),
        Ok(Err(_)) => return reply::malformed("the body broke off"),
        Err(_) => {
            let why = "The body did not come within 10 seconds.";
            return reply::error(StatusCode::REQUEST_TIMEOUT, "request_timeout", why);
        }
    };
    let name = name_in(&bytes);
    let request = Request::from_parts(parts, Body::from(bytes));
    let mut response = in_json(next.run(request).await);
    response.extensions_mut().insert(Attempted(name));
    response
}

fn too_large(largest: usize) -> Response {
    let why = format!("The body is larger than {largest} bytes, the most there may be here.");
    reply::error(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", &why)
}

/// The resource that a body is about, if it is one resource with a proper name.
fn name_in(body: &Bytes) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        name: Option<String>,
    }
    let named: Named = serde_json::from_slice(body).ok()?;
    named.name.filter(|name| Name::from_text(name).is_ok())
}

/// Axum itself refuses in plain text what it cannot decode.
fn in_json(response: Response) -> Response {
    let kind = response.headers().get(CONTENT_TYPE);
    let plain = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    match plain && response.status().is_client_error() {
        true => reply::malformed("the path or its parameters could not be read"),
        false => response,
    }
}
