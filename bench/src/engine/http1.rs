//! HTTP/1.1 written by hand: one task per connection, one write per flush.
//!
//! A plain request whose body is already there is answered by `reply::instant` into the output
//! buffer, and everything pipelined behind it too, before one write. All else becomes a `Request` and
//! goes through `exchange`. While an exchange waits, the socket is read, so a client that leaves is
//! noticed at once; what it pipelines meanwhile is kept.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::chunked::{Chunked, Found};
use super::clock::DateCache;
use super::exchange;
use super::faults::Cut;
use super::head::{Framing, Head, request};
use super::io::{Io, Rewound};
use super::peer::{End, Peer, ReplyHead};
use super::reply;
use super::text::append_number;
use super::worker::Worker;

/// What a client may send ahead while it waits for an answer.
const MAX_AHEAD: usize = 256 << 10;
/// Bytes asked of the socket at once.
const READ: usize = 16 << 10;
/// Replies to pipelined requests are sent when this much is waiting.
const MAX_HELD: usize = 64 << 10;
/// How long a refused client may go on sending before the connection closes on it.
const LINGER: Duration = Duration::from_secs(2);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection until either side ends it. A connection that opens with HTTP/2's preface
/// is handed back with what was read.
pub(super) async fn run(worker: Worker, io: Io) -> Option<Rewound> {
    let mut conn = Conn::new(io, worker.shared.config.name.clone());
    if conn.opens_with_preface().await {
        return Some(Rewound {
            first: conn.buf.freeze(),
            io: conn.io,
        });
    }
    match conn.serve(&worker).await {
        Ok(()) | Err(End::Gone) => {}
        Err(End::Malformed) => conn.refuse(400).await,
        Err(End::Garbage) => {
            conn.out.extend_from_slice(b"not a chunk size\r\n");
            // The connection ends either way.
            let _ = conn.flush().await;
        }
        Err(End::Cut(Cut::Close)) => {}
        Err(End::Cut(Cut::Reset)) => conn.io.reset_on_close(),
    }
    None
}

#[derive(Debug, Clone, Copy)]
enum Body {
    Length(u64),
    Chunked(Chunked),
}

/// One connection and the exchange on it.
#[derive(Debug)]
pub(super) struct Conn {
    io: Io,
    buf: BytesMut,
    out: Vec<u8>,
    scratch: Vec<u8>,
    date: DateCache,
    name: Option<String>,
    body: Body,
    continue_due: bool,
    close: bool,
    old: bool,
    head_only: bool,
    /// The answer has begun: it is too late for a 400.
    begun: bool,
}

impl Conn {
    fn new(io: Io, name: Option<String>) -> Self {
        Self {
            io,
            buf: BytesMut::with_capacity(READ),
            out: Vec::with_capacity(4096),
            scratch: Vec::new(),
            date: DateCache::default(),
            name,
            body: Body::Length(0),
            continue_due: false,
            close: false,
            old: false,
            head_only: false,
            begun: false,
        }
    }

    async fn opens_with_preface(&mut self) -> bool {
        loop {
            let seen = self.buf.len().min(PREFACE.len());
            if self.buf.get(..seen) != PREFACE.get(..seen) {
                return false;
            }
            if seen == PREFACE.len() {
                return true;
            }
            if self.fill().await.is_err() {
                return false;
            }
        }
    }

    async fn serve(&mut self, worker: &Worker) -> Result<(), End> {
        loop {
            let head = match Head::read(&self.buf) {
                Ok(Some(head)) => head,
                Ok(None) => {
                    self.flush().await?;
                    self.fill().await?;
                    continue;
                }
                Err(status) => {
                    self.begun = false;
                    self.refuse(status).await;
                    return Ok(());
                }
            };
            if self.answer_at_once(worker, &head) {
                if head.close {
                    return self.flush().await;
                }
                if self.out.len() > MAX_HELD {
                    self.flush().await?;
                }
                continue;
            }
            self.flush().await?;
            let request = request(&self.buf);
            self.buf.advance(head.length);
            self.begin_exchange(&head);
            // Boxed, so that an idle connection does not carry the space of a whole exchange.
            Box::pin(exchange::serve(worker, &request, &mut Peer::One(self))).await?;
            self.flush().await?;
            if !self.body_is_done() {
                self.linger().await;
                return Ok(());
            }
            if self.close {
                return Ok(());
            }
        }
    }

    /// The fast path: true when the request was answered into `out` and taken off `buf`.
    fn answer_at_once(&mut self, worker: &Worker, head: &Head) -> bool {
        let Framing::Length(length) = head.framing else {
            return false;
        };
        let Ok(length) = usize::try_from(length) else {
            return false;
        };
        let end = head.length.saturating_add(length);
        let shared = &worker.shared;
        if head.has_faults || !head.is_post || head.old || !shared.is_instant() {
            return false;
        }
        if length > shared.config.max_body {
            return false;
        }
        let Some(body) = self.buf.get(head.length..end) else {
            return false;
        };
        let (created, date) = self.date.now();
        if !reply::instant(worker, head.endpoint, body, created, &mut self.scratch) {
            return false;
        }
        write_head(
            &mut self.out,
            &ReplyHead::json(200),
            date,
            self.name.as_deref(),
        );
        if head.close {
            self.out.extend_from_slice(b"connection: close\r\n");
        }
        write_length(&mut self.out, self.scratch.len());
        self.out.extend_from_slice(&self.scratch);
        self.buf.advance(end);
        true
    }

    fn begin_exchange(&mut self, head: &Head) {
        self.body = match head.framing {
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunked::Size),
        };
        self.continue_due = head.expects_continue && !self.body_is_done();
        self.close = head.close;
        self.old = head.old;
        self.head_only = head.is_head;
        self.begun = false;
    }

    fn body_is_done(&self) -> bool {
        matches!(self.body, Body::Length(0) | Body::Chunked(Chunked::Done))
    }

    /// Reads more; fails when the client has closed.
    async fn fill(&mut self) -> Result<(), End> {
        self.buf.reserve(READ);
        match self.io.read_buf(&mut self.buf).await {
            Ok(0) | Err(_) => Err(End::Gone),
            Ok(_) => Ok(()),
        }
    }

    async fn allow_body(&mut self) -> Result<(), End> {
        if std::mem::take(&mut self.continue_due) && self.buf.is_empty() {
            self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.flush().await?;
        }
        Ok(())
    }

    pub(super) async fn whole(&mut self, limit: usize) -> Result<Option<Bytes>, End> {
        if let Body::Length(length) = self.body {
            let Some(length) = usize::try_from(length)
                .ok()
                .filter(|length| *length <= limit)
            else {
                return Ok(None);
            };
            self.allow_body().await?;
            self.buf.reserve(length.saturating_sub(self.buf.len()));
            while self.buf.len() < length {
                self.fill().await?;
            }
            self.body = Body::Length(0);
            return Ok(Some(self.buf.split_to(length).freeze()));
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = self.piece(usize::MAX).await? {
            whole.extend_from_slice(&piece);
            if whole.len() > limit {
                return Ok(None);
            }
        }
        Ok(Some(whole.freeze()))
    }

    pub(super) async fn piece(&mut self, max: usize) -> Result<Option<Bytes>, End> {
        self.allow_body().await?;
        loop {
            match &mut self.body {
                Body::Length(0) => return Ok(None),
                Body::Length(left) => {
                    let ready = self.buf.len().min(max.max(1));
                    let take = ready.min(usize::try_from(*left).unwrap_or(usize::MAX));
                    if take > 0 {
                        *left -= take as u64;
                        return Ok(Some(self.buf.split_to(take).freeze()));
                    }
                }
                Body::Chunked(state) => match state.next(&mut self.buf, max) {
                    Found::Data(data) => return Ok(Some(data)),
                    Found::End => return Ok(None),
                    Found::Malformed => return Err(End::Malformed),
                    Found::NeedMore => {}
                },
            }
            self.fill().await?;
        }
    }

    pub(super) async fn until<F: Future>(&mut self, future: F) -> Result<F::Output, End> {
        let mut future = pin!(future);
        while self.buf.len() < MAX_AHEAD {
            tokio::select! {
                biased;
                value = &mut future => return Ok(value),
                filled = self.fill() => filled?,
            }
        }
        Ok(future.await)
    }

    pub(super) async fn full(
        &mut self,
        head: &ReplyHead,
        body: &[u8],
        length: usize,
    ) -> Result<(), End> {
        self.start(head);
        if head.is_bodyless() {
            self.out.extend_from_slice(b"\r\n");
        } else {
            write_length(&mut self.out, length);
            if !self.head_only {
                self.out.extend_from_slice(body);
            }
        }
        self.flush().await
    }

    pub(super) fn begin(&mut self, head: &ReplyHead) {
        if self.old {
            self.close = true;
        }
        self.start(head);
        let end: &[u8] = if self.old {
            b"\r\n"
        } else {
            b"transfer-encoding: chunked\r\n\r\n"
        };
        self.out.extend_from_slice(end);
    }

    fn start(&mut self, head: &ReplyHead) {
        self.begun = true;
        write_head(&mut self.out, head, self.date.now().1, self.name.as_deref());
        if self.close || !self.body_is_done() {
            self.out.extend_from_slice(b"connection: close\r\n");
        }
    }

    pub(super) async fn end(&mut self) -> Result<(), End> {
        if !self.old && !self.head_only {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        self.flush().await
    }

    pub(super) fn push_chunk(&mut self, bytes: &[u8]) {
        if self.head_only || bytes.is_empty() {
            return;
        }
        if self.old {
            self.out.extend_from_slice(bytes);
            return;
        }
        let digits = (usize::BITS - bytes.len().leading_zeros()).div_ceil(4);
        for k in (0..digits).rev() {
            let digit = (bytes.len() >> (4 * k)) as u32 & 15;
            self.out
                .push(char::from_digit(digit, 16).unwrap_or('0') as u8);
        }
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    pub(super) async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.io.write_all(&self.out).await.map_err(|_| End::Gone)?;
        if let Io::Tls(stream) = &mut self.io {
            stream.flush().await.map_err(|_| End::Gone)?;
        }
        self.out.clear();
        if self.out.capacity() > MAX_HELD * 4 {
            self.out = Vec::with_capacity(4096);
        }
        Ok(())
    }

    /// Answers a request that cannot be understood, and ends the connection.
    async fn refuse(&mut self, status: u16) {
        if !self.begun {
            self.close = true;
            let body = reply::error(status, "The request is not valid HTTP.", None);
            // The connection ends either way.
            let _ = self.full(&ReplyHead::json(status), &body, body.len()).await;
            self.linger().await;
        }
    }

    /// Closes so that the client can still read the answer: its unread bytes would else turn the
    /// close into a reset.
    async fn linger(&mut self) {
        let drain = async {
            self.io.shutdown().await?;
            loop {
                self.buf.clear();
                self.buf.reserve(READ);
                if self.io.read_buf(&mut self.buf).await? == 0 {
                    return std::io::Result::Ok(());
                }
            }
        };
        // A client that neither closes nor stops sending is cut off.
        let _ = timeout(LINGER, drain).await;
    }
}

/// Status line and headers, all but the framing.
fn write_head(out: &mut Vec<u8>, head: &ReplyHead, date: &str, name: Option<&str>) {
    if head.status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\ndate: ");
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        append_number(head.status, out);
        out.push(b' ');
        let reason = http::StatusCode::from_u16(head.status).ok();
        let reason = reason
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Unknown");
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\r\ndate: ");
    }
    out.extend_from_slice(date.as_bytes());
    out.extend_from_slice(b"\r\nserver: uvicorn\r\n");
    if !head.is_bodyless() {
        write_field(out, "content-type", head.content_type);
    }
    if let Some(name) = name {
        write_field(out, "x-sim-engine", name);
    }
    for (field, value) in &head.headers {
        write_field(out, field, value);
    }
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn write_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(b"content-length: ");
    append_number(length, out);
    out.extend_from_slice(b"\r\n\r\n");
}
