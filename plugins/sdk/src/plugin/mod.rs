//! What a plugin is, and what it sees of an exchange.
//!
//! A plugin is a typed settings struct (declared by [`document!`](crate::document!), so that its schema and its documentation come
//! from it), an implementation of [`Plugin`], and a [`Kind`] in the list of built-ins. It is built once per revision of the
//! configuration and shared by all requests; what belongs to one exchange it keeps in that exchange's [`State`], and what must
//! outlive a reload it keeps in the [`Host`], by identity.
//!
//! A plugin that only counts declares what it counts, as a list of [`Charge`]s.
//!
//! A stage that has nothing to wait for answers at once and costs a call; only [`Step::Wait`] costs an allocation. What no plugin of
//! a chain [`needs`](Plugin::needs) is not done: bodies are not read and chunks not looked at for nobody.

mod by;
mod charge;
mod estimate;
mod exchange;
mod host;
mod kind;
mod refusal;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

pub use by::{By, at_least_one};
pub use charge::{Charge, Charged, Count, Leases, Reached, Takes, charge};
pub use estimate::estimate;
pub use exchange::{
    Edits, End, Exchange, HeaderEdit, Outcome, Principal, Request, ResponseHead, State, Tokens,
};
pub use host::{CallError, Called, Host, Http, Kept, NoHttp};
pub use kind::{Builds, Built, Kind, Settings, kind};
pub use refusal::{Refusal, Told};

use crate::document;

document! {
    /// When a plugin runs.
    pub enum Stage {
        /// Before routing.
        PreRequest = "pre_request",
        /// When the target is chosen, before sending.
        PostRequest = "post_request",
        /// The answer's head and its chunks.
        PreResponse = "pre_response",
        /// After the end, which it cannot delay.
        PostResponse = "post_response",
    }
}

/// What a plugin asks of the engine before its stages run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The request's body, read whole and put together.
    pub request_body: bool,
    /// What a look at the request's body tells ([`Request::peek`], [`Request::length`]): it is read, and not put together.
    pub request_peek: bool,
    /// The answer's chunks, as they come.
    pub chunks: bool,
    /// The answer's body whole: it is held back until its end. Streams of events are not; they come as chunks.
    pub response_body: bool,
    /// That its `pre_request` and `post_request` may [wait](Step::Wait). Who does not say so may break down by it: most plugins wait for
    /// nobody, and are called without the room that waiting takes.
    pub waiting: bool,
}

impl Needs {
    /// What any of the two needs.
    pub fn or(self, other: Needs) -> Needs {
        Needs {
            request_body: self.request_body || other.request_body,
            request_peek: self.request_peek || other.request_peek,
            chunks: self.chunks || other.chunks,
            response_body: self.response_body || other.response_body,
            waiting: self.waiting || other.waiting,
        }
    }
}

/// Whether the exchange goes on.
pub type Verdict = Result<(), Refusal>;

/// What a stage came to.
pub enum Step<'a> {
    /// It is over.
    Done(Verdict),
    /// It waits for something outside.
    Wait(Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>),
}

impl Step<'_> {
    /// The exchange goes on.
    pub const PASS: Step<'static> = Step::Done(Ok(()));
}

impl From<Verdict> for Step<'_> {
    fn from(verdict: Verdict) -> Self {
        Step::Done(verdict)
    }
}

impl fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Done(verdict) => f.debug_tuple("Done").field(verdict).finish(),
            Step::Wait(_) => f.write_str("Wait"),
        }
    }
}

/// An instance of a plugin, shared by all exchanges of a revision.
///
/// A stage may read, change or refuse; what it changes it writes into [`Exchange::edits`]. A stage that panics refuses or is skipped, as
/// its entry's `on_error` says, and harms no other exchange.
#[allow(unused_variables, reason = "the defaults do nothing")]
pub trait Plugin: Send + Sync {
    /// What it asks of the engine.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Limits that every request is counted by, where `pre_request` would be called. Who has some is not called there, but by
    /// [`refuse`](Plugin::refuse). Asked once.
    fn charges(&self) -> Arc<[Charge]> {
        Arc::default()
    }

    /// What somebody is told for whom a limit of [`charges`](Plugin::charges) has too little left.
    fn refuse(&self, reached: &Reached<'_>) -> Refusal {
        let message = format!("{} limit exceeded", reached.by.name());
        Refusal::too_many(message, reached.denied.wait())
    }

    /// Before routing.
    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        Step::PASS
    }

    /// The service and the target are chosen.
    fn post_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        Step::PASS
    }

    /// The answer's head has come. A refusal replaces the answer.
    fn pre_response(&self, x: &mut Exchange<'_>, head: &mut ResponseHead<'_>) -> Verdict {
        Ok(())
    }

    /// A piece of the answer, or, with [`Needs::response_body`], all of it; `end` with the last, which may be empty. What is returned goes on. An
    /// error breaks the answer off.
    fn chunk(&self, state: &mut State, chunk: Bytes, end: bool) -> Result<Bytes, Refusal> {
        Ok(chunk)
    }

    /// The exchange is over, however it ended: here leases are settled. Called once, at once, for every exchange that this plugin's
    /// `pre_request` saw and for which it keeps something in its state or has another stage; also when it was refused, broke off or
    /// panicked. It must not take long. [`End::cost`] may be set.
    fn end(&self, state: &mut State, end: &mut End) {}

    /// The exchange is over. Runs off its way after [`end`](Plugin::end); what it waits for is bounded by its entry's timeout. Under overload it may
    /// be left out, and that is counted.
    fn post_response<'a>(&'a self, state: &'a mut State, outcome: &'a Outcome) -> Step<'a> {
        Step::PASS
    }
}
