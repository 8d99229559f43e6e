//! How the authority is asked: by the client of our own calls, which bounds time and size, and notes how long a refusal asks us to stay away.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tollgate_sdk::plugin::{CallError, Http};

use crate::calls::Calls;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of the largest answer; a chain of certificates has some ten thousand.
const LARGEST: usize = 1 << 20;

/// How long the authority asked us to stay away, with the last refusal that said so.
#[derive(Clone, Default)]
pub(super) struct Away(Arc<Mutex<Option<Duration>>>);

impl Away {
    pub(super) fn told(&self) -> Option<Duration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, away: Option<Duration>) {
        if away.is_some() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = away;
        }
    }
}

/// The client of one order.
pub(super) struct Client {
    pub(super) calls: Calls,
    pub(super) away: Away,
}

type Answered = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for Client {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answered {
        let (calls, away) = (self.calls.clone(), self.away.clone());
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let signed = head.method == Method::POST;
            let host = head.uri.authority().map(ToString::to_string);
            let host = host.unwrap_or_default();
            let request = Request::from_parts(head, body.to_bytes());
            let answer = calls.call(request, PATIENCE, LARGEST).await;
            let answer = answer.map_err(|error| {
                let trust = match error {
                    CallError::Connect => ", or nobody who is trusted (acme.ca) vouches for it",
                    _ => "",
                };
                Error::Other(format!("{host} was asked, and {error}{trust}").into())
            })?;
            let refused = [
                StatusCode::TOO_MANY_REQUESTS,
                StatusCode::SERVICE_UNAVAILABLE,
            ];
            if refused.contains(&answer.status()) {
                away.note(retry_after(answer.headers(), SystemTime::now()));
            }
            // Refusals of signed requests have documents that say why; a directory that is not there has none.
            if !signed && !answer.status().is_success() {
                let why = format!("{host} answered {}", answer.status());
                return Err(Error::Other(why.into()));
            }
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
}

/// RFC 9110, section 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    SystemTime::from(date.timestamp()).duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn how_long_to_stay_away_is_seconds_or_a_date() {
        // 1994-11-06T08:49:07Z.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_747);
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers, now)
        };
        assert_eq!(read("3600"), Some(Duration::from_secs(3600)));
        assert_eq!(
            read("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(30))
        );
        for none in ["", "soon", "-1", "Sun, 06 Nov 1984 08:49:37 GMT"] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
