//! Phase 6: the answer's body, chunk by chunk.
//!
//! Synchronous and without allocation per chunk: the meter looks for usage, deadlines move, times are taken.
//! Both roads to an upstream, Pingora's and our own, pass through [`chunk`] and [`end`]. Plugins see what the meter lets pass.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use pingora_core::{Error, ErrorType, Result};
use tokio::time::Instant;
use tollgate_sdk::llm::stream::{StreamMode, StreamUsage};
use tollgate_sdk::llm::usage::{JsonUsage, Usage};

use super::account;
use super::alarm::Deadline;
use super::exchange::Exchange;
use super::plugins;

/// What is read from an answer to learn what it used.
#[derive(Default)]
pub(super) enum Meter {
    /// Nothing.
    #[default]
    None,
    /// The request was one for tokens; the answer's head has not come.
    Planned {
        /// The upstream was asked for usage that the client did not want.
        strip: bool,
    },
    /// A stream of events.
    Events {
        /// The reader.
        usage: Box<StreamUsage>,
        /// The upstream ends the stream by closing, so that only the stream itself tells whether it is whole.
        unframed: bool,
    },
    /// One JSON document.
    Document(Box<JsonUsage>),
    /// Read to the end.
    Done(Option<Usage>),
}

impl Meter {
    /// What a new attempt begins with.
    pub(super) fn fresh(&self) -> Meter {
        match self {
            Meter::Planned { strip } => Meter::Planned { strip: *strip },
            _ => Meter::None,
        }
    }

    /// Tokens used, and whether that is our estimate: an event with content is a token, and `prompt` says how many the prompt is
    /// taken to be. That is off by as much as events hold other than one token each, and as the request's tokens a byte differ
    /// from what its service's are on average.
    pub(super) fn usage(&self, prompt: impl FnOnce() -> u64) -> Option<(Usage, bool)> {
        let stream = match self {
            Meter::Done(usage) => return usage.map(|usage| (usage, false)),
            Meter::Events { usage, .. } => usage,
            _ => return None,
        };
        let output = stream.content_events();
        match stream.usage() {
            // It broke off. What it had said before was the count of that moment.
            Some(usage) if !stream.ended() && stream.unreported() > 0 => {
                let output = output.max(usage.output);
                Some((Usage { output, ..usage }, true))
            }
            Some(usage) => Some((usage, false)),
            None if output > 0 => {
                let input = prompt();
                let cached = 0;
                Some((
                    Usage {
                        input,
                        cached,
                        output,
                    },
                    true,
                ))
            }
            None => None,
        }
    }
}

/// Chooses how the answer with this head is read.
pub(super) fn begin(x: &mut Exchange, status: u16, head: &HeaderMap) {
    let kind = head
        .get(CONTENT_TYPE)
        .map(|value| value.as_bytes())
        .unwrap_or_default();
    x.event_stream = kind.starts_with(b"text/event-stream");
    let Meter::Planned { strip } = x.meter else {
        return;
    };
    x.meter = if x.event_stream {
        let unframed = !head.contains_key(CONTENT_LENGTH) && !head.contains_key(TRANSFER_ENCODING);
        Meter::Events {
            usage: Box::new(StreamUsage::new(StreamMode { strip })),
            unframed,
        }
    } else if status < 300 && kind.starts_with(b"application/json") {
        Meter::Document(Box::new(JsonUsage::new()))
    } else {
        Meter::None
    };
}

/// One chunk from the upstream, come at `now`; what goes on to the client.
pub(super) fn chunk(x: &mut Exchange, chunk: Bytes, now: Instant) -> Bytes {
    if chunk.is_empty() {
        return chunk;
    }
    if x.first_byte.is_none() {
        x.first_byte = Some(now);
        if let Some(attempt) = &mut x.attempt {
            attempt.guard.first_byte();
            let took = now.saturating_duration_since(attempt.asked);
            attempt.guard.state().first_byte(took, now.into_std());
        }
        if let Some(offer) = &x.offer {
            offer
                .metrics
                .handles()
                .first_token
                .observe((now - x.started).as_secs_f64());
        }
    } else if let (true, Some(last), Some(offer)) = (x.event_stream, x.last_chunk, &x.offer) {
        offer
            .metrics
            .handles()
            .inter_token
            .observe((now - last).as_secs_f64());
    }
    x.last_chunk = Some(now);
    x.set_deadline(now, Deadline::Idle);
    match &mut x.meter {
        Meter::Events { usage, .. } => usage.push(chunk),
        Meter::Document(usage) => {
            usage.push(&chunk);
            chunk
        }
        _ => chunk,
    }
}

/// The upstream ended its answer at `now`; `rest` is what came with its end. Returns what is still to go to the client.
///
/// # Errors
/// A stream that ends without its last event is not whole, whatever its framing says. A plugin may refuse the rest.
pub(super) fn end(x: &mut Exchange, rest: Option<Bytes>, now: Instant) -> Result<Option<Bytes>> {
    x.clear_deadline();
    let mut rest = rest;
    match &mut x.meter {
        Meter::Events { usage, unframed } => {
            if *unframed && usage.spoke() && !usage.ended() {
                let why = "stream without its end";
                return Err(Error::explain(ErrorType::ConnectionClosed, why).into_up());
            }
            if let Some(held) = usage.finish() {
                append(&mut rest, held);
            }
        }
        Meter::Document(_) => {
            if let Meter::Document(usage) = std::mem::take(&mut x.meter) {
                x.meter = Meter::Done(usage.finish());
            }
        }
        _ => {}
    }
    x.learn();
    let rest = plugins::last_chunk(x, rest)?;
    account::give_back(x, now);
    Ok(rest)
}

/// Adds held bytes behind a chunk.
fn append(body: &mut Option<Bytes>, held: Bytes) {
    *body = Some(match body.take() {
        Some(chunk) if !chunk.is_empty() => [chunk, held].concat().into(),
        _ => held,
    });
}
