//! The server that is asked: where it is, and what goes with every call.
//!
//! It owns the call's head and limits; what is said in bodies is not its matter. Invariant: values of headers that go to the server are
//! secrets, and neither they nor the address reach a client or a log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use tollgate_sdk::document::{At, FromText, Invalid, Node, Reading, holds_credential};
use tollgate_sdk::plugin::{Called, Host, Http};
use tollgate_sdk::secret::Secret;
use tollgate_sdk::text_in_document;

use crate::headers::FRAMING;

/// The address of a server, `http` or `https`, without a user or password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl(pub(super) Uri);

impl FromText for ServerUrl {
    const EXPECTED: &'static str = "a URL";
    const EXAMPLE: &'static str = "http://127.0.0.1:9000/check";
    const PATTERN: Option<&'static str> = Some("^https?://");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        if holds_credential(text) {
            let help = "take it out and send it in `headers`";
            return Err(Invalid {
                secret: true,
                ..Invalid::new("the URL holds a credential").help(help)
            });
        }
        let uri: Option<Uri> = text.parse().ok();
        let known = |uri: &Uri| {
            let scheme = uri.scheme();
            let known = scheme == Some(&Scheme::HTTP) || scheme == Some(&Scheme::HTTPS);
            known && uri.host().is_some_and(|host| !host.is_empty())
        };
        uri.filter(known).map(Self).ok_or_else(|| {
            let help = "write it in full, for example \"http://127.0.0.1:9000/check\"";
            Invalid::new("not a URL of http or https").help(help)
        })
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

text_in_document!(ServerUrl);

/// Headers as they are written: their values may be credentials.
pub(super) type SecretHeaders = Vec<(HeaderName, Secret<String>)>;

/// Reports headers that cannot be sent.
pub(super) fn check_headers(
    headers: &SecretHeaders,
    node: &Node,
    at: &At<'_>,
    r: &mut Reading<'_>,
) {
    let at = at.field("headers");
    let given = node.entry("headers").and_then(Node::as_table);
    for (key, _) in given.unwrap_or_default() {
        let at = at.field(&key.text);
        let is = |name: &str| key.text.eq_ignore_ascii_case(name);
        if FRAMING.into_iter().any(is) {
            let message = "this header frames the message and is the gateway's alone";
            r.error(key.span, &at, message, "take it out");
        }
        let read = headers.iter().find(|(name, _)| is(name.as_str()));
        if read.is_some_and(|(_, value)| HeaderValue::try_from(value.expose()).is_err()) {
            let help = "line breaks and control characters are not allowed";
            r.error(key.span, &at, "not a header value", help);
        }
    }
}

/// Reports a method with which nothing can be asked.
pub(super) fn check_method(
    method: &Method,
    can: &[Method],
    node: &Node,
    at: &At<'_>,
    r: &mut Reading<'_>,
) {
    if can.contains(method) {
        return;
    }
    let span = node.entry("method").map_or(node.span, |given| given.span);
    let can: Vec<&str> = can.iter().map(Method::as_str).collect();
    let help = format!("supported: {}", can.join(", "));
    let message = format!("the server cannot be asked with {method}");
    r.error(span, &at.field("method"), message, help);
}

/// Reports a time in which nobody can answer.
pub(super) fn check_timeout(timeout: Duration, node: &Node, at: &At<'_>, r: &mut Reading<'_>) {
    if timeout.is_zero() {
        let span = node.entry("timeout").map_or(node.span, |given| given.span);
        r.error(
            span,
            &at.field("timeout"),
            "may not be 0",
            "for example \"5s\"",
        );
    }
}

/// A server to be asked.
pub(super) struct Server {
    pub(super) http: Arc<dyn Http>,
    pub(super) uri: Uri,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) patience: Duration,
    /// The longest answer, in bytes.
    pub(super) most: usize,
    /// How logs call it.
    pub(super) name: Arc<str>,
}

impl Server {
    /// A server at this address.
    pub(super) fn new(host: &Host, uri: Uri, method: Method, headers: &SecretHeaders) -> Self {
        let mut map = HeaderMap::new();
        let json = HeaderValue::from_static("application/json");
        map.insert(CONTENT_TYPE, json);
        for (name, value) in headers {
            // What is no header's value was refused when it was read.
            if let Ok(mut value) = HeaderValue::try_from(value.expose()) {
                value.set_sensitive(true);
                map.insert(name.clone(), value);
            }
        }
        Self {
            http: host.http.clone(),
            uri,
            method,
            headers: map,
            patience: Duration::from_secs(5),
            most: 1 << 20,
            name: host.identity.clone(),
        }
    }

    /// Asks it.
    pub(super) fn ask(&self, body: impl Into<Bytes>) -> Called {
        let mut request = Request::new(body.into());
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        request.headers_mut().clone_from(&self.headers);
        self.http.call(request, self.patience, self.most)
    }
}
