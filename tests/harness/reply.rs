//! What a client received, with the time of every piece.

use std::time::Instant;

use serde_json::Value;

/// A part of a body as it came: a chunk of HTTP/1.1, a data frame of HTTP/2.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) at: Instant,
    /// Nanoseconds since 1970.
    pub(crate) unix: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Piece {
    pub(crate) fn now(bytes: Vec<u8>) -> Piece {
        Piece {
            at: Instant::now(),
            unix: super::unix_nanos(),
            bytes,
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// An answer.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) trailers: Vec<(String, String)>,
    /// It came to its proper end: all of its length, a last chunk, an end of stream.
    pub(crate) complete: bool,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        value_of(&self.headers, name)
    }

    /// All values of a header, in their order.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        let named = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        value_of(&self.trailers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error}: {} {}", self.status, self.text()),
        }
    }

    /// The data of every event, `[DONE]` as it stands.
    pub(crate) fn events(&self) -> Vec<String> {
        let text = self.text();
        let events = text.split("\n\n").filter(|event| !event.trim().is_empty());
        let data = |event: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix("data: "));
            line.unwrap_or_default().to_owned()
        };
        events.map(data).collect()
    }

    /// The error code of an answer of Tollgate's own, which is checked to be one as a client reads it.
    #[track_caller]
    pub(crate) fn error_code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/json"),
            "{self:?}"
        );
        assert!(self.header("x-request-id").is_some(), "{self:?}");
        let json = self.json();
        let error = &json["error"];
        assert!(
            error["message"].is_string() && error["type"].is_string(),
            "{json}"
        );
        match error["code"].as_str() {
            Some(code) => code.to_owned(),
            None => panic!("no code: {json}"),
        }
    }

    /// It is Tollgate's refusal with this status and code.
    #[track_caller]
    pub(crate) fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.error_code(), code, "{}", self.text());
    }

    #[track_caller]
    pub(crate) fn assert_ok(&self) {
        assert_eq!(self.status, 200, "{}", self.text());
        assert!(self.complete, "the answer was cut short: {}", self.text());
    }
}

fn value_of<'h>(fields: &'h [(String, String)], name: &str) -> Option<&'h str> {
    let field = fields.iter().find(|(known, _)| known == name);
    field.map(|(_, value)| value.as_str())
}
