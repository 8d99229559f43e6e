//! `model` of a service: which name it answers to, and where the engine speaks OpenAI's API.

use serde_json::Value;
use tollgate_sdk::document::suggest;

use super::super::fields::{Fields, Notes, found, quoted};

/// A model of a service.
pub(super) struct Model {
    /// Its name.
    pub(super) name: String,
    /// Where the engine's API is, if not at `/v1`: `/openai/v1`.
    pub(super) prefix: Option<String>,
}

pub(super) fn convert(fields: &mut Fields<'_>, notes: &mut Notes) -> Option<Model> {
    let value = fields.given("model", notes)?;
    let path = fields.at("model");
    match value {
        Value::String(name) => {
            let name = named(name, &path, notes)?;
            Some(Model { name, prefix: None })
        }
        Value::Object(table) => of_table(Fields::new(table, path), notes),
        other => {
            let message = format!("expected text or a table, found {}", found(other));
            notes.refused(path, message);
            None
        }
    }
}

fn of_table(mut table: Fields<'_>, notes: &mut Notes) -> Option<Model> {
    let path = table.at("type");
    match table.text("type", notes) {
        Some("chat") => notes.taken(path, "the only type there is"),
        Some(other) => {
            let help = suggest(other, &["chat"], "types");
            notes.refused(path, format!("unknown type; {help}"));
        }
        None => {}
    }
    format(&mut table, notes);
    let name = match table.text("name", notes) {
        Some(name) => named(name, &table.at("name"), notes),
        None => {
            if !table.has("name") {
                notes.refused(table.at("name"), "missing");
            }
            None
        }
    };
    let prefix = prefix(&mut table, notes);
    table.finish(notes);
    Some(Model {
        name: name?,
        prefix,
    })
}

fn format(table: &mut Fields<'_>, notes: &mut Notes) {
    let path = table.at("format");
    let format = table.text("format", notes);
    match format {
        Some("openai") => notes.taken(path, "type = \"openai\""),
        Some("tgi") => {
            let message = "this version does not speak TGI's own API; TGI also speaks OpenAI's: write format: openai";
            notes.refused(path, message);
        }
        Some(other) => {
            let help = suggest(other, &["openai", "tgi"], "formats");
            notes.refused(path, format!("unknown format; {help}"));
        }
        None => {}
    }
    for name in ["chat_template", "eos_token"] {
        if table.text(name, notes).is_some() {
            let path = table.at(name);
            match format {
                Some("tgi") => {
                    notes.warned(path, "needed by format: tgi alone; the engine has its own")
                }
                _ => notes.refused(path, "only for format: tgi"),
            }
        }
    }
}

/// In dstack a star is a star; here a trailing one would be a pattern.
fn named(name: &str, path: &str, notes: &mut Notes) -> Option<String> {
    if name.is_empty() || name.contains('*') || name.chars().any(char::is_control) {
        notes.refused(path, format!("{} is no model's name here", quoted(name)));
        return None;
    }
    notes.taken(path, "`models`");
    Some(name.to_owned())
}

/// A path that ends in a version takes the place of the request's `/v1`, if it is part of a target's URL.
fn prefix(table: &mut Fields<'_>, notes: &mut Notes) -> Option<String> {
    let given = table.text("prefix", notes)?;
    let path = table.at("prefix");
    let prefix = given.trim_end_matches('/');
    let last = prefix.rsplit('/').next().unwrap_or_default();
    let version = last.strip_prefix('v').is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
    });
    let odd = |b: u8| !b.is_ascii_graphic() || matches!(b, b'?' | b'#');
    if prefix == "/v1" {
        notes.taken(path, "where it is here, too");
        return None;
    }
    if !version || !prefix.starts_with('/') || prefix.bytes().any(odd) {
        let message = format!(
            "{}: requests for the model come below \"/v1\", and only a path that ends in a version can take its place, such as \"/openai/v1\"",
            quoted(given)
        );
        notes.refused(path, message);
        return None;
    }
    let message = "a second service and upstream for the model, whose targets have this path";
    notes.adapted(path, message);
    Some(prefix.to_owned())
}
