//! The wire protocol of ZeroMQ, as far as a subscriber and a client of a router need it: ZMTP 3.0 (rfc.zeromq.org/spec/23), without security.
//!
//! Whatever the other side sends, what is held of it is bounded: messages are at most [`LARGEST`] bytes in [`PARTS`] parts, and a length is believed only
//! as far as bytes come.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest message that is taken, and the most parts it may have.
const LARGEST: usize = 16 << 20;
const PARTS: usize = 8;
/// Bytes of a greeting.
const GREETING: usize = 64;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// What we are to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// We hear what a publisher says.
    Subscriber,
    /// We ask a router.
    Dealer,
}

/// A connection on which messages come.
pub(super) struct Peer {
    stream: TcpStream,
    read: Frames,
}

impl Peer {
    /// Introduces us to whoever accepted the connection.
    pub(super) async fn greet(mut stream: TcpStream, role: Role) -> io::Result<Peer> {
        stream.set_nodelay(true)?;
        stream.write_all(&greeting()).await?;
        let mut theirs = [0; GREETING];
        stream.read_exact(&mut theirs).await?;
        check_greeting(&theirs)?;
        stream.write_all(&ready(role)).await?;
        let mut peer = Peer {
            stream,
            read: Frames::default(),
        };
        loop {
            match peer.frame().await? {
                Frame::Command(body) if body.starts_with(b"\x05READY") => return Ok(peer),
                Frame::Command(body) if body.starts_with(b"\x05ERROR") => {
                    return Err(wrong("it refuses us"));
                }
                Frame::Command(_) => {}
                Frame::Part(..) => return Err(wrong("it sends a message before it is ready")),
            }
        }
    }

    /// Asks for all messages that begin with this.
    pub(super) async fn subscribe(&mut self, topic: &[u8]) -> io::Result<()> {
        self.send(&[&[&[1], topic].concat()]).await
    }

    /// Sends a message of these parts.
    pub(super) async fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut out = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let more = if i + 1 < parts.len() { MORE } else { 0 };
            put(&mut out, more, part);
        }
        self.stream.write_all(&out).await
    }

    /// The next message, part by part. Nothing is lost if this is given up and called again.
    pub(super) async fn message(&mut self) -> io::Result<Vec<Bytes>> {
        loop {
            if let Some(message) = self.read.message()? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    async fn frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.read.frame()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// What came and was not taken yet.
#[derive(Default)]
struct Frames {
    buffer: BytesMut,
    parts: Vec<Bytes>,
}

/// One frame.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Command(Bytes),
    /// And whether another follows.
    Part(Bytes, bool),
}

impl Frames {
    /// The next message, if it is there whole.
    fn message(&mut self) -> io::Result<Option<Vec<Bytes>>> {
        while let Some(frame) = self.frame()? {
            let Frame::Part(part, more) = frame else {
                // What it may say of itself meanwhile is nothing to us.
                continue;
            };
            self.parts.push(part);
            let length: usize = self.parts.iter().map(Bytes::len).sum();
            if self.parts.len() > PARTS || length > LARGEST {
                return Err(wrong("its message is too large"));
            }
            if !more {
                return Ok(Some(std::mem::take(&mut self.parts)));
            }
        }
        Ok(None)
    }

    fn frame(&mut self) -> io::Result<Option<Frame>> {
        let Some((flags, rest)) = self.buffer.split_first() else {
            return Ok(None);
        };
        if flags & !(MORE | LONG | COMMAND) != 0 {
            return Err(wrong("what it sends is no frame"));
        }
        let flags = *flags;
        let (length, head) = match flags & LONG != 0 {
            true => (rest.first_chunk().map(|long| u64::from_be_bytes(*long)), 9),
            false => (rest.first().map(|short| u64::from(*short)), 2),
        };
        let Some(length) = length else {
            return Ok(None);
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > LARGEST {
            return Err(wrong("its message is too large"));
        }
        if self.buffer.len() < head + length {
            return Ok(None);
        }
        self.buffer.advance(head);
        let body = self.buffer.split_to(length).freeze();
        Ok(Some(match flags & COMMAND != 0 {
            true => Frame::Command(body),
            false => Frame::Part(body, flags & MORE != 0),
        }))
    }
}

fn put(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    match u8::try_from(body.len()) {
        Ok(length) => out.extend([flags, length]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend((body.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
}

/// Signature, version 3.0, no security, not the server of it.
fn greeting() -> Vec<u8> {
    let mut greeting = vec![0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0x7F, 3, 0];
    greeting.extend_from_slice(b"NULL");
    greeting.resize(GREETING, 0);
    greeting
}

fn check_greeting(theirs: &[u8; GREETING]) -> io::Result<()> {
    let [0xFF, _, _, _, _, _, _, _, _, 0x7F, major, _, mechanism @ ..] = theirs else {
        return Err(wrong("it does not speak ZeroMQ"));
    };
    if *major < 3 {
        return Err(wrong("its ZeroMQ is older than version 4"));
    }
    match mechanism.starts_with(b"NULL\0") {
        true => Ok(()),
        false => Err(wrong(
            "it wants a security mechanism, which is not supported",
        )),
    }
}

fn ready(role: Role) -> Vec<u8> {
    let kind: &[u8] = match role {
        Role::Subscriber => b"SUB",
        Role::Dealer => b"DEALER",
    };
    let mut body = b"\x05READY".to_vec();
    for (name, value) in [(&b"Socket-Type"[..], kind), (b"Identity", b"")] {
        body.push(name.len() as u8);
        body.extend_from_slice(name);
        body.extend((value.len() as u32).to_be_bytes());
        body.extend_from_slice(value);
    }
    let mut out = Vec::new();
    put(&mut out, COMMAND, &body);
    out
}

fn wrong(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(bytes: &[u8], piece: usize) -> io::Result<Vec<Vec<Bytes>>> {
        let mut frames = Frames::default();
        let mut all = Vec::new();
        for piece in bytes.chunks(piece) {
            frames.buffer.extend_from_slice(piece);
            while let Some(message) = frames.message()? {
                all.push(message);
            }
        }
        Ok(all)
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let long = vec![7; 300];
        let mut bytes = Vec::new();
        put(&mut bytes, MORE, b"");
        put(&mut bytes, 0, &long);
        put(&mut bytes, COMMAND, b"\x04PING");
        put(&mut bytes, 0, b"x");
        for piece in [1, 2, 9, 1_000] {
            let all = messages(&bytes, piece).unwrap();
            assert_eq!(
                all,
                [vec![Bytes::new(), long.clone().into()], vec!["x".into()]]
            );
        }
    }

    #[test]
    fn what_is_too_large_or_no_frame_is_refused_at_once() {
        let claims = |length: u64| [&[LONG][..], &length.to_be_bytes()].concat();
        assert!(messages(&claims(u64::MAX), 100).is_err());
        assert!(messages(&claims(LARGEST as u64 + 1), 100).is_err());
        assert!(messages(&claims(LARGEST as u64), 100).unwrap().is_empty());
        assert!(messages(&[0x80, 1, 1], 100).is_err());
        assert!(messages(&[MORE, 0].repeat(PARTS + 1), 100).is_err());
        let mut greeting: [u8; GREETING] = greeting().try_into().unwrap();
        assert!(check_greeting(&greeting).is_ok());
        greeting[12..17].copy_from_slice(b"CURVE");
        assert!(check_greeting(&greeting).is_err());
        assert!(check_greeting(&[b'H'; GREETING]).is_err());
    }
}
