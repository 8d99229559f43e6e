//! `/plugins`: the chain of a gateway or a rule, entry by entry.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tollgate_sdk::document::Node;

use super::super::super::resources::table;
use super::super::objects::{Fields, Object, exists, fields, known_id, malformed, wrong};
use super::super::{Answer, masks, settled};
use super::call::{Call, find};
use super::{Kind, write};

type Sent = Result<Bytes, BytesRejection>;

/// More entries: `{"type","id","plugins":[…]}`.
pub(super) async fn add(call: Call, headers: HeaderMap, body: Sent) -> Response {
    settled(changed(&call, table(&headers, body), added).await)
}

/// Entries one by one: `{"type","id","updates":[{"operation","plugin",…}]}`.
pub(super) async fn update(call: Call, headers: HeaderMap, body: Sent) -> Response {
    settled(changed(&call, table(&headers, body), stepwise).await)
}

/// Without these entries, or without any: `{"type","id","plugins":["name",…]}`.
pub(super) async fn remove(call: Call, headers: HeaderMap, body: Sent) -> Response {
    settled(changed(&call, table(&headers, body), without).await)
}

type Chain = Vec<Value>;

async fn changed(
    call: &Call,
    sent: Answer<Node>,
    change: fn(Chain, &Fields) -> Answer<Chain>,
) -> Answer<Response> {
    let sent = fields(&sent?);
    let _held = call.desk.lock().await;
    let all = call.load().await?;
    let (owner, field) = owner(&all, &sent)?;
    let chain = change(chain(&owner, field), &sent)?;
    once_in_a_stage(&chain)?;
    let mut says = owner.sent.clone();
    says.insert(field.into(), chain.into());
    masks::keep(&mut says, &owner.sent)?;
    let done = write::replace(call, &all, &owner.saying(says)).await?;
    Ok(done.answer(StatusCode::NO_CONTENT, None))
}

/// Whose chain it is, and the field that it stands in.
fn owner(all: &[Object], sent: &Fields) -> Answer<(Object, &'static str)> {
    let text = |name: &str| sent.get(name).and_then(Value::as_str);
    let (kind, field) = match text("type") {
        Some("gateway") => (Kind::Gateway, "required_plugins"),
        Some("rule") => (Kind::Rule, "plugin_chain"),
        _ => return Err(malformed("type must be gateway or rule")),
    };
    let word = kind.word();
    let invalid = || malformed(&format!("invalid {word} ID"));
    let id = known_id("id", text("id").unwrap_or_default()).map_err(|_| invalid())?;
    let owner = find(all, kind, &id).cloned().ok_or_else(invalid)?;
    let misspelt = kind == Kind::Rule && owner.sent.contains_key("plugins_chain");
    Ok((owner, if misspelt { "plugins_chain" } else { field }))
}

/// A chain as a list, also where it was sent as a map from the plugins' names.
fn chain(owner: &Object, field: &str) -> Chain {
    match owner.sent.get(field) {
        Some(Value::Array(items)) => items.clone(),
        Some(Value::Object(items)) => {
            let named = items.iter().map(|(name, entry)| {
                let mut entry = entry.as_object().cloned().unwrap_or_default();
                entry.entry("name").or_insert(json!(name));
                entry.into()
            });
            named.collect()
        }
        _ => Chain::new(),
    }
}

fn name(entry: &Value) -> &str {
    let name = entry.as_str().or_else(|| entry.get("name")?.as_str());
    name.unwrap_or_default()
}

fn list<'s>(sent: &'s Fields, field: &str) -> Answer<&'s [Value]> {
    match sent.get(field) {
        Some(Value::Array(items)) if !items.is_empty() => Ok(items),
        _ => Err(wrong(field, "a list is expected")),
    }
}

fn added(mut chain: Chain, sent: &Fields) -> Answer<Chain> {
    chain.extend(list(sent, "plugins")?.iter().cloned());
    Ok(chain)
}

fn without(chain: Chain, sent: &Fields) -> Answer<Chain> {
    if !sent.contains_key("plugins") {
        return Ok(Chain::new());
    }
    let mut left = chain;
    for entry in list(sent, "plugins")? {
        left = dropped(left, name(entry))?;
    }
    Ok(left)
}

fn dropped(chain: Chain, gone: &str) -> Answer<Chain> {
    let count = chain.len();
    let left: Chain = chain.into_iter().filter(|e| name(e) != gone).collect();
    match left.len() < count {
        true => Ok(left),
        false => Err(malformed(&format!(
            "there is no plugin {gone} in the chain"
        ))),
    }
}

fn stepwise(mut chain: Chain, sent: &Fields) -> Answer<Chain> {
    for (index, update) in list(sent, "updates")?.iter().enumerate() {
        let text = |name: &str| update.get(name).and_then(Value::as_str);
        let plugin = update.get("plugin").filter(|plugin| plugin.is_object());
        let old = ["old_plugin_name", "plugin_name"].iter();
        let old = { old }.find_map(|field| text(field));
        match (text("operation"), plugin) {
            (Some("add"), Some(plugin)) => chain.push(plugin.clone()),
            (Some("edit"), Some(plugin)) => {
                let old = old.unwrap_or_else(|| name(plugin));
                let Some(place) = chain.iter_mut().find(|entry| name(entry) == old) else {
                    let why = format!("there is no plugin {old} in the chain");
                    return Err(malformed(&why));
                };
                *place = plugin.clone();
            }
            (Some("delete"), plugin) => {
                let gone = old.or(plugin.map(name)).unwrap_or_default();
                chain = dropped(chain, gone)?;
            }
            (Some("add" | "edit"), None) => {
                let field = format!("updates[{index}].plugin");
                return Err(wrong(&field, "an entry of a chain is expected"));
            }
            _ => {
                let field = format!("updates[{index}].operation");
                return Err(wrong(&field, "add, edit or delete is expected"));
            }
        }
    }
    Ok(chain)
}

fn once_in_a_stage(chain: &[Value]) -> Answer<()> {
    let stage = |entry: &Value| {
        entry
            .get("stage")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    for (index, entry) in chain.iter().enumerate() {
        let mut before = chain.iter().take(index);
        if before.any(|other| name(other) == name(entry) && stage(other) == stage(entry)) {
            let stage = stage(entry).unwrap_or_default();
            let why = format!(
                "the plugin {} already exists for stage {stage}",
                name(entry)
            );
            return Err(exists(&why));
        }
    }
    Ok(())
}
