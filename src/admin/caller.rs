//! Who may use the admin API: whoever has its token or, where there is none, whoever is on this machine.
//!
//! A browser is on this machine, too, and does what any page tells it: requests that come from a page of another origin are refused either way.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tollgate_sdk::secret::Secret;

use super::reply;

/// Who may.
pub(super) struct Callers {
    token: Option<Secret<String>>,
}

impl Callers {
    pub(super) fn new(token: Option<Secret<String>>) -> Callers {
        Callers {
            token: token.filter(|token| !token.expose().is_empty()),
        }
    }

    fn refuse(&self, peer: SocketAddr, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
        if is_foreign(headers) {
            let why = "Pages of other origins may not use the admin API.";
            return Some((StatusCode::FORBIDDEN, why));
        }
        match &self.token {
            None if peer.ip().to_canonical().is_loopback() => None,
            None => {
                let why = "Without admin.token, only clients on the gateway's own machine may use the admin API.";
                Some((StatusCode::FORBIDDEN, why))
            }
            Some(token) if bearer(headers).is_some_and(|given| given == *token) => None,
            Some(_) => {
                let why = "The admin API needs its token: Authorization: Bearer TOKEN.";
                Some((StatusCode::UNAUTHORIZED, why))
            }
        }
    }
}

/// Lets a request pass, or answers it.
pub(super) async fn admit(
    State(callers): State<Arc<Callers>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match callers.refuse(peer, request.headers()) {
        None => next.run(request).await,
        Some((status, why)) => {
            let code = match status {
                StatusCode::UNAUTHORIZED => "invalid_token",
                _ => "permission_denied",
            };
            reply::error(status, code, why)
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<Secret<String>> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| Secret::new(token.trim().to_owned()))
}

/// Whether a page of another origin asks. Only browsers send an origin; ours is the host that was asked.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok();
    let own = origin
        .zip(host)
        .is_some_and(|(origin, host)| origin.split_once("://").is_some_and(|(_, o)| o == host));
    !own
}
