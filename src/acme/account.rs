//! The account at the authority: made once for each directory, kept, and made again only if the authority no longer knows it.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use tokio::sync::Mutex;
use tollgate_sdk::secret::Secret;

use super::client::{Away, Client};
use super::issuer::seal;
use super::kept::{Found, Rows};
use super::order::Failure;
use crate::calls::Calls;
use crate::model::Acme;
use crate::store::{Store, StoreError};
use crate::tls::Files;

/// The accounts of this process.
#[derive(Default)]
pub(super) struct Accounts {
    /// Trusts whom the system trusts.
    calls: Calls,
    // Held while an account is looked up or made, so that there is one.
    known: Mutex<Known>,
}

#[derive(Default)]
enum Known {
    #[default]
    Nothing,
    /// The credentials of the account at a directory.
    Account(String, Secret<String>),
    /// The directory no longer knows the one that is kept.
    Gone(String),
}

impl Accounts {
    /// The account, with a client of its own; and what that client will note.
    pub(super) async fn enter(
        &self,
        acme: &Acme,
        files: &Arc<Files>,
        store: &Arc<dyn Store>,
    ) -> (Result<Account, Failure>, Away) {
        let away = Away::default();
        let entered = self.try_enter(acme, files, store, away.clone()).await;
        (entered, away)
    }

    async fn try_enter(
        &self,
        acme: &Acme,
        files: &Arc<Files>,
        store: &Arc<dyn Store>,
        away: Away,
    ) -> Result<Account, Failure> {
        let client = Client {
            calls: self.calls(acme, files).await?,
            away,
        };
        let builder = Account::builder_with_http(Box::new(client));
        let directory = acme.directory.as_str().to_owned();
        let mut known = self.known.lock().await;
        let found = match &*known {
            Known::Account(of, credentials) if *of == directory => Some(credentials.clone()),
            Known::Gone(of) if *of == directory => None,
            _ => kept(acme, store).await?,
        };
        let credentials = { found.as_ref() }
            .and_then(|text| serde_json::from_str::<AccountCredentials>(text.expose()).ok());
        if let (Some(credentials), Some(text)) = (credentials, found) {
            *known = Known::Account(directory, text);
            drop(known);
            return Ok(builder.from_credentials(credentials).await?);
        }
        let contact: Vec<String> = { acme.email.iter() }
            .map(|email| format!("mailto:{email}"))
            .collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let account = NewAccount {
            contact: &contact,
            terms_of_service_agreed: acme.terms_agreed,
            only_return_existing: false,
        };
        let external = external(acme)?;
        let made = builder.create(&account, directory.clone(), external.as_ref());
        let (account, credentials) = made.await?;
        let text = serde_json::to_string(&credentials);
        let text = text.map_err(|_| Failure::new("the account cannot be written down"))?;
        let text = Secret::new(text);
        keep(acme, store, text.clone()).await;
        *known = Known::Account(directory, text);
        Ok(account)
    }

    /// The directory no longer knows the account: the next order makes another.
    pub(super) async fn forget(&self, directory: &str) {
        *self.known.lock().await = Known::Gone(directory.to_owned());
    }

    async fn calls(&self, acme: &Acme, files: &Arc<Files>) -> Result<Calls, Failure> {
        let Some(ca) = acme.ca.clone() else {
            return Ok(self.calls.clone());
        };
        let files = files.clone();
        // It waits for the disk.
        let made = tokio::task::spawn_blocking(move || {
            let text = files.read(&ca.0)?;
            let shown = ca.0.display();
            Calls::trusting(text.expose().as_bytes()).map_err(|why| format!("{shown}: {why}"))
        });
        let made = made
            .await
            .unwrap_or_else(|_| Err("acme.ca was not read".into()));
        made.map_err(|why| Failure::new(format!("acme.ca: {why}")))
    }
}

/// The account that the authority gave by other means, if it did.
fn external(acme: &Acme) -> Result<Option<ExternalAccountKey>, Failure> {
    let (Some(id), Some(key)) = (&acme.eab_key_id, &acme.eab_hmac_key) else {
        return Ok(None);
    };
    let key = BASE64_URL_SAFE_NO_PAD.decode(key.expose().trim_end_matches('='));
    let key = key.map_err(|_| Failure::new("acme.eab_hmac_key is no base64 for URLs"))?;
    Ok(Some(ExternalAccountKey::new(id.clone(), &key)))
}

async fn kept(acme: &Acme, store: &Arc<dyn Store>) -> Result<Option<Secret<String>>, Failure> {
    let found = with_rows(acme, store, |rows, directory| rows.account(directory)).await;
    match found {
        Some(Ok(Found::Kept(text))) => Ok(Some(text)),
        Some(Ok(Found::Nothing)) => Ok(None),
        Some(Ok(Found::Locked(why))) => Err(Failure::new(why)),
        Some(Err(error)) => Err(Failure::new(error.to_string())),
        None => Err(Failure::new("the account could not be looked up")),
    }
}

async fn keep(acme: &Acme, store: &Arc<dyn Store>, text: Secret<String>) {
    let done = with_rows(acme, store, move |rows, directory| {
        rows.keep_account(directory, &text)
    });
    if let Some(Err(error)) = done.await {
        log::error!("the account at the authority could not be kept: {error}");
    }
}

/// Does something with the rows, where that may wait for the disk.
async fn with_rows<T: Send + 'static>(
    acme: &Acme,
    store: &Arc<dyn Store>,
    work: impl FnOnce(&Rows<'_>, &str) -> Result<T, StoreError> + Send + 'static,
) -> Option<Result<T, StoreError>> {
    let (acme, store) = (acme.clone(), store.clone());
    let done = tokio::task::spawn_blocking(move || {
        let seal = seal(&acme);
        let rows = Rows {
            store: &*store,
            seal: seal.as_ref(),
        };
        work(&rows, acme.directory.as_str())
    });
    done.await.ok()
}
