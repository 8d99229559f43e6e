//! What a schema may refer to: parts of itself, and no part that leads back to itself.
//!
//! It owns the rules that keep a schema's use free of I/O and bounded. A schema that refers to itself makes the work of one request
//! grow exponentially with the depth of its body wherever two alternatives go on into the same part, so that a small body can stop
//! a processor; what is nested is written out to the depth that is needed.

use std::collections::BTreeMap;

use serde_json::Value;

/// The only dialect, which a schema may name.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Keywords whose members are named by whoever writes the schema.
const NAMED: [&str; 5] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
];
/// Keywords whose values are no schemas.
const DATA: [&str; 4] = ["const", "enum", "default", "examples"];
/// The deepest nesting of a schema.
const MAX_DEPTH: usize = 64;

/// What is wrong at a place of a schema.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// The names and indexes that lead there.
    pub(super) place: Vec<String>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Everything that is wrong with what a schema refers to.
pub(super) fn check(schema: &Value) -> Vec<Flaw> {
    let mut found = Found::default();
    found.look(schema, false, &mut Vec::new());
    if found.flaws.is_empty() {
        found.flaws.extend(circle(schema, &found.references));
    }
    found.flaws
}

#[derive(Default)]
struct Found {
    flaws: Vec<Flaw>,
    /// Where references stand, and the pointers they are.
    references: Vec<(Vec<String>, String)>,
}

impl Found {
    /// Looks through a schema, or through schemas by names of their own.
    fn look(&mut self, schema: &Value, named: bool, place: &mut Vec<String>) {
        if place.len() > MAX_DEPTH {
            let message = format!("the schema is nested deeper than {MAX_DEPTH}");
            self.flaw(place, message, "name parts of it in `$defs`");
            return;
        }
        match schema {
            Value::Object(members) => {
                for (name, value) in members {
                    place.push(name.clone());
                    if named {
                        self.look(value, false, place);
                    } else if !DATA.contains(&&**name) {
                        self.keyword(name, value, place);
                        self.look(value, NAMED.contains(&&**name), place);
                    }
                    place.pop();
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    place.push(index.to_string());
                    self.look(item, false, place);
                    place.pop();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn keyword(&mut self, name: &str, value: &Value, place: &[String]) {
        let local = "write it into `$defs`, and refer to it as \"#/$defs/name\"";
        match (name, value.as_str()) {
            ("$ref", Some(to)) => match to.strip_prefix('#') {
                Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => {
                    self.references.push((place.to_vec(), pointer.to_owned()));
                }
                Some(_) => self.flaw(place, "references are JSON pointers here", local),
                None => self.flaw(place, "nothing outside the schema is read", local),
            },
            ("$dynamicRef" | "$recursiveRef", _) => {
                self.flaw(place, format!("`{name}` is not supported"), local);
            }
            ("$id", Some(_)) if place.len() > 1 => {
                self.flaw(place, "a part of a schema has no `$id` here", local);
            }
            ("$schema", Some(dialect)) if dialect.trim_end_matches('#') != DIALECT => {
                let help = format!("write \"{DIALECT}\", or leave it out");
                self.flaw(place, "only draft 2020-12 is known", help);
            }
            _ => {}
        }
    }

    fn flaw(&mut self, place: &[String], message: impl Into<String>, help: impl Into<String>) {
        self.flaws.push(Flaw {
            place: place.to_vec(),
            message: message.into(),
            help: Some(help.into()),
        });
    }
}

/// The first reference that leads round in a circle: what is left when every part that leads only to parts without one is taken away.
fn circle(schema: &Value, references: &[(Vec<String>, String)]) -> Option<Flaw> {
    let mut parts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (_, pointer) in references {
        parts.entry(pointer).or_insert_with(|| {
            let mut inside = Found::default();
            if let Some(part) = schema.pointer(&decoded(pointer)) {
                inside.look(part, false, &mut Vec::new());
            }
            inside.references.into_iter().map(|(_, to)| to).collect()
        });
    }
    loop {
        let left = parts.len();
        let open: Vec<_> = parts.keys().map(|part| (*part).to_owned()).collect();
        parts.retain(|_, to| to.iter().any(|to| open.contains(to)));
        if parts.len() == left {
            break;
        }
    }
    let (place, _) = { references.iter() }.find(|(_, to)| parts.contains_key(to.as_str()))?;
    Some(Flaw {
        place: place.clone(),
        message: "the schema refers to itself here".into(),
        help: Some("write what is nested out to the depth that is needed".into()),
    })
}

/// A pointer without the percent signs of a URL's fragment.
fn decoded(pointer: &str) -> String {
    percent_encoding::percent_decode_str(pointer)
        .decode_utf8_lossy()
        .into_owned()
}
