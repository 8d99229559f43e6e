//! JSON Web Tokens (RFC 7519) that an issuer signed.
//!
//! Invariant: a token passes only by RS256, ES256 or EdDSA, with a key of the issuer's that is for that algorithm and no other, so that
//! neither `none` nor a signature made with a public key as secret (RFC 8725, 2.1) can pass. A token that was verified is remembered until
//! it ends or the issuer's keys change, so that one in use costs a look-up.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::Value as Json;
use tollgate_sdk::document::FromText;

use super::claims::{self, Said};
use super::jwks::{Jwks, KeySet};
use super::remembered::Remembered;
use super::{Key, Outside, Unusable, is_presentable};
use crate::model::{JwtAuth, KeyHash};

/// The only algorithms.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// Keys that are tried for a token that does not say which.
const MOST_TRIED: usize = 4;

/// An issuer, and which of its tokens were seen.
pub struct Jwt {
    settings: JwtAuth,
    keys: Arc<Jwks>,
    verified: Arc<Remembered<Verified>>,
}

struct Verified {
    key: Arc<Key>,
    /// The set it was verified with.
    set: KeyHash,
}

/// Why a token does not pass.
enum No {
    /// The issuer may have new keys.
    UnknownKey,
    Unusable(Unusable),
}

impl From<Unusable> for No {
    fn from(why: Unusable) -> Self {
        No::Unusable(why)
    }
}

impl Jwt {
    /// The issuer of these settings, with the keys and tokens that an earlier revision knew.
    pub fn new(settings: &JwtAuth, outside: &Outside) -> Arc<Self> {
        // Every setting matters to what a token opens.
        let hash = KeyHash::of(format!("{settings:?}").as_bytes()).to_text();
        let identity = format!("auth/jwt/{hash}").into();
        Arc::new(Self {
            settings: settings.clone(),
            keys: Jwks::new(&settings.keys, outside),
            verified: outside.kept.keep(&identity, Remembered::default),
        })
    }

    /// What is known of this token without verifying; `None` if it must be [asked](Self::ask).
    pub fn known(&self, token: &[u8], now: SystemTime) -> Option<Result<Arc<Key>, Unusable>> {
        if !is_presentable(token) {
            return Some(Err(Unusable::Unknown));
        }
        let set = self.keys.current()?;
        let known = self.verified.with(&KeyHash::of(token), |verified| {
            (verified.set == set.version).then(|| verified.key.clone())
        });
        let key = known.flatten()?;
        Some(match key.has_ended(|| now) {
            true => Err(Unusable::Expired),
            false => Ok(key),
        })
    }

    /// Verifies the token, with keys that are fetched if need be.
    ///
    /// # Errors
    /// [`Unusable`]; that it is [unavailable](Unusable::Unavailable) only while there are no keys at all.
    pub async fn ask(&self, token: &[u8], now: SystemTime) -> Result<Arc<Key>, Unusable> {
        if !is_presentable(token) {
            return Err(Unusable::Unknown);
        }
        let header = decode_header(token).map_err(|_| Unusable::Unknown)?;
        // An extension that must be understood (RFC 7515, 4.1.11) is not.
        if !ALGORITHMS.contains(&header.alg) || header.crit.is_some() {
            return Err(Unusable::Unknown);
        }
        let set = self.keys.first().await.ok_or(Unusable::Unavailable)?;
        let (set, key) = match self.verify(&set, token, &header, now) {
            Ok(key) => (set, key),
            Err(No::Unusable(why)) => return Err(why),
            Err(No::UnknownKey) => {
                self.keys.fetch().await;
                let newer = self
                    .keys
                    .current()
                    .filter(|newer| newer.version != set.version);
                let newer = newer.ok_or(Unusable::Unknown)?;
                match self.verify(&newer, token, &header, now) {
                    Ok(key) => (newer, key),
                    Err(No::Unusable(why)) => return Err(why),
                    Err(No::UnknownKey) => return Err(Unusable::Unknown),
                }
            }
        };
        let verified = Verified {
            key: key.clone(),
            set: set.version,
        };
        self.verified.put(KeyHash::of(token), verified);
        Ok(key)
    }

    fn verify(
        &self,
        set: &KeySet,
        token: &[u8],
        header: &jsonwebtoken::Header,
        now: SystemTime,
    ) -> Result<Arc<Key>, No> {
        let named = |id: &Option<String>| header.kid.is_none() || *id == header.kid;
        let mut known = set.keys.iter().filter(|key| named(&key.id)).peekable();
        if known.peek().is_none() {
            return Err(No::UnknownKey);
        }
        let mut validation = Validation::new(header.alg);
        // Claims are read below, by the time of the question.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let said = known
            .filter(|key| key.algorithm == header.alg)
            .take(MOST_TRIED)
            .find_map(|key| decode::<Said>(token, &key.key, &validation).ok())
            .ok_or(Unusable::Unknown)?
            .claims;
        Ok(Arc::new(self.read(&said, now)?))
    }

    /// What signed claims come to.
    fn read(&self, said: &Said, now: SystemTime) -> Result<Key, Unusable> {
        let issuer = said.get("iss").and_then(Json::as_str);
        if self.settings.issuer.is_some() && issuer != self.settings.issuer.as_deref() {
            return Err(Unusable::Unknown);
        }
        let wanted = &self.settings.audience;
        let meant = |audience: &str| wanted.iter().any(|wanted| wanted == audience);
        let for_us = match said.get("aud") {
            Some(Json::String(audience)) => meant(audience),
            Some(Json::Array(all)) => all.iter().filter_map(Json::as_str).any(meant),
            _ => false,
        };
        if !wanted.is_empty() && !for_us {
            return Err(Unusable::Unknown);
        }
        let leeway = self.settings.leeway;
        let end = said.get("exp").and_then(claims::moment);
        let end = end.and_then(|end| end.checked_add(leeway));
        let end = end.ok_or(Unusable::Unknown)?;
        if let Some(begin) = said.get("nbf") {
            let begin = claims::moment(begin).ok_or(Unusable::Unknown)?;
            let latest = now.checked_add(leeway).ok_or(Unusable::Unknown)?;
            if begin > latest {
                return Err(Unusable::Unknown);
            }
        }
        let means = &self.settings.claims;
        let subject = claims::at(said, &means.subject).and_then(Json::as_str);
        let subject = subject.filter(|subject| !subject.is_empty());
        let subject = subject.ok_or(Unusable::Unknown)?;
        let scope = |name: &Option<String>| {
            let name = name.as_deref()?;
            Some(claims::names(claims::at(said, name)))
        };
        let scopes = claims::scopes(
            scope(&means.services),
            scope(&means.models),
            scope(&means.rules),
        );
        let principal = claims::principal("jwt", issuer.unwrap_or_default(), subject);
        let key = Key::token(principal, scopes, Some(end));
        match key.has_ended(|| now) {
            true => Err(Unusable::Expired),
            false => Ok(key),
        }
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Jwt").field(&self.settings).finish()
    }
}
