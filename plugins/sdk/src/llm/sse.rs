//! Server-sent events, as the WHATWG's HTML standard has them, pushed in chunks.
//!
//! It owns the grammar: LF, CR and CRLF, a byte order mark, comments, data of several lines. It does not
//! know what the data means, and hands out bytes: nobody has checked that they are UTF-8. How the stream is
//! cut into chunks makes no difference to the events; an event that lies within one chunk and has one line
//! of data is not copied.

use std::fmt;

use memchr::{memchr, memchr2};

/// The longest line, and the most data of one event, unless told otherwise.
const LIMIT: usize = 1 << 20;

/// One event, valid until the next byte is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its type; empty where the stream gave none, which means `message`.
    pub event: &'a [u8],
    /// Its data, lines joined by LF. May be empty, if the stream had an empty `data` line.
    pub data: &'a [u8],
    /// The last id the stream gave, in this event or before; empty if none.
    pub id: &'a [u8],
}

/// A line, or the data of one event, is longer than the parser's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the event is too long")
    }
}

impl std::error::Error for TooLong {}

/// A push parser. An event that the stream's end cuts off is not reported, as the standard wants it.
#[derive(Debug)]
pub struct Parser {
    limit: usize,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    data: Vec<u8>,
    event: Vec<u8>,
    id: Vec<u8>,
    /// Whether the event has a `data` line; `data` may be empty all the same.
    has_data: bool,
    /// Whether the last byte was a CR: an LF now belongs to it.
    after_cr: bool,
    /// Whether a line has been read: a byte order mark can only begin the first.
    begun: bool,
}

/// One line of a stream.
enum Line<'a> {
    Blank,
    Data(&'a [u8]),
    Event(&'a [u8]),
    Id(&'a [u8]),
    /// Comments, `retry`, and names the standard does not know.
    Other,
}

impl Default for Parser {
    fn default() -> Self {
        Self::with_limit(LIMIT)
    }
}

impl Parser {
    /// A parser for lines and data of at most 1 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// A parser for lines and data of at most `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: Vec::new(),
            event: Vec::new(),
            id: Vec::new(),
            has_data: false,
            after_cr: false,
            begun: false,
        }
    }

    /// Takes the next bytes and calls `each` for every event they complete.
    ///
    /// # Errors
    /// [`TooLong`]; the parser is then of no further use.
    pub fn push(&mut self, chunk: &[u8], mut each: impl FnMut(Event<'_>)) -> Result<(), TooLong> {
        let mut rest = chunk;
        if self.after_cr {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            self.after_cr &= chunk.is_empty();
        }
        // What this chunk has said of the current event, not yet copied.
        let mut data: Option<&[u8]> = None;
        let mut event: Option<&[u8]> = None;
        while let Some(at) = memchr2(b'\n', b'\r', rest) {
            let (line, tail) = rest.split_at_checked(at).unwrap_or((rest, &[]));
            rest = match tail {
                [b'\r', b'\n', after @ ..] => after,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, after @ ..] => after,
                [] => &[],
            };
            if self.line.len() + line.len() > self.limit {
                return Err(TooLong);
            }
            if !self.line.is_empty() {
                self.line.extend_from_slice(line);
                let line = std::mem::take(&mut self.line);
                let read = self.read(&line);
                if let Line::Blank = read {
                    self.dispatch(&mut data, &mut event, &mut each);
                }
                self.copy(read)?;
                self.line = line;
                self.line.clear();
                continue;
            }
            match self.read(line) {
                Line::Blank => self.dispatch(&mut data, &mut event, &mut each),
                Line::Data(value) if !self.has_data && data.is_none() => data = Some(value),
                Line::Event(value) => event = Some(value),
                Line::Data(value) => {
                    if let Some(first) = data.take() {
                        self.copy(Line::Data(first))?;
                    }
                    self.copy(Line::Data(value))?;
                }
                other => self.copy(other)?,
            }
        }
        if let Some(value) = data {
            self.copy(Line::Data(value))?;
        }
        if let Some(value) = event {
            self.copy(Line::Event(value))?;
        }
        self.line.extend_from_slice(rest);
        if self.line.len() > self.limit {
            return Err(TooLong);
        }
        Ok(())
    }

    fn read<'a>(&mut self, line: &'a [u8]) -> Line<'a> {
        let mut line = line;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return Line::Blank;
        }
        match field(line) {
            (b"data", value) => Line::Data(value),
            (b"event", value) => Line::Event(value),
            (b"id", value) if !value.contains(&0) => Line::Id(value),
            _ => Line::Other,
        }
    }

    /// Takes over what a line said.
    fn copy(&mut self, line: Line<'_>) -> Result<(), TooLong> {
        match line {
            Line::Data(value) => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                if self.data.len() + value.len() > self.limit {
                    return Err(TooLong);
                }
                self.data.extend_from_slice(value);
            }
            Line::Event(value) => {
                self.event.clear();
                self.event.extend_from_slice(value);
            }
            Line::Id(value) => {
                self.id.clear();
                self.id.extend_from_slice(value);
            }
            Line::Blank | Line::Other => {}
        }
        Ok(())
    }

    fn dispatch(
        &mut self,
        data: &mut Option<&[u8]>,
        event: &mut Option<&[u8]>,
        each: &mut impl FnMut(Event<'_>),
    ) {
        let (data, event) = (data.take(), event.take());
        if self.has_data || data.is_some() {
            let data = data.unwrap_or(&self.data);
            let event = event.unwrap_or(&self.event);
            each(Event {
                event,
                data,
                id: &self.id,
            });
        }
        self.has_data = false;
        self.data.clear();
        self.event.clear();
    }
}

/// A line's name and value; a comment has no name.
pub(super) fn field(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b':', line).and_then(|at| line.split_at_checked(at)) {
        Some((name, [_, b' ', value @ ..] | [_, value @ ..])) => (name, value),
        _ => (line, &[]),
    }
}
