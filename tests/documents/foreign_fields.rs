//! Nothing of a foreign document is dropped in silence, and none of them is too odd: every field of every document beside the golden
//! files, at any depth, as it is and mutated.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use tollgate::config::foreign::{self, Converted, Fate, Note, Options};

use super::foreign::{documents, is_accepted, options, read};

/// A step to a part of a document.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Item(usize),
}

type Place = Vec<Step>;

/// As notes write it: `targets[0].host`.
fn written(place: &[Step]) -> String {
    let mut text = String::new();
    for step in place {
        match step {
            Step::Field(name) if text.is_empty() => text.push_str(name),
            Step::Field(name) => text.push_str(&format!(".{name}")),
            Step::Item(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Every part of a document, itself included.
fn places(value: &Value, here: &Place, found: &mut Vec<Place>) {
    found.push(here.clone());
    let mut below = |step: Step, value: &Value| {
        let mut place = here.clone();
        place.push(step);
        places(value, &place, found);
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                below(Step::Field(name.clone()), value);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                below(Step::Item(index), item);
            }
        }
        _ => {}
    }
}

fn all_places(document: &Value) -> Vec<Place> {
    let mut found = Vec::new();
    places(document, &Place::new(), &mut found);
    found
}

fn part<'d>(document: &'d Value, place: &[Step]) -> &'d Value {
    place.iter().fold(document, |value, step| match step {
        Step::Field(name) => &value[name],
        Step::Item(index) => &value[index],
    })
}

fn part_mut<'d>(document: &'d mut Value, place: &[Step]) -> &'d mut Value {
    place.iter().fold(document, |value, step| match step {
        Step::Field(name) => &mut value[name],
        Step::Item(index) => &mut value[index],
    })
}

/// A field whose value is not told by its parts: text, a number, a list of them, an empty table.
fn is_leaf(document: &Value, place: &[Step]) -> bool {
    let plain = |value: &Value| !value.is_object() && !value.is_array();
    let value = part(document, place);
    let whole = match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.iter().all(plain),
        _ => true,
    };
    whole && matches!(place.last(), Some(Step::Field(_)))
}

/// What stands above a field and is a field itself.
fn above(place: &[Step]) -> impl Iterator<Item = String> {
    let fields = (1..place.len()).filter(|end| {
        place[..*end]
            .iter()
            .any(|step| matches!(step, Step::Field(_)))
    });
    fields.map(|end| written(&place[..end]))
}

fn is_at_or_below(note: &Note, path: &str) -> bool {
    let rest = note.path.strip_prefix(path);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Something above it was set aside or refused as a whole, or refused beside it: what is refused anywhere is not used.
fn is_set_aside(notes: &[Note], place: &[Step]) -> bool {
    let above: Vec<String> = above(place).collect();
    let path = written(place);
    notes.iter().any(|note| match note.fate {
        Fate::Warned => above.contains(&note.path),
        Fate::Refused => {
            let beside = note
                .path
                .rsplit_once(['.', '['])
                .map_or("", |(parent, _)| parent);
            above.contains(&note.path) || path.starts_with(&note.path) || path.starts_with(beside)
        }
        _ => false,
    })
}

/// Whether a result holds a field of this name and value.
fn holds(result: &Value, name: &str, wanted: &Value) -> bool {
    match result {
        Value::Object(fields) => fields
            .iter()
            .any(|(known, value)| (known == name && value == wanted) || holds(value, name, wanted)),
        Value::Array(items) => items.iter().any(|item| holds(item, name, wanted)),
        _ => false,
    }
}

fn is_told(document: &Value, converted: &Converted, place: &[Step]) -> bool {
    let path = written(place);
    let named = |note: &Note| note.fate != Fate::Assumed && is_at_or_below(note, &path);
    let Some(Step::Field(name)) = place.last() else {
        return true;
    };
    let value = part(document, place);
    converted.notes.iter().any(named) || is_set_aside(&converted.notes, place) || {
        converted.resources.iter()
    }
    .any(|resource| {
        let body = Value::from(resource.body.clone());
        holds(&body, name, value)
    })
}

#[track_caller]
pub(super) fn assert_told(document: &Value, converted: &Converted, shown: &str) {
    let leaves = all_places(document)
        .into_iter()
        .filter(|place| is_leaf(document, place));
    for place in leaves {
        let path = written(&place);
        assert!(
            is_told(document, converted, &place),
            "{shown}: nothing is said of {path}, and it is not in the result:\n{document:#}\n{:#?}",
            converted.notes
        );
    }
}

/// Without a field something else comes of the document, or something else is said of it.
#[test]
fn every_field_makes_a_difference() {
    for (shown, file) in documents() {
        let (document, options) = (read(&file), options(&file));
        let whole = foreign::convert(&document, &options).unwrap();
        for place in all_places(&document) {
            if !is_leaf(&document, &place) || is_set_aside(&whole.notes, &place) {
                continue;
            }
            let Some((Step::Field(name), parent)) = place.split_last() else {
                continue;
            };
            let mut without = document.clone();
            part_mut(&mut without, parent)
                .as_object_mut()
                .unwrap()
                .remove(name);
            let less = foreign::convert(&without, &options);
            assert!(
                less.as_ref() != Some(&whole),
                "{shown}: {} is not looked at",
                written(&place)
            );
        }
    }
}

/// What may stand anywhere by mistake.
fn odd() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(7),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!("*"),
        json!("/"),
        json!("a\u{0}\u{1b}[31m\n${{ x }}{file=/etc/passwd}"),
        json!("é".repeat(5000)),
        json!([]),
        json!(["a", "a"]),
        json!([[]]),
        json!([{}]),
        json!({}),
        json!({"name": null, "x": {"y": [1]}}),
    ]
}

/// Checks one mutated document. What is not refused must be a configuration.
fn check(document: &Value, options: &Options, shown: &str, seen: &mut HashSet<String>) {
    let Some(converted) = foreign::convert(document, options) else {
        return;
    };
    for note in &converted.notes {
        assert!(!note.message.is_empty(), "{shown}: {note}");
        let line = note.to_string();
        assert!(!line.contains(char::is_control), "{shown}: {line:?}");
    }
    assert_told(document, &converted, shown);
    let native = converted.to_toml();
    if !converted.is_refused() && seen.insert(native.clone()) {
        is_accepted(&native, &converted, &format!("{shown}:\n{document:#}\n"));
    }
}

#[test]
fn mutated_documents_are_told_of_and_never_too_odd() {
    let mut checked = 0;
    for (shown, file) in documents() {
        let (document, options) = (read(&file), options(&file));
        let mut seen = HashSet::new();
        for place in all_places(&document) {
            let path = written(&place);
            for value in odd() {
                let mut mutated = document.clone();
                *part_mut(&mut mutated, &place) = value.clone();
                let text: String = value.to_string().chars().take(40).collect();
                check(
                    &mutated,
                    &options,
                    &format!("{shown}, {path} = {text}"),
                    &mut seen,
                );
                checked += 1;
            }
            for mutated in grown(&document, &place) {
                check(
                    &mutated,
                    &options,
                    &format!("{shown}, {path} grown"),
                    &mut seen,
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 10_000, "{checked}");
}

/// With one thing more: a field nobody knows, an item twice.
fn grown(document: &Value, place: &[Step]) -> Vec<Value> {
    let mut all = Vec::new();
    let mut mutated = document.clone();
    match part_mut(&mut mutated, place) {
        Value::Object(fields) => {
            let longer: Map<String, Value> =
                Map::from_iter([("surplus".to_owned(), json!("more"))]);
            fields.extend(longer);
            all.push(mutated);
        }
        Value::Array(items) => {
            items.extend(items.first().cloned());
            all.push(mutated);
        }
        _ => {}
    }
    all
}
