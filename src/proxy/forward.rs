//! Phase 4: the request as the upstream sees it.
//!
//! Path, headers, credential; the body was prepared in phase 2. Both roads to an upstream use [`prepare`].
//!
//! Pingora's setters keep the case in which each header was typed and parse every name anew; half a dozen of them would cost more than the rest of
//! this file. So the head is taken apart, its map edited directly, and put together again with lower-case names.

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, TRANSFER_ENCODING,
};
use http::request::Parts as ReqParts;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use pingora_core::Result;
use pingora_http::RequestHeader;
use smallvec::SmallVec;

use super::exchange::Exchange;
use super::{disaggregate, peer, plugins};
use crate::model::Scheme;
use crate::snapshot::{Target, Upstream, join_target_path};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(super) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers added at most.
const ADDED: usize = 8;

/// Turns the client's head into the one for the target of the attempt under way.
pub(super) fn prepare(x: &Exchange, head: &mut RequestHeader, tls: bool) -> Result<()> {
    let odd_path = (!head.raw_path_is_utf8()).then(|| head.raw_path().to_vec());
    let nothing = RequestHeader::from(Request::new(()).into_parts().0);
    let parts = ReqParts::from(std::mem::replace(head, nothing));
    *head = dress(x, parts, odd_path.as_deref(), tls)?;
    Ok(())
}

/// The head for the target of the attempt under way, of a copy of the client's. `odd_path` is the path where it is no text.
pub(super) fn dress(
    x: &Exchange,
    mut parts: ReqParts,
    odd_path: Option<&[u8]>,
    tls: bool,
) -> Result<RequestHeader> {
    let odd = |head: &mut RequestHeader| odd_path.map_or(Ok(()), |path| head.set_raw_path(path));
    let found = peer::target(x);
    let target = { found.as_ref() }.and_then(|(upstream, index)| {
        let target = upstream.targets.get(*index)?;
        Some((upstream, target))
    });
    let Some((upstream, target)) = target else {
        let mut head = RequestHeader::from(parts);
        odd(&mut head)?;
        return Ok(head);
    };
    parts.headers.reserve(ADDED);
    remove(x, &mut parts.headers);
    set_origin(x, &mut parts, target, tls);
    set_credential(&mut parts.headers, upstream);
    if let Some(bytes) = x.outgoing_len() {
        let headers = &mut parts.headers;
        headers.insert(CONTENT_LENGTH, number(bytes));
    }
    parts.headers.insert(REQUEST_ID, x.request_id.value());
    disaggregate::dress(x, &mut parts.headers);
    plugins::edit_request(x, &mut parts.headers);
    let mut head = RequestHeader::from(parts);
    odd(&mut head)?;
    set_path(x, &mut head, target)?;
    Ok(head)
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
    if path.is_empty() {
        path.push('/');
    }
    if let Some(query) = head.uri.query() {
        path.push('?');
        path.push_str(query);
    }
    head.set_raw_path(path.as_bytes())
}

fn set_origin(x: &Exchange, parts: &mut ReqParts, target: &Target, tls: bool) {
    let asked = parts.headers.get(HOST).cloned().or_else(|| {
        let authority = parts.uri.authority()?;
        HeaderValue::from_str(authority.as_str()).ok()
    });
    let headers = &mut parts.headers;
    if x.trusted_peer {
        let mut chain = String::new();
        for line in headers.get_all(FORWARDED_FOR) {
            if let Some(line) = line.to_str().ok().filter(|line| !line.trim().is_empty()) {
                chain.push_str(line);
                chain.push_str(", ");
            }
        }
        chain.push_str(&x.peer.to_string());
        if let Ok(chain) = HeaderValue::try_from(chain) {
            headers.insert(FORWARDED_FOR, chain);
        }
    } else {
        headers.insert(FORWARDED_FOR, address(x.peer));
    }
    if !x.trusted_peer || !headers.contains_key(FORWARDED_PROTO) {
        let proto = if tls { "https" } else { "http" };
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
    }
    if let (Some(host), true) = (
        &asked,
        !x.trusted_peer || !headers.contains_key(FORWARDED_HOST),
    ) {
        headers.insert(FORWARDED_HOST, host.clone());
    }
    let host = asked.filter(|_| x.preserve_host);
    headers.insert(HOST, host.unwrap_or_else(|| target.authority.clone()));
}

/// A number as a header, in memory of its own size.
fn number(number: usize) -> HeaderValue {
    let mut digits = itoa::Buffer::new();
    HeaderValue::from_str(digits.format(number)).unwrap_or_else(|_| number.into())
}

/// An address as a header, without the detour over the formatting machinery for the common family.
fn address(ip: std::net::IpAddr) -> HeaderValue {
    let text = match ip {
        std::net::IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            let mut text: SmallVec<[u8; 15]> = SmallVec::new();
            for (i, octet) in [a, b, c, d].into_iter().enumerate() {
                if i > 0 {
                    text.push(b'.');
                }
                if octet >= 100 {
                    text.push(b'0' + octet / 100);
                }
                if octet >= 10 {
                    text.push(b'0' + octet / 10 % 10);
                }
                text.push(b'0' + octet % 10);
            }
            HeaderValue::from_bytes(&text)
        }
        std::net::IpAddr::V6(v6) => HeaderValue::from_str(&v6.to_string()),
    };
    text.unwrap_or(HeaderValue::from_static("unknown"))
}

/// An upstream's own credential replaces the client's, which is never sent beside it.
fn set_credential(headers: &mut HeaderMap, upstream: &Upstream) {
    for (name, value) in &*upstream.headers {
        if *name == AUTHORIZATION {
            headers.remove(API_KEY);
        }
        headers.insert(name.clone(), value.clone());
    }
}

/// Takes out what the upstream must not see. A look at each name costs less than looking for each of these.
fn remove(x: &Exchange, headers: &mut HeaderMap) {
    let read = x.body.is_whole();
    // What is used stands in the body, and must be readable there.
    let reads = x.offer.as_ref().is_some_and(|offer| offer.service.meters()) || plugins::watches(x);
    // What the gateway took for its key is nobody else's.
    let own = x
        .gateway
        .as_ref()
        .and_then(|gateway| gateway.key_header.as_ref());
    let unwanted = |name: &&HeaderName| {
        let name = *name;
        (read && (name == TRANSFER_ENCODING || name == EXPECT))
            || (reads && name == ACCEPT_ENCODING)
            || (!x.trusted_peer && (name == FORWARDED || *name == REAL_IP))
            || Some(name) == own
            || (x.consumed && (name == AUTHORIZATION || *name == API_KEY))
    };
    let unwanted: SmallVec<[HeaderName; 4]> = headers.keys().filter(unwanted).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_the_standard_library_writes_them() {
        for text in ["127.0.0.1", "10.20.100.255", "0.9.10.99", "2001:db8::1"] {
            assert_eq!(address(text.parse().unwrap()), text);
        }
    }
}
