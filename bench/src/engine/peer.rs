//! The other side of one request, whatever the protocol.
//!
//! `exchange` speaks to a `Peer` and knows neither framing nor sockets. Every operation fails with
//! the `End` that must follow: the protocol's own loop carries it out.

use std::future::Future;

use bytes::Bytes;

use super::faults::Cut;
use super::http1::Conn;
use super::http2::Stream;

/// Why an exchange ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client left.
    Gone,
    /// The client broke the protocol.
    Malformed,
    /// A fault ends the connection.
    Cut(Cut),
    /// A fault breaks the framing.
    Garbage,
}

/// A request without its body.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) protocol: &'static str,
    pub(super) method: String,
    /// Path and query.
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
}

impl Request {
    /// All values of a header, joined as a list.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    }

    /// The path without its query.
    pub(super) fn route(&self) -> &str {
        self.path
            .split_once('?')
            .map_or(&self.path, |(path, _)| path)
    }
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub(super) struct ReplyHead {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl ReplyHead {
    pub(super) fn json(status: u16) -> Self {
        Self {
            status,
            content_type: "application/json",
            headers: Vec::new(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Statuses that have no body by definition.
    pub(super) fn is_bodyless(&self) -> bool {
        matches!(self.status, 204 | 304)
    }
}

/// One request's client.
#[derive(Debug)]
pub(super) enum Peer<'c> {
    One(&'c mut Conn),
    Two(&'c mut Stream),
}

impl Peer<'_> {
    /// The whole request body; `None` when it is longer than `limit`.
    pub(super) async fn whole(&mut self, limit: usize) -> Result<Option<Bytes>, End> {
        match self {
            Self::One(conn) => conn.whole(limit).await,
            Self::Two(stream) => stream.whole(limit).await,
        }
    }

    /// The next piece of the request body, of at most `max` bytes.
    pub(super) async fn piece(&mut self, max: usize) -> Result<Option<Bytes>, End> {
        match self {
            Self::One(conn) => conn.piece(max).await,
            Self::Two(stream) => stream.piece(max).await,
        }
    }

    /// Waits for `future`, but no longer than the client stays.
    pub(super) async fn until<F: Future>(&mut self, future: F) -> Result<F::Output, End> {
        match self {
            Self::One(conn) => conn.until(future).await,
            Self::Two(stream) => stream.until(future).await,
        }
    }

    /// An answer in one piece.
    pub(super) async fn full(&mut self, head: &ReplyHead, body: Vec<u8>) -> Result<(), End> {
        let length = body.len();
        self.partial(head, body, length).await
    }

    /// As `full`, with a length announced that the body need not have; the rest never comes.
    pub(super) async fn partial(
        &mut self,
        head: &ReplyHead,
        body: Vec<u8>,
        length: usize,
    ) -> Result<(), End> {
        match self {
            Self::One(conn) => conn.full(head, &body, length).await,
            Self::Two(stream) => stream.full(head, body, length).await,
        }
    }

    /// The head of an answer in chunks. It leaves with the first chunk, or with `flush`.
    pub(super) fn begin(&mut self, head: &ReplyHead) -> Result<(), End> {
        match self {
            Self::One(conn) => {
                conn.begin(head);
                Ok(())
            }
            Self::Two(stream) => stream.begin(head),
        }
    }

    /// Sends what is still held back.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        match self {
            Self::One(conn) => conn.flush().await,
            Self::Two(_) => Ok(()),
        }
    }

    /// Sends these chunks at once, each framed by itself.
    pub(super) async fn chunks<'b>(
        &mut self,
        chunks: impl Iterator<Item = &'b [u8]>,
    ) -> Result<(), End> {
        match self {
            Self::One(conn) => {
                chunks.for_each(|chunk| conn.push_chunk(chunk));
                conn.flush().await
            }
            Self::Two(stream) => {
                for chunk in chunks {
                    stream.data(Bytes::copy_from_slice(chunk), false).await?;
                }
                Ok(())
            }
        }
    }

    /// Ends an answer in chunks.
    pub(super) async fn end(&mut self) -> Result<(), End> {
        match self {
            Self::One(conn) => conn.end().await,
            Self::Two(stream) => stream.data(Bytes::new(), true).await,
        }
    }
}
