//! A JSON Schema, draft 2020-12 (json-schema.org/draft/2020-12), as a setting: read, compiled when it is read, applied to bodies.
//!
//! It owns where a schema comes from and what is told of its and of a body's faults; the rules of the language are the boon crate's,
//! whose patterns run in linear time. Nothing is ever loaded. `format` is an annotation, as the draft has it, and is not checked.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use boon::{CompileError, Compiler, Draft, ErrorKind, SchemaIndex, Schemas, UrlLoader};
use boon::{InstanceToken, ValidationError};
use serde_json::{Value as Json, json};
use tollgate_sdk::document::{At, FromNode, Node, Quoted, Reading, Value};

use super::references::{self, Flaw};
use super::{Fault, MAX_FAULTS};

/// What the schema is called inside the compiler.
const NAME: &str = "tollgate:///schema";
/// As many allowed values as a message names.
const MAX_NAMED: usize = 8;

/// A schema that has been found to be one.
#[derive(Clone)]
pub struct JsonSchema {
    /// As it stands in the document.
    written: Json,
    /// Itself, which may have come from a file.
    schema: Json,
    compiled: Arc<Compiled>,
}

struct Compiled {
    schemas: Schemas,
    root: SchemaIndex,
}

/// Reads nothing.
struct Nothing;

impl UrlLoader for Nothing {
    fn load(&self, _: &str) -> Result<Json, Box<dyn Error>> {
        Err("nothing outside the schema is read".into())
    }
}

impl JsonSchema {
    /// What of a body does not hold, the first [`MAX_FAULTS`].
    pub(super) fn faults(&self, body: &Json) -> Vec<Fault> {
        let mut faults = Vec::new();
        let Compiled { schemas, root } = &*self.compiled;
        if let Err(error) = schemas.validate(body, *root) {
            collect(&error, &mut |at, message| {
                faults.push(Fault::at(at, &message));
                faults.len() < MAX_FAULTS
            });
        }
        faults
    }

    /// Compiles a schema.
    fn compile(schema: &Json) -> Result<Compiled, Vec<Flaw>> {
        let flaws = references::check(schema);
        if !flaws.is_empty() {
            return Err(flaws);
        }
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.use_loader(Box::new(Nothing));
        let mut schemas = Schemas::new();
        { compiler.add_resource(NAME, schema.clone()) }.map_err(|error| flaws_of(&error))?;
        let root = compiler.compile(NAME, &mut schemas);
        let root = root.map_err(|error| flaws_of(&error))?;
        Ok(Compiled { schemas, root })
    }
}

/// What the compiler says, by place.
fn flaws_of(error: &CompileError) -> Vec<Flaw> {
    let flaw = |place, message| Flaw {
        place,
        message,
        help: None,
    };
    match error {
        CompileError::ValidationError { src, .. } => {
            let mut flaws = Vec::new();
            collect(src, &mut |place, message| {
                flaws.push(flaw(place, message));
                flaws.len() < MAX_FAULTS
            });
            flaws
        }
        CompileError::InvalidRegex { url, regex, .. } => {
            let message = format!("{} is not a regular expression", Quoted(regex));
            let help =
                "patterns cannot look around or repeat a group: they must run in linear time";
            vec![Flaw {
                place: place_of(url),
                message,
                help: Some(help.into()),
            }]
        }
        CompileError::JsonPointerNotFound(url) | CompileError::InvalidJsonPointer(url) => {
            let pointer = url.split_once('#').map_or("", |(_, pointer)| pointer);
            let message = format!("\"#{pointer}\" is referred to, and is no part of the schema");
            vec![flaw(Vec::new(), message)]
        }
        other => {
            let message = other.to_string().replace(NAME, "the schema");
            vec![flaw(Vec::new(), message)]
        }
    }
}

/// The names and indexes of a URL's pointer.
fn place_of(url: &str) -> Vec<String> {
    let pointer = url.split_once('#').map_or("", |(_, pointer)| pointer);
    let parts = pointer.split('/').skip(1);
    let part = |part: &str| {
        let part = percent_encoding::percent_decode_str(part).decode_utf8_lossy();
        part.replace("~1", "/").replace("~0", "~")
    };
    parts.map(part).collect()
}

/// Tells of every fault that has no finer reason, and of where it is, until told to stop; whether it was not.
fn collect(
    error: &ValidationError<'_, '_>,
    tell: &mut impl FnMut(Vec<String>, String) -> bool,
) -> bool {
    let place = { error.instance_location.tokens.iter() }.map(|token| match token {
        InstanceToken::Prop(name) => name.to_string(),
        InstanceToken::Item(index) => index.to_string(),
    });
    let place: Vec<_> = place.collect();
    let below = |name: &str| {
        let mut place = place.clone();
        place.push(name.to_owned());
        place
    };
    match &error.kind {
        ErrorKind::Group
        | ErrorKind::Schema { .. }
        | ErrorKind::Reference { .. }
        | ErrorKind::AllOf
            if !error.causes.is_empty() =>
        {
            error.causes.iter().all(|cause| collect(cause, tell))
        }
        ErrorKind::Required { want } => {
            { want.iter() }.all(|name| tell(below(name), "is missing".into()))
        }
        ErrorKind::Dependency { missing, .. } | ErrorKind::DependentRequired { missing, .. } => {
            { missing.iter() }.all(|name| tell(below(name), "is missing".into()))
        }
        ErrorKind::AdditionalProperties { got } => {
            { got.iter() }.all(|name| tell(below(name), "is not allowed".into()))
        }
        kind => tell(place, message(kind)),
    }
}

/// What is wrong with one value. It repeats what the schema says, and nothing of the value.
fn message(kind: &ErrorKind<'_, '_>) -> String {
    match kind {
        ErrorKind::Type { want, .. } => {
            let want: Vec<_> = want.iter().map(|kind| kind.to_string()).collect();
            format!("must be of type {}", want.join(" or "))
        }
        ErrorKind::Enum { want } if want.len() <= MAX_NAMED => {
            let want: Vec<_> = want.iter().map(Json::to_string).collect();
            format!("must be one of {}", want.join(", "))
        }
        ErrorKind::Enum { .. } => "is none of the allowed values".into(),
        ErrorKind::Const { want } => format!("must be {want}"),
        ErrorKind::FalseSchema => "is not allowed".into(),
        ErrorKind::Minimum { want, .. } => format!("is below {want}"),
        ErrorKind::Maximum { want, .. } => format!("is above {want}"),
        ErrorKind::ExclusiveMinimum { want, .. } => format!("must be above {want}"),
        ErrorKind::ExclusiveMaximum { want, .. } => format!("must be below {want}"),
        ErrorKind::MultipleOf { want, .. } => format!("must be a multiple of {want}"),
        ErrorKind::MinLength { want, .. } => format!("has fewer than {want} characters"),
        ErrorKind::MaxLength { want, .. } => format!("has more than {want} characters"),
        ErrorKind::Pattern { want, .. } => format!("does not match {}", Quoted(want)),
        ErrorKind::MinItems { want, .. } => format!("has fewer than {want} elements"),
        ErrorKind::MaxItems { want, .. } => format!("has more than {want} elements"),
        ErrorKind::MinProperties { want, .. } => format!("has fewer than {want} members"),
        ErrorKind::MaxProperties { want, .. } => format!("has more than {want} members"),
        ErrorKind::UniqueItems { got: [a, b] } => format!("has the same elements at {a} and {b}"),
        ErrorKind::AnyOf => "fits none of the schemas of `anyOf`".into(),
        ErrorKind::OneOf(None) => "fits none of the schemas of `oneOf`".into(),
        ErrorKind::OneOf(Some(_)) => "fits more than one of the schemas of `oneOf`".into(),
        other => match other.keyword_path() {
            Some(path) => format!("does not satisfy `{}`", path.keyword),
            None => "does not satisfy the schema".into(),
        },
    }
}

impl FromNode for JsonSchema {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        let file = node.entry("file").filter(|file| {
            file.as_str().is_some() && node.as_table().is_some_and(|fields| fields.len() == 1)
        });
        let (schema, inline) = match (file, &node.value) {
            (Some(file), _) => (from_file(file, &at.field("file"), r)?, None),
            (None, Value::Table(_)) => (plain(node), Some(node)),
            _ => {
                r.expected(node, at, "a JSON Schema", &Self::example());
                return None;
            }
        };
        match Self::compile(&schema) {
            Ok(compiled) => Some(Self {
                written: plain(node),
                schema,
                compiled: Arc::new(compiled),
            }),
            Err(flaws) => {
                for flaw in flaws {
                    match (inline, file) {
                        (None, Some(file)) => {
                            let place = flaw.place.join("/");
                            let message = format!("the schema, at \"/{place}\": {}", flaw.message);
                            r.error(file.span, &at.field("file"), message, flaw.help);
                        }
                        _ => report(node, at, &flaw.place, &flaw, r),
                    }
                }
                None
            }
        }
    }

    fn schema() -> Json {
        json!({"type": "object"})
    }

    fn value(&self) -> Json {
        self.written.clone()
    }

    fn example() -> Json {
        json!({"properties": {"n": {"maximum": 1}}})
    }
}

/// The schema that a file holds as JSON.
fn from_file(file: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Json> {
    let read = r.file(file.as_str()?).and_then(|text| {
        serde_json::from_str(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("the file is not JSON, at line {line}, column {column}")
        })
    });
    match read {
        Ok(schema @ (Json::Object(_) | Json::Bool(_))) => Some(schema),
        Ok(_) => {
            r.error(
                file.span,
                at,
                "the file holds no JSON Schema",
                "it holds an object",
            );
            None
        }
        Err(error) => {
            r.error(file.span, at, error, ());
            None
        }
    }
}

/// Reports a flaw at the part of the document where it is.
fn report(node: &Node, at: &At<'_>, place: &[String], flaw: &Flaw, r: &mut Reading<'_>) {
    if let Some((name, rest)) = place.split_first() {
        if let Some(part) = node.entry(name) {
            return report(part, &at.field(name), rest, flaw, r);
        }
        let index = name.parse::<usize>().ok();
        let item = index.and_then(|index| Some((index, node.as_list()?.get(index)?)));
        if let Some((index, item)) = item {
            return report(item, &at.index(index), rest, flaw, r);
        }
        return r.error(
            node.span,
            &at.field(name),
            flaw.message.clone(),
            flaw.help.clone(),
        );
    }
    r.error(node.span, at, flaw.message.clone(), flaw.help.clone());
}

/// A part of a document as JSON.
fn plain(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::String(value) => value.clone().into(),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Table(entries) => {
            let entries = entries
                .iter()
                .map(|(key, node)| (key.text.clone(), plain(node)));
            Json::Object(entries.collect())
        }
    }
}

impl PartialEq for JsonSchema {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written && self.schema == other.schema
    }
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JsonSchema").field(&self.schema).finish()
    }
}
