//! Who may use the admin API: whoever has its token or, where there is none, whoever is on this machine. Who comes by the unix socket was let in by its mode.
//!
//! A browser is on this machine, too, and does what any page tells it: requests that come from a page of another origin are refused either way.
//! Whose name has been made to lead here is of our own origin to a browser: where there is no token, only names that nobody else can give are answered to.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tollgate_sdk::secret::Secret;

use super::reply;
use super::serve::Peer;

/// What callers are known by; an empty one is none.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// Opens everything.
    pub admin: Option<Secret<String>>,
    /// Opens KEDA's calls, and nothing else.
    pub scaler: Option<Secret<String>>,
}

/// Who may.
pub(super) struct Callers(Tokens);

impl Callers {
    pub(super) fn new(tokens: Tokens) -> Callers {
        let told = |token: &Secret<String>| !token.expose().is_empty();
        Callers(Tokens {
            admin: tokens.admin.filter(told),
            scaler: tokens.scaler.filter(told),
        })
    }

    /// The token a request presents, if there is one to present.
    pub(super) fn presented(&self, headers: &HeaderMap) -> Option<Secret<String>> {
        self.0.admin.as_ref().and_then(|_| bearer(headers))
    }

    /// Why a call of KEDA's is not answered, as far as its head tells. UNAUTHORIZED: a token is missing or is not the one.
    pub(super) fn refuse_scaler(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Option<(StatusCode, &'static str)> {
        let refused = self.refuse(peer, headers)?;
        if is_foreign(headers) {
            return Some(refused);
        }
        match bearer(headers) {
            Some(token) if self.opens_scaler(&token) => None,
            _ if self.0.scaler.is_none() && self.0.admin.is_none() => Some(refused),
            _ => {
                let why = "This needs admin.scaler_token: as tokenFromEnv or token in the trigger's metadata, or as Authorization: Bearer TOKEN.";
                Some((StatusCode::UNAUTHORIZED, why))
            }
        }
    }

    /// Whether a token opens KEDA's calls.
    pub(super) fn opens_scaler(&self, token: &Secret<String>) -> bool {
        let known = [&self.0.scaler, &self.0.admin];
        known.into_iter().flatten().any(|known| known == token)
    }

    fn refuse(&self, peer: &Peer, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
        if is_foreign(headers) {
            let why = "Pages of other origins may not use the admin API.";
            return Some((StatusCode::FORBIDDEN, why));
        }
        let Peer::Address(peer) = peer else {
            return None;
        };
        match &self.0.admin {
            None if peer.ip().to_canonical().is_loopback() && !is_led_here(headers) => None,
            None if peer.ip().to_canonical().is_loopback() => {
                let why = "Without admin.token, the admin API is asked for by an address or as localhost.";
                Some((StatusCode::FORBIDDEN, why))
            }
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
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    match callers.refuse(&peer, request.headers()) {
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

/// Whether a name was asked for that others may have made to lead here.
fn is_led_here(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else {
        return false;
    };
    let host = host.to_str().ok().and_then(|h| h.parse::<Authority>().ok());
    host.is_none_or(|host| {
        let name = host.host().trim_matches(['[', ']']);
        name.contains('.') && name.parse::<IpAddr>().is_err()
    })
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::http::HeaderValue;

    use super::*;

    fn callers(admin: Option<&str>, scaler: Option<&str>) -> Callers {
        let [admin, scaler] =
            [admin, scaler].map(|token| token.map(|token| Secret::new(token.to_owned())));
        Callers::new(Tokens { admin, scaler })
    }

    fn status(token: Option<&str>, peer: &str, headers: &[(&'static str, &'static str)]) -> u16 {
        let callers = callers(token, None);
        let headers = { headers.iter() }
            .filter_map(|(name, value)| {
                let name = axum::http::HeaderName::from_static(name);
                Some((name, HeaderValue::from_str(value).ok()?))
            })
            .collect();
        let peer = Peer::Address(SocketAddr::new(peer.parse().unwrap(), 1));
        let refused = callers.refuse(&peer, &headers);
        refused.map_or(200, |(status, _)| status.as_u16())
    }

    #[test]
    fn without_a_token_only_this_machine() {
        for near in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(status(None, near, &[]), 200, "{near}");
            assert_eq!(status(Some(""), near, &[]), 200, "{near}");
            assert_eq!(status(Some("t"), near, &[]), 401, "{near}");
        }
        let claims = [("x-forwarded-for", "127.0.0.1"), ("host", "localhost")];
        let token = [("authorization", "Bearer t")];
        for far in [
            "192.0.2.1",
            "10.0.0.1",
            "0.0.0.0",
            "::ffff:192.0.2.1",
            "fe80::1",
            "2001:db8::1",
        ] {
            assert_eq!(status(None, far, &claims), 403, "{far}");
            assert_eq!(status(Some(""), far, &token), 403, "{far}");
            assert_eq!(status(Some("t"), far, &[]), 401, "{far}");
            assert_eq!(status(Some("t"), far, &token), 200, "{far}");
        }
    }

    #[test]
    fn who_comes_by_the_socket_needs_no_token() {
        let callers = callers(Some("t"), None);
        let peer = Peer::Socket { uid: Some(0) };
        let mut headers = HeaderMap::new();
        assert!(callers.refuse(&peer, &headers).is_none());
        headers.insert(ORIGIN, HeaderValue::from_static("http://evil.example"));
        assert!(callers.refuse(&peer, &headers).is_some());
    }

    #[test]
    fn the_scaler_has_a_token_of_its_own() {
        let far = Peer::Address(SocketAddr::from(([192, 0, 2, 1], 1)));
        let with = |token: &str| {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            HeaderMap::from_iter([(AUTHORIZATION, value)])
        };
        let told = |refused: Option<(StatusCode, &str)>| refused.map_or(200, |(s, _)| s.as_u16());
        for (admin, scaler, token, page, call) in [
            (None, None, "", 403, 403),
            (None, Some(""), "", 403, 403),
            (None, Some("s"), "s", 403, 200),
            (None, Some("s"), "x", 403, 401),
            (Some("a"), Some("s"), "s", 401, 200),
            (Some("a"), Some("s"), "a", 200, 200),
            (Some("a"), None, "a", 200, 200),
            (Some("a"), None, "", 401, 401),
        ] {
            let callers = callers(admin, scaler);
            let mut headers = with(token);
            let both = |headers: &HeaderMap| {
                let page = told(callers.refuse(&far, headers));
                (page, told(callers.refuse_scaler(&far, headers)))
            };
            assert_eq!(both(&headers), (page, call), "{admin:?} {scaler:?} {token}");
            headers.insert(ORIGIN, HeaderValue::from_static("http://evil.example"));
            assert_eq!(both(&headers), (403, 403));
        }
    }
}
