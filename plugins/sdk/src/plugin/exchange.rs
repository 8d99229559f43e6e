//! What plugins see of an exchange, and what they leave in it.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::llm::peek::Peek;
use crate::llm::usage::Usage;
use crate::quota::{Standings, User};

/// Who was authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name of the key, or the subject of the token.
    pub name: Arc<str>,
    /// What limits count it by: it stays the same through rotations.
    pub id: User,
}

/// The request as it came; what plugins change of it stands in [`Edits`].
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a Method,
    /// What it asks for, as sent; [`host`](Self::host) knows whom.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its id in all logs, as it is sent; [`id`](Self::id) reads it.
    pub request_id: &'a HeaderValue,
    /// When this stage began.
    pub at: Instant,
    /// Who asks: the peer, or whom a trusted proxy speaks for.
    pub client: IpAddr,
    /// The gateway's name.
    pub gateway: &'a str,
    /// The service's name, once it is chosen.
    pub service: Option<&'a str>,
    /// Who was authenticated.
    pub principal: Option<&'a Principal>,
    /// What a look at the body found, if it was read and is JSON.
    pub peek: Option<&'a Peek>,
    /// Bytes of the body, if it was read, with what earlier plugins changed.
    pub length: usize,
    /// The model asked for, wherever the gateway looks for it.
    pub model: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Its id in all logs.
    pub fn id(&self) -> &'a str {
        self.request_id.to_str().unwrap_or("-")
    }

    /// The host it is for, as sent.
    pub fn host(&self) -> &'a str {
        match self.headers.get(HOST) {
            Some(host) => host.to_str().unwrap_or_default(),
            None => self.uri.authority().map_or("", Authority::as_str),
        }
    }

    /// Its path, as sent.
    pub fn path(&self) -> &'a str {
        self.uri.path()
    }

    /// Its query, without the `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.uri.query()
    }
}

/// An exchange in the hands of a plugin.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The request as it came.
    pub request: Request<'a>,
    /// The body, with what earlier plugins changed; empty unless this plugin [needs](super::Needs) it.
    pub body: &'a Bytes,
    /// What this and earlier plugins changed.
    pub edits: &'a mut Edits,
    /// What this plugin keeps for this exchange.
    pub state: &'a mut State,
}

/// Changes to a request and its answer, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Edits {
    /// Headers of the request to upstreams.
    pub request_headers: Vec<(HeaderName, HeaderEdit)>,
    /// Headers of the answer, ours included.
    pub response_headers: Vec<(HeaderName, HeaderEdit)>,
    /// How limits stand, for the answer's headers.
    pub standings: Standings,
    /// The body to send instead.
    pub body: Option<Bytes>,
    /// Services that get a copy of the request, whose answers nobody waits for.
    pub copies: Vec<Arc<str>>,
}

/// What becomes of one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// It has this value and no other.
    Set(HeaderValue),
    /// It has this value too, beside those it has.
    Add(HeaderValue),
    /// It is gone.
    Remove,
}

impl HeaderEdit {
    /// Makes the change.
    pub fn apply(self, name: HeaderName, headers: &mut HeaderMap) {
        match self {
            Self::Set(value) => {
                headers.insert(name, value);
            }
            Self::Add(value) => {
                headers.append(name, value);
            }
            Self::Remove => {
                headers.remove(name);
            }
        }
    }
}

impl Edits {
    /// Sets a header of the request.
    pub fn set_request(&mut self, name: HeaderName, value: HeaderValue) {
        self.request_headers.push((name, HeaderEdit::Set(value)));
    }

    /// Removes a header of the request.
    pub fn remove_request(&mut self, name: HeaderName) {
        self.request_headers.push((name, HeaderEdit::Remove));
    }

    /// Sets a header of the answer.
    pub fn set_response(&mut self, name: HeaderName, value: HeaderValue) {
        self.response_headers.push((name, HeaderEdit::Set(value)));
    }

    /// Adds a header to the answer, beside those of the same name.
    pub fn add_response(&mut self, name: HeaderName, value: HeaderValue) {
        self.response_headers.push((name, HeaderEdit::Add(value)));
    }
}

/// The answer's head.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// Its status.
    pub status: u16,
    /// Its headers; they may be changed.
    pub headers: &'a mut HeaderMap,
    /// Whether it is a stream of server-sent events.
    pub events: bool,
}

/// What one plugin keeps for one exchange. Dropped with it, also when it was cut short.
#[derive(Default)]
pub struct State(Option<Box<dyn Any + Send + Sync>>);

impl State {
    /// Keeps a value, in place of what was kept.
    pub fn put<T: Any + Send + Sync>(&mut self, value: T) {
        self.0 = Some(Box::new(value));
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What is kept, if it is of this type.
    pub fn get<T: Any>(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.downcast_mut()
    }

    /// What is kept, made when there is nothing yet.
    pub fn get_or<T: Any + Send + Sync>(&mut self, make: impl FnOnce() -> T) -> Option<&mut T> {
        if !self.0.as_ref().is_some_and(|kept| kept.is::<T>()) {
            self.put(make());
        }
        self.get()
    }

    /// Takes out what is kept.
    pub fn take<T: Any>(&mut self) -> Option<T> {
        let kept = self.0.take()?;
        match kept.downcast() {
            Ok(value) => Some(*value),
            Err(other) => {
                self.0 = Some(other);
                None
            }
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() {
            "State(…)"
        } else {
            "State"
        })
    }
}

/// Tokens of an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// How many.
    pub usage: Usage,
    /// Whether the engine did not say and this is our estimate.
    pub estimated: bool,
}

/// What is known the moment an exchange ends: what leases are settled by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The status the client got; 499 if it left before.
    pub status: u16,
    /// What it took, if anything was generated.
    pub tokens: Option<Tokens>,
    /// When that was; `None`: just now.
    pub at: Option<Instant>,
    /// What it cost, in millionths of the currency that prices are given in, if anybody has prices.
    pub cost: Option<u64>,
}

/// How an exchange ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The status the client got; 499 if it left before.
    pub status: u16,
    /// Who served.
    pub service: Option<Arc<str>>,
    /// The model asked for.
    pub model: Option<Arc<str>>,
    /// What it took, if anything was generated.
    pub tokens: Option<Tokens>,
    /// From the request's head to the answer's end.
    pub duration: Duration,
    /// Until the answer's first byte.
    pub first_byte: Option<Duration>,
    /// What it cost, in millionths of the currency that prices are given in, if anybody has prices.
    pub cost: Option<u64>,
}
