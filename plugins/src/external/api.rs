//! `external_api`: the settings TrustGate has for asking another server.
//!
//! It owns what TrustGate's settings mean: fields of the request are sent under other names, and conditions on the answer refuse. A call that
//! fails refuses with 502. The call itself is [`Server`]'s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Response, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as Json;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, JsonTable, Node, Reading};
use tollgate_sdk::plugin::{
    Builds, Built, CallError, Exchange, Host, Needs, Outcome, Plugin, Refusal, Stage, State, Step,
    Verdict,
};
use tollgate_sdk::secret::Secret;

use super::answer::Failure;
use super::server::{self, Server, ServerUrl};
use super::{failed, report, tell};
use crate::json;
use crate::path::DottedPath;
use crate::transform::AnyValue;

document! {
    /// Another server is asked before a request goes on. It gets the request's body, or fields of it. Unless it answers 2xx, the request gets
    /// 502; if a condition on the answer holds that stops the flow, 422. In the stage "post_response" it gets the same after the end,
    /// and its answer does not matter.
    pub struct ExternalApi (checked) {
        /// Where it is asked.
        #[example = "http://127.0.0.1:9000/check"]
        endpoint: ServerUrl,
        /// With which method. With GET and DELETE no body is sent.
        method: Method = Method::POST,
        /// How long it may take to answer.
        timeout: Duration = Duration::from_secs(5),
        /// Headers that go to it, its credential for instance.
        headers: Vec<(HeaderName, Secret<String>)> = Vec::new(),
        /// What is put behind the `?` of the address.
        query_params: Vec<QueryParam> = Vec::new(),
        /// Fields that are sent instead of the whole body. What the request does not have is left out.
        field_maps: Vec<FieldMap> = Vec::new(),
        /// What is looked for in the answer, which must then be JSON.
        conditions: Vec<Condition> = Vec::new(),
    }
}

document! {
    /// A name with a value behind the `?` of an address.
    pub struct QueryParam {
        /// Its name.
        #[example = "key"]
        name: String,
        /// Its value.
        value: Secret<String>,
    }
}

document! {
    /// A field of the request's body and where it stands in what is sent.
    pub struct FieldMap {
        /// Where it is found.
        source: DottedPath,
        /// Where it is put. Objects on the way are made.
        #[example = "input.text"]
        destination: DottedPath,
    }
}

document! {
    /// Something that may be true of an answer.
    pub struct Condition (checked) {
        /// The field that is looked at.
        #[example = "score"]
        field: DottedPath,
        /// How it is compared.
        operator: Operator,
        /// With what.
        #[example = 0.8]
        value: AnyValue,
        /// Whether the request is refused if it holds; otherwise that is only logged.
        stop_flow: bool = false,
        /// What the client is told.
        #[example = "refused by policy"]
        message: Option<String>,
    }
}

document! {
    /// How a field is compared. A field that is not there is not equal to anything, and neither greater nor less.
    pub enum Operator {
        /// It is the same.
        Equal = "eq",
        /// It is not the same.
        NotEqual = "neq",
        /// It is a greater number.
        Greater = "gt",
        /// It is a smaller number.
        Less = "lt",
    }
}

/// The longest answer, in bytes.
const MOST: usize = 1 << 20;

impl ExternalApi {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let can = [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ];
        server::check_method(&self.method, &can, node, at, r);
        server::check_timeout(self.timeout, node, at, r);
        server::check_headers(&self.headers, node, at, r);
        if self.uri().is_none() {
            let message = "the address is too long with them";
            let span = node.entry("query_params").map_or(node.span, |n| n.span);
            r.error(span, &at.field("query_params"), message, "send less");
        }
        self
    }

    /// The address with what is put behind it.
    fn uri(&self) -> Option<Uri> {
        let mut uri = self.endpoint.0.to_string();
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        for param in &self.query_params {
            uri.push(if uri.contains('?') { '&' } else { '?' });
            uri += &encoded(&param.name);
            uri.push('=');
            uri += &encoded(param.value.expose());
        }
        uri.parse().ok()
    }
}

impl Condition {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let orders = matches!(self.operator, Operator::Greater | Operator::Less);
        if let (true, false, Some(given)) = (orders, self.value.0.is_number(), node.entry("value"))
        {
            let message = "only numbers are greater or less";
            let help = "write a number, or use \"eq\" or \"neq\"";
            r.error(given.span, &at.field("value"), message, help);
        }
        self
    }

    /// Whether it is true of an answer.
    fn holds(&self, answer: &str) -> bool {
        let whole = json::document(answer).ok();
        let found = whole.and_then(|whole| self.field.find(answer, whole).ok());
        let found = found.unwrap_or_default();
        let mut values = found.into_iter().filter_map(|range| {
            let value = answer.get(range)?;
            serde_json::from_str::<Json>(value).ok()
        });
        let wanted = &self.value.0;
        let compared = |value: &Json| value.as_f64().zip(wanted.as_f64());
        let equal = |value: &Json| {
            value == wanted || compared(value).is_some_and(|(value, wanted)| value == wanted)
        };
        match self.operator {
            Operator::Equal => values.any(|value| equal(&value)),
            Operator::NotEqual => !values.any(|value| equal(&value)),
            Operator::Greater => values.any(|v| compared(&v).is_some_and(|(v, w)| v > w)),
            Operator::Less => values.any(|v| compared(&v).is_some_and(|(v, w)| v < w)),
        }
    }
}

impl Builds for ExternalApi {
    const NAME: &'static str = "external_api";
    const STAGES: &'static [Stage] = &[Stage::PreRequest, Stage::PostResponse];

    fn build(&self, host: &Host) -> Built {
        self.build_at(host, Stage::PreRequest)
    }

    fn build_at(&self, host: &Host, stage: Stage) -> Built {
        // An address that is none was refused when it was read.
        let uri = self.uri().unwrap_or_else(|| self.endpoint.0.clone());
        let server = Server::new(host, uri, self.method.clone(), &self.headers);
        Arc::new(Asker {
            server: Server {
                patience: self.timeout,
                most: MOST,
                ..server
            },
            has_body: !matches!(self.method, Method::GET | Method::DELETE),
            fields: self.field_maps.clone(),
            conditions: self.conditions.clone(),
            after: stage == Stage::PostResponse,
        })
    }

    fn patience(&self) -> Option<Duration> {
        Some(self.timeout)
    }
}

struct Asker {
    server: Server,
    has_body: bool,
    fields: Vec<FieldMap>,
    conditions: Vec<Condition>,
    /// Whether it is told after the end instead of being asked.
    after: bool,
}

/// Left for the end: what is sent.
struct Told(Bytes);

impl Plugin for Asker {
    fn needs(&self) -> Needs {
        Needs {
            request_body: self.has_body,
            waiting: !self.after,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        let body = self.body(x.body);
        if self.after {
            x.state.put(Told(body));
            return Step::PASS;
        }
        let called = self.server.ask(body);
        Step::Wait(Box::pin(async move {
            let answered = called.await;
            self.judge(x.request.id(), answered)
        }))
    }

    fn post_response<'a>(&'a self, state: &'a mut State, _: &'a Outcome) -> Step<'a> {
        match state.take::<Told>() {
            Some(Told(body)) if self.after => tell(&self.server, self.server.ask(body)),
            _ => Step::PASS,
        }
    }
}

impl Asker {
    /// What is sent for a request with this body.
    fn body(&self, body: &Bytes) -> Bytes {
        if !self.has_body {
            return Bytes::new();
        }
        if self.fields.is_empty() {
            return body.clone();
        }
        let mut sent = JsonTable::new();
        let text = std::str::from_utf8(body).unwrap_or_default();
        if let Ok(whole) = json::document(text) {
            for field in &self.fields {
                let found = field.source.find(text, whole.clone()).unwrap_or_default();
                let value = found.first().and_then(|range| text.get(range.clone()));
                if let Some(value) = value.and_then(|value| serde_json::from_str(value).ok()) {
                    put(&mut sent, field.destination.parts(), value);
                }
            }
        }
        Json::Object(sent).to_string().into()
    }

    fn judge(&self, id: &str, answered: Result<Response<Bytes>, CallError>) -> Verdict {
        match answered
            .map_err(Failure::from)
            .and_then(|a| self.refuses(&a))
        {
            Ok(None) => Ok(()),
            Ok(Some(refusal)) => Err(refusal),
            Err(failure) => {
                report(&self.server, id, &failure);
                Err(failed())
            }
        }
    }

    /// The refusal by the first condition that holds and stops the flow.
    fn refuses(&self, answer: &Response<Bytes>) -> Result<Option<Refusal>, Failure> {
        if !answer.status().is_success() {
            return Err(Failure::Status(answer.status()));
        }
        if self.conditions.is_empty() {
            return Ok(None);
        }
        let not_json = Failure::Answer("its answer is no JSON");
        let text = std::str::from_utf8(answer.body()).map_err(|_| not_json)?;
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| not_json)?;
        for condition in self.conditions.iter().filter(|c| c.holds(text)) {
            let message = condition.message.as_deref();
            let message = message.unwrap_or("the request was refused");
            if condition.stop_flow {
                return Ok(Some(Refusal::new(422, "invalid_request", message)));
            }
            log::info!("{}: {message}", self.server.name);
        }
        Ok(None)
    }
}

/// Puts a value at the end of a path, in place of whatever stands in the way.
fn put(table: &mut JsonTable, path: &[String], value: Json) {
    match path {
        [] => {}
        [last] => {
            table.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = table.entry(first.clone()).or_insert(Json::Null);
            if !inner.is_object() {
                *inner = Json::Object(JsonTable::new());
            }
            if let Some(inner) = inner.as_object_mut() {
                put(inner, rest, value);
            }
        }
    }
}
