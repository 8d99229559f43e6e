//! Takes an HTTP/1.1 chunked body apart, in whatever pieces it arrives.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

/// A chunk-size line, extensions included, or a trailer line may not be longer.
const MAX_LINE: usize = 4096;

/// Where in the body the decoder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunked {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Data(Bytes),
    NeedMore,
    End,
    Malformed,
}

impl Chunked {
    /// Takes the next piece, of at most `max` bytes, off the front of `buf`.
    pub(super) fn next(&mut self, buf: &mut BytesMut, max: usize) -> Found {
        loop {
            match *self {
                Self::Done => return Found::End,
                Self::Data(0) => *self = Self::DataEnd,
                Self::Data(left) => {
                    let ready = buf.len().min(max.max(1));
                    let take = ready.min(usize::try_from(left).unwrap_or(usize::MAX));
                    if take == 0 {
                        return Found::NeedMore;
                    }
                    *self = Self::Data(left - take as u64);
                    return Found::Data(buf.split_to(take).freeze());
                }
                Self::DataEnd => match (buf.first(), buf.get(1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        buf.advance(2);
                        *self = Self::Size;
                    }
                    (None, _) | (Some(b'\r'), None) => return Found::NeedMore,
                    _ => return Found::Malformed,
                },
                Self::Size => {
                    let line = match take_line(buf) {
                        Ok(Some(line)) => line,
                        Ok(None) => return Found::NeedMore,
                        Err(()) => return Found::Malformed,
                    };
                    *self = match read_size(&line) {
                        Some(0) => Self::Trailers,
                        Some(size) => Self::Data(size),
                        None => return Found::Malformed,
                    };
                }
                Self::Trailers => match take_line(buf) {
                    Ok(Some(line)) if line.is_empty() => *self = Self::Done,
                    Ok(Some(_)) => {}
                    Ok(None) => return Found::NeedMore,
                    Err(()) => return Found::Malformed,
                },
            }
        }
    }
}

/// A line without its CRLF.
fn take_line(buf: &mut BytesMut) -> Result<Option<BytesMut>, ()> {
    match memchr(b'\n', buf) {
        Some(end) if end <= MAX_LINE => {
            let mut line = buf.split_to(end + 1);
            match line.len().checked_sub(2).map(|at| (at, line.get(at))) {
                Some((at, Some(b'\r'))) => {
                    line.truncate(at);
                    Ok(Some(line))
                }
                _ => Err(()),
            }
        }
        None if buf.len() <= MAX_LINE => Ok(None),
        _ => Err(()),
    }
}

fn read_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(parts: &[&[u8]]) -> Result<Vec<u8>, Found> {
        let (mut state, mut buf, mut out) = (Chunked::Size, BytesMut::new(), Vec::new());
        for part in parts {
            buf.extend_from_slice(part);
            loop {
                match state.next(&mut buf, 3) {
                    Found::Data(data) => out.extend_from_slice(&data),
                    Found::NeedMore => break,
                    Found::End => return Ok(out),
                    Found::Malformed => return Err(Found::Malformed),
                }
            }
        }
        Err(Found::NeedMore)
    }

    #[test]
    fn any_cut_gives_the_same_body() {
        let wire = b"5;ext=1\r\nhello\r\nA\r\n, world...\r\n0\r\nTrailer: x\r\n\r\n";
        assert_eq!(decode(&[wire]).unwrap(), b"hello, world...");
        for cut in 0..wire.len() {
            let (a, b) = wire.split_at(cut);
            assert_eq!(decode(&[a, b]).unwrap(), b"hello, world...", "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(decode(&bytes).unwrap(), b"hello, world...");
    }

    #[test]
    fn broken_framing_is_seen() {
        for wire in [
            &b"xyz\r\n"[..],
            b"\r\n",
            b"5\nhello\r\n",
            b"2\r\nhello\r\n",
            b"-1\r\n",
            b"fffffffffffffffff\r\n",
        ] {
            assert_eq!(decode(&[wire]), Err(Found::Malformed), "{wire:?}");
        }
    }
}
