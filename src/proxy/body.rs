//! Reading a request's body before it is forwarded: the early-body pattern.
//!
//! Pingora forwards what it reads itself and does not know of a body read here: that goes out by the exchange over our own connector; see
//! `recover`. A body that came in one read is short; a longer one stays in the pieces in which it came, none of them copied again.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, Version};
use pingora_core::Error;
use pingora_proxy::Session;
use prometheus::IntGauge;
use tokio::time::{Instant, timeout_at};
use tollgate_sdk::llm::peek::{Peek, PeekError, Scanner};
use tollgate_sdk::llm::splice::Edits;

use super::exchange::{Body, Exchange};
use super::reply::Rejection;

/// The longest body of which a copy costs less than sending it in parts.
const SHORT: usize = 64 * 1024;
/// A body must keep up this pace after its first `body_timeout`, bytes a second: dripping is not sending.
const MIN_PACE: u64 = 16 * 1024;

/// Why a body could not be read.
pub(super) enum Stop {
    /// It is answered.
    Reject(Rejection),
    /// The client is gone.
    Gone(Box<Error>),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Stop {
        Stop::Reject(rejection)
    }
}

/// All buffered bodies of the process together.
pub(crate) struct BodyMemory {
    used: AtomicU64,
    limit: AtomicU64,
    gauge: IntGauge,
}

/// A share of the memory for bodies, given back when dropped.
pub(super) struct BodyPermit {
    memory: Arc<BodyMemory>,
    held: u64,
}

impl BodyMemory {
    pub(crate) fn new(limit: u64, gauge: IntGauge) -> Arc<BodyMemory> {
        Arc::new(BodyMemory {
            used: AtomicU64::new(0),
            limit: AtomicU64::new(limit),
            gauge,
        })
    }

    fn permit(self: &Arc<Self>, bytes: u64) -> Result<BodyPermit, Rejection> {
        let mut permit = BodyPermit {
            memory: self.clone(),
            held: 0,
        };
        permit.grow(bytes)?;
        Ok(permit)
    }
}

impl BodyPermit {
    fn grow(&mut self, bytes: u64) -> Result<(), Rejection> {
        let limit = self.memory.limit.load(Ordering::Relaxed);
        let taken = self.memory.used.fetch_add(bytes, Ordering::Relaxed);
        if taken.saturating_add(bytes) > limit {
            self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Rejection::Overloaded);
        }
        self.held += bytes;
        self.memory.gauge.add(bytes as i64);
        Ok(())
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.held, Ordering::Relaxed);
        self.memory.gauge.sub(self.held as i64);
    }
}

/// What a head says of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// This many bytes follow.
    Known(u64),
    /// Chunks or frames until the end.
    Open,
}

/// The body's announced length. Pingora has refused what is not a number and lengths that differ.
pub(super) fn length(headers: &HeaderMap) -> Length {
    let Some(value) = headers.get(CONTENT_LENGTH) else {
        return Length::Open;
    };
    // Several that are the same are one; nearly always there is but one.
    let first = value.as_bytes().split(|byte| *byte == b',').next();
    let digits = first.unwrap_or_default().trim_ascii();
    let number = std::str::from_utf8(digits).ok();
    let number = number.and_then(|digits| digits.parse().ok());
    number.map_or(Length::Open, Length::Known)
}

/// Reads the whole body into `x`, peeking at it on the way when `peek` is set.
pub(super) async fn read(
    session: &mut Session,
    x: &mut Exchange,
    memory: &Arc<BodyMemory>,
    peek: bool,
) -> Result<(), Stop> {
    let Some(bounds) = x.bounds.clone() else {
        return Ok(());
    };
    let head = session.req_header();
    let length = length(&head.headers);
    if let Length::Known(bytes) = length
        && bytes > bounds.max_body
    {
        return Err(Rejection::TooLarge(bounds.max_body).into());
    }
    let continues = head.version == Version::HTTP_11 && head.headers.contains_key(EXPECT);
    let scanner = (peek && !is_form(&head.headers)).then(Scanner::new);
    x.body_permit = Some(memory.permit(0)?);
    if continues {
        session
            .write_continue_response()
            .await
            .map_err(Stop::Gone)?;
    }
    session.set_read_timeout(None);
    let mut reader = Reader {
        pieces: Pieces::default(),
        left: length,
        scanner,
        failed: None,
        since: None,
        read: 0,
        allowed: bounds.body_timeout,
    };
    while let Some(chunk) = reader.next(session).await? {
        if reader.read > bounds.max_body {
            return Err(Rejection::TooLarge(bounds.max_body).into());
        }
        // Counted as it comes: a head that only announces a body takes nothing from others.
        if let Some(permit) = &mut x.body_permit {
            permit.grow(chunk.len() as u64)?;
        }
        reader.take(chunk);
    }
    x.body_wait = { reader.since }.map_or(Duration::ZERO, |since| since.elapsed());
    x.request_is_read();
    let strict = || is_json(&session.req_header().headers);
    x.peek = finish_peek(reader.scanner, reader.failed, strict)?;
    x.body = match reader.pieces.are_short() {
        true => {
            let original = reader.pieces.into_one();
            Body::Short {
                outgoing: original.clone(),
                original,
            }
        }
        false => Body::Long {
            pieces: reader.pieces.into_list(),
            bytes: reader.read as usize,
            edits: Edits::default(),
        },
    };
    Ok(())
}

/// What the scan found. A body that is no JSON is only wrong where JSON was announced.
fn finish_peek(
    scanner: Option<Scanner>,
    failed: Option<PeekError>,
    strict: impl FnOnce() -> bool,
) -> Result<Option<Peek>, Rejection> {
    let result = match (failed, scanner) {
        (Some(error), _) => Err(error),
        (None, Some(scanner)) => scanner.finish().map(Some),
        (None, None) => Ok(None),
    };
    match result {
        Ok(peek) => Ok(peek),
        Err(_) if !strict() => Ok(None),
        Err(error) => Err(Rejection::invalid(
            format!("The request's JSON body is not usable: {error}."),
            None,
        )),
    }
}

struct Reader {
    pieces: Pieces,
    left: Length,
    scanner: Option<Scanner>,
    failed: Option<PeekError>,
    /// When it first had to be waited for.
    since: Option<Instant>,
    read: u64,
    allowed: Duration,
}

/// A body as it comes. Small pieces are put together: a list of single bytes would take fifty times their memory.
#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    open: BytesMut,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        const SMALL: usize = 4 * 1024;
        const FULL: usize = 64 * 1024;
        if piece.len() >= SMALL || (self.done.is_empty() && self.open.is_empty()) {
            self.close();
            self.done.push(piece);
            return;
        }
        self.open.extend_from_slice(&piece);
        if self.open.len() >= FULL {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.done.push(self.open.split().freeze());
        }
    }

    fn into_list(mut self) -> Vec<Bytes> {
        self.close();
        self.done
    }

    /// Whether they are one at most, and that is short.
    fn are_short(&self) -> bool {
        match &*self.done {
            [] => self.open.is_empty(),
            [one] => self.open.is_empty() && one.len() <= SHORT,
            _ => false,
        }
    }

    fn into_one(self) -> Bytes {
        self.into_list().pop().unwrap_or_default()
    }
}

impl Reader {
    async fn next(&mut self, session: &mut Session) -> Result<Option<Bytes>, Stop> {
        if self.left == Length::Known(0) && self.read > 0 && session.is_body_done() {
            return Ok(None);
        }
        let mut read = pin!(session.read_request_body());
        let read = match at_once(read.as_mut()).await {
            Some(read) => read,
            None => {
                let since = *self.since.get_or_insert_with(Instant::now);
                let paced = Duration::from_millis(self.read.saturating_mul(1000) / MIN_PACE);
                let read = timeout_at(since + self.allowed + paced, read).await;
                read.map_err(|_| Rejection::RequestTimeout)?
            }
        };
        let chunk = read.map_err(Stop::Gone)?;
        if let Some(chunk) = &chunk {
            self.read += chunk.len() as u64;
            if let Length::Known(left) = &mut self.left {
                *left = left.saturating_sub(chunk.len() as u64);
            }
        }
        Ok(chunk)
    }

    fn take(&mut self, chunk: Bytes) {
        if let (Some(scanner), None) = (&mut self.scanner, &self.failed) {
            // The chunk was just copied in by the socket: it is scanned while the cache still holds it.
            self.failed = scanner.push(&chunk).err();
        }
        self.pieces.push(chunk);
    }
}

/// What is there without waiting: it needs neither clock nor timer.
pub(super) async fn at_once<F: Future>(mut work: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Whether the body is said to be JSON; without a word it is taken to be.
fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_none_or(|value| {
        let kind = value
            .to_str()
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        kind.eq_ignore_ascii_case("application/json")
            || kind.to_ascii_lowercase().ends_with("+json")
    })
}

fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"multipart/"))
}
