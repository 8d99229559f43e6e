//! Phase 5: the answer's head: what kind of answer it is, and what the client is told beside it.

use std::time::SystemTime;

use http::header::{CONNECTION, CONTENT_LENGTH, STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING};
use http::response::Parts as RespParts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, Version};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::Instant;

use super::account;
use super::alarm::Deadline;
use super::exchange::Exchange;
use super::forward::REQUEST_ID;
use super::plugins;
use super::recover::bodiless;
use super::reply::insists;
use super::stream::{self, Meter};

const ATTEMPTS: HeaderName = HeaderName::from_static("x-tollgate-attempts");
const KEY_EXPIRES: HeaderName = HeaderName::from_static("x-tollgate-key-expires");
const SERVICE: HeaderName = HeaderName::from_static("x-tollgate-service");

/// How clients are told where they stand with limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// In the head.
    InHead,
    /// By lines that join it when it is written.
    Beside,
}

impl Telling {
    /// How it can be done on our road: beside the head wherever nobody else is to see them there.
    pub(super) fn of(session: &Session, x: &Exchange) -> Telling {
        let tells = !x.edits.standings.is_empty() && x.alarm.is_some();
        let edited = !plugins::response_edits(x).is_empty() || plugins::answer(x);
        match tells && !edited && !session.as_downstream().is_http2() {
            true => Telling::Beside,
            false => Telling::InHead,
        }
    }
}

/// Writes the head, with what stands beside it.
pub(super) async fn write(
    session: &mut Session,
    x: &Exchange,
    head: Box<ResponseHeader>,
    end: bool,
    telling: Telling,
) -> Result<()> {
    let alarm = x.alarm.as_ref().filter(|_| telling == Telling::Beside);
    if let Some(alarm) = alarm {
        alarm.put_beside(x.edits.standings);
    }
    let written = session.write_response_header(head, end).await;
    if let Some(alarm) = alarm {
        alarm.take_beside();
    }
    written.map_err(|e| e.into_down())
}

/// Looks at the head, which came at `now`, and makes it the client's. Both roads from an upstream pass here.
pub(super) fn head(
    session: &Session,
    x: &mut Exchange,
    head: &mut ResponseHeader,
    now: Instant,
    telling: Telling,
) -> Result<()> {
    let status = head.status.as_u16();
    if head.status.is_informational() && status != 101 {
        return Ok(());
    }
    x.status = status;
    x.set_deadline(now, Deadline::Idle);
    if x.grpc || status == 101 {
        x.meter = Meter::None;
    }
    stream::begin(x, status, &head.headers);
    if let (Some(alarm), Some(offer)) = (&x.alarm, &x.offer)
        && !offer.service.buffers()
    {
        alarm.flush_eagerly();
    }
    let reason = own_reason(head);
    // Edited as a map for the reason that forward.rs gives.
    let nothing = ResponseHeader::from(Response::new(()).into_parts().0);
    let mut parts = RespParts::from(std::mem::replace(head, nothing));
    parts.headers.reserve(match telling {
        Telling::InHead => 10,
        Telling::Beside => 4,
    });
    if let (Some(alarm), 101) = (&x.alarm, status) {
        alarm.set_request_read(false);
    }
    if status != 101 {
        strip_hop_by_hop(&mut parts.headers);
    }
    if let Meter::Events { .. } = x.meter {
        // An event may be left out, so the length is not known.
        parts.headers.remove(CONTENT_LENGTH);
    }
    parts.headers.insert(REQUEST_ID, x.request_id.value());
    let attempts = match x.attempts {
        1 => HeaderValue::from_static("1"),
        more => HeaderValue::from(more),
    };
    parts.headers.insert(ATTEMPTS, attempts);
    if let Some(offer) = &x.offer {
        parts.headers.insert(SERVICE, offer.service.header.clone());
    }
    if let Some(hsts) = insists(x) {
        parts
            .headers
            .insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    if let Some(end) = x
        .key
        .as_ref()
        .and_then(|key| key.ends_soon(SystemTime::now))
        && let Ok(end) = jiff::Timestamp::try_from(end)
        && let Ok(end) = HeaderValue::try_from(end.to_string())
    {
        parts.headers.insert(KEY_EXPIRES, end);
    }
    match telling {
        Telling::InHead => x.edits.standings.put(|name, value| {
            parts.headers.insert(name, value);
        }),
        // The upstream's own are of its account with whoever serves it, if anybody's.
        Telling::Beside => remove_all(&mut parts.headers, |name| x.edits.standings.has(name)),
    }
    for (name, edit) in plugins::response_edits(x) {
        edit.clone().apply(name.clone(), &mut parts.headers);
    }
    let verdict = plugins::pre_response(session, x, &mut parts.headers);
    *head = ResponseHeader::from(parts);
    if let Some(reason) = reason {
        head.set_reason_phrase(Some(&reason))?;
    }
    verdict?;
    let empty = { head.headers.get(CONTENT_LENGTH) }.is_some_and(|length| length == "0");
    if empty || bodiless(session, head) {
        // The client has its answer with the head, and may ask again before the end of the body is told.
        account::give_back(x, now);
    }
    Ok(())
}

/// Before HTTP/1.1 there are no chunks: the end of the connection is the end of the answer.
pub(super) fn frame_for(session: &mut Session, head: &mut ResponseHeader) {
    if session.req_header().version >= Version::HTTP_11 || head.status.is_informational() {
        return;
    }
    if head.remove_header(&TRANSFER_ENCODING).is_some() {
        session.set_keepalive(None);
    }
}

/// The upstream's reason phrase, where it is not the usual one.
fn own_reason(head: &ResponseHeader) -> Option<String> {
    let reason = head.get_reason_phrase()?;
    (head.status.canonical_reason() != Some(reason)).then(|| reason.to_owned())
}

/// Headers of the upstream's connection are no business of the client's. `Transfer-Encoding` and the version are
/// Pingora's, which frames the answer anew.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if let Some(named) = headers.remove(CONNECTION) {
        for name in named.to_str().unwrap_or_default().split(',').map(str::trim) {
            if !name.is_empty() && !is_framing(name) {
                headers.remove(name);
            }
        }
    }
    remove_all(headers, is_hop_by_hop);
}

/// A look at each name costs less than looking for each that is unwanted.
fn remove_all(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| unwanted(name)).cloned() {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "keep-alive" | "proxy-connection" | "proxy-authenticate" | "te" | "upgrade"
    )
}

fn is_framing(name: &str) -> bool {
    ["content-length", "transfer-encoding", "content-type"]
        .iter()
        .any(|n| name.eq_ignore_ascii_case(n))
}
