//! Writing: an object that is made, patched or taken away.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tollgate_sdk::document::Node;

use super::super::super::resources::table;
use super::super::objects::{Fields, Object, fields, new_id};
use super::super::shift::{Done, Shift, has_default};
use super::super::{Answer, Desk, masks, settled};
use super::read::{find, wrapped};
use super::status::Standing;
use super::{DEFAULT, Kind, SHELF, TARGETS, convert, spec};
use crate::control::Control;

/// A new object.
pub(super) async fn create(
    State(control): State<Arc<Control>>,
    Extension(desk): Extension<Desk>,
    Extension(kind): Extension<Kind>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let _held = desk.coreweave.lock().await;
    let sent = table(&headers, body);
    settled(created(&control, kind, targets(query.as_deref()), sent).await)
}

async fn created(
    control: &Arc<Control>,
    kind: Kind,
    targets: Option<Value>,
    sent: Answer<Node>,
) -> Answer<Response> {
    let mut sent = fields(&sent?);
    let all = SHELF.load(control).await?;
    let id = new_id(&mut sent, &all)?;
    masks::keep(&mut sent, &Fields::new())?;
    spec::with_known_ids(&mut sent);
    let mut object = Object::new(kind.word(), id, None, sent);
    if kind == Kind::Gateway && !has_default(&control.resources()) {
        object.apart.insert(DEFAULT.into(), json!(true));
    }
    place(&mut object, targets);
    spec::is_sound(&all, &object, kind)?;
    let after = [all.as_slice(), std::slice::from_ref(&object)].concat();
    let done = shift(control, &all, &after, &object.id).await?;
    let body = wrapped(kind, &object, &Standing::of(control));
    Ok(done.answer(StatusCode::OK, Some(body)))
}

/// Other fields of an object, all of them or some.
pub(super) async fn patch(
    State(control): State<Arc<Control>>,
    Extension(desk): Extension<Desk>,
    Extension(kind): Extension<Kind>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let _held = desk.coreweave.lock().await;
    let sent = table(&headers, body);
    settled(patched(&control, (kind, &id), targets(query.as_deref()), sent).await)
}

async fn patched(
    control: &Arc<Control>,
    (kind, id): (Kind, &str),
    targets: Option<Value>,
    sent: Answer<Node>,
) -> Answer<Response> {
    let mut patch = fields(&sent?);
    spec::with_known_ids(&mut patch);
    let all = SHELF.load(control).await?;
    let old = find(&all, kind, id)?;
    let mut new = old.saying(spec::patched(&old, patch)?);
    place(&mut new, targets);
    spec::is_sound(&all, &new, kind)?;
    let mut after = all.clone();
    for object in after.iter_mut().filter(|object| object.id == new.id) {
        *object = new.clone();
    }
    let done = shift(control, &all, &after, &new.id).await?;
    let body = wrapped(kind, &new, &Standing::of(control));
    Ok(done.answer(StatusCode::OK, Some(body)))
}

/// The end of an object, which is answered as it was.
pub(super) async fn remove(
    State(control): State<Arc<Control>>,
    Extension(desk): Extension<Desk>,
    Extension(kind): Extension<Kind>,
    Path(id): Path<String>,
) -> Response {
    let _held = desk.coreweave.lock().await;
    settled(removed(&control, kind, &id).await)
}

async fn removed(control: &Arc<Control>, kind: Kind, id: &str) -> Answer<Response> {
    let all = SHELF.load(control).await?;
    let old = find(&all, kind, id)?;
    spec::is_unused(&all, &old)?;
    let after = { all.iter() }.filter(|object| object.id != old.id);
    let after: Vec<Object> = after.cloned().collect();
    // How it stands is asked for while it is there.
    let body = wrapped(kind, &old, &Standing::of(control).deleting());
    let done = shift(control, &all, &after, &old.id).await?;
    Ok(done.answer(StatusCode::OK, Some(body)))
}

/// Where a deployment's engines are: every `target` of the query. None said: as before.
fn targets(query: Option<&str>) -> Option<Value> {
    let given = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let given = given.filter(|(name, _)| name == "target");
    let given: Vec<Value> = given.map(|(_, url)| json!(url)).collect();
    (!given.is_empty()).then(|| given.into())
}

fn place(object: &mut Object, targets: Option<Value>) {
    if let (Some(targets), true) = (targets, object.kind == Kind::Deployment.word()) {
        object.apart.insert(TARGETS.into(), targets);
    }
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
