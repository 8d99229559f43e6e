//! Reads the few fields of a request that the gateway acts on, in one pass, without a tree.
//!
//! It owns the meaning of those fields and the refusal of everything that could make the engine see
//! another value than the gateway did: a key given twice (also when it is not one of ours), a key that
//! differs from ours in letter case only (Go's decoder takes it), a known field of the wrong type (Python
//! turns `"yes"` into true). It does not judge whether a value makes sense; the engine does.
//!
//! Against serde_json, for a body that is one object:
//! * **As strict, at every depth:** the grammar, numbers and literals included; nesting (127 levels);
//!   nothing after the object. And in the object's own members also: control characters, escapes,
//!   surrogates and UTF-8 in keys and strings, and numbers no 64-bit float can hold.
//! * **Stricter:** duplicate and lookalike keys, in the object and in `stream_options`; types of known
//!   fields; at most 1,024 keys of at most 1,024 bytes, numbers of at most 1,024.
//! * **Laxer, below the object's own members only** (not in `stream_options`): what is *inside* a string is
//!   not checked: control characters, unknown escapes, lone surrogates, bytes that are not UTF-8; nor is the
//!   range of numbers. Where a string ends does not depend on any of these, so no parser can disagree
//!   about what follows. The engine refuses such a body itself.

use std::ops::Range;
use std::sync::Arc;

use super::scan::{Kind, Visit, Walker};

pub use super::fault::{Fault, PeekError};

/// Keys of one object.
const MAX_KEYS: usize = 1024;
/// Bytes of `model` and `user` as written.
const MAX_TEXT: usize = 4096;
/// Bytes of a number as written.
const MAX_NUMBER: usize = 64;
/// Bytes of `stream_options` as written.
const MAX_OPTIONS: usize = 4096;

/// What the gateway needs to know about a request body. All offsets and ranges are in bytes from the
/// body's beginning. A field that is `null` counts as absent, as it does in every engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peek {
    /// `model`.
    pub model: Option<Text>,
    /// Where `model` is, if it is `null`.
    pub model_null: Option<Range<usize>>,
    /// `stream`.
    pub stream: Option<bool>,
    /// `max_tokens`, in tokens. Negative, which some engines take for "no limit", is `None`.
    pub max_tokens: Option<u64>,
    /// `max_completion_tokens`, likewise.
    pub max_completion_tokens: Option<u64>,
    /// `max_output_tokens`, likewise.
    pub max_output_tokens: Option<u64>,
    /// `stream_options`.
    pub stream_options: Option<Options>,
    /// `stream_options.include_usage`.
    pub include_usage: Option<bool>,
    /// `user`.
    pub user: Option<Text>,
    /// Offset just after the object's `{`.
    pub object_start: usize,
    /// Whether the object has no members.
    pub empty: bool,
    /// Length of the body.
    pub len: usize,
}

/// A string in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What it says, escapes resolved.
    pub value: Arc<str>,
    /// Where it is, quotes included.
    pub range: Range<usize>,
}

/// `stream_options`, as it stands in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Where the value is.
    pub range: Range<usize>,
    /// What it is.
    pub shape: Shape,
}

/// What `stream_options` holds, for whoever wants to edit it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// `null`.
    Null,
    /// An object without `include_usage`; `start` is the offset after its `{`.
    Without {
        /// Offset after the `{`.
        start: usize,
        /// Whether it has no members at all.
        empty: bool,
    },
    /// An object with `include_usage` (`true`, `false` or `null`), whose value is at this range.
    With(Range<usize>),
}

impl Peek {
    /// The most tokens the client asks for, whichever field it says so in: the largest of those given.
    pub fn output_limit(&self) -> Option<u64> {
        self.max_tokens
            .max(self.max_completion_tokens)
            .max(self.max_output_tokens)
    }
}

/// Peeks at a whole body.
///
/// # Errors
/// Whatever makes the body unreadable or ambiguous: see the module.
pub fn peek(body: &[u8]) -> Result<Peek, PeekError> {
    let mut scanner = Scanner::new();
    scanner.push(body)?;
    scanner.finish()
}

/// The same over a body that arrives in chunks. After an error it stays failed.
#[derive(Debug)]
pub struct Scanner {
    walker: Walker<Fields>,
    failed: Option<PeekError>,
    len: usize,
}

impl Scanner {
    /// Ready for the first byte.
    pub fn new() -> Self {
        Self {
            walker: Walker::new(Fields::default(), 0),
            failed: None,
            len: 0,
        }
    }

    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// As soon as the body is known to be bad, and at every call from then on.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), PeekError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.len += chunk.len();
        let result = self.walker.push(chunk);
        self.failed = result.clone().err();
        result
    }

    /// Ends the body.
    ///
    /// # Errors
    /// [`Fault::Truncated`], or what `push` reported.
    pub fn finish(self) -> Result<Peek, PeekError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let fields = self.walker.finish()?;
        Ok(Peek {
            empty: fields.keys.count == 0,
            len: self.len,
            ..fields.peek
        })
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

/// A field the gateway reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    StreamOptions,
    User,
}

impl Field {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Model, "model"),
        (Self::Stream, "stream"),
        (Self::MaxTokens, "max_tokens"),
        (Self::MaxCompletionTokens, "max_completion_tokens"),
        (Self::MaxOutputTokens, "max_output_tokens"),
        (Self::StreamOptions, "stream_options"),
        (Self::User, "user"),
    ];

    fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(field, _)| *field == self)
            .map_or("", |(_, name)| name)
    }

    /// The longest value, and what it must be besides `null`.
    fn accepts(self) -> (usize, Kind, &'static str) {
        match self {
            Self::Model | Self::User => (MAX_TEXT, Kind::Text, "a string"),
            Self::Stream => (MAX_NUMBER, Kind::Bool, "true or false"),
            Self::StreamOptions => (MAX_OPTIONS, Kind::Object, "an object"),
            Self::MaxTokens | Self::MaxCompletionTokens | Self::MaxOutputTokens => {
                (MAX_NUMBER, Kind::Number, "an integer")
            }
        }
    }
}

/// The members of the request.
#[derive(Debug, Default)]
struct Fields {
    peek: Peek,
    keys: Keys,
    /// The field whose value is being read.
    field: Option<Field>,
}

impl Visit for Fields {
    fn open(&mut self, at: usize) {
        self.peek.object_start = at;
    }

    fn key(&mut self, key: &[u8], at: usize) -> Result<Option<usize>, PeekError> {
        self.keys.admit(key, at)?;
        self.field = Field::ALL
            .iter()
            .find(|(_, name)| name.as_bytes() == key)
            .map(|(field, _)| *field);
        if self.field.is_none() {
            not_a_lookalike(key, at, Field::ALL.iter().map(|(_, name)| *name))?;
        }
        Ok(self.field.map(|field| field.accepts().0))
    }

    fn start(&mut self, kind: Kind, at: usize) -> Result<(), PeekError> {
        let Some(field) = self.field else {
            return Ok(());
        };
        let (_, wanted, expected) = field.accepts();
        if kind != wanted && kind != Kind::Null {
            return Err(PeekError::new(at, Fault::WrongType(field.name(), expected)));
        }
        Ok(())
    }

    fn value(&mut self, raw: &[u8], at: usize) -> Result<(), PeekError> {
        let Some(field) = self.field.take() else {
            return Ok(());
        };
        let range = at..at + raw.len();
        let null = raw == b"null";
        let peek = &mut self.peek;
        match field {
            Field::Model if null => peek.model_null = Some(range),
            Field::StreamOptions if null => {
                peek.stream_options = Some(Options {
                    range,
                    shape: Shape::Null,
                })
            }
            _ if null => {}
            Field::Model => peek.model = Some(decode(raw, range)?),
            Field::User => peek.user = Some(decode(raw, range)?),
            Field::Stream => peek.stream = Some(raw == b"true"),
            Field::MaxTokens => peek.max_tokens = count(raw, at, field)?,
            Field::MaxCompletionTokens => peek.max_completion_tokens = count(raw, at, field)?,
            Field::MaxOutputTokens => peek.max_output_tokens = count(raw, at, field)?,
            Field::StreamOptions => {
                let mut walker = Walker::new(Inner::default(), at);
                walker.push(raw)?;
                let inner = walker.finish()?;
                let shape = match inner.range {
                    Some(range) => Shape::With(range),
                    None => Shape::Without {
                        start: at + 1,
                        empty: inner.keys.count == 0,
                    },
                };
                peek.include_usage = inner.include_usage;
                peek.stream_options = Some(Options { range, shape });
            }
        }
        Ok(())
    }

    fn too_long(&self, at: usize) -> PeekError {
        PeekError::new(at, Fault::TooLong(self.field.map_or("", Field::name)))
    }
}

const INCLUDE_USAGE: &str = "include_usage";

/// The members of `stream_options`.
#[derive(Debug, Default)]
struct Inner {
    keys: Keys,
    include_usage: Option<bool>,
    range: Option<Range<usize>>,
}

impl Visit for Inner {
    fn open(&mut self, _at: usize) {}

    fn key(&mut self, key: &[u8], at: usize) -> Result<Option<usize>, PeekError> {
        self.keys.admit(key, at)?;
        if key == INCLUDE_USAGE.as_bytes() {
            return Ok(Some(MAX_NUMBER));
        }
        not_a_lookalike(key, at, std::iter::once(INCLUDE_USAGE))?;
        Ok(None)
    }

    fn start(&mut self, kind: Kind, at: usize) -> Result<(), PeekError> {
        if kind != Kind::Bool && kind != Kind::Null {
            let field = "stream_options.include_usage";
            return Err(PeekError::new(at, Fault::WrongType(field, "true or false")));
        }
        Ok(())
    }

    fn value(&mut self, raw: &[u8], at: usize) -> Result<(), PeekError> {
        self.range = Some(at..at + raw.len());
        self.include_usage = (raw != b"null").then_some(raw == b"true");
        Ok(())
    }

    fn too_long(&self, at: usize) -> PeekError {
        PeekError::new(at, Fault::TooLong("stream_options.include_usage"))
    }
}

/// The keys seen, as hashes: the same key always has the same hash, so no duplicate is missed; that two
/// of a thousand different keys share one, and are refused, has a chance of one in 10^13.
#[derive(Debug, Default)]
struct Keys {
    count: usize,
    first: [u64; 24],
    more: Vec<u64>,
}

impl Keys {
    fn admit(&mut self, key: &[u8], at: usize) -> Result<(), PeekError> {
        let hash = hash(key);
        let known = self.first.get(..self.count).unwrap_or(&self.first);
        if known.contains(&hash) || self.more.contains(&hash) {
            return Err(PeekError::new(at, Fault::DuplicateKey(text(key))));
        }
        if self.count >= MAX_KEYS {
            return Err(PeekError::new(at, Fault::TooManyKeys));
        }
        match self.first.get_mut(self.count) {
            Some(slot) => *slot = hash,
            None => self.more.push(hash),
        }
        self.count += 1;
        Ok(())
    }
}

/// A 64-bit hash by folded multiplication, eight bytes a step.
fn hash(key: &[u8]) -> u64 {
    let fold = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(0x9E37_79B9_7F4A_7C15_u64);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let (words, tail) = key.as_chunks::<8>();
    let state = words.iter().fold(0x2545_F491_4F6C_DD1D, |state, word| {
        fold(state, u64::from_le_bytes(*word))
    });
    let mut last = [0; 8];
    last.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
    fold(
        fold(state, u64::from_le_bytes(last)),
        key.len() as u64 | 1 << 63,
    )
}

/// Refuses a key that a parser blind to letter case takes for one of ours. Go's also folds the long s and
/// the Kelvin sign.
fn not_a_lookalike(
    key: &[u8],
    at: usize,
    mut names: impl Iterator<Item = &'static str>,
) -> Result<(), PeekError> {
    let found = if key.is_ascii() {
        names.find(|name| name.as_bytes().eq_ignore_ascii_case(key))
    } else {
        let folded = text(key).replace('\u{17F}', "s").replace('\u{212A}', "k");
        names.find(|name| name.eq_ignore_ascii_case(&folded))
    };
    match found {
        Some(field) => Err(PeekError::new(at, Fault::Lookalike(text(key), field))),
        None => Ok(()),
    }
}

/// A key, for an error.
fn text(key: &[u8]) -> Box<str> {
    String::from_utf8_lossy(key).into()
}

fn decode(raw: &[u8], range: Range<usize>) -> Result<Text, PeekError> {
    match super::text::decode(raw) {
        Ok(value) => Ok(Text {
            value: Arc::from(value),
            range,
        }),
        Err(flaw) => Err(PeekError::new(range.start, Fault::Text(flaw))),
    }
}

/// A number of tokens: integers, also written as `16.0` or `1e3`; negative is no limit.
fn count(raw: &[u8], at: usize, field: Field) -> Result<Option<u64>, PeekError> {
    let text = std::str::from_utf8(raw).unwrap_or_default();
    if let Ok(number) = text.parse::<u64>() {
        return Ok(Some(number));
    }
    match text.parse::<f64>() {
        Ok(number) if number < 0.0 => Ok(None),
        Ok(number) if number.fract() == 0.0 => Ok(Some(number as u64)),
        _ => Err(PeekError::new(
            at,
            Fault::WrongType(field.name(), "an integer"),
        )),
    }
}
