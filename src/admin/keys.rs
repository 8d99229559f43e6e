//! `/v1/keys/{name}/rotate`: the secret is in the answer of whoever made it, and nowhere else. What else is done to keys is done as to every resource.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::Value;
use tollgate_sdk::document::FromText;

use super::reply;
use super::resources::{expected, resource};
use crate::config::ResourceKind;
use crate::control::{Control, Issued};

/// Another secret for a key. The body may say for how long the old one goes on: `{"grace":"1h"}`.
pub(super) async fn rotate(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return reply::unread(&rejection),
    };
    let grace = match grace_of(&body) {
        Ok(grace) => grace,
        Err(message) => return reply::malformed(&message),
    };
    let rotated = control.rotate_key(&name, grace, expected(&headers)).await;
    match rotated {
        Ok(Issued { changed, secret }) => {
            let shown = (StatusCode::OK, Some(&secret));
            resource(&changed, ResourceKind::Key, &name, shown)
        }
        Err(error) => reply::refused(&error),
    }
}

fn grace_of(body: &[u8]) -> Result<Option<Duration>, String> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let body: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    match body.get("grace") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Duration::from_text(text)
            .map(Some)
            .map_err(|wrong| format!("grace: {}, for example \"1h\"", wrong.message)),
        Some(_) => Err("grace: a duration as text is expected, for example \"1h\"".to_owned()),
    }
}
