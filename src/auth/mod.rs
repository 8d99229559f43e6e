//! Who asks: from what a request presents to what that opens.
//!
//! A gateway's keys are compiled into a set that is looked up by the secret's SHA-256, so that neither the time a lookup takes nor
//! anything in memory tells a secret. Tokens are verified with an issuer's keys ([`Jwt`]) or by an identity service ([`Introspection`]);
//! what came of that is remembered by the token's hash, over changes of the configuration. What somebody may do beyond being let in, the
//! scopes, is asked of the [`Key`]. [`Authority`] is all of them as one; only [`Authority::ask`] waits for anybody.

mod api_key;
mod claims;
mod flight;
mod introspection;
mod jwks;
mod jwt;
mod key;
mod remembered;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tollgate_sdk::plugin::{Http, Kept};
use tollgate_sdk::quota::Clock;

use crate::model::{self, AuthBy};

pub use api_key::Keys;
pub use introspection::Introspection;
pub use jwt::Jwt;
pub use key::Key;

/// Bytes of the longest token that is looked at.
pub const LONGEST_TOKEN: usize = 16 << 10;

/// Why somebody is not let in. All look alike to the client, but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unusable {
    /// Nobody has this secret, or nobody vouches for this token.
    Unknown,
    /// It was switched off.
    Inactive,
    /// Its time is over.
    Expired,
    /// Nobody knows now, since whoever would know does not answer: 503, and to come again after [`RETRY_AFTER`].
    Unavailable,
}

/// When a client comes again that was told [`Unusable::Unavailable`].
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What tokens are verified with; it outlives every revision.
#[derive(Clone)]
pub struct Outside {
    /// Calls to issuers and identity services.
    pub http: Arc<dyn Http>,
    /// What time it is for whatever is remembered or repeated. When tokens end is told by the `now` of each question.
    pub clock: Arc<dyn Clock>,
    /// Where what is remembered outlives a revision.
    pub kept: Arc<Kept>,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outside")
    }
}

/// Who decides who is let in.
#[derive(Debug)]
pub enum Authority {
    /// The gateway's keys.
    Keys(Keys),
    /// An issuer's signature.
    Jwt(Arc<Jwt>),
    /// An identity service.
    Http(Arc<Introspection>),
}

impl Authority {
    /// Who decides for the gateway of these keys; nobody if it is for everybody. Does no I/O. Of the same settings, or of settings that differ only in how
    /// long things hold, it knows what an earlier revision knew, for as long as that still stands.
    pub fn of<'k>(
        auth: &model::Auth,
        keys: impl IntoIterator<Item = &'k model::Key>,
        outside: &Outside,
    ) -> Option<Authority> {
        match &auth.by {
            AuthBy::None => None,
            AuthBy::ApiKey => Some(Self::Keys(Keys::of(keys))),
            AuthBy::Jwt(jwt) => Some(Self::Jwt(Jwt::new(jwt, outside))),
            AuthBy::Http(http) => Some(Self::Http(Introspection::new(http, outside))),
        }
    }

    /// What is known of a key or token at once, from memory; `None` if somebody must be [asked](Self::ask).
    pub fn known(&self, token: &[u8], now: SystemTime) -> Option<Result<Arc<Key>, Unusable>> {
        match self {
            Self::Keys(keys) => Some(keys.find(token, || now).cloned()),
            Self::Jwt(jwt) => jwt.known(token, now),
            Self::Http(service) => service.known(token, now),
        }
    }

    /// Finds out about a token of which nothing is known, on a tokio runtime. It ends within the time that its settings allow.
    ///
    /// # Errors
    /// [`Unusable`].
    pub async fn ask(&self, token: &[u8], now: SystemTime) -> Result<Arc<Key>, Unusable> {
        match self {
            Self::Keys(keys) => keys.find(token, || now).cloned(),
            Self::Jwt(jwt) => jwt.ask(token, now).await,
            Self::Http(service) => service.ask(token, now).await,
        }
    }

    /// The keys, if there are any to list.
    pub fn keys(&self) -> Option<&Keys> {
        match self {
            Self::Keys(keys) => Some(keys),
            Self::Jwt(_) | Self::Http(_) => None,
        }
    }
}

/// Whether it can be a token at all: of a bearable length and of visible characters.
fn is_presentable(token: &[u8]) -> bool {
    (1..=LONGEST_TOKEN).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic)
}

/// A duration in the clock's nanoseconds, of at most 584 years.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
