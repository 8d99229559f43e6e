//! `request_size_limiter`: how large a request may be, in bytes and in characters.
//!
//! It owns the two limits and what is said of them in the answer's headers. A request that announces too much is refused by that
//! word alone; one that announces nothing is measured, or refused with 411 where a length is required.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue};
use tollgate_sdk::codes;
use tollgate_sdk::document;
use tollgate_sdk::plugin::{
    Builds, Built, Exchange, Host, Needs, Plugin, Refusal, Stage, Step, Verdict,
};

document! {
    /// How large a request may be; larger ones get 413. The answer's headers X-Request-Size-Bytes, X-Size-Limit-Bytes,
    /// X-Request-Size-Chars and X-Size-Limit-Chars tell how large it was and might have been.
    pub struct RequestSizeLimiter {
        /// The largest body, in `size_unit`.
        #[range(1..=1099511627776)]
        allowed_payload_size: u64 = 10,
        /// What `allowed_payload_size` counts.
        size_unit: SizeUnit = SizeUnit::Megabytes,
        /// The most characters of a body, 0 for as many as there are.
        #[range(0..=1099511627776)]
        max_chars_per_request: u64 = 100_000,
        /// Whether a request with a body must say its length beforehand; else it gets 411.
        require_content_length: bool = false,
    }
}

document! {
    /// What sizes are counted in.
    pub enum SizeUnit {
        /// Bytes.
        Bytes = "bytes",
        /// 1024 bytes.
        Kilobytes = "kilobytes",
        /// 1024 kilobytes.
        Megabytes = "megabytes",
    }
}

impl Builds for RequestSizeLimiter {
    const NAME: &'static str = "request_size_limiter";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, _: &Host) -> Built {
        let unit = match self.size_unit {
            SizeUnit::Bytes => 1,
            SizeUnit::Kilobytes => 1 << 10,
            SizeUnit::Megabytes => 1 << 20,
        };
        Arc::new(Limiter {
            bytes: self.allowed_payload_size.saturating_mul(unit),
            chars: Some(self.max_chars_per_request).filter(|chars| *chars > 0),
            length_required: self.require_content_length,
        })
    }
}

struct Limiter {
    bytes: u64,
    chars: Option<u64>,
    length_required: bool,
}

const SIZE_BYTES: HeaderName = HeaderName::from_static("x-request-size-bytes");
const LIMIT_BYTES: HeaderName = HeaderName::from_static("x-size-limit-bytes");
const SIZE_CHARS: HeaderName = HeaderName::from_static("x-request-size-chars");
const LIMIT_CHARS: HeaderName = HeaderName::from_static("x-size-limit-chars");

impl Plugin for Limiter {
    fn needs(&self) -> Needs {
        Needs {
            // To count characters takes more than the length.
            request_body: self.chars.is_some(),
            request_peek: true,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        self.measure(x).into()
    }
}

impl Limiter {
    fn measure(&self, x: &mut Exchange<'_>) -> Verdict {
        let announced = x.request.headers.get(CONTENT_LENGTH);
        if self.length_required && announced.is_none() && x.request.length > 0 {
            let message = "the request must say its length in Content-Length";
            return Err(Refusal::of(&codes::LENGTH_REQUIRED, message));
        }
        let announced = announced
            .and_then(|length| length.to_str().ok())
            .and_then(|length| length.parse().ok());
        let bytes = (x.request.length as u64).max(announced.unwrap_or(0));
        self.tell((SIZE_BYTES, bytes), (LIMIT_BYTES, self.bytes), x);
        if bytes > self.bytes {
            return Err(too_large(bytes, self.bytes, "bytes"));
        }
        let Some(most) = self.chars else {
            return Ok(());
        };
        let chars = chars(x.body);
        self.tell((SIZE_CHARS, chars), (LIMIT_CHARS, most), x);
        if chars > most {
            return Err(too_large(chars, most, "characters"));
        }
        Ok(())
    }

    fn tell(&self, size: (HeaderName, u64), limit: (HeaderName, u64), x: &mut Exchange<'_>) {
        for (name, number) in [size, limit] {
            x.edits.set_response(name, HeaderValue::from(number));
        }
    }
}

fn too_large(size: u64, limit: u64, of: &str) -> Refusal {
    let message = format!("the request has {size} {of}; at most {limit} are allowed");
    Refusal::of(&codes::REQUEST_TOO_LARGE, message)
}

/// How many characters of UTF-8 begin in these bytes.
fn chars(body: &[u8]) -> u64 {
    let begins = |byte: &&u8| **byte & 0xC0 != 0x80;
    body.iter().filter(begins).count() as u64
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::json;

    use crate::testing::{Call, plugin, problems};

    #[test]
    fn bodies_up_to_the_limit_pass_and_longer_ones_do_not() {
        for (unit, limit) in [("bytes", 3), ("kilobytes", 3072), ("megabytes", 3 << 20)] {
            let limiter = plugin(
                "request_size_limiter",
                json!({"allowed_payload_size": 3, "size_unit": unit, "max_chars_per_request": 0}),
            );
            assert_eq!(
                Call::post(vec![b'a'; limit]).refused(&limiter),
                None,
                "{unit}"
            );
            assert_eq!(
                Call::post(vec![b'a'; limit + 1]).refused(&limiter),
                Some(413),
                "{unit}"
            );
        }
    }

    #[test]
    fn an_announced_length_is_enough_to_refuse() {
        let limiter = plugin(
            "request_size_limiter",
            json!({"allowed_payload_size": 10, "size_unit": "bytes"}),
        );
        let mut call = Call::post("").header("content-length", "11");
        let refusal = call.pre_request(&limiter).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (413, "request_too_large"));
        assert!(refusal.message.contains("11 bytes; at most 10"));
        let headers = call.answered_headers(HeaderMap::new());
        assert_eq!(headers["x-request-size-bytes"], "11");
        assert_eq!(headers["x-size-limit-bytes"], "10");
    }

    #[test]
    fn characters_are_counted_not_bytes() {
        let limiter = plugin("request_size_limiter", json!({"max_chars_per_request": 3}));
        let mut fits = Call::post("äö€");
        assert_eq!(fits.refused(&limiter), None);
        let headers = fits.answered_headers(HeaderMap::new());
        assert_eq!(headers["x-request-size-chars"], "3");
        assert_eq!(headers["x-size-limit-chars"], "3");
        assert_eq!(Call::post("äö€x").refused(&limiter), Some(413));
        let default = plugin("request_size_limiter", json!({}));
        assert_eq!(Call::post(vec![b'a'; 100_000]).refused(&default), None);
        assert_eq!(Call::post(vec![b'a'; 100_001]).refused(&default), Some(413));
    }

    #[test]
    fn a_length_may_be_required_of_requests_with_a_body() {
        let limiter = plugin(
            "request_size_limiter",
            json!({"require_content_length": true}),
        );
        assert_eq!(Call::post("{}").refused(&limiter), Some(411));
        assert_eq!(
            Call::post("{}")
                .header("content-length", "2")
                .refused(&limiter),
            None
        );
        assert_eq!(Call::get().refused(&limiter), None);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let told = problems(
            "request_size_limiter",
            json!({"allowed_payload_size": 0, "size_unit": "gigabytes", "max_chars": 1}),
        );
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told.concat()
                .contains("allowed_payload_size: 0 is out of range")
        );
        assert!(told.concat().contains("\"megabytes\""));
    }
}
