//! `/v1/{kind}s`: every kind of resource, listed, shown, made, replaced, patched and deleted alike.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, LOCATION};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};
use tollgate_sdk::document::{Format, Node};
use tollgate_sdk::secret::Secret;

use super::reply;
use crate::config::{self, Action, Model, Resource, ResourceKind, Set};
use crate::control::{ChangeError, Changed, Control, Edit, Expected, What};
use crate::model::Pool;

/// The kinds that have an address of their own.
pub(super) const KINDS: [ResourceKind; 5] = [
    ResourceKind::Gateway,
    ResourceKind::Service,
    ResourceKind::Upstream,
    ResourceKind::Rule,
    ResourceKind::Key,
];

/// All resources of a kind that are wanted.
pub(super) async fn list(
    State(control): State<Arc<Control>>,
    Extension(kind): Extension<ResourceKind>,
    RawQuery(query): RawQuery,
) -> Response {
    let wanted = match Wanted::read(query.as_deref().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(message) => return reply::malformed(&message),
    };
    let set = control.resources();
    let used = wanted.upstreams(&set);
    let found = set.all(kind).iter();
    let found = found.filter(|resource| wanted.holds(resource, &used));
    let items: Vec<Value> = found.map(|resource| shown(resource)).collect();
    let body = Json(json!({"items": items, "revision": set.revision}));
    ([(ETAG, tag(set.revision))], body).into_response()
}

/// One resource.
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Extension(kind): Extension<ResourceKind>,
    Path(name): Path<String>,
) -> Response {
    match control.resources().get(kind, &name) {
        Some(found) => ([(ETAG, tag(found.revision))], Json(shown(found))).into_response(),
        None => reply::refused(&ChangeError::Missing(kind, name)),
    }
}

/// A new resource.
pub(super) async fn create(
    State(control): State<Arc<Control>>,
    Extension(kind): Extension<ResourceKind>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let node = match table(&headers, body) {
        Ok(node) => node,
        Err(refused) => return *refused,
    };
    let name = node.entry("name").and_then(Node::as_str).map(str::to_owned);
    let changed = change(&control, kind, What::Create(node), expected(&headers)).await;
    put(changed, kind, name.as_deref().unwrap_or_default())
}

/// A resource, made or replaced.
pub(super) async fn replace(
    State(control): State<Arc<Control>>,
    Extension(kind): Extension<ResourceKind>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let made = |name: &str, node| What::Put {
        name: Some(name.to_owned()),
        node,
    };
    write(control, kind, name, headers, body, made).await
}

/// Some fields of a resource.
pub(super) async fn patch(
    State(control): State<Arc<Control>>,
    Extension(kind): Extension<ResourceKind>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let made = |name: &str, node: Node| What::Patch {
        name: name.to_owned(),
        patch: node.json(),
    };
    write(control, kind, name, headers, body, made).await
}

/// Makes the change that a body means for the resource of this name.
async fn write(
    control: Arc<Control>,
    kind: ResourceKind,
    name: String,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
    made: impl FnOnce(&str, Node) -> What,
) -> Response {
    let what = match table(&headers, body) {
        Ok(node) => made(&name, node),
        Err(refused) => return *refused,
    };
    let changed = change(&control, kind, what, expected(&headers)).await;
    put(changed, kind, &name)
}

/// The end of a resource.
pub(super) async fn remove(
    State(control): State<Arc<Control>>,
    Extension(kind): Extension<ResourceKind>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let what = What::Delete { name };
    deleted(change(&control, kind, what, expected(&headers)).await)
}

/// Makes one change.
pub(super) async fn change(
    control: &Arc<Control>,
    kind: ResourceKind,
    what: What,
    expected: Expected,
) -> Result<Changed, ChangeError> {
    let edit = Edit {
        kind,
        path: String::new(),
        what,
    };
    control.change(vec![edit], expected).await
}

/// The answer to a resource that was put: it, and the secret of a new key this once.
pub(super) fn put(
    changed: Result<Changed, ChangeError>,
    kind: ResourceKind,
    name: &str,
) -> Response {
    let changed = match changed {
        Ok(changed) => changed,
        Err(error) => return reply::refused(&error),
    };
    let fates = &changed.announced.fates;
    let is_new = fates.iter().any(|fate| {
        // Targets that it replaces may have become resources of their own.
        fate.kind == kind && *fate.name == *name && fate.action == Action::Create
    });
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let secret = changed.secrets.get(name).filter(|_| is_new);
    resource(&changed, kind, name, (status, secret))
}

/// A resource as it is now, with a secret that is shown this once.
pub(super) fn resource(
    changed: &Changed,
    kind: ResourceKind,
    name: &str,
    (status, secret): (StatusCode, Option<&Secret<String>>),
) -> Response {
    let Some(found) = changed.resources.get(kind, name) else {
        return reply::refused(&ChangeError::Broken);
    };
    let mut body = shown(found);
    if let (Some(fields), Some(secret)) = (body.as_object_mut(), secret) {
        fields.insert("secret".into(), json!(secret.expose()));
    }
    let mut response = (status, [(ETAG, tag(found.revision))], Json(body)).into_response();
    if status == StatusCode::CREATED
        && let Ok(address) = address(kind, name).parse()
    {
        response.headers_mut().insert(LOCATION, address);
    }
    response.extensions_mut().insert(changed.announced.clone());
    response
}

/// The answer to a resource that was deleted.
pub(super) fn deleted(changed: Result<Changed, ChangeError>) -> Response {
    match changed {
        Ok(changed) => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            response.extensions_mut().insert(changed.announced);
            response
        }
        Err(error) => reply::refused(&error),
    }
}

fn address(kind: ResourceKind, name: &str) -> String {
    match name.split_once('/') {
        Some((upstream, id)) => format!("/v1/upstreams/{upstream}/targets/{id}"),
        None => format!("/v1/{}s/{name}", kind.word()),
    }
}

/// A resource as it is shown: its fields, without secrets, and what is said beside them.
pub(super) fn shown(resource: &Resource) -> Value {
    let mut fields = resource.model.fields();
    fields.insert("kind".into(), json!(resource.kind().word()));
    fields.insert("managed_by".into(), json!(resource.owner.word()));
    fields.insert("revision".into(), json!(resource.revision));
    fields.into()
}

/// A revision as an entity tag.
pub(super) fn tag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// What `If-Match` says. A tag that is no revision matches nothing.
pub(super) fn expected(headers: &HeaderMap) -> Expected {
    let mut given = headers.get_all(IF_MATCH).iter().peekable();
    if given.peek().is_none() {
        return Expected::Any;
    }
    let mut revisions = Vec::new();
    for value in given {
        for tag in value.to_str().unwrap_or_default().split(',').map(str::trim) {
            if tag == "*" {
                return Expected::There;
            }
            let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            revisions.extend(tag.and_then(|tag| tag.parse::<u64>().ok()));
        }
    }
    Expected::Revisions(revisions)
}

/// The media type of a body, without parameters and in lower case. Empty if nothing is said, or only what a program says that was not told.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|given| given.to_str().ok());
    let given = given
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    match given.trim().to_ascii_lowercase() {
        form if form == "application/x-www-form-urlencoded" => String::new(),
        other => other,
    }
}

/// A body that must be text.
pub(super) fn text(body: &Bytes) -> Result<&str, Box<Response>> {
    std::str::from_utf8(body).map_err(|_| Box::new(reply::malformed("the body is not UTF-8")))
}

/// A body of JSON, as a tree.
pub(super) fn tree(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Node, Box<Response>> {
    let body = body.map_err(|rejection| Box::new(reply::unread(&rejection)))?;
    let known = [
        "",
        "application/json",
        "application/merge-patch+json",
        "text/json",
    ];
    if !known.contains(&media_type(headers).as_str()) {
        return Err(Box::new(reply::unknown_type("JSON")));
    }
    let text = text(&body)?;
    if ["", "null"].contains(&text.trim()) {
        return Err(Box::new(reply::malformed("the body is empty; send JSON")));
    }
    config::tree(text, Format::Json)
        .map_err(|wrong| Box::new(reply::malformed(&format!("the body is not JSON: {wrong}"))))
}

/// A body of JSON that is an object.
pub(super) fn table(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Node, Box<Response>> {
    let node = tree(headers, body)?;
    match node.as_table() {
        Some(_) => Ok(node),
        None => Err(Box::new(reply::malformed("the body must be a JSON object"))),
    }
}

/// Which resources of a list are wanted.
#[derive(Default)]
struct Wanted {
    gateway: Option<String>,
    managed_by: Option<String>,
    labels: Vec<(String, String)>,
}

impl Wanted {
    fn read(query: &str) -> Result<Self, String> {
        let mut wanted = Wanted::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match (&*name, value.split_once('=')) {
                ("gateway", _) => wanted.gateway = Some(value),
                ("managed_by", _) if ["file", "api"].contains(&value.as_str()) => {
                    wanted.managed_by = Some(value);
                }
                ("managed_by", _) => return Err("managed_by: file or api is expected".into()),
                ("label", Some((key, value))) => wanted.labels.push((key.into(), value.into())),
                ("label", None) => return Err("label: NAME=VALUE is expected".into()),
                (other, _) => {
                    return Err(format!(
                        "there is no parameter \"{other}\": those there are: gateway, managed_by, label"
                    ));
                }
            }
        }
        Ok(wanted)
    }

    /// The upstreams of the services that the gateway offers.
    fn upstreams(&self, set: &Set) -> HashSet<String> {
        let mut used = HashSet::new();
        for resource in set.all(ResourceKind::Service) {
            if let Model::Service(service) = &resource.model
                && let Pool::Upstream(upstream) = &service.pool
                && self.is_of_gateway(resource, &HashSet::new())
            {
                used.insert(upstream.to_string());
            }
        }
        used
    }

    fn is_of_gateway(&self, resource: &Resource, used: &HashSet<String>) -> bool {
        let Some(gateway) = self.gateway.as_deref() else {
            return true;
        };
        match &resource.model {
            Model::Gateway(own) => own.name.as_str() == gateway,
            Model::Service(service) => {
                let named = &service.gateways;
                named.is_empty() || named.iter().any(|name| name.as_str() == gateway)
            }
            Model::Upstream(upstream) => used.contains(upstream.name.as_str()),
            Model::Rule(rule) => rule.gateway.as_str() == gateway,
            Model::Key(key) => key.gateway.as_str() == gateway,
            Model::Target(target) => used.contains(target.upstream.as_str()),
        }
    }

    fn holds(&self, resource: &Resource, used: &HashSet<String>) -> bool {
        let owner = self.managed_by.as_deref();
        owner.is_none_or(|owner| owner == resource.owner.word())
            && self.is_of_gateway(resource, used)
            && self
                .labels
                .iter()
                .all(|(name, value)| resource.model.labels().get(name) == Some(value))
    }
}

/// The entity tag of a page.
pub(super) fn tagged(revision: u64) -> [(HeaderName, String); 1] {
    [(ETAG, tag(revision))]
}
