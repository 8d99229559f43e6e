//! What seals keys and certificates where they are kept: AES-256-GCM, with a key that HKDF-SHA256 (RFC 5869) makes of the operator's.
//!
//! A seal is bound to what it seals: the kind and the name of the row are its associated data, so that no row can stand in another's place. The nonce is
//! drawn for each seal; of the 2^32 that one key allows (NIST SP 800-38D, section 8.3) renewals use a few a day.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use tollgate_sdk::secret::Secret;

/// What tells this use of the operator's key from others.
const PURPOSE: &[u8] = b"tollgate acme 1";

/// A key that seals.
pub struct Seal(LessSafeKey);

/// What opening came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// What was sealed.
    Text(Secret<String>),
    /// It was sealed with another key, or is not what was sealed.
    Locked,
}

impl Seal {
    /// Made of the operator's key; `None` only if the system's cryptography fails.
    pub fn new(key: &Secret<String>) -> Option<Self> {
        let extracted = Salt::new(HKDF_SHA256, &[]).extract(key.expose().as_bytes());
        let purpose = [PURPOSE];
        let expanded = extracted.expand(&purpose, &AES_256_GCM).ok()?;
        Some(Self(LessSafeKey::new(UnboundKey::from(expanded))))
    }

    /// Seals a text for the row of this kind and name; `None` only if the system's cryptography fails.
    pub fn close(&self, text: &Secret<String>, kind: &str, name: &str) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = text.expose().clone().into_bytes();
        let unique = Nonce::assume_unique_for_key(nonce);
        let done = (self.0).seal_in_place_append_tag(unique, bound(kind, name), &mut sealed);
        done.ok()?;
        Some(BASE64_STANDARD.encode([&nonce[..], &sealed].concat()))
    }

    /// Opens what was sealed for the row of this kind and name.
    pub fn open(&self, sealed: &str, kind: &str, name: &str) -> Opened {
        self.try_open(sealed, kind, name)
            .map_or(Opened::Locked, |text| Opened::Text(Secret::new(text)))
    }

    fn try_open(&self, sealed: &str, kind: &str, name: &str) -> Option<String> {
        let mut bytes = BASE64_STANDARD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = self
            .0
            .open_in_place(nonce, bound(kind, name), sealed)
            .ok()?;
        String::from_utf8(text.to_vec()).ok()
    }
}

fn bound(kind: &str, name: &str) -> Aad<Vec<u8>> {
    Aad::from([kind.as_bytes(), name.as_bytes()].join(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(key: &str) -> Seal {
        Seal::new(&Secret::new(key.to_owned())).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_in_its_place_only() {
        let (ours, text) = (seal(&"k".repeat(32)), Secret::new("a key".to_owned()));
        let sealed = ours.close(&text, "certificate", "main").unwrap();
        assert!(!sealed.contains("a key"));
        assert_eq!(
            ours.open(&sealed, "certificate", "main"),
            Opened::Text(text.clone())
        );
        for (kind, name) in [
            ("account", "main"),
            ("certificate", "other"),
            ("certificatemain", ""),
        ] {
            assert_eq!(
                ours.open(&sealed, kind, name),
                Opened::Locked,
                "{kind} {name}"
            );
        }
        let theirs = seal(&"l".repeat(32));
        assert_eq!(theirs.open(&sealed, "certificate", "main"), Opened::Locked);
        // No two are alike, so that nobody sees whether what is sealed has changed.
        assert_ne!(sealed, ours.close(&text, "certificate", "main").unwrap());
    }

    #[test]
    fn what_was_touched_does_not_open() {
        let ours = seal(&"k".repeat(32));
        let sealed = ours
            .close(&Secret::new("a key".to_owned()), "a", "b")
            .unwrap();
        for at in 0..sealed.len() {
            let mut touched = sealed.clone().into_bytes();
            touched[at] = if touched[at] == b'A' { b'B' } else { b'A' };
            let touched = String::from_utf8(touched).unwrap();
            // The last bits of base64 may mean nothing, and are then refused as well.
            assert_eq!(ours.open(&touched, "a", "b"), Opened::Locked, "{at}");
        }
        for not in ["", "AAAA", "no base64!", &sealed[..sealed.len() / 2]] {
            assert_eq!(ours.open(not, "a", "b"), Opened::Locked, "{not}");
        }
    }
}
