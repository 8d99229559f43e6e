//! What every converter needs: a table of a foreign document of which no field is passed over, the report, and native names.
//!
//! It owns the wording of what is wrong with a field's type or name. Values are never repeated, since any of them may be a secret.

use serde_json::{Map, Value};
use tollgate_sdk::document::suggest;

use super::super::{Fate, Note, Resource};

/// A table of native fields.
pub(in super::super) type Body = Map<String, Value>;

/// What is said about a document, in the order in which it was read.
#[derive(Default)]
pub(in super::super) struct Report {
    pub(in super::super) notes: Vec<Note>,
}

impl Report {
    pub(in super::super) fn note(&mut self, fate: Fate, path: &str, message: impl Into<String>) {
        self.notes.push(Note {
            path: path.to_owned(),
            fate,
            message: message.into(),
        });
    }

    pub(in super::super) fn taken(&mut self, path: &str, message: impl Into<String>) {
        self.note(Fate::Taken, path, message);
    }

    pub(in super::super) fn adapted(&mut self, path: &str, message: impl Into<String>) {
        self.note(Fate::Adapted, path, message);
    }

    pub(in super::super) fn warned(&mut self, path: &str, message: impl Into<String>) {
        self.note(Fate::Warned, path, message);
    }

    pub(in super::super) fn refused(&mut self, path: &str, message: impl Into<String>) {
        self.note(Fate::Refused, path, message);
    }

    pub(in super::super) fn assumed(&mut self, path: &str, message: impl Into<String>) {
        self.note(Fate::Assumed, path, message);
    }
}

/// `parent.name`, or `name` alone at the top.
pub(in super::super) fn join(parent: &str, name: &str) -> String {
    match parent {
        "" => name.to_owned(),
        _ => format!("{parent}.{name}"),
    }
}

/// A table of a foreign document; what it holds besides the known fields was refused when it was opened.
pub(in super::super) struct Fields<'a> {
    pub(in super::super) path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// `None` if it is no table, which is refused.
    pub(in super::super) fn open(
        value: &'a Value,
        path: &str,
        known: &[&str],
        report: &mut Report,
    ) -> Option<Self> {
        let Some(map) = value.as_object() else {
            report.refused(path, "a table of fields is expected here");
            return None;
        };
        for name in map.keys().filter(|name| !known.contains(&name.as_str())) {
            let help = suggest(name, known, "fields");
            // A field's name may hold anything; a path is shown as it is.
            let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
            report.refused(&join(path, &shown), format!("unknown field; {help}"));
        }
        for (name, _) in map.iter().filter(|(_, value)| value.is_null()) {
            if known.contains(&name.as_str()) {
                report.taken(&join(path, name), "null is the default");
            }
        }
        Some(Self {
            path: path.to_owned(),
            map,
        })
    }

    /// The place of a field.
    pub(in super::super) fn at(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// A field that is there and not null.
    pub(in super::super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// The first of several names of one field.
    pub(in super::super) fn any(
        &self,
        names: &[&'static str],
    ) -> Option<(&'static str, &'a Value)> {
        { names.iter() }.find_map(|name| Some((*name, self.get(name)?)))
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
        report: &mut Report,
    ) -> Option<T> {
        let value = self.get(name)?;
        let read = read(value);
        if read.is_none() {
            report.refused(&self.at(name), format!("{expected} is expected here"));
        }
        read
    }

    pub(in super::super) fn text(&self, name: &str, report: &mut Report) -> Option<&'a str> {
        self.typed(name, "text", Value::as_str, report)
    }

    pub(in super::super) fn bool(&self, name: &str, report: &mut Report) -> Option<bool> {
        self.typed(name, "true or false", Value::as_bool, report)
    }

    /// A whole number, also as text that holds one.
    pub(in super::super) fn number(&self, name: &str, report: &mut Report) -> Option<u64> {
        let read = |value: &Value| match value {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        };
        self.typed(name, "a whole number, not negative,", read, report)
    }

    pub(in super::super) fn list(&self, name: &str, report: &mut Report) -> Option<&'a Vec<Value>> {
        self.typed(name, "a list", Value::as_array, report)
    }

    pub(in super::super) fn table(
        &self,
        name: &str,
        report: &mut Report,
    ) -> Option<&'a Map<String, Value>> {
        self.typed(name, "a table", Value::as_object, report)
    }

    /// A list of texts.
    pub(in super::super) fn texts(&self, name: &str, report: &mut Report) -> Vec<&'a str> {
        let read = |value: &'a Value| {
            let items = value.as_array()?.iter();
            items.map(Value::as_str).collect::<Option<Vec<_>>>()
        };
        self.typed(name, "a list of texts", read, report)
            .unwrap_or_default()
    }

    /// Says of fields that are only kept for the record, or of no use here, why they are.
    pub(in super::super) fn warn(&self, names: &[&str], why: &str, report: &mut Report) {
        for name in names.iter().filter(|name| self.get(name).is_some()) {
            report.warned(&self.at(name), why);
        }
    }

    /// Keeps fields as labels: texts, numbers, and lists of them.
    pub(in super::super) fn label(
        &self,
        names: &[(&str, &str)],
        why: &str,
        labels: &mut Body,
        report: &mut Report,
    ) {
        for (name, label) in names {
            let Some(value) = self.get(name) else {
                continue;
            };
            let text = plain(value).unwrap_or_else(|| value.to_string());
            if !text.is_empty() {
                labels.insert((*label).to_owned(), text.into());
            }
            report.warned(
                &self.at(name),
                format!("{why}; kept as the label `{label}`"),
            );
        }
    }
}

/// A value as people write it.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(plain).collect();
            items.map(|items| items.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}

/// Puts the labels into a resource, if there are any.
pub(in super::super) fn with_labels(body: &mut Body, labels: Body) {
    if !labels.is_empty() {
        body.insert("labels".into(), labels.into());
    }
}

/// Native names that were given out, by kind.
#[derive(Default)]
pub(in super::super) struct Names {
    given: Vec<(&'static str, String)>,
    /// What the names begin with that are given out from now on.
    prefix: String,
}

impl Names {
    pub(in super::super) fn begin_with(&mut self, prefix: String) {
        self.prefix = prefix;
    }

    /// The native name for `text`, with a note when it is another.
    pub(in super::super) fn adapt(
        &mut self,
        kind: &'static str,
        text: &str,
        path: &str,
        report: &mut Report,
    ) -> String {
        let name = self.give(kind, &native_name(text, kind));
        if name.strip_prefix(&self.prefix) == Some(text) {
            report.taken(path, "`name`");
        } else {
            report.adapted(path, format!("the {kind} is called `{name}` here"));
        }
        name
    }

    /// This name, or with a number behind it if it was given out.
    pub(in super::super) fn give(&mut self, kind: &'static str, wanted: &str) -> String {
        // What was given out before has the beginning already.
        let whole = match wanted.starts_with(&self.prefix) {
            true => wanted.to_owned(),
            false => format!("{}{wanted}", self.prefix),
        };
        let wanted: String = whole.chars().take(63).collect();
        let wanted = wanted.trim_end_matches(['-', '.', '_']).to_owned();
        let free = |name: &String| !self.given.iter().any(|(k, n)| *k == kind && n == name);
        let numbered = (2_usize..).map(|number| {
            let suffix = format!("-{number}");
            let most = 63_usize.saturating_sub(suffix.len());
            let stem: String = wanted.chars().take(most).collect();
            stem + &suffix
        });
        let wanted = std::iter::once(wanted.clone());
        // There is always a next number.
        let name = wanted.chain(numbered).find(free).unwrap_or_default();
        self.given.push((kind, name.clone()));
        name
    }
}

/// A native name as like `text` as the rules allow: small letters, digits and `._-`, at most 63.
pub(in super::super) fn native_name(text: &str, kind: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
    let mut name = String::new();
    for c in text.chars() {
        if allowed(c) {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = name.chars().take(63).collect();
    match name.trim_end_matches('-') {
        "" => kind.to_owned(),
        name => name.to_owned(),
    }
}

/// Whether this is a host's name or an IPv4 address.
pub(in super::super) fn is_host(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// A resource of this kind with this name in front.
pub(in super::super) fn resource(kind: &'static str, name: &str, body: Body) -> Resource {
    let mut whole = Body::new();
    whole.insert("name".into(), name.into());
    whole.extend(body);
    Resource { kind, body: whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_valid_and_kept_apart() {
        for (text, name) in [
            ("chat", "chat"),
            ("AI Service Gateway", "ai-service-gateway"),
            ("  --x--y. ", "x-y"),
            ("a/b//c", "a-b-c"),
            ("größe", "gr-e"),
            ("日本", "rule"),
        ] {
            assert_eq!(native_name(text, "rule"), name, "{text}");
        }
        assert_eq!(native_name(&"x".repeat(99), "rule").len(), 63);
        let mut names = Names::default();
        let long = "y".repeat(63);
        assert_eq!(names.give("rule", "a"), "a");
        assert_eq!(names.give("rule", "a"), "a-2");
        assert_eq!(names.give("key", "a"), "a");
        names.give("rule", &long);
        assert_eq!(names.give("rule", &long).len(), 63);
    }

    #[test]
    fn unknown_fields_name_the_nearest() {
        let mut report = Report::default();
        let value = serde_json::json!({"nmae": "x", "port": -1});
        let fields = Fields::open(&value, "targets[0]", &["name", "port"], &mut report).unwrap();
        assert_eq!(fields.number("port", &mut report), None);
        let said: Vec<_> = { report.notes.iter() }
            .map(|note| format!("{}: {}", note.path, note.message))
            .collect();
        assert!(said[0].starts_with("targets[0].nmae: unknown field; did you mean"));
        assert!(said[1].starts_with("targets[0].port: a whole number"));
    }
}
