//! Nothing of a foreign document is dropped in silence, and none of them is too odd: every field of every document beside the golden
//! files, at any depth, as it is and mutated.

use std::collections::HashSet;

use serde_json::{Value, json};
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

/// A field whose value is not told by its parts: text, a number, a list of them. What is empty says nothing.
fn is_leaf(document: &Value, place: &[Step]) -> bool {
    let plain = |value: &Value| !value.is_object() && !value.is_array();
    let value = part(document, place);
    let whole = match value {
        Value::Object(_) => false,
        Value::Array(items) => !items.is_empty() && items.iter().all(plain),
        Value::String(text) => !text.is_empty(),
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

/// Something above it was set aside or refused as a whole, or something beside it or below that was refused: what is refused anywhere is not used.
fn is_set_aside(notes: &[Note], place: &[Step]) -> bool {
    let above: Vec<String> = above(place).collect();
    let (path, parent) = (written(place), written(&place[..place.len() - 1]));
    notes.iter().any(|note| match note.fate {
        Fate::Warned => above.contains(&note.path),
        Fate::Refused => {
            let beside = note
                .path
                .rsplit_once(['.', '['])
                .map_or("", |(parent, _)| parent);
            above.contains(&note.path) || path.starts_with(beside) || is_at_or_below(note, &parent)
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

fn is_told(document: &Value, notes: &[Note], result: &Value, place: &[Step]) -> bool {
    let Some(Step::Field(name)) = place.last() else {
        return true;
    };
    let path = written(place);
    notes.iter().any(|note| is_at_or_below(note, &path))
        || is_set_aside(notes, place)
        || holds(result, name, part(document, place))
}

/// The fields of which nothing is said, and that are not in the result.
pub(super) fn untold(document: &Value, converted: &Converted) -> Vec<String> {
    let leaves = { all_places(document).into_iter() }.filter(|place| is_leaf(document, place));
    let bodies = converted
        .resources
        .iter()
        .map(|resource| resource.body.clone());
    let result: Value = bodies.map(Value::from).collect();
    let untold = leaves.filter(|place| !is_told(document, &converted.notes, &result, place));
    untold.map(|place| written(&place)).collect()
}

/// Without a field something else comes of the document, or something else is said of it.
#[test]
fn every_field_makes_a_difference() {
    let mut silent = Vec::new();
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
            let table = part_mut(&mut without, parent);
            table.as_object_mut().unwrap().remove(name);
            if foreign::convert(&without, &options).as_ref() == Some(&whole) {
                silent.push(format!("{shown}: {}", written(&place)));
            }
        }
    }
    assert_eq!(silent, [""; 0], "without these nothing changes");
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
        json!("é".repeat(300)),
        json!([]),
        json!(["a", "a"]),
        json!([[]]),
        json!([{}]),
        json!({}),
        json!({"name": null, "x": {"y": [1]}}),
    ]
}

/// What is wrong with what comes of a mutated document. What is not refused must be a configuration, unless it was `seen`.
fn faults(document: &Value, options: &Options, seen: Option<&mut HashSet<String>>) -> Vec<String> {
    let Some(converted) = foreign::convert(document, options) else {
        return Vec::new();
    };
    let untold = untold(document, &converted).into_iter();
    let untold = untold.map(|path| format!("nothing is said of {path}"));
    let mut faults: Vec<String> = untold.collect();
    for note in &converted.notes {
        let line = note.to_string();
        if note.message.is_empty() || line.contains(char::is_control) {
            faults.push(format!("{line:?} is no line"));
        }
    }
    let native = converted.to_toml();
    if !converted.is_refused() && seen.is_some_and(|seen| seen.insert(native.clone())) {
        faults.extend(is_accepted(&native, &converted).err());
    }
    faults
}

#[test]
fn mutated_documents_of_dstack() {
    mutated_documents_are_told_of("dstack/");
}

#[test]
fn mutated_documents_of_trustgate() {
    mutated_documents_are_told_of("trustgate/");
}

#[test]
fn mutated_documents_of_coreweave() {
    mutated_documents_are_told_of("coreweave/");
}

#[test]
fn mutated_documents_of_llumnix() {
    mutated_documents_are_told_of("llumnix/");
}

#[track_caller]
fn mutated_documents_are_told_of(system: &str) {
    let (mut checked, mut wrong) = (0, Vec::new());
    let documents = documents().into_iter();
    for (shown, file) in documents.filter(|(shown, _)| shown.starts_with(system)) {
        let (document, options) = (read(&file), options(&file));
        let mut seen = HashSet::new();
        for place in all_places(&document) {
            let path = written(&place);
            for (what, mutated) in mutations(&document, &place) {
                checked += 1;
                // That a thing is there twice is for the reader of the configuration to say.
                let seen = match what.as_str() {
                    "twice" => None,
                    _ => Some(&mut seen),
                };
                let faults = faults(&mutated, &options, seen).into_iter();
                wrong.extend(faults.map(|fault| format!("{shown}, {path}: {what}: {fault}")));
            }
        }
    }
    assert!(checked > 1_000, "{checked}");
    let shown: Vec<&str> = wrong.iter().take(30).map(String::as_str).collect();
    let shown = shown.join("\n");
    assert!(wrong.is_empty(), "{} in all:\n{shown}", wrong.len());
}

/// A document with other values at a place, and what was done to it.
fn mutations(document: &Value, place: &[Step]) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for value in odd() {
        let mut mutated = document.clone();
        let what: String = value.to_string().chars().take(40).collect();
        *part_mut(&mut mutated, place) = value;
        all.push((what, mutated));
    }
    all.extend(grown(document, place));
    all
}

/// With one thing more: a field nobody knows, an item twice.
fn grown(document: &Value, place: &[Step]) -> Option<(String, Value)> {
    let mut mutated = document.clone();
    let what = match part_mut(&mut mutated, place) {
        Value::Object(fields) => {
            fields.insert("surplus".to_owned(), json!("more"));
            "a field more"
        }
        Value::Array(items) => {
            items.extend(items.first().cloned());
            "twice"
        }
        _ => return None,
    };
    Some((what.to_owned(), mutated))
}
