//! The pages of `docs/` that are made from the declarations in the code, each compared with what it should be.
//!
//! `make docs` writes them anew. Here is what they share: text for Markdown, and tables of fields.

mod cli;
mod configuration;
mod errors;
mod kinds;
mod metrics;
mod plugins;

use std::fmt::Write;

use tollgate_sdk::document::{Field, Format, Json, json};

use kinds::{kind_of, words_of};

const MADE: &str = "<!-- Made from the declarations in the code by `make docs`; a test fails when it is stale. -->";

/// Text as Markdown that shows it as it is; what stands between backticks is code and stays.
fn prose(text: &str) -> String {
    let mut shown = String::new();
    for (at, part) in text.split('`').enumerate() {
        if at > 0 {
            shown.push('`');
        }
        match at % 2 {
            0 => {
                for c in part.chars() {
                    if matches!(c, '*' | '<' | '>' | '[' | ']') {
                        shown.push('\\');
                    }
                    shown.push(c);
                }
            }
            _ => shown.push_str(part),
        }
    }
    shown
}

/// Text as one cell of a table.
fn cell(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    line.join(" ").replace('|', "\\|")
}

/// The place that a heading is linked by, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    });
    kept.collect()
}

/// A field as it is shown.
#[derive(Clone, PartialEq)]
struct Row {
    name: String,
    doc: String,
    default: String,
    schema: Json,
    /// The fields of its value, if that is or may be a table.
    rows: Vec<Row>,
}

/// What is known of fields, from their declarations.
fn rows_of(fields: &[Field]) -> Vec<Row> {
    let row = |field: &Field| Row {
        name: field.name.to_owned(),
        doc: field.doc.clone(),
        default: default_of(field.required, field.default.as_ref(), &field.fields),
        schema: field.schema.clone(),
        rows: match field.fields.as_slice() {
            [] => rows_in(&field.schema),
            fields => rows_of(fields),
        },
    };
    fields.iter().map(row).collect()
}

/// What is known of the table that a value may be, where only its schema tells: of types that are also written otherwise.
fn rows_in(schema: &Json) -> Vec<Row> {
    let forms = schema["anyOf"]
        .as_array()
        .map_or(std::slice::from_ref(schema), Vec::as_slice);
    let mut tables = forms
        .iter()
        .filter_map(|form| Some((form, form["properties"].as_object()?)));
    // A single field is a tag or a secret's file, which the words above the tables explain.
    let Some((form, properties)) = tables.find(|(_, properties)| properties.len() > 1) else {
        return Vec::new();
    };
    let required = |name: &String| {
        form["required"]
            .as_array()
            .is_some_and(|all| all.contains(&json!(name)))
    };
    let row = |(name, schema): (&String, &Json)| Row {
        name: name.clone(),
        doc: schema["description"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        default: default_of(required(name), schema.get("default"), &[]),
        schema: schema.clone(),
        rows: rows_in(schema),
    };
    properties.iter().map(row).collect()
}

fn default_of(required: bool, default: Option<&Json>, fields: &[Field]) -> String {
    match default {
        _ if required => "must be given".into(),
        None => "none".into(),
        // Each of its fields has its own.
        Some(Json::Object(_)) if !fields.is_empty() => "as below".into(),
        Some(value) => format!("`{}`", Format::Toml.value(value)),
    }
}

/// Tables of fields on one page. A table that several fields have in common is shown once, under the first, and linked from the others.
#[derive(Default)]
struct Tables {
    shown: Vec<(String, Vec<Row>)>,
}

impl Tables {
    /// Writes the table of these fields, and below it one for each of them that has fields itself.
    fn write(&mut self, out: &mut String, path: &str, rows: &[Row]) {
        writeln!(
            out,
            "| field | type | default | meaning |\n|---|---|---|---|"
        )
        .unwrap();
        let mut below = Vec::new();
        for row in rows {
            let mut meaning = prose(&row.doc);
            for (word, means) in words_of(&row.schema) {
                write!(meaning, "<br>`\"{word}\"`: {}", prose(&means)).unwrap();
            }
            if !row.rows.is_empty() {
                let known = self.shown.iter().find(|(_, known)| *known == row.rows);
                let heading = match known {
                    Some((heading, _)) => heading.clone(),
                    None => {
                        let heading = format!("{path}.{}", row.name);
                        self.shown.push((heading.clone(), row.rows.clone()));
                        below.push((heading.clone(), row));
                        heading
                    }
                };
                write!(meaning, " Fields: [`{heading}`](#{}).", anchor(&heading)).unwrap();
            }
            let kind = cell(&kind_of(&row.schema));
            let (name, default, meaning) = (&row.name, cell(&row.default), cell(&meaning));
            writeln!(out, "| `{name}` | {kind} | {default} | {meaning} |").unwrap();
        }
        for (heading, row) in below {
            write!(out, "\n### `{heading}`\n\n").unwrap();
            self.write(out, &heading, &row.rows);
        }
    }
}
