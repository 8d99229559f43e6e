//! One change to one JSON text, as ranges that are replaced.
//!
//! Every operation is applied to the text the one before left, so that each sees the others' effect; a text is only copied by an
//! operation that changes it.

use std::ops::Range;

use tollgate_sdk::document::{FromText, Json};

use crate::json::{self, Kind, Malformed, Member};
use crate::path::{DottedPath, step};

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    path: String,
    /// What leads to the object or array that is changed.
    parents: Vec<String>,
    /// What is changed in it.
    last: String,
    change: Change,
}

#[derive(Clone, Debug)]
enum Change {
    /// To this name, as JSON.
    Rename {
        name: String,
        quoted: String,
    },
    Remove,
    /// To this value, as JSON.
    Set(String),
}

/// Why a text was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It is not JSON.
    Malformed,
    /// What stands before the end of this path has no fields.
    NotObject(String),
}

impl From<Malformed> for Misfit {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

type Edits = Vec<(Range<usize>, String)>;

/// The text after all operations, or `None` if none changed it.
pub(super) fn apply(operations: &[Operation], text: &str) -> Result<Option<String>, Misfit> {
    json::document(text)?;
    let mut changed: Option<String> = None;
    for operation in operations {
        // A key that repeats is taken out one by one.
        loop {
            let text = changed.as_deref().unwrap_or(text);
            let mut edits = Edits::new();
            let again = operation.edits(text, &mut edits)?;
            if edits.is_empty() {
                break;
            }
            changed = Some(json::splice(text, &edits));
            if !again {
                break;
            }
        }
    }
    Ok(changed)
}

impl Operation {
    fn new(path: &DottedPath, change: Change) -> Self {
        let (last, parents) = match path.parts() {
            [parents @ .., last] => (last.clone(), parents.to_vec()),
            [] => Default::default(),
        };
        Self {
            path: path.to_text(),
            parents,
            last,
            change,
        }
    }

    pub(super) fn rename(path: &DottedPath, name: &str) -> Self {
        let change = Change::Rename {
            name: name.to_owned(),
            quoted: json::quote(name),
        };
        Self::new(path, change)
    }

    pub(super) fn remove(path: &DottedPath) -> Self {
        Self::new(path, Change::Remove)
    }

    pub(super) fn set(path: &DottedPath, value: &Json) -> Self {
        Self::new(path, Change::Set(value.to_string()))
    }

    /// What is to be replaced; whether there may be more to do afterwards.
    fn edits(&self, text: &str, edits: &mut Edits) -> Result<bool, Misfit> {
        let mut holders = vec![json::document(text)?];
        for (depth, part) in self.parents.iter().enumerate() {
            let mut inside = Vec::new();
            for holder in holders {
                let before = inside.len();
                step(text, holder.clone(), part, &mut inside)?;
                if let (Change::Set(value), true) = (&self.change, inside.len() == before) {
                    let rest = self.parents.get(depth + 1..).unwrap_or_default();
                    let value = nested(rest, &self.last, value);
                    self.insert(text, holder, part, &value, edits)?;
                }
            }
            holders = inside;
        }
        let mut again = false;
        for holder in holders {
            again |= match json::kind(text, &holder) {
                Kind::Object => self.object(text, holder, edits)?,
                Kind::Array => self.array(text, holder, edits)?,
                Kind::Text | Kind::Number | Kind::Word => {
                    self.misfit_if_set()?;
                    false
                }
            };
        }
        // Members made at one depth may come before what was found at another.
        edits.sort_by_key(|(range, _)| range.start);
        Ok(again)
    }

    fn misfit_if_set(&self) -> Result<(), Misfit> {
        match self.change {
            Change::Set(_) => Err(Misfit::NotObject(self.path.clone())),
            Change::Rename { .. } | Change::Remove => Ok(()),
        }
    }

    fn object(&self, text: &str, holder: Range<usize>, edits: &mut Edits) -> Result<bool, Misfit> {
        let members = json::members(text, holder.start)?;
        let meant = |member: &&Member<'_>| self.last == "*" || member.key == self.last;
        match &self.change {
            Change::Set(value) => {
                let mut found = members.iter().filter(meant).peekable();
                if found.peek().is_none() {
                    self.insert(text, holder, &self.last, value, edits)?;
                }
                for member in found.filter(|m| text.get(m.value.clone()) != Some(value)) {
                    edits.push((member.value.clone(), value.clone()));
                }
                Ok(false)
            }
            Change::Rename { name, quoted } => {
                let taken = members.iter().any(|member| member.key == *name);
                let found = members.iter().find(meant).filter(|_| !taken);
                edits.extend(found.map(|member| (member.name.clone(), quoted.clone())));
                Ok(false)
            }
            Change::Remove => {
                let spans: Vec<_> = members.iter().map(|m| m.name.start..m.value.end).collect();
                let found = members.iter().position(|member| meant(&member));
                edits.extend(found.and_then(|at| Some((cut(&spans, at)?, String::new()))));
                Ok(found.is_some())
            }
        }
    }

    fn array(&self, text: &str, holder: Range<usize>, edits: &mut Edits) -> Result<bool, Misfit> {
        let elements = json::elements(text, holder.start)?;
        let meant = |at: usize| self.last == "*" || self.last.parse() == Ok(at);
        match &self.change {
            Change::Set(value) => {
                let found = elements
                    .into_iter()
                    .enumerate()
                    .filter(|(at, _)| meant(*at));
                edits.extend(found.map(|(_, range)| (range, value.clone())));
                Ok(false)
            }
            Change::Remove => {
                let found = (0..elements.len()).find(|at| meant(*at));
                edits.extend(found.and_then(|at| Some((cut(&elements, at)?, String::new()))));
                // The next element has the place of the one that is gone, and stays.
                Ok(self.last == "*" && found.is_some())
            }
            Change::Rename { .. } => Ok(false),
        }
    }

    /// Makes a member at the object's end.
    fn insert(
        &self,
        text: &str,
        holder: Range<usize>,
        key: &str,
        value: &str,
        edits: &mut Edits,
    ) -> Result<(), Misfit> {
        match json::kind(text, &holder) {
            Kind::Object if key == "*" => Ok(()),
            Kind::Object => {
                let last = json::members(text, holder.start)?.pop();
                let (at, comma) = match last {
                    Some(last) => (last.value.end, ","),
                    None => (holder.start + 1, ""),
                };
                edits.push((at..at, format!("{comma}{}:{value}", json::quote(key))));
                Ok(())
            }
            Kind::Array => Ok(()),
            Kind::Text | Kind::Number | Kind::Word => self.misfit_if_set(),
        }
    }
}

/// A value inside the objects that a path has on the way to it.
fn nested(parents: &[String], last: &str, value: &str) -> String {
    let inner = format!("{{{}:{value}}}", json::quote(last));
    let wrap = |inner, part: &String| format!("{{{}:{inner}}}", json::quote(part));
    parents.iter().rev().fold(inner, wrap)
}

/// What is cut out with one of several things between commas.
fn cut(spans: &[Range<usize>], at: usize) -> Option<Range<usize>> {
    let own = spans.get(at)?;
    let before = at.checked_sub(1).and_then(|before| spans.get(before));
    Some(match (before, spans.get(at + 1)) {
        (Some(before), _) => before.end..own.end,
        (None, Some(after)) => own.start..after.start,
        (None, None) => own.clone(),
    })
}
