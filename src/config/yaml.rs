//! YAML, and JSON as the part of YAML it is: parser events to a tree.
//!
//! Scalars follow YAML 1.2's core schema, so `yes`, `on` and `no` are text. An alias stands for a copy of what its
//! anchor names; how much may be copied is limited, and so is the depth, because a small text can ask for a lot.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Place};
use tollgate_sdk::document::{At, Format, Key, Node, Quoted, Reading, Span, Value};

use super::diagnostic::line_and_column;

const MAX_DEPTH: usize = 64;
const MAX_COPIED: usize = 10_000;

/// Reads the only document of a text; `None` if its syntax is wrong, with the problems in `r`.
pub(super) fn read(text: &str, r: &mut Reading<'_>) -> Option<Node> {
    let mut builder = Builder {
        text,
        bytes: byte_of_char(text),
        open: Vec::new(),
        anchors: HashMap::new(),
        copied: 0,
        root: None,
    };
    let before = r.problems.len();
    for event in Parser::new_from_str(text) {
        let (event, place) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = builder.byte(error.marker().index());
                let help = match r.format {
                    Format::Json => Some("write the character itself, not its code"),
                    Format::Toml | Format::Yaml => advice(text, at),
                };
                r.error(Span::new(at, at), &At::ROOT, error.info(), help);
                return None;
            }
        };
        if builder.take(event, place, r).is_err() {
            return None;
        }
    }
    let empty = Node::new(Span::new(0, 0), Value::Table(Vec::new()));
    let root = match builder.root {
        None => empty,
        Some(root) if root.value == Value::Null => empty,
        Some(root) => root,
    };
    (r.problems.len() == before).then_some(root)
}

/// What to do about what people most often mistype.
fn advice(text: &str, at: usize) -> Option<&'static str> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(start..)?.lines().next()?;
    if line.starts_with('\t') {
        return Some("YAML is indented with spaces, not with tabs");
    }
    Some(
        "look at the indentation, and for a missing quote, bracket or colon, here and on the line before",
    )
}

/// The byte at which each character begins, and the text's end.
fn byte_of_char(text: &str) -> Vec<usize> {
    let starts = text.char_indices().map(|(at, _)| at);
    starts.chain([text.len()]).collect()
}

/// Something was reported that makes going on pointless.
struct Stop;

enum Open {
    List {
        anchor: usize,
        place: Place,
        items: Vec<Node>,
    },
    Table {
        anchor: usize,
        place: Place,
        entries: Vec<(Key, Node)>,
        key: Option<Key>,
    },
}

struct Builder<'t> {
    text: &'t str,
    bytes: Vec<usize>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    copied: usize,
    root: Option<Node>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, place: Place, r: &mut Reading<'_>) -> Result<(), Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let as_text =
                    tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                let value = match style {
                    ScalarStyle::Plain if !as_text => plain(text),
                    _ => Value::String(text.into_owned()),
                };
                self.add(Node::new(self.span(place), value), anchor, r)
            }
            Event::SequenceStart(anchor, _) => {
                let items = Vec::new();
                self.begin(
                    Open::List {
                        anchor,
                        place,
                        items,
                    },
                    place,
                    r,
                )
            }
            Event::MappingStart(anchor, _) => {
                let open = Open::Table {
                    anchor,
                    place,
                    entries: Vec::new(),
                    key: None,
                };
                self.begin(open, place, r)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (anchor, start, value) = match self.open.pop() {
                    Some(Open::List {
                        anchor,
                        place,
                        items,
                    }) => (anchor, place, Value::List(items)),
                    Some(Open::Table {
                        anchor,
                        place,
                        entries,
                        ..
                    }) => (anchor, place, Value::Table(entries)),
                    None => return Ok(()),
                };
                let span = self.span(Place::new(start.start, place.end));
                self.add(Node::new(span, value), anchor, r)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    r.error(
                        self.span(place),
                        &At::ROOT,
                        "an alias to what is not yet complete",
                        (),
                    );
                    return Err(Stop);
                };
                self.copied += count(&node);
                if self.copied > MAX_COPIED {
                    r.error(
                        self.span(place),
                        &At::ROOT,
                        "aliases stand for too much",
                        "write it out",
                    );
                    return Err(Stop);
                }
                self.add(node, 0, r)
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                let help = "keep one document in the file, or split it into files";
                r.error(
                    self.span(place),
                    &At::ROOT,
                    "a second document begins here",
                    help,
                );
                Err(Stop)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, open: Open, place: Place, r: &mut Reading<'_>) -> Result<(), Stop> {
        if self.open.len() == MAX_DEPTH {
            r.error(self.span(place), &At::ROOT, "nested too deeply", ());
            return Err(Stop);
        }
        self.open.push(open);
        Ok(())
    }

    /// Puts a complete value where it belongs: a key, the value of the last key, an element, or the whole.
    fn add(&mut self, node: Node, anchor: usize, r: &mut Reading<'_>) -> Result<(), Stop> {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Table { entries, key, .. }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let text = match node.value {
                        Value::String(text) => text,
                        Value::Bool(value) => value.to_string(),
                        Value::Int(value) => value.to_string(),
                        _ => {
                            r.error(node.span, &At::ROOT, "a key must be text", ());
                            return Err(Stop);
                        }
                    };
                    if let Some((first, _)) = entries.iter().find(|(key, _)| key.text == text) {
                        let (line, column) = line_and_column(self.text, first.span.start);
                        let message = format!("the key {} is given twice", Quoted(&text));
                        let help = format!("keep one; the first is at {line}:{column}");
                        r.error(node.span, &At::ROOT, message, help);
                    }
                    *key = Some(Key {
                        span: node.span,
                        text,
                    });
                }
            },
        }
        Ok(())
    }

    fn span(&self, place: Place) -> Span {
        Span::new(self.byte(place.start.index()), self.byte(place.end.index()))
    }

    fn byte(&self, char: usize) -> usize {
        let end = self.bytes.last().copied().unwrap_or_default();
        self.bytes.get(char).copied().unwrap_or(end)
    }
}

/// The value of an unquoted scalar.
fn plain(text: Cow<'_, str>) -> Value {
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let radix = |prefix, radix| i64::from_str_radix(text.strip_prefix(prefix)?, radix).ok();
    let whole = text
        .parse()
        .ok()
        .or_else(|| radix("0x", 16))
        .or_else(|| radix("0o", 8));
    if let Some(number) = whole {
        return Value::Int(number);
    }
    // Rust's parser also takes words such as "inf" and "nan", which are text here.
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'))
        && text.ends_with(|c: char| c.is_ascii_digit() || c == '.');
    match text.parse() {
        Ok(number) if numeric => Value::Float(number),
        _ => Value::String(text.into_owned()),
    }
}

/// How many values a tree holds.
fn count(node: &Node) -> usize {
    let below: usize = match &node.value {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Table(entries) => entries.iter().map(|(_, node)| count(node)).sum(),
        _ => 0,
    };
    below + 1
}
