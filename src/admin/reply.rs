//! Answers of the admin API: JSON, and errors in one shape.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::config::Mistake;
use crate::control::ChangeError;
use crate::store::StoreError;

/// An error: `{"error":{"message","code"}}`.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (
        status,
        Json(json!({"error": {"message": message, "code": code}})),
    )
        .into_response()
}

/// Every mistake of a document at once.
fn mistakes(mistakes: &[Mistake]) -> Response {
    let details: Vec<_> = mistakes
        .iter()
        .map(|mistake| json!({"path": mistake.path, "message": mistake.message}))
        .collect();
    let message = match details.len() {
        1 => "There is a mistake in the document.".to_owned(),
        several => format!("There are {several} mistakes in the document."),
    };
    let body = json!({"error": {"message": message, "code": "invalid", "details": details}});
    (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
}

/// Why a change was not made.
pub(super) fn refused(refused: &ChangeError) -> Response {
    let (status, code) = match refused {
        ChangeError::Invalid(found) => return mistakes(found),
        ChangeError::Exists(_) => (StatusCode::CONFLICT, "already_exists"),
        ChangeError::OfFile(_) => (StatusCode::CONFLICT, "owned_by_file"),
        ChangeError::Missing(_) => (StatusCode::NOT_FOUND, "not_found"),
        ChangeError::Store(StoreError::Stale { .. }) => (StatusCode::PRECONDITION_FAILED, "stale"),
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
