//! Phase 3: the next attempt. The service's upstream picks a target, and the guard of that pick is the exchange's.
//!
//! A service none of whose targets is to be trusted is passed over here already, so that a fallback costs no failed
//! attempt. When there is none, the least bad target is tried rather than none.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::{ALPN, TcpKeepalive};
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions};
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;
use tokio::time::Instant;

use super::affinity;
use super::alarm::Deadline;
use super::exchange::{Attempt, Exchange};
use super::recover::aside::Point;
use super::recover::{room, while_present};
use super::reply::Rejection;
use super::{disaggregate, plugins};
use crate::balance::{Ask, Guard, Usable};
use crate::health::{Standing, Ticket, least_bad};
use crate::model::Scheme;
use crate::snapshot::{Target, Upstream};
use crate::tls::Uncertain;

/// Idle upstream connections are given up before common engines close them (uvicorn: 5 s).
const IDLE_POOL: Duration = Duration::from_secs(4);
const WRITE: Duration = Duration::from_secs(60);
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(15),
    interval: Duration::from_secs(5),
    count: 3,
    user_timeout: Duration::from_secs(30),
};

/// What a look for a target came to.
pub(super) enum Found {
    /// This one, held.
    Target(usize, Guard, Ticket),
    /// Those that are to be trusted take no more.
    Full,
    /// None is to be trusted.
    Nobody,
}

/// The next target, and the `post_request` stage when it is the first.
pub(super) async fn next(session: &mut Session, x: &mut Exchange) -> Result<Box<HttpPeer>> {
    let peer = choose(session, x).await?;
    if plugins::line_up(x)
        && let Err(rejection) = Box::pin(plugins::post_request(session, x)).await
    {
        x.attempt = None;
        return Err(x.refuse(rejection).into_in());
    }
    Ok(peer)
}

/// The next target: of the exchange's service or, when that cannot serve, of the next that can. Waits out the pause before a retry, and
/// for a place if need be.
async fn choose(session: &mut Session, x: &mut Exchange) -> Result<Box<HttpPeer>> {
    if x.retries > 0 {
        Box::pin(pause(session, x)).await?;
    }
    // The last attempt's guard goes first: its target's load is no longer ours.
    x.attempt = None;
    if x.retries > 0 || x.turn.is_some() {
        x.renew();
    }
    loop {
        x.start_over();
        disaggregate::check(x)?;
        let now = Instant::now();
        affinity::read_prompt(x);
        match find(session, x, now) {
            Found::Target(index, guard, ticket) => {
                return hold(session, x, index, guard, ticket, now).map_err(|r| x.refuse(r));
            }
            found if room::may_wait(x, &found) => {
                if x.retries == 0 && x.turn.is_none() {
                    x.step_aside(Point::Service)?;
                }
                match Box::pin(room::wait(session, x)).await? {
                    Some((index, guard, ticket)) => {
                        let now = Instant::now();
                        return hold(session, x, index, guard, ticket, now)
                            .map_err(|r| x.refuse(r));
                    }
                    None if x.serve_whole("full") || x.fall_back("full") => {}
                    None if room::is_asleep(x) => {
                        return Err(x.refuse(Rejection::NoHealthyUpstream));
                    }
                    None => return Err(x.refuse(Rejection::Overloaded)),
                }
            }
            Found::Full if x.serve_whole("full") || x.fall_back("full") => {}
            Found::Full => return Err(x.refuse(Rejection::Overloaded)),
            Found::Nobody if x.serve_whole("unavailable") || x.fall_back("unavailable") => {}
            Found::Nobody => {
                if let Some(wait) = cooling(x).filter(|_| room::may_wait(x, &Found::Full)) {
                    x.retry_after = Some(wait);
                    return Err(x.refuse(Rejection::RateLimited));
                }
                let Some((index, guard, ticket)) = least_bad_of(x) else {
                    return Err(x.refuse(Rejection::NoHealthyUpstream));
                };
                return hold(session, x, index, guard, ticket, now).map_err(|r| x.refuse(r));
            }
        }
    }
}

/// Full jitter before a retry: any time up to a bound that doubles.
async fn pause(session: &mut Session, x: &Exchange) -> Result<()> {
    let (Some(doublings), Some(retry)) = (x.retries.checked_sub(1), &x.retry) else {
        return Ok(());
    };
    let bound = { retry.backoff }
        .saturating_mul(1 << doublings.min(20))
        .min(retry.max_backoff);
    let pause = bound.mul_f64(rand::random());
    while_present(session, pin!(tokio::time::sleep(pause))).await
}

/// Looks for a target of the exchange's service: one not tried yet, then one that was not asked yet, then any.
pub(super) fn find(session: &Session, x: &Exchange, now: Instant) -> Found {
    if room::is_waited_for(x) {
        // Who came first is served first.
        return Found::Full;
    }
    try_find(x, affinity::key(session.req_header(), x), now)
}

pub(super) fn try_find(x: &Exchange, key: Option<u64>, now: Instant) -> Found {
    let Some(offer) = &x.offer else {
        return Found::Nobody;
    };
    let upstream = &offer.service.upstream;
    let now = now.into_std();
    let model = affinity::listed_model(x);
    let mut full = false;
    let rounds: [(bool, bool); 3] = [(false, false), (false, true), (true, true)];
    for (again, unchecked) in rounds {
        if again && (x.tried.is_empty() || !disaggregate::may_ask_again(x)) {
            break;
        }
        let usable = |i: usize| {
            let Some(target) = upstream.targets.get(i) else {
                return Usable::No;
            };
            let reachable = target.url.is_local() || target.state.resolved();
            if !reachable
                || (!again && x.tried.contains(&i))
                || !disaggregate::takes(x, upstream, i)
                || model.is_some_and(|model| !target.lists(model))
            {
                return Usable::No;
            }
            match target.health.standing(now) {
                Standing::Unchecked if unchecked => Usable::Yes(1.0),
                standing => standing.share().map_or(Usable::No, Usable::Yes),
            }
        };
        let ask = Ask {
            usable: &usable,
            key,
            prompt: affinity::prompt(x),
            patient: x.is_patient(),
        };
        // A half-open target whose one place was just taken lets nobody in: then the rest is asked.
        for _ in 0..upstream.view.len() {
            let Some((index, guard)) = disaggregate::policy(x, upstream).pick(&upstream.view, &ask)
            else {
                break;
            };
            let ticket = upstream
                .targets
                .get(index)
                .and_then(|t| t.health.enter(now));
            if let Some(ticket) = ticket {
                return Found::Target(index, guard, ticket);
            }
        }
        full |= disaggregate::policy(x, upstream).all_full(&upstream.view, &ask);
    }
    if full { Found::Full } else { Found::Nobody }
}

/// How long until the first of those that told us to wait may be asked again.
fn cooling(x: &Exchange) -> Option<Duration> {
    let now = Instant::now().into_std();
    let targets = &x.offer.as_ref()?.service.upstream.targets;
    let waits = targets
        .iter()
        .filter_map(|target| match target.health.standing(now) {
            Standing::Cooling { until } => Some(until.saturating_duration_since(now)),
            _ => None,
        });
    waits.min()
}

/// When nobody is to be trusted, somebody is tried all the same: it may be our judgement that is wrong.
pub(super) fn least_bad_of(x: &Exchange) -> Option<(usize, Guard, Ticket)> {
    let offer = x.offer.as_ref()?;
    let upstream = &offer.service.upstream;
    let now = Instant::now().into_std();
    let model = affinity::listed_model(x);
    let standings = |again: bool| {
        upstream
            .targets
            .iter()
            .enumerate()
            .filter(move |(i, target)| {
                let reachable = target.url.is_local() || target.state.resolved();
                let wanted = reachable
                    && disaggregate::takes(x, upstream, *i)
                    && model.is_none_or(|model| target.lists(model));
                wanted && !target.state.at_limit() && (again || !x.tried.contains(i))
            })
            .map(move |(i, target)| (i, target.health.standing(now)))
    };
    let index = least_bad(standings(false)).or_else(|| least_bad(standings(true)))?;
    let target = upstream.targets.get(index)?;
    let guard = target.state.try_hold()?;
    offer.metrics.panicked();
    Some((index, guard, target.health.enter_anyway(now)))
}

pub(super) fn hold(
    session: &Session,
    x: &mut Exchange,
    index: usize,
    guard: Guard,
    ticket: Ticket,
    now: Instant,
) -> Result<Box<HttpPeer>, Rejection> {
    let offer = x.offer.clone().ok_or(Rejection::NoHealthyUpstream)?;
    let upstream = &offer.service.upstream;
    let target = upstream
        .targets
        .get(index)
        .ok_or(Rejection::NoHealthyUpstream)?;
    x.attempts += 1;
    x.status = 0;
    x.rung = None;
    x.meter = x.plan.fresh();
    x.served_by = Some(target.label.clone());
    x.attempt = Some(Attempt {
        target: index,
        guard,
        ticket,
        asked: now,
    });
    let mut peer = of_attempt(x)?;
    if session.as_downstream().is_http2() {
        // A stream's alarm can only reset it. What Pingora's one read timeout covers ends properly instead:
        // the longer of the two limits; and the alarm sees to the other.
        let longer = x.timeouts.first_byte.max(x.timeouts.idle);
        peer.options.read_timeout = Some(longer);
        x.alarm_below = x.alarm_below.min(longer);
    }
    x.asked.get_or_insert(now);
    Ok(Box::new(peer))
}

/// Where the attempt under way goes, and how.
pub(super) fn of_attempt(x: &Exchange) -> Result<HttpPeer, Rejection> {
    let (upstream, index) = target(x).ok_or(Rejection::NoHealthyUpstream)?;
    let target = { upstream.targets.get(index) }.ok_or(Rejection::NoHealthyUpstream)?;
    let mut peer = describe(target, &upstream)?;
    set_options(&mut peer.options, x, target, &upstream);
    Ok(peer)
}

impl Exchange {
    /// Remembers why there is no target, as an error for Pingora.
    pub(super) fn refuse(&mut self, rejection: Rejection) -> Box<Error> {
        let service = self.offer.as_ref().map(|offer| &offer.service);
        let mut why = None;
        if let (Some(service), Rejection::Overloaded | Rejection::NoHealthyUpstream) =
            (service, &rejection)
        {
            if service.counts_demand() {
                let decode = disaggregate::wants_decode(self);
                service.state.demand.refused(decode);
            }
            let scaled = service.state.scaled.load();
            why = scaled.as_ref().and_then(|scaled| scaled.problem.clone());
        }
        self.refusal = Some(rejection);
        let told = why.map_or("no target".to_owned(), |why| format!("no target: {why}"));
        Error::explain(ErrorType::InternalError, told)
    }
}

/// Starts the clock for the answer's head: the request has been sent whole.
pub(super) fn sent(x: &mut Exchange) {
    if x.first_byte.is_none() && x.status == 0 {
        x.set_deadline(Instant::now(), Deadline::FirstByte);
    }
}

/// The target of the attempt under way.
pub(super) fn target(x: &Exchange) -> Option<(Arc<Upstream>, usize)> {
    let upstream = x.offer.as_ref()?.service.upstream.clone();
    Some((upstream, x.attempt.as_ref()?.target))
}

fn describe(target: &Target, upstream: &Upstream) -> Result<HttpPeer, Rejection> {
    let tls = target.url.scheme == Scheme::Https;
    if target.url.scheme == Scheme::Unix {
        return HttpPeer::new_uds(&target.url.path, false, String::new())
            .map_err(|_| Rejection::NoHealthyUpstream);
    }
    let address: SocketAddr = target.state.address().ok_or(Rejection::NoHealthyUpstream)?;
    let name = if tls {
        target.server_name.clone()
    } else {
        String::new()
    };
    let mut peer = HttpPeer::new(address, tls, name);
    peer.options.verify_cert = upstream.verify;
    peer.options.verify_hostname = upstream.verify;
    if let (true, Some(credentials)) = (tls, &upstream.credentials) {
        let applied = credentials.apply(&mut peer);
        applied.map_err(|Uncertain| Rejection::NoHealthyUpstream)?;
    }
    Ok(peer)
}

fn set_options(options: &mut PeerOptions, x: &Exchange, target: &Target, upstream: &Upstream) {
    options.connection_timeout = Some(x.timeouts.connect);
    options.total_connection_timeout = Some(x.timeouts.connect);
    options.write_timeout = Some(WRITE);
    options.idle_timeout = Some(IDLE_POOL);
    options.tcp_keepalive = Some(KEEPALIVE);
    options.max_h2_streams = 128;
    options.alpn = match (target.url.scheme, upstream.http2) {
        (Scheme::H2c, _) | (Scheme::Http, true) => ALPN::H2,
        (Scheme::Https, true) => ALPN::H2H1,
        _ => ALPN::H1,
    };
}
