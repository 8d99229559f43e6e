//! Edits to the members of a body's object: some left out, some set, in one pass, all else byte for byte.
//!
//! For bodies that are made of a request's for an engine of its own, as prefill and decode have them; what clients send to be forwarded is only ever
//! edited by [`splice`](super::splice). It knows where members begin, and nothing of what they mean.

use bytes::Bytes;

use super::fault::PeekError;
use super::quote;
use super::scan::{Kind, Visit, Walker};

/// Where the members of one object stand. Offsets are in bytes from the body's beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Names, escapes resolved, and where each begins: its opening quote.
    names: Vec<(Box<str>, usize)>,
    /// Just after the object's `{`.
    start: usize,
    /// Where its `}` is.
    end: usize,
}

impl Members {
    /// Finds the members of a body that is in these pieces.
    ///
    /// # Errors
    /// It is not one JSON object.
    pub fn of(pieces: &[Bytes]) -> Result<Members, PeekError> {
        let mut walker = Walker::new(Names::default(), 0);
        for piece in pieces {
            walker.push(piece)?;
        }
        let Names { names, start } = walker.finish()?;
        let len = pieces.iter().map(Bytes::len).sum();
        let end = last_before(pieces, len);
        Ok(Members { names, start, end })
    }

    /// Whether there is a member of this name.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|(known, _)| &**known == name)
    }

    /// One member by itself, as an object: `{"n": 2}`. A copy.
    pub fn alone(&self, pieces: &[Bytes], name: &str) -> Option<Vec<u8>> {
        let at = { self.names.iter() }.position(|(known, _)| &**known == name)?;
        let (_, from) = self.names.get(at)?;
        let mut alone = vec![b'{'];
        for piece in cut(pieces, *from, self.begin(at + 1)) {
            alone.extend_from_slice(&piece);
        }
        alone.truncate(alone.trim_ascii_end().len());
        if alone.ends_with(b",") {
            alone.pop();
        }
        alone.push(b'}');
        Some(alone)
    }

    /// The body without some members, and with others set: `with` are names and values as JSON, which come first. Pieces are shared,
    /// not copied. A name that is set need not be named in `without`.
    pub fn edit(&self, pieces: &[Bytes], without: &[&str], with: &[(&str, String)]) -> Vec<Bytes> {
        let goes = |name: &str| without.contains(&name) || with.iter().any(|(set, _)| *set == name);
        let stays: Vec<bool> = self.names.iter().map(|(name, _)| !goes(name)).collect();
        let last = stays.iter().rposition(|stays| *stays);
        let mut front = String::new();
        for (name, value) in with {
            let comma = if front.is_empty() { "" } else { "," };
            front.push_str(&format!("{comma}{}:{value}", quote(name)));
        }
        if last.is_some() && !front.is_empty() {
            front.push(',');
        }
        let mut out = cut(pieces, 0, self.start);
        out.push(front.into());
        for at in (0..stays.len()).filter(|at| stays.get(*at) == Some(&true)) {
            let (from, mut to) = (self.begin(at), self.begin(at + 1));
            if Some(at) == last && at + 1 < stays.len() {
                // What follows goes, and the comma before it.
                to = last_before(pieces, to);
            }
            out.extend(cut(pieces, from, to));
        }
        out.extend(cut(pieces, self.end, usize::MAX));
        out.retain(|piece| !piece.is_empty());
        out
    }

    /// Where the member at a place begins; the object's end behind the last.
    fn begin(&self, at: usize) -> usize {
        self.names.get(at).map_or(self.end, |(_, from)| *from)
    }
}

/// The value of one member of an object, as it is written; `None` if there is no such member.
///
/// # Errors
/// It is not one JSON object.
pub fn value(object: &Bytes, name: &str) -> Result<Option<Bytes>, PeekError> {
    let wanted = Wanted {
        name,
        is_next: false,
        found: None,
    };
    let mut walker = Walker::new(wanted, 0);
    walker.push(object)?;
    let found = walker.finish()?.found;
    Ok(found.map(|(from, to)| object.slice(from..to)))
}

/// The pieces of a range, shared.
fn cut(pieces: &[Bytes], from: usize, to: usize) -> Vec<Bytes> {
    let mut offset = 0;
    let mut out = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let end = offset + piece.len();
        let (first, last) = (from.clamp(offset, end), to.clamp(offset, end));
        if first < last {
            out.push(piece.slice(first - offset..last - offset));
        }
        offset = end;
    }
    out
}

/// The offset of the last byte before `to` that is no blank; 0 if there is none.
fn last_before(pieces: &[Bytes], to: usize) -> usize {
    let mut end: usize = pieces.iter().map(Bytes::len).sum();
    for piece in pieces.iter().rev() {
        let offset = end - piece.len();
        let before = piece.get(..to.clamp(offset, end) - offset);
        if let Some(length) = before.map(|b| b.trim_ascii_end().len()).filter(|n| *n > 0) {
            return offset + length - 1;
        }
        end = offset;
    }
    0
}

#[derive(Debug, Default)]
struct Names {
    names: Vec<(Box<str>, usize)>,
    start: usize,
}

impl Visit for Names {
    fn open(&mut self, at: usize) {
        self.start = at;
    }

    fn key(&mut self, key: &[u8], at: usize) -> Result<Option<usize>, PeekError> {
        self.names.push((String::from_utf8_lossy(key).into(), at));
        Ok(None)
    }

    fn start(&mut self, _kind: Kind, _at: usize) -> Result<(), PeekError> {
        Ok(())
    }

    fn value(&mut self, _raw: &[u8], _at: usize) -> Result<(), PeekError> {
        Ok(())
    }

    fn too_long(&self, at: usize) -> PeekError {
        // Nothing is asked for, so nothing is too long.
        PeekError::new(at, super::fault::Fault::TooManyKeys)
    }
}

struct Wanted<'n> {
    name: &'n str,
    is_next: bool,
    found: Option<(usize, usize)>,
}

impl Visit for Wanted<'_> {
    fn open(&mut self, _at: usize) {}

    fn key(&mut self, key: &[u8], _at: usize) -> Result<Option<usize>, PeekError> {
        self.is_next = key == self.name.as_bytes();
        Ok(self.is_next.then_some(usize::MAX))
    }

    fn start(&mut self, _kind: Kind, _at: usize) -> Result<(), PeekError> {
        Ok(())
    }

    fn value(&mut self, raw: &[u8], at: usize) -> Result<(), PeekError> {
        // Of two, engines and Python take the last.
        self.found = Some((at, at + raw.len()));
        Ok(())
    }

    fn too_long(&self, at: usize) -> PeekError {
        PeekError::new(at, super::fault::Fault::TooManyKeys)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn pieces(body: &str, every: usize) -> Vec<Bytes> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let starts = (0..body.len()).step_by(every.max(1));
        starts
            .map(|at| body.slice(at..(at + every.max(1)).min(body.len())))
            .collect()
    }

    /// The edited body, which does not depend on how it was cut.
    fn edited(body: &str, without: &[&str], with: &[(&str, String)]) -> String {
        let mut all = (1..=body.len()).map(|every| {
            let pieces = pieces(body, every);
            let members = Members::of(&pieces).unwrap();
            String::from_utf8(members.edit(&pieces, without, with).concat()).unwrap()
        });
        let first = all.next().unwrap();
        assert!(all.all(|other| other == first), "{first}");
        first
    }

    #[test]
    fn members_go_and_come_and_the_rest_stays_as_it_was() {
        let set = [("max_tokens", "1".to_owned())];
        for (body, without, with, expected) in [
            (r#"{"a":1,"b":2}"#, &["a"][..], &[][..], r#"{"b":2}"#),
            (r#"{"a":1, "b":2}"#, &["b"], &[], r#"{"a":1}"#),
            (r#" { "a" : 1 } "#, &["a"], &[], r#" {} "#),
            (r#"{"a":1,"b":2 ,"c":3}"#, &["b", "c"], &[], r#"{"a":1}"#),
            (r#"{"a":1,"b":2,"c":3}"#, &["a", "c"], &[], r#"{"b":2}"#),
            ("{}", &["a"], &set, r#"{"max_tokens":1}"#),
            (r#"{"max_tokens":9}"#, &[], &set, r#"{"max_tokens":1}"#),
            (
                r#"{ "x":{"max_tokens":9}, "max_tokens":9}"#,
                &[],
                &set,
                r#"{"max_tokens":1,"x":{"max_tokens":9}}"#,
            ),
            (
                r#"{"stre\u0061m":true,"b":2}"#,
                &["stream"],
                &[],
                r#"{"b":2}"#,
            ),
            (r#"{"a":",}","b":2}"#, &["b"], &[], r#"{"a":",}"}"#),
        ] {
            assert_eq!(edited(body, without, with), expected, "{body}");
        }
    }

    #[test]
    fn a_member_stands_alone() {
        let body = r#"{"n" : 2 , "prompt":["a,",  "b"]} "#;
        for every in 1..=body.len() {
            let pieces = pieces(body, every);
            let members = Members::of(&pieces).unwrap();
            assert_eq!(members.alone(&pieces, "n").unwrap(), br#"{"n" : 2 }"#);
            let prompt = br#"{"prompt":["a,",  "b"]}"#;
            assert_eq!(members.alone(&pieces, "prompt").unwrap(), prompt);
            assert!(members.alone(&pieces, "m").is_none() && !members.has("m"));
        }
    }

    #[test]
    fn a_value_is_as_it_was_written() {
        let read = |text: &'static str| value(&Bytes::from_static(text.as_bytes()), "k");
        let found = read(r#"{"x":{"k":0}, "k" : { "a" : 1.50 } }"#).unwrap();
        assert_eq!(found.unwrap(), r#"{ "a" : 1.50 }"#);
        assert_eq!(read(r#"{"k":null}"#).unwrap().unwrap(), "null");
        assert_eq!(read(r#"{"x":{"k":0}}"#).unwrap(), None);
        assert!(read("[1]").is_err() && read(r#"{"k":"#).is_err());
    }

    proptest! {
        #[test]
        fn edits_are_those_of_a_tree(
            fields in proptest::collection::btree_map("[a-e]", 0..9_u8, 0..5),
            without in proptest::collection::vec("[a-e]", 0..4),
            with in proptest::collection::btree_map("[a-g]", 10..20_u8, 0..3),
            pretty in any::<bool>(),
        ) {
            let mut tree = json!(fields);
            let body = match pretty {
                true => serde_json::to_string_pretty(&tree).unwrap(),
                false => tree.to_string(),
            };
            let without: Vec<&str> = without.iter().map(String::as_str).collect();
            let set: Vec<(&str, String)> =
                with.iter().map(|(name, value)| (name.as_str(), value.to_string())).collect();
            let edited: Value = serde_json::from_str(&edited(&body, &without, &set)).unwrap();
            let object = tree.as_object_mut().unwrap();
            without.iter().for_each(|name| {
                object.remove(*name);
            });
            object.extend(with.iter().map(|(name, value)| (name.clone(), json!(value))));
            prop_assert_eq!(edited, tree);
        }
    }
}
