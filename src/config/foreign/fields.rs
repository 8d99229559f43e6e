//! The fields of a foreign table, each asked for by name; what nobody asked for is refused in the end.

use serde_json::{Map, Number, Value};
use tollgate_sdk::document::{Quoted, suggest};

use super::{Fate, Note};

/// Notes as they are made.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Note>);

impl Notes {
    fn add(&mut self, fate: Fate, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Note {
            path: path.into(),
            fate,
            message: message.into(),
        });
    }

    pub(super) fn taken(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.add(Fate::Taken, path, message);
    }

    pub(super) fn adapted(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.add(Fate::Adapted, path, message);
    }

    pub(super) fn warned(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.add(Fate::Warned, path, message);
    }

    pub(super) fn refused(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.add(Fate::Refused, path, message);
    }

    pub(super) fn assumed(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.add(Fate::Assumed, path, message);
    }

    pub(super) fn append(&mut self, mut other: Notes) {
        self.0.append(&mut other.0);
    }

    pub(super) fn into_vec(self) -> Vec<Note> {
        self.0
    }
}

/// A table, its place in the document, and the fields that were asked for.
pub(super) struct Fields<'d> {
    table: &'d Map<String, Value>,
    path: String,
    asked: Vec<&'static str>,
}

impl<'d> Fields<'d> {
    /// `path` is empty for the document itself.
    pub(super) fn new(table: &'d Map<String, Value>, path: impl Into<String>) -> Self {
        Self {
            table,
            path: path.into(),
            asked: Vec::new(),
        }
    }

    /// The table that `value` should be; anything else is refused.
    pub(super) fn of(value: &'d Value, path: &str, notes: &mut Notes) -> Option<Self> {
        match value.as_object() {
            Some(table) => Some(Self::new(table, path)),
            None => {
                notes.refused(path, format!("expected a table, found {}", found(value)));
                None
            }
        }
    }

    /// The path of a field.
    pub(super) fn at(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// The path of the table itself.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// A field of any type, `null` included.
    pub(super) fn any(&mut self, name: &'static str) -> Option<&'d Value> {
        self.asked.push(name);
        self.table.get(name)
    }

    /// A field of any type; `null` is the default and noted as such.
    pub(super) fn given(&mut self, name: &'static str, notes: &mut Notes) -> Option<&'d Value> {
        match self.any(name)? {
            Value::Null => {
                notes.taken(self.at(name), "null is the default");
                None
            }
            value => Some(value),
        }
    }

    /// A field of which `read` knows the type; another type is refused.
    fn typed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        notes: &mut Notes,
        read: impl Fn(&'d Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.given(name, notes)?;
        let typed = read(value);
        if typed.is_none() {
            let message = format!("expected {expected}, found {}", found(value));
            notes.refused(self.at(name), message);
        }
        typed
    }

    pub(super) fn text(&mut self, name: &'static str, notes: &mut Notes) -> Option<&'d str> {
        self.typed(name, "text", notes, Value::as_str)
    }

    pub(super) fn flag(&mut self, name: &'static str, notes: &mut Notes) -> Option<bool> {
        self.typed(name, "true or false", notes, Value::as_bool)
    }

    pub(super) fn whole(&mut self, name: &'static str, notes: &mut Notes) -> Option<i64> {
        self.typed(name, "a whole number", notes, Value::as_i64)
    }

    pub(super) fn number(&mut self, name: &'static str, notes: &mut Notes) -> Option<&'d Number> {
        self.typed(name, "a number", notes, Value::as_number)
    }

    pub(super) fn list(&mut self, name: &'static str, notes: &mut Notes) -> Option<&'d [Value]> {
        self.typed(name, "a list", notes, |value| {
            value.as_array().map(Vec::as_slice)
        })
    }

    /// A table in a field, to be read and finished by itself.
    pub(super) fn table(&mut self, name: &'static str, notes: &mut Notes) -> Option<Fields<'d>> {
        let path = self.at(name);
        let table = self.typed(name, "a table", notes, Value::as_object)?;
        Some(Fields::new(table, path))
    }

    /// The value of a field, without asking for it.
    pub(super) fn peek(&self, name: &str) -> Option<&'d Value> {
        self.table.get(name)
    }

    /// Whether a field is there, without asking for it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.get(name).is_some_and(|value| !value.is_null())
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(self, notes: &mut Notes) {
        for name in self.table.keys() {
            if !self.asked.contains(&name.as_str()) {
                let help = suggest(name, &self.asked, "fields");
                // A field's name may hold anything; a path is shown as it is.
                let shown: String = name.chars().filter(|c| !c.is_control()).collect();
                notes.refused(self.at(&shown), format!("unknown field; {help}"));
            }
        }
    }
}

/// What a value is, without showing it: it may be a secret.
pub(super) fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// A text in quotes, shortened, without control characters.
pub(super) fn quoted(text: &str) -> String {
    Quoted(text).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_asks_for_is_refused_with_the_nearest_name() {
        let value = json!({"name": "a", "nmae": "b", "inner": {"x\n": 1}});
        let mut notes = Notes::default();
        let mut fields = Fields::new(value.as_object().unwrap(), "");
        assert_eq!(fields.text("name", &mut notes), Some("a"));
        let inner = fields.table("inner", &mut notes).unwrap();
        assert_eq!(inner.path(), "inner");
        inner.finish(&mut notes);
        fields.finish(&mut notes);
        let notes: Vec<String> = notes.into_vec().iter().map(Note::to_string).collect();
        assert_eq!(
            notes,
            [
                "refused  inner.x: unknown field; there are no fields",
                "refused  nmae: unknown field; did you mean \"name\"?",
            ]
        );
    }

    #[test]
    fn another_type_is_told_without_the_value() {
        let value = json!({"a": "secret", "b": null, "c": 1.5});
        let mut notes = Notes::default();
        let mut fields = Fields::new(value.as_object().unwrap(), "x[0]");
        assert_eq!(fields.flag("a", &mut notes), None);
        assert_eq!(fields.text("b", &mut notes), None);
        assert_eq!(fields.whole("c", &mut notes), None);
        assert_eq!(fields.text("d", &mut notes), None);
        let notes: Vec<String> = notes.into_vec().iter().map(Note::to_string).collect();
        assert_eq!(
            notes,
            [
                "refused  x[0].a: expected true or false, found text",
                "taken    x[0].b: null is the default",
                "refused  x[0].c: expected a whole number, found a number",
            ]
        );
    }
}
