//! One pass over one JSON object, in chunks: the machine below [`peek`](super::peek) and
//! [`usage`](super::usage).
//!
//! It owns the grammar and says which member of the object begins and ends where; what a member means is
//! the [`Visit`]or's. The grammar is checked at every depth; strings are checked in full only where they
//! are members of the object itself (keys and values), numbers for their range likewise. Memory: the depth
//! as one bit a level, and the bytes of the one key or wanted value that lies across chunks, bounded by
//! its cap.

use fearless_simd::{Simd, dispatch};

use super::fault::{Fault, PeekError};
use super::number::{MAX_NUMBER, Number, representable};
use super::text::{self, Skipped, Strict};

/// Containers within each other, the object itself included: serde_json's limit.
const MAX_DEPTH: u8 = 127;
/// Bytes of a member's name as written, quotes included.
const MAX_KEY: usize = 1024;

/// The type of a value, told by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Bool,
    Null,
    Object,
    Array,
}

/// What is done with the members of the object. All offsets count from the start of the body.
pub(super) trait Visit {
    /// The object's `{` is behind; `at` is the offset after it.
    fn open(&mut self, at: usize);
    /// A member's name, decoded: UTF-8. `Some(max)` asks for its value, of at most `max` bytes as written.
    fn key(&mut self, key: &[u8], at: usize) -> Result<Option<usize>, PeekError>;
    /// The value asked for begins.
    fn start(&mut self, kind: Kind, at: usize) -> Result<(), PeekError>;
    /// The value asked for, as written, from its first byte (at `at`) to its last.
    fn value(&mut self, raw: &[u8], at: usize) -> Result<(), PeekError>;
    /// The value asked for is longer than wanted.
    fn too_long(&self, at: usize) -> PeekError;
}

/// The machine. After an error it must not be used again.
#[derive(Debug)]
pub(super) struct Walker<V> {
    pub(super) visit: V,
    place: Place,
    /// Offset of the current chunk.
    base: usize,
    /// Where the key or value being kept began.
    mark: Option<usize>,
    /// The cap of the wanted value, from its key to its end.
    want: Option<usize>,
    /// What earlier chunks held of the bytes being kept.
    held: Vec<u8>,
    strict: Strict,
}

/// Where in the grammar the scan stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    state: State,
    depth: u8,
    /// One bit a level, the innermost lowest: set for an object.
    kinds: u128,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Open,
    FirstKey,
    Key,
    Colon,
    FirstValue,
    Value,
    Next,
    Done,
    /// In a string that is kept, or deep enough not to be checked.
    Text {
        key: bool,
        escaped: bool,
    },
    /// In a string that is a member's value and only checked.
    Strict,
    Number(Number),
    /// In `true`, `false` or `null`; what is left of it, the next byte lowest.
    Literal(u32),
}

impl<V: Visit> Walker<V> {
    /// A walk over an object whose first byte is at `base` of the body.
    pub(super) fn new(visit: V, base: usize) -> Self {
        let place = Place {
            state: State::Open,
            depth: 0,
            kinds: 0,
        };
        Self {
            visit,
            place,
            base,
            mark: None,
            want: None,
            held: Vec::new(),
            strict: Strict::default(),
        }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), PeekError> {
        dispatch!(text::level(), simd => self.walk(simd, chunk))
    }

    #[inline(always)]
    fn walk<S: Simd>(&mut self, simd: S, chunk: &[u8]) -> Result<(), PeekError> {
        let end = self.base + chunk.len();
        let mut place = self.place;
        let mut rest = chunk;
        while let [byte, tail @ ..] = rest {
            let at = end - rest.len();
            match place.state {
                State::Next => match byte {
                    b',' => {
                        rest = tail.strip_prefix(b" ").unwrap_or(tail);
                        place.state = place.member();
                    }
                    b'}' | b']' if place.in_object() == (*byte == b'}') => {
                        rest = tail;
                        self.leave(&mut place, chunk, at + 1)?;
                    }
                    b' ' | b'\n' | b'\r' | b'\t' => rest = tail,
                    _ if place.in_object() => {
                        return Err(PeekError::new(at, Fault::Expected("`,` or `}`")));
                    }
                    _ => return Err(PeekError::new(at, Fault::Expected("`,` or `]`"))),
                },
                State::Key | State::FirstKey => match byte {
                    b'"' => {
                        if place.depth == 1 {
                            self.mark = Some(at);
                        }
                        rest = self.text(simd, &mut place, chunk, tail, true, false)?;
                        // Messages are little else than strings in objects: what is usual is not looked up.
                        if let (State::Value, 2.., [b'"', value @ ..]) =
                            (place.state, place.depth, rest)
                        {
                            rest = self.text(simd, &mut place, chunk, value, false, false)?;
                            if let (State::Next, [b',', after @ ..]) = (place.state, rest) {
                                rest = after.strip_prefix(b" ").unwrap_or(after);
                                place.state = State::Key;
                            }
                        }
                    }
                    b'}' if matches!(place.state, State::FirstKey) => {
                        rest = tail;
                        self.leave(&mut place, chunk, at + 1)?;
                    }
                    b' ' | b'\n' | b'\r' | b'\t' => rest = tail,
                    _ => return Err(PeekError::new(at, Fault::Expected("a key"))),
                },
                State::Colon => match byte {
                    b':' => (rest, place.state) = (tail, State::Value),
                    b' ' | b'\n' | b'\r' | b'\t' => rest = tail,
                    _ => return Err(PeekError::new(at, Fault::Expected("`:`"))),
                },
                State::Value | State::FirstValue => match byte {
                    b'"' if place.depth > 1 => {
                        rest = self.text(simd, &mut place, chunk, tail, false, false)?
                    }
                    b'1'..=b'9' if place.depth > 1 => {
                        // Arrays of token ids are little else than this.
                        let digits = tail.iter().take_while(|b| b.is_ascii_digit()).count();
                        let after = tail.get(digits..).unwrap_or_default();
                        (rest, place.state) = match after {
                            [b',', after @ ..] => {
                                (after.strip_prefix(b" ").unwrap_or(after), place.member())
                            }
                            _ => (after, State::Number(Number::Whole)),
                        };
                    }
                    b' ' | b'\n' | b'\r' | b'\t' => rest = tail,
                    b']' if matches!(place.state, State::FirstValue) => {
                        rest = tail;
                        self.leave(&mut place, chunk, at + 1)?;
                    }
                    _ => {
                        rest = tail;
                        self.enter(&mut place, *byte, at)?;
                    }
                },
                State::Text { key, escaped } => {
                    rest = self.text(simd, &mut place, chunk, rest, key, escaped)?
                }
                State::Strict => match self.strict.push(rest) {
                    Ok(Some(after)) => (rest, place.state) = (after, State::Next),
                    Ok(None) => rest = &[],
                    Err(flaw) => return Err(PeekError::new(at, Fault::Text(flaw))),
                },
                State::Number(number) => {
                    let (number, after) = number.run(rest);
                    rest = after;
                    place.state = State::Number(number);
                    if !rest.is_empty() {
                        let at = end - rest.len();
                        if !number.complete() {
                            return Err(PeekError::new(at, Fault::Expected("a digit")));
                        }
                        place.state = State::Next;
                        if place.depth == 1 {
                            self.end_of_value(chunk, at)?;
                        }
                    }
                }
                State::Literal(left) => {
                    if left & 0xFF != u32::from(*byte) {
                        return Err(PeekError::new(at, Fault::Expected("a value")));
                    }
                    rest = tail;
                    place.state = State::Literal(left >> 8);
                    if left >> 8 == 0 {
                        place.state = State::Next;
                        if place.depth == 1 {
                            self.end_of_value(chunk, at + 1)?;
                        }
                    }
                }
                State::Open => match byte {
                    b'{' => {
                        rest = tail;
                        place = Place {
                            state: State::FirstKey,
                            depth: 1,
                            kinds: 1,
                        };
                        self.visit.open(at + 1);
                    }
                    b' ' | b'\n' | b'\r' | b'\t' => rest = tail,
                    _ => return Err(PeekError::new(at, Fault::NotObject)),
                },
                State::Done => match byte {
                    b' ' | b'\n' | b'\r' | b'\t' => rest = tail,
                    _ => return Err(PeekError::new(at, Fault::Trailing)),
                },
            }
        }
        self.keep(chunk)?;
        self.place = place;
        self.base = end;
        Ok(())
    }

    /// Whether the object was complete when the body ended.
    pub(super) fn finish(self) -> Result<V, PeekError> {
        match self.place.state {
            State::Done => Ok(self.visit),
            State::Open => Err(PeekError::new(self.base, Fault::NotObject)),
            _ => Err(PeekError::new(self.base, Fault::Truncated)),
        }
    }

    /// Passes over a string that is kept or not checked; returns what follows it in the chunk.
    #[inline(always)]
    fn text<'a, S: Simd>(
        &mut self,
        simd: S,
        place: &mut Place,
        chunk: &[u8],
        rest: &'a [u8],
        key: bool,
        escaped: bool,
    ) -> Result<&'a [u8], PeekError> {
        match text::skip(simd, rest, escaped) {
            Skipped::Closed(after) => {
                place.state = if key { State::Colon } else { State::Next };
                if place.depth == 1 {
                    self.end_of_text(key, chunk, self.base + chunk.len() - after.len())?;
                }
                if let (true, [b':', after @ ..]) = (key, after) {
                    place.state = State::Value;
                    return Ok(after.strip_prefix(b" ").unwrap_or(after));
                }
                Ok(after)
            }
            Skipped::Open { escaped } => {
                place.state = State::Text { key, escaped };
                Ok(&[])
            }
        }
    }

    /// The first byte of a value, at `at`.
    #[inline(always)]
    fn enter(&mut self, place: &mut Place, byte: u8, at: usize) -> Result<(), PeekError> {
        let (state, kind) = match byte {
            b'"' => (
                State::Text {
                    key: false,
                    escaped: false,
                },
                Kind::Text,
            ),
            b'{' => (State::FirstKey, Kind::Object),
            b'[' => (State::FirstValue, Kind::Array),
            b'-' => (State::Number(Number::Minus), Kind::Number),
            b'0' => (State::Number(Number::Zero), Kind::Number),
            b'1'..=b'9' => (State::Number(Number::Whole), Kind::Number),
            b't' => (State::Literal(u32::from_le_bytes(*b"rue\0")), Kind::Bool),
            b'f' => (State::Literal(u32::from_le_bytes(*b"alse")), Kind::Bool),
            b'n' => (State::Literal(u32::from_le_bytes(*b"ull\0")), Kind::Null),
            _ => return Err(PeekError::new(at, Fault::Expected("a value"))),
        };
        place.state = state;
        if place.depth == 1 {
            if self.want.is_some() {
                self.visit.start(kind, at)?;
                self.mark = Some(at);
            } else if kind == Kind::Number {
                self.mark = Some(at);
            } else if kind == Kind::Text {
                place.state = State::Strict;
                self.strict = Strict::default();
            }
        }
        if matches!(kind, Kind::Object | Kind::Array) {
            if place.depth >= MAX_DEPTH {
                return Err(PeekError::new(at, Fault::TooDeep));
            }
            place.depth += 1;
            place.kinds = (place.kinds << 1) | u128::from(kind == Kind::Object);
        }
        Ok(())
    }

    /// A container closed; `to` is the offset after it.
    #[inline(always)]
    fn leave(&mut self, place: &mut Place, chunk: &[u8], to: usize) -> Result<(), PeekError> {
        place.depth -= 1;
        place.kinds >>= 1;
        match place.depth {
            0 => place.state = State::Done,
            1 => {
                place.state = State::Next;
                self.end_of_value(chunk, to)?;
            }
            _ => place.state = State::Next,
        }
        Ok(())
    }

    /// A string that is a member's name, or its wanted value, ended before `to`.
    #[inline(never)]
    fn end_of_text(&mut self, key: bool, chunk: &[u8], to: usize) -> Result<(), PeekError> {
        if !key {
            return self.end_of_value(chunk, to);
        }
        let Some(at) = self.mark.take() else {
            return Ok(());
        };
        let raw = kept(&mut self.held, chunk, self.base, at, to);
        if raw.len() > MAX_KEY {
            return Err(PeekError::new(at, Fault::KeyTooLong));
        }
        self.want = match text::plain(raw) {
            Some(key) => self.visit.key(key, at)?,
            None => {
                let key =
                    text::decode(raw).map_err(|flaw| PeekError::new(at, Fault::Text(flaw)))?;
                self.visit.key(key.as_bytes(), at)?
            }
        };
        self.held.clear();
        Ok(())
    }

    /// A member's value ended before `to`.
    #[inline(never)]
    fn end_of_value(&mut self, chunk: &[u8], to: usize) -> Result<(), PeekError> {
        let Some(at) = self.mark.take() else {
            return Ok(());
        };
        let raw = kept(&mut self.held, chunk, self.base, at, to);
        match self.want.take() {
            Some(max) if raw.len() > max => return Err(self.visit.too_long(at)),
            want => {
                if matches!(raw, [b'-' | b'0'..=b'9', ..]) && !representable(raw) {
                    return Err(PeekError::new(at, Fault::Number));
                }
                if want.is_some() {
                    self.visit.value(raw, at)?;
                }
            }
        }
        self.held.clear();
        Ok(())
    }

    /// At the end of a chunk: copies what it has of the key or value being kept.
    fn keep(&mut self, chunk: &[u8]) -> Result<(), PeekError> {
        let Some(at) = self.mark else {
            return Ok(());
        };
        let from = at.saturating_sub(self.base);
        self.held
            .extend_from_slice(chunk.get(from..).unwrap_or_default());
        match self.want {
            Some(max) if self.held.len() > max => Err(self.visit.too_long(at)),
            None if self.held.len() > MAX_KEY && self.held.starts_with(b"\"") => {
                Err(PeekError::new(at, Fault::KeyTooLong))
            }
            None if self.held.len() > MAX_NUMBER => Err(PeekError::new(at, Fault::Number)),
            _ => Ok(()),
        }
    }
}

/// The bytes from `from` to `to`: a piece of the chunk, or, if they began in an earlier one, `held` with
/// this chunk's part appended.
fn kept<'a>(
    held: &'a mut Vec<u8>,
    chunk: &'a [u8],
    base: usize,
    from: usize,
    to: usize,
) -> &'a [u8] {
    let upto = to.saturating_sub(base);
    if from >= base {
        return chunk.get(from - base..upto).unwrap_or_default();
    }
    held.extend_from_slice(chunk.get(..upto).unwrap_or_default());
    held
}

impl Place {
    #[inline]
    fn in_object(&self) -> bool {
        self.kinds & 1 == 1
    }

    /// What follows a comma.
    #[inline]
    fn member(&self) -> State {
        if self.in_object() {
            State::Key
        } else {
            State::Value
        }
    }
}
