//! `request_validator`: what a request's JSON must and may hold.
//!
//! It owns four checks, of fields that must be there, of the names that may stand at the top, of numbers' maxima, and of a JSON Schema
//! ([`schema`]), and reports every fault of a request at once. It changes nothing. Only for a schema is a tree of the body built.

mod references;
mod schema;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use http::Method;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, FromText, Node, Quoted, Reading};
use tollgate_sdk::plugin::{
    Builds, Built, Exchange, Host, Needs, Plugin, Refusal, Stage, Step, Verdict,
};

use crate::json::{self, Kind, Malformed};
use crate::path::DottedPath;
use schema::JsonSchema;

document! {
    /// What the JSON of a request must and may hold; another gets 400 with all that is wrong with it. Requests of methods that have no
    /// body pass.
    pub struct RequestValidator (checked) {
        /// Fields that must be there and not null.
        #[example = ["messages", "metadata.user"]]
        required: Vec<DottedPath> = Vec::new(),
        /// The only names that may stand at the top; empty is all.
        #[example = ["model", "messages", "max_tokens"]]
        allowed_parameters: Vec<String> = Vec::new(),
        /// The largest value of numbers, by field; a field that is given must be a number.
        max: Vec<(DottedPath, f64)> = Vec::new(),
        /// A JSON Schema (draft 2020-12) that the body satisfies: as a table, or as `{ file = "path" }` of a file that holds it as JSON. It may
        /// refer to its own parts, and not round in a circle; nothing else is read. An object then has no name twice.
        schema: Option<JsonSchema>,
    }
}

impl RequestValidator {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let fields = ["required", "allowed_parameters", "max", "schema"];
        if fields.iter().all(|name| node.entry(name).is_none()) {
            let help = "for example: required = [\"messages\"], or max = { max_tokens = 4096 }";
            r.error(node.span, at, "nothing is checked", help);
        }
        let first = |path: &DottedPath| path.parts().first().cloned().unwrap_or_default();
        if !self.allowed_parameters.is_empty() {
            let paths = self.required.iter().map(first);
            for missing in paths.filter(|name| !self.allowed_parameters.contains(name)) {
                let message = format!("`{missing}` is required but not among the allowed");
                let given = node.entry("allowed_parameters").unwrap_or(node);
                let help = format!("add {} to it", Quoted(&missing));
                r.error(given.span, &at.field("allowed_parameters"), message, help);
            }
        }
        self
    }
}

impl Builds for RequestValidator {
    const NAME: &'static str = "request_validator";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, _: &Host) -> Built {
        Arc::new(Validator(self.clone()))
    }
}

struct Validator(RequestValidator);

/// What is wrong with a request, and where.
struct Fault {
    field: String,
    message: String,
}

/// As many faults as one answer tells.
const MAX_FAULTS: usize = 10;

impl Plugin for Validator {
    fn needs(&self) -> Needs {
        Needs {
            request_body: true,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        let bodies = [Method::POST, Method::PUT, Method::PATCH];
        if !bodies.contains(x.request.method) && x.body.is_empty() {
            return Step::PASS;
        }
        self.validate(x.body).into()
    }
}

impl Validator {
    fn validate(&self, body: &[u8]) -> Verdict {
        let not_json =
            |at: usize| Refusal::invalid(format!("the body is not JSON, at byte {at}"), None);
        let text = std::str::from_utf8(body).map_err(|error| not_json(error.valid_up_to()))?;
        let faults = self
            .faults(text)
            .map_err(|malformed| not_json(malformed.at))?;
        let Some(first) = faults.first() else {
            return Ok(());
        };
        let told: Vec<_> = faults
            .iter()
            .take(MAX_FAULTS)
            .map(|f| &*f.message)
            .collect();
        Err(Refusal::invalid(told.join("; "), Some(&first.field)))
    }

    fn faults(&self, text: &str) -> Result<Vec<Fault>, Malformed> {
        let document = json::document(text)?;
        let mut faults = Vec::new();
        if json::kind(text, &document) != Kind::Object {
            faults.push(Fault {
                field: String::new(),
                message: "the body must be a JSON object".into(),
            });
            return Ok(faults);
        }
        for path in &self.0.required {
            let places = path.find(text, document.clone())?;
            let given = |place: &std::ops::Range<usize>| text.get(place.clone()) != Some("null");
            if !places.iter().any(given) {
                faults.push(Fault::of(path, "is missing"));
            }
        }
        if !self.0.allowed_parameters.is_empty() {
            for member in json::members(text, document.start)? {
                if !self
                    .0
                    .allowed_parameters
                    .iter()
                    .any(|name| member.key == *name)
                {
                    faults.push(Fault {
                        field: member.key.to_string(),
                        message: format!("the parameter {} is not allowed", Quoted(&member.key)),
                    });
                }
            }
        }
        for (path, most) in &self.0.max {
            for place in path.find(text, document.clone())? {
                faults.extend(exceeds(text.get(place).unwrap_or_default(), path, *most));
            }
        }
        if let Some(schema) = &self.0.schema {
            faults.extend(unfit(text, schema)?);
        }
        Ok(faults)
    }
}

/// What is wrong with a value that has a maximum.
fn exceeds(value: &str, path: &DottedPath, most: f64) -> Option<Fault> {
    if value == "null" {
        return None;
    }
    match value.parse::<f64>() {
        Ok(number) if number <= most => None,
        Ok(_) => Some(Fault::of(path, &format!("is above {most}"))),
        Err(_) => Some(Fault::of(path, "must be a number")),
    }
}

/// What of a body does not fit a schema.
fn unfit(text: &str, schema: &JsonSchema) -> Result<Vec<Fault>, Malformed> {
    let mut names = Names::default();
    json::walk(text, &mut names)?;
    if !names.repeated.is_empty() {
        return Ok(names.repeated);
    }
    match serde_json::from_str(text) {
        Ok(body) => Ok(schema.faults(&body)),
        // What the scanner lets pass: letters of strings, and numbers that are too large for any type.
        Err(error) => Err(Malformed {
            at: offset(text, error.line(), error.column()),
        }),
    }
}

/// The byte at a line and a column, both counted from one, the column in bytes.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before = text.split_inclusive('\n').take(line.saturating_sub(1));
    before.map(str::len).sum::<usize>() + column.saturating_sub(1)
}

/// Looks for names that an object has twice. Of those the tree keeps the last, an upstream perhaps the first.
#[derive(Default)]
struct Names<'a> {
    /// Of the objects around, from the outside in; of an array none.
    seen: Vec<HashSet<Cow<'a, str>>>,
    repeated: Vec<Fault>,
}

impl<'a> Names<'a> {
    fn member(&mut self, path: &[json::Step<'a>]) {
        self.seen.truncate(path.len());
        if let (Some(json::Step::Key(name)), Some(seen)) = (path.last(), self.seen.last_mut())
            && !seen.insert(name.clone())
            && self.repeated.len() < MAX_FAULTS
        {
            let place = path.iter().map(|step| match step {
                json::Step::Key(name) => name.to_string(),
                json::Step::Index(index) => index.to_string(),
            });
            let fault = Fault::at(place.collect(), "is given twice");
            self.repeated.push(fault);
        }
    }
}

impl<'a> json::Visit<'a> for Names<'a> {
    fn enter(&mut self, path: &[json::Step<'a>]) -> bool {
        self.member(path);
        self.seen.push(HashSet::new());
        true
    }

    fn leaf(&mut self, path: &[json::Step<'a>], _: Kind, _: Range<usize>) {
        self.member(path);
    }
}

impl Fault {
    fn of(path: &DottedPath, what: &str) -> Self {
        let field = path.to_text();
        let message = format!("`{field}` {what}");
        Self { field, message }
    }

    /// At the end of these names; of none, the whole body.
    fn at(place: Vec<String>, what: &str) -> Self {
        match DottedPath::new(place) {
            Some(path) => Self::of(&path, what),
            None => Self {
                field: String::new(),
                message: format!("the body {what}"),
            },
        }
    }
}
