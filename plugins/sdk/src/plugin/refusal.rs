//! A plugin's "no".

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::codes::{self, Code};
use crate::quota::Standing;

/// A "no", as large as a pointer: verdicts go through many hands, and nearly all of them are a "yes".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(Box<Told>);

/// What the client is told instead of what it asked for. The engine renders it in the client's dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
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
        Self(Box::new(Told {
            status,
            code,
            message: message.into(),
            param: None,
            retry_after: None,
            headers: Vec::new(),
            body: None,
        }))
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
        let refusal = Self::of(&codes::INVALID_REQUEST, message);
        match param {
            Some(param) => refusal.about(param),
            None => refusal,
        }
    }

    /// 429 `rate_limit_exceeded`, with the time after which the same request passes.
    pub fn too_many(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::of(&codes::RATE_LIMIT_EXCEEDED, message).until(retry_after)
    }

    /// For this field of the request.
    pub fn about(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// With the time after which to come again.
    pub fn until(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// With how a limit stands, by headers of these [names](Standing::REQUESTS).
    pub fn telling(mut self, standing: &Standing, names: [HeaderName; 3]) -> Self {
        self.headers.extend(standing.headers(names));
        self
    }

    /// What it says.
    pub fn told(self) -> Told {
        *self.0
    }

    /// With one more header.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl Deref for Refusal {
    type Target = Told;

    fn deref(&self) -> &Told {
        &self.0
    }
}

impl DerefMut for Refusal {
    fn deref_mut(&mut self) -> &mut Told {
        &mut self.0
    }
}
