//! What is kept of orders: the account at each authority, and the certificate of each gateway, as rows of the store.
//!
//! A row holds either `sealed` or, where the store is gone with its process, `clear`. Everything here waits for the disk.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tollgate_sdk::secret::Secret;

use super::seal::{Opened, Seal};
use crate::store::{Change, Store, StoreError};
use crate::tls::Issued;

const ACCOUNT: &str = "acme_account";
const CERTIFICATE: &str = "acme_certificate";

/// What a row came to.
pub(super) enum Found<T> {
    /// There is none.
    Nothing,
    /// It cannot be opened: why, and what to do.
    Locked(String),
    /// This.
    Kept(T),
}

/// A certificate as it is kept.
pub(super) struct KeptCertificate {
    pub(super) issued: Issued,
    /// The directory of the authority that issued it.
    pub(super) directory: String,
}

#[derive(Serialize, Deserialize)]
struct Written {
    directory: String,
    certificate: String,
    key: String,
}

impl Drop for Written {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

/// The store with what seals its rows, if anything does.
pub(super) struct Rows<'s> {
    pub(super) store: &'s dyn Store,
    pub(super) seal: Option<&'s Seal>,
}

impl Rows<'_> {
    /// The account at an authority, as it was kept.
    pub(super) fn account(&self, directory: &str) -> Result<Found<Secret<String>>, StoreError> {
        self.read(ACCOUNT, directory)
    }

    pub(super) fn keep_account(
        &self,
        directory: &str,
        account: &Secret<String>,
    ) -> Result<(), StoreError> {
        self.write(ACCOUNT, directory, account)
    }

    /// A gateway's certificate, as it was kept.
    pub(super) fn certificate(&self, gateway: &str) -> Result<Found<KeptCertificate>, StoreError> {
        let text = match self.read(CERTIFICATE, gateway)? {
            Found::Kept(text) => text,
            Found::Locked(why) => return Ok(Found::Locked(why)),
            Found::Nothing => return Ok(Found::Nothing),
        };
        let written = serde_json::from_str::<Written>(text.expose()).ok();
        let kept = written.and_then(|written| {
            let key = Secret::new(written.key.clone());
            Some(KeptCertificate {
                issued: Issued::new(written.certificate.clone(), key).ok()?,
                directory: written.directory.clone(),
            })
        });
        // What nobody can use is as good as nothing.
        Ok(kept.map_or(Found::Nothing, Found::Kept))
    }

    pub(super) fn keep_certificate(
        &self,
        gateway: &str,
        kept: &KeptCertificate,
    ) -> Result<(), StoreError> {
        let written = Written {
            directory: kept.directory.clone(),
            certificate: kept.issued.certificate().to_owned(),
            key: kept.issued.key().expose().clone(),
        };
        let text = serde_json::to_string(&written).map_err(|_| StoreError::Damaged)?;
        self.write(CERTIFICATE, gateway, &Secret::new(text))
    }

    /// Forgets certificates that have ended, of gateways for which `is_wanted` says no.
    pub(super) fn forget_ended(&self, is_wanted: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for row in self.store.list(CERTIFICATE)? {
            if is_wanted(&row.name) {
                continue;
            }
            let Found::Kept(kept) = self.certificate(&row.name)? else {
                continue;
            };
            if kept.issued.leaf().untimely(SystemTime::now()).is_some() {
                gone.push(Change::Delete {
                    kind: CERTIFICATE.into(),
                    name: row.name,
                    gateway: None,
                });
            }
        }
        match gone.is_empty() {
            true => Ok(()),
            false => self.store.apply(&gone, None).map(drop),
        }
    }

    fn read(&self, kind: &str, name: &str) -> Result<Found<Secret<String>>, StoreError> {
        let rows = self.store.list(kind)?;
        let Some(row) = rows.into_iter().find(|row| row.name == name) else {
            return Ok(Found::Nothing);
        };
        let text = |field: &str| row.body.get(field).and_then(Value::as_str);
        if let Some(clear) = text("clear") {
            return Ok(Found::Kept(Secret::new(clear.to_owned())));
        }
        let opened = self.seal.zip(text("sealed"));
        let opened = opened.map(|(seal, sealed)| seal.open(sealed, kind, name));
        Ok(match opened {
            Some(Opened::Text(text)) => Found::Kept(text),
            Some(Opened::Locked) | None => Found::Locked(format!(
                "the row {kind} {name} of the store was sealed with another acme.encryption_key: give the one it was sealed with, or, if that is lost, delete the row"
            )),
        })
    }

    fn write(&self, kind: &str, name: &str, text: &Secret<String>) -> Result<(), StoreError> {
        let body = match self.seal {
            Some(seal) => {
                let sealed = seal.close(text, kind, name).ok_or(StoreError::Damaged)?;
                json!({"sealed": sealed})
            }
            None => json!({"clear": text.expose()}),
        };
        let put = Change::Put {
            kind: kind.into(),
            name: name.into(),
            gateway: None,
            body,
        };
        self.store.apply(&[put], None).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    fn seal(key: &str) -> Seal {
        Seal::new(&Secret::new(key.repeat(32))).unwrap()
    }

    #[test]
    fn what_is_kept_is_found_again_and_only_with_its_key() {
        let (store, ours, theirs) = (Memory::default(), seal("a"), seal("b"));
        let rows = |seal| Rows {
            store: &store,
            seal: Some(seal),
        };
        let kept = KeptCertificate {
            issued: Issued::own(&["a.example".to_owned()]).unwrap(),
            directory: "https://ca.example/".into(),
        };
        assert!(matches!(
            rows(&ours).certificate("main").unwrap(),
            Found::Nothing
        ));
        rows(&ours).keep_certificate("main", &kept).unwrap();
        let Found::Kept(found) = rows(&ours).certificate("main").unwrap() else {
            panic!("it is not there");
        };
        assert_eq!(found.issued.certificate(), kept.issued.certificate());
        assert_eq!(found.issued.key(), kept.issued.key());
        assert_eq!(found.directory, kept.directory);
        let Found::Locked(why) = rows(&theirs).certificate("main").unwrap() else {
            panic!("it was opened");
        };
        assert!(why.contains("acme.encryption_key"), "{why}");
        let body = store.list(CERTIFICATE).unwrap()[0].body.to_string();
        assert!(!body.contains("PRIVATE"), "{body}");
    }

    #[test]
    fn what_has_not_ended_is_kept_for_a_gateway_that_may_come_back() {
        let (store, ours) = (Memory::default(), seal("a"));
        let rows = Rows {
            store: &store,
            seal: Some(&ours),
        };
        let kept = KeptCertificate {
            issued: Issued::own(&["a.example".to_owned()]).unwrap(),
            directory: String::new(),
        };
        rows.keep_certificate("main", &kept).unwrap();
        rows.forget_ended(|_| false).unwrap();
        assert_eq!(store.list(CERTIFICATE).unwrap().len(), 1);
    }
}
