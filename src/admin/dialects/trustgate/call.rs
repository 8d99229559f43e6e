//! What every call is about: a kind of object, and the gateway and the object that its address names.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use serde_json::Value;
use tokio::sync::Mutex;

use super::super::objects::{Fields, Object, known_id, malformed, missing};
use super::super::{Answer, Desk, masks};
use super::{Kind, SHELF};
use crate::control::Control;

/// A call.
pub(super) struct Call {
    pub(super) control: Arc<Control>,
    /// Held while a write is made.
    pub(super) desk: Arc<Mutex<()>>,
    pub(super) kind: Kind,
    gateway: Option<String>,
    id: Option<String>,
}

impl FromRequestParts<Arc<Control>> for Call {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        control: &Arc<Control>,
    ) -> Result<Self, Infallible> {
        let given = RawPathParams::from_request_parts(parts, control).await.ok();
        let given = |name: &str| {
            let mut given = given.iter().flatten();
            let found = given.find(|(own, _)| *own == name);
            found.map(|(_, value)| value.to_owned())
        };
        let desk = parts.extensions.get::<Desk>().cloned().unwrap_or_default();
        let kind = parts.extensions.get::<Kind>().copied();
        let kind = kind.unwrap_or(Kind::Gateway);
        let (gateway, id) = match kind {
            Kind::Gateway => (None, given("gateway")),
            _ => (given("gateway"), given("id")),
        };
        Ok(Call {
            control: control.clone(),
            desk: desk.trustgate,
            kind,
            gateway,
            id,
        })
    }
}

impl Call {
    /// Everything that is kept.
    pub(super) async fn load(&self) -> Answer<Vec<Object>> {
        SHELF.load(&self.control).await
    }

    /// The id of the gateway in the address, which must be there.
    pub(super) fn gateway(&self, all: &[Object]) -> Answer<Option<String>> {
        let Some(text) = &self.gateway else {
            return Ok(None);
        };
        let id = known_id("gateway", text)?;
        match find(all, Kind::Gateway, &id) {
            Some(_) => Ok(Some(id)),
            None => Err(malformed(&format!("there is no gateway {id}"))),
        }
    }

    /// The object in the address.
    pub(super) fn object(&self, all: &[Object]) -> Answer<Object> {
        let gateway = self.gateway.as_deref().map(|id| known_id("gateway", id));
        let gateway = gateway.transpose()?;
        let word = self.kind.word();
        let id = known_id(word, self.id.as_deref().unwrap_or_default())?;
        let found = find(all, self.kind, &id);
        let found = found.filter(|found| gateway.is_none() || found.of == gateway);
        let missing = || missing(&format!("There is no {word} {id}."));
        found.cloned().ok_or_else(missing)
    }
}

/// An object of this kind and id.
pub(super) fn find<'o>(all: &'o [Object], kind: Kind, id: &str) -> Option<&'o Object> {
    { all.iter() }.find(|object| object.kind == kind.word() && object.id == id)
}

/// The gateway and all that is below it.
pub(super) fn tenant(all: &[Object], gateway: &str) -> Vec<Object> {
    let own = |object: &&Object| object.id == gateway || object.of.as_deref() == Some(gateway);
    all.iter().filter(own).cloned().collect()
}

/// The gateway that an object is below, or is.
pub(super) fn whose(object: &Object) -> &str {
    object.of.as_deref().unwrap_or(&object.id)
}

/// What is said of an object besides what was sent; sent back, it is not heeded.
const BESIDE: [&str; 5] = [
    "gateway_id",
    "created_at",
    "updated_at",
    "CreatedAt",
    "UpdatedAt",
];

/// Takes out what is not its sender's to say, and writes the ids of others as they are kept.
pub(super) fn own(sent: &mut Fields) {
    for name in BESIDE {
        sent.remove(name);
    }
    let write = |value: &mut Value| {
        let id = value.as_str().and_then(|text| known_id("", text).ok());
        if let Some(id) = id {
            *value = id.into();
        }
    };
    { ["upstream_id", "service_id", "subject"].iter() }
        .for_each(|name| sent.get_mut(*name).into_iter().for_each(write));
    let policies = sent.get_mut("policies").and_then(Value::as_array_mut);
    policies.into_iter().flatten().for_each(write);
}

/// An object as it is shown: as it was sent, without secrets.
pub(super) fn shown(object: &Object) -> Fields {
    let mut fields = Fields::new();
    let mut say = |name: &str, value: &str| drop(fields.insert(name.into(), value.into()));
    say("id", &object.id);
    if let Some(gateway) = &object.of {
        say("gateway_id", gateway);
    }
    let mut sent = object.sent.clone();
    masks::mask(&mut sent);
    fields.extend(sent);
    let services = object.kind == Kind::Service.word();
    for (name, capital, value) in [
        ("created_at", "CreatedAt", &object.created_at),
        ("updated_at", "UpdatedAt", &object.updated_at),
    ] {
        fields.insert(name.into(), value.clone().into());
        if services {
            fields.insert(capital.into(), Value::from(value.clone()));
        }
    }
    fields
}
