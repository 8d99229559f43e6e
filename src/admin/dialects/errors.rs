//! Errors in the form of the system that is spoken: made from ours in one place, also those that are answered before a page is reached.

use axum::Json;
use axum::body::to_bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// Bytes of the longest error there is.
const LONGEST: usize = 4 << 20;

/// How a system tells of an error of ours: `{"message","code","details"}`, with the status that ours has.
pub(in super::super) type Retell = fn(StatusCode, &Value) -> (StatusCode, Value);

/// Tells an error as `retell` does; everything else goes on as it is.
pub(in super::super) async fn reword(retell: Retell, response: Response) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = to_bytes(body, LONGEST).await else {
        return status.into_response();
    };
    let told: Option<Value> = serde_json::from_slice(&body).ok();
    let error = told.as_ref().and_then(|told| told.get("error"));
    let Some(error) = error.filter(|error| error.is_object()) else {
        return Response::from_parts(parts, body.into());
    };
    let (status, body) = retell(status, error);
    parts.headers.remove(CONTENT_LENGTH);
    let (_, body) = Json(body).into_response().into_parts();
    parts.status = status;
    Response::from_parts(parts, body)
}

/// The message of an error with everything that is wrong, as one text.
pub(super) fn in_full(error: &Value) -> String {
    let text = |value: &Value, name: &str| {
        let text = value.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let details = error.get("details").and_then(Value::as_array);
    let details = details.into_iter().flatten().map(|detail| {
        match (text(detail, "path"), text(detail, "message")) {
            (path, message) if path.is_empty() => message,
            (path, message) => format!("{path}: {message}"),
        }
    });
    let details: Vec<String> = details.collect();
    match details.is_empty() {
        true => text(error, "message"),
        false => details.join("; "),
    }
}
