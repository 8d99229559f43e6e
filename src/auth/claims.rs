//! From what an issuer says of a token to what that opens.
//!
//! Invariant: what was said and cannot be read opens nothing, and never more than was meant.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value as Json};
use tollgate_sdk::document::FromText;
use tollgate_sdk::plugin::Principal;
use tollgate_sdk::quota::User;

use super::key::Scopes;
use crate::model::{KeyHash, ModelPattern};

/// What an issuer says, by claim.
pub(super) type Said = Map<String, Json>;

/// Bytes of a principal's name.
const LONGEST_NAME: usize = 128;

/// The claim at a path with dots between its levels. A claim whose own name has dots is found as it is written.
pub(super) fn at<'s>(said: &'s Said, path: &str) -> Option<&'s Json> {
    if let Some(claim) = said.get(path) {
        return Some(claim);
    }
    // `a.b.c` may be `c` of `b` of `a`, or of `a.b`: names of claims are often URLs.
    path.match_indices('.').find_map(|(dot, _)| {
        let (name, rest) = (path.get(..dot)?, path.get(dot + 1..)?);
        at(said.get(name)?.as_object()?, rest)
    })
}

/// The names of a scope: a list of texts, or one text with spaces between them. Anything else names nothing.
pub(super) fn names(claim: Option<&Json>) -> Vec<&str> {
    match claim {
        Some(Json::String(text)) => text.split_ascii_whitespace().collect(),
        Some(Json::Array(items)) => items.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A point in time: seconds since 1970, maybe with a fraction (RFC 7519, "NumericDate"). None if it is nothing of the kind.
pub(super) fn moment(claim: &Json) -> Option<SystemTime> {
    let since = Duration::try_from_secs_f64(claim.as_f64()?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// Scopes from names. `None` was never set.
pub(super) fn scopes(
    services: Option<Vec<&str>>,
    models: Option<Vec<&str>>,
    rules: Option<Vec<&str>>,
) -> Scopes {
    let texts = |names: Vec<&str>| names.into_iter().map(Arc::from).collect();
    let patterns = |names: Vec<&str>| {
        let patterns = names.into_iter();
        patterns
            .filter_map(|name| ModelPattern::from_text(name).ok())
            .collect()
    };
    Scopes {
        services: services.map(texts),
        rules: rules.map(texts),
        models: models.map(patterns),
    }
}

/// Who it is: `kind` and `issuer` tell this subject from others of the same name. Of a long subject the name is its beginning and the id its hash,
/// so that two never share an id.
pub(super) fn principal(kind: &str, issuer: &str, subject: &str) -> Principal {
    let end = subject.floor_char_boundary(LONGEST_NAME);
    let id = match end < subject.len() {
        true => format!(
            "{kind}:{issuer}:{}",
            KeyHash::of(subject.as_bytes()).to_text()
        ),
        false => format!("{kind}:{issuer}:{subject}"),
    };
    Principal {
        name: subject.get(..end).unwrap_or_default().into(),
        id: User::new(id),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_by_their_path() {
        let said = json!({
            "a": {"b": "nested"}, "c.d": "flat",
            "https://x.example/roles": {"list": ["r"]}, "text": "t",
        });
        let said = said.as_object().unwrap();
        let found = |path: &str| at(said, path).cloned();
        assert_eq!(found("a.b"), Some(json!("nested")));
        assert_eq!(found("c.d"), Some(json!("flat")));
        assert_eq!(found("https://x.example/roles.list"), Some(json!(["r"])));
        for path in ["a.c", "text.x", "", ".", "a.", ".b", "a..b"] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_read_names_nothing() {
        assert_eq!(names(Some(&json!("a  b c"))), ["a", "b", "c"]);
        assert_eq!(names(Some(&json!(["a", 1, "b c"]))), ["a", "b c"]);
        for none in [
            json!(true),
            json!(null),
            json!({"a": 1}),
            json!(7),
            json!(""),
        ] {
            assert_eq!(names(Some(&none)), [""; 0]);
        }
    }

    #[test]
    fn moments_that_are_none_are_refused() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        assert_eq!(moment(&json!(1.5)), Some(end));
        for none in [json!("1500"), json!(-1), json!(1e300), json!(null)] {
            assert_eq!(moment(&none), None, "{none}");
        }
    }

    #[test]
    fn long_subjects_are_cut_and_stay_apart() {
        let long = "é".repeat(100);
        let (one, other) = (
            principal("jwt", "i", &long),
            principal("jwt", "i", &format!("{long}x")),
        );
        assert_eq!(&*one.name, "é".repeat(64));
        assert_eq!(one.name, other.name);
        assert_ne!(one.id, other.id);
        assert!(one.id.len() < 128);
        assert_eq!(&*principal("jwt", "i", "ann").id, "jwt:i:ann");
    }
}
