//! Phase 2, who asks: the key a request presents, and what the key may do.
//!
//! Where everything needs a key, a request without one is refused before its body is read. Where a gateway also
//! publishes services, that is decided when the service is known.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::exchange::Exchange;
use super::forward::API_KEY;
use super::reply::Rejection;
use crate::auth::{Authority, LONGEST_TOKEN, Unusable};
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
    match recognised(headers, x, gateway, authority) {
        true => Ok(()),
        // Boxed: most requests wait for nobody here.
        false => Box::pin(identify(headers, x, gateway, authority)).await,
    }
}

/// Whether the first that it presents is known and opens the gateway: as nearly all requests have it, without a wait.
fn recognised(
    headers: &HeaderMap,
    x: &mut Exchange,
    gateway: &Gateway,
    authority: &Authority,
) -> bool {
    let secret = { PLACES.into_iter() }.find_map(|place| presented(place, headers, gateway));
    let Some(Some(Ok(key))) = secret.map(|secret| authority.known(secret, x.at)) else {
        return false;
    };
    x.key = Some(key);
    x.consumed = true;
    true
}

/// Looks at all that it presents, and asks whoever may know.
async fn identify(
    headers: &HeaderMap,
    x: &mut Exchange,
    gateway: &Gateway,
    authority: &Authority,
) -> Result<(), Rejection> {
    let mut why = None;
    for place in PLACES {
        let Some(secret) = presented(place, headers, gateway) else {
            continue;
        };
        let found = match authority.known(secret, x.at) {
            Some(found) => found,
            None => authority.ask(secret, x.at).await,
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
    if key.opens_everything() {
        return Ok(());
    }
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

/// Where a key may stand.
#[derive(Clone, Copy)]
enum Place {
    /// In the gateway's own header.
    Own,
    Authorization,
    ApiKey,
}

/// The gateway's own header comes first.
const PLACES: [Place; 3] = [Place::Own, Place::Authorization, Place::ApiKey];

/// What may be a key in this place.
fn presented<'h>(place: Place, headers: &'h HeaderMap, gateway: &Gateway) -> Option<&'h [u8]> {
    let secret = match place {
        Place::Own => headers.get(gateway.key_header.as_ref()?)?.as_bytes(),
        Place::Authorization => {
            let value = unquoted(headers.get(AUTHORIZATION)?.as_bytes());
            let (scheme, secret) = value.split_first_chunk::<7>()?;
            // As nearly everybody writes it: one comparison instead of seven.
            let bearer = scheme == b"Bearer " || is_bearer(scheme);
            bearer.then_some(secret)?
        }
        Place::ApiKey => headers.get(API_KEY)?.as_bytes(),
    };
    let secret = secret.trim_ascii();
    (1..=LONGEST_TOKEN)
        .contains(&secret.len())
        .then_some(secret)
}

#[cold]
fn is_bearer(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"bearer ")
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
