//! Answers of the admin API: JSON, and errors in one shape.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::config::Mistake;
use crate::control::ChangeError;

/// An error: `{"error":{"message","type","param","code"}}`.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let error = json!({"message": message, "type": kind(status), "param": null, "code": code});
    (status, Json(json!({ "error": error }))).into_response()
}

fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    }
}

/// Every mistake of a document at once.
pub(super) fn mistakes(mistakes: &[Mistake]) -> Response {
    let details = listed(mistakes);
    let message = match mistakes {
        [_] => "There is a mistake in what was sent.".to_owned(),
        several => format!("There are {} mistakes in what was sent.", several.len()),
    };
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let param = mistakes.first().map(|mistake| mistake.path.as_str());
    let param = param.filter(|path| !path.is_empty());
    let error = json!({"message": message, "type": kind(status), "param": param, "code": "invalid", "details": details});
    (status, Json(json!({ "error": error }))).into_response()
}

/// Places and what is said of them.
pub(super) fn listed(mistakes: &[Mistake]) -> Value {
    let listed = mistakes.iter();
    listed
        .map(|mistake| json!({"path": mistake.path, "message": mistake.message}))
        .collect()
}

/// Why a change was not made.
pub(super) fn refused(refused: &ChangeError) -> Response {
    let (status, code) = match refused {
        ChangeError::Invalid(found) => return mistakes(found),
        ChangeError::Exists(..) => (StatusCode::CONFLICT, "exists"),
        ChangeError::OfFile(..) => (StatusCode::CONFLICT, "owned_by_file"),
        ChangeError::Listed(..) => (StatusCode::CONFLICT, "owned_by_upstream"),
        ChangeError::InUse(_) => (StatusCode::CONFLICT, "in_use"),
        ChangeError::Missing(..) => (StatusCode::NOT_FOUND, "not_found"),
        ChangeError::Stale { .. } => (StatusCode::PRECONDITION_FAILED, "stale"),
        ChangeError::HandingOver => return in_a_moment(&refused.to_string()),
        ChangeError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        ChangeError::Unwritten(_) | ChangeError::Broken => {
            (StatusCode::INTERNAL_SERVER_ERROR, "internal_error")
        }
    };
    error(status, code, &sentence(&refused.to_string()))
}

/// Nothing is changed while one process takes over from another.
pub(super) fn in_a_moment(why: &str) -> Response {
    let refused = error(
        StatusCode::SERVICE_UNAVAILABLE,
        "handing_over",
        &sentence(why),
    );
    ([(RETRY_AFTER, "1")], refused).into_response()
}

/// What is wrong with a request, as a sentence.
pub(super) fn malformed(message: &str) -> Response {
    error(StatusCode::BAD_REQUEST, "malformed", &sentence(message))
}

/// A body that could not be read: longer than any document, or cut short.
pub(super) fn unread(rejection: &BytesRejection) -> Response {
    match rejection.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => {
            let why = "The body is larger than any document may be.";
            error(status, "request_too_large", why)
        }
        _ => malformed("the body could not be read"),
    }
}

/// A body of a kind that is not read here.
pub(super) fn unknown_type(known: &str) -> Response {
    let why = format!("Bodies are read here as {known}: say so in Content-Type.");
    error(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        &why,
    )
}

/// A page there is none of.
pub(super) async fn no_page() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "not_found",
        "There is no such page here.",
    )
}

/// A page that is there, but not for this method.
pub(super) async fn no_method() -> Response {
    let why = "The page has no such method; Allow names those it has.";
    error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", why)
}

/// As a sentence.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), chars.as_str()),
        None => String::new(),
    }
}
