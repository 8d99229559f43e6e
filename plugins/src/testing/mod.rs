//! What the tests of plugins are made of: settings from JSON, and one exchange that a plugin is driven through.
//!
//! It plays the engine's part and no more: it keeps the request and what plugins changed, and calls the stages of the
//! [`Plugin`](tollgate_sdk::plugin::Plugin) trait. Settings go the way a configuration's do, through the reading of a tree.

mod counting;

use std::collections::VecDeque;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value as Json;
use tollgate_sdk::document::{At, Format, FromNode, Key, Node, Reading, Span, Value};
use tollgate_sdk::llm::peek::peek;
use tollgate_sdk::llm::usage::Usage;
use tollgate_sdk::plugin::{
    Built, CallError, Called, Edits, End, Exchange, Host, Http, Kind, Outcome, Principal, Refusal,
    Request, ResponseHead, Settings, Stage, State, Step, Tokens, Verdict,
};
use tollgate_sdk::quota::{Denied, Lease, Limit, Quota, Standing, User, Who};

pub(crate) use counting::Counting;

use crate::BUILTINS;

/// The settings as a tree.
pub(crate) fn node(value: &Json) -> Node {
    let value = match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Float(number.as_f64().unwrap()),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(node).collect()),
        Json::Object(entries) => {
            let key = |text: &String| Key {
                span: Span::default(),
                text: text.clone(),
            };
            let entries = entries.iter().map(|(name, value)| (key(name), node(value)));
            Value::Table(entries.collect())
        }
    };
    Node::new(Span::default(), value)
}

fn kind(name: &str) -> &'static Kind {
    BUILTINS.iter().find(|kind| kind.name == name).unwrap()
}

struct Unlimited;

impl Quota for Unlimited {
    fn take_at(
        &self,
        _: &Limit,
        _: &Who<'_>,
        _: u64,
        _: Instant,
        _: bool,
    ) -> Result<(Lease, Standing), Denied> {
        panic!("no plugin under test counts anything")
    }

    fn standing(&self, _: &Limit, _: &str) -> Standing {
        panic!("no plugin under test counts anything")
    }
}

struct Nowhere;

impl Http for Nowhere {
    fn call(&self, _: http::Request<Bytes>, _: Duration, _: usize) -> Called {
        Box::pin(async { Err(CallError::Connect) })
    }
}

/// What a server is asked.
pub(crate) struct Asked {
    pub(crate) request: http::Request<Bytes>,
    pub(crate) patience: Duration,
    pub(crate) most: usize,
}

impl Asked {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(self.request.body()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        Some(self.request.headers().get(name)?.to_str().unwrap())
    }
}

/// A server that gives these answers, one after the other, and remembers what it was asked.
#[derive(Default)]
pub(crate) struct Scripted {
    answers: Mutex<VecDeque<Result<(u16, Bytes), CallError>>>,
    asked: Mutex<Vec<Asked>>,
}

impl Scripted {
    /// One more answer.
    pub(crate) fn answers(&self, status: u16, body: impl Into<Bytes>) {
        let answer = Ok((status, body.into()));
        self.answers.lock().unwrap().push_back(answer);
    }

    /// The next call fails.
    pub(crate) fn fails(&self, error: CallError) {
        self.answers.lock().unwrap().push_back(Err(error));
    }

    /// What was asked since the last look.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Http for Scripted {
    fn call(&self, request: http::Request<Bytes>, patience: Duration, most: usize) -> Called {
        let asked = Asked {
            request,
            patience,
            most,
        };
        self.asked.lock().unwrap().push(asked);
        let answer = self.answers.lock().unwrap().pop_front();
        let answer = answer.expect("nobody wrote an answer for this call");
        let mut waited = false;
        Box::pin(async move {
            // A server never answers at once: whoever cannot wait fails here.
            std::future::poll_fn(|cx| match std::mem::replace(&mut waited, true) {
                true => Poll::Ready(()),
                false => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            })
            .await;
            let (status, body) = answer?;
            match http::Response::builder().status(status).body(body) {
                Ok(answer) if answer.body().len() <= most => Ok(answer),
                Ok(_) => Err(CallError::TooLarge),
                Err(error) => panic!("{error}"),
            }
        })
    }
}

/// What the engine would offer, with no server to be reached.
pub(crate) fn host() -> Host {
    Host {
        quota: Arc::new(Unlimited),
        http: Arc::new(Nowhere),
        kept: Arc::default(),
        identity: "test".into(),
    }
}

/// The same with this server.
pub(crate) fn host_with(server: &Arc<Scripted>) -> Host {
    Host {
        http: server.clone(),
        ..host()
    }
}

/// What is read from a tree, and what was wrong with it, as `path: message (help)`.
fn reading<T>(
    read: impl FnOnce(&At<'_>, &mut Reading<'_>) -> Option<T>,
) -> (Option<T>, Vec<String>) {
    let no_file = |_: &str| Err("there are no files here".to_owned());
    let mut r = Reading::new(Format::Json, &no_file);
    let read = read(&At::ROOT, &mut r);
    let problems = r.problems.iter().map(|problem| {
        let help = problem.help.as_ref();
        let help = help.map_or(String::new(), |help| format!(" ({help})"));
        format!("{}: {}{help}", problem.path, problem.message)
    });
    (read, problems.collect())
}

/// The settings of the plugin of this name, and what was wrong with them.
fn read(name: &str, settings: &Json) -> (Option<Settings>, Vec<String>) {
    reading(|at, r| (kind(name).read)(&node(settings), at, r))
}

/// Typed settings, which must be right.
pub(crate) fn settings<S: FromNode>(settings: &Json) -> S {
    let (read, problems) = reading(|at, r| S::read(&node(settings), at, r));
    assert!(problems.is_empty(), "{problems:?}");
    read.unwrap()
}

/// Settings of the plugin of this name, as the engine has them; they must be right.
pub(crate) fn untyped(name: &str, settings: Json) -> Settings {
    let (read, problems) = read(name, &settings);
    assert!(problems.is_empty(), "{problems:?}");
    read.unwrap()
}

/// The plugin of this name with settings that must be right, at a stage, on a host.
pub(crate) fn plugin_on(host: &Host, name: &str, settings: Json, stage: Option<Stage>) -> Built {
    untyped(name, settings).build_at(host, stage)
}

/// Drives work to its end on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut work = pin!(work);
    loop {
        match work.as_mut().poll(&mut cx) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

/// What a stage came to, waited for.
fn ended(step: Step<'_>) -> Verdict {
    match step {
        Step::Done(verdict) => verdict,
        Step::Wait(work) => block_on(work),
    }
}

/// The plugin of this name with settings that must be right.
pub(crate) fn plugin(name: &str, settings: Json) -> Built {
    plugin_on(&host(), name, settings, None)
}

/// What is wrong with these settings.
pub(crate) fn problems(name: &str, settings: Json) -> Vec<String> {
    read(name, &settings).1
}

/// An exchange that was served and took so many tokens.
pub(crate) fn took(input: u64, cached: u64, output: u64) -> Outcome {
    let usage = Usage {
        input,
        cached,
        output,
    };
    Outcome {
        status: 200,
        tokens: Some(Tokens {
            usage,
            estimated: false,
        }),
        ..Outcome::default()
    }
}

/// An exchange for which nothing was generated.
pub(crate) fn failed(status: u16) -> Outcome {
    Outcome {
        status,
        ..Outcome::default()
    }
}

/// One exchange.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) service: Option<String>,
    pub(crate) principal: Option<Principal>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) client: IpAddr,
    pub(crate) edits: Edits,
    pub(crate) state: State,
}

impl Call {
    pub(crate) fn post(body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            path: "/v1/chat/completions".into(),
            id: "id".into(),
            service: None,
            principal: None,
            headers: HeaderMap::new(),
            body: body.into(),
            client: [192, 0, 2, 7].into(),
            edits: Edits::default(),
            state: State::default(),
        }
    }

    pub(crate) fn get() -> Self {
        Self::method(Method::GET)
    }

    pub(crate) fn method(method: Method) -> Self {
        Self {
            method,
            ..Self::post("")
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).unwrap();
        self.headers
            .append(name, HeaderValue::try_from(value).unwrap());
        self
    }

    pub(crate) fn from(mut self, client: &str) -> Self {
        self.client = client.parse().unwrap();
        self
    }

    /// To this path, with its query.
    pub(crate) fn to(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    /// By the key of this name.
    pub(crate) fn key(mut self, key: &str) -> Self {
        self.principal = Some(Principal {
            name: key.into(),
            id: User::new(format!("id of {key}")),
        });
        self
    }

    /// Runs a stage with the exchange as the engine would present it.
    fn with<T>(&mut self, run: impl FnOnce(&mut Exchange<'_>) -> T) -> T {
        let body = self.edits.body.clone().unwrap_or(self.body.clone());
        let peek = peek(&body).ok();
        let model = peek.as_ref().and_then(|peek| peek.model.as_ref());
        let uri = self.path.parse().unwrap();
        let id = HeaderValue::from_str(&self.id).unwrap();
        let mut x = Exchange {
            request: Request {
                method: &self.method,
                uri: &uri,
                headers: &self.headers,
                request_id: &id,
                at: Instant::now(),
                client: self.client,
                gateway: "main",
                service: self.service.as_deref(),
                principal: self.principal.as_ref(),
                peek: peek.as_ref(),
                length: body.len(),
                model: model.map(|model| &*model.value),
            },
            body: &body,
            edits: &mut self.edits,
            state: &mut self.state,
        };
        run(&mut x)
    }

    pub(crate) fn pre_request(&mut self, plugin: &Built) -> Verdict {
        self.with(|x| ended(plugin.pre_request(x)))
    }

    /// The status with which the request is refused.
    pub(crate) fn refused(&mut self, plugin: &Built) -> Option<u16> {
        self.pre_request(plugin).err().map(|refusal| refusal.status)
    }

    /// The answer's headers after the stage.
    pub(crate) fn pre_response(
        &mut self,
        plugin: &Built,
        headers: &[(&'static str, &'static str)],
        events: bool,
    ) -> Result<HeaderMap, Refusal> {
        let headers = headers.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let mut headers: HeaderMap = headers.collect();
        let mut head = ResponseHead {
            status: 200,
            headers: &mut headers,
            events,
        };
        self.with(|x| plugin.pre_response(x, &mut head))?;
        Ok(headers)
    }

    /// A piece of the answer, as it goes on.
    pub(crate) fn chunk(
        &mut self,
        plugin: &Built,
        chunk: impl Into<Bytes>,
        end: bool,
    ) -> Result<Bytes, Refusal> {
        plugin.chunk(&mut self.state, chunk.into(), end)
    }

    /// The exchange ends; returns how, as the plugin left it.
    pub(crate) fn end(&mut self, plugin: &Built, mut outcome: Outcome) -> Outcome {
        self.settle(plugin, &mut outcome);
        outcome
    }

    fn settle(&mut self, plugin: &Built, outcome: &mut Outcome) {
        let mut end = End {
            status: outcome.status,
            tokens: outcome.tokens,
            at: None,
            cost: outcome.cost,
        };
        plugin.end(&mut self.state, &mut end);
        outcome.cost = end.cost;
    }

    /// The exchange is over: both stages after the end.
    pub(crate) fn ends(&mut self, plugin: &Built, mut outcome: Outcome) -> Verdict {
        self.settle(plugin, &mut outcome);
        ended(plugin.post_response(&mut self.state, &outcome))
    }

    /// The request's headers as they are sent.
    pub(crate) fn sent_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        for (name, edit) in self.edits.request_headers.clone() {
            edit.apply(name, &mut headers);
        }
        headers
    }

    /// The headers of an answer that had these, as the client gets them.
    pub(crate) fn answered_headers(&self, mut headers: HeaderMap) -> HeaderMap {
        self.edits.standings.put(|name, value| {
            headers.insert(name, value);
        });
        for (name, edit) in self.edits.response_headers.clone() {
            edit.apply(name, &mut headers);
        }
        headers
    }

    /// The body as it is sent.
    pub(crate) fn sent(&self) -> String {
        let body = self.edits.body.as_ref().unwrap_or(&self.body);
        String::from_utf8(body.to_vec()).unwrap()
    }
}
