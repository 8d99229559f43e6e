//! Phase 1: what is this, whose is it, who asks.
//!
//! Takes the one snapshot the exchange will ever see. What is wrong here is answered in phase 2, where a refusal
//! leaves the connection usable.

use std::net::{IpAddr, Ipv4Addr};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Version};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::connection::Watched;
use super::exchange::Exchange;
use super::forward::REQUEST_ID;
use super::front;
use super::reply::Rejection;
use super::request_id::RequestId;
use crate::snapshot::{Bounds, Gateway, Snapshot};
use crate::tls::Handshake;

/// Fills in what the head and the connection tell.
pub(super) fn identify(session: &mut Session, x: &mut Exchange, snapshot: &Snapshot) {
    take_connection(session, x);
    let bounds = x.bounds.insert(snapshot.bounds.clone());
    forget_other_upgrades(session);
    if let Some(alarm) = &x.alarm {
        alarm.begin();
        let http1 = session.as_downstream().as_http1();
        alarm.claim(
            http1.and_then(|http1| {
                length(session.req_header(), http1.get_headers_raw_bytes().len())
            }),
        );
        alarm.set_request_read(session.is_body_done());
    }
    let peer = peer_address(session);
    let head = session.req_header();
    x.peer = peer;
    x.trusted_peer = is_trusted(bounds, peer);
    x.client = if x.trusted_peer {
        client_behind(bounds, &head.headers, peer)
    } else {
        peer
    };
    x.request_id = RequestId::of(head.headers.get(REQUEST_ID), x.at);
    x.grpc = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    if let Err(rejection) = find_gateway(session, x, snapshot) {
        x.refusal = Some(rejection);
    }
    if let Err(rejection) = check_framing(session) {
        // What follows such a head cannot be told from a second request.
        session.set_keepalive(None);
        x.refusal = Some(rejection);
    }
}

/// How many bytes of an HTTP/1 connection a request takes, if its head tells, which takes `raw` itself.
pub(super) fn length(head: &RequestHeader, raw: usize) -> Option<u64> {
    let headers = &head.headers;
    if headers.contains_key(TRANSFER_ENCODING) || may_be_rewritten(head.raw_path()) {
        return None;
    }
    let body: u64 = match headers.get(CONTENT_LENGTH) {
        Some(length) => length.to_str().ok()?.parse().ok()?,
        None => 0,
    };
    body.checked_add(raw as u64)
}

/// Whether Pingora may have put escapes in the place of characters that are not allowed, so that the head is longer than what came.
fn may_be_rewritten(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'%').skip(1).any(|after| {
        let digits = after
            .first_chunk::<2>()
            .and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_some_and(|byte| !byte.is_ascii_graphic() || b"<>\"".contains(&byte))
    })
}

/// Only a WebSocket's handshake is an upgrade here. Other offers (`h2c`, which some clients make with every first
/// request) are declined by being ignored, before Pingora takes the request's body for something else.
fn forget_other_upgrades(session: &mut Session) {
    let head = session.req_header();
    let Some(offer) = head.headers.get(UPGRADE) else {
        return;
    };
    let websocket = head.method == Method::GET
        && offer.to_str().is_ok_and(|offer| {
            offer
                .split(',')
                .any(|p| p.trim().eq_ignore_ascii_case("websocket"))
        });
    if !websocket {
        session.req_header_mut().remove_header(&UPGRADE);
    }
}

fn take_connection(session: &Session, x: &mut Exchange) {
    match session.as_downstream().as_http1() {
        Some(h1) => {
            if let Some(watched) = Watched::of(h1.stream()) {
                x.alarm = Some(watched.alarm().clone());
                x.handshake = watched.handshake().cloned();
            }
        }
        None => {
            if let Some(stream) = front::stream() {
                x.alarm = Some(stream.alarm);
                x.handshake = stream.handshake;
            }
        }
    }
}

/// The host a request is for, as it was sent: HTTP/2 has it beside the headers.
pub(super) fn host(session: &Session) -> &str {
    let head = session.req_header();
    match head.headers.get(HOST) {
        Some(host) => host.to_str().unwrap_or_default(),
        None => head
            .uri
            .authority()
            .map(|authority| authority.as_str())
            .unwrap_or_default(),
    }
}

fn find_gateway(session: &Session, x: &mut Exchange, snapshot: &Snapshot) -> Result<(), Rejection> {
    let host = host(session);
    let entry = snapshot.hosts.find(host).ok_or(Rejection::UnknownHost)?;
    let gateway = snapshot
        .gateways
        .get(entry.gateway)
        .ok_or(Rejection::UnknownHost)?;
    x.host_service = entry.service;
    x.gateway = Some(gateway.clone());
    match &x.handshake {
        Some(handshake) if !is_for(handshake, gateway) => Err(Rejection::Misdirected),
        _ => Ok(()),
    }
}

/// Whether a connection that began so is for this gateway: another's certificate was not shown, and the client showed its own if it must.
/// (RFC 9113, section 9.1.1, leaves it to clients which hosts they take a connection to be for.)
fn is_for(handshake: &Handshake, gateway: &Gateway) -> bool {
    match &handshake.gateway {
        // It may have begun when nobody was asked for a certificate.
        Some(name) => {
            *name == gateway.name
                && (handshake.client.is_some() || !gateway.asks_for_certificates())
        }
        None => gateway.document.client_ca.is_none(),
    }
}

/// Two lengths for one body are how requests are smuggled. Pingora resolves the conflict in favour of
/// `Transfer-Encoding` and drops the other header, so the raw bytes are asked.
fn check_framing(session: &Session) -> Result<(), Rejection> {
    let head = session.req_header();
    if head.version == Version::HTTP_2 || !head.headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    let raw = session
        .as_downstream()
        .as_http1()
        .map(|h1| h1.get_headers_raw_bytes())
        .unwrap_or_default();
    let names_length = raw.split(|b| *b == b'\n').any(|line| {
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        name.trim_ascii()
            .eq_ignore_ascii_case(CONTENT_LENGTH.as_str().as_bytes())
    });
    if names_length {
        return Err(Rejection::invalid(
            "A request has either Content-Length or Transfer-Encoding, not both.",
            None,
        ));
    }
    Ok(())
}

fn peer_address(session: &Session) -> IpAddr {
    session
        .client_addr()
        .and_then(|address| address.as_inet())
        .map(|address| address.ip().to_canonical())
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn is_trusted(bounds: &Bounds, address: IpAddr) -> bool {
    let mut trusted = bounds.trusted_proxies.iter();
    trusted.any(|net| net.contains(&address))
}

/// The nearest address in `X-Forwarded-For` that no trusted proxy vouches for by being one itself.
fn client_behind(bounds: &Bounds, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
    let mut client = peer;
    let lines: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|line| line.to_str().ok())
        .collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Ok(address) = hop.trim().trim_matches(['[', ']']).parse::<IpAddr>() else {
            break;
        };
        client = address.to_canonical();
        if !is_trusted(bounds, client) {
            break;
        }
    }
    client
}

/// Whether a request with this head may carry a body worth looking for a model in.
pub(super) fn may_carry_model(method: &Method) -> bool {
    !matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    )
}
