//! One HTTP/1.1 answer, read as it comes: its framing, the events in its body, and the tokens it says it used.
//!
//! What the load programs have in common. Knows no sockets and no clocks. It trusts nobody: what is not a well-formed
//! answer is an error, so a proxy that cuts or garbles streams cannot look fast.

use std::str;

use memchr::{memchr_iter, memmem};
use serde::Deserialize;

/// How the last event of a whole stream ends.
const LAST: &[u8] = b"data: [DONE]\n\n";
/// How much of a body's end is kept. The usage of an answer is in it, whatever engine says it.
const TAIL: usize = 1024;

/// What a piece of an answer brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the body.
    pub payload: usize,
    /// The answer is complete.
    pub ended: bool,
}

/// The tokens of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Of the prompt.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Of the reply.
    #[serde(default)]
    pub completion_tokens: u64,
    /// More about the prompt's.
    #[serde(default)]
    pub prompt_tokens_details: Option<PromptDetails>,
}

impl Usage {
    /// Prompt tokens that the engine had already; 0 if it does not say.
    pub fn cached(&self) -> u64 {
        self.prompt_tokens_details
            .map_or(0, |details| details.cached_tokens.unwrap_or(0))
    }
}

/// Where the tokens of a prompt came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PromptDetails {
    /// Those that were not computed again.
    #[serde(default)]
    pub cached_tokens: Option<u64>,
}

/// Reads one answer.
#[derive(Debug, Default)]
pub struct Answer {
    state: State,
    /// Its status; 0 until the head is complete.
    pub status: u16,
    /// Events seen so far.
    pub events: u64,
    /// The connection ends with this answer.
    pub closes: bool,
    at_newline: bool,
    tail: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// What has come of the head.
    Head(Vec<u8>),
    /// Bytes left of a body with a length.
    Length(u64),
    /// The line with the size of the next chunk.
    Size(u64),
    /// After the size, up to the end of its line.
    Extension(u64),
    /// Bytes left of the chunk.
    Data(u64),
    /// The end of line behind a chunk.
    Behind,
    /// Lines after the last chunk; whether this one has anything in it.
    Trailer(bool),
    Ended,
}

impl Default for State {
    fn default() -> State {
        State::Head(Vec::with_capacity(512))
    }
}

impl Answer {
    /// Takes what was read from the connection.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Progress, String> {
        let mut payload = 0;
        while !bytes.is_empty() {
            match &mut self.state {
                State::Head(held) => {
                    let before = held.len();
                    held.extend_from_slice(bytes);
                    let held = std::mem::take(held);
                    let Some(length) = self.head(&held)? else {
                        self.state = State::Head(held);
                        break;
                    };
                    bytes = bytes
                        .get(length.saturating_sub(before)..)
                        .unwrap_or_default();
                }
                State::Length(left) | State::Data(left) => {
                    let take = bytes
                        .len()
                        .min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= take as u64;
                    let over = *left == 0;
                    let (piece, rest) = bytes.split_at_checked(take).unwrap_or((bytes, &[]));
                    if over {
                        self.state = match self.state {
                            State::Data(_) => State::Behind,
                            _ => State::Ended,
                        };
                    }
                    payload += piece.len();
                    self.look(piece);
                    bytes = rest;
                }
                State::Ended => return Err("bytes behind the end of the answer".into()),
                _ => {
                    let Some((byte, rest)) = bytes.split_first() else {
                        break;
                    };
                    self.step(*byte)?;
                    bytes = rest;
                }
            }
        }
        let ended = matches!(self.state, State::Ended);
        Ok(Progress { payload, ended })
    }

    /// Whether the body ended like a whole stream of events.
    pub fn is_whole_stream(&self) -> bool {
        self.tail.ends_with(LAST)
    }

    /// The tokens that the answer says it used, if it says so at its end.
    pub fn usage(&self) -> Option<Usage> {
        const NAME: &[u8] = b"\"usage\":{";
        let object = memmem::rfind(&self.tail, NAME)?.checked_add(NAME.len() - 1)?;
        let mut values = serde_json::Deserializer::from_slice(self.tail.get(object..)?).into_iter();
        values.next()?.ok()
    }

    /// Reads the head, if it is all there; its length.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(bytes).map_err(|error| error.to_string())? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete(length) => length,
        };
        self.status = response.code.unwrap_or_default();
        let mut state = None;
        for header in response.headers.iter() {
            let value = str::from_utf8(header.value).unwrap_or_default().trim();
            if header.name.eq_ignore_ascii_case("content-length") {
                let left = value
                    .parse()
                    .map_err(|_| format!("Content-Length `{value}`"))?;
                state = Some(if left == 0 {
                    State::Ended
                } else {
                    State::Length(left)
                });
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                state = Some(State::Size(0));
            } else if header.name.eq_ignore_ascii_case("connection") {
                self.closes = value.eq_ignore_ascii_case("close");
            }
        }
        self.state = state.ok_or("an answer without framing")?;
        Ok(Some(length))
    }

    /// One byte between chunks.
    fn step(&mut self, byte: u8) -> Result<(), String> {
        self.state = match (&self.state, byte) {
            (State::Size(size), b'\r' | b';') => State::Extension(*size),
            (State::Size(size), _) => {
                let digit = char::from(byte)
                    .to_digit(16)
                    .ok_or("a chunk without a size")?;
                State::Size((size << 4) + u64::from(digit))
            }
            (State::Extension(0), b'\n') => State::Trailer(false),
            (State::Extension(size), b'\n') => State::Data(*size),
            (State::Extension(size), _) => State::Extension(*size),
            (State::Behind, b'\n') => State::Size(0),
            (State::Behind, b'\r') => State::Behind,
            (State::Behind, _) => return Err("a chunk longer than its size".into()),
            (State::Trailer(false), b'\n') => State::Ended,
            (State::Trailer(_), b'\n') => State::Trailer(false),
            (State::Trailer(filled), b'\r') => State::Trailer(*filled),
            _ => State::Trailer(true),
        };
        Ok(())
    }

    /// Counts events, and keeps the last bytes.
    fn look(&mut self, piece: &[u8]) {
        let mut last = if self.at_newline { Some(0) } else { None };
        for at in memchr_iter(b'\n', piece) {
            if last == Some(at) {
                self.events += 1;
                last = None;
            } else {
                last = Some(at + 1);
            }
        }
        self.at_newline = last == Some(piece.len());
        let keep = piece.len().saturating_sub(TAIL);
        self.tail
            .extend_from_slice(piece.get(keep..).unwrap_or_default());
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        9\r\ndata: a\n\n\r\n5;x=y\r\ndata:\r\n13\r\n b\n\ndata: [DONE]\n\n\n\r\n0\r\nX: y\r\n\r\n";

    #[test]
    fn a_stream_reads_the_same_however_it_is_cut() {
        for cut in 1..STREAM.len() {
            let mut answer = Answer::default();
            let (a, b) = STREAM.split_at(cut);
            let first = answer.push(a).unwrap();
            let second = answer.push(b).unwrap();
            assert!(!first.ended && second.ended, "cut at {cut}");
            assert_eq!(
                (answer.status, answer.events, first.payload + second.payload),
                (200, 3, 33),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn usage_is_read_from_the_end_of_a_stream_however_it_is_cut() {
        let usage = r#"data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":5}}}"#;
        let body = format!(
            "{}{usage}\n\ndata: [DONE]\n\n",
            "data: {\"usage\":null}\n\n".repeat(99)
        );
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let whole = [head.as_bytes(), body.as_bytes()].concat();
        for size in [1, 7, 100, whole.len()] {
            let mut answer = Answer::default();
            for piece in whole.chunks(size) {
                answer.push(piece).unwrap();
            }
            let usage = answer.usage().unwrap();
            assert_eq!(
                (usage.prompt_tokens, usage.completion_tokens, usage.cached()),
                (7, 2, 5)
            );
        }
        let mut silent = Answer::default();
        silent
            .push(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n\"usage\":null")
            .unwrap();
        assert_eq!(silent.usage(), None);
    }

    #[test]
    fn a_cut_stream_is_not_whole() {
        let mut answer = Answer::default();
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\ndata: a\n\n";
        assert!(!answer.push(head).unwrap().ended);
        assert!(!answer.is_whole_stream());
        assert!(answer.push(LAST).unwrap().ended);
        assert!(answer.is_whole_stream());
        assert!(answer.push(b"x").is_err());
    }
}
