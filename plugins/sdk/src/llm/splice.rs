//! The only two edits ever made to a body that a client sent: the model's name, and the request for usage in a stream.
//!
//! [`Edits::plan`] decides from a [`Peek`]; applying them knows nothing of JSON. Every byte outside the
//! edited ranges stays as it was sent, and no byte is copied that [`Edits::pieces`] can share.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::peek::{Peek, Shape};
use super::quote;

/// What is to be changed in one body. Nothing, by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// By position; they do not overlap.
    edits: [Option<Edit>; 2],
    usage_injected: bool,
}

/// `range` becomes `text`. An empty range is an insertion.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit {
    range: Range<usize>,
    text: Bytes,
}

impl Edits {
    /// The edits that make the body say `model` (an alias; `None` leaves it) and, if `usage`, ask for a
    /// last event with the usage, provided it asks for a stream and not for usage already.
    ///
    /// A body without `model`, or with `null`, gets one.
    pub fn plan(peek: &Peek, model: Option<&str>, usage: bool) -> Self {
        let model = model.and_then(|name| name_model(peek, name));
        let usage = if usage && peek.stream == Some(true) {
            include_usage(peek)
        } else {
            None
        };
        let usage_injected = usage.is_some();
        let edits = match (model, usage) {
            (Some(a), Some(b)) if b.range.start < a.range.start => [Some(b), Some(a)],
            // Only an insertion at the object's start can share its place with another; one is enough.
            (a, b) => [a, b],
        };
        Self {
            edits,
            usage_injected,
        }
    }

    /// Whether the body stays as it is.
    pub fn is_empty(&self) -> bool {
        self.edits.iter().all(Option::is_none)
    }

    /// Whether the engine was asked for usage the client did not want: the event that carries it must not
    /// reach the client ([`StreamMode::strip`](super::stream::StreamMode)).
    pub fn usage_injected(&self) -> bool {
        self.usage_injected
    }

    /// The length of a body of `len` bytes once edited: its Content-Length.
    pub fn edited_len(&self, len: usize) -> usize {
        let edits = self.edits.iter().flatten();
        edits.fold(len, |len, edit| {
            (len + edit.text.len()).saturating_sub(edit.range.len())
        })
    }

    /// One chunk of the body, which begins at `offset` of it, as edited: the pieces that replace it, in
    /// order, shared and not copied. Works for any way the body is cut.
    pub fn pieces(&self, chunk: &Bytes, offset: usize) -> impl Iterator<Item = Bytes> + use<> {
        let end = offset + chunk.len();
        let mut pieces: [Bytes; 5] = Default::default();
        let mut slots = pieces.iter_mut();
        let mut from = offset;
        let mut give = |piece: Bytes| {
            if let Some(slot) = slots.next() {
                *slot = piece;
            }
        };
        for edit in self.edits.iter().flatten() {
            let start = edit.range.start.clamp(from, end);
            give(chunk.slice(from - offset..start - offset));
            if (offset..end).contains(&edit.range.start) {
                give(edit.text.clone());
            }
            from = edit.range.end.clamp(start, end);
        }
        give(chunk.slice(from - offset..));
        pieces.into_iter().filter(|piece| !piece.is_empty())
    }
}

/// The whole body as edited; the same `Bytes` if there is nothing to edit, otherwise one copy.
pub fn splice(body: &Bytes, edits: &Edits) -> Bytes {
    if edits.is_empty() {
        return body.clone();
    }
    let mut out = BytesMut::with_capacity(edits.edited_len(body.len()));
    edits
        .pieces(body, 0)
        .for_each(|piece| out.extend_from_slice(&piece));
    out.freeze()
}

fn name_model(peek: &Peek, name: &str) -> Option<Edit> {
    let edit = |range: Range<usize>| Edit {
        range,
        text: quote(name).into(),
    };
    match (&peek.model, &peek.model_null) {
        (Some(model), _) if &*model.value == name => None,
        (Some(model), _) => Some(edit(model.range.clone())),
        (None, Some(null)) => Some(edit(null.clone())),
        (None, None) => Some(member(peek.object_start, peek.empty, "model", &quote(name))),
    }
}

fn include_usage(peek: &Peek) -> Option<Edit> {
    const OBJECT: &str = r#"{"include_usage":true}"#;
    let Some(options) = &peek.stream_options else {
        return Some(member(
            peek.object_start,
            peek.empty,
            "stream_options",
            OBJECT,
        ));
    };
    match &options.shape {
        _ if peek.include_usage == Some(true) => None,
        Shape::Null => Some(Edit {
            range: options.range.clone(),
            text: Bytes::from_static(OBJECT.as_bytes()),
        }),
        Shape::Without { start, empty } => Some(member(*start, *empty, "include_usage", "true")),
        Shape::With(range) => Some(Edit {
            range: range.clone(),
            text: Bytes::from_static(b"true"),
        }),
    }
}

/// Inserts a member at the beginning of an object.
fn member(start: usize, empty: bool, key: &str, value: &str) -> Edit {
    let comma = if empty { "" } else { "," };
    Edit {
        range: start..start,
        text: format!("\"{key}\":{value}{comma}").into(),
    }
}
