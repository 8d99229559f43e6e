//! What the tests of plugins are made of: settings from JSON, and one exchange that a plugin is driven through.
//!
//! It plays the engine's part and no more: it keeps the request and what plugins changed, and calls the stages of the
//! [`Plugin`](tollgate_sdk::plugin::Plugin) trait. Settings go the way a configuration's do, through the reading of a tree.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value as Json;
use tollgate_sdk::document::{At, Format, Key, Node, Reading, Span, Value};
use tollgate_sdk::llm::peek::peek;
use tollgate_sdk::plugin::{
    Built, CallError, Called, Edits, Exchange, Host, Http, Kind, Refusal, Request, ResponseHead,
    State, Step, Verdict,
};
use tollgate_sdk::quota::{Denied, Lease, Limit, Quota, Standing};

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
    fn reserve(&self, _: &Limit, _: &str, _: u64) -> Result<Lease, Denied> {
        panic!("no plugin under test counts anything")
    }

    fn standing(&self, _: &Limit, _: &str) -> Standing {
        panic!("no plugin under test counts anything")
    }
}

struct Nowhere;

impl Http for Nowhere {
    fn call(&self, _: http::Request<Bytes>, _: std::time::Duration, _: usize) -> Called {
        Box::pin(async { Err(CallError::Connect) })
    }
}

/// The plugin of this name, and what was wrong with its settings, as `path: message (help)`.
fn read(name: &str, settings: &Json) -> (Option<Built>, Vec<String>) {
    let no_file = |_: &str| Err("there are no files here".to_owned());
    let mut r = Reading::new(Format::Json, &no_file);
    let read = (kind(name).read)(&node(settings), &At::ROOT, &mut r);
    let problems = r.problems.iter().map(|problem| {
        let help = problem.help.as_ref();
        let help = help.map_or(String::new(), |help| format!(" ({help})"));
        format!("{}: {}{help}", problem.path, problem.message)
    });
    let host = Host {
        quota: Arc::new(Unlimited),
        http: Arc::new(Nowhere),
        kept: Arc::default(),
        identity: "test".into(),
    };
    let built = read.map(|settings| settings.build(&host));
    (built, problems.collect())
}

/// The plugin of this name with settings that must be right.
pub(crate) fn plugin(name: &str, settings: Json) -> Built {
    let (built, problems) = read(name, &settings);
    assert!(problems.is_empty(), "{problems:?}");
    built.unwrap()
}

/// What is wrong with these settings.
pub(crate) fn problems(name: &str, settings: Json) -> Vec<String> {
    read(name, &settings).1
}

/// One exchange.
pub(crate) struct Call {
    pub(crate) method: Method,
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

    /// Runs a stage with the exchange as the engine would present it.
    fn with<T>(&mut self, run: impl FnOnce(&mut Exchange<'_>) -> T) -> T {
        let peek = peek(&self.body).ok();
        let model = peek.as_ref().and_then(|peek| peek.model.as_ref());
        let mut x = Exchange {
            request: Request {
                method: &self.method,
                path: "/v1/chat/completions",
                query: None,
                headers: &self.headers,
                id: "id",
                client: self.client,
                gateway: "main",
                service: None,
                principal: None,
                peek: peek.as_ref(),
                model: model.map(|model| &*model.value),
            },
            body: self.edits.body.clone().unwrap_or(self.body.clone()),
            edits: &mut self.edits,
            state: &mut self.state,
        };
        run(&mut x)
    }

    pub(crate) fn pre_request(&mut self, plugin: &Built) -> Verdict {
        self.with(|x| match plugin.pre_request(x) {
            Step::Done(verdict) => verdict,
            Step::Wait(_) => panic!("there is nothing to wait for"),
        })
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
