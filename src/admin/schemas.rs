//! The schemas of the OpenAPI document: the kinds' from their declarations, the others by hand.

use serde_json::{Map, Value, json};
use tollgate_sdk::document::FromNode;

use crate::acme::OrderState;
use crate::config::Action;
use crate::control::events::EventKind;
use crate::control::{ConditionKind, GatewayState};
use crate::model::{KINDS, Kind, Target};

/// A schema of the document's own, by name.
pub(super) fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A list of what `item` describes, as lists are answered.
pub(super) fn list_of(item: Value) -> Value {
    object(&[
        ("items", json!({"type": "array", "items": item})),
        ("revision", count()),
    ])
}

/// Every schema of the document.
pub(super) fn all() -> Map<String, Value> {
    let mut schemas = Map::new();
    for kind in KINDS.iter().filter(|kind| kind.name != "listener") {
        let name = pascal(kind.name);
        schemas.insert(name.clone(), answered(kind));
        schemas.insert(format!("New{name}"), sent(kind));
    }
    schemas.insert("KeyWithSecret".into(), key_with_secret());
    schemas.insert("Error".into(), error());
    schemas.insert("Usage".into(), usage());
    schemas.insert("Reloaded".into(), reloaded());
    schemas.insert("Status".into(), status());
    schemas.insert("Scaling".into(), scaling());
    schemas.insert("Upgraded".into(), upgraded());
    schemas.insert("Event".into(), event());
    schemas.insert("Target".into(), registered());
    schemas.insert("NewTarget".into(), <Target as FromNode>::schema());
    schemas.insert("Plan".into(), plan());
    schemas.insert("Explanation".into(), explanation());
    schemas
}

/// `key` as the name of its schema: `Key`.
pub(super) fn pascal(kind: &str) -> String {
    let mut chars = kind.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

/// What every answer adds to a resource, and every request may say without effect.
fn ours(kind: &str) -> [(&'static str, Value); 3] {
    [
        ("kind", json!({"const": kind, "description": "Its kind."})),
        (
            "managed_by",
            json!({"enum": ["file", "api"], "description": "Who may change it."}),
        ),
        (
            "revision",
            json!({"type": "integer", "minimum": 0, "description": "The configuration's revision when it was last changed."}),
        ),
    ]
}

/// A resource as it is sent: as in the configuration file. That names refer to something is not said here.
fn sent(kind: &Kind) -> Value {
    let mut schema = (kind.schema)();
    extend(&mut schema, ours(kind.name));
    if let Some(schema) = schema.as_object_mut() {
        // Keys that are sent need no secret of their own: they are given one.
        schema.retain(|name, _| !["oneOf", "anyOf", "allOf"].contains(&name.as_str()));
    }
    schema
}

/// A resource as it is answered: nothing secret is in it but `***`.
fn answered(kind: &Kind) -> Value {
    let mut schema = sent(kind);
    if kind.name == "key"
        && let Some(fields) = fields_of(&mut schema)
    {
        fields.remove("hash");
        fields.remove("secret");
        let previous = object(&[("until", json!({"type": "string"}))]);
        let doc = "Secrets it had before, which still open it for a while.";
        let previous = json!({"type": "array", "items": previous, "description": doc});
        fields.insert("previous".into(), previous);
        if let Some(end) = fields.get_mut("expires_at") {
            *end = json!({"anyOf": [end.take(), {"type": "null"}]});
        }
    }
    schema
}

fn key_with_secret() -> Value {
    let key = KINDS.iter().find(|kind| kind.name == "key");
    let mut schema = key.map_or(Value::Null, answered);
    let doc = "What its users send: shown in this answer and nowhere else.";
    let secret = json!({"type": "string", "pattern": "^tg_", "description": doc});
    extend(&mut schema, [("secret", secret)]);
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.push(json!("secret"));
    }
    schema
}

fn error() -> Value {
    let detail = object(&[("path", text()), ("message", text())]);
    let mut inner = object(&[
        ("message", text()),
        (
            "code",
            json!({"type": "string", "description": "A word for machines: `not_found`."}),
        ),
    ]);
    let details = json!({"type": "array", "items": detail, "description": "Every mistake, with the field's path."});
    let word = json!({"type": ["string", "null"]});
    extend(
        &mut inner,
        [
            ("details", details),
            ("type", word.clone()),
            ("param", word),
        ],
    );
    object(&[("error", inner)])
}

fn usage() -> Value {
    let mut schema = object(&[
        ("name", text()),
        ("requests", count()),
        ("errors", count()),
        ("input_tokens", count()),
        ("cached_tokens", count()),
        ("output_tokens", count()),
        ("cost", json!({"type": "number"})),
    ]);
    let group = json!({"type": "string", "description": "The same as `name`, under the name of what was grouped by."});
    let groups = ["key", "model", "service", "gateway", "day"].map(|by| (by, group.clone()));
    extend(&mut schema, groups);
    schema
}

fn reloaded() -> Value {
    let lines = |doc: &str| json!({"type": "array", "items": text(), "description": doc});
    object(&[
        ("revision", count()),
        (
            "changes",
            lines("What is different: `service qwen: updated`."),
        ),
        (
            "after_restart",
            lines("What only a restart brings into force."),
        ),
        ("warnings", text()),
    ])
}

fn upgraded() -> Value {
    object(&[
        ("old", count()),
        ("new", count()),
        ("version", text()),
        ("open", count()),
    ])
}

fn status() -> Value {
    object(&[
        ("version", text()),
        ("revision", count()),
        ("started_at", time()),
        ("ready", json!({"type": "boolean"})),
        ("file", json!({"type": ["string", "null"]})),
        (
            "last_reload",
            json!({"anyOf": [last_reload(), {"type": "null"}]}),
        ),
        ("gateways", list(gateway())),
        ("services", list(service())),
        ("targets", list(target())),
        ("queues", list(queue())),
        ("certificates", list(certificate())),
        ("store", store()),
    ])
}

fn certificate() -> Value {
    let of = json!({"enum": ["gateway", "listener"]});
    // Nothing is known of a certificate whose file cannot be read, or that has not been issued.
    let or_null = |schema: Value| json!({"anyOf": [schema, {"type": "null"}]});
    let states = OrderState::ALL.map(OrderState::as_str);
    let order = object(&[
        ("state", json!({"enum": states})),
        ("reason", or_null(text())),
        ("next_at", or_null(time())),
    ]);
    object(&[
        ("name", text()),
        ("of", of),
        ("hosts", or_null(list(text()))),
        ("issuer", or_null(text())),
        ("expires_at", or_null(time())),
        ("source", text()),
        ("order", or_null(order)),
    ])
}

fn last_reload() -> Value {
    let result = json!({"enum": ["ok", "refused"]});
    object(&[("at", time()), ("result", result), ("message", text())])
}

fn gateway() -> Value {
    let states = GatewayState::ALL.map(GatewayState::as_str);
    let kinds = ConditionKind::ALL.map(ConditionKind::as_str);
    let condition = object(&[
        ("type", json!({"enum": kinds})),
        ("status", json!({"enum": ["True", "False", "Unknown"]})),
        ("reason", text()),
        ("message", text()),
        ("updated_at", time()),
    ]);
    object(&[
        ("name", text()),
        ("status", json!({"enum": states})),
        ("conditions", list(condition)),
        ("hosts", list(text())),
        ("services", list(text())),
    ])
}

fn service() -> Value {
    let role = object(&[
        ("role", json!({"enum": ["prefill", "decode", "both"]})),
        ("targets", count()),
        ("serving", count()),
        ("in_flight", count()),
    ]);
    object(&[
        ("name", text()),
        ("upstream", text()),
        ("in_flight", json!({"type": "integer"})),
        ("targets", count()),
        ("serving", count()),
        ("models", json!({"anyOf": [list(text()), {"type": "null"}]})),
        ("roles", list(role)),
        ("scaling", json!({"anyOf": [scaled(), {"type": "null"}]})),
    ])
}

fn scaled() -> Value {
    let or_null = |schema: Value| json!({"anyOf": [schema, {"type": "null"}]});
    object(&[
        ("desired", count()),
        ("ready", count()),
        ("starting", count()),
        ("draining", count()),
        ("metric", text()),
        ("measured", or_null(json!({"type": "number"}))),
        ("reason", text()),
        ("changed_at", time()),
        ("problem", or_null(text())),
    ])
}

/// As it is told by itself; what is measured and decided is missing until that was done once.
fn scaling() -> Value {
    let mut schema = scaled();
    let own = object(&[
        ("service", text()),
        ("min", count()),
        ("max", count()),
        ("target", json!({"type": "number"})),
        ("waiting", count()),
    ]);
    if let (Some(schema), Some(own)) = (schema.as_object_mut(), own.as_object()) {
        for (name, value) in own {
            match (
                schema.get_mut(name).and_then(Value::as_object_mut),
                value.as_object(),
            ) {
                (Some(known), Some(more)) => known.extend(more.clone()),
                _ => drop(schema.insert(name.clone(), value.clone())),
            }
        }
    }
    schema
}

fn target() -> Value {
    object(&[
        ("upstream", text()),
        ("id", text()),
        ("url", text()),
        ("health", json!({"enum": ["up", "down", "unknown"]})),
        ("breaker", json!({"enum": ["closed", "open", "half_open"]})),
        ("in_flight", count()),
        ("weight", count()),
        ("engine", engine()),
        ("kv_events", kv_events()),
        ("cooling_ms", count()),
    ])
}

/// What events tell of a target's cache.
fn kv_events() -> Value {
    let told = object(&[
        ("source", json!({"enum": ["connected", "silent", "lost"]})),
        ("events", count()),
        ("gaps", count()),
        ("blocks", count()),
        ("tokens", count()),
        ("whole", json!({"type": "boolean"})),
        ("silent_ms", json!({"type": ["integer", "null"]})),
    ]);
    json!({"anyOf": [told, {"type": "null"}]})
}

/// What a target's engine told last.
fn engine() -> Value {
    let figure = || json!({"type": ["number", "null"]});
    let names = || json!({"type": "array", "items": text()});
    let mut engine = object(&[
        ("running", figure()),
        ("waiting", figure()),
        ("kv_usage", figure()),
        ("cache_tokens", json!({"type": ["integer", "null"]})),
        ("prompt_tokens", figure()),
        ("models", names()),
        ("adapters", names()),
        ("stale", json!({"type": "boolean"})),
    ]);
    if let Some(engine) = engine.as_object_mut() {
        engine.insert("type".into(), json!(["object", "null"]));
    }
    engine
}

/// What a request would cost at each target.
fn explanation() -> Value {
    let number = || json!({"type": "number"});
    let target = object(&[
        ("id", text()),
        ("usable", json!({"type": "boolean"})),
        ("cheapest", json!({"type": "boolean"})),
        ("cost_seconds", number()),
        ("pending_seconds", number()),
        ("own_seconds", number()),
        ("duplicate_seconds", number()),
        ("load_seconds", number()),
        ("first_token_seconds", number()),
        ("matched_tokens", number()),
        ("tokens_per_second", number()),
    ]);
    object(&[
        ("prompt_tokens", number()),
        ("duplication_price", number()),
        ("targets", json!({"type": "array", "items": target})),
    ])
}

/// A target as its upstream's pages show it.
fn registered() -> Value {
    object(&[
        ("id", text()),
        ("url", text()),
        ("managed_by", json!({"enum": ["file", "api"]})),
        ("revision", count()),
    ])
}

fn plan() -> Value {
    let actions = [
        Action::Create,
        Action::Update,
        Action::Unchanged,
        Action::Delete,
    ];
    let field = object(&[("path", text()), ("from", json!({})), ("to", json!({}))]);
    let mut change = object(&[
        ("kind", text()),
        ("name", text()),
        ("action", json!({"enum": actions.map(Action::word)})),
        ("fields", list(field)),
    ]);
    let doc = "The secret of a key that was made: shown in this answer and nowhere else.";
    let secret = json!({"type": "string", "description": doc});
    extend(&mut change, [("secret", secret)]);
    let note = object(&[
        ("document", text()),
        ("path", text()),
        ("verdict", text()),
        ("message", text()),
    ]);
    let warning = object(&[("path", text()), ("message", text())]);
    object(&[
        ("revision", count()),
        ("changes", list(change)),
        ("notes", list(note)),
        ("warnings", list(warning)),
    ])
}

fn queue() -> Value {
    object(&[
        ("service", text()),
        ("depth", count()),
        ("waiting_for_target", count()),
    ])
}

fn store() -> Value {
    object(&[
        ("ok", json!({"type": "boolean"})),
        ("reason", json!({"type": ["string", "null"]})),
        ("buffered", count()),
        ("dropped", count()),
    ])
}

/// The `data` of an event; its other fields depend on what it is about.
fn event() -> Value {
    let mut schema = object(&[("at", time()), ("message", text())]);
    if let Some(schema) = schema.as_object_mut() {
        let words = EventKind::ALL.map(EventKind::as_str).join("`, `");
        let doc = format!("The data of an event of `{words}`.");
        schema.insert("description".into(), doc.into());
    }
    schema
}

/// An object with these fields, all of them always there; there may be others.
fn object(fields: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let properties = fields.iter().cloned();
    let properties: Map<String, Value> = properties
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    json!({"type": "object", "required": names, "properties": properties})
}

/// Adds fields that need not be there.
fn extend(schema: &mut Value, more: impl IntoIterator<Item = (&'static str, Value)>) {
    if let Some(fields) = fields_of(schema) {
        fields.extend(
            more.into_iter()
                .map(|(name, schema)| (name.to_owned(), schema)),
        );
    }
}

fn fields_of(schema: &mut Value) -> Option<&mut Map<String, Value>> {
    schema.get_mut("properties")?.as_object_mut()
}

fn list(item: Value) -> Value {
    json!({"type": "array", "items": item})
}

pub(super) fn text() -> Value {
    json!({"type": "string"})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}
