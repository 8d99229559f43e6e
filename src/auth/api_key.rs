//! API keys, compiled.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use super::{Key, Unusable};
use crate::model::{self, KeyHash};

/// The keys of one gateway.
#[derive(Debug, Default)]
pub struct Keys {
    by_hash: HashMap<KeyHash, Arc<Key>, BuildHasherDefault<Prefix>>,
}

/// The first bytes of a SHA-256: nobody finds secrets for which many of these are the same, and what is looked up adds nothing to the map.
#[derive(Default)]
struct Prefix(u64);

impl Hasher for Prefix {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Keys {
    /// A gateway's keys.
    pub fn of<'k>(keys: impl IntoIterator<Item = &'k model::Key>) -> Keys {
        let mut by_hash = HashMap::default();
        for key in keys {
            for previous in &key.previous {
                let end = previous.until.time();
                let end = key.expires_at.map_or(end, |own| end.min(own.time()));
                by_hash.insert(previous.hash, Arc::new(Key::configured(key, Some(end))));
            }
            if let Some(hash) = key.hash {
                by_hash.insert(hash, Arc::new(Key::configured(key, None)));
            }
        }
        by_hash.shrink_to_fit();
        Keys { by_hash }
    }

    /// The key with this secret.
    ///
    /// # Errors
    /// [`Unusable`], for the log; the client learns no more than that it may not pass.
    pub fn find(&self, secret: &[u8], now: impl Fn() -> SystemTime) -> Result<&Arc<Key>, Unusable> {
        self.of_hash(KeyHash::of(secret), now)
    }

    /// The key whose hash is the SHA-256 fingerprint of a certificate that its holder has shown. (No secret that is sent can have the same hash: in a
    /// certificate there are bytes that no header can carry.)
    ///
    /// # Errors
    /// [`Unusable`], as above.
    pub fn of_certificate(
        &self,
        fingerprint: [u8; 32],
        now: impl Fn() -> SystemTime,
    ) -> Result<&Arc<Key>, Unusable> {
        self.of_hash(KeyHash(fingerprint), now)
    }

    fn of_hash(&self, hash: KeyHash, now: impl Fn() -> SystemTime) -> Result<&Arc<Key>, Unusable> {
        let key = self.by_hash.get(&hash);
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
