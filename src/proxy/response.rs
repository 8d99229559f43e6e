//! Phase 5: the answer's head: what kind of answer it is, and what the client is told beside it.

use http::header::{CONNECTION, CONTENT_LENGTH};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use tokio::time::Instant;

use super::connection::Deadline;
use super::exchange::Exchange;
use super::stream::{self, Meter};

/// Looks at the head, and makes it the client's. Both roads from an upstream pass here.
pub(super) fn head(x: &mut Exchange, head: &mut ResponseHeader) -> Result<()> {
    let status = head.status.as_u16();
    if head.status.is_informational() && status != 101 {
        return Ok(());
    }
    x.status = status;
    x.set_deadline(Instant::now(), Deadline::Idle);
    if x.grpc || status == 101 {
        x.meter = Meter::None;
    }
    stream::begin(x, status, &head.headers);
    if let (Some(alarm), Some(offer)) = (&x.alarm, &x.offer) {
        if !offer.service.buffers() {
            alarm.flush_eagerly();
        }
    }
    if status != 101 {
        strip_hop_by_hop(head);
    }
    if let Meter::Events { .. } = x.meter {
        // An event may be left out, so the length is not known.
        head.remove_header(&CONTENT_LENGTH);
    }
    head.insert_header("x-request-id", x.request_id.value())?;
    head.insert_header("x-tollgate-attempts", x.attempts)?;
    if let Some(offer) = &x.offer {
        head.insert_header("x-tollgate-service", offer.service.header.clone())?;
    }
    Ok(())
}

/// Headers of the upstream's connection are no business of the client's. `Transfer-Encoding` and the version are
/// Pingora's, which frames the answer anew.
fn strip_hop_by_hop(head: &mut ResponseHeader) {
    if let Some(named) = head.remove_header(&CONNECTION) {
        for name in named.to_str().unwrap_or_default().split(',').map(str::trim) {
            if !name.is_empty() && !is_framing(name) {
                head.remove_header(name);
            }
        }
    }
    for name in [
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "te",
        "upgrade",
    ] {
        head.remove_header(name);
    }
}

fn is_framing(name: &str) -> bool {
    ["content-length", "transfer-encoding", "content-type"]
        .iter()
        .any(|n| name.eq_ignore_ascii_case(n))
}
