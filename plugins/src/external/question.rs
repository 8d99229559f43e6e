//! What a server is told of a request and of its end.
//!
//! It owns the JSON that goes out. Of the headers only those that were named go with it. Invariant: a body that is JSON goes out
//! byte for byte, and what goes out is JSON whatever the request was.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use serde::de::IgnoredAny;
use serde_json::{Map, Value as Json, json};
use tollgate_sdk::plugin::{Outcome, Request};

use crate::json;

/// The request as a JSON object, without its body.
pub(super) fn request(request: &Request<'_>, headers: &[HeaderName]) -> Json {
    json!({
        "id": request.id(),
        "method": request.method.as_str(),
        "path": request.path(),
        "query": request.query(),
        "client": request.client.to_string(),
        "gateway": request.gateway,
        "service": request.service,
        "model": request.model,
        "principal": request.principal.map(|principal| &*principal.name),
        "headers": named(request.headers, headers),
    })
}

fn named(headers: &HeaderMap, names: &[HeaderName]) -> Map<String, Json> {
    let value = |name: &HeaderName| {
        let values = headers.get_all(name).iter();
        let values: Vec<Cow<'_, str>> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        (!values.is_empty()).then(|| (name.as_str().to_owned(), json!(values.join(", "))))
    };
    names.iter().filter_map(value).collect()
}

/// What is asked before the request goes on; `body` is left out if the server does not get it.
pub(super) fn before(request: &Json, body: Option<&[u8]>) -> String {
    let mut text = request.to_string();
    if let Some(body) = body {
        // The object has members, so that one more goes in before its end.
        text.pop();
        text.push_str(",\"body\":");
        text.push_str(&as_json(body));
        text.push('}');
    }
    format!("{{\"request\":{text}}}")
}

/// The body as JSON: as it is, or as a string, or null if there is none.
fn as_json(body: &[u8]) -> Cow<'_, str> {
    if body.is_empty() {
        return Cow::Borrowed("null");
    }
    match std::str::from_utf8(body) {
        Ok(text) if is_json(text) => Cow::Borrowed(text),
        _ => Cow::Owned(json!(String::from_utf8_lossy(body)).to_string()),
    }
}

/// Whether every parser can read it: the scanner bounds how deep it is, and the parser looks at every letter.
fn is_json(text: &str) -> bool {
    json::document(text).is_ok() && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// What is told after the end.
pub(super) fn after(request: Option<Json>, outcome: &Outcome) -> String {
    let milliseconds = |duration: std::time::Duration| duration.as_secs_f64() * 1000.0;
    let tokens = outcome.tokens.map(|tokens| {
        json!({
            "input": tokens.usage.input,
            "cached": tokens.usage.cached,
            "output": tokens.usage.output,
            "estimated": tokens.estimated,
        })
    });
    let told = json!({
        "request": request,
        "outcome": {
            "status": outcome.status,
            "service": outcome.service.as_deref(),
            "model": outcome.model.as_deref(),
            "tokens": tokens,
            "duration_ms": milliseconds(outcome.duration),
            "first_byte_ms": outcome.first_byte.map(milliseconds),
            "cost": outcome.cost.map(|millionths| millionths as f64 / 1e6),
        },
    });
    told.to_string()
}
