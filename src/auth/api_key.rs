//! API keys, compiled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Key, Unusable};
use crate::model::{self, KeyHash};

/// The keys of one gateway.
#[derive(Debug, Default)]
pub struct Keys {
    by_hash: HashMap<KeyHash, Arc<Key>>,
}

impl Keys {
    /// The keys of this gateway.
    pub fn of(gateway: &model::Name, keys: &[model::Key]) -> Keys {
        let own = keys.iter().filter(|key| key.gateway == *gateway);
        let by_hash = own.filter_map(|key| Some((key.hash?, Arc::new(Key::configured(key)))));
        Keys {
            by_hash: by_hash.collect(),
        }
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
        match key.has_ended(now) {
            true => Err(Unusable::Expired),
            false => Ok(key),
        }
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.by_hash.values()
    }
}
