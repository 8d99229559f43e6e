//! `external`: another server is asked whether a request may go on, or told how it ended.
//!
//! It owns the agreement with that server: [`question`] is what it is told, [`answer`] what its answer means. Here is when it is asked and what
//! becomes of requests when it fails. [`api`] is the same under the name `external_api`, with the settings of TrustGate.

mod answer;
mod api;
mod question;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Response};
use serde_json::Value as Json;
use tollgate_sdk::codes;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading, Size};
use tollgate_sdk::plugin::{
    Builds, Built, CallError, Called, Exchange, Host, Needs, Outcome, Plugin, Refusal, Stage,
    State, Step, Verdict,
};
use tollgate_sdk::secret::Secret;

pub use api::ExternalApi;

use answer::{Allowed, Answer, Failure};
use server::{Server, ServerUrl};

document! {
    /// A server is asked before a request goes on, or, in the stage "post_response", told how it ended. It gets JSON:
    /// {"request": {id, method, path, query, client, gateway, service, model, principal, headers, body}}. To an empty answer or {} the request
    /// goes on. {"refuse": {status, code, message}} refuses it: with 403, unless the status is from 400 to 499. {"body": …} is sent
    /// instead of its body, {"headers": {"set": {…}, "remove": […]}} changes its headers, except those that frame the message and
    /// `Host`. An answer of 4xx refuses with 403. After the end, "outcome" is beside the request, which has no body then: {status, service,
    /// model, tokens: {input, cached, output, estimated}, duration_ms, first_byte_ms, cost}; the answer to that does not matter.
    pub struct External (checked) {
        /// Where it is asked.
        #[example = "http://127.0.0.1:9000/check"]
        url: ServerUrl,
        /// With which method: POST, PUT or PATCH.
        method: Method = Method::POST,
        /// Headers that go to it, its credential for instance.
        headers: Vec<(HeaderName, Secret<String>)> = Vec::new(),
        /// How long it may take to answer.
        timeout: Duration = Duration::from_secs(5),
        /// What it is sent of the request.
        send: Sent = Sent::default(),
        /// What becomes of a request when the server cannot be reached, takes too long, answers 5xx, or says what cannot be followed.
        on_failure: OnFailure = OnFailure::Refuse,
        /// Whether it may change the request's `Authorization`, `Proxy-Authorization`, `Cookie`, `X-Api-Key` and `Api-Key`.
        credentials: bool = false,
        /// The longest answer.
        max_answer: Size = Size::mib(8),
    }
}

document! {
    /// What a server is sent of a request.
    pub struct Sent (default) {
        /// Its body: as it is if it is JSON, as a string if it is not, null if it has none. Not sent, it cannot be replaced.
        body: bool = true,
        /// Its headers of these names.
        #[example = ["X-Team"]]
        headers: Vec<HeaderName> = Vec::new(),
    }
}

document! {
    /// What becomes of a request when the server that is asked fails.
    pub enum OnFailure {
        /// It gets 502.
        Refuse = "refuse",
        /// It goes on as it is.
        Pass = "pass",
    }
}

impl External {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let can = [Method::POST, Method::PUT, Method::PATCH];
        server::check_method(&self.method, &can, node, at, r);
        server::check_timeout(self.timeout, node, at, r);
        server::check_headers(&self.headers, node, at, r);
        self
    }
}

impl Builds for External {
    const NAME: &'static str = "external";
    const STAGES: &'static [Stage] = &[Stage::PreRequest, Stage::PostResponse];

    fn build(&self, host: &Host) -> Built {
        self.build_at(host, Stage::PreRequest)
    }

    fn build_at(&self, host: &Host, stage: Stage) -> Built {
        let uri = self.url.0.clone();
        let server = Server::new(host, uri, self.method.clone(), &self.headers);
        Arc::new(Asker {
            server: Server {
                patience: self.timeout,
                most: usize::try_from(self.max_answer.bytes()).unwrap_or(usize::MAX),
                ..server
            },
            send: self.send.clone(),
            on_failure: self.on_failure,
            credentials: self.credentials,
            after: stage == Stage::PostResponse,
        })
    }

    fn patience(&self) -> Option<Duration> {
        Some(self.timeout)
    }
}

struct Asker {
    server: Server,
    send: Sent,
    on_failure: OnFailure,
    credentials: bool,
    /// Whether it is told of the end instead of being asked.
    after: bool,
}

/// Left for the end: the request, as the server is told of it.
struct Told(Json);

impl Plugin for Asker {
    fn needs(&self) -> Needs {
        Needs {
            request_body: self.send.body && !self.after,
            waiting: !self.after,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        let request = question::request(&x.request, &self.send.headers);
        if self.after {
            x.state.put(Told(request));
            return Step::PASS;
        }
        let body = self.send.body.then_some(&**x.body);
        let called = self.server.ask(question::before(&request, body));
        Step::Wait(Box::pin(async move {
            let answered = called.await;
            self.judge(x, answered)
        }))
    }

    fn post_response<'a>(&'a self, state: &'a mut State, outcome: &'a Outcome) -> Step<'a> {
        if !self.after {
            return Step::PASS;
        }
        let request = state.take().map(|Told(request)| request);
        let body = question::after(request, outcome);
        tell(&self.server, self.server.ask(body))
    }
}

impl Asker {
    fn judge(&self, x: &mut Exchange<'_>, answered: Result<Response<Bytes>, CallError>) -> Verdict {
        let allowed = Allowed {
            body: self.send.body && !x.body.is_empty(),
            credentials: self.credentials,
        };
        let answer = answered.map_err(Failure::from);
        let read = |answer: Response<Bytes>| answer::read(answer.status(), answer.body(), allowed);
        match answer.and_then(read) {
            Ok(Answer::Pass { body, headers }) => {
                if let Some(body) = body {
                    x.edits.body = Some(body);
                }
                x.edits.request_headers.extend(headers);
                Ok(())
            }
            Ok(Answer::Refuse(refusal)) => Err(refusal),
            Err(failure) => {
                report(&self.server, x.request.id(), &failure);
                match self.on_failure {
                    OnFailure::Refuse => Err(failed()),
                    OnFailure::Pass => Ok(()),
                }
            }
        }
    }
}

/// Waits until the server was told, whose answer does not matter.
fn tell(server: &Server, called: Called) -> Step<'_> {
    Step::Wait(Box::pin(async move {
        let failure = match called.await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => Failure::Status(answer.status()),
            Err(error) => Failure::Call(error),
        };
        let name = &server.name;
        log::warn!("{name}: the server was not told of the end: {failure}");
        Ok(())
    }))
}

fn report(server: &Server, id: &str, failure: &Failure) {
    let name = &server.name;
    log::warn!("{name}: the server that is asked failed for request {id}: {failure}");
}

/// What a client is told when the server that is asked fails.
fn failed() -> Refusal {
    let message = "a server that decides on this request failed";
    Refusal::of(&codes::UPSTREAM_ERROR, message)
}
