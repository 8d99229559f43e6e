//! Phase 3: the next attempt. The service's upstream picks a target, and the guard of that pick is the exchange's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::{ALPN, TcpKeepalive};
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions};
use tokio::time::Instant;

use super::connection::Deadline;
use super::exchange::{Attempt, Exchange};
use super::reply::Rejection;
use crate::model::Scheme;
use crate::snapshot::{Target, Upstream};

/// Idle upstream connections are given up before common engines close them (uvicorn: 5 s).
pub(super) const IDLE_POOL: Duration = Duration::from_secs(4);
const WRITE: Duration = Duration::from_secs(60);
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(15),
    interval: Duration::from_secs(5),
    count: 3,
    user_timeout: Duration::from_secs(30),
};

/// Picks a target and describes it to Pingora.
pub(super) fn next(x: &mut Exchange, is_h2: bool) -> Result<Box<HttpPeer>, Rejection> {
    let offer = x.offer.clone().ok_or(Rejection::NoHealthyUpstream)?;
    let upstream = &offer.service.upstream;
    // The last attempt's guard goes first: its target's load is no longer ours.
    x.attempt = None;
    let usable = |i: usize| {
        upstream
            .targets
            .get(i)
            .is_some_and(|t| t.url.is_local() || t.state.resolved())
    };
    let (index, guard) = upstream
        .policy
        .pick(&upstream.view, &usable)
        .ok_or(Rejection::NoHealthyUpstream)?;
    let target = upstream
        .targets
        .get(index)
        .ok_or(Rejection::NoHealthyUpstream)?;
    x.attempts += 1;
    x.served_by = Some(target.label.clone());
    x.attempt = Some(Attempt {
        target: index,
        _guard: guard,
    });
    let mut peer = describe(target, upstream)?;
    set_options(&mut peer.options, x, target, upstream);
    if is_h2 {
        // A stream's alarm can only reset it. What Pingora's one read timeout covers ends properly instead:
        // the longer of the two limits; and the alarm sees to the other.
        let longer = x.timeouts.first_byte.max(x.timeouts.idle);
        peer.options.read_timeout = Some(longer);
        x.alarm_below = longer;
    }
    x.asked.get_or_insert_with(Instant::now);
    Ok(Box::new(peer))
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
    peer.options.verify_cert = upstream.tls.verify;
    peer.options.verify_hostname = upstream.tls.verify;
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
