//! Phase 2, who asks: the key a request presents, and what the key may do.
//!
//! Where everything needs a key, a request without one is refused before its body is read. Where a gateway also
//! publishes services, that is decided when the service is known.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use super::exchange::Exchange;
use super::forward::API_KEY;
use super::reply::Rejection;
use crate::auth::{LONGEST_TOKEN, Unusable};
use crate::snapshot::Gateway;

/// Finds out who asks, and leaves it in the exchange.
pub(super) async fn authenticate(
    headers: &HeaderMap,
    x: &mut Exchange,
    gateway: &Gateway,
) -> Result<(), Rejection> {
    let Some(authority) = &gateway.authority else {
        return Ok(());
    };
    let mut why = None;
    for secret in presented(headers, gateway.key_header.as_ref()) {
        let found = match authority.known(secret, x.at) {
            Some(found) => found,
            // Boxed: most requests wait for nobody here.
            None => Box::pin(authority.ask(secret, x.at)).await,
        };
        match found {
            Ok(key) => {
                x.key = Some(key);
                x.consumed = true;
                return Ok(());
            }
            Err(unusable) => {
                // What may be a token of ours is not for an upstream to see.
                x.consumed |= unusable != Unusable::Unknown;
                why = why.max(Some(unusable));
            }
        }
    }
    let shown = x.handshake.as_ref().and_then(|h| h.client.as_ref());
    if let (Some(shown), Some(keys)) = (shown, authority.keys()) {
        match keys.of_certificate(shown.fingerprint, || x.at) {
            Ok(key) => {
                x.key = Some(key.clone());
                return Ok(());
            }
            Err(unusable) => why = why.max(Some(unusable)),
        }
    }
    if gateway.open {
        return Ok(());
    }
    x.cause = Some(cause(why).to_owned());
    x.unsure = why == Some(Unusable::Unavailable);
    match gateway.publishes {
        true => Ok(()),
        false => Err(stranger(x)),
    }
}

/// What somebody is told who needs a key and has shown none that is known.
fn stranger(x: &Exchange) -> Rejection {
    match x.unsure {
        true => Rejection::UnknownForNow,
        false => Rejection::InvalidKey,
    }
}

/// Whether the exchange may go to the service that was found for it.
pub(super) fn authorize(x: &mut Exchange, gateway: &Gateway) -> Result<(), Rejection> {
    let Some(offer) = &x.offer else {
        return Ok(());
    };
    let Some(key) = &x.key else {
        if !offer.service.public && !gateway.open {
            return Err(stranger(x));
        }
        x.cause = None;
        return Ok(());
    };
    let model = x.asked_model().map(|model| &**model);
    match key.admits(&offer.service.name, x.rule.as_deref(), model) {
        true => Ok(()),
        // Where nobody needs a key, one that does not open this is none.
        false if gateway.open => {
            x.key = None;
            Ok(())
        }
        false => Err(Rejection::OutOfScope),
    }
}

/// Everything that may be a key, the gateway's own header first.
fn presented<'h>(
    headers: &'h HeaderMap,
    own: Option<&HeaderName>,
) -> impl Iterator<Item = &'h [u8]> {
    let own = own.into_iter().filter_map(|name| headers.get(name));
    let own = own.map(|value| value.as_bytes());
    // Looked for only when who asks before has not been found.
    let others = [AUTHORIZATION, API_KEY].into_iter().filter_map(|name| {
        let value = headers.get(&name)?.as_bytes();
        if name == API_KEY {
            return Some(value);
        }
        let (scheme, secret) = unquoted(value).split_first_chunk::<7>()?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(secret)
    });
    let trimmed = own.chain(others).map(<[u8]>::trim_ascii);
    trimmed.filter(|secret| (1..=LONGEST_TOKEN).contains(&secret.len()))
}

/// A guide of dstack's prints the whole value in quotes, and people copy it.
fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value.strip_prefix(b"\"");
    let inner = inner.and_then(|rest| rest.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

/// For the log: the client is told nothing of this.
fn cause(why: Option<Unusable>) -> &'static str {
    match why {
        None => "no key",
        Some(Unusable::Unknown) => "unknown key",
        Some(Unusable::Inactive) => "inactive key",
        Some(Unusable::Expired) => "expired key",
        Some(Unusable::Unavailable) => "identity service unavailable",
    }
}
