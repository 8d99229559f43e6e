//! `/v1/usage`: what was used, in groups.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tollgate_sdk::document::FromText;

use super::reply;
use crate::control::Control;
use crate::model::Moment;
use crate::store::{self, By, Row};

/// What is asked: `by`, `since` (a duration back, or a time), `until` (a time), `gateway`, `key`.
pub(super) async fn usage(
    State(control): State<Arc<Control>>,
    asked: Result<Query<HashMap<String, String>>, QueryRejection>,
) -> Response {
    let Ok(Query(asked)) = asked else {
        return reply::malformed("the parameters could not be read");
    };
    let query = match read(&asked) {
        Ok(query) => query,
        Err(message) => return reply::malformed(&message),
    };
    let store = control.store().clone();
    let by = query.by;
    // It waits for the disk.
    let found = tokio::task::spawn_blocking(move || store.usage(&query)).await;
    let rows = match found {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return reply::error(status, "store_unavailable", &error.to_string());
        }
        Err(_) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return reply::error(status, "internal_error", "The usage could not be read.");
        }
    };
    let items: Vec<Value> = rows.iter().map(|row| shown(row, by)).collect();
    let revision = control.snapshot().revision;
    Json(json!({"items": items, "revision": revision})).into_response()
}

fn read(asked: &HashMap<String, String>) -> Result<store::Query, String> {
    const KNOWN: [&str; 5] = ["by", "since", "until", "gateway", "key"];
    if let Some(unknown) = asked.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(format!(
            "there is no parameter \"{unknown}\": those there are: {}",
            KNOWN.join(", ")
        ));
    }
    let now = SystemTime::now();
    let text = |name: &str| asked.get(name).map(String::as_str);
    let by = match text("by").unwrap_or("key") {
        "key" => By::Key,
        "model" => By::Model,
        "service" => By::Service,
        "gateway" => By::Gateway,
        "day" => By::Day,
        other => {
            return Err(format!(
                "by: there is no group \"{other}\": key, model, service, gateway or day"
            ));
        }
    };
    Ok(store::Query {
        by,
        since: time(text("since").unwrap_or("24h"), now).ok_or_else(|| wrong("since"))?,
        until: match text("until") {
            Some(until) => time(until, now).ok_or_else(|| wrong("until"))?,
            // What began in this very millisecond counts.
            None => now + Duration::from_secs(1),
        },
        gateway: text("gateway").map(str::to_owned),
        key: text("key").map(str::to_owned),
    })
}

fn wrong(name: &str) -> String {
    format!(
        "{name}: a duration back from now (\"24h\") or a time (\"2031-01-01T00:00:00Z\") is expected"
    )
}

/// So long ago, or then.
fn time(text: &str, now: SystemTime) -> Option<SystemTime> {
    match Duration::from_text(text) {
        Ok(back) => now.checked_sub(back),
        Err(_) => Moment::from_text(text).ok().map(Moment::time),
    }
}

fn shown(row: &Row, by: By) -> Value {
    let group = match by {
        By::Key => "key",
        By::Model => "model",
        By::Service => "service",
        By::Gateway => "gateway",
        By::Day => "day",
    };
    json!({
        group: row.name,
        "name": row.name,
        "requests": row.requests,
        "errors": row.errors,
        "input_tokens": row.input_tokens,
        "cached_tokens": row.cached_tokens,
        "output_tokens": row.output_tokens,
        "cost": row.cost,
    })
}
