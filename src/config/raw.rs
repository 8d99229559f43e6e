//! What was typed: text to a tree with the place of every value, for each of the formats.
//!
//! Nothing is known here about what a configuration means. A text with a mistake in its syntax gives problems only.

use std::ops::Range;

use tollgate_sdk::document::{At, Format, Key, Node, Reading, Span, Value};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Error};

use super::diagnostic::line_and_column;
use super::masking::is_secret_name;
use super::yaml;

/// Reads a text; `None` if its syntax is wrong, with the problems in `r`.
pub fn read(text: &str, format: Format, r: &mut Reading<'_>) -> Option<Node> {
    match format {
        Format::Toml => read_toml(text, r),
        Format::Yaml => yaml::read(text, r),
        Format::Json => read_json(text, r),
    }
}

/// JSON has a stricter syntax than the YAML it is a part of, and its own words for what is wrong.
fn read_json(text: &str, r: &mut Reading<'_>) -> Option<Node> {
    if !text.trim().is_empty()
        && let Err(error) = serde_json::from_str::<serde_json::Value>(text)
    {
        let line: usize = text
            .split_inclusive('\n')
            .take(error.line().saturating_sub(1))
            .map(str::len)
            .sum();
        let at = (line + error.column().saturating_sub(1)).min(text.len());
        let message = error.to_string();
        let message = message
            .split(" at line ")
            .next()
            .unwrap_or("not JSON")
            .to_owned();
        r.error(Span::new(at, at), &At::ROOT, message, ());
        return None;
    }
    yaml::read(text, r)
}

fn read_toml(text: &str, r: &mut Reading<'_>) -> Option<Node> {
    let (table, mut errors) = DeTable::parse_recoverable(text);
    let place_of = |error: &Error| error.span().unwrap_or(text.len()..text.len());
    errors.sort_by_key(|error| place_of(error).start);
    // The parser goes on after a mistake, and may stumble again over what the first left behind.
    let mut told = Vec::new();
    for error in &errors {
        let place = place_of(error);
        let line = line_and_column(text, place.start).0;
        if !told.contains(&line) {
            report(error, place, text, r);
        }
        told.push(line);
        if error.message().contains("array") {
            break;
        }
    }
    let whole = Span::new(0, 0);
    errors
        .is_empty()
        .then(|| Node::new(whole, table_of(table.get_ref())))
}

fn report(error: &Error, place: Range<usize>, text: &str, r: &mut Reading<'_>) {
    let (message, expected) = match error.message().split_once(", expected ") {
        Some((message, expected)) => (message, Some(format!("expected here: {expected}"))),
        None => (error.message(), None),
    };
    let help = advice(text, place.start, message).or(expected);
    r.error(span_of(place), &At::ROOT, message, help);
}

/// What to write instead, for what people most often mistype.
fn advice(text: &str, at: usize, message: &str) -> Option<String> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(start..)?.lines().next()?.trim();
    if message.contains("array") {
        let open =
            |(_, line): &(usize, &str)| line.matches('[').count() > line.matches(']').count();
        let (number, _) = text.get(..start)?.lines().enumerate().filter(open).last()?;
        return Some(format!(
            "the list that begins in line {} may lack its ]",
            number + 1
        ));
    }
    if message == "duplicate key" {
        return Some("keep one; for another resource begin another [[table]]".into());
    }
    let Some((name, value)) = line.split_once('=') else {
        let is_yaml = line.contains(':') && !line.starts_with(['[', '"']);
        return is_yaml
            .then(|| "TOML writes `name = value`; a YAML file must be named .yaml".into());
    };
    if !message.contains("must be quoted") {
        return None;
    }
    let value = value.split('#').next().unwrap_or_default().trim();
    let plain =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '*' | '@');
    // Values of secrets are shown nowhere.
    Some(match value.chars().all(plain) && !is_secret_name(name) {
        true => format!("write it in quotes: {} = \"{value}\"", name.trim()),
        false => "write it in quotes".into(),
    })
}

fn table_of(table: &DeTable<'_>) -> Value {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| {
            let key = Key {
                span: span_of(key.span()),
                text: key.get_ref().to_string(),
            };
            (key, node_of(value))
        })
        .collect();
    entries.sort_by_key(|(key, _)| key.span.start);
    Value::Table(entries)
}

fn list_of(array: &DeArray<'_>) -> Value {
    Value::List(array.iter().map(node_of).collect())
}

fn node_of(value: &Spanned<DeValue<'_>>) -> Node {
    let read = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Int(number),
            // Too large for a whole number: let the field that wants one refuse it.
            Err(_) => Value::Float(number.as_str().parse().unwrap_or(f64::INFINITY)),
        },
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(items) => list_of(items),
        DeValue::Table(table) => table_of(table),
    };
    Node::new(span_of(value.span()), read)
}

fn span_of(range: Range<usize>) -> Span {
    Span::new(range.start, range.end)
}
