//! What an authority asks in the clear to see that a host is ours (RFC 8555, section 8.3): answered before anything else is decided.
//!
//! Only tokens of orders that are under way are answered, each at its own host. Everything else at that path goes its usual way.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::exchange::Exchange;
use super::identify::host;
use super::reply;
use crate::control::Control;
use crate::snapshot::without_port;

const PATH: &str = "/.well-known/acme-challenge/";

/// The answer, if that is what is asked for.
pub(super) fn answer(session: &Session, x: &Exchange, control: &Control) -> Option<Bytes> {
    let head = session.req_header();
    let token = head.uri.path().strip_prefix(PATH)?;
    if x.handshake.is_some() || head.method != Method::GET {
        return None;
    }
    let host = without_port(host(session)).trim_end_matches('.');
    control.challenges().request(host, token).map(Bytes::from)
}

/// Sends it.
pub(super) async fn send(session: &mut Session, x: &mut Exchange, answer: Bytes) -> Result<()> {
    if !session.is_body_done() {
        session.set_keepalive(None);
    }
    let mut head = ResponseHeader::build(StatusCode::OK, Some(4))?;
    head.insert_header(CONTENT_TYPE, "application/octet-stream")?;
    reply::send(session, x, head, answer).await
}
