//! Plugins and the answer: its head, then its chunks, on whichever road they come.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use tollgate_sdk::plugin::{Exchange as View, ResponseHead, Stage};

use super::call::unpanicked;
use super::{Active, Ended, Running, judge, view};
use crate::model::OnError;
use crate::proxy::exchange::Exchange;
use crate::proxy::reply::Rejection;

/// Whether any plugin may look at the answer's body, so that it must be readable.
pub(in crate::proxy) fn watches(x: &Exchange) -> bool {
    let wanted = |active: &Active| {
        active
            .link()
            .is_some_and(|link| link.needs.chunks || link.needs.response_body)
    };
    x.plugins
        .as_ref()
        .is_some_and(|running| running.actives.iter().any(wanted))
}

/// Whether any plugin looks at the answer's head.
pub(in crate::proxy) fn answer(x: &Exchange) -> bool {
    let looks = |active: &Active| {
        let link = active.link();
        link.is_some_and(|link| link.stages.has(Stage::PreResponse))
    };
    let running = x.plugins.as_ref();
    running.is_some_and(|running| running.actives.iter().any(looks))
}

/// Runs the `pre_response` stage on the head of the answer that the client is to get.
pub(in crate::proxy) fn pre_response(
    session: &Session,
    x: &mut Exchange,
    headers: &mut HeaderMap,
) -> Result<()> {
    if !answer(x) {
        return Ok(());
    }
    let Some(mut running) = x.plugins.take() else {
        return Ok(());
    };
    let verdict = run(session.req_header(), x, &mut running, headers);
    if running.watching {
        // What goes on may be longer or shorter.
        headers.remove(CONTENT_LENGTH);
    }
    x.plugins = Some(running);
    verdict.map_err(|rejection| stop(x, rejection))
}

fn run(
    asked: &RequestHeader,
    x: &mut Exchange,
    running: &mut Running,
    headers: &mut HeaderMap,
) -> std::result::Result<(), Rejection> {
    for active in &mut running.actives {
        let Active {
            chain, link, state, ..
        } = active;
        let Some(link) = chain.links.get(*link) else {
            continue;
        };
        if !link.stages.has(Stage::PreResponse) {
            continue;
        }
        let started = std::time::Instant::now();
        let mut head = ResponseHead {
            status: x.status,
            headers,
            events: x.event_stream,
        };
        let (request, body, edits) = view(asked, x, started, false);
        let mut seen = View {
            request,
            body,
            edits,
            state,
        };
        let ended = unpanicked(|| link.plugin.pre_response(&mut seen, &mut head));
        link.seconds.observe(started.elapsed());
        judge(
            x,
            link,
            ended.map_or(Ended::Broken("panicked"), Ended::Verdict),
        )?;
        let whole = link.needs.response_body && !x.event_stream;
        active.watches = link.needs.chunks || link.needs.response_body;
        active.held = whole.then(Box::default);
        running.watching |= active.watches;
    }
    Ok(())
}

/// A piece of the answer as it goes on to the client; empty if all of it is held back.
pub(in crate::proxy) fn chunk(x: &mut Exchange, chunk: Bytes) -> Result<Bytes> {
    match watching(x) {
        false => Ok(chunk),
        true => pass(x, chunk, false),
    }
}

/// The rest of the answer, which has ended well.
pub(in crate::proxy) fn last_chunk(
    x: &mut Exchange,
    chunk: Option<Bytes>,
) -> Result<Option<Bytes>> {
    match watching(x) {
        false => Ok(chunk),
        true => pass(x, chunk.unwrap_or_default(), true).map(Some),
    }
}

fn watching(x: &Exchange) -> bool {
    x.plugins.as_ref().is_some_and(|running| running.watching)
}

fn pass(x: &mut Exchange, chunk: Bytes, end: bool) -> Result<Bytes> {
    let Some(mut running) = x.plugins.take() else {
        return Ok(chunk);
    };
    let limit = x.bounds.as_ref().map_or(u64::MAX, |b| b.max_body);
    let passed = through(&mut running, chunk, end, limit as usize);
    x.plugins = Some(running);
    passed.map_err(|rejection| stop(x, rejection))
}

fn through(
    running: &mut Running,
    mut chunk: Bytes,
    end: bool,
    limit: usize,
) -> std::result::Result<Bytes, Rejection> {
    for active in running.actives.iter_mut().filter(|active| active.watches) {
        if let Some(held) = &mut active.held {
            if held.len() + chunk.len() > limit {
                log::warn!("an answer is too large to be held for a plugin");
                return Err(Rejection::UpstreamError);
            }
            if !end {
                held.extend_from_slice(&chunk);
                return Ok(Bytes::new());
            }
            if !held.is_empty() {
                held.extend_from_slice(&chunk);
                chunk = held.split().freeze();
            }
        }
        if chunk.is_empty() && !end {
            return Ok(chunk);
        }
        let Active {
            chain, link, state, ..
        } = active;
        let Some(link) = chain.links.get(*link) else {
            continue;
        };
        let given = chunk.clone();
        chunk = match unpanicked(|| link.plugin.chunk(state, given, end)) {
            Some(Ok(chunk)) => chunk,
            Some(Err(refusal)) => return Err(Rejection::Plugin(refusal)),
            None => {
                link.errors.inc();
                log::error!("the plugin {} panicked", link.name);
                if link.on_error == OnError::Refuse {
                    return Err(Rejection::Internal);
                }
                // It has lost its thread: what follows passes it by.
                active.watches = false;
                chunk
            }
        };
    }
    Ok(chunk)
}

/// Ends the exchange on the plugins' word. Nobody else is to blame for that.
fn stop(x: &mut Exchange, rejection: Rejection) -> Box<Error> {
    x.refusal = Some(rejection);
    Error::explain(ErrorType::InternalError, "a plugin ended the exchange").into_in()
}
