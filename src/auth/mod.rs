//! Who asks: from what a request presents to the key it holds.
//!
//! A gateway's keys are compiled into a set that is looked up by the secret's SHA-256, so that neither the time a lookup takes nor
//! anything in memory tells a secret. What a key may do beyond being valid, its scopes, is asked of the key.

mod api_key;

pub use api_key::{Key, Keys, Unusable};
