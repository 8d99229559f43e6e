//! `/v1/upgrade`: another process takes over.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tollgate_sdk::document::FromText;

use super::reply;
use crate::control::{Control, UpgradeError};

/// The longest that may be waited for a new process.
const LONGEST: Duration = Duration::from_secs(600);

/// Starts a process of the program on disk, and answers when it serves. The body may say how long it may take to get ready: `{"patience":"60s"}`.
pub(super) async fn upgrade(
    State(control): State<Arc<Control>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return reply::unread(&rejection),
    };
    let patience = match patience(&body) {
        Ok(patience) => patience,
        Err(message) => return reply::malformed(&message),
    };
    // What is begun goes on also when the caller leaves.
    let upgraded = tokio::spawn(async move { control.upgrade(patience).await }).await;
    match upgraded.unwrap_or(Err(UpgradeError::Running)) {
        Ok(done) => Json(json!({
            "old": done.old,
            "new": done.new,
            "version": done.version,
            "open": done.open,
        }))
        .into_response(),
        Err(error) => {
            let (status, code) = match &error {
                UpgradeError::Running => (StatusCode::CONFLICT, "handing_over"),
                UpgradeError::Unable(_) => (StatusCode::CONFLICT, "not_replaceable"),
                UpgradeError::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "upgrade_failed"),
            };
            reply::error(status, code, &error.to_string())
        }
    }
}

fn patience(body: &[u8]) -> Result<Duration, String> {
    const DEFAULT: Duration = Duration::from_secs(60);
    if body.trim_ascii().is_empty() {
        return Ok(DEFAULT);
    }
    let body: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    match body.get("patience") {
        None => Ok(DEFAULT),
        Some(given) => { given.as_str() }
            .and_then(|text| Duration::from_text(text).ok())
            .filter(|patience| *patience <= LONGEST)
            .ok_or_else(|| {
                format!("patience: a duration up to {LONGEST:?} is expected, for example \"60s\"")
            }),
    }
}

/// Once another process serves, connections to this one end with their next answer.
pub(super) async fn last_answer(
    State(control): State<Arc<Control>>,
    request: Request,
    next: Next,
) -> Response {
    let mut answer = next.run(request).await;
    if control.is_handed_over() {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
    }
    answer
}
