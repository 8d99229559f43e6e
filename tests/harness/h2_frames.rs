//! HTTP/2 by hand: requests that no honest client library would send.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// A connection on which frames are written as they come.
pub(crate) struct RawH2 {
    stream: TcpStream,
    /// Nothing more can be written.
    closed: bool,
}

/// One frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;

impl RawH2 {
    pub(crate) fn connect(address: SocketAddr) -> RawH2 {
        Self::connect_in_pieces(address, 0)
    }

    /// The first bytes of the preface go ahead of the others.
    pub(crate) fn connect_in_pieces(address: SocketAddr, first: usize) -> RawH2 {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = RawH2 {
            stream,
            closed: false,
        };
        let (first, rest) = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".split_at(first);
        if !first.is_empty() {
            client.stream.write_all(first).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        client.stream.write_all(rest).unwrap();
        client.frame(SETTINGS, 0, 0, &[]);
        client
    }

    /// Writes a frame; the other side may be gone.
    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.closed |= self.stream.write_all(&frame).is_err();
    }

    /// Takes what has come, without waiting and without looking at it. Whether the connection is over: it was closed, or takes nothing any more.
    pub(crate) fn skim(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.closed = true,
                Ok(_) => continue,
                Err(error) => self.closed |= error.kind() != ErrorKind::WouldBlock,
            }
            break;
        }
        self.stream.set_nonblocking(false).unwrap();
        self.closed
    }

    /// Whether writing has failed.
    pub(crate) fn is_stuck(&self) -> bool {
        self.closed
    }

    /// A head in one frame, every field a literal without index.
    pub(crate) fn headers(&mut self, stream: u32, fields: &[(&[u8], &[u8])], end: bool) {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                assert!(text.len() < 127);
                block.push(text.len() as u8);
                block.extend_from_slice(text);
            }
        }
        self.frame(HEADERS, 4 | u8::from(end), stream, &block);
    }

    pub(crate) fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        self.frame(DATA, u8::from(end), stream, bytes);
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    /// What becomes of a stream: the first frame that answers it, or ends it or all.
    pub(crate) fn outcome(&mut self, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.read()?;
            match frame.kind {
                HEADERS | RESET if frame.stream == stream => return Some(frame),
                GOAWAY => return Some(frame),
                SETTINGS if frame.flags == 0 => self.frame(SETTINGS, 1, 0, &[]),
                _ => {}
            }
        }
    }
}

impl Frame {
    /// It refuses: a reset, the end of the connection, or an answer whose status is 4xx.
    pub(crate) fn refuses(&self) -> bool {
        match self.kind {
            RESET | GOAWAY => true,
            HEADERS => self.status().is_some_and(|status| status / 100 == 4),
            _ => false,
        }
    }

    /// The status of an answer's head, where it is one of HPACK's static table or a literal of digits.
    pub(crate) fn status(&self) -> Option<u16> {
        // Updates of the table's size may come first.
        let at = self.payload.iter().position(|b| b & 0xe0 != 0x20)?;
        match *self.payload.get(at)? {
            0x88 => Some(200),
            0x89 => Some(204),
            0x8a => Some(206),
            0x8b => Some(304),
            0x8c => Some(400),
            0x8d => Some(404),
            0x8e => Some(500),
            _ => digits(self.payload.get(at + 1..)?),
        }
    }
}

/// A string of digits, plain or in HPACK's Huffman code.
fn digits(text: &[u8]) -> Option<u16> {
    let (first, rest) = text.split_first()?;
    let bytes = rest.get(..usize::from(first & 0x7f))?;
    if first & 0x80 == 0 {
        return std::str::from_utf8(bytes).ok()?.parse().ok();
    }
    let mut bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |i| u16::from(byte >> i & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | bits.next()?;
        }
        let digit = match code {
            0..=2 => code,
            // Six bits: `3` is 0x19.
            0x0c..=0x0f => (code << 1 | bits.next()?) - 0x19 + 3,
            _ => return None,
        };
        number = number * 10 + digit;
    }
    Some(number)
}
