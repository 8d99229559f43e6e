//! A plugin's "no".

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::codes::{self, Code};

/// What the client is told instead of what it asked for. The engine renders it in the client's dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// Machine-readable: one of [`codes::ALL`], if it is an error.
    pub code: &'static str,
    /// For people. Holds no secret and no internal address.
    pub message: String,
    /// Which field of the request is at fault.
    pub param: Option<String>,
    /// When to come again.
    pub retry_after: Option<Duration>,
    /// Further headers of the answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// An answer of the plugin's own, with its content type, instead of an error: a preflight, something from a cache.
    pub body: Option<(HeaderValue, bytes::Bytes)>,
}

impl Refusal {
    /// An error with a status, a code and a message.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            param: None,
            retry_after: None,
            headers: Vec::new(),
            body: None,
        }
    }

    /// This error, with its usual status.
    pub fn of(code: &Code, message: impl Into<String>) -> Self {
        Self::new(code.status, code.name, message)
    }

    /// 403 `permission_denied`.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::of(&codes::PERMISSION_DENIED, message)
    }

    /// 400 `invalid_request`, at this field.
    pub fn invalid(message: impl Into<String>, param: Option<&str>) -> Self {
        Self {
            param: param.map(str::to_owned),
            ..Self::of(&codes::INVALID_REQUEST, message)
        }
    }

    /// 429 `rate_limit_exceeded`, with the time after which the same request passes.
    pub fn too_many(message: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::of(&codes::RATE_LIMIT_EXCEEDED, message)
        }
    }

    /// With one more header.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}
