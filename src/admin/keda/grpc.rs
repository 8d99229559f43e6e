//! gRPC over HTTP/2, as far as calls with one message go: its frames, its statuses, and answers of one message or many.
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>)

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, LengthLimitError, Limited, StreamBody};
use hyper::body::Frame;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Bytes of the largest message that is read.
const LARGEST: usize = 64 << 10;
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// How long a message may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
const KIND: &str = "application/grpc";
const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
/// What stands for itself in a `grpc-message`: printable ASCII but for the percent sign.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// A status that is not OK. (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Why a call is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    code: Code,
    message: String,
}

impl Refusal {
    /// `message`: what is wrong, and what to do about it.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Refusal {
        let message = message.into();
        Refusal { code, message }
    }

    fn trailers(&self) -> HeaderMap {
        let told = utf8_percent_encode(&self.message, ENCODED).to_string();
        let mut trailers = status(self.code as u16);
        if let Ok(told) = HeaderValue::try_from(told) {
            trailers.insert(MESSAGE, told);
        }
        trailers
    }
}

/// Nothing but a head, which no client can refuse to take.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut head = self.trailers();
        head.insert(CONTENT_TYPE, HeaderValue::from_static(KIND));
        head.into_response()
    }
}

/// Whether a request is a call.
pub(super) fn is_call(method: &Method, headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(KIND.as_bytes()));
    *method == Method::POST
        && rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Reads the one message of a call. `places`: how many are read at once.
pub(super) async fn read(body: Body, places: &Semaphore) -> Result<Bytes, Refusal> {
    let reading = async {
        let _place = places.acquire().await;
        Limited::new(body, PREFIX + LARGEST).collect().await
    };
    match timeout(PATIENCE, reading).await {
        Ok(Ok(read)) => unframed(&read.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(broken("the message broke off")),
        Err(_) => {
            let why = "The message did not come within 10 seconds.";
            Err(Refusal::new(Code::DeadlineExceeded, why))
        }
    }
}

/// What a frame holds that is all there is.
fn unframed(frame: &Bytes) -> Result<Bytes, Refusal> {
    let Some((&[flag, length @ ..], rest)) = frame.split_first_chunk::<PREFIX>() else {
        return Err(broken(
            "a message is expected: five bytes before it, then its own",
        ));
    };
    let length = u32::from_be_bytes(length) as usize;
    match flag {
        0 if length > LARGEST => Err(too_large()),
        0 if length == rest.len() => Ok(frame.slice(PREFIX..)),
        0 => Err(broken(
            "one message is expected, of the length that stands before it",
        )),
        1 => {
            let why = "Compressed messages are not read: send them as they are.";
            Err(Refusal::new(Code::Unimplemented, why))
        }
        _ => Err(broken(
            "the first byte of a frame is 0, or 1 if the message is compressed",
        )),
    }
}

fn too_large() -> Refusal {
    let why = format!("The message is larger than {LARGEST} bytes, the most there may be.");
    Refusal::new(Code::ResourceExhausted, why)
}

fn broken(why: &str) -> Refusal {
    Refusal::new(
        Code::InvalidArgument,
        format!("The call cannot be read: {why}."),
    )
}

/// Understands a message. `name`: what is expected.
pub(super) fn understood<M: Message + Default>(message: Bytes, name: &str) -> Result<M, Refusal> {
    M::decode(message).map_err(|error| {
        let why = format!("a {name} of KEDA's externalscaler.proto is expected ({error})");
        broken(&why)
    })
}

/// An answer of one message.
pub(super) fn answer(message: &impl Message) -> Response {
    streamed(stream::iter([piece(message), ending(Ok(()))]))
}

/// An answer whose pieces come as they are made; the last one is its [`ending`].
pub(super) fn streamed(pieces: impl Stream<Item = Frame<Bytes>> + Send + 'static) -> Response {
    let pieces = pieces.map(Ok::<_, Infallible>);
    let body = Body::new(StreamBody::new(pieces));
    ([(CONTENT_TYPE, KIND)], body).into_response()
}

/// One message.
pub(super) fn piece(message: &impl Message) -> Frame<Bytes> {
    let message = message.encode_to_vec();
    // Ours are some dozens of bytes long.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let frame = [&[0], &length.to_be_bytes()[..], &message].concat();
    Frame::data(frame.into())
}

/// The end of an answer.
pub(super) fn ending(came: Result<(), Refusal>) -> Frame<Bytes> {
    Frame::trailers(match came {
        Ok(()) => status(0),
        Err(refusal) => refusal.trailers(),
    })
}

fn status(code: u16) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert(STATUS, HeaderValue::from(code));
    fields
}

#[cfg(test)]
mod tests {
    use super::super::messages::{GetMetricsRequest, ScaledObjectRef};
    use super::*;

    #[test]
    fn one_whole_message_is_a_frame() {
        let read = |bytes: &'static [u8]| unframed(&Bytes::from_static(bytes)).map_err(|r| r.code);
        assert_eq!(read(&[0, 0, 0, 0, 0]).unwrap(), "");
        assert_eq!(read(&[0, 0, 0, 0, 2, 7, 8]).unwrap(), &[7, 8][..]);
        for bytes in [
            &[][..],
            &[0, 0, 0, 0],
            &[0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 1, 7, 8],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0],
        ] {
            assert_eq!(read(bytes), Err(Code::InvalidArgument), "{bytes:?}");
        }
        assert_eq!(read(&[1, 0, 0, 0, 0]), Err(Code::Unimplemented));
        assert_eq!(read(&[0, 0, 1, 0, 1]), Err(Code::ResourceExhausted));
    }

    #[test]
    fn messages_of_a_status_are_plain_text_in_a_header() {
        let refusal = Refusal::new(Code::NotFound, "100 % \"é\"\n");
        let trailers = refusal.trailers();
        assert_eq!(trailers["grpc-status"], "5");
        assert_eq!(trailers["grpc-message"], "100 %25 \"%C3%A9\"%0A");
    }

    proptest::proptest! {
        #[test]
        fn no_message_does_harm(bytes: Vec<u8>) {
            let bytes = unframed(&Bytes::from(bytes.clone())).unwrap_or(Bytes::from(bytes));
            let _ = understood::<ScaledObjectRef>(bytes.clone(), "");
            let _ = understood::<GetMetricsRequest>(bytes, "");
        }
    }
}
