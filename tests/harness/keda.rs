//! KEDA's side of its external scaler: calls over HTTP/2, with messages that are put together and looked at byte by byte.

use std::net::SocketAddr;

use super::h2_client::{H2Client, H2Stream};
use super::{Reply, runtime};

/// A connection to an external scaler.
pub(crate) struct Keda {
    client: H2Client,
    fields: Vec<(String, String)>,
}

/// What came of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Called {
    /// `grpc-status`.
    pub(crate) status: u16,
    /// `grpc-message`.
    pub(crate) told: String,
    /// The messages of the answer.
    pub(crate) messages: Vec<Vec<u8>>,
}

/// A `StreamIsActive` that is open.
pub(crate) struct Activity {
    stream: H2Stream,
    bytes: Vec<u8>,
}

/// A field with a length: a text, a message, an entry of a map.
pub(crate) fn field(number: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while length > 127 {
        bytes.push((length & 127 | 128) as u8);
        length >>= 7;
    }
    bytes.push(length as u8);
    [bytes, content.to_vec()].concat()
}

/// A field that is a double.
pub(crate) fn double(number: u8, value: f64) -> Vec<u8> {
    [vec![number << 3 | 1], value.to_le_bytes().to_vec()].concat()
}

/// A `ScaledObjectRef` with this metadata.
pub(crate) fn object(metadata: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(key, value): &(&str, &str)| field(3, [field(1, key), field(2, value)].concat());
    let entries: Vec<u8> = metadata.iter().flat_map(entry).collect();
    [field(1, "scaled-object"), field(2, "models"), entries].concat()
}

/// A `GetMetricsRequest`.
pub(crate) fn question(object: &[u8], metric: &str) -> Vec<u8> {
    [field(1, object), field(2, metric)].concat()
}

/// As it goes over the wire.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u32).to_be_bytes();
    [&[0], &length[..], message].concat()
}

impl Keda {
    pub(crate) fn connect(address: SocketAddr) -> Keda {
        Keda {
            client: runtime().block_on(H2Client::connect(address)),
            fields: vec![
                ("content-type".into(), "application/grpc".into()),
                ("te".into(), "trailers".into()),
            ],
        }
    }

    /// Says this, too, from now on.
    pub(crate) fn saying(mut self, name: &str, value: &str) -> Keda {
        self.fields.retain(|(known, _)| known != name);
        self.fields.push((name.into(), value.into()));
        self
    }

    fn open(&self, procedure: &str) -> H2Stream {
        let fields: Vec<_> = { self.fields.iter() }
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let path = format!("/externalscaler.ExternalScaler/{procedure}");
        self.client.open("POST", &path, &fields, false)
    }

    /// Calls with these bytes as they are.
    pub(crate) fn send(&self, procedure: &str, bytes: &[u8]) -> Called {
        let mut stream = self.open(procedure);
        // Who is refused early may be told so before all was sent.
        let _ = stream.send(bytes.to_vec(), true);
        Called::of(&stream.reply().unwrap())
    }

    /// Calls with one message.
    pub(crate) fn call(&self, procedure: &str, message: &[u8]) -> Called {
        self.send(procedure, &framed(message))
    }

    /// Opens a stream for a service.
    pub(crate) fn watch(&self, service: &str) -> Activity {
        let mut stream = self.open("StreamIsActive");
        let message = object(&[("service", service)]);
        stream.send(framed(&message), true).unwrap();
        let head = stream.head().unwrap();
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("grpc-status"), None, "{head:?}");
        Activity {
            stream,
            bytes: Vec::new(),
        }
    }
}

impl Called {
    fn of(reply: &Reply) -> Called {
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/grpc"));
        let field = |name| reply.trailer(name).or(reply.header(name));
        let status = field("grpc-status").expect("every call has a status");
        let mut messages = Vec::new();
        let mut rest = &reply.body[..];
        while let Some(message) = next(&mut rest) {
            messages.push(message);
        }
        assert!(rest.is_empty(), "{reply:?}");
        Called {
            status: status.parse().unwrap(),
            told: field("grpc-message").unwrap_or_default().to_owned(),
            messages,
        }
    }

    /// It was answered with this message.
    #[track_caller]
    pub(crate) fn assert_is(&self, message: &[u8]) {
        assert_eq!((self.status, self.told.as_str()), (0, ""));
        assert_eq!(self.messages, [message]);
    }

    /// It was refused with this status, and the text says this.
    #[track_caller]
    pub(crate) fn assert_refused(&self, status: u16, part: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.told.contains(part), "`{part}`: {self:?}");
        assert!(self.messages.is_empty(), "{self:?}");
    }
}

impl Activity {
    /// What is told next.
    #[track_caller]
    pub(crate) fn next(&mut self) -> bool {
        loop {
            let mut rest = &self.bytes[..];
            if let Some(message) = next(&mut rest) {
                self.bytes = rest.to_vec();
                // False is the default of a field, which is not sent.
                return match &message[..] {
                    [8, 1] => true,
                    [] => false,
                    other => panic!("no IsActiveResponse: {other:?}"),
                };
            }
            let piece = self.stream.piece().unwrap();
            self.bytes
                .extend(piece.expect("the stream has ended").bytes);
        }
    }

    /// How it ends, without a word more.
    #[track_caller]
    pub(crate) fn ends(mut self) -> (u16, String) {
        let mut rest = Reply::default();
        self.stream.body(&mut rest).unwrap();
        assert!(self.bytes.is_empty() && rest.body.is_empty(), "{rest:?}");
        let field = |name| rest.trailer(name).unwrap_or_default().to_owned();
        (field("grpc-status").parse().unwrap(), field("grpc-message"))
    }

    pub(crate) fn cancel(self) {
        self.stream.cancel();
    }
}

/// Takes a message off, if it is whole.
fn next(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let (prefix, rest) = bytes.split_first_chunk::<5>()?;
    assert_eq!(prefix[0], 0, "compressed");
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    let message = rest.get(..length)?.to_vec();
    *bytes = &rest[length..];
    Some(message)
}
