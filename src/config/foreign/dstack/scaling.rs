//! `replicas` and `scaling` of a service, or of one of its groups.

use serde_json::{Map, Value, json};

use super::super::fields::{Fields, Notes};
use super::quantity::{Count, duration, seconds};

const UP: u64 = 300;
const DOWN: u64 = 600;

/// Reads a count of replicas from the field `name`.
pub(super) fn count(
    fields: &mut Fields<'_>,
    name: &'static str,
    notes: &mut Notes,
) -> Option<Count> {
    let value = fields.given(name, notes)?;
    match super::quantity::count(value) {
        Ok(count) => Some(count),
        Err(message) => {
            notes.refused(fields.at(name), message);
            None
        }
    }
}

/// Whether native `scaling` is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A service's.
    Now,
    /// It has no place: native `scaling` is a service's, not a group's.
    Never,
}

/// Native `scaling`, if it is read and there is something to scale. `path` is where the count stands, or would.
pub(super) fn convert(
    fields: &mut Fields<'_>,
    count: Option<Count>,
    path: &str,
    used: Use,
    notes: &mut Notes,
) -> Option<Map<String, Value>> {
    let table = fields.table("scaling", notes);
    let at = fields.at("scaling");
    match (count, table) {
        (Some(Count::Range(min, max)), Some(table)) => {
            let (sound, body) = read(table, (min, max), used, notes);
            match used {
                Use::Now => notes.taken(path, format!("scaling = {{ min = {min}, max = {max} }}")),
                Use::Never => {
                    let message = "a service is scaled as a whole here, not each of its groups: the addresses given are what there is";
                    notes.warned(path, message);
                }
            }
            (used == Use::Now && sound).then_some(body)
        }
        (Some(Count::Range(..)), None) => {
            notes.warned(path, "the addresses given are what there is");
            if !fields.has("scaling") {
                notes.refused(
                    at,
                    "missing: a range of replicas needs to know how it is scaled",
                );
            }
            None
        }
        (fixed, table) => {
            if let Some(Count::Fixed(count)) = fixed {
                let message = format!("{count} of them: each is an address among the targets");
                notes.adapted(path, message);
            }
            if table.is_some() {
                notes.refused(
                    at,
                    "a fixed number of replicas is not scaled: give a range, such as 1..4",
                );
            }
            None
        }
    }
}

/// The fields, and whether they are sound.
fn read(
    mut table: Fields<'_>,
    (min, max): (u64, u64),
    used: Use,
    notes: &mut Notes,
) -> (bool, Map<String, Value>) {
    let taken = |notes: &mut Notes, path: String, message: String| match used {
        Use::Now => notes.taken(path, message),
        Use::Never => notes.warned(path, "a group is not scaled by itself"),
    };
    let mut body = Map::new();
    let mut sound = true;
    body.insert("min".into(), json!(min));
    body.insert("max".into(), json!(max));
    let path = table.at("metric");
    match table.text("metric", notes) {
        Some("rps") => taken(notes, path, "`metric`".into()),
        Some(_) => notes.refused(path, "unknown metric; known: rps"),
        None if !table.has("metric") => notes.refused(path, "missing; known: rps"),
        None => {}
    }
    body.insert("metric".into(), json!("rps"));
    let path = table.at("target");
    match table.number("target", notes).map(|number| number.as_f64()) {
        Some(Some(target)) if target > 0.0 && target.is_finite() => {
            taken(notes, path, "`target`".into());
            body.insert("target".into(), json!(target));
        }
        Some(_) => {
            sound = false;
            notes.refused(path, "out of range: above 0");
        }
        None => {
            sound = false;
            if !table.has("target") {
                notes.refused(path, "missing: requests a second for each replica");
            }
        }
    }
    for (name, native, default) in [
        ("window", "window", 60),
        ("scale_up_delay", "up_delay", UP),
        ("scale_down_delay", "down_delay", DOWN),
    ] {
        let path = table.at(name);
        let value = table.given(name, notes);
        let time = match value.map(seconds) {
            Some(Some(time)) if name == "window" && ![30, 60, 300].contains(&time) => {
                notes.refused(path, "known windows: 30s, 60s, 300s");
                default
            }
            Some(Some(time)) => {
                taken(notes, path, format!("`{native}`"));
                time
            }
            Some(None) => {
                notes.refused(path, "not a duration: for example 90, \"90s\" or \"5m\"");
                default
            }
            None => {
                if used == Use::Now {
                    let message =
                        format!("`{native}` = \"{}\", dstack's default", duration(default));
                    notes.assumed(path, message);
                }
                default
            }
        };
        body.insert(native.into(), json!(duration(time)));
    }
    table.finish(notes);
    body.insert("actuator".into(), json!({"type": "none"}));
    (sound, body)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_scaled_and_a_group_is_not() {
        let document = json!({"scaling": {"metric": "rps", "target": 8, "window": "300s", "scale_up_delay": "1m"}});
        let mut notes = Notes::default();
        let mut fields = Fields::new(document.as_object().unwrap(), "");
        let count = Some(Count::Range(0, 4));
        let body = convert(&mut fields, count, "replicas", Use::Now, &mut notes);
        let expected = json!({
            "min": 0, "max": 4, "metric": "rps", "target": 8.0, "window": "5m", "up_delay": "1m", "down_delay": "10m",
            "actuator": {"type": "none"},
        });
        assert_eq!(body.map(Value::from), Some(expected));
        let mut fields = Fields::new(document.as_object().unwrap(), "");
        let of_group = convert(&mut fields, count, "count", Use::Never, &mut notes);
        assert_eq!(of_group, None);
    }
}
