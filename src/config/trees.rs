//! Trees beside each other: a merge patch, the stars that stand for a secret that is kept, and what differs.

use std::collections::BTreeMap;

use serde_json::{Map, json};
use tollgate_sdk::document::{At, Json, Node, Reading, Span, Value};

/// What stands for a secret.
pub(super) const STARS: &str = "***";

/// One field that differs, secrets as `***`.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The field: `targets[0].weight`.
    pub path: String,
    /// What it was; null if it was not there.
    pub from: Json,
    /// What it is; null if it is not there any more.
    pub to: Json,
}

impl Difference {
    /// `{"path","from","to"}`.
    pub fn shown(&self) -> Json {
        json!({"path": self.path, "from": self.from, "to": self.to})
    }
}

/// Merges a patch into a document: RFC 7396.
pub(super) fn merge(document: &mut Json, patch: &Json) {
    let Json::Object(patch) = patch else {
        *document = patch.clone();
        return;
    };
    if !document.is_object() {
        *document = Json::Object(Map::new());
    }
    let Json::Object(fields) = document else {
        return;
    };
    for (name, value) in patch {
        match value {
            Json::Null => drop(fields.remove(name)),
            value => merge(fields.entry(name.clone()).or_insert(Json::Null), value),
        }
    }
}

/// Puts the secrets of `old`, which stand at `secrets`, where `new` has stars in their place.
pub(super) fn keep_secrets(new: &mut Node, old: &Node, secrets: &[Span]) {
    match (&mut new.value, &old.value) {
        (Value::String(text), Value::String(kept))
            if text == STARS && secrets.contains(&old.span) =>
        {
            *text = kept.clone();
        }
        (Value::Table(entries), Value::Table(_)) => {
            for (key, node) in entries {
                if let Some(old) = old.entry(&key.text).or_else(|| header(old, &key.text)) {
                    keep_secrets(node, old, secrets);
                }
            }
        }
        (Value::List(items), Value::List(old)) => {
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            for (index, item) in items.iter_mut().enumerate() {
                let partner = match identity(item) {
                    // Whatever has a name is known by it, not by its place.
                    Some(name) => {
                        let before = seen.entry(name.clone()).or_default();
                        let same = old
                            .iter()
                            .filter(|old| identity(old).as_ref() == Some(&name));
                        let partner = { same }.nth(*before);
                        *before += 1;
                        partner
                    }
                    None => old.get(index),
                };
                if let Some(old) = partner {
                    keep_secrets(item, old, secrets);
                }
            }
        }
        _ => {}
    }
}

/// An entry whose name is the same but for capitals, as the names of headers are shown.
fn header<'n>(table: &'n Node, name: &str) -> Option<&'n Node> {
    let entries = table.as_table()?.iter();
    let mut same = entries.filter(|(key, _)| key.text.eq_ignore_ascii_case(name));
    same.next().map(|(_, node)| node)
}

fn identity(item: &Node) -> Option<String> {
    ["name", "id", "url"]
        .iter()
        .find_map(|field| item.entry(field)?.as_str().map(str::to_owned))
}

/// Reports stars that stand in the place of a secret of which nothing was kept.
pub(super) fn refuse_stars(node: &Node, at: &At<'_>, secrets: &[Span], r: &mut Reading<'_>) {
    let refuse = |node: &Node, at: &At<'_>, r: &mut Reading<'_>| {
        if node.as_str() == Some(STARS) && secrets.contains(&node.span) {
            let help = "give the secret itself";
            r.error(
                node.span,
                at,
                "*** stands for a secret, and none is kept here",
                help,
            );
        }
    };
    walk(node, at, r, &refuse);
}

/// Reports references to the environment: what is sent is the same wherever it is read.
pub(super) fn refuse_references(node: &Node, at: &At<'_>, r: &mut Reading<'_>) {
    let refuse = |node: &Node, at: &At<'_>, r: &mut Reading<'_>| {
        let is_name = |rest: &str| {
            let name = rest.split(['}', ':']).next().unwrap_or_default();
            rest.contains('}')
                && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if node
            .as_str()
            .is_some_and(|text| text.split("${").skip(1).any(is_name))
        {
            let message = "the gateway's environment is only for its configuration file";
            let help = "send the value itself; the command line fills it in before it sends";
            r.error(node.span, at, message, help);
        }
    };
    walk(node, at, r, &refuse);
}

type Look<'l> = dyn Fn(&Node, &At<'_>, &mut Reading<'_>) + 'l;

fn walk(node: &Node, at: &At<'_>, r: &mut Reading<'_>, look: &Look<'_>) {
    look(node, at, r);
    match &node.value {
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &at.index(index), r, look);
            }
        }
        Value::Table(entries) => {
            for (key, node) in entries {
                walk(node, &at.field(&key.text), r, look);
            }
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) => {}
    }
}

/// Every field that differs between two documents.
pub(super) fn differences(from: &Json, to: &Json) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), from, to, &mut found);
    found
}

fn compare(path: String, from: &Json, to: &Json, found: &mut Vec<Difference>) {
    match (from, to) {
        (from, to) if from == to => {}
        (Json::Object(old), Json::Object(new)) => {
            let below = |name: &str| match path.as_str() {
                "" => name.to_owned(),
                path => format!("{path}.{name}"),
            };
            for (name, from) in old {
                compare(
                    below(name),
                    from,
                    new.get(name).unwrap_or(&Json::Null),
                    found,
                );
            }
            for (name, to) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                compare(below(name), &Json::Null, to, found);
            }
        }
        (Json::Array(old), Json::Array(new)) if old.len() == new.len() => {
            for (index, (from, to)) in old.iter().zip(new).enumerate() {
                compare(format!("{path}[{index}]"), from, to, found);
            }
        }
        (from, to) => found.push(Difference {
            path,
            from: from.clone(),
            to: to.clone(),
        }),
    }
}

/// The secrets of a tree by their paths.
pub(super) fn secrets_of<'n>(node: &'n Node, secrets: &[Span]) -> BTreeMap<String, &'n Node> {
    let mut found = BTreeMap::new();
    collect(node, &At::ROOT, secrets, &mut found);
    found
}

fn collect<'n>(
    node: &'n Node,
    at: &At<'_>,
    secrets: &[Span],
    found: &mut BTreeMap<String, &'n Node>,
) {
    if secrets.contains(&node.span) {
        found.insert(at.to_string(), node);
        return;
    }
    match &node.value {
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &at.index(index), secrets, found);
            }
        }
        Value::Table(entries) => {
            for (key, node) in entries {
                collect(node, &at.field(&key.text), secrets, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use tollgate_sdk::document::json;

    use super::*;

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn patches_merge() {
        for (mut document, patch, merged) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let before = document.clone();
            merge(&mut document, &patch);
            assert_eq!(document, merged, "{before} {patch}");
        }
    }

    /// A secret follows what bears its name, not its place, and goes nowhere else.
    #[test]
    fn stars_keep_what_they_stand_for() {
        let entry = |name: &str, secret: &str| json!({"name": name, "settings": {"token": secret}});
        let old = Node::of(
            &json!({"plugins": [entry("a", "of-a"), entry("b", "of-b")], "note": "plain"}),
        );
        let mut secrets = Vec::new();
        for plugin in old.entry("plugins").and_then(Node::as_list).unwrap() {
            let settings = plugin.entry("settings").unwrap();
            secrets.push(settings.entry("token").unwrap().span);
        }
        let sent = json!({
            "plugins": [entry("new", STARS), entry("b", STARS), entry("a", STARS), entry("a", STARS)],
            "note": STARS,
        });
        let mut new = Node::of(&sent);
        keep_secrets(&mut new, &old, &secrets);
        let kept = json!({
            "plugins": [entry("new", STARS), entry("b", "of-b"), entry("a", "of-a"), entry("a", STARS)],
            "note": STARS,
        });
        assert_eq!(new.json(), kept);
    }

    /// Headers are shown in small letters, however they were written.
    #[test]
    fn stars_keep_headers_whatever_their_case() {
        let old = Node::of(&json!({"headers": {"X-Pool": "secret"}}));
        let secret = old.entry("headers").unwrap().entry("X-Pool").unwrap().span;
        let mut new = Node::of(&json!({"headers": {"x-pool": STARS, "x-other": STARS}}));
        keep_secrets(&mut new, &old, &[secret]);
        let kept = json!({"headers": {"x-pool": "secret", "x-other": STARS}});
        assert_eq!(new.json(), kept);
    }

    #[test]
    fn references_to_the_environment_are_told_from_what_looks_like_one() {
        for (text, refused) in [
            ("${HOME}", true),
            ("a ${X:-y} b", true),
            ("${", false),
            ("${ }", false),
            ("${1}", false),
            ("$HOME", false),
            ("${not closed", false),
        ] {
            let node = Node::of(&json!({"description": text}));
            let no_file = |_: &str| Err(String::new());
            let mut r = Reading::new(tollgate_sdk::document::Format::Json, &no_file);
            refuse_references(&node, &At::ROOT, &mut r);
            assert_eq!(r.failed(), refused, "{text}");
        }
    }
}
