//! `/v1/keys`: made, listed, rotated and revoked. The secret is in the answer of whoever made it, and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tollgate_sdk::document::{Document, FromNode, FromText};

use super::reply;
use crate::control::{ChangeError, Control, Issued};
use crate::model::Key;

/// All keys.
pub(super) async fn list(State(control): State<Arc<Control>>) -> Response {
    let keys = control.keys().await;
    let items: Vec<Value> = keys.iter().map(|(key, own)| shown(key, *own)).collect();
    let revision = control.snapshot().revision;
    Json(json!({"items": items, "revision": revision})).into_response()
}

/// One key.
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
) -> Response {
    let keys = control.keys().await;
    match keys.iter().find(|(key, _)| key.name.as_str() == name) {
        Some((key, own)) => Json(shown(key, *own)).into_response(),
        None => reply::refused(&ChangeError::Missing(name)),
    }
}

/// A new key.
pub(super) async fn create(
    State(control): State<Arc<Control>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return reply::unread(&rejection),
    };
    let body: Value = match serde_json::from_slice(&body) {
        Ok(body @ Value::Object(_)) => body,
        Ok(_) => return reply::malformed("the body must be a JSON object"),
        Err(error) => return reply::malformed(&format!("the body is not JSON: {error}")),
    };
    let made = to_its_end(async move { control.create_key(body).await });
    issued(made.await, StatusCode::CREATED)
}

/// Another secret for a key. The body may say for how long the old one goes on: `{"grace":"1h"}`.
pub(super) async fn rotate(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
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
    let rotated = to_its_end(async move { control.rotate_key(&name, grace).await });
    issued(rotated.await, StatusCode::OK)
}

/// The end of a key.
pub(super) async fn revoke(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
) -> Response {
    match to_its_end(async move { control.revoke_key(&name).await }).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => reply::refused(&error),
    }
}

/// Makes a change as a task of its own. What awaits here is dropped when the caller leaves, and a change that is stored must also come into force.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
) -> Result<T, ChangeError> {
    let done = tokio::spawn(change).await;
    done.unwrap_or(Err(ChangeError::Broken))
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

fn issued(issued: Result<Issued, ChangeError>, status: StatusCode) -> Response {
    match issued {
        Ok(Issued { key, secret }) => {
            let mut shown = shown(&key, false);
            if let Some(fields) = shown.as_object_mut() {
                fields.insert("secret".into(), json!(secret.expose()));
            }
            (status, Json(shown)).into_response()
        }
        Err(error) => reply::refused(&error),
    }
}

/// What may be seen of a key: not even its hash.
fn shown(key: &Key, of_file: bool) -> Value {
    let mut fields = key.value_fields();
    fields.remove("hash");
    let previous: Vec<Value> = { key.previous.iter() }
        .map(|previous| json!({"until": previous.until.value()}))
        .collect();
    fields.insert("previous".into(), previous.into());
    let end = key.expires_at.map_or(Value::Null, |end| end.value());
    fields.insert("expires_at".into(), end);
    let owner = if of_file { "file" } else { "api" };
    fields.insert("managed_by".into(), json!(owner));
    fields.into()
}
