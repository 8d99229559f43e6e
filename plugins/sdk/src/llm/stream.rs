//! Follows a streamed answer: what it used, whether it ended, and, if the gateway asked for usage the
//! client did not want, which event must not reach the client.
//!
//! It owns the cut between what passes and what does not. Without [`StreamMode::strip`] every chunk goes on
//! untouched and at once. With it, so does every complete event, but for the one with empty `choices` and
//! a usage; an unfinished last event waits for its end, up to 1 MiB. JSON is parsed only of events in which
//! `"usage"` is followed by an object; an event that lies within one chunk is not copied. The outcome does
//! not depend on how the stream is cut.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memchr2;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::sse;
use super::usage::{self, Tally, Usage};

/// Events longer than this are neither held nor read.
const MAX_EVENT: usize = 1 << 20;
/// What is kept of the memory for such events from one to the next.
const KEEP: usize = 1 << 16;

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\":\""));

/// How a stream is followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamMode {
    /// Whether the event that carries nothing but the usage is to be kept from the client: see
    /// [`Edits::usage_injected`](super::splice::Edits::usage_injected).
    pub strip: bool,
}

/// One streamed answer, chunk by chunk.
#[derive(Debug)]
pub struct StreamUsage {
    strip: bool,
    /// The beginning of an event whose end has not come.
    tail: Vec<u8>,
    /// Whether there is such a beginning. `tail` is empty if it was longer than [`MAX_EVENT`].
    open: bool,
    oversize: bool,
    /// Whether it begins with a comment: that ends with its line, and does not wait for a blank one.
    comment: bool,
    /// Whether its last line is not complete.
    line_open: bool,
    /// Whether the last byte was a CR: an LF now belongs to it.
    after_cr: bool,
    /// Whether the last event was kept from the client.
    dropped: bool,
    seen: Seen,
}

/// What the stream said so far.
#[derive(Debug, Default)]
struct Seen {
    /// Whether an event has been read: a byte order mark can only begin the first.
    begun: bool,
    tally: Option<Tally>,
    /// An event of the answer came, with content or without.
    spoke: bool,
    content_events: u64,
    /// Those of them since a usage was last reported.
    unreported: u64,
    done: bool,
    ended: bool,
}

impl StreamUsage {
    /// Ready for the first byte.
    pub fn new(mode: StreamMode) -> Self {
        Self {
            strip: mode.strip,
            tail: Vec::new(),
            open: false,
            oversize: false,
            comment: false,
            line_open: false,
            after_cr: false,
            dropped: false,
            seen: Seen::default(),
        }
    }

    /// Takes the next bytes from the engine and returns those that go on to the client now: `chunk` itself
    /// unless something was held back or left out. May be empty.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        let bytes: &[u8] = &chunk;
        let mut out = Out::default();
        // Everything before `sent` is in `out` or dropped; the open event begins at `start`.
        let (mut sent, mut start, mut at) = (0, 0, 0);
        if let ([first, ..], true) = (bytes, self.after_cr) {
            self.after_cr = false;
            if *first == b'\n' {
                at = 1;
                start = usize::from(!self.open);
                sent = usize::from(!self.open && self.dropped);
            }
        }
        while let Some(len) = memchr2(b'\n', b'\r', bytes.get(at..).unwrap_or_default()) {
            let blank = len == 0 && !self.line_open;
            self.line_open = false;
            // An event ends with the first byte of the line's end; an LF after a CR goes the same way.
            let end = at + len + 1;
            at = match bytes.get(end - 1..) {
                Some([b'\r', b'\n', ..]) => end + 1,
                Some([b'\r']) => {
                    self.after_cr = true;
                    end
                }
                _ => end,
            };
            let comment = if self.open {
                self.comment
            } else {
                bytes.get(start) == Some(&b':')
            };
            if !blank && !comment {
                continue;
            }
            self.dropped =
                self.complete(bytes.get(start..end).unwrap_or_default(), comment) && self.strip;
            if self.dropped {
                out.push(chunk.slice(sent..start));
                sent = at;
            } else if self.strip && !self.tail.is_empty() {
                out.begin(std::mem::take(&mut self.tail));
            }
            self.tail.clear();
            self.tail.shrink_to(KEEP);
            (self.open, self.oversize) = (false, false);
            start = at;
        }
        self.line_open |= at < bytes.len();
        let passes = self.leave_open(bytes.get(start..).unwrap_or_default());
        if !self.strip {
            return chunk;
        }
        if passes && !self.tail.is_empty() {
            out.begin(std::mem::take(&mut self.tail));
        }
        let until = if passes { chunk.len() } else { start };
        match (sent, until == chunk.len(), out.is_empty()) {
            (0, true, true) => chunk,
            _ => {
                out.push(chunk.slice(sent..until));
                out.finish()
            }
        }
    }

    /// Ends the stream, and returns what was still held back.
    pub fn finish(&mut self) -> Option<Bytes> {
        let tail = std::mem::take(&mut self.tail);
        if !self.open || self.oversize {
            return None;
        }
        self.open = false;
        // Clients that read line by line do not wait for a blank one either.
        let dropped = !self.comment && self.seen.read(&tail);
        (self.strip && !dropped && !tail.is_empty()).then(|| tail.into())
    }

    /// The last usage the stream reported.
    pub fn usage(&self) -> Option<Usage> {
        self.seen.tally.as_ref().and_then(Tally::usage)
    }

    /// How many events carried content: about one a token, for estimates when no usage was reported. What only names a role or
    /// why the answer ends is none of them.
    pub fn content_events(&self) -> u64 {
        self.seen.content_events
    }

    /// How many of them came after the last report of a usage.
    pub fn unreported(&self) -> u64 {
        self.seen.unreported
    }

    /// Whether the answer has begun: an event of it came, with content or without.
    pub fn spoke(&self) -> bool {
        self.seen.spoke
    }

    /// Whether `data: [DONE]` came.
    pub fn saw_done(&self) -> bool {
        self.seen.done
    }

    /// Whether the stream said that it is complete: `[DONE]`, `message_stop`, or one of
    /// `response.completed`, `response.incomplete` and `response.failed`.
    pub fn ended(&self) -> bool {
        self.seen.done || self.seen.ended
    }

    /// Whether the bytes given out so far end inside an event. What was held back does not count: it is
    /// gone if the stream is given up here.
    pub fn inside_event(&self) -> bool {
        self.open && (!self.strip || self.oversize)
    }

    /// An event or comment ended with `piece`; whether it is to be dropped.
    fn complete(&mut self, piece: &[u8], comment: bool) -> bool {
        if comment {
            return false;
        }
        if self.oversize || self.tail.len() + piece.len() > MAX_EVENT {
            self.seen.content(b"");
            return false;
        }
        if self.tail.is_empty() {
            return self.seen.read(piece);
        }
        self.tail.extend_from_slice(piece);
        let dropped = self.seen.read(&self.tail);
        self.tail.truncate(self.tail.len() - piece.len());
        dropped
    }

    /// The chunk ended inside an event, of which it had `piece`; whether that is not held back.
    fn leave_open(&mut self, piece: &[u8]) -> bool {
        if !self.open {
            self.comment = piece.starts_with(b":");
            self.open = !piece.is_empty();
        }
        if self.oversize {
            return true;
        }
        if self.tail.len() + piece.len() > MAX_EVENT {
            self.oversize = true;
            return true;
        }
        self.tail.extend_from_slice(piece);
        !self.open
    }
}

impl Seen {
    /// Reads one whole event; whether it carries nothing but the usage.
    fn read(&mut self, event: &[u8]) -> bool {
        let mut rest = event;
        if !std::mem::replace(&mut self.begun, true) {
            rest = rest.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(rest);
        }
        let mut name: &[u8] = b"";
        let mut data: Option<Cow<'_, [u8]>> = None;
        while !rest.is_empty() {
            let at = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let (line, tail) = rest.split_at_checked(at).unwrap_or((rest, &[]));
            rest = tail.get(1..).unwrap_or_default();
            match sse::field(line) {
                (b"event", value) => name = value,
                (b"data", value) => match &mut data {
                    None => data = Some(Cow::Borrowed(value)),
                    Some(data) => {
                        data.to_mut().push(b'\n');
                        data.to_mut().extend_from_slice(value);
                    }
                },
                _ => {}
            }
        }
        data.is_some_and(|data| self.data(name, &data))
    }

    /// Counts an event of the answer. Only the first of a stream and the last are looked into.
    fn content(&mut self, data: &[u8]) {
        self.spoke = true;
        let looked_into = self.content_events == 0 || FINISH.find(data).is_some();
        if !(looked_into && is_silent(data)) {
            self.content_events += 1;
            self.unreported += 1;
        }
    }

    fn data(&mut self, name: &[u8], data: &[u8]) -> bool {
        if data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return false;
        }
        let name = if name.is_empty() { type_of(data) } else { name };
        match name {
            b"message_stop"
            | b"response.completed"
            | b"response.incomplete"
            | b"response.failed" => {
                self.ended = true;
            }
            b"" | b"message" if !data.starts_with(b"{\"error\"") => self.content(data),
            b"content_block_delta" => self.content(b""),
            _ if name.ends_with(b".delta") => self.content(b""),
            _ => {}
        }
        if !names_usage(data) {
            return false;
        }
        let Some(reported) = usage::in_event(data) else {
            return false;
        };
        self.unreported = 0;
        match &mut self.tally {
            Some(tally) => tally.merge(reported.tally),
            None => self.tally = Some(reported.tally),
        }
        if reported.alone && matches!(name, b"" | b"message") {
            self.content_events = self.content_events.saturating_sub(1);
        }
        reported.alone
    }
}

/// Whether the choices in an event's data say nothing: they only name a role, or why the answer ends.
fn is_silent(data: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Choice {
        text: Option<Value>,
        delta: Option<Map<String, Value>>,
    }
    #[derive(Deserialize)]
    struct Said {
        choices: Vec<Choice>,
    }
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    let silent = |choice: &Choice| {
        let fields = choice.delta.iter().flatten();
        let mut said = { fields.filter(|(name, _)| *name != "role") }.map(|(_, value)| value);
        let known = choice.text.is_some() || choice.delta.is_some();
        known && said.all(empty) && choice.text.iter().all(empty)
    };
    let said: Result<Said, _> = serde_json::from_slice(data);
    said.is_ok_and(|said| !said.choices.is_empty() && said.choices.iter().all(silent))
}

/// The `type` of an event whose stream gives no names but begins its data with it.
fn type_of(data: &[u8]) -> &[u8] {
    let value = data
        .strip_prefix(b"{\"type\":")
        .map(<[u8]>::trim_ascii_start);
    let inner = value.and_then(|value| value.strip_prefix(b"\""));
    inner
        .and_then(|inner| inner.split(|&b| b == b'"').next())
        .unwrap_or_default()
}

/// Whether `"usage"` is a key, and its value an object. In text a quote is escaped, and in most chunks the
/// value is `null`.
fn names_usage(data: &[u8]) -> bool {
    USAGE.find_iter(data).any(|at| {
        let after = data
            .get(at + b"\"usage\"".len()..)
            .unwrap_or_default()
            .trim_ascii_start();
        let value = after.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        value.is_some_and(|value| value.starts_with(b"{"))
    })
}

/// What goes on to the client: one shared piece if it can be, otherwise a copy.
#[derive(Default)]
struct Out {
    first: Bytes,
    joined: Vec<u8>,
}

impl Out {
    /// Puts what was held back before everything else.
    fn begin(&mut self, held: Vec<u8>) {
        self.joined = held;
    }

    fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        if self.is_empty() {
            self.first = piece;
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&self.first);
        }
        self.joined.extend_from_slice(&piece);
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.joined.is_empty()
    }

    fn finish(self) -> Bytes {
        if self.joined.is_empty() {
            self.first
        } else {
            self.joined.into()
        }
    }
}
