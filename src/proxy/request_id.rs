//! What a request is called: by its client, if that is sane, or by us.

use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// Names a request in logs on all sides.
#[derive(Clone, Debug)]
pub(super) struct RequestId(HeaderValue);

impl Default for RequestId {
    /// That of a request that has none yet.
    fn default() -> Self {
        RequestId(HeaderValue::from_static("-"))
    }
}

impl RequestId {
    /// The client's, if it is sane: 1 to 128 visible characters without quotes and the like; else one that says when the request came, at `at`.
    pub(super) fn of(client: Option<&HeaderValue>, at: SystemTime) -> RequestId {
        let sane = |value: &&HeaderValue| {
            (1..=128).contains(&value.len())
                && value.as_bytes().iter().all(|b| {
                    b.is_ascii_alphanumeric()
                        || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=')
                })
        };
        match client.filter(sane) {
            Some(value) => RequestId(value.clone()),
            None => RequestId::new(at),
        }
    }

    /// A UUID, version 7.
    fn new(at: SystemTime) -> RequestId {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = since.as_secs() * 1000 + u64::from(since.subsec_millis());
        let id = uuid::Builder::from_unix_timestamp_millis(milliseconds, &rand::random());
        let mut buf = [0; uuid::fmt::Simple::LENGTH];
        let text = id.into_uuid().simple().encode_lower(&mut buf);
        RequestId(HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("-")))
    }

    pub(super) fn value(&self) -> HeaderValue {
        self.0.clone()
    }

    pub(super) fn as_value(&self) -> &HeaderValue {
        &self.0
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("-")
    }
}
