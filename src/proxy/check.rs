//! What must hold for any bytes of a connection: the checks that the fuzz targets and the property tests share.
//!
//! They panic when something does not hold. Compiled for tests and with the feature `fuzz` only.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failed check panics"
)]

use std::pin::pin;
use std::time::Duration;

use pingora_core::protocols::http::ServerSession;
use tokio::io::AsyncWriteExt;

use super::connection::Watched;
use super::identify;
use super::preamble::{self, LONGEST, Read};
use super::waiting::{Closing, begins};

/// What a PROXY header says does not depend on how it is cut, and what follows it is not looked at.
pub fn check_preamble(bytes: &[u8]) {
    let mut decided = None;
    for length in 0..=bytes.len().min(LONGEST + 8) {
        let read = preamble::read(&bytes[..length]);
        match (&decided, read) {
            (None, Read::Begun) => assert!(length < LONGEST, "it has no end"),
            (None, read) => decided = Some(read),
            (Some(before), read) => assert_eq!(*before, read, "after {length} bytes"),
        }
        if let Read::Whole(_, taken) = read {
            assert!(taken <= length && taken <= LONGEST);
        }
    }
}

/// Requests are the same however their bytes come, and none of them is waited for that has come already.
///
/// A request line with characters that are not allowed is an exception: Pingora takes it if it comes whole, and refuses it if it comes in pieces. So what is
/// refused in one way may go on in another, but nothing before that differs.
pub fn check_requests(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let whole = requests(&[bytes]).await;
        let middle = bytes.len() / 2;
        let halves = requests(&[&bytes[..middle], &bytes[middle..]]).await;
        let pieces: Vec<_> = bytes.chunks(bytes.len() / 7 + 1).collect();
        for other in [halves, requests(&pieces).await] {
            let both = whole.seen.iter().zip(&other.seen);
            assert!(both.into_iter().all(|(a, b)| a == b), "others were seen");
            if !whole.refused && !other.refused {
                assert_eq!(whole.seen.len(), other.seen.len());
            }
        }
    });
}

#[derive(Default)]
struct Seen {
    /// Request line and body of each.
    seen: Vec<(String, Vec<u8>)>,
    /// A head was none.
    refused: bool,
}

async fn requests(pieces: &[&[u8]]) -> Seen {
    let (mut client, ours) = tokio::io::duplex(1 << 20);
    let send = async {
        for piece in pieces {
            let _ = client.write_all(piece).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = client.shutdown().await;
    };
    let (seen, ()) = tokio::join!(receive(ours), send);
    seen
}

async fn receive(ours: tokio::io::DuplexStream) -> Seen {
    let mut seen = Seen::default();
    let closing = Closing::default();
    let mut closed = pin!(closing.closed());
    let mut watched = Box::new(Watched::new(Box::new(ours), Duration::from_secs(10), None));
    let alarm = watched.alarm().clone();
    let mut prefix = None;
    loop {
        if alarm.nothing_ahead() {
            assert!(prefix.is_none(), "there is more: {prefix:?}");
            if !begins(&mut watched, closed.as_mut()).await {
                return seen;
            }
        }
        let mut session = ServerSession::new_http1(watched);
        session.set_keepalive(Some(60));
        session.set_pipelining_enabled(true);
        if let Some(prefix) = prefix.take() {
            session.set_pipelined_prefix(prefix);
        }
        let read = session.read_request().await;
        if !matches!(read, Ok(true)) {
            seen.refused = read.is_err();
            return seen;
        }
        let head = session.req_header();
        let raw = session.as_http1().unwrap().get_headers_raw_bytes().len();
        alarm.claim(identify::length(head, raw));
        let line = format!("{} {}", head.method, head.uri);
        let mut body = Vec::new();
        loop {
            match session.read_request_body().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break,
                Err(_) => return seen,
            }
        }
        seen.seen.push((line, body));
        let Ok(Some(reused)) = session.finish().await else {
            return seen;
        };
        let (stream, more) = reused.into_parts();
        prefix = more;
        watched = stream.into_any().downcast().unwrap();
    }
}

#[cfg(test)]
#[path = "../../fuzz/checks/kept.rs"]
mod kept;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_fuzzing_kept() {
        let kept = |target| kept::kept(env!("CARGO_MANIFEST_DIR"), target);
        kept("requests")
            .iter()
            .for_each(|bytes| check_requests(bytes));
        kept("proxy_header")
            .iter()
            .for_each(|bytes| check_preamble(bytes));
    }

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let body = prop::collection::vec(any::<u8>(), 0..300);
        let path = prop::sample::select(vec!["/", "/a b", "/v1/models?x=%20", "/\u{e4}"]);
        (body, path, 0..4u8, 1..50usize).prop_map(|(body, path, framing, size)| {
            let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n");
            let mut all = head.into_bytes();
            match framing {
                0 => all.extend(b"\r\n"),
                1 => {
                    all.extend(b"transfer-encoding: chunked\r\n\r\n");
                    for chunk in body.chunks(size) {
                        all.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                        all.extend(chunk);
                        all.extend(b"\r\n");
                    }
                    all.extend(b"0\r\n\r\n");
                }
                _ => {
                    all.extend(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
                    all.extend(&body);
                }
            }
            all
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn requests_do_not_depend_on_how_they_come(all in prop::collection::vec(request(), 1..12)) {
            check_requests(&all.concat());
        }

        #[test]
        fn nor_do_broken_ones(all in prop::collection::vec(request(), 1..4), at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let mut bytes = all.concat();
            let at = at.index(bytes.len());
            bytes[at] = with;
            check_requests(&bytes);
        }

        #[test]
        fn nor_does_a_proxy_header(begin in prop::sample::select(vec![&b""[..], b"PROXY TCP4 ", b"PROXY TCP6 ::1 ::2 1 ", b"\r\n\r\n\0\r\nQUIT\n\x21"]), rest in prop::collection::vec(any::<u8>(), 0..300)) {
            check_preamble(&[begin, &rest].concat());
        }
    }
}
