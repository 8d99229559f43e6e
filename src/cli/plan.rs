//! What a change comes to, as the gateway plans it: shown to a person, field by field.

use serde_json::Value;

use super::terminal::{Colour, Paint, plain};

/// No more of a value than this many characters is shown.
const WIDEST: usize = 60;

/// The gateway's answer to a plan, or to what was applied.
pub(super) struct Plan {
    answer: Value,
}

impl Plan {
    pub(super) fn of(answer: Value) -> Plan {
        Plan { answer }
    }

    pub(super) fn answer(&self) -> &Value {
        &self.answer
    }

    /// The revision that it was made against, or that it has become.
    pub(super) fn revision(&self) -> Option<u64> {
        self.answer.get("revision").and_then(Value::as_u64)
    }

    fn changes(&self) -> impl Iterator<Item = &Value> {
        let changes = self.answer.get("changes").and_then(Value::as_array);
        changes.into_iter().flatten()
    }

    fn number(&self, wanted: &str) -> usize {
        self.changes()
            .filter(|change| text(change, "action") == wanted)
            .count()
    }

    /// How many resources would not stay as they are.
    pub(super) fn size(&self) -> usize {
        self.changes().count() - self.number("unchanged")
    }

    /// Every resource with what becomes of it, every field that changes, and the sum.
    pub(super) fn show(&self, paint: Paint) -> String {
        let kinds = self
            .changes()
            .map(|change| text(change, "kind").chars().count());
        let widest = kinds.max().unwrap_or(0);
        let mut shown = String::new();
        for change in self.changes() {
            let action = text(change, "action");
            let colour = match action {
                "create" => Colour::Green,
                "update" => Colour::Yellow,
                "delete" => Colour::Red,
                _ => Colour::Grey,
            };
            let kind = text(change, "kind");
            let line = format!("{action:<9}  {kind:<widest$}  {}", text(change, "name"));
            shown += &paint.paint(colour, &plain(&line));
            shown.push('\n');
            let fields = change.get("fields").and_then(Value::as_array);
            for field in fields.into_iter().flatten() {
                let of = |name: &str| brief(field.get(name).unwrap_or(&Value::Null));
                let change = format!("{}: {} → {}", text(field, "path"), of("from"), of("to"));
                shown += &format!("             {}\n", plain(&change));
            }
        }
        let counts = ["create", "update", "delete", "unchanged"];
        let counts = { counts.iter() }
            .map(|action| (self.number(action), action))
            .filter(|(number, _)| *number > 0)
            .map(|(number, action)| match *action {
                "unchanged" => format!("{number} unchanged"),
                action => format!("{number} to {action}"),
            });
        shown + &counts.collect::<Vec<_>>().join(", ") + "\n"
    }

    /// What its author should look at, one to a line.
    pub(super) fn warnings(&self) -> Vec<String> {
        let list = |name: &str| {
            let list = self.answer.get(name).and_then(Value::as_array);
            list.into_iter().flatten()
        };
        let notes = list("notes")
            .filter(|note| text(note, "verdict") != "taken")
            .map(|note| {
                let of = |name: &str| text(note, name);
                format!("{:<8} {}: {}", of("verdict"), of("path"), of("message"))
            });
        let warnings = list("warnings").map(|warning| {
            format!(
                "warning: {}: {}",
                text(warning, "path"),
                text(warning, "message")
            )
        });
        notes
            .chain(warnings)
            .map(|line| plain(&line).into_owned())
            .collect()
    }

    /// Names and secrets of the keys that were made. They are told this once.
    pub(super) fn secrets(&self) -> Vec<(&str, &str)> {
        let made = |change| Some((text(change, "name"), Value::as_str(change.get("secret")?)?));
        self.changes().filter_map(made).collect()
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A value on one line; what is not there is `(none)`.
fn brief(value: &Value) -> String {
    let whole = match value {
        Value::Null => return "(none)".to_owned(),
        value => value.to_string(),
    };
    match whole.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", whole.get(..end).unwrap_or_default()),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_shown_field_by_field() {
        let plan = Plan::of(json!({"revision": 7, "changes": [
            {"kind": "gateway", "name": "main", "action": "unchanged", "fields": []},
            {"kind": "service", "name": "qwen", "action": "update", "fields": [
                {"path": "weight", "from": 100, "to": 50},
                {"path": "models", "from": null, "to": ["x".repeat(100)]},
            ]},
            {"kind": "key", "name": "bob\u{1b}[2J", "action": "create", "secret": "s"},
        ], "notes": [{"path": "a", "verdict": "taken", "message": "m"}, {"path": "b", "verdict": "adapted", "message": "n"}]}));
        let shown = plan.show(Paint::OFF);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "unchanged  gateway  main");
        assert_eq!(lines[1], "update     service  qwen");
        assert_eq!(lines[2], "             weight: 100 → 50");
        assert!(
            lines[3].starts_with("             models: (none) → [\"xxx")
                && lines[3].ends_with("x…")
        );
        assert_eq!(lines[4], "create     key      bob\u{fffd}[2J");
        assert_eq!(lines[5], "1 to create, 1 to update, 1 unchanged");
        assert_eq!((plan.size(), plan.revision()), (2, Some(7)));
        assert_eq!(plan.secrets(), [("bob\u{1b}[2J", "s")]);
        assert_eq!(plan.warnings(), ["adapted  b: n"]);
    }

    /// What a server of another version says is shown as far as it goes.
    #[test]
    fn nothing_in_an_answer_panics() {
        for answer in [
            json!(null),
            json!([]),
            json!({"changes": 7}),
            json!({"changes": [null, 1, {"fields": [1]}]}),
        ] {
            let plan = Plan::of(answer);
            plan.show(Paint::OFF);
            assert!(plan.secrets().is_empty() && plan.warnings().is_empty());
        }
    }
}
