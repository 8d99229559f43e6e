//! Keys: their secrets, which are shown once, and `/iam/api-keys`, where a key's gateway is its subject.

use axum::body::Bytes;
use axum::extract::RawQuery;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tollgate_sdk::document::{FromText, Node};
use tollgate_sdk::secret::Secret;

use super::super::super::resources::table;
use super::super::objects::{Fields, Object, fields, new_id, wrong};
use super::super::{Answer, settled};
use super::call::{Call, find, own};
use super::{Kind, list as lists, write};
use crate::model::KeyHash;

/// The shortest secret that a client may bring along.
const SHORTEST: usize = 16;

/// Gives a new key its secret, of which the object keeps the hash. One that the client brings along goes on.
pub(super) fn give_secret(sent: &mut Fields) -> Answer<Secret<String>> {
    ends_later(sent)?;
    let secret = match sent.remove("key") {
        None | Some(Value::Null) => made(),
        Some(Value::String(text)) if text.is_empty() => made(),
        Some(Value::String(text)) if text.len() >= SHORTEST => Secret::new(text),
        Some(_) => {
            let why = format!("a text of at least {SHORTEST} characters, or none");
            return Err(wrong("key", &why));
        }
    };
    let hash = KeyHash::of(secret.expose().as_bytes());
    sent.insert("key".into(), hash.to_text().into());
    Ok(secret)
}

/// As TrustGate makes them: 32 random bytes.
fn made() -> Secret<String> {
    Secret::new(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

fn ends_later(sent: &Fields) -> Answer<()> {
    let end = sent.get("expires_at").and_then(Value::as_str);
    let end = end.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match end.is_some_and(|end| end <= jiff::Timestamp::now()) {
        true => Err(wrong("expires_at", "it must be in the future")),
        false => Ok(()),
    }
}

/// All keys of all gateways, or of the one that `subject` or `subject_id` names.
pub(super) async fn list(call: Call, RawQuery(query): RawQuery) -> Response {
    settled(listed(&call, query.as_deref().unwrap_or_default()).await)
}

async fn listed(call: &Call, query: &str) -> Answer<Response> {
    let all = call.load().await?;
    let mut subject = None;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if ["subject", "subject_id", "gateway_id"].contains(&&*name) {
            subject = Some(super::super::objects::known_id(&name, &value)?);
        }
    }
    let own = |object: &&Object| {
        object.kind == Kind::Key.word() && (subject.is_none() || object.of == subject)
    };
    let found: Vec<&Object> = all.iter().filter(own).collect();
    let page = lists::page("api_keys", &found, query, usize::MAX)?;
    Ok(axum::Json(page).into_response())
}

/// A new key of the gateway that is its subject or, where its policies are, of theirs.
pub(super) async fn create(
    call: Call,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    settled(created(&call, table(&headers, body)).await)
}

async fn created(call: &Call, sent: Answer<Node>) -> Answer<Response> {
    let mut sent = fields(&sent?);
    let _held = call.desk.lock().await;
    let all = call.load().await?;
    let id = new_id(&mut sent, &all)?;
    own(&mut sent);
    let gateway = subject(&all, &sent)?;
    write::add(&call.control, &all, Kind::Key, (id, Some(gateway)), sent).await
}

fn subject(all: &[Object], sent: &Fields) -> Answer<String> {
    let text = |name: &str| sent.get(name).and_then(Value::as_str);
    match (text("subject_type"), text("subject")) {
        (None | Some("gateway"), Some(id)) => match find(all, Kind::Gateway, id) {
            Some(_) => Ok(id.to_owned()),
            None => Err(wrong("subject", "there is no such gateway")),
        },
        (None | Some("gateway"), None) => {
            Err(wrong("subject", "missing: the id of the key's gateway"))
        }
        (Some("policy"), Some(_)) => Err(wrong("subject", "not with the type \"policy\"")),
        (Some("policy"), None) => of_policies(all, sent),
        (Some(_), _) => Err(wrong(
            "subject_type",
            "\"gateway\" or \"policy\" is expected",
        )),
    }
}

/// The gateway of the rules that a key opens.
fn of_policies(all: &[Object], sent: &Fields) -> Answer<String> {
    let policies = sent.get("policies").and_then(Value::as_array);
    let mut policies = policies.into_iter().flatten().filter_map(Value::as_str);
    let rule = policies.next().and_then(|id| find(all, Kind::Rule, id));
    let gateway = rule.and_then(|rule| rule.of.clone());
    gateway.ok_or_else(|| wrong("policies", "the id of at least one rule is expected"))
}

/// The rules that a key opens from now on.
pub(super) async fn policies(
    call: Call,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    settled(opened(&call, table(&headers, body)).await)
}

async fn opened(call: &Call, sent: Answer<Node>) -> Answer<Response> {
    let mut given = fields(&sent?);
    own(&mut given);
    let _held = call.desk.lock().await;
    let all = call.load().await?;
    let old = call.object(&all)?;
    let Some(policies) = given.remove("policies").filter(Value::is_array) else {
        return Err(wrong("policies", "a list of ids of rules is expected"));
    };
    let mut sent = old.sent.clone();
    sent.insert("policies".into(), json!(policies));
    let done = write::replace(call, &all, &old.saying(sent)).await?;
    Ok(done.answer(StatusCode::NO_CONTENT, None))
}
