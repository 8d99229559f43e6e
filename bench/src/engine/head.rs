//! Reads the head of an HTTP/1.1 request: what the connection must know to go on.
//!
//! `Head` is found without allocating; `request` copies the rest when somebody needs it. Framing is
//! judged strictly (RFC 9112, section 6): ambiguous lengths are refused, never guessed.

use httparse::Status;

use super::counters::Endpoint;
use super::peer::Request;

/// Longest head accepted.
pub(super) const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 128;

/// How the end of the request body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// What the connection must know about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes the head takes up.
    pub(super) length: usize,
    pub(super) endpoint: Endpoint,
    pub(super) framing: Framing,
    /// The connection ends after this exchange.
    pub(super) close: bool,
    /// HTTP/1.0: no transfer codings.
    pub(super) old: bool,
    pub(super) expects_continue: bool,
    pub(super) is_post: bool,
    pub(super) is_head: bool,
    /// Carries `x-sim`.
    pub(super) has_faults: bool,
}

/// The status that answers a head that cannot be served.
pub(super) type Refusal = u16;

impl Head {
    /// `None` when the head is not complete yet.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(Status::Complete(length)) if length <= MAX_HEAD => length,
            Ok(Status::Partial) if bytes.len() <= MAX_HEAD => return Ok(None),
            Err(httparse::Error::Version) => return Err(505),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(431),
            Err(_) => return Err(400),
        };
        let method = request.method.unwrap_or_default();
        let old = request.version == Some(0);
        let mut head = Self {
            length,
            endpoint: Endpoint::of(request.path.unwrap_or_default()),
            framing: Framing::Length(0),
            close: old,
            old,
            expects_continue: false,
            is_post: method == "POST",
            is_head: method == "HEAD",
            has_faults: false,
        };
        let (mut announced, mut chunked, mut hosts) = (None, false, 0);
        for header in request.headers.iter() {
            let (name, value) = (header.name, header.value);
            match name.len() {
                4 if name.eq_ignore_ascii_case("host") => hosts += 1,
                5 if name.eq_ignore_ascii_case("x-sim") => head.has_faults = true,
                6 if name.eq_ignore_ascii_case("expect") => {
                    head.expects_continue = !old && value.eq_ignore_ascii_case(b"100-continue");
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    if has_word(value, b"close") {
                        head.close = true;
                    } else if old && has_word(value, b"keep-alive") {
                        head.close = false;
                    }
                }
                14 if name.eq_ignore_ascii_case("content-length") => {
                    let value = read_length(value).ok_or(400u16)?;
                    if announced.is_some_and(|known| known != value) {
                        return Err(400);
                    }
                    announced = Some(value);
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    if chunked || old {
                        return Err(400);
                    }
                    if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                        return Err(501);
                    }
                    chunked = true;
                }
                _ => {}
            }
        }
        if hosts > 1 || (hosts == 0 && !old) || (chunked && announced.is_some()) {
            return Err(400);
        }
        head.framing = if chunked {
            Framing::Chunked
        } else {
            Framing::Length(announced.unwrap_or(0))
        };
        Ok(Some(head))
    }
}

/// The whole request, copied out of a head that `Head::read` accepted.
pub(super) fn request(bytes: &[u8]) -> Request {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    // It parsed before; were it to fail now, the request is empty and gets a 404.
    let _ = parsed.parse(bytes);
    Request {
        protocol: if parsed.version == Some(0) {
            "HTTP/1.0"
        } else {
            "HTTP/1.1"
        },
        method: parsed.method.unwrap_or_default().to_owned(),
        path: parsed.path.unwrap_or_default().to_owned(),
        headers: parsed
            .headers
            .iter()
            .map(|h| {
                (
                    h.name.to_owned(),
                    String::from_utf8_lossy(h.value).into_owned(),
                )
            })
            .collect(),
    }
}

fn has_word(list: &[u8], word: &[u8]) -> bool {
    list.split(|byte| *byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(word))
}

fn read_length(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Head>, Refusal> {
        Head::read(text.as_bytes())
    }

    #[test]
    fn a_head_tells_the_framing() {
        let text =
            "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nbody";
        let head = read(text).unwrap().unwrap();
        assert_eq!(&text[head.length..], "body");
        assert_eq!(
            (head.framing, head.endpoint),
            (Framing::Length(12), Endpoint::Chat)
        );
        assert!(head.is_post && !head.close && !head.has_faults);
        let head = read("GET / HTTP/1.1\r\nhost: a\r\nconnection: x, Close\r\nX-Sim: a\r\n\r\n");
        assert!(
            head.unwrap()
                .is_some_and(|head| head.close && head.has_faults)
        );
        assert_eq!(read("GET / HTTP/1.1\r\nhost: a\r\n"), Ok(None));
        let request = request(text.as_bytes());
        assert_eq!(request.header("host").as_deref(), Some("a"));
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for (fields, status) in [
            ("content-length: 1\r\ncontent-length: 2\r\n", 400),
            ("content-length: 1\r\ntransfer-encoding: chunked\r\n", 400),
            ("content-length: +1\r\n", 400),
            ("transfer-encoding: gzip, chunked\r\n", 501),
            ("host: b\r\n", 400),
        ] {
            let text = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
            assert_eq!(read(&text), Err(status), "{fields}");
        }
        assert_eq!(read("GET / HTTP/1.1\r\n\r\n"), Err(400));
        let long = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", "a".repeat(MAX_HEAD));
        assert_eq!(read(&long), Err(431));
    }

    #[test]
    fn old_clients_close_unless_they_ask() {
        let head = read("GET / HTTP/1.0\r\n\r\n").unwrap().unwrap();
        assert!(head.close && head.old);
        let head = read("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            .unwrap()
            .unwrap();
        assert!(!head.close);
    }
}
