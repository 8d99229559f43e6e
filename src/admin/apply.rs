//! `/v1/plan` and `/v1/apply`: documents of every form, all of them or none.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tollgate_sdk::document::Format;

use super::reply;
use super::resources::{expected, media_type, tagged, text};
use crate::config::foreign::{Note, Options};
use crate::config::{Difference, Documents, Fate, Mistake, read_documents};
use crate::control::{Changed, Control, Edit, What};

/// What documents would change.
pub(super) async fn plan(
    State(control): State<Arc<Control>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (edits, told) = match read(&control, query.as_deref(), &headers, body) {
        Ok(read) => read,
        Err(refused) => return *refused,
    };
    match control.plan(edits, &expected(&headers)) {
        Ok(changed) => answer(&changed, told),
        Err(error) => reply::refused(&error),
    }
}

/// Brings documents into force, all or none.
pub(super) async fn apply(
    State(control): State<Arc<Control>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (edits, told) = match read(&control, query.as_deref(), &headers, body) {
        Ok(read) => read,
        Err(refused) => return *refused,
    };
    match control.change(edits, expected(&headers)).await {
        Ok(changed) => answer(&changed, told),
        Err(error) => reply::refused(&error),
    }
}

/// What is said of documents beside their resources.
struct Told {
    notes: Vec<(String, Note)>,
    warnings: Vec<Mistake>,
}

fn read(
    control: &Control,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(Vec<Edit>, Told), Box<Response>> {
    let malformed = |message: &str| Box::new(reply::malformed(message));
    let body = body.map_err(|rejection| Box::new(reply::unread(&rejection)))?;
    let Some(format) = format(headers) else {
        let known = "application/json, application/yaml or application/toml";
        return Err(Box::new(reply::unknown_type(known)));
    };
    let options = options(query.unwrap_or_default()).map_err(|wrong| malformed(&wrong))?;
    let text = text(&body)?;
    let Documents {
        documents,
        notes,
        warnings,
        mut mistakes,
    } = read_documents(text, format, &options)
        .map_err(|wrong| malformed(&format!("the body cannot be read: {wrong}")))?;
    let edits = documents.into_iter().map(|document| Edit {
        kind: document.kind,
        path: document.path,
        what: What::Put {
            name: None,
            node: document.node,
        },
    });
    let edits = edits.collect();
    if !mistakes.is_empty() {
        mistakes.extend(control.mistakes(edits));
        return Err(Box::new(reply::mistakes(&mistakes)));
    }
    Ok((edits, Told { notes, warnings }))
}

fn format(headers: &HeaderMap) -> Option<Format> {
    Some(match media_type(headers).as_str() {
        "" | "application/json" | "text/json" => Format::Json,
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Format::Yaml,
        "application/toml" | "application/x-toml" | "text/toml" | "text/x-toml" => Format::Toml,
        _ => return None,
    })
}

/// What a foreign document does not say: `gateway`, `project`, `target=RUN=URL`, `local=URL`, `flag=NAME=VALUE`.
fn options(query: &str) -> Result<Options, String> {
    let mut options = Options::default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let value = value.into_owned();
        let pair = value.split_once('=');
        let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
        match (&*name, pair) {
            ("gateway", _) => options.gateway = Some(value),
            ("project", _) => options.project = Some(value),
            ("local", _) => options.local.push(value),
            ("target", Some(pair)) => options.targets.push(pair),
            ("flag", Some((name, value))) => drop(options.flags.insert(name, value)),
            ("target" | "flag", None) => return Err(format!("{name}: NAME=VALUE is expected")),
            (other, _) => {
                return Err(format!(
                    "there is no parameter \"{other}\": those there are: gateway, project, target, local, flag"
                ));
            }
        }
    }
    Ok(options)
}

fn answer(changed: &Changed, told: Told) -> Response {
    let announced = &changed.announced;
    let change = |fate: &Fate| {
        let fields: Vec<Value> = fate.fields.iter().map(Difference::shown).collect();
        let mut change = json!({
            "kind": fate.kind.word(),
            "name": &*fate.name,
            "action": fate.action.word(),
            "fields": fields,
        });
        if let (Some(change), Some(secret)) =
            (change.as_object_mut(), changed.secrets.get(&fate.name))
            && fate.kind == crate::config::ResourceKind::Key
        {
            change.insert("secret".into(), json!(secret.expose()));
        }
        change
    };
    let changes: Vec<Value> = announced.fates.iter().map(change).collect();
    let notes: Vec<Value> = { told.notes.iter() }
        .map(|(document, note)| {
            json!({
                "document": document,
                "path": note.path,
                "verdict": note.fate.to_string(),
                "message": note.message,
            })
        })
        .collect();
    let warnings = [told.warnings, changed.warnings.clone()].concat();
    let body = json!({
        "revision": announced.revision,
        "changes": changes,
        "notes": notes,
        "warnings": reply::listed(&warnings),
    });
    let mut response = (tagged(announced.revision), Json(body)).into_response();
    response.extensions_mut().insert(announced.clone());
    response
}
