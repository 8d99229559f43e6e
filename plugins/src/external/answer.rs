//! What a server's answer means for the request.
//!
//! It owns the reading of answers and the bounds of what a server may do: which headers it may change, with which status it may refuse.
//! Invariants: an answer is done in full or not at all; one that says `refuse` refuses, whatever else is wrong with it, so that no mistake in
//! it lets a request pass.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value as Json;
use tollgate_sdk::plugin::{CallError, HeaderEdit, Refusal};

use crate::headers::{CREDENTIALS, FRAMING};
use crate::json::{self, Kind};

/// Characters of a server's message that a client is told.
const MOST_MESSAGE: usize = 1000;

/// Words for programs that a server may choose from: metrics are labelled by them.
const CODES: [&str; 8] = [
    "invalid_request",
    "invalid_api_key",
    "permission_denied",
    "model_not_found",
    "route_not_found",
    "request_too_large",
    "rate_limit_exceeded",
    "insufficient_quota",
];

/// What becomes of the request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It goes on, changed so.
    Pass {
        /// The body in place of its own.
        body: Option<Bytes>,
        /// In their order.
        headers: Vec<(HeaderName, HeaderEdit)>,
    },
    /// It is refused.
    Refuse(Refusal),
}

/// What a server may do to a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    /// Replace its body, because it was sent one.
    pub(super) body: bool,
    /// Change headers that carry credentials.
    pub(super) credentials: bool,
}

/// Why there is no answer that could be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The call came to nothing.
    Call(CallError),
    /// It answered with this status.
    Status(StatusCode),
    /// What it said is not what was agreed on.
    Answer(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Call(error) => error.fmt(f),
            Failure::Status(status) => write!(f, "it answered with {}", status.as_u16()),
            Failure::Answer(why) => f.write_str(why),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// Reads an answer.
///
/// # Errors
/// [`Failure`], if it is neither a "yes" nor a "no".
pub(super) fn read(status: StatusCode, body: &Bytes, allowed: Allowed) -> Result<Answer, Failure> {
    if status.is_client_error() {
        return Ok(Answer::Refuse(refusal(&Json::Null)));
    }
    if !status.is_success() {
        return Err(Failure::Status(status));
    }
    let text = std::str::from_utf8(body).map_err(|_| NOT_JSON)?;
    if text.trim().is_empty() {
        return Ok(Answer::Pass {
            body: None,
            headers: Vec::new(),
        });
    }
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| NOT_JSON)?;
    let whole = json::document(text).map_err(|_| NOT_JSON)?;
    if json::kind(text, &whole) != Kind::Object {
        return Err(Failure::Answer("its answer is no JSON object"));
    }
    let members = json::members(text, whole.start).map_err(|_| NOT_JSON)?;
    let value = |member: &json::Member<'_>| text.get(member.value.clone()).unwrap_or_default();
    let given = |member: &&json::Member<'_>| value(member) != "null";

    let mut refusals = members.iter().filter(|member| member.key == "refuse");
    if let Some(refuse) = refusals.find(|member| !matches!(value(member), "null" | "false")) {
        let refuse = serde_json::from_str(value(refuse)).unwrap_or_default();
        return Ok(Answer::Refuse(refusal(&refuse)));
    }
    let (mut replaced, mut headers) = (None, None);
    for member in members.iter().filter(given) {
        let before = match &*member.key {
            "refuse" => false,
            "body" if !allowed.body => {
                let why = "it replaces a body that it was not sent";
                return Err(Failure::Answer(why));
            }
            "body" => replaced.replace(body.slice(member.value.clone())).is_some(),
            "headers" => headers.replace(changes(value(member), allowed)?).is_some(),
            _ => return Err(Failure::Answer("its answer has an unknown field")),
        };
        if before {
            return Err(Failure::Answer("its answer has a field twice"));
        }
    }
    Ok(Answer::Pass {
        body: replaced,
        headers: headers.unwrap_or_default(),
    })
}

const NOT_JSON: Failure = Failure::Answer("its answer is no JSON");

/// The refusal of which a server said this much.
fn refusal(said: &Json) -> Refusal {
    let said_status = said.get("status").and_then(Json::as_u64);
    let status = said_status.and_then(|status| u16::try_from(status).ok());
    let status = status.filter(|s| (400..500).contains(s)).unwrap_or(403);
    let code = said.get("code").and_then(Json::as_str);
    let code = CODES.into_iter().find(|known| Some(*known) == code);
    let code = code.unwrap_or(match status {
        400 | 422 => "invalid_request",
        401 => "invalid_api_key",
        413 => "request_too_large",
        429 => "rate_limit_exceeded",
        _ => "permission_denied",
    });
    let message = said.get("message").and_then(Json::as_str);
    let message = message.unwrap_or("the request was refused");
    let message: String = message.chars().take(MOST_MESSAGE).collect();
    Refusal::new(status, code, message)
}

/// The changes to headers that a server wants.
fn changes(text: &str, allowed: Allowed) -> Result<Vec<(HeaderName, HeaderEdit)>, Failure> {
    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Changes {
        set: BTreeMap<String, String>,
        remove: Vec<String>,
    }
    let wanted = "the `headers` of its answer are not { set = {…}, remove = […] }";
    let changes: Option<Changes> = serde_json::from_str(text).ok();
    // A list would be read as the fields in their order.
    let changes = changes.filter(|_| text.starts_with('{'));
    let changes = changes.ok_or(Failure::Answer(wanted))?;
    let name = |text: &str| {
        let name = HeaderName::try_from(text);
        let name = name.map_err(|_| Failure::Answer("a header in its answer has no valid name"))?;
        if FRAMING.contains(&name.as_str()) || name == http::header::HOST {
            let why = "it changes a header that is the gateway's alone";
            return Err(Failure::Answer(why));
        }
        if !allowed.credentials && CREDENTIALS.contains(&name.as_str()) {
            let why = "it changes a credential, and `credentials` does not allow it";
            return Err(Failure::Answer(why));
        }
        Ok(name)
    };
    let mut edits = Vec::with_capacity(changes.remove.len() + changes.set.len());
    for removed in &changes.remove {
        edits.push((name(removed)?, HeaderEdit::Remove));
    }
    for (set, value) in &changes.set {
        let invalid = Failure::Answer("a header in its answer has no valid value");
        let value = HeaderValue::try_from(value).map_err(|_| invalid)?;
        edits.push((name(set)?, HeaderEdit::Set(value)));
    }
    Ok(edits)
}
