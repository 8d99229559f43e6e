//! What a client's fields mean beside those that are kept: a patch, and what the conversion has no view for.

use serde_json::{Value, json};

use super::super::Answer;
use super::super::masks;
use super::super::objects::{Fields, Object, exists, in_use, known_id, wrong};
use super::Kind;

/// Fields of which a gateway has one: who names another means it instead.
const ONE_OF: [&[&str]; 2] = [
    &["coreWeaveAuth", "weightsAndBiasesAuth"],
    &["bodyBasedRouting", "pathBasedRouting", "headerBasedRouting"],
];

/// What an object says after a patch: whole fields are replaced, the others stay, and null takes one away.
///
/// # Errors
/// The answer that says what cannot be changed.
pub(super) fn patched(old: &Object, mut patch: Fields) -> Answer<Fields> {
    for name in ["id", "organizationId"] {
        let given = patch.remove(name).filter(|given| !given.is_null());
        let own = match name {
            "id" => Some(json!(old.id)),
            name => old.sent.get(name).cloned(),
        };
        if given.is_some() && given != own {
            return Err(wrong(name, "it cannot be changed"));
        }
    }
    if { patch.get("name") }.is_some_and(|name| old.sent.get("name") != Some(name)) {
        let why = "it cannot be changed; make another with the new name";
        return Err(wrong("name", why));
    }
    let mut sent = old.sent.clone();
    for group in ONE_OF {
        if { group.iter() }.any(|name| patch.get(*name).is_some_and(|given| !given.is_null())) {
            for name in group.iter() {
                if !patch.contains_key(*name) {
                    sent.remove(*name);
                }
            }
        }
    }
    keep_key(&mut patch, &old.sent);
    masks::keep(&mut patch, &old.sent)?;
    keep_names(&mut patch, &old.sent);
    for (name, value) in patch {
        match value {
            Value::Null => drop(sent.remove(&name)),
            value => drop(sent.insert(name, value)),
        }
    }
    Ok(sent)
}

/// W&B's key is never shown, so who sends back what was shown does not mean to take it away.
fn keep_key(patch: &mut Fields, old: &Fields) {
    let field = "weightsAndBiasesAuth";
    let kept = old.get(field).and_then(|wandb| wandb.get("apiKey"));
    let wandb = patch.get_mut(field).and_then(Value::as_object_mut);
    if let (Some(wandb), Some(kept)) = (wandb, kept)
        && !wandb.contains_key("apiKey")
        && wandb.get("serverUrl") == old.get(field).and_then(|old| old.get("serverUrl"))
    {
        wandb.insert("apiKey".into(), kept.clone());
    }
}

/// Names of a gateway are added to those it has; only a null takes them away.
fn keep_names(patch: &mut Fields, old: &Fields) {
    let Some(Value::Object(old)) = old.get("endpointConfiguration") else {
        return;
    };
    let Some(Value::Object(new)) = patch.get_mut("endpointConfiguration") else {
        return;
    };
    for (name, value) in old {
        match (new.get_mut(name), value) {
            (Some(Value::Array(names)), Value::Array(kept)) if name == "additionalDns" => {
                let more: Vec<Value> = { kept.iter() }
                    .filter(|kept| !names.contains(kept))
                    .cloned()
                    .collect();
                names.splice(0..0, more);
            }
            (Some(_), _) => {}
            (None, value) => drop(new.insert(name.clone(), value.clone())),
        }
    }
}

/// Writes the ids of others as they are kept.
pub(super) fn with_known_ids(sent: &mut Fields) {
    let ids = sent.get_mut("gatewayIds").and_then(Value::as_array_mut);
    for id in ids.into_iter().flatten() {
        if let Some(known) = id.as_str().and_then(|text| known_id("", text).ok()) {
            *id = known.into();
        }
    }
}

/// Whether an object can be true beside the others.
pub(super) fn is_sound(all: &[Object], object: &Object, kind: Kind) -> Answer<()> {
    let others = { all.iter() }.filter(|other| other.kind == object.kind);
    let mut others = others.filter(|other| other.id != object.id);
    if kind != Kind::Claim
        && let Some(name) = object.text("name")
        && others.any(|other| other.text("name") == Some(name))
    {
        let why = format!("there is already a {} {name}", kind.word());
        return Err(exists(&why));
    }
    match kind {
        Kind::Gateway => has_zones(object),
        Kind::Deployment => names_gateways(all, object),
        Kind::Claim => Ok(()),
    }
}

fn has_zones(gateway: &Object) -> Answer<()> {
    let zones = gateway.sent.get("zones").and_then(Value::as_array);
    let text = |zone: &Value| zone.as_str().is_some_and(|zone| !zone.is_empty());
    match zones.is_some_and(|zones| !zones.is_empty() && zones.iter().all(text)) {
        true => Ok(()),
        false => Err(wrong("zones", "at least one is expected, as text")),
    }
}

fn ids(deployment: &Object) -> impl Iterator<Item = &str> {
    let ids = deployment.sent.get("gatewayIds").and_then(Value::as_array);
    ids.into_iter().flatten().filter_map(Value::as_str)
}

fn names_gateways(all: &[Object], deployment: &Object) -> Answer<()> {
    for (index, id) in ids(deployment).enumerate() {
        let gateway = |other: &Object| other.kind == Kind::Gateway.word() && other.id == id;
        if !all.iter().any(gateway) {
            let field = format!("gatewayIds[{index}]");
            return Err(wrong(&field, "there is no gateway of this id"));
        }
    }
    Ok(())
}

/// Whether nobody refers to an object.
pub(super) fn is_unused(all: &[Object], object: &Object) -> Answer<()> {
    let uses = |other: &&Object| {
        other.kind == Kind::Deployment.word() && ids(other).any(|id| id == object.id)
    };
    match { all.iter() }.find(uses) {
        Some(other) if object.kind == Kind::Gateway.word() => {
            let why = format!(
                "the gateway is in use by the deployment {}; delete that first",
                other.called()
            );
            Err(in_use(&why))
        }
        _ => Ok(()),
    }
}
