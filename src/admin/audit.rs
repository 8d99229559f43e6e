//! A line in the log for every write, also for those that were refused: who, what, with what result.
//!
//! A write is run as a task of its own. What awaits in a connection is dropped when the caller leaves, and a change that is stored must also come into
//! force and leave its line.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use tollgate_sdk::document::FromText;
use tollgate_sdk::secret::Secret;

use super::caller::Callers;
use super::reply;
use super::serve::Peer;
use crate::config::{Action, Difference};
use crate::control::{Announced, Control};
use crate::model::{KeyHash, Name};
use crate::telemetry::logger;

/// What a write did. Whoever serves a write puts the [`Announced`] change into the extensions of its answer.
/// Without it the line has what the path and the body say, and the revisions before and after the call, in which others may have had their part.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    /// The revision that the write was made on.
    pub(super) before: u64,
    /// The revision that it made; the same if it changed nothing.
    pub(super) after: u64,
    /// Every resource it touched.
    pub(super) changes: Vec<Change>,
}

impl Done {
    fn of(announced: &Announced) -> Done {
        let changed = announced
            .fates
            .iter()
            .filter(|fate| fate.action != Action::Unchanged);
        let changes = changed.map(|fate| Change {
            kind: fate.kind.word().to_owned(),
            name: fate.name.to_string(),
            action: fate.action.word(),
            fields: fate.fields.iter().map(Difference::shown).collect(),
        });
        Done {
            before: announced.before,
            after: announced.revision,
            changes: changes.collect(),
        }
    }
}

/// What a write did to a resource.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Change {
    /// Its kind: `service`.
    pub(super) kind: String,
    /// Its name.
    pub(super) name: String,
    /// `create`, `update` or `delete`.
    pub(super) action: &'static str,
    /// The fields that are different: `[{"path","from","to"}]`, secrets masked.
    pub(super) fields: Vec<Value>,
}

/// The name in a request's body, if it had one.
#[derive(Clone, Debug)]
pub(super) struct Attempted(pub(super) Option<String>);

/// What is known of a write before it is made.
#[derive(Clone)]
pub(super) struct Writing {
    pub(super) control: Arc<Control>,
    pub(super) callers: Arc<Callers>,
    /// `POST /v1/keys/{name}/rotate`.
    pub(super) call: Arc<str>,
    /// `key`; empty for what concerns no kind.
    pub(super) kind: Arc<str>,
}

impl Writing {
    /// Of the page `method path`.
    pub(super) fn new(
        control: &Arc<Control>,
        callers: &Arc<Callers>,
        method: &str,
        path: &str,
    ) -> Writing {
        let kinds = path.split('/').nth(2).unwrap_or_default();
        Writing {
            control: control.clone(),
            callers: callers.clone(),
            call: format!("{method} {path}").into(),
            kind: kinds.strip_suffix('s').unwrap_or_default().into(),
        }
    }
}

/// Makes the write, and leaves its line.
pub(super) async fn record(
    State(writing): State<Writing>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>();
    let who = who(peer, writing.callers.presented(request.headers()));
    let named = path.ok().and_then(|path| {
        let mut parameters = path.iter();
        let named = parameters.find(|(name, _)| *name == "name");
        named.map(|(_, value)| value.to_owned())
    });
    let named = named.filter(|name| Name::from_text(name).is_ok());
    let made = tokio::spawn(async move {
        let before = writing.control.snapshot().revision;
        let response = next.run(request).await;
        let after = writing.control.snapshot().revision;
        let known = response.extensions().get::<Arc<Announced>>();
        let known = known.map(|announced| Done::of(announced));
        let done = known.unwrap_or(Done {
            before,
            after,
            changes: Vec::new(),
        });
        let in_body = response.extensions().get::<Attempted>();
        let name = named.or_else(|| in_body.and_then(|attempted| attempted.0.clone()));
        tell(&writing, &who, name, response.status(), &done);
        response
    });
    made.await.unwrap_or_else(|_| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        reply::error(status, "internal_error", "The change could not be made.")
    })
}

fn tell(writing: &Writing, who: &str, name: Option<String>, status: StatusCode, done: &Done) {
    let name = name.unwrap_or_default();
    let (call, kind) = (&*writing.call, &*writing.kind);
    let what = match (kind.is_empty(), name.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!(" {kind}"),
        (false, false) => format!(" {kind} {name}"),
    };
    log::info!(
        target: "audit",
        at = logger::now().as_str(),
        who = who,
        call = call,
        kind = kind,
        name = name.as_str(),
        status = status.as_u16(),
        revision_before = done.before,
        revision_after = done.after,
        changes:serde = done.changes;
        "{who}: {call}{what}: {}", status.as_u16()
    );
}

/// Who asks: `token:` and the first digits of the token's hash, `socket:` and the user's number, or from where.
fn who(peer: Option<&Peer>, token: Option<Secret<String>>) -> String {
    match (peer, token) {
        (Some(Peer::Socket { uid: Some(uid) }), _) => format!("socket:{uid}"),
        (Some(Peer::Socket { uid: None }), _) => "socket:unknown".to_owned(),
        (_, Some(token)) => {
            let hash = KeyHash::of(token.expose().as_bytes()).to_text();
            let digits = hash.trim_start_matches("sha256:");
            format!("token:{}", digits.get(..8).unwrap_or_default())
        }
        (Some(Peer::Address(address)), None) => from(*address),
        (None, None) => "unknown".to_owned(),
    }
}

fn from(address: SocketAddr) -> String {
    let ip = address.ip().to_canonical();
    match ip.is_loopback() {
        true => format!("local:{ip}"),
        false => format!("remote:{ip}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_without_telling_the_token() {
        let at = |text: &str| Some(Peer::Address(text.parse().unwrap()));
        for (peer, token, expected) in [
            (at("127.0.0.1:5"), None, "local:127.0.0.1"),
            (at("[::ffff:127.0.0.1]:5"), None, "local:127.0.0.1"),
            (at("192.0.2.1:5"), None, "remote:192.0.2.1"),
            // printf hello | sha256sum
            (at("192.0.2.1:5"), Some("hello"), "token:2cf24dba"),
            (Some(Peer::Socket { uid: Some(7) }), None, "socket:7"),
            (
                Some(Peer::Socket { uid: Some(7) }),
                Some("hello"),
                "socket:7",
            ),
        ] {
            let token = token.map(|token| Secret::new(token.to_owned()));
            assert_eq!(who(peer.as_ref(), token), expected);
        }
    }
}
