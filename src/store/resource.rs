//! What is kept one by one: resources that were made through the admin API, and what budgets have counted.
//!
//! A resource is known by its kind, its gateway and its name. Its body is its owner's affair: the store does not look into it, and never prints
//! it, since it may hold credentials.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A resource as it is stored.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// What it is, for instance `key`.
    pub kind: String,
    /// Its name, unique among those of its kind and gateway.
    pub name: String,
    /// Whose it is; `None` for what belongs to no gateway.
    pub gateway: Option<String>,
    /// The store's revision when it was last changed.
    pub revision: u64,
    /// What it says.
    pub body: Value,
}

/// One change of resources.
#[derive(Clone, PartialEq)]
pub enum Change {
    /// It is made or replaced.
    Put {
        /// What it is.
        kind: String,
        /// Its name.
        name: String,
        /// Whose it is.
        gateway: Option<String>,
        /// What it says.
        body: Value,
    },
    /// It is gone.
    Delete {
        /// What it is.
        kind: String,
        /// Its name.
        name: String,
        /// Whose it is.
        gateway: Option<String>,
    },
}

/// How much of a limit somebody has used in a period.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Counter {
    /// The limit's identity.
    pub limit: String,
    /// Who used it.
    pub who: String,
    /// When the period began, in seconds since 1970.
    pub period: i64,
    /// How much, in the limit's unit.
    pub used: u64,
}

/// How much more, or less, of a limit somebody has used in a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// The limit's identity.
    pub limit: String,
    /// Who used it.
    pub who: String,
    /// When the period began, in seconds since 1970.
    pub period: i64,
    /// How much, in the limit's unit.
    pub by: i64,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("gateway", &self.gateway)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, kind, name, gateway) = match self {
            Change::Put {
                kind,
                name,
                gateway,
                ..
            } => ("Put", kind, name, gateway),
            Change::Delete {
                kind,
                name,
                gateway,
            } => ("Delete", kind, name, gateway),
        };
        f.debug_struct(verb)
            .field("kind", kind)
            .field("name", name)
            .field("gateway", gateway)
            .finish_non_exhaustive()
    }
}
