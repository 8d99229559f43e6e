//! Phase 4: the request as the upstream sees it.
//!
//! Path, headers, credential; the body was prepared in phase 2. Both roads to an upstream use [`prepare`].

use bytes::Bytes;
use http::HeaderValue;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, TRANSFER_ENCODING,
};
use pingora_core::Result;
use pingora_http::RequestHeader;

use super::exchange::{Body, Exchange};
use super::peer;
use crate::model::Scheme;
use crate::snapshot::{Target, Upstream, join_target_path};

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FORWARDED_HOST: &str = "x-forwarded-host";

/// Turns the client's head into the one for the target of the attempt under way.
pub(super) fn prepare(x: &Exchange, head: &mut RequestHeader, tls: bool) -> Result<()> {
    let Some((upstream, index)) = peer::target(x) else {
        return Ok(());
    };
    let Some(target) = upstream.targets.get(index) else {
        return Ok(());
    };
    set_path(x, head, target)?;
    set_origin(x, head, target, tls)?;
    set_credential(head, &upstream)?;
    frame_body(x, head)?;
    head.insert_header("x-request-id", x.request_id.value())?;
    if x.offer.as_ref().is_some_and(|offer| offer.service.meters()) {
        // What is used stands in the body, and must be readable there.
        head.remove_header(&ACCEPT_ENCODING);
    }
    Ok(())
}

/// The body to send, if it was read.
pub(super) fn body(x: &Exchange) -> Option<Bytes> {
    match &x.body {
        Body::Whole { outgoing, .. } => Some(outgoing.clone()),
        Body::Unread => None,
    }
}

fn set_path(x: &Exchange, head: &mut RequestHeader, target: &Target) -> Result<()> {
    let base = if target.url.scheme == Scheme::Unix {
        ""
    } else {
        target.url.path.as_str()
    };
    if base.is_empty() && x.target_path.is_none() {
        return Ok(());
    }
    let path = x.target_path.as_deref().unwrap_or_else(|| head.uri.path());
    let mut path = join_target_path(base, path);
    if let Some(query) = head.uri.query() {
        path.push('?');
        path.push_str(query);
    }
    if path.is_empty() {
        path.push('/');
    }
    head.set_raw_path(path.as_bytes())
}

fn set_origin(x: &Exchange, head: &mut RequestHeader, target: &Target, tls: bool) -> Result<()> {
    let asked = head.headers.get(HOST).cloned().or_else(|| {
        let authority = head.uri.authority()?;
        HeaderValue::from_str(authority.as_str()).ok()
    });
    let mut chain = x.peer.to_string();
    if x.trusted_peer {
        let known = head
            .headers
            .get_all(FORWARDED_FOR)
            .iter()
            .filter_map(|line| line.to_str().ok());
        let known: Vec<&str> = known.filter(|line| !line.trim().is_empty()).collect();
        if !known.is_empty() {
            chain = format!("{}, {chain}", known.join(", "));
        }
    } else {
        head.remove_header(&FORWARDED);
        head.remove_header("x-real-ip");
    }
    head.insert_header(FORWARDED_FOR, chain)?;
    if !x.trusted_peer || !head.headers.contains_key(FORWARDED_PROTO) {
        head.insert_header(FORWARDED_PROTO, if tls { "https" } else { "http" })?;
    }
    if let (Some(host), true) = (
        &asked,
        !x.trusted_peer || !head.headers.contains_key(FORWARDED_HOST),
    ) {
        head.insert_header(FORWARDED_HOST, host.clone())?;
    }
    match asked {
        Some(host) if x.preserve_host => head.insert_header(HOST, host),
        _ => head.insert_header(HOST, target.authority.clone()),
    }
}

/// An upstream's own credential replaces the client's, which is never sent beside it.
fn set_credential(head: &mut RequestHeader, upstream: &Upstream) -> Result<()> {
    for (name, value) in &upstream.headers {
        if *name == AUTHORIZATION {
            head.remove_header("x-api-key");
        }
        head.insert_header(name.clone(), value.clone())?;
    }
    Ok(())
}

fn frame_body(x: &Exchange, head: &mut RequestHeader) -> Result<()> {
    if let Body::Whole { outgoing, .. } = &x.body {
        head.remove_header(&TRANSFER_ENCODING);
        head.remove_header(&EXPECT);
        head.insert_header(CONTENT_LENGTH, outgoing.len())?;
    }
    Ok(())
}
