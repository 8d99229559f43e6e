//! `response_cache`: answers to identical requests, given again without asking a model.
//!
//! It owns which requests have answers that may be given again, and which answers are whole; [`identity`] says what identical
//! means, [`store`] keeps the answers within their memory. Invariants: an answer goes only to a request with the same identity, which
//! holds who asks unless `shared` says otherwise; what broke off or reports an error is never kept.
//!
//! Source of the words of `Cache-Control`: RFC 9111.

mod complete;
mod identity;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading, Size};
use tollgate_sdk::plugin::{
    Builds, Built, Exchange, Host, Needs, Plugin, Refusal, Request, ResponseHead, Stage, State,
    Step, Verdict,
};

use identity::Identity;
use store::{Answer, Claim, Store};

document! {
    /// Answers are kept, and given again to identical requests with the header `x-tollgate-cache: hit`. Identical are requests with
    /// the same method, host, path, query, model, body, `Content-Type`, `Accept` and headers in `vary`, by the same key. A stream is
    /// given again as a stream. Answers are kept as they stand at this plugin's place in the chain.
    pub struct ResponseCache (checked) {
        /// How long an answer is given again.
        ttl: Duration = Duration::from_secs(300),
        /// Memory of all kept answers together; those that were not asked for the longest make room. Answers on their way may take as
        /// much again.
        max_bytes: Size = Size::mib(64),
        /// The longest answer that is kept.
        max_entry: Size = Size::mib(1),
        /// Whether users of the gateway get each other's answers. If not, answers are kept for each key; where no key was given, for
        /// each value of the headers that carry credentials.
        shared: bool = false,
        /// Methods whose answers are kept: GET and POST can be named.
        methods: Vec<Method> = vec![Method::POST],
        /// Paths whose answers are kept, with all below them. None named: completions, chat completions, embeddings, responses and
        /// messages, also behind a prefix.
        #[example = ["/v1/embeddings"]]
        paths: Vec<String> = Vec::new(),
        /// Which requests have an answer that may be given again.
        when: When = When::Deterministic,
        /// Further headers of requests that change the answer, such as those by which a rule chooses the service.
        #[example = ["Accept-Language"]]
        vary: Vec<HeaderName> = Vec::new(),
    }
}

document! {
    /// Which requests have an answer that may be given again.
    pub enum When {
        /// Those whose body asks for temperature 0, and embeddings.
        Deterministic = "deterministic",
        /// All of them.
        Always = "always",
    }
}

/// The ends of the paths whose answers are kept unless others are named.
const PATHS: [&str; 5] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
];

/// Says whether an answer was kept.
const MARK: HeaderName = HeaderName::from_static("x-tollgate-cache");

impl ResponseCache {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let given = |name| node.entry(name).map_or(node.span, |given| given.span);
        if self.ttl.is_zero() {
            let help = "for example \"5m\"; to keep nothing, take the plugin out";
            r.error(given("ttl"), &at.field("ttl"), "may not be 0", help);
        }
        if self.max_entry > self.max_bytes {
            let message = "an answer may be longer than all of them together";
            let help = "make `max_entry` smaller, or `max_bytes` larger";
            r.error(given("max_entry"), &at.field("max_entry"), message, help);
        }
        if self.methods.is_empty() {
            let help = "name GET, POST or both";
            let at = at.field("methods");
            r.error(given("methods"), &at, "no method is named", help);
        }
        for (index, method) in self.methods.iter().enumerate() {
            if *method != Method::GET && *method != Method::POST {
                let message = format!("answers to {method} are not kept");
                let help = "name GET, POST or both";
                let at = at.field("methods");
                r.error(given("methods"), &at.index(index), message, help);
            }
        }
        for (index, path) in self.paths.iter().enumerate() {
            if !path.starts_with('/') {
                let help = "a path begins with a slash: \"/v1/embeddings\"";
                let at = at.field("paths");
                r.error(given("paths"), &at.index(index), "not a path", help);
            }
        }
        self
    }

    fn names_path(&self, path: &str) -> bool {
        if self.paths.is_empty() {
            return PATHS.iter().any(|end| path.ends_with(end));
        }
        self.paths.iter().any(|named| {
            let below = path.strip_prefix(named.trim_end_matches('/'));
            below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        })
    }
}

impl Builds for ResponseCache {
    const NAME: &'static str = "response_cache";
    const STAGES: &'static [Stage] = &[Stage::PreRequest, Stage::PreResponse];

    fn build(&self, host: &Host) -> Built {
        Arc::new(Cache {
            settings: self.clone(),
            store: host.keep(Store::default),
        })
    }
}

struct Cache {
    settings: ResponseCache,
    store: Arc<Store>,
}

/// Left for the answer to a request that found none.
struct Missed(Identity);

/// An answer on its way.
struct Passing {
    identity: Identity,
    content_type: HeaderValue,
    events: bool,
    body: Vec<u8>,
    /// Room for the body.
    claim: Claim,
}

impl Plugin for Cache {
    fn needs(&self) -> Needs {
        Needs {
            request_body: true,
            chunks: true,
            response_body: false,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        self.look(x).into()
    }

    fn pre_response(&self, x: &mut Exchange<'_>, head: &mut ResponseHead<'_>) -> Verdict {
        let Some(Missed(identity)) = x.state.take() else {
            return Ok(());
        };
        if let Some(content_type) = self.keeps(head) {
            x.state.put(Passing {
                identity,
                content_type,
                events: head.events,
                body: Vec::new(),
                claim: Claim::new(&self.store),
            });
        }
        Ok(())
    }

    fn chunk(&self, state: &mut State, chunk: Bytes, end: bool) -> Result<Bytes, Refusal> {
        if let Some(passing) = state.get::<Passing>() {
            let most = self.settings.max_bytes.bytes();
            let bytes = (passing.body.len() + chunk.len()) as u64;
            if bytes > self.settings.max_entry.bytes() || !passing.claim.grow(bytes, most) {
                state.take::<Passing>();
                return Ok(chunk);
            }
            passing.body.extend_from_slice(&chunk);
        }
        if end && let Some(passing) = state.take::<Passing>() {
            self.keep(passing);
        }
        Ok(chunk)
    }
}

impl Cache {
    fn look(&self, x: &mut Exchange<'_>) -> Verdict {
        let wanted = Wanted::of(x.request.headers);
        if wanted.nothing_kept || !self.concerns(&x.request, x.body) {
            return Ok(());
        }
        let identity = identity::of(x, &self.settings);
        let find = || self.store.find(&identity, self.settings.ttl, wanted.age);
        if let Some((answer, age)) = (!wanted.fresh).then(find).flatten() {
            let mut hit = Refusal::new(200, "cached", "");
            hit.body = Some((answer.content_type, answer.body));
            return Err(hit
                .with(MARK, HeaderValue::from_static("hit"))
                .with(AGE, HeaderValue::from(age.as_secs())));
        }
        x.edits.set_response(MARK, HeaderValue::from_static("miss"));
        // An encoded answer would fit only those who can decode it.
        x.edits.remove_request(ACCEPT_ENCODING);
        x.state.put(Missed(identity));
        Ok(())
    }

    fn concerns(&self, request: &Request<'_>, body: &[u8]) -> bool {
        self.settings.methods.contains(request.method)
            && self.settings.names_path(request.path())
            && match self.settings.when {
                When::Always => true,
                When::Deterministic => {
                    request.path().ends_with("/embeddings") || asks_temperature_0(body)
                }
            }
    }

    /// The content type of an answer that may be kept, as far as its head tells.
    fn keeps(&self, head: &ResponseHead<'_>) -> Option<HeaderValue> {
        let headers = &*head.headers;
        let length = headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let encoded = { headers.get_all(CONTENT_ENCODING).iter() }
            .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
        // `no-cache` is on nearly every stream of events, against proxies that hold them back, and says nothing here.
        let kept = head.status == 200
            && !encoded
            && length.is_none_or(|length| length <= self.settings.max_entry.bytes())
            && !directives(headers, &CACHE_CONTROL).any(|word| {
                word.eq_ignore_ascii_case("no-store")
                    || (self.settings.shared && word.eq_ignore_ascii_case("private"))
            })
            && !directives(headers, &VARY).any(|name| name == "*");
        headers.get(CONTENT_TYPE).filter(|_| kept).cloned()
    }

    fn keep(&self, passing: Passing) {
        if !complete::is_whole(passing.events, &passing.body) {
            return;
        }
        let answer = Answer {
            content_type: passing.content_type,
            // Of the length that is counted.
            body: passing.body.into_boxed_slice().into(),
        };
        let most = self.settings.max_bytes.bytes();
        self.store.put(passing.identity, answer, most);
    }
}

/// What a client says of answers that were kept.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    /// Its answer may not be kept, nor one that was.
    nothing_kept: bool,
    /// It wants an answer of its own, which may be kept.
    fresh: bool,
    /// The oldest answer it takes.
    age: Duration,
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Self {
        let mut wanted = Self {
            nothing_kept: false,
            fresh: false,
            age: Duration::MAX,
        };
        for word in directives(headers, &CACHE_CONTROL) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name.to_ascii_lowercase().as_str() {
                "no-store" => wanted.nothing_kept = true,
                "no-cache" => wanted.fresh = true,
                "max-age" => {
                    // What cannot be read is taken for the most careful.
                    let seconds = value.trim_matches('"').parse().unwrap_or(0);
                    wanted.age = Duration::from_secs(seconds);
                }
                _ => {}
            }
        }
        wanted
    }
}

/// The parts of a header's values, which are lists with commas.
fn directives<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn asks_temperature_0(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Asked {
        temperature: Option<f64>,
    }
    let asked = serde_json::from_slice(body).ok();
    asked.and_then(|asked: Asked| asked.temperature) == Some(0.0)
}
