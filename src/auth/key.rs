//! What somebody who was let in may use: the same for keys of the configuration and for tokens.
//!
//! Invariant: a scope that names nothing opens nothing; only a scope that was never set opens everything.

use std::sync::Arc;
use std::time::SystemTime;

use tollgate_sdk::plugin::Principal;
use tollgate_sdk::quota::User;

use crate::model::{self, ModelPattern, Priority};

/// Who was let in, and what of the gateway that opens.
#[derive(Debug)]
pub struct Key {
    /// Who holds it.
    pub principal: Principal,
    scopes: Scopes,
    /// When it ends.
    pub expires_at: Option<SystemTime>,
    /// From when on its users are told that it ends.
    warns_at: Option<SystemTime>,
    pub(super) active: bool,
    /// Its users have another secret since.
    pub replaced: bool,
    /// How urgent its requests are.
    pub priority: Priority,
    /// Its part beside others of that priority.
    pub weight: u32,
}

/// What may be used; `None` is everything of its kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Scopes {
    pub(super) services: Option<Vec<Arc<str>>>,
    pub(super) rules: Option<Vec<Arc<str>>>,
    pub(super) models: Option<Vec<ModelPattern>>,
}

impl Key {
    /// A key of the configuration. `until` is when it ends where that is not when the key as a whole does: it has another secret since.
    pub(super) fn configured(key: &model::Key, until: Option<SystemTime>) -> Key {
        let names = |names: &[model::Name]| {
            let names: Vec<Arc<str>> = names.iter().map(|n| n.clone().into()).collect();
            Some(names).filter(|names| !names.is_empty())
        };
        let name: Arc<str> = key.name.clone().into();
        let expires_at = until.or_else(|| key.expires_at.map(model::Moment::time));
        Key {
            principal: Principal {
                id: User::new(name.clone()),
                name,
            },
            scopes: Scopes {
                services: names(&key.services),
                rules: names(&key.rules),
                models: Some(key.models.clone()).filter(|models| !models.is_empty()),
            },
            warns_at: expires_at.and_then(|end| end.checked_sub(key.warn_before)),
            expires_at,
            active: key.active,
            replaced: until.is_some(),
            priority: key.priority,
            weight: key.weight,
        }
    }

    /// What a token stands for. Nobody is told before it ends: tokens are short-lived, and their users get new ones.
    pub(super) fn token(
        principal: Principal,
        scopes: Scopes,
        expires_at: Option<SystemTime>,
    ) -> Key {
        Key {
            principal,
            scopes,
            expires_at,
            warns_at: None,
            active: true,
            replaced: false,
            priority: Priority::Default,
            weight: 1,
        }
    }

    /// Whether its time is over.
    pub(super) fn has_ended(&self, now: impl FnOnce() -> SystemTime) -> bool {
        self.expires_at.is_some_and(|end| now() >= end)
    }

    /// Whether there is nothing that it may not use.
    pub fn opens_everything(&self) -> bool {
        let Scopes {
            services,
            rules,
            models,
        } = &self.scopes;
        services.is_none() && rules.is_none() && models.is_none()
    }

    /// Whether it may use a service at all.
    pub fn opens(&self, service: &str) -> bool {
        let named = |names: &Vec<Arc<str>>| names.iter().any(|name| **name == *service);
        self.scopes.services.as_ref().is_none_or(named)
    }

    /// Whether it may use a service, by way of this rule if by any, for this model if one is named.
    pub fn admits(&self, service: &str, rule: Option<&str>, model: Option<&str>) -> bool {
        let goes = |names: &Vec<Arc<str>>| {
            rule.is_some_and(|rule| names.iter().any(|name| **name == *rule))
        };
        let asks = |models: &Vec<ModelPattern>| {
            model.is_some_and(|model| models.iter().any(|pattern| pattern.matches(model)))
        };
        self.opens(service)
            && self.scopes.rules.as_ref().is_none_or(goes)
            && self.scopes.models.as_ref().is_none_or(asks)
    }

    /// Whether it may ask for this model of one of these services.
    pub fn sees<'s>(&self, model: &str, services: impl IntoIterator<Item = &'s str>) -> bool {
        let named = |models: &Vec<ModelPattern>| models.iter().any(|p| p.matches(model));
        self.scopes.models.as_ref().is_none_or(named)
            && services.into_iter().any(|service| self.opens(service))
    }

    /// Whether it has no scopes: what one key without any sees, all see.
    pub fn is_unscoped(&self) -> bool {
        self.scopes.services.is_none() && self.scopes.models.is_none()
    }

    /// When it ends, if that is soon.
    pub fn ends_soon(&self, now: impl Fn() -> SystemTime) -> Option<SystemTime> {
        let warns_at = self.warns_at?;
        (now() >= warns_at).then_some(self.expires_at).flatten()
    }
}
