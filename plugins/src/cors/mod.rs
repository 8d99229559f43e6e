//! `cors`: which pages of other origins may call.
//!
//! It answers preflights itself and marks the answers of requests that are allowed. It owns the headers `Access-Control-*` of every
//! answer: what an upstream says of them does not hold. An answer that depends on the origin says so in `Vary`, also when it
//! is a refusal, so that no cache gives one origin's answer to another.
//!
//! Source: the WHATWG's Fetch standard, section "CORS protocol".

mod origin;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tollgate_sdk::document;
use tollgate_sdk::document::{
    At, FromNode, FromText, Invalid, Json, Node, Origin as Source, Quoted, Reading, Value, json,
};
use tollgate_sdk::plugin::{
    Builds, Built, Exchange, HeaderEdit, Host, Plugin, Refusal, Stage, Step, Verdict,
};
use tollgate_sdk::text_in_document;

use origin::OriginPattern;

document! {
    /// Which pages of other origins may call from browsers. A request whose origin is not allowed gets 403, and so does one
    /// that names none, unless `require_origin` is off. Preflights are answered here.
    pub struct Cors (checked) {
        /// Origins: "https://app.example.com", "https://*.example.com" for every host below, or "*" for all.
        #[example = ["https://app.example.com"]]
        allowed_origins: Vec<OriginPattern>,
        /// Methods.
        allowed_methods: Vec<Method> = vec![
            Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS,
        ],
        /// Headers that pages may send; "*" is all of them.
        allowed_headers: Vec<AllowedHeader> = vec![AllowedHeader::Any],
        /// Whether pages may send cookies and other credentials of the browser. Origins must then be named.
        allow_credentials: bool = false,
        /// Headers of answers that pages may read.
        #[example = ["x-request-id"]]
        expose_headers: Vec<HeaderName> = Vec::new(),
        /// How long browsers may remember the answer to a preflight: a duration, or seconds.
        max_age: MaxAge = MaxAge(Duration::from_secs(600)),
        /// Whether refused origins are logged.
        log_violations: bool = false,
        /// Whether requests without an origin, which do not come from pages, are refused too.
        require_origin: bool = true,
    }
}

impl Cors {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        if let (true, Some(given)) = (
            self.allowed_origins.is_empty(),
            node.entry("allowed_origins"),
        ) && given.as_list().is_some_and(<[_]>::is_empty)
        {
            let help = "name origins, or write \"*\" for all of them";
            let at = at.field("allowed_origins");
            r.error(given.span, &at, "no origin is allowed", help);
        }
        if let (true, true, Some(given)) = (
            self.allow_credentials,
            self.allowed_origins.contains(&OriginPattern::Any),
            node.entry("allow_credentials"),
        ) {
            let message = "credentials cannot be allowed to every origin";
            let help = "name the origins in `allowed_origins`, or take `allow_credentials` out";
            r.error(given.span, &at.field("allow_credentials"), message, help);
        }
        self
    }
}

/// A header that pages may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedHeader {
    /// All of them.
    Any,
    /// This one.
    Named(HeaderName),
}

impl FromText for AllowedHeader {
    const EXPECTED: &'static str = "a header name, or \"*\"";
    const EXAMPLE: &'static str = "content-type";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        match text {
            "*" => Ok(Self::Any),
            name => HeaderName::from_text(name).map(Self::Named),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Any => "*".into(),
            Self::Named(name) => name.to_text(),
        }
    }
}

text_in_document!(AllowedHeader);

/// A duration, or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxAge(pub Duration);

impl FromNode for MaxAge {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        let seconds = match (&node.value, node.origin) {
            (Value::Int(seconds), _) => Some(*seconds),
            (Value::String(text), Source::Typed | Source::Wholly) => text.parse().ok(),
            _ => None,
        };
        match seconds.map(u64::try_from) {
            Some(Ok(seconds)) => Some(Self(Duration::from_secs(seconds))),
            Some(Err(_)) => {
                r.error(node.span, at, "may not be negative", "for example: 600");
                None
            }
            None => Duration::read(node, at, r).map(Self),
        }
    }

    fn schema() -> Json {
        json!({"anyOf": [{"type": "integer", "minimum": 0}, Duration::schema(), {"type": "string", "pattern": "^[0-9]+$"}]})
    }

    fn value(&self) -> Json {
        self.0.value()
    }

    fn example() -> Json {
        json!("10m")
    }
}

impl Builds for Cors {
    const NAME: &'static str = "cors";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, _: &Host) -> Built {
        let any_header = self.allowed_headers.contains(&AllowedHeader::Any);
        let headers = self.allowed_headers.iter().map(AllowedHeader::to_text);
        Arc::new(Filter {
            methods: list(self.allowed_methods.iter().map(Method::to_string)),
            headers: (!any_header).then(|| list(headers)),
            exposed: Some(list(self.expose_headers.iter().map(HeaderName::to_string)))
                .filter(|value| !value.is_empty()),
            max_age: HeaderValue::from(self.max_age.0.as_secs()),
            settings: self.clone(),
        })
    }
}

/// Words of a header's value; they are tokens, so that the value cannot be refused.
fn list(words: impl Iterator<Item = String>) -> HeaderValue {
    let words: Vec<_> = words.collect();
    HeaderValue::try_from(words.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

struct Filter {
    settings: Cors,
    methods: HeaderValue,
    /// `None` when all are allowed.
    headers: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    max_age: HeaderValue,
}

impl Plugin for Filter {
    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        self.decide(x).into()
    }
}

const PREFLIGHT_VARY: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

impl Filter {
    fn decide(&self, x: &mut Exchange<'_>) -> Verdict {
        let headers = x.request.headers;
        let Some(origin) = headers.get(header::ORIGIN) else {
            if self.settings.require_origin {
                self.report(x, "none");
                return Err(refusal(403, "permission_denied", "the origin is missing"));
            }
            self.vary(x);
            return Ok(());
        };
        if !self.allows(origin) {
            let origin = String::from_utf8_lossy(origin.as_bytes());
            self.report(x, &Quoted(&origin).to_string());
            let message = "this origin is not allowed to call";
            return Err(refusal(403, "permission_denied", message));
        }
        if x.request.method == Method::OPTIONS {
            return Err(self.preflight(origin, headers));
        }
        let method = x.request.method;
        if !self.settings.allowed_methods.contains(method) {
            return Err(self.wrong_method(method.as_str()));
        }
        self.mark(origin, x);
        Ok(())
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let mut patterns = self.settings.allowed_origins.iter();
        patterns.any(|pattern| pattern.matches(origin.as_bytes()))
    }

    fn vary(&self, x: &mut Exchange<'_>) {
        let origin = HeaderValue::from_static("Origin");
        x.edits.add_response(header::VARY, origin);
    }

    /// The headers that say to the browser that the page may have the answer.
    fn grants(&self, origin: &HeaderValue) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let origin = match self.settings.allowed_origins.contains(&OriginPattern::Any) {
            true => HeaderValue::from_static("*"),
            false => origin.clone(),
        };
        let credentials = self.settings.allow_credentials.then(|| {
            let value = HeaderValue::from_static("true");
            (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, value)
        });
        std::iter::once((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)).chain(credentials)
    }

    fn mark(&self, origin: &HeaderValue, x: &mut Exchange<'_>) {
        let own = [
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
        ];
        let removed = own.map(|name| (name, HeaderEdit::Remove));
        x.edits.response_headers.extend(removed);
        for (name, value) in self.grants(origin) {
            x.edits.set_response(name, value);
        }
        if let Some(exposed) = &self.exposed {
            let name = header::ACCESS_CONTROL_EXPOSE_HEADERS;
            x.edits.set_response(name, exposed.clone());
        }
        self.vary(x);
    }

    /// The answer to the question that a browser asks before the request itself.
    fn preflight(&self, origin: &HeaderValue, headers: &HeaderMap) -> Refusal {
        let Some(method) = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD) else {
            let message = "a preflight names its method in Access-Control-Request-Method";
            return refusal(400, "invalid_request", message);
        };
        let allowed = self.settings.allowed_methods.iter();
        if !{ allowed }.any(|allowed| allowed.as_str().as_bytes() == method.as_bytes()) {
            return self.wrong_method(&String::from_utf8_lossy(method.as_bytes()));
        }
        let name = header::ACCESS_CONTROL_REQUEST_HEADERS;
        let asked = headers.get(&name);
        if !self.allows_headers(headers, &name) {
            let message = "the page may not send one of the headers it asks for";
            return refusal(403, "permission_denied", message);
        }
        let mut answer = Refusal::new(204, "preflight", "");
        answer.body = Some((HeaderValue::from_static("text/plain"), Bytes::new()));
        answer.headers = self.grants(origin).collect();
        let allowed = self.headers.as_ref().or(asked).cloned();
        let further = [
            (
                header::ACCESS_CONTROL_ALLOW_METHODS,
                Some(self.methods.clone()),
            ),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, allowed),
            (header::ACCESS_CONTROL_MAX_AGE, Some(self.max_age.clone())),
            (header::VARY, Some(HeaderValue::from_static(PREFLIGHT_VARY))),
        ];
        let further = further.into_iter().filter_map(|(name, v)| Some((name, v?)));
        answer.headers.extend(further);
        answer
    }

    /// Whether every header that is asked for may be sent.
    fn allows_headers(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        if self.headers.is_none() {
            return true;
        }
        let known = |asked: &[u8]| {
            let allowed = self.settings.allowed_headers.iter();
            { allowed }.any(|allowed| match allowed {
                AllowedHeader::Any => true,
                AllowedHeader::Named(name) => asked.eq_ignore_ascii_case(name.as_str().as_bytes()),
            })
        };
        let asked = headers.get_all(name).iter();
        asked
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|asked| !asked.is_empty())
            .all(known)
    }

    fn wrong_method(&self, method: &str) -> Refusal {
        let message = format!("pages may not use the method {}", Quoted(method));
        refusal(405, "method_not_allowed", &message).with(header::ALLOW, self.methods.clone())
    }

    fn report(&self, x: &Exchange<'_>, origin: &str) {
        if self.settings.log_violations {
            let request = &x.request;
            log::warn!(
                target: "tollgate::cors",
                "gateway {}: refused a request of {} from {}, origin {origin}",
                request.gateway, request.id(), request.client
            );
        }
    }
}

fn refusal(status: u16, code: &'static str, message: &str) -> Refusal {
    let vary = HeaderValue::from_static(PREFLIGHT_VARY);
    Refusal::new(status, code, message).with(header::VARY, vary)
}
