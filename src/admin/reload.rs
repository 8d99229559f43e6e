//! `/v1/reload`: the configuration file, read again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::reply;
use crate::control::events::Touched;
use crate::control::{Control, ReloadError};

pub(super) async fn reload(State(control): State<Arc<Control>>) -> Response {
    match control.reload().await {
        Ok(reloaded) => {
            let changes: Vec<String> = reloaded.changes.iter().map(Touched::to_string).collect();
            Json(json!({
                "revision": reloaded.revision,
                "changes": changes,
                "after_restart": reloaded.after_restart,
                "warnings": reloaded.warnings,
            }))
            .into_response()
        }
        Err(error) => {
            let (status, code) = match &error {
                ReloadError::NoFile => (StatusCode::CONFLICT, "no_file"),
                ReloadError::Mistakes(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
                ReloadError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
                ReloadError::HandingOver => return reply::in_a_moment(&error.to_string()),
                ReloadError::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
            };
            reply::error(status, code, &error.to_string())
        }
    }
}
