//! `rate_limits` of a service: the same here.

use serde_json::{Map, Value, json};
use tollgate_sdk::document::suggest;

use super::super::fields::{Fields, Notes, quoted};

/// The native list; empty if there is none.
pub(super) fn convert(fields: &mut Fields<'_>, notes: &mut Notes) -> Vec<Value> {
    let mut limits: Vec<Value> = Vec::new();
    let path = fields.at("rate_limits");
    for (index, item) in { fields.list("rate_limits", notes) }
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let Some(table) = Fields::of(item, &format!("{path}[{index}]"), notes) else {
            continue;
        };
        let at = table.at("prefix");
        let Some(limit) = one(table, notes) else {
            continue;
        };
        if limits
            .iter()
            .any(|other| other.get("prefix") == limit.get("prefix"))
        {
            notes.refused(at, "there is already a limit for this prefix");
        }
        limits.push(limit.into());
    }
    limits
}

fn one(mut table: Fields<'_>, notes: &mut Notes) -> Option<Map<String, Value>> {
    let mut limit = Map::new();
    limit.insert("prefix".into(), prefix(&mut table, notes).into());
    limit.insert("key".into(), key(&mut table, notes));
    let rps = table.number("rps", notes);
    match rps.and_then(|rps| rps.as_f64()) {
        Some(number) if (1.0 / 60.0..=1e9).contains(&number) => {
            notes.taken(table.at("rps"), "`rps`");
            limit.insert("rps".into(), json!(number));
        }
        Some(_) => notes.refused(
            table.at("rps"),
            "out of range: from 1/60, one a minute, to 1000000000",
        ),
        None if !table.has("rps") => {
            notes.refused(table.at("rps"), "missing: how many requests a second")
        }
        None => {}
    }
    match table.whole("burst", notes) {
        Some(burst @ 0..=1_000_000) => {
            notes.taken(table.at("burst"), "`burst`");
            limit.insert("burst".into(), json!(burst));
        }
        Some(_) => notes.refused(table.at("burst"), "out of range: from 0 to 1000000"),
        None => {}
    }
    table.finish(notes);
    limit.contains_key("rps").then_some(limit)
}

fn prefix<'d>(table: &mut Fields<'d>, notes: &mut Notes) -> &'d str {
    let Some(prefix) = table.text("prefix", notes) else {
        return "/";
    };
    let path = table.at("prefix");
    let odd = |c: char| c.is_whitespace() || matches!(c, '\\' | '{' | '}');
    if !prefix.starts_with('/') || prefix.len() > 4094 || prefix.contains(odd) {
        let message = format!(
            "{}: a prefix begins with a slash and has neither spaces nor any of \\ {{ }}",
            quoted(prefix)
        );
        notes.refused(path, message);
        return "/";
    }
    notes.taken(path, "`prefix`");
    prefix
}

fn key(table: &mut Fields<'_>, notes: &mut Notes) -> Value {
    let ip = json!("ip");
    let Some(mut table) = table.table("key", notes) else {
        return ip;
    };
    let path = table.at("type");
    let key = match table.text("type", notes) {
        Some("ip_address") => {
            notes.taken(path, "key = \"ip\"");
            ip
        }
        Some("header") => {
            notes.taken(path, "key = { header = … }");
            header(&mut table, notes).map_or(ip, |header| json!({"header": header}))
        }
        Some(other) => {
            let help = suggest(other, &["ip_address", "header"], "keys");
            notes.refused(path, format!("unknown key; {help}"));
            ip
        }
        None if !table.has("type") => {
            notes.refused(path, "missing; known keys: ip_address, header");
            ip
        }
        None => ip,
    };
    table.finish(notes);
    key
}

fn header<'d>(table: &mut Fields<'d>, notes: &mut Notes) -> Option<&'d str> {
    let header = table.text("header", notes);
    let path = table.at("header");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match header {
        Some(name) if !name.is_empty() && name.len() <= 500 && name.chars().all(plain) => {
            notes.taken(path, "`header`");
            Some(name)
        }
        Some(_) => {
            notes.refused(path, "not the name of a header: letters, digits, - and _");
            None
        }
        None => {
            if !table.has("header") {
                notes.refused(path, "missing: which header");
            }
            None
        }
    }
}
