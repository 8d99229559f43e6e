//! Whom a limit counts for: a name, with the hash it is found by.
//!
//! Names come from clients, who must not be able to make theirs meet in one place, so the hash is keyed, by a key of this process. Hashing costs
//! as much as counting does; who is known for long is hashed once ([`User`]).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

fn hash(name: &str) -> u64 {
    static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let mut hasher = KEYED.build_hasher();
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// Whom a limit counts for.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    name: &'a str,
    hash: u64,
}

impl<'a> Who<'a> {
    /// Who has this name.
    pub fn new(name: &'a str) -> Self {
        let hash = hash(name);
        Self { name, hash }
    }

    /// The name's hash, the same for the same name as long as the process lives.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl Deref for Who<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.name
    }
}

/// Who is counted again and again: hashed already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: Arc<str>,
    hash: u64,
}

impl User {
    /// Who has this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        let hash = hash(&name);
        Self { name, hash }
    }

    /// The same for a limit.
    pub fn who(&self) -> Who<'_> {
        Who {
            name: &self.name,
            hash: self.hash,
        }
    }
}

impl Deref for User {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}
