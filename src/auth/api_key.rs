//! API keys, compiled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tollgate_sdk::plugin::Principal;

use crate::model::{self, KeyHash, ModelPattern};

/// The keys of one gateway.
#[derive(Debug, Default)]
pub struct Keys {
    by_hash: HashMap<KeyHash, Arc<Key>>,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Who holds it.
    pub principal: Principal,
    services: Vec<Arc<str>>,
    rules: Vec<Arc<str>>,
    models: Vec<ModelPattern>,
    /// When it ends.
    pub expires_at: Option<SystemTime>,
    /// From when on its users are told that it ends.
    warns_at: Option<SystemTime>,
    active: bool,
    /// Its users have another secret since.
    pub replaced: bool,
}

/// Why no key was found. All look alike to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unusable {
    /// Nobody has this secret.
    Unknown,
    /// It was switched off.
    Inactive,
    /// Its time is over.
    Expired,
}

impl Keys {
    /// The keys of this gateway.
    pub fn of(gateway: &model::Name, keys: &[model::Key]) -> Keys {
        let own = keys.iter().filter(|key| key.gateway == *gateway);
        let mut by_hash = HashMap::new();
        for key in own {
            for previous in &key.previous {
                let end = previous.until.time();
                let end = key.expires_at.map_or(end, |own| end.min(own.time()));
                by_hash.insert(previous.hash, Arc::new(Key::new(key, Some(end))));
            }
            if let Some(hash) = key.hash {
                by_hash.insert(hash, Arc::new(Key::new(key, None)));
            }
        }
        Keys { by_hash }
    }

    /// The key with this secret.
    ///
    /// # Errors
    /// [`Unusable`], for the log; the client learns no more than that it may not pass.
    pub fn find(&self, secret: &[u8], now: impl Fn() -> SystemTime) -> Result<&Arc<Key>, Unusable> {
        let key = self.by_hash.get(&KeyHash::of(secret));
        let key = key.ok_or(Unusable::Unknown)?;
        if !key.active {
            return Err(Unusable::Inactive);
        }
        match key.expires_at {
            Some(end) if now() >= end => Err(Unusable::Expired),
            _ => Ok(key),
        }
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.by_hash.values()
    }
}

impl Key {
    /// `until` is when it ends where that is not when the key as a whole does: it has another secret since.
    fn new(key: &model::Key, until: Option<SystemTime>) -> Key {
        let names = |names: &[model::Name]| names.iter().map(|n| n.clone().into()).collect();
        let name: Arc<str> = key.name.clone().into();
        let expires_at = until.or_else(|| key.expires_at.map(model::Moment::time));
        Key {
            principal: Principal {
                id: name.clone(),
                name,
            },
            services: names(&key.services),
            rules: names(&key.rules),
            models: key.models.clone(),
            warns_at: expires_at.and_then(|end| end.checked_sub(key.warn_before)),
            expires_at,
            active: key.active,
            replaced: until.is_some(),
        }
    }

    /// Whether it may use a service at all.
    pub fn opens(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|name| **name == *service)
    }

    /// Whether it may use a service, by way of this rule if by any, for this model if one is named.
    pub fn admits(&self, service: &str, rule: Option<&str>, model: Option<&str>) -> bool {
        let goes_by = |rule: &str| self.rules.iter().any(|name| **name == *rule);
        self.opens(service)
            && (self.rules.is_empty() || rule.is_some_and(goes_by))
            && (self.models.is_empty() || model.is_some_and(|model| self.names_model(model)))
    }

    /// Whether it may ask for this model of one of these services.
    pub fn sees<'s>(&self, model: &str, services: impl IntoIterator<Item = &'s str>) -> bool {
        (self.models.is_empty() || self.names_model(model))
            && services.into_iter().any(|service| self.opens(service))
    }

    fn names_model(&self, model: &str) -> bool {
        self.models.iter().any(|pattern| pattern.matches(model))
    }

    /// Whether it has no scopes: what one key without any sees, all see.
    pub fn is_unscoped(&self) -> bool {
        self.services.is_empty() && self.models.is_empty()
    }

    /// When it ends, if that is soon.
    pub fn ends_soon(&self, now: impl Fn() -> SystemTime) -> Option<SystemTime> {
        let warns_at = self.warns_at?;
        (now() >= warns_at).then_some(self.expires_at).flatten()
    }
}
