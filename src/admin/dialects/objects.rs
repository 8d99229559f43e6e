//! Objects of other systems as they were sent, kept in the store beside the resources that came of them.
//!
//! What is kept may hold secrets, as resources do; what is shown passes [`masks`](super::masks).

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use tollgate_sdk::document::Node;
use uuid::Uuid;

use super::super::reply;
use super::Answer;
use crate::config::Mistake;
use crate::control::{ChangeError, Control};
use crate::store::{Change, Resource, StoreError};

/// The fields of an object.
pub(super) type Fields = Map<String, Value>;

/// An object of another system.
#[derive(Clone, PartialEq)]
pub(super) struct Object {
    /// A UUID, its client's own or ours.
    pub(super) id: String,
    /// The system's word for what it is.
    pub(super) kind: String,
    /// The id of the gateway that it is below, if there is one.
    pub(super) of: Option<String>,
    /// What was sent.
    pub(super) sent: Fields,
    /// What is known of it besides.
    pub(super) apart: Fields,
    /// When it was made; they are in this order.
    pub(super) created_at: String,
    /// When it was last changed.
    pub(super) updated_at: String,
}

impl Object {
    /// A new one.
    pub(super) fn new(kind: &str, id: String, of: Option<String>, sent: Fields) -> Object {
        let now = now();
        Object {
            id,
            kind: kind.to_owned(),
            of,
            sent,
            apart: Fields::new(),
            created_at: now.clone(),
            updated_at: now,
        }
    }

    /// The same, saying something else from now on.
    pub(super) fn saying(&self, sent: Fields) -> Object {
        Object {
            sent,
            updated_at: now(),
            ..self.clone()
        }
    }

    /// A text that it says.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.sent.get(field).and_then(Value::as_str)
    }

    /// What people call it.
    pub(super) fn called(&self) -> &str {
        let name = self.text("name").filter(|name| !name.is_empty());
        name.unwrap_or(&self.id)
    }

    fn read(stored: Resource) -> Option<Object> {
        let Value::Object(mut body) = stored.body else {
            return None;
        };
        let mut text = |name: &str| match body.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (kind, of) = (text("kind")?, text("of"));
        let (created_at, updated_at) = (text("created_at")?, text("updated_at")?);
        let mut table = |name: &str| match body.remove(name) {
            Some(Value::Object(table)) => table,
            _ => Fields::new(),
        };
        Some(Object {
            id: stored.name,
            kind,
            of,
            sent: table("sent"),
            apart: table("apart"),
            created_at,
            updated_at,
        })
    }

    fn body(&self) -> Value {
        json!({
            "kind": self.kind, "of": self.of, "sent": self.sent, "apart": self.apart,
            "created_at": self.created_at, "updated_at": self.updated_at,
        })
    }
}

/// What the store calls the objects of a system.
#[derive(Clone, Copy)]
pub(super) struct Shelf(pub(super) &'static str);

impl Shelf {
    /// Everything that is kept, in the order in which it was made.
    pub(super) async fn load(self, control: &Arc<Control>) -> Answer<Vec<Object>> {
        let store = control.store().clone();
        // It waits for the disk.
        let listed = tokio::task::spawn_blocking(move || store.list(self.0)).await;
        let listed: Result<Vec<Resource>, StoreError> =
            listed.map_err(|_| refused(&ChangeError::Broken))?;
        let listed = listed.map_err(|error| refused(&ChangeError::Store(error)))?;
        let mut all: Vec<Object> = listed.into_iter().filter_map(Object::read).collect();
        all.sort_by(|a, b| (&a.created_at, &a.id).cmp(&(&b.created_at, &b.id)));
        Ok(all)
    }

    /// What leads from some objects to others.
    pub(super) fn changes(self, before: &[Object], after: &[Object]) -> Vec<Change> {
        let kind = || self.0.to_owned();
        let gone = { before.iter() }.filter(|old| !after.iter().any(|new| new.id == old.id));
        let gone = gone.map(|old| Change::Delete {
            kind: kind(),
            name: old.id.clone(),
            gateway: None,
        });
        let put = after.iter().filter(|new| !before.contains(new));
        let put = put.map(|new| Change::Put {
            kind: kind(),
            name: new.id.clone(),
            gateway: None,
            body: new.body(),
        });
        gone.chain(put).collect()
    }
}

fn refused(error: &ChangeError) -> Box<axum::response::Response> {
    Box::new(reply::refused(error))
}

/// The present time, as precise as it is known: objects are put in order by it.
fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// The id of a new object: the one that its client chose, taken out of what was sent, or one of ours.
pub(super) fn new_id(sent: &mut Fields, all: &[Object]) -> Answer<String> {
    let id = match sent.remove("id") {
        None | Some(Value::Null) => made_id(),
        Some(Value::String(text)) if text.is_empty() => made_id(),
        Some(Value::String(text)) => known_id("id", &text)?,
        Some(_) => return Err(wrong("id", "a UUID is expected")),
    };
    match all.iter().any(|object| object.id == id) {
        true => Err(exists(&format!("there is already one with the id {id}"))),
        false => Ok(id),
    }
}

fn made_id() -> String {
    let now = jiff::Timestamp::now().as_millisecond();
    let builder = uuid::Builder::from_unix_timestamp_millis(
        u64::try_from(now).unwrap_or_default(),
        &rand::random(),
    );
    builder.into_uuid().hyphenated().to_string()
}

/// An id as it is kept, from whatever way a UUID is written.
pub(super) fn known_id(place: &str, text: &str) -> Answer<String> {
    match Uuid::parse_str(text) {
        Ok(id) => Ok(id.hyphenated().to_string()),
        Err(_) => Err(wrong(place, "a UUID is expected")),
    }
}

/// The fields of a body.
pub(super) fn fields(node: &Node) -> Fields {
    match node.json() {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

/// What is wrong with a field.
pub(super) fn wrong(field: &str, why: &str) -> Box<axum::response::Response> {
    Box::new(reply::mistakes(&[Mistake::new(field, why)]))
}

/// What is wrong with a call as a whole.
pub(super) fn malformed(message: &str) -> Box<axum::response::Response> {
    let status = StatusCode::BAD_REQUEST;
    Box::new(reply::error(status, "malformed", message))
}

pub(super) fn exists(message: &str) -> Box<axum::response::Response> {
    Box::new(reply::error(StatusCode::CONFLICT, "exists", message))
}

pub(super) fn in_use(message: &str) -> Box<axum::response::Response> {
    Box::new(reply::error(StatusCode::CONFLICT, "in_use", message))
}

pub(super) fn missing(message: &str) -> Box<axum::response::Response> {
    Box::new(reply::error(StatusCode::NOT_FOUND, "not_found", message))
}
