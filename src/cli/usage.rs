//! `tollgate usage`: what was used.

use std::process::ExitCode;

use axum::http::Method;
use clap::ValueEnum;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::ending::{Ended, end};
use super::remote::Remote;
use super::table::columns_within;
use super::terminal::{say, width};

/// What each row says, and under which head.
const FIELDS: [(&str, &str); 6] = [
    ("requests", "REQUESTS"),
    ("errors", "ERRORS"),
    ("input_tokens", "INPUT"),
    ("cached_tokens", "CACHED"),
    ("output_tokens", "OUTPUT"),
    ("cost", "COST"),
];

#[derive(clap::Args)]
pub(super) struct Asked {
    /// What is a row.
    #[arg(long, default_value = "key")]
    by: By,
    /// From when on: so long ago (24h, 30d), or a time (2031-01-01T00:00:00Z).
    #[arg(long, default_value = "24h", value_name = "WHEN")]
    since: String,
    /// Until when: like --since. Without a word, until now.
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Only this gateway's.
    #[arg(long)]
    gateway: Option<String>,
    /// Only this key's.
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    remote: Remote,
    /// How it is shown.
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    Key,
    Model,
    Service,
    Gateway,
    Day,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For spreadsheets (RFC 4180).
    Csv,
    /// For programs.
    Json,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            By::Key => "key",
            By::Model => "model",
            By::Service => "service",
            By::Gateway => "gateway",
            By::Day => "day",
        }
    }
}

pub(super) fn run(asked: &Asked) -> ExitCode {
    end(show(asked))
}

fn show(asked: &Asked) -> Result<(), Ended> {
    let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut path = format!(
        "/v1/usage?by={}&since={}",
        asked.by.name(),
        escaped(&asked.since)
    );
    let others = [
        ("until", &asked.until),
        ("gateway", &asked.gateway),
        ("key", &asked.key),
    ];
    for (name, value) in others {
        if let Some(value) = value {
            path += &format!("&{name}={}", escaped(value));
        }
    }
    let answer = asked.remote.ask(Method::GET, &path, None)?;
    let items = answer.get("items").cloned().unwrap_or_default();
    let rows = items.as_array().into_iter().flatten();
    say(&match asked.output {
        Output::Json => format!("{items:#}\n"),
        Output::Csv => csv(asked.by, rows),
        Output::Table => table(asked.by, rows),
    })
}

fn table<'r>(by: By, rows: impl Iterator<Item = &'r Value>) -> String {
    let group = by.name().to_uppercase();
    let heads = FIELDS.map(|(_, head)| head);
    let mut head = vec![group.as_str()];
    head.extend(heads);
    let rows: Vec<Vec<String>> = rows
        .map(|row| {
            let name = row.get("name").and_then(Value::as_str).unwrap_or_default();
            let name = if name.is_empty() { "(none)" } else { name };
            let cells = FIELDS.iter().map(|(field, _)| cell(row, field));
            std::iter::once(name.to_owned()).chain(cells).collect()
        })
        .collect();
    columns_within(&head, &heads, &rows, width())
}

fn cell(row: &Value, field: &str) -> String {
    match (row.get(field), field) {
        (Some(cost), "cost") => format!("{:.4}", cost.as_f64().unwrap_or(0.0)),
        (Some(value), _) => value.to_string(),
        (None, _) => "-".to_owned(),
    }
}

fn csv<'r>(by: By, rows: impl Iterator<Item = &'r Value>) -> String {
    let fields = FIELDS.map(|(field, _)| field);
    let mut text = format!("{},{}\r\n", by.name(), fields.join(","));
    for row in rows {
        let name = row.get("name").and_then(Value::as_str).unwrap_or_default();
        text += &quoted(name);
        for field in fields {
            text.push(',');
            text += &row.get(field).map_or(String::new(), Value::to_string);
        }
        text += "\r\n";
    }
    text
}

/// A field as RFC 4180 wants it. What a spreadsheet would take for a formula is kept a text: names come from clients.
fn quoted(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = match formula {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_text() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("=1+1"), "'=1+1");
    }
}
