//! Phase 2, the chain: plugins look at a request before it is routed, change it or refuse it.
//!
//! A gateway's chain runs before routing, the chains of the service and the rule when they are known. What a plugin changes of headers is kept
//! in the exchange and done wherever heads are made; a changed body takes the place of the client's. A plugin that panics or takes
//! too long harms no other exchange.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderMap;
use pingora_proxy::Session;
use tokio::time::{Instant, timeout};
use tollgate_sdk::llm::peek::peek;
use tollgate_sdk::plugin::{Edits, Exchange as View, HeaderEdit, Request, State, Step, Verdict};

use super::exchange::{Body, Exchange};
use super::reply::Rejection;
use crate::model::OnError;
use crate::snapshot::{Chain, Link};

/// How a plugin ended.
enum Ended {
    Verdict(Verdict),
    /// It panicked or took too long; in words for the operator.
    Broken(&'static str),
}

/// Runs a chain's `pre_request` stage.
pub(super) async fn pre_request(
    session: &Session,
    x: &mut Exchange,
    chain: &Arc<Chain>,
) -> Result<(), Rejection> {
    for link in &chain.links {
        let started = Instant::now();
        // A body in pieces is put together only for who looks at it.
        let body = match chain.needs.request_body {
            true => whole(x),
            false => Bytes::new(),
        };
        let mut edits = std::mem::take(&mut x.edits);
        let ended = run(session, x, link, body, &mut edits).await;
        link.seconds.observe(started.elapsed().as_secs_f64());
        if let Some(changed) = edits.body.take() {
            replace_body(x, changed);
        }
        x.edits = edits;
        match ended {
            Ended::Verdict(Ok(())) => {}
            Ended::Verdict(Err(refusal)) => return Err(Rejection::Plugin(Box::new(refusal))),
            Ended::Broken(how) => {
                link.errors.inc();
                log::error!("the plugin {} {how}", link.name);
                if link.on_error == OnError::Refuse {
                    x.cause = Some(format!("the plugin {} {how}", link.name));
                    return Err(Rejection::Internal);
                }
            }
        }
    }
    Ok(())
}

async fn run(
    session: &Session,
    x: &Exchange,
    link: &Link,
    body: Bytes,
    edits: &mut Edits,
) -> Ended {
    let head = session.req_header();
    let in_body = x.peek.as_ref().and_then(|peek| peek.model.as_ref());
    let gateway = x.gateway.as_ref().map_or("", |gateway| &*gateway.name);
    let mut state = State::default();
    let mut view = View {
        request: Request {
            method: &head.method,
            path: head.uri.path(),
            query: head.uri.query(),
            headers: &head.headers,
            id: x.request_id.as_str(),
            client: x.client,
            gateway,
            service: x.offer.as_ref().map(|offer| &*offer.service.name),
            principal: x.key.as_ref().map(|key| &key.principal),
            peek: x.peek.as_ref(),
            model: in_body.map(|model| &*model.value).or(x.model.as_deref()),
        },
        body,
        edits,
        state: &mut state,
    };
    let call = AssertUnwindSafe((&link.plugin, &mut view));
    let step = catch_unwind(move || {
        // The whole of it, or the closure takes the parts out of what asserts.
        let call = call;
        let (plugin, view) = call.0;
        plugin.pre_request(view)
    });
    match step {
        Ok(Step::Done(verdict)) => Ended::Verdict(verdict),
        Ok(Step::Wait(work)) => match timeout(link.timeout, unpanicked(work)).await {
            Ok(Some(verdict)) => Ended::Verdict(verdict),
            Ok(None) => Ended::Broken("panicked"),
            Err(_) => Ended::Broken("took too long"),
        },
        Err(_) => Ended::Broken("panicked"),
    }
}

/// What the work comes to, unless it panics.
async fn unpanicked<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(Poll::Ready(done)) => Poll::Ready(Some(done)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        },
    )
    .await
}

/// The body in one piece. Pieces are put together once, for whoever comes after, too.
fn whole(x: &mut Exchange) -> Bytes {
    match &mut x.body {
        Body::Unread => Bytes::new(),
        Body::Short { original, .. } => original.clone(),
        Body::Long { pieces, .. } => {
            if pieces.len() > 1 {
                *pieces = vec![pieces.concat().into()];
            }
            pieces.first().cloned().unwrap_or_default()
        }
    }
}

/// The request goes on with another body, and means what that says.
fn replace_body(x: &mut Exchange, body: Bytes) {
    x.peek = peek(&body).ok();
    match &mut x.body {
        Body::Short { original, outgoing } => {
            outgoing.clone_from(&body);
            *original = body;
        }
        Body::Long { pieces, bytes, .. } => {
            *bytes = body.len();
            *pieces = vec![body];
        }
        Body::Unread => {}
    }
}

/// Does to a request's headers what plugins want done.
pub(super) fn edit_request(x: &Exchange, headers: &mut HeaderMap) {
    for (name, edit) in &x.edits.request_headers {
        edit.clone().apply(name.clone(), headers);
    }
}

/// The same for an answer's.
pub(super) fn response_edits(x: &Exchange) -> &[(http::HeaderName, HeaderEdit)] {
    &x.edits.response_headers
}
