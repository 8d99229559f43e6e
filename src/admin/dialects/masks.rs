//! What of an object is not shown, and how it is kept when what was shown is sent back.

use serde_json::Value;
use tollgate_sdk::document::holds_credential;

use super::Answer;
use super::objects::{Fields, wrong};
use crate::config::is_secret_name;

const STARS: &str = "***";

/// Tables whose texts are secrets, but for those that only say how they are sent.
const TELLING: [&str; 2] = ["credentials", "headers"];
const PLAIN: [&str; 8] = [
    "header_name",
    "param_name",
    "param_location",
    "azure_endpoint",
    "azure_version",
    "aws_region",
    "content-type",
    "accept",
];

/// Names of secrets that [`is_secret_name`] does not know.
const MORE: [&str; 7] = [
    "header_value",
    "param_value",
    "openai_key",
    "private_key",
    "privateKey",
    "gcp_service_account_json",
    "key",
];

/// Variables of engines may be anything.
const FREE: [&str; 2] = ["engineEnv", "engine_env"];

fn is_secret(name: &str, text: &str, within: &str) -> bool {
    let inside = TELLING.contains(&within) && !PLAIN.contains(&name.to_ascii_lowercase().as_str());
    let known = is_secret_name(name) || MORE.contains(&name) || FREE.contains(&within);
    !text.is_empty() && (inside || known || holds_credential(text))
}

/// Puts stars in the place of secrets.
pub(super) fn mask(fields: &mut Fields) {
    mask_in(fields, "");
}

fn mask_in(fields: &mut Fields, within: &str) {
    for (name, value) in fields {
        match value {
            Value::String(text) if is_secret(name, text, within) => *text = STARS.to_owned(),
            Value::Object(inner) => mask_in(inner, name),
            Value::Array(items) => {
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    mask_in(item, name);
                }
            }
            _ => {}
        }
    }
}

/// Puts the secrets of `old` where `new` has stars in their place.
///
/// # Errors
/// An answer that names the stars for which there is no secret.
pub(super) fn keep(new: &mut Fields, old: &Fields) -> Answer<()> {
    keep_in(new, Some(old), "", "")
}

fn keep_in(new: &mut Fields, old: Option<&Fields>, within: &str, path: &str) -> Answer<()> {
    for (name, value) in new {
        let before = old.and_then(|old| old.get(name));
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        match value {
            Value::String(text) if text == STARS => {
                let known = before.and_then(Value::as_str);
                match known.filter(|known| is_secret(name, known, within)) {
                    Some(known) => *text = known.to_owned(),
                    None if is_secret(name, text, within) => {
                        let why = "*** stands for a secret, and none is kept here";
                        return Err(wrong(&path, why));
                    }
                    None => {}
                }
            }
            Value::Object(inner) => {
                keep_in(inner, before.and_then(Value::as_object), name, &path)?;
            }
            Value::Array(items) => {
                let before = before.and_then(Value::as_array);
                keep_in_list(items, before.map_or(&[], Vec::as_slice), name, &path)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn keep_in_list(items: &mut [Value], old: &[Value], name: &str, path: &str) -> Answer<()> {
    let mut free: Vec<&Fields> = old.iter().filter_map(Value::as_object).collect();
    for (index, item) in items.iter_mut().enumerate() {
        let Some(item) = item.as_object_mut() else {
            continue;
        };
        // A secret stays with whom it is for, wherever that stands in the list now.
        let found = free.iter().position(|old| whose(old) == whose(item));
        let partner = found.map(|at| free.remove(at));
        keep_in(item, partner, name, &format!("{path}[{index}]"))?;
    }
    Ok(())
}

/// What tells items of a list apart: who gets their secrets.
fn whose(item: &Fields) -> [Option<&Value>; 6] {
    ["name", "provider", "protocol", "host", "port", "endpoint"].map(|field| item.get(field))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn secrets_are_masked_and_come_back_to_whom_they_belong() {
        let sent = fields(json!({
            "name": "pool", "header_name": "X-A",
            "targets": [
                {"host": "a", "port": 1, "credentials": {"header_name": "X-K", "header_value": "one"}, "headers": {"X-Any": "two"}},
                {"provider": "openai", "credentials": {"api_key": "three", "azure_endpoint": "https://e"}},
            ],
            "embedding": {"url": "https://u:four@h"},
        }));
        let mut shown = sent.clone();
        mask(&mut shown);
        let text = Value::from(shown.clone()).to_string();
        for secret in ["one", "two", "three", "four"] {
            assert!(!text.contains(&format!("{secret}\"")), "{text}");
            assert!(!text.contains(&format!(":{secret}@")), "{text}");
        }
        assert!(text.contains("https://e") && text.contains("X-K"), "{text}");
        let mut back = shown.clone();
        assert!(keep(&mut back, &sent).is_ok());
        assert_eq!(back, sent);

        // In another order, each finds its own.
        let mut turned = shown.clone();
        turned["targets"].as_array_mut().unwrap().reverse();
        assert!(keep(&mut turned, &sent).is_ok());
        assert_eq!(turned["targets"][1], sent["targets"][0]);

        // Nobody else's secret goes to another host.
        let mut moved = shown;
        moved["targets"][0]["host"] = json!("b");
        assert!(keep(&mut moved, &sent).is_err());
    }
}
