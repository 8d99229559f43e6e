//! Reading: one object, or a page of them.

use axum::Json;
use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::super::objects::{Object, wrong};
use super::super::{Answer, settled};
use super::Kind;
use super::call::{Call, shown};

/// How many gateways are told of at once, if nobody says how many.
const LIMIT: usize = 10;
/// The most of anything that is told at once.
const MOST: usize = 100;

/// One object.
pub(super) async fn show(call: Call) -> Response {
    let all = call.load().await;
    let object = all.and_then(|all| call.object(&all));
    settled(object.map(|object| Json(Value::from(shown(&object))).into_response()))
}

/// All objects of a kind, of a gateway if the address names one.
pub(super) async fn list(call: Call, RawQuery(query): RawQuery) -> Response {
    settled(listed(&call, query.as_deref().unwrap_or_default()).await)
}

async fn listed(call: &Call, query: &str) -> Answer<Response> {
    let all = call.load().await?;
    let gateway = call.gateway(&all)?;
    let own = |object: &&Object| {
        object.kind == call.kind.word() && (gateway.is_none() || object.of == gateway)
    };
    let found: Vec<&Object> = all.iter().filter(own).collect();
    let default = match call.kind {
        Kind::Gateway => LIMIT,
        // Of those below a gateway a script expects to see every one.
        _ => usize::MAX,
    };
    Ok(Json(page(call.kind.list(), &found, query, default)?).into_response())
}

/// The page of these that is asked for.
pub(super) fn page(list: &str, all: &[&Object], query: &str, default: usize) -> Answer<Value> {
    let (mut offset, mut limit) = (0, default);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let number = || match value.parse::<usize>() {
            Ok(number) => Ok(number),
            Err(_) => Err(wrong(&name, "a number is expected")),
        };
        match &*name {
            "offset" => offset = number()?,
            "limit" => limit = number()?.clamp(1, MOST),
            _ => {}
        }
    }
    let shown = all.iter().skip(offset).take(limit);
    let shown: Vec<Value> = shown.map(|object| shown_value(object)).collect();
    let mut body = Map::new();
    body.insert(list.to_owned(), shown.into());
    body.insert("count".into(), json!(all.len()));
    body.insert("offset".into(), json!(offset));
    body.insert("limit".into(), json!(limit.min(all.len().max(LIMIT))));
    Ok(body.into())
}

fn shown_value(object: &Object) -> Value {
    shown(object).into()
}
