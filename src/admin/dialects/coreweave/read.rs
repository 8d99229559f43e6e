//! Reading: one object or all of a kind, each with how it stands.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use super::super::objects::{Object, known_id, missing, wrong};
use super::super::{Answer, settled};
use super::status::Standing;
use super::{Kind, SHELF};
use crate::control::Control;

/// One object.
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Extension(kind): Extension<Kind>,
    Path(id): Path<String>,
) -> Response {
    let all = SHELF.load(&control).await;
    let object = all.and_then(|all| find(&all, kind, &id));
    settled(object.map(|object| {
        let standing = Standing::of(&control);
        Json(wrapped(kind, &object, &standing)).into_response()
    }))
}

/// All objects of a kind, or those that changed after a time: `?updatedAfter=`.
pub(super) async fn list(
    State(control): State<Arc<Control>>,
    Extension(kind): Extension<Kind>,
    RawQuery(query): RawQuery,
) -> Response {
    settled(listed(&control, kind, query.as_deref().unwrap_or_default()).await)
}

async fn listed(control: &Arc<Control>, kind: Kind, query: &str) -> Answer<Response> {
    let mut after = None;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name == "updatedAfter" {
            let why = "a time is expected, for example 2031-01-01T00:00:00Z";
            let time = value.parse::<jiff::Timestamp>();
            after = Some(time.map_err(|_| wrong("updatedAfter", why))?);
        }
    }
    let all = SHELF.load(control).await?;
    let standing = Standing::of(control);
    let wanted = |object: &&Object| {
        let updated = object.updated_at.parse::<jiff::Timestamp>();
        let late = after.is_none_or(|after| updated.is_ok_and(|updated| updated > after));
        object.kind == kind.word() && late
    };
    let items = all.iter().filter(wanted);
    let items: Vec<Value> = items.map(|object| told(object, &standing)).collect();
    let mut body = Map::new();
    body.insert(kind.list().to_owned(), items.into());
    Ok(Json(Value::from(body)).into_response())
}

/// The object of an address.
pub(super) fn find(all: &[Object], kind: Kind, id: &str) -> Answer<Object> {
    let id = known_id("id", id)?;
    let word = kind.word();
    let found = { all.iter() }.find(|object| object.kind == word && object.id == id);
    let missing = || missing(&format!("There is no {word} {id}."));
    found.cloned().ok_or_else(missing)
}

/// An object as answers have it: `{"gateway": {"spec", "status"}}`.
pub(super) fn wrapped(kind: Kind, object: &Object, standing: &Standing) -> Value {
    let mut body = Map::new();
    body.insert(kind.word().to_owned(), told(object, standing));
    body.into()
}

fn told(object: &Object, standing: &Standing) -> Value {
    json!({"spec": shown(object), "status": standing.told(object)})
}

/// What was sent, without secrets: these are never given back, not even as stars.
fn shown(object: &Object) -> Value {
    let mut spec = object.sent.clone();
    spec.insert("id".into(), object.id.clone().into());
    let wandb = spec.get_mut("weightsAndBiasesAuth");
    if let Some(wandb) = wandb.and_then(Value::as_object_mut) {
        wandb.remove("apiKey");
    }
    super::super::masks::mask(&mut spec);
    if object.kind == Kind::Deployment.word() {
        let traffic = spec.entry("traffic").or_insert_with(|| json!({}));
        if traffic.is_null() {
            *traffic = json!({});
        }
        if let Some(traffic) = traffic.as_object_mut() {
            traffic.entry("weight").or_insert(json!(0));
        }
    }
    spec.into()
}
