//! Chains of plugins around an exchange: what runs when, and what becomes of what breaks down.
//!
//! `pre_request` runs where a chain is known: a key's and a gateway's before routing, those of the service and the rule after it. From then on the
//! plugins of all of them stand in one order, by priority, and each keeps its state until the exchange ends. What a plugin changes of
//! headers is kept in the exchange and done wherever heads are made; a changed body takes the place of the client's. A plugin that panics
//! or takes too long harms no other exchange. An exchange that no plugin concerns pays a look at an empty option.

mod answer;
mod call;
mod end;

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use smallvec::SmallVec;
use tollgate_sdk::llm::peek::peek;
use tollgate_sdk::plugin::{Edits, Exchange as View, HeaderEdit, Outcome, Request, Stage, State};

use self::call::{Begun, Ended, begin, join, tell};
use self::count::count;
use super::exchange::{Body, Exchange, asked_model};
use super::reply::Rejection;
use crate::model::OnError;
use crate::snapshot::{Chain, Link};

pub(super) use answer::{answer, chunk, last_chunk, pre_response, watches};
pub(super) use end::{Afterwards, after, finish};

/// The plugins of one exchange.
#[derive(Default)]
pub(super) struct Running {
    actives: SmallVec<[Active; 1]>,
    /// Some of them have a stage after `pre_request`.
    later: bool,
    /// Some of them have a `post_request` stage.
    post_request: bool,
    /// They stand in the order of the later stages.
    sorted: bool,
    /// Some of them look at the answer's chunks.
    watching: bool,
    /// What it came to, when that is known.
    outcome: Option<Box<Outcome>>,
}

/// One plugin in one exchange.
struct Active {
    chain: Arc<Chain>,
    link: usize,
    state: State,
    /// It looks at the answer's chunks.
    watches: bool,
    /// It waits for the whole of the answer; so much has come. Boxed, as the outcome is: most exchanges have neither.
    held: Option<Box<BytesMut>>,
}

impl Active {
    fn link(&self) -> Option<&Link> {
        self.chain.links.get(self.link)
    }
}

/// The request as plugins see it. No function: it borrows some fields of the exchange and leaves the others to be changed.
macro_rules! request {
    ($head:expr, $x:ident, $at:expr) => {{
        let head = $head;
        let (gateway, offer) = ($x.gateway.as_ref(), $x.offer.as_ref());
        let model = asked_model($x.peek.as_ref(), $x.model.as_ref());
        Request {
            method: &head.method,
            uri: &head.uri,
            headers: &head.headers,
            request_id: $x.request_id.as_value(),
            at: $at,
            client: $x.client,
            gateway: gateway.map_or("", |gateway| &*gateway.name),
            service: offer.map(|offer| &*offer.service.name),
            principal: $x.key.as_ref().map(|key| &key.principal),
            peek: $x.peek.as_ref(),
            length: $x.body.len(),
            model: model.map(|model| &**model),
        }
    }};
}

// After the macro, which it uses.
mod count;

/// Runs the `pre_request` stage of a chain in which nobody waits and each runs by itself: nothing is kept for later.
pub(super) fn run_at_once(
    head: &RequestHeader,
    x: &mut Exchange,
    chain: &Arc<Chain>,
) -> Result<(), Rejection> {
    let mut now = Instant::now();
    for (at, link) in chain.links.iter().enumerate() {
        if !link.charges.is_empty() {
            count(head, x, link, &mut now)?;
            continue;
        }
        let mut state = State::default();
        let mut verdict = Ok(());
        if link.stages.has(Stage::PreRequest) {
            let before = Lengths::of(&x.edits);
            let mut seen = show(head, x, link, &mut state, now);
            let ended = match begin(link, Stage::PreRequest, &mut seen) {
                Begun::Ended(ended) => ended,
                Begun::Waits(_) => Ended::Broken("waits, and did not say that it would"),
            };
            verdict = sum_up(x, link, before, ended, &mut now);
        }
        enlist(x, chain, at, link, state);
        verdict?;
    }
    Ok(())
}

/// Runs that of any chain.
pub(super) async fn run_patiently(
    head: &RequestHeader,
    x: &mut Exchange,
    chain: &Arc<Chain>,
) -> Result<(), Rejection> {
    let mut now = Instant::now();
    let mut at = 0;
    while let Some(link) = chain.links.get(at) {
        let first = at;
        at += link.together;
        if link.together > 1 {
            run_together(head, x, chain, first..at).await?;
            now = Instant::now();
            continue;
        }
        if !link.charges.is_empty() {
            count(head, x, link, &mut now)?;
            continue;
        }
        let mut state = State::default();
        let verdict = match link.stages.has(Stage::PreRequest) {
            true => run_one(head, x, link, Stage::PreRequest, &mut state, &mut now).await,
            false => Ok(()),
        };
        enlist(x, chain, first, link, state);
        verdict?;
    }
    Ok(())
}

/// The first target is chosen: from here on all plugins stand in one order. Whether there is a `post_request` stage to run, which is so once.
pub(super) fn line_up(x: &mut Exchange) -> bool {
    let Some(running) = &mut x.plugins else {
        return false;
    };
    if std::mem::replace(&mut running.sorted, true) {
        return false;
    }
    let priority = |active: &Active| active.link().map_or(0, |link| link.priority);
    running.actives.sort_by_key(priority);
    running.post_request
}

/// Runs the `post_request` stage.
pub(super) async fn post_request(session: &Session, x: &mut Exchange) -> Result<(), Rejection> {
    let Some(mut running) = x.plugins.take() else {
        return Ok(());
    };
    let head = session.req_header();
    let mut now = Instant::now();
    let mut verdict = Ok(());
    for active in &mut running.actives {
        let Active {
            chain, link, state, ..
        } = active;
        let Some(link) = chain.links.get(*link) else {
            continue;
        };
        if link.stages.has(Stage::PostRequest) && verdict.is_ok() {
            verdict = run_one(head, x, link, Stage::PostRequest, state, &mut now).await;
            x.splice_body();
        }
    }
    x.plugins = Some(running);
    verdict
}

/// Remembers a plugin that something is left to do for: to tell it of the end, at least.
fn enlist(x: &mut Exchange, chain: &Arc<Chain>, at: usize, link: &Link, state: State) {
    if state.is_empty() && !link.later {
        return;
    }
    let running = x.plugins.get_or_insert_default();
    running.later |= link.later;
    running.post_request |= link.stages.has(Stage::PostRequest);
    running.actives.push(Active {
        chain: chain.clone(),
        link: at,
        state,
        watches: false,
        held: None,
    });
}

/// Runs one plugin, which may wait. `now` is when the one before it ended, and moves on.
async fn run_one(
    head: &RequestHeader,
    x: &mut Exchange,
    link: &Link,
    stage: Stage,
    state: &mut State,
    now: &mut Instant,
) -> Result<(), Rejection> {
    let before = Lengths::of(&x.edits);
    let mut seen = show(head, x, link, state, *now);
    let begun = begin(link, stage, &mut seen);
    let ended = begun.ended(link.timeout).await;
    sum_up(x, link, before, ended, now)
}

/// What a plugin is shown.
fn show<'v>(
    head: &'v RequestHeader,
    x: &'v mut Exchange,
    link: &Link,
    state: &'v mut State,
    at: Instant,
) -> View<'v> {
    let reads = link.needs.request_body;
    if reads {
        in_one_piece(&mut x.body);
    }
    let (request, body, edits) = view(head, x, at, reads);
    View {
        request,
        body,
        edits,
        state,
    }
}

/// What it left is done.
fn sum_up(
    x: &mut Exchange,
    link: &Link,
    before: Lengths,
    ended: Ended,
    now: &mut Instant,
) -> Result<(), Rejection> {
    tell(link, now);
    if let Ended::Broken(_) = ended {
        // Half of what it wanted may be worse than nothing.
        before.cut(&mut x.edits);
    }
    if let Some(changed) = x.edits.body.take() {
        replace_body(x, changed);
    }
    judge(x, link, ended)
}

/// Runs neighbours at the same time. Each sees the request as it was before all of them; what they change is put together in their order.
async fn run_together(
    head: &RequestHeader,
    x: &mut Exchange,
    chain: &Arc<Chain>,
    group: std::ops::Range<usize>,
) -> Result<(), Rejection> {
    let links = chain.links.get(group.clone()).unwrap_or_default();
    let reads = links.iter().any(|link| link.needs.request_body);
    if reads {
        in_one_piece(&mut x.body);
    }
    // Who counts waits for nobody, and changes nothing that the others see.
    let counted: Vec<Option<Result<(), Rejection>>> = { links.iter() }
        .map(|link| {
            let counts = !link.charges.is_empty();
            counts.then(|| count(head, x, link, &mut Instant::now()))
        })
        .collect();
    let mut kept: Vec<(Edits, State)> = links.iter().map(|_| Default::default()).collect();
    let began = Instant::now();
    let ended = {
        // What each of them changes is its own until all have ended.
        let (request, body, _) = view(head, x, began, reads);
        let calls = links.iter().zip(&mut kept).map(|(link, (edits, state))| {
            let mut seen = View {
                request,
                body,
                edits,
                state,
            };
            Box::pin(async move {
                match link.stages.has(Stage::PreRequest) && link.charges.is_empty() {
                    true => {
                        let begun = begin(link, Stage::PreRequest, &mut seen);
                        let ended = begun.ended(link.timeout).await;
                        tell(link, &mut began.clone());
                        ended
                    }
                    false => Ended::Verdict(Ok(())),
                }
            })
        });
        join(calls.collect()).await
    };
    let mut verdict = Ok(());
    for ((((edits, state), ended), counted), (place, link)) in { kept.into_iter() }
        .zip(ended)
        .zip(counted)
        .zip(group.zip(links))
    {
        if let Ended::Verdict(_) = ended {
            take_edits(x, edits);
        }
        enlist(x, chain, place, link, state);
        let one = counted.unwrap_or_else(|| judge(x, link, ended));
        verdict = verdict.and(one);
    }
    verdict
}

fn take_edits(x: &mut Exchange, edits: Edits) {
    x.edits.standings.tell_all(&edits.standings);
    x.edits.request_headers.extend(edits.request_headers);
    x.edits.response_headers.extend(edits.response_headers);
    x.edits.copies.extend(edits.copies);
    if let Some(changed) = edits.body {
        replace_body(x, changed);
    }
}

/// What a plugin's end means for the exchange.
fn judge(x: &mut Exchange, link: &Link, ended: Ended) -> Result<(), Rejection> {
    match ended {
        Ended::Verdict(verdict) => verdict.map_err(Rejection::Plugin),
        Ended::Broken(how) => broken(x, link, how),
    }
}

#[cold]
fn broken(x: &mut Exchange, link: &Link, how: &str) -> Result<(), Rejection> {
    link.errors.inc();
    log::error!("the plugin {} {how}", link.name);
    if link.on_error == OnError::Skip {
        return Ok(());
    }
    x.cause = Some(format!("the plugin {} {how}", link.name));
    Err(Rejection::Internal)
}

/// The request as plugins see it at `at`, its body if it `reads` that, and what they may change: apart, since to move the changes back and forth
/// costs more than a plugin does.
fn view<'v>(
    head: &'v RequestHeader,
    x: &'v mut Exchange,
    at: Instant,
    reads: bool,
) -> (Request<'v>, &'v Bytes, &'v mut Edits) {
    static NOTHING: Bytes = Bytes::new();
    let body = match &x.body {
        Body::Short { original, .. } if reads => Some(original),
        Body::Long { pieces, .. } if reads => pieces.first(),
        _ => None,
    };
    (
        request!(head, x, at),
        body.unwrap_or(&NOTHING),
        &mut x.edits,
    )
}

/// How long the lists of edits were.
struct Lengths(usize, usize, usize);

impl Lengths {
    fn of(edits: &Edits) -> Lengths {
        Lengths(
            edits.request_headers.len(),
            edits.response_headers.len(),
            edits.copies.len(),
        )
    }

    fn cut(self, edits: &mut Edits) {
        edits.request_headers.truncate(self.0);
        edits.response_headers.truncate(self.1);
        edits.copies.truncate(self.2);
        edits.body = None;
    }
}

/// Puts a body that came in pieces together, for whoever looks at it; once.
fn in_one_piece(body: &mut Body) {
    if let Body::Long { pieces, .. } = body
        && pieces.len() > 1
    {
        *pieces = vec![pieces.concat().into()];
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
