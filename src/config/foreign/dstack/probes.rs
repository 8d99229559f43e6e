//! `probes` of a service: the health check of its upstream.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tollgate_sdk::document::suggest;

use super::super::fields::{Fields, Notes, quoted};
use super::quantity::{duration, seconds};

const METHODS: [&str; 6] = ["get", "post", "put", "delete", "patch", "head"];
/// dstack counts any of these; a native check lists them.
const GOOD: [u16; 10] = [200, 201, 202, 203, 204, 205, 206, 207, 208, 226];

/// Native `health`; `None` leaves its default. `has_model` is whether dstack would ask by itself.
pub(super) fn convert(
    fields: &mut Fields<'_>,
    env: &BTreeMap<String, String>,
    has_model: bool,
    notes: &mut Notes,
) -> Option<Value> {
    let path = fields.at("probes");
    let Some(probes) = fields.list("probes", notes) else {
        if !fields.has("probes") && has_model {
            let message = "health = \"tcp\", every 5s; dstack would ask the model for a token";
            notes.assumed(path, message);
        }
        return None;
    };
    if probes.is_empty() {
        notes.taken(path, "health = \"off\"");
        return Some(json!("off"));
    }
    let mut health = None;
    for (index, probe) in probes.iter().enumerate() {
        let at = format!("{path}[{index}]");
        if index > 0 {
            notes.refused(
                at,
                "an upstream is asked one thing: keep the probe that tells most",
            );
        } else if let Some(table) = Fields::of(probe, &at, notes) {
            health = Some(one(table, env, notes).into());
        }
    }
    health
}

fn one(
    mut table: Fields<'_>,
    env: &BTreeMap<String, String>,
    notes: &mut Notes,
) -> Map<String, Value> {
    let mut health = Map::new();
    health.insert("type".into(), json!("http"));
    match table.text("type", notes) {
        Some("http") => notes.taken(table.at("type"), "`health.type`"),
        Some(other) => {
            let help = suggest(other, &["http"], "types");
            notes.refused(table.at("type"), format!("unknown type; {help}"));
        }
        None if !table.has("type") => notes.refused(table.at("type"), "missing; known types: http"),
        None => {}
    }
    request(&mut table, env, &mut health, notes);
    times(&mut table, &mut health, notes);
    health.insert("expect".into(), json!(GOOD));
    let message = "any 2xx is good, as it was; one that fails twice gets no requests until it answers again (dstack would go on sending)";
    notes.assumed(table.path(), message);
    table.finish(notes);
    health
}

/// What is asked.
fn request(
    table: &mut Fields<'_>,
    env: &BTreeMap<String, String>,
    health: &mut Map<String, Value>,
    notes: &mut Notes,
) {
    let path = |url: &str| {
        let odd = |b: u8| !b.is_ascii_graphic() || b == b'#';
        match url.starts_with('/') && url.len() <= 2048 && !url.bytes().any(odd) {
            true => Ok(()),
            false => Err("begin with a slash, in at most 2048 printable characters of ASCII"),
        }
    };
    match filled(table, "url", env, path, notes) {
        Some(url) => health.insert("path".into(), json!(url)),
        None => health.insert("path".into(), json!("/")),
    };
    let method = table.text("method", notes);
    if let Some(method) = method {
        let path = table.at("method");
        match METHODS
            .iter()
            .find(|known| known.eq_ignore_ascii_case(method))
        {
            Some(known) => {
                notes.taken(path, "`health.method`");
                health.insert("method".into(), json!(known.to_ascii_uppercase()));
            }
            None => notes.refused(
                path,
                format!("unknown method; {}", suggest(method, &METHODS, "methods")),
            ),
        }
    }
    let bodiless = method.is_none_or(|method| {
        ["get", "head"]
            .iter()
            .any(|none| none.eq_ignore_ascii_case(method))
    });
    let fits = |body: &str| match body.len() {
        _ if bodiless => Err("a GET or HEAD has no body: write method: post"),
        1..=2048 => Ok(()),
        _ => Err("a body of 1 to 2048 bytes"),
    };
    if let Some(body) = filled(table, "body", env, fits, notes) {
        health.insert("body".into(), json!(body));
    }
    let headers = headers(table, env, notes);
    if !headers.is_empty() {
        health.insert("headers".into(), headers.into());
    }
}

/// A text with the variables of `env` filled in; the note does not show it, since they may be secrets.
fn filled(
    table: &mut Fields<'_>,
    name: &'static str,
    env: &BTreeMap<String, String>,
    fits: impl Fn(&str) -> Result<(), &'static str>,
    notes: &mut Notes,
) -> Option<String> {
    let given = table.text(name, notes)?;
    let path = table.at(name);
    let native = match name {
        "url" => "`health.path`",
        "body" => "`health.body`",
        _ => "a header of the check",
    };
    match fill(given, env).and_then(|text| fits(&text).map(|()| text).map_err(str::to_owned)) {
        Ok(text) if text == given => {
            notes.taken(path, native);
            Some(text)
        }
        Ok(text) => {
            notes.adapted(path, format!("{native}, filled in from `env`"));
            Some(text)
        }
        Err(message) => {
            notes.refused(path, message);
            None
        }
    }
}

fn fill(given: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = given;
    while let Some((before, after)) = rest.split_once("${{") {
        let (variable, after) = after
            .split_once("}}")
            .ok_or("a variable is not closed by }}")?;
        let variable = variable.trim();
        let value = variable.strip_prefix("env.").and_then(|name| env.get(name));
        let value = value.ok_or_else(|| {
            format!(
                "the value of {} is not in the document's `env`: write it there",
                quoted(variable)
            )
        })?;
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn headers(
    table: &mut Fields<'_>,
    env: &BTreeMap<String, String>,
    notes: &mut Notes,
) -> Map<String, Value> {
    let path = table.at("headers");
    let mut headers = Map::new();
    let list = table.list("headers", notes).unwrap_or_default();
    for (index, item) in list.iter().enumerate() {
        let Some(mut header) = Fields::of(item, &format!("{path}[{index}]"), notes) else {
            continue;
        };
        let name = header.text("name", notes);
        let fits = |value: &str| match http::HeaderValue::try_from(value) {
            Ok(_) => Ok(()),
            Err(_) => Err("not the value of a header"),
        };
        let value = filled(&mut header, "value", env, fits, notes);
        let at = header.at("name");
        match name {
            Some(name) if http::HeaderName::try_from(name).is_err() => {
                notes.refused(at, "not the name of a header");
            }
            Some(name) => match value {
                _ if headers
                    .keys()
                    .any(|known: &String| known.eq_ignore_ascii_case(name)) =>
                {
                    notes.refused(at, "given twice: a check sends each header once");
                }
                Some(value) => {
                    notes.taken(at, "`health.headers`");
                    headers.insert(name.to_owned(), json!(value));
                }
                None if !header.has("value") => notes.refused(header.at("value"), "missing"),
                None => {}
            },
            None if !header.has("name") => notes.refused(at, "missing"),
            None => {}
        }
        header.finish(notes);
    }
    headers
}

/// How often it is asked, and what of it counts.
fn times(table: &mut Fields<'_>, health: &mut Map<String, Value>, notes: &mut Notes) {
    let mut time = |name: &'static str, default: u64| {
        let value = table.given(name, notes);
        let path = table.at(name);
        match value.map(seconds) {
            Some(Some(time)) if time >= 1 => {
                notes.taken(path, format!("`health.{name}`"));
                time
            }
            Some(_) => {
                notes.refused(
                    path,
                    "not a duration of at least 1s: for example 10, \"10s\" or \"1m\"",
                );
                default
            }
            None => {
                notes.assumed(
                    path,
                    format!("`health.{name}` = \"{default}s\", dstack's default"),
                );
                default
            }
        }
    };
    let (timeout, interval) = (time("timeout", 10), time("interval", 15));
    if timeout > interval {
        let message = format!(
            "`health.interval` = {}: it is counted from question to question here, not from the last answer",
            quoted(&duration(timeout))
        );
        notes.adapted(table.at("interval"), message);
    }
    health.insert("timeout".into(), json!(duration(timeout)));
    health.insert("interval".into(), json!(duration(interval.max(timeout))));
    match table.whole("ready_after", notes) {
        Some(after @ 1..=1000) => {
            let message = "`health.healthy_after`: so many good answers in a row also bring back a replica that was out, after two bad ones";
            notes.adapted(table.at("ready_after"), message);
            health.insert("healthy_after".into(), json!(after));
        }
        Some(_) => notes.refused(table.at("ready_after"), "out of range: from 1 to 1000"),
        None => {}
    }
    if let Some(until) = table.flag("until_ready", notes) {
        let path = table.at("until_ready");
        match until {
            true => notes.warned(
                path,
                "it is asked on after it is ready, so that one that fails gets no requests",
            ),
            false => notes.taken(path, "as it is here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_from_the_document() {
        let env = BTreeMap::from([("A".to_owned(), "x".to_owned())]);
        assert_eq!(fill("b", &env).as_deref(), Ok("b"));
        assert_eq!(
            fill("Bearer ${{ env.A }}!${{env.A}}", &env).as_deref(),
            Ok("Bearer x!x")
        );
        for text in ["${{ env.B }}", "${{ run.A }}", "${{ env.A"] {
            assert!(fill(text, &env).is_err(), "{text}");
        }
    }
}
