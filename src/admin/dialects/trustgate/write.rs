//! Writing: an object that is made, changed or taken away.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;
use tollgate_sdk::document::Node;

use super::super::super::resources::table;
use super::super::objects::{Fields, Object, fields, new_id};
use super::super::shift::{Done, Shift, has_default};
use super::super::{Answer, masks, settled};
use super::call::{Call, own, shown, tenant, whose};
use super::{DEFAULT, Kind, SHELF, checks, convert, keys};
use crate::control::Control;

/// A new object.
pub(super) async fn create(
    call: Call,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    settled(created(&call, table(&headers, body)).await)
}

/// Other fields of an object.
pub(super) async fn update(
    call: Call,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    settled(updated(&call, table(&headers, body)).await)
}

/// The end of an object; of a gateway, also of all that is below it.
pub(super) async fn remove(call: Call) -> Response {
    settled(removed(&call).await)
}

async fn created(call: &Call, sent: Answer<Node>) -> Answer<Response> {
    let mut sent = fields(&sent?);
    let _held = call.desk.lock().await;
    let all = call.load().await?;
    let gateway = call.gateway(&all)?;
    let id = new_id(&mut sent, &all)?;
    add(&call.control, &all, call.kind, (id, gateway), sent).await
}

/// Makes an object of what was sent.
pub(super) async fn add(
    control: &Arc<Control>,
    all: &[Object],
    kind: Kind,
    (id, gateway): (String, Option<String>),
    mut sent: Fields,
) -> Answer<Response> {
    own(&mut sent);
    match kind {
        Kind::Gateway => drop(sent.entry("status").or_insert(json!("active"))),
        // TrustGate makes no rule that does not match.
        Kind::Rule => drop(sent.insert("active".into(), json!(true))),
        Kind::Key => drop(sent.entry("active").or_insert(json!(true))),
        Kind::Upstream | Kind::Service => {}
    }
    masks::keep(&mut sent, &Fields::new())?;
    let secret = match kind {
        Kind::Key => Some(keys::give_secret(&mut sent)?),
        _ => None,
    };
    let mut object = Object::new(kind.word(), id, gateway, sent);
    if kind == Kind::Gateway && !has_default(&control.resources()) {
        object.apart.insert(DEFAULT.into(), json!(true));
    }
    checks::is_sound(all, &object, kind)?;
    let before = tenant(all, whose(&object));
    let after = [before.as_slice(), std::slice::from_ref(&object)].concat();
    let done = shift(control, &before, &after, &object.id).await?;
    let mut body = shown(&object);
    if let Some(secret) = secret {
        body.insert("key".into(), json!(secret.expose()));
    }
    Ok(done.answer(StatusCode::CREATED, Some(body.into())))
}

async fn updated(call: &Call, sent: Answer<Node>) -> Answer<Response> {
    let mut sent = fields(&sent?);
    let _held = call.desk.lock().await;
    let all = call.load().await?;
    let old = call.object(&all)?;
    own(&mut sent);
    sent.remove("id");
    masks::keep(&mut sent, &old.sent)?;
    let partly = matches!(call.kind, Kind::Gateway | Kind::Rule);
    if partly {
        let mut whole = old.sent.clone();
        whole.extend(sent);
        sent = whole;
    }
    let new = old.saying(sent);
    let done = replace(call, &all, &new).await?;
    Ok(match partly {
        true => done.answer(StatusCode::NO_CONTENT, None),
        false => done.answer(StatusCode::OK, Some(shown(&new).into())),
    })
}

/// Puts an object in the place of the one with its id.
pub(super) async fn replace(call: &Call, all: &[Object], new: &Object) -> Answer<Done> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.word() == new.kind);
    checks::is_sound(all, new, kind.unwrap_or(call.kind))?;
    let before = tenant(all, whose(new));
    let mut after = before.clone();
    for object in after.iter_mut().filter(|object| object.id == new.id) {
        *object = new.clone();
    }
    shift(&call.control, &before, &after, &new.id).await
}

async fn removed(call: &Call) -> Answer<Response> {
    let _held = call.desk.lock().await;
    let all = call.load().await?;
    let old = call.object(&all)?;
    checks::is_unused(&all, &old)?;
    let before = tenant(&all, whose(&old));
    let mut after = before.clone();
    match call.kind {
        Kind::Gateway => after.clear(),
        _ => after.retain(|object| object.id != old.id),
    }
    let done = shift(&call.control, &before, &after, &old.id).await?;
    Ok(done.answer(StatusCode::NO_CONTENT, None))
}

async fn shift(
    control: &Arc<Control>,
    before: &[Object],
    after: &[Object],
    about: &str,
) -> Answer<Done> {
    let shift = Shift {
        shelf: SHELF,
        before,
        after,
        about,
        convert,
    };
    shift.make(control).await
}
