//! A check by gRPC's health protocol: `grpc.health.v1.Health/Check` for the whole server, over HTTP/2.
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>)
//!
//! The request is an empty message and the answer one small number, so protocol buffers are read by hand.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, TE};
use http::{HeaderMap, Method};
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;

use super::check::Place;
use super::request::{status, to_h2};

const PATH: &[u8] = b"/grpc.health.v1.Health/Check";
/// Not compressed, no bytes: a `HealthCheckRequest` with an empty service name.
const REQUEST: &[u8] = &[0, 0, 0, 0, 0];
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;
/// No honest answer is longer.
const ENOUGH: usize = 64 * 1024;

pub(super) struct GrpcCheck {
    place: Place,
    connector: Arc<Connector>,
}

impl GrpcCheck {
    pub(super) fn new(place: &Place, connector: Arc<Connector>) -> GrpcCheck {
        GrpcCheck {
            place: place.clone(),
            connector,
        }
    }
}

#[async_trait]
impl HealthCheck for GrpcCheck {
    async fn check(&self, target: &Backend) -> Result<()> {
        let peer = self.place.peer(target, ALPN::H2)?;
        let mut session = self.place.connect(&self.connector, &peer).await?;
        let mut head = RequestHeader::build(Method::POST, PATH, None)?;
        head.insert_header(HOST, self.place.authority.clone())?;
        head.insert_header(CONTENT_TYPE, "application/grpc")?;
        head.insert_header(TE, "trailers")?;
        to_h2(&mut head, &self.place)?;
        session.write_request_header(Box::new(head)).await?;
        session
            .write_request_body(Bytes::from_static(REQUEST), true)
            .await?;
        session.finish_request_body().await?;
        let status = status(&mut session).await?;
        if status != 200 {
            return Error::e_explain(ErrorType::HTTPStatus(status), "not gRPC's answer");
        }
        let mut message = Vec::new();
        while let Some(chunk) = session.read_response_body().await? {
            message.extend_from_slice(&chunk);
            if message.len() > ENOUGH {
                return Error::e_explain(ErrorType::InvalidHTTPHeader, "too long an answer");
            }
        }
        let code = grpc_status(&mut session).await?;
        if code != 0 {
            return Error::e_explain(ErrorType::CustomCode("grpc-status", code), "");
        }
        match serving(&message) {
            Some(SERVING) => Ok(()),
            _ => Error::e_explain(ErrorType::Custom("not serving"), ""),
        }
    }

    // The watch counts by the settings.
    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}

/// In the trailers, or in the head of an answer that is nothing else. 2 (unknown) if nowhere.
async fn grpc_status(session: &mut HttpSession<()>) -> Result<u16> {
    let read = |headers: &HeaderMap| {
        let status = headers.get("grpc-status")?;
        status.to_str().ok()?.parse().ok()
    };
    let in_head = session
        .response_header()
        .and_then(|head| read(&head.headers));
    if let Some(status) = in_head {
        return Ok(status);
    }
    let HttpSession::H2(session) = session else {
        return Ok(2);
    };
    let trailers = session.read_trailers().await?;
    Ok(trailers.as_ref().and_then(read).unwrap_or(2))
}

/// The `status` field of the `HealthCheckResponse` in a gRPC frame: field 1, a varint; absent it is 0. `None`: malformed.
fn serving(frame: &[u8]) -> Option<u64> {
    let (0, rest) = frame.split_first()? else {
        return None;
    };
    let (length, mut message) = rest.split_first_chunk::<4>()?;
    if message.len() != u32::from_be_bytes(*length) as usize {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let (tag, rest) = varint(message)?;
        message = match tag & 7 {
            0 => {
                let (value, rest) = varint(rest)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                rest
            }
            1 => rest.get(8..)?,
            2 => {
                let (length, rest) = varint(rest)?;
                rest.get(usize::try_from(length).ok()?..)?
            }
            5 => rest.get(4..)?,
            _ => return None,
        };
    }
    Some(status)
}

/// Seven bits a byte, the lowest first, as long as the eighth says that there is more.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(i + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whatever_else_is_in_them() {
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 2]), Some(2));
        // The default of proto3 is not sent.
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        // Unknown fields of every kind around it.
        let fields = [
            &[0x12, 2, 9, 9][..],
            &[0x1d, 1, 2, 3, 4],
            &[8, 1],
            &[0x21, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x28, 0xff, 1],
        ]
        .concat();
        let mut frame = vec![0, 0, 0, 0, fields.len() as u8];
        frame.extend(fields);
        assert_eq!(serving(&frame), Some(1));
    }

    #[test]
    fn what_is_malformed_does_not_serve() {
        for frame in [
            &[][..],
            &[0, 0, 0, 0],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 3, 8, 1],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0, 0, 0, 2, 8, 0x80],
            &[0, 0, 0, 0, 2, 0x12, 9],
            &[0, 0, 0, 0, 2, 0x0b, 1],
        ] {
            assert_eq!(serving(frame), None, "{frame:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_does_harm(bytes: Vec<u8>) {
            serving(&bytes);
        }
    }
}
