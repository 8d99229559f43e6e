//! `/v1/services/{name}/scaling`: how many replicas a service should have and has, and why. Autoscalers that read a number from JSON can read it here.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::reply;
use crate::control::Control;
use crate::snapshot::{Scaled, Service};

/// How it stands.
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
) -> Response {
    let snapshot = control.snapshot();
    let mut services = snapshot.services.iter();
    match services
        .find(|service| *service.name == *name)
        .and_then(|service| whole(service))
    {
        Some(told) => Json(told).into_response(),
        None => reply::error(
            StatusCode::NOT_FOUND,
            "not_found",
            &format!("There is no service \"{name}\" that is scaled."),
        ),
    }
}

fn whole(service: &Service) -> Option<Value> {
    let scaling = service.scaling()?;
    let scaled = service.state.scaled.load_full();
    let mut told = scaled.as_deref().map_or_else(|| json!({}), shown);
    let fields = told.as_object_mut()?;
    let mut add = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    add("service", json!(&*service.name));
    add("min", json!(scaling.min));
    add("max", json!(scaling.max));
    add("target", json!(scaling.target));
    add("waiting", json!(service.state.waiting()));
    Some(told)
}

/// How it stands, for status.
pub(super) fn shown(scaled: &Scaled) -> Value {
    json!({
        "desired": scaled.desired,
        "ready": scaled.ready,
        "starting": scaled.starting,
        "draining": scaled.draining,
        "metric": scaled.metric,
        "measured": scaled.measured,
        "reason": scaled.reason,
        "changed_at": Timestamp::try_from(scaled.changed_at).ok().map(|at| at.to_string()),
        "problem": scaled.problem,
    })
}
