//! A request that is split: one target computes the prompt, another produces the tokens.
//!
//! This file knows which part the next target is wanted for, and what of the request it gets. What is said stands in [`protocol`], who is asked when
//! in [`super::recover`]. An exchange has a [`Split`] for as long as its service's upstream has `disaggregation`, also for requests
//! that are served whole, so that these do not go to a target that only prefills.

mod pick;
mod protocol;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use pingora_core::{Error, ErrorType, Result};
use tollgate_sdk::llm::members::Members;

use super::exchange::{Attempt, Exchange};
use super::recover::Prefilling;
use super::reply::Rejection;
use super::verdict;
use crate::balance::Policy;
use crate::health::Failure;
use crate::model::{KvProtocol, Role};
use crate::snapshot::{Disaggregation, Upstream};

pub(super) use pick::again;
pub(super) use protocol::Leg;
use protocol::{Names, OURS, Request};

/// An answer of an engine that its protocol does not allow.
pub(super) const BAD_ANSWER: ErrorType = ErrorType::Custom("InvalidAnswer");

/// What the next target is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// To compute the prompt.
    Prefill,
    /// To produce the tokens of what the target at this index computes.
    Decode {
        /// Among the upstream's targets.
        prefill: usize,
    },
    /// The whole request, by a target that is there for both.
    Alone,
    /// The whole request, by whoever does not only prefill.
    Anyone,
}

/// How an exchange is split.
pub(super) struct Split {
    part: Part,
    /// It will not be tried in two parts any more.
    whole: bool,
    /// Why it is not, if that is still to be counted.
    why: Option<&'static str>,
    /// Nobody was ever to prefill it for somebody else, and that is still to be counted.
    never: bool,
    /// The body as it would be sent whole, if it can be split.
    body: Option<Whole>,
    /// The field of the client's that is ours to set.
    forbidden: Option<&'static str>,
    /// What goes out in place of the request.
    leg: Option<Leg>,
    /// What this attempt is told apart by.
    random: [u64; 2],
    /// A prefill that runs beside its decode.
    pub(super) running: Option<Prefilling>,
    /// The target that computes what its decode fetches by itself.
    held: Option<Attempt>,
    /// For the log: who prefilled last.
    prefilled_by: Option<Arc<str>>,
    prefill_took: Arc<OnceLock<Duration>>,
    decode_took: Option<Duration>,
}

struct Whole {
    pieces: Vec<Bytes>,
    members: Members,
    batch: Option<usize>,
}

/// Both legs of an attempt.
pub(super) struct Legs {
    /// `None`: the target that decodes asks for the prefill itself.
    pub(super) prefill: Option<Leg>,
    pub(super) decode: Leg,
}

/// How the exchange's request is split, if its upstream does that. Looks at the body.
pub(super) fn begin(x: &Exchange) -> Option<Box<Split>> {
    let offer = x.offer.as_ref()?;
    let settings = &offer.service.upstream.disaggregation.as_ref()?.settings;
    let mut split = Box::new(Split {
        part: Part::Prefill,
        whole: false,
        why: None,
        never: false,
        body: None,
        forbidden: None,
        leg: None,
        random: rand::random(),
        running: None,
        held: None,
        prefilled_by: None,
        prefill_took: Arc::default(),
        decode_took: None,
    });
    if x.reports_usage && x.peek.is_some() && x.body.is_whole() {
        let pieces = x.body.outgoing();
        if let Ok(members) = Members::of(&pieces) {
            split.forbidden = OURS.into_iter().find(|name| members.has(name));
            let batch = protocol::batch(&pieces, &members);
            split.body = Some(Whole {
                pieces,
                members,
                batch,
            });
        }
    }
    let prompt = offer.service.state.prompts.tokens(x.body.len());
    let why = match &split.body {
        None => Some(None),
        Some(body) if body.batch.is_some() && !protocol::splits_batches(settings.protocol) => {
            Some(Some("batch"))
        }
        Some(_) if prompt < settings.min_prefill_tokens => Some(Some("short")),
        Some(_) => None,
    };
    if let Some(why) = why {
        split.whole = true;
        split.never = true;
        split.part = match why {
            Some("short") if settings.protocol.decodes_whole() => Part::Anyone,
            _ if has(&offer.service.upstream, Role::Both) => Part::Alone,
            _ => Part::Anyone,
        };
        split.why = why;
    }
    Some(split)
}

fn has(upstream: &Upstream, role: Role) -> bool {
    upstream.targets.iter().any(|target| target.role == role)
}

/// What the next target is wanted for; `None` where requests are not split.
pub(super) fn part(x: &Exchange) -> Option<Part> {
    x.split.as_ref().map(|split| split.part)
}

fn settings(x: &Exchange) -> Option<&Disaggregation> {
    x.offer.as_ref()?.service.upstream.disaggregation.as_ref()
}

/// Whether the next target is wanted to decode, what another computed or the whole.
pub(super) fn wants_decode(x: &Exchange) -> bool {
    matches!(part(x), Some(Part::Decode { .. } | Part::Anyone))
}

/// Whether decode is asked only after prefill has answered.
pub(super) fn is_staged(x: &Exchange) -> bool {
    settings(x).is_some_and(|split| split.settings.is_staged())
}

/// Whether the target at an index does what the next one is wanted for.
pub(super) fn takes(x: &Exchange, upstream: &Upstream, index: usize) -> bool {
    let (Some(part), Some(target)) = (part(x), upstream.targets.get(index)) else {
        return true;
    };
    let shares = { &upstream.disaggregation }
        .as_ref()
        .is_some_and(|split| split.settings.protocol.shares_by_both());
    match part {
        // A target for both prefills only if another can decode.
        Part::Prefill => match target.role {
            Role::Prefill => true,
            Role::Decode => false,
            Role::Both => {
                let mut others = upstream.targets.iter().enumerate();
                shares
                    && others.any(|(other, target)| other != index && target.role != Role::Prefill)
            }
        },
        Part::Decode { prefill } => match target.role {
            Role::Prefill => false,
            Role::Decode => true,
            Role::Both => shares && index != prefill,
        },
        Part::Alone => target.role == Role::Both,
        Part::Anyone => target.role != Role::Prefill,
    }
}

/// Whether a target that failed before may be asked once more for the same part: not to prefill, if the request can be served whole instead.
pub(super) fn may_ask_again(x: &Exchange) -> bool {
    !matches!(&x.split, Some(split) if split.part == Part::Prefill && next_whole(x).is_some())
}

/// How the next target is picked.
pub(super) fn policy<'u>(x: &Exchange, upstream: &'u Upstream) -> &'u dyn Policy {
    match (part(x), &upstream.disaggregation) {
        (Some(Part::Decode { .. }), Some(split)) => &*split.decode,
        _ => &*upstream.policy,
    }
}

/// The part in which the request can be served whole, after the present one.
fn next_whole(x: &Exchange) -> Option<Part> {
    let upstream = &x.offer.as_ref()?.service.upstream;
    let protocol = upstream.disaggregation.as_ref()?.settings.protocol;
    let anyone = protocol.decodes_whole() && has(upstream, Role::Decode);
    match part(x)? {
        Part::Prefill | Part::Decode { .. } if has(upstream, Role::Both) => Some(Part::Alone),
        Part::Prefill | Part::Decode { .. } | Part::Alone if anyone => Some(Part::Anyone),
        _ => None,
    }
}

/// The prefill failed, and no other shall be tried: whether the request goes on as a whole.
pub(super) fn degrade(x: &mut Exchange, failure: Failure) -> bool {
    let queues = { x.offer.as_ref() }.is_some_and(|offer| offer.service.queue.is_some());
    let waits = failure == Failure::Status(429) && queues;
    if part(x) != Some(Part::Prefill) || waits || verdict::is_over(x) || !x.replayable {
        return false;
    }
    x.tried
        .extend(x.attempt.as_ref().map(|attempt| attempt.target));
    x.serve_whole("failed")
}

impl Exchange {
    /// From now on one target serves the request, if any can. `reason` is the metric's.
    pub(super) fn serve_whole(&mut self, reason: &'static str) -> bool {
        let Some(next) = next_whole(self) else {
            return false;
        };
        let offer = self.offer.clone();
        let Some(split) = &mut self.split else {
            return false;
        };
        if let (false, Some(offer)) = (split.whole, offer) {
            offer.metrics.undivided(reason);
        }
        split.part = next;
        split.whole = true;
        split.leg = None;
        split.prefilled_by = None;
        true
    }

    /// Another attempt begins: a new pair with new ids, unless the request is served whole.
    pub(super) fn start_over(&mut self) {
        let Some(split) = &mut self.split else { return };
        if let (Some(why), Some(offer)) = (split.why.take(), &self.offer) {
            offer.metrics.undivided(why);
        }
        if let (true, Some(offer)) = (std::mem::take(&mut split.never), &self.offer) {
            offer.service.state.demand.whole();
        }
        split.leg = None;
        split.running = None;
        split.held = None;
        split.random = rand::random();
        if !split.whole {
            split.part = Part::Prefill;
        }
    }

    /// Looks at the body again, which is another one or goes to another service.
    pub(super) fn split_anew(&mut self) {
        let new = begin(self);
        match (&mut self.split, new) {
            // In the midst of an attempt what was decided stays.
            (Some(old), Some(new)) if self.attempt.is_some() => {
                old.body = new.body;
                old.forbidden = new.forbidden;
            }
            (split, new) => *split = new,
        }
    }

    /// What is sent to the target of the attempt under way.
    pub(super) fn outgoing(&self) -> Vec<Bytes> {
        match self.leg() {
            Some(leg) => leg.pieces.clone(),
            None => self.body.outgoing(),
        }
    }

    /// Its length, if it is known.
    pub(super) fn outgoing_len(&self) -> Option<usize> {
        match self.leg() {
            Some(leg) => Some(leg.pieces.iter().map(Bytes::len).sum()),
            None => self.body.outgoing_len(),
        }
    }

    /// What goes out in place of the request, if something does.
    pub(super) fn leg(&self) -> Option<&Leg> {
        self.split.as_ref()?.leg.as_ref()
    }
}

/// Refuses a request that sets what is ours to set.
pub(super) fn check(x: &mut Exchange) -> Result<()> {
    let forbidden = x.split.as_ref().and_then(|split| split.forbidden);
    match forbidden {
        None => Ok(()),
        Some(field) => {
            let message = format!("The field `{field}` is not the client's to set.");
            Err(x.refuse(Rejection::invalid(message, Some(field))))
        }
    }
}

/// The headers of the leg under way.
pub(super) fn dress(x: &Exchange, headers: &mut HeaderMap) {
    for (name, value) in x.leg().iter().flat_map(|leg| &leg.headers) {
        headers.insert(name.clone(), value.clone());
    }
}

/// Sends this instead of the request.
pub(super) fn send(x: &mut Exchange, leg: Leg) {
    if let Some(split) = &mut x.split {
        split.leg = Some(leg);
    }
}

/// Calls `make` with the request, and what the attempt and its prefill are told apart by. `prefill` is an index among the targets.
fn with_names<T>(
    x: &Exchange,
    prefill: usize,
    rank: Option<(u32, String)>,
    make: impl FnOnce(&Disaggregation, &Request<'_>, &Names<'_>) -> T,
) -> Result<T> {
    let nothing = || Error::explain(BAD_ANSWER, "nothing to split").into_in();
    let offer = x.offer.as_ref().ok_or_else(nothing)?;
    let upstream = &offer.service.upstream;
    let target = upstream.targets.get(prefill).ok_or_else(nothing)?;
    let split = x.split.as_ref().ok_or_else(nothing)?;
    let body = split.body.as_ref().ok_or_else(nothing)?;
    let request = Request {
        pieces: &body.pieces,
        members: &body.members,
        batch: body.batch,
    };
    let names = Names {
        request_id: x.request_id.as_str(),
        attempt: x.attempts,
        random: split.random,
        host: &target.url.host.to_string(),
        port: target.bootstrap_port,
        rank,
    };
    let settings = upstream.disaggregation.as_ref().ok_or_else(nothing)?;
    Ok(make(settings, &request, &names))
}

/// The prefill that comes before its decode.
pub(super) fn first(x: &Exchange, prefill: usize) -> Result<Leg> {
    with_names(x, prefill, None, |split, request, names| {
        protocol::first(&split.settings, request, names)
    })
}

/// The decode that follows this answer of a prefill. `None`: there is nothing to decode.
pub(super) fn second(x: &Exchange, prefill: usize, answer: &Bytes) -> Result<Option<Leg>> {
    let leg = with_names(x, prefill, None, |split, request, names| {
        protocol::second(&split.settings, request, names, answer)
    })?;
    leg.map_err(|unusable| Error::explain(BAD_ANSWER, unusable.to_string()).into_up())
}

/// Both legs, for the same time.
pub(super) fn both(x: &Exchange, prefill: usize, rank: Option<(u32, String)>) -> Result<Legs> {
    let (prefill, decode) = with_names(x, prefill, rank, |split, request, names| {
        protocol::both(&split.settings, request, names)
    })?;
    Ok(Legs { prefill, decode })
}

/// Whether whoever decodes must be told which engine prefills.
pub(super) fn wants_rank(upstream: &Upstream) -> bool {
    upstream.disaggregation.as_ref().is_some_and(|split| {
        split.settings.protocol == KvProtocol::VllmMooncake && !split.settings.is_staged()
    })
}

/// The ids of engines by data-parallel rank, as a bootstrap server tells them: `{"0": {"engine_id": "…"}}`.
pub(super) fn ranks(word: &[u8]) -> Option<Vec<(u32, String)>> {
    let word: serde_json::Value = serde_json::from_slice(word).ok()?;
    let engine = |(rank, entry): (&String, &serde_json::Value)| {
        Some((
            rank.parse().ok()?,
            entry.get("engine_id")?.as_str()?.to_owned(),
        ))
    };
    let engines = word.as_object()?.iter().map(engine);
    let engines: Option<Vec<(u32, String)>> = engines.collect();
    engines.filter(|engines| !engines.is_empty())
}

/// Wants the next target to decode what the one at this index computes.
pub(super) fn want_decode(x: &mut Exchange, prefill: usize) {
    if let Some(split) = &mut x.split {
        split.part = Part::Decode { prefill };
    }
}

/// The attempt under way is a prefill's again: it has failed.
pub(super) fn is_prefill(x: &mut Exchange, attempt: Attempt) {
    if let Some(split) = &mut x.split {
        split.part = Part::Prefill;
    }
    x.served_by = { x.offer.as_ref() }
        .and_then(|offer| offer.service.upstream.targets.get(attempt.target))
        .map(|target| target.label.clone());
    x.attempt = Some(attempt);
}

/// Keeps the place of a target that is not asked itself, until decode has fetched what it computes.
pub(super) fn keep(x: &mut Exchange, attempt: Attempt) {
    if let Some(split) = &mut x.split {
        split.held = Some(attempt);
    }
}

/// Notes who prefills; how long that takes is told to what is returned.
pub(super) fn begin_prefill(x: &mut Exchange) -> Arc<OnceLock<Duration>> {
    let label = x.served_by.clone();
    let Some(split) = &mut x.split else {
        return Arc::default();
    };
    split.prefilled_by = label;
    split.prefill_took = Arc::default();
    split.prefill_took.clone()
}

/// Decode's first byte has come, after this time.
pub(super) fn decoding(x: &mut Exchange, took: Duration) {
    if let Some(offer) = &x.offer {
        let [_, decode] = offer.metrics.legs();
        decode.observe(took.as_secs_f64());
    }
    if let Some(split) = &mut x.split {
        split.decode_took = Some(took);
        // What was computed has been fetched.
        split.held = None;
    }
}

/// Gives back what a split exchange holds, and ends a prefill that still runs.
pub(super) fn release(x: &mut Exchange) {
    if let Some(split) = &mut x.split {
        split.running = None;
        split.held = None;
    }
}

/// For the log: who prefilled, how long that took, and how long decode's first byte did, in milliseconds.
pub(super) fn told(x: &Exchange) -> Option<(&str, Option<f64>, Option<f64>)> {
    let split = x.split.as_ref()?;
    let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;
    let by = split.prefilled_by.as_deref()?;
    let prefill = split.prefill_took.get().copied().map(milliseconds);
    Some((by, prefill, split.decode_took.map(milliseconds)))
}
