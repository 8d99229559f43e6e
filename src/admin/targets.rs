//! `/v1/upstreams/{name}/targets`: how the targets of an upstream stand, and those that register and leave while the gateway serves.
//!
//! The name may also be that of a service that has targets of its own.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tollgate_sdk::document::Document;

use super::reply;
use super::resources::{change, deleted, expected, put, tagged, tree};
use crate::config::{Model, Owner, Resource, ResourceKind, Set, id_of, targets_of};
use crate::control::{ChangeError, Control, What};
use crate::health::{BreakerState, Standing};
use crate::model::Target;
use crate::snapshot::{self, Snapshot};

/// How the targets of an upstream stand.
pub(super) async fn list(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
) -> Response {
    let set = control.resources();
    match items(&set, &control.snapshot(), &name) {
        Some(items) => {
            let body = json!({"items": items, "revision": set.revision});
            (tagged(set.revision), Json(body)).into_response()
        }
        None => reply::refused(&ChangeError::Missing(ResourceKind::Upstream, name)),
    }
}

/// How one stands.
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path((name, id)): Path<(String, String)>,
) -> Response {
    let set = control.resources();
    let Some(items) = items(&set, &control.snapshot(), &name) else {
        return reply::refused(&ChangeError::Missing(ResourceKind::Upstream, name));
    };
    let found = { items.into_iter() }.find(|item| item.get("id") == Some(&json!(id)));
    match found {
        Some(item) => {
            let revision = item.get("revision").and_then(Value::as_u64);
            (tagged(revision.unwrap_or(set.revision)), Json(item)).into_response()
        }
        None => reply::refused(&ChangeError::Missing(ResourceKind::Target, id)),
    }
}

/// A target that joins.
pub(super) async fn register(
    State(control): State<Arc<Control>>,
    Path((name, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let node = match tree(&headers, body) {
        Ok(node) => node,
        Err(refused) => return *refused,
    };
    if let Err(refused) = open_to_change(&control.resources(), &name, &id) {
        return reply::refused(&refused);
    }
    let identity = format!("{name}/{id}");
    let what = What::Put {
        name: Some(identity.clone()),
        node,
    };
    let kind = ResourceKind::Target;
    put(
        change(&control, kind, what, expected(&headers)).await,
        kind,
        &identity,
    )
}

/// No request is sent there any more; those that are open come to their end.
/// A target that leaves: open requests end, new ones do not come.
pub(super) async fn leave(
    State(control): State<Arc<Control>>,
    Path((name, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = open_to_change(&control.resources(), &name, &id) {
        return reply::refused(&refused);
    }
    let what = What::Delete {
        name: format!("{name}/{id}"),
    };
    deleted(change(&control, ResourceKind::Target, what, expected(&headers)).await)
}

/// Whether the target is not one of the upstream's own list.
fn open_to_change(set: &Set, name: &str, id: &str) -> Result<(), ChangeError> {
    let missing = || ChangeError::Missing(ResourceKind::Upstream, name.to_owned());
    let pool = set.pool(name).ok_or_else(missing)?;
    let own = targets_of(&pool.model).iter();
    match { own }.any(|target| id_of(target).as_str() == id) {
        false => Ok(()),
        true if pool.owner == Owner::File => {
            Err(ChangeError::OfFile(ResourceKind::Target, id.to_owned()))
        }
        true => {
            let whose = format!("the {} \"{name}\"", pool.kind().word());
            Err(ChangeError::Listed(id.to_owned(), whose))
        }
    }
}

fn items(set: &Set, snapshot: &Snapshot, name: &str) -> Option<Vec<Value>> {
    let pool = set.pool(name)?;
    let live = snapshot.upstreams.iter().find(|known| *known.name == *name);
    let own = targets_of(&pool.model).iter();
    let own = own.map(|target| (target, pool));
    let joined = set.all(ResourceKind::Target).iter();
    let joined = joined.filter_map(|resource| match &resource.model {
        Model::Target(registered) if registered.upstream.as_str() == name => {
            Some((&registered.target, resource))
        }
        _ => None,
    });
    let item = |(target, resource): (&Target, &Arc<Resource>)| {
        let label = target.url.to_string();
        let targets = live.iter().flat_map(|live| &live.targets);
        let live = { targets }.find(|known| *known.label == *label);
        item(name, target, resource, live)
    };
    Some(own.chain(joined).map(item).collect())
}

fn item(
    upstream: &str,
    target: &Target,
    resource: &Resource,
    live: Option<&snapshot::Target>,
) -> Value {
    let mut fields = target.value_fields();
    let mut add = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    add("id", json!(id_of(target).as_str()));
    add("kind", json!("target"));
    add("upstream", json!(upstream));
    add("managed_by", json!(resource.owner.word()));
    add("revision", json!(resource.revision));
    if let Some(live) = live {
        let now = Instant::now();
        add("health", json!(health(live.health.standing(now))));
        add("breaker", json!(breaker(live.health.breaker(now))));
        add("in_flight", json!(live.state.in_flight()));
    }
    fields.into()
}

fn health(standing: Standing) -> &'static str {
    match standing {
        Standing::Down | Standing::Open { .. } => "down",
        Standing::Unchecked => "unknown",
        Standing::Up
        | Standing::Starting(_)
        | Standing::HalfOpen { .. }
        | Standing::Cooling { .. } => "up",
    }
}

fn breaker(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::HalfOpen => "half_open",
        BreakerState::Open => "open",
    }
}
