//! How an identity service is asked, and what its answers mean.
//!
//! With `GET` the token goes as `Authorization: Bearer`, as a service's own users send it. With `POST` it goes as the form of RFC 7662, too.
//! Invariant: only an answer of 2xx that does not take it back lets anybody in.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde_json::Value as Json;
use tollgate_sdk::document::FromText;
use url::form_urlencoded;

use super::super::claims::{self, Said};
use super::super::{Key, Unusable};
use crate::model::{AskBy, HttpAuth, KeyHash};

/// What an answer means.
pub(super) enum Reading {
    Allowed(Box<Key>),
    Denied(Unusable),
    /// Nothing can be made of what it says of this token; of others it may say more.
    Odd,
    /// It says nothing of anybody, and why.
    Down(String),
}

/// The request for a token; `None` if it cannot be sent.
pub(super) fn request(settings: &HttpAuth, token: &[u8]) -> Option<Request<Bytes>> {
    let (method, body) = match settings.method {
        AskBy::Get => (Method::GET, String::new()),
        AskBy::Post => {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("token", std::str::from_utf8(token).ok()?);
            (Method::POST, form.finish())
        }
    };
    let mut request = Request::builder().method(method).uri(settings.url.as_str());
    let headers = request.headers_mut()?;
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static("tollgate"));
    if settings.method == AskBy::Post {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form);
    }
    let mut bearer = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).ok()?;
    bearer.set_sensitive(true);
    headers.insert(AUTHORIZATION, bearer);
    for (name, value) in &settings.headers {
        headers.insert(name, value.clone());
    }
    request.body(body.into()).ok()
}

/// Reads an answer about the token with this hash.
pub(super) fn read(
    settings: &HttpAuth,
    answer: &Response<Bytes>,
    hash: &KeyHash,
    now: SystemTime,
) -> Reading {
    let status = answer.status();
    let own = settings.method == AskBy::Post
        && settings
            .headers
            .iter()
            .any(|(name, _)| *name == AUTHORIZATION);
    match status {
        status if status.is_success() => allowed(settings, answer, hash, now),
        // RFC 7662, 2.3: the gateway's own credential was refused, which tells nothing of the token.
        StatusCode::UNAUTHORIZED if own => {
            Reading::Down("it refuses the gateway's own credential (401)".into())
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            Reading::Denied(Unusable::Unknown)
        }
        // Somebody's strange token must not make it look down to everybody.
        status
            if status.is_client_error()
                && status != StatusCode::TOO_MANY_REQUESTS
                && status != StatusCode::REQUEST_TIMEOUT =>
        {
            Reading::Odd
        }
        status => Reading::Down(format!("it answers {}", status.as_u16())),
    }
}

fn allowed(
    settings: &HttpAuth,
    answer: &Response<Bytes>,
    hash: &KeyHash,
    now: SystemTime,
) -> Reading {
    let body = answer.body().trim_ascii();
    let kind = answer.headers().get(CONTENT_TYPE);
    let claimed = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let said = match serde_json::from_slice(body) {
        Ok(Json::Object(said)) => said,
        // A "no" that broke on its way must not become a "yes".
        Err(_) if !body.is_empty() && (claimed || body.starts_with(b"{")) => return Reading::Odd,
        _ => Said::new(),
    };
    if said.get("active").is_some_and(|active| *active != true) {
        return Reading::Denied(Unusable::Unknown);
    }
    let end = said.get("exp").filter(|end| !end.is_null());
    let ends = end.map(claims::moment);
    let expires_at = match ends {
        Some(None) => return Reading::Odd,
        Some(Some(end)) if end <= now => return Reading::Denied(Unusable::Expired),
        Some(Some(end)) => Some(end),
        None => None,
    };
    let scope = |name: &str| {
        let claim = said.get(name).filter(|claim| !claim.is_null());
        claim.map(|claim| claims::names(Some(claim)))
    };
    let scopes = claims::scopes(scope("services"), scope("models"), scope("rules"));
    let subject = ["sub", "username", "name"]
        .iter()
        .find_map(|name| said.get(*name)?.as_str().filter(|text| !text.is_empty()));
    let issuer = settings.url.authority();
    let hash = hash.to_text();
    let mut principal = claims::principal("http", issuer, subject.unwrap_or(&hash));
    if subject.is_none() {
        let short = hash.trim_start_matches("sha256:").get(..12);
        principal.name = format!("token-{}", short.unwrap_or_default()).into();
    }
    Reading::Allowed(Box::new(Key::token(principal, scopes, expires_at)))
}
