//! Settings of plugins that both sides have, where they are written differently or mean something that is not to be had here.
//!
//! All that is not named here is the same, or is refused when the plugin reads it.

use serde_json::{Map, Value, json};

use super::duration;
use super::fields::{Body, Report, join};

/// The settings as the native plugin reads them.
pub(super) fn adapt(
    plugin: &str,
    given: &Map<String, Value>,
    path: &str,
    report: &mut Report,
) -> Body {
    let mut settings = without_nulls(given, path, report);
    match plugin {
        "rate_limiter" => {
            windows(&mut settings, path, report);
            limits_as_told(&settings, path, report);
        }
        "token_rate_limiter" => report.assumed(
            path,
            "tokens come back evenly, not at each whole minute; clients are told in `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, times in seconds, and not in X-Tokens-Consumed",
        ),
        "external_api" => go_duration(&mut settings, "timeout", path, report),
        "cors" => go_duration(&mut settings, "max_age", path, report),
        "data_masking" => masking(&mut settings, path, report),
        "prompt_moderation" => {
            let keywords = not_empty(&settings, "keywords");
            likeness(&mut settings, keywords, path, report);
        }
        "ip_whitelist" => report.assumed(
            path,
            "the client is who connects; X-Forwarded-For is believed only of `server.trusted_proxies`, and X-Real-IP of nobody",
        ),
        _ => {}
    }
    for name in settings.keys() {
        report.taken(&join(path, name), format!("`{name}`"));
    }
    settings
}

/// A file has no null, and it says no more than nothing.
fn without_nulls(given: &Map<String, Value>, path: &str, report: &mut Report) -> Body {
    let mut kept = Body::new();
    for (name, value) in given {
        let at = join(path, name);
        match value {
            Value::Null => report.taken(&at, "null is the default"),
            Value::Object(inner) => {
                kept.insert(name.clone(), without_nulls(inner, &at, report).into());
            }
            Value::Array(items) => {
                let item = |(index, item): (usize, &Value)| match item {
                    Value::Null => {
                        report.refused(&format!("{at}[{index}]"), "null is no value; take it out");
                        None
                    }
                    Value::Object(inner) => {
                        let at = format!("{at}[{index}]");
                        Some(without_nulls(inner, &at, report).into())
                    }
                    other => Some(other.clone()),
                };
                let items: Vec<Value> = items.iter().enumerate().filter_map(item).collect();
                kept.insert(name.clone(), items.into());
            }
            other => {
                kept.insert(name.clone(), other.clone());
            }
        }
    }
    kept
}

fn not_empty(settings: &Body, name: &str) -> bool {
    let list = settings.get(name).and_then(Value::as_array);
    list.is_some_and(|items| !items.is_empty())
}

/// Writes a duration of Go's anew; what is none is left for the plugin to refuse.
fn go_duration(settings: &mut Body, name: &str, path: &str, report: &mut Report) {
    let Some(Value::String(text)) = settings.get_mut(name) else {
        return;
    };
    if let Some(native) = duration::native(text)
        && native != *text
    {
        report.adapted(&join(path, name), format!("written `{native}` here"));
        *text = native;
    }
}

fn windows(settings: &mut Body, path: &str, report: &mut Report) {
    let path = join(path, "limits");
    if let Some(Value::Object(limits)) = settings.get_mut("limits") {
        for (name, limit) in limits {
            if let Value::Object(limit) = limit {
                go_duration(limit, "window", &join(&path, name), report);
            }
        }
    }
}

/// What clients see otherwise than they did.
fn limits_as_told(settings: &Body, path: &str, report: &mut Report) {
    let path = join(path, "limits");
    let Some(limits) = settings.get("limits") else {
        return;
    };
    report.assumed(
        &path,
        "clients are told in `x-ratelimit-{limit,remaining,reset}-requests` of the limit that is nearest, not in X-RateLimit-<type>-…; a request that one limit refuses counts for none",
    );
    if limits.get("per_fingerprint").is_some() {
        report.warned(
            &join(&path, "per_fingerprint"),
            "a fingerprint is what the header `X-Fingerprint` says; a request without it is not counted here",
        );
    }
}

/// What is like a keyword without being it is not found here.
fn likeness(settings: &mut Body, keywords: bool, path: &str, report: &mut Report) {
    let given = settings.remove("similarity_threshold");
    let path = join(path, "similarity_threshold");
    match given.as_ref().map(Value::as_f64) {
        Some(Some(exact)) if exact >= 1.0 => {
            report.adapted(&path, "keywords are found exactly, in any case")
        }
        Some(_) if !keywords => report.warned(&path, "there are no keywords it could concern"),
        Some(_) => report.refused(
            &path,
            "what is only like a keyword is not found here; write 1.0, or list the spellings",
        ),
        None if keywords => report.assumed(
            &path,
            "keywords are found exactly, in any case, and not what is only like them",
        ),
        None => {}
    }
}

fn masking(settings: &mut Body, path: &str, report: &mut Report) {
    let is_keyword = |rule: &Value| {
        rule.get("type")
            .is_none_or(|kind| *kind == json!("keyword"))
    };
    let rules = settings.get("rules").and_then(Value::as_array);
    let keywords = rules.is_some_and(|rules| rules.iter().any(is_keyword));
    likeness(settings, keywords, path, report);
    if let Some(distance) = settings.remove("max_edit_distance") {
        let path = join(path, "max_edit_distance");
        match distance.as_u64() {
            Some(0) => report.adapted(&path, "keywords are found exactly"),
            _ if !keywords => report.warned(&path, "there are no keywords it could concern"),
            _ => report.refused(
                &path,
                "what is only like a keyword is not found here; write 0, or list the spellings",
            ),
        }
    }
    if let Some(normalise) = settings.remove("normalize_input") {
        let path = join(path, "normalize_input");
        match normalise.as_bool() {
            Some(false) => report.adapted(&path, "texts are looked at as they are"),
            _ => report.refused(&path, "texts are looked at as they are; write false"),
        }
    }
    if let Some(hashing) = settings.remove("reversible_hashing") {
        let path = join(path, "reversible_hashing");
        match hashing.get("enabled").and_then(Value::as_bool) {
            Some(true) => report.refused(
                &path,
                "what is masked cannot be had back here; write `\"enabled\": false`",
            ),
            _ => report.warned(&path, "it is not enabled; left out"),
        }
    }
    entities_that_are_off(settings, path, report);
}

/// An entity that nobody masks need not be known.
fn entities_that_are_off(settings: &mut Body, path: &str, report: &mut Report) {
    let all = settings.get("apply_all") == Some(&json!(true));
    let Some(Value::Array(entities)) = settings.get_mut("predefined_entities") else {
        return;
    };
    let path = join(path, "predefined_entities");
    let mut index = 0;
    entities.retain(|entity| {
        let off = entity.get("enabled") == Some(&json!(false));
        if off && !all {
            report.warned(&format!("{path}[{index}]"), "it is not enabled; left out");
        }
        index += 1;
        !off || all
    });
}
