//! `transform`: fields of JSON bodies renamed, removed and set.
//!
//! It changes the ranges its paths lead to and nothing else: numbers, key order and white space of the rest stay as they were sent. Of
//! one direction, fields are renamed first, then removed, then set. Answers are changed whole; streams of events pass as they are.

mod edit;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use tollgate_sdk::document;
use tollgate_sdk::document::{At, FromNode, Json, Node, Reading, Value, json};
use tollgate_sdk::plugin::{
    Builds, Built, Exchange, Host, Needs, Plugin, Refusal, ResponseHead, Stage, State, Step,
    Verdict,
};

use crate::path::DottedPath;
use edit::Operation;

document! {
    /// Fields of JSON bodies: renamed, then removed, then set. Paths have dots, "metadata.user", and are written in quotes where a
    /// format takes dots for tables.
    pub struct Transform (checked) {
        /// Of requests.
        request: FieldChanges = FieldChanges::default(),
        /// Of answers that are not streams.
        response: FieldChanges = FieldChanges::default(),
    }
}

document! {
    /// Changes to the bodies of one direction.
    pub struct FieldChanges (default) {
        /// New names, by path: { "options.n" = "count" } makes it "options.count". A field stays if its new name is taken.
        rename: Vec<(DottedPath, String)> = Vec::new(),
        /// Fields that are taken out, if they are there.
        #[example = ["metadata.user"]]
        remove: Vec<DottedPath> = Vec::new(),
        /// Values, by path. Objects on the way are made.
        set: Vec<(DottedPath, AnyValue)> = Vec::new(),
    }
}

impl FieldChanges {
    fn is_empty(&self) -> bool {
        self.rename.is_empty() && self.remove.is_empty() && self.set.is_empty()
    }

    fn operations(&self) -> Vec<Operation> {
        let rename = { self.rename.iter() }.map(|(path, to)| Operation::rename(path, to));
        let remove = self.remove.iter().map(Operation::remove);
        let set = self
            .set
            .iter()
            .map(|(path, value)| Operation::set(path, &value.0));
        rename.chain(remove).chain(set).collect()
    }
}

impl Transform {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        if node.entry("request").is_none() && node.entry("response").is_none() {
            let help =
                "add `request` or `response`, for example: request = { remove = [\"user\"] }";
            r.error(node.span, at, "nothing is changed", help);
        }
        self
    }
}

/// Any value JSON has.
#[derive(Clone, Debug, PartialEq)]
pub struct AnyValue(pub Json);

impl FromNode for AnyValue {
    fn read(node: &Node, _: &At<'_>, _: &mut Reading<'_>) -> Option<Self> {
        Some(Self(json_of(node)))
    }

    fn schema() -> Json {
        json!({})
    }

    fn value(&self) -> Json {
        self.0.clone()
    }

    fn example() -> Json {
        json!("value")
    }
}

fn json_of(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::String(text) => json!(text),
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Table(entries) => {
            let entries = { entries.iter() }.map(|(key, value)| (key.text.clone(), json_of(value)));
            Json::Object(entries.collect())
        }
    }
}

impl Builds for Transform {
    const NAME: &'static str = "transform";
    const STAGES: &'static [Stage] = &[Stage::PreRequest, Stage::PreResponse];
    const APART: bool = true;

    fn build(&self, _: &Host) -> Built {
        Arc::new(Transformer {
            request: self.request.operations(),
            response: self.response.operations(),
            needs: Needs {
                request_body: !self.request.is_empty(),
                chunks: false,
                response_body: !self.response.is_empty(),
                ..Needs::default()
            },
        })
    }
}

struct Transformer {
    request: Vec<Operation>,
    response: Vec<Operation>,
    needs: Needs,
}

/// Left for the answer's body: it is JSON and comes whole.
struct Changes;

impl Plugin for Transformer {
    fn needs(&self) -> Needs {
        self.needs
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        if !self.response.is_empty() {
            // What is compressed cannot be changed.
            x.edits.remove_request(ACCEPT_ENCODING);
        }
        self.request(x).into()
    }

    fn pre_response(&self, x: &mut Exchange<'_>, head: &mut ResponseHead<'_>) -> Verdict {
        let is = |name, part: &str| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.is_some_and(|value| value.to_ascii_lowercase().contains(part))
        };
        let encoded =
            head.headers.contains_key(CONTENT_ENCODING) && !is(CONTENT_ENCODING, "identity");
        if !self.response.is_empty() && !head.events && !encoded && is(CONTENT_TYPE, "json") {
            head.headers.remove(CONTENT_LENGTH);
            x.state.put(Changes);
        }
        Ok(())
    }

    fn chunk(&self, state: &mut State, chunk: Bytes, end: bool) -> Result<Bytes, Refusal> {
        if !end || state.get::<Changes>().is_none() {
            return Ok(chunk);
        }
        let text = std::str::from_utf8(&chunk).ok();
        // An answer the paths do not fit is still the answer.
        let changed = text.and_then(|text| edit::apply(&self.response, text).ok()?);
        Ok(changed.map_or(chunk, Bytes::from))
    }
}

impl Transformer {
    fn request(&self, x: &mut Exchange<'_>) -> Verdict {
        if self.request.is_empty() || x.body.is_empty() {
            return Ok(());
        }
        let not_json = || Refusal::invalid("the body is not JSON", None);
        let text = std::str::from_utf8(x.body).map_err(|_| not_json())?;
        match edit::apply(&self.request, text) {
            Ok(None) => Ok(()),
            Ok(Some(changed)) => {
                x.edits.body = Some(changed.into());
                Ok(())
            }
            Err(edit::Misfit::Malformed) => Err(not_json()),
            Err(edit::Misfit::NotObject(path)) => {
                let message = format!("what holds `{path}` must be an object");
                Err(Refusal::invalid(message, Some(&path)))
            }
        }
    }
}
