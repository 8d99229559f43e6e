//! One route of the list.

use serde_json::Value;
use tollgate_sdk::document::FromText;
use tollgate_sdk::llm::ModelPattern;

use super::super::fields::{Fields, Notes, quoted};
use crate::model::TargetUrl;

/// What a route without a key does.
const OWN: &str = "where the gateway itself asks for no key, the client's own credential is passed on to this URL";

/// Where a route leads, and what becomes of it.
pub(super) struct Route<'d> {
    /// Its place: `[0]`.
    pub(super) path: String,
    /// The URL; none for the internal pool.
    pub(super) url: Option<String>,
    /// Whether where it leads to was refused.
    pub(super) broken: bool,
    pub(super) api_key: Option<&'d str>,
    pub(super) fallback: bool,
    pub(super) weight: Option<i64>,
    pub(super) prefix: Option<&'d str>,
    /// The models that lead to it: decided by `splitting`.
    pub(super) models: Vec<String>,
    /// Its native weight, if it has one.
    pub(super) share: Option<u64>,
}

impl Route<'_> {
    pub(super) fn is_local(&self) -> bool {
        self.url.is_none() && !self.broken
    }

    /// Whether others fall back to it: never to the internal pool.
    pub(super) fn falls_back(&self) -> bool {
        self.fallback && self.url.is_some()
    }

    /// Whether it can get any request.
    pub(super) fn serves(&self) -> bool {
        !self.broken && (self.falls_back() || !self.models.is_empty())
    }

    /// The path of one of its fields.
    pub(super) fn at(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }
}

/// Reads a route; `None` if it is no table.
pub(super) fn read<'d>(item: &'d Value, index: usize, notes: &mut Notes) -> Option<Route<'d>> {
    let path = format!("[{index}]");
    let mut fields = Fields::of(item, &path, notes)?;
    let url = url(&mut fields, notes);
    let api_key = fields.text("api_key", notes);
    let local = matches!(url, Some(None));
    match api_key {
        Some(_) if local => notes.warned(
            fields.at("api_key"),
            "not used: the internal pool gets no credential",
        ),
        Some("") => notes.warned(fields.at("api_key"), format!("empty is none: {OWN}")),
        None if !local && !fields.has("api_key") && url.is_some() => {
            notes.assumed(fields.at("api_key"), format!("none: {OWN}"));
        }
        Some(_) => notes.taken(fields.at("api_key"), "`api_key` of its upstream"),
        None => {}
    }
    if fields.text("model", notes).is_some() {
        let message = "reserved in Llumnix and without effect: the request's model stays; for another name write `model` into the service";
        notes.warned(fields.at("model"), message);
    }
    let fallback = fields.flag("fallback", notes);
    match fallback {
        Some(true) if local => notes.warned(
            fields.at("fallback"),
            "nothing falls back to the internal pool, as in Llumnix",
        ),
        Some(true) => {
            let message = "among the `fallback` of the others: after no answer, 5xx or 429; a client's own 4xx goes back to it at once";
            notes.adapted(fields.at("fallback"), message);
        }
        Some(false) => notes.taken(fields.at("fallback"), "as without it"),
        None => {}
    }
    let weight = fields.whole("weight", notes);
    if weight.is_some_and(|weight| weight < 0) {
        notes.refused(fields.at("weight"), "at least 0");
    }
    let prefix = fields.text("prefix", notes);
    fields.finish(notes);
    Some(Route {
        path,
        broken: url.is_none(),
        url: url.flatten(),
        api_key: api_key.filter(|key| !local && !key.is_empty()),
        fallback: fallback == Some(true),
        weight,
        prefix,
        models: Vec::new(),
        share: None,
    })
}

/// The URL, or the internal pool.
fn url(fields: &mut Fields<'_>, notes: &mut Notes) -> Option<Option<String>> {
    let given = fields.text("base_url", notes);
    let path = fields.at("base_url");
    let given = match given {
        Some("local") => {
            notes.adapted(path, "the upstream \"local\"");
            return Some(None);
        }
        Some(given) => given,
        None => {
            if !fields.has("base_url") {
                notes.refused(path, "missing: a URL, or \"local\" for the internal pool");
            }
            return None;
        }
    };
    match TargetUrl::from_text(given) {
        Ok(url) => {
            notes.taken(path, "the target of its upstream");
            Some(Some(url.to_string()))
        }
        // It may hold a credential, so it is not shown; nor is help that repeats it.
        Err(invalid) if invalid.secret => {
            notes.refused(
                path,
                format!("{}; give a credential as api_key", invalid.message),
            );
            None
        }
        Err(invalid) => {
            let help = invalid
                .help
                .map(|help| format!("; {help}"))
                .unwrap_or_default();
            notes.refused(
                path,
                format!("{}: {}{help}", quoted(given), invalid.message),
            );
            None
        }
    }
}

/// The native pattern of a prefix, which is written alike.
pub(super) fn pattern(prefix: &str) -> Result<String, String> {
    match ModelPattern::from_text(prefix) {
        Ok(_) => Ok(prefix.to_owned()),
        Err(invalid) => Err(format!("{}: {}", quoted(prefix), invalid.message)),
    }
}
