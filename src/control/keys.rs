//! Keys that are made, rotated and revoked while the gateway serves.
//!
//! Each change is read and checked, stored, compiled and swapped in, in this order and one at a time, so that whoever has our answer finds it in force
//! and it outlives the process. Keys of the file are the file's: they are not changed here. Of a secret only the hash is kept; it is shown
//! once, to whoever made it.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tollgate_sdk::document::{Document, FromNode, Json};
use tollgate_sdk::secret::Secret;

use super::{Change, ChangeError, Control, State};
use crate::config;
use crate::model::{Key, KeyHash, Moment, Name, Previous};

/// How many secrets of a key live side by side.
const PREVIOUS: usize = 8;
/// After how long a rotation that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// A key, and its secret this once.
#[derive(Debug)]
pub struct Issued {
    /// The key as it is kept.
    pub key: Key,
    /// What its users send.
    pub secret: Secret<String>,
}

impl Control {
    /// All keys, those of the file before the others, each with whether it is the file's.
    pub async fn keys(&self) -> Vec<(Arc<Key>, bool)> {
        let state = self.state.lock().await;
        let own = |key: &Key| state.of_file.contains(&key.name);
        let keys = state.config.keys.iter();
        keys.map(|key| (key.clone(), own(key))).collect()
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing has changed.
    pub async fn create_key(&self, mut body: Json) -> Result<Issued, ChangeError> {
        let mut state = self.state.lock().await;
        let (id, secret) = new_secret();
        if let Some(fields) = body.as_object_mut() {
            // These are ours to say.
            for name in ["secret", "previous"] {
                fields.remove(name);
            }
            let hash = KeyHash::of(secret.expose().as_bytes());
            fields.insert("hash".into(), hash.value());
            fields.insert("id".into(), json!(id));
            fields.insert("rotated_at".into(), now().value());
        }
        let key = config::read_key(&body, &state.config).map_err(ChangeError::Invalid)?;
        if state.find(&key.name).is_some() {
            return Err(ChangeError::Exists(key.name));
        }
        state.config.keys.push(Arc::new(key.clone()));
        match self.keep_key(&mut state, &key).await {
            Ok(()) => Ok(Issued { key, secret }),
            Err(error) => {
                state.config.keys.pop();
                Err(error)
            }
        }
    }

    /// Gives a key another secret. The old one opens it for `grace` more, if not given for the key's own.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing has changed.
    pub async fn rotate_key(
        &self,
        name: &str,
        grace: Option<Duration>,
    ) -> Result<Issued, ChangeError> {
        let mut state = self.state.lock().await;
        self.rotate(&mut state, name, grace, None).await
    }

    /// The same; the new secret is also put into the file `to`. Nothing comes into force that is not there for its users to read.
    async fn rotate(
        &self,
        state: &mut State,
        name: &str,
        grace: Option<Duration>,
        to: Option<&Path>,
    ) -> Result<Issued, ChangeError> {
        let (index, mut key) = state.own_key(name)?;
        let old = key.clone();
        let (id, secret) = new_secret();
        let present = SystemTime::now();
        let until = present
            + grace
                .unwrap_or(key.grace)
                .min(Duration::from_secs(366 * 86_400));
        key.previous.retain(|old| old.until.time() > present);
        if let (Some(hash), Some(until)) = (key.hash, Moment::at(until))
            && until.time() > present
        {
            key.previous.push(Previous { hash, until });
        }
        let spare = key.previous.len().saturating_sub(PREVIOUS);
        key.previous.drain(..spare);
        key.hash = Some(KeyHash::of(secret.expose().as_bytes()));
        key.id = Some(id);
        key.rotated_at = Some(now());
        let written = to.map(|to| Written::beside(to, &secret)).transpose();
        let written = written.map_err(ChangeError::Unwritten)?;
        self.replace_key(state, index, key.clone()).await?;
        if let Some(Err(error)) = written.map(Written::keep) {
            self.replace_key(state, index, old).await?;
            return Err(ChangeError::Unwritten(error));
        }
        Ok(Issued { key, secret })
    }

    /// Takes a key away, with all its secrets.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing has changed.
    pub async fn revoke_key(&self, name: &str) -> Result<(), ChangeError> {
        let mut state = self.state.lock().await;
        let (index, key) = state.own_key(name)?;
        let change = Change::Delete {
            kind: "key".into(),
            name: key.name.to_string(),
            gateway: Some(key.gateway.to_string()),
        };
        self.keep(&mut state, change).await?;
        state.config.keys.remove(index);
        self.swap(&mut state);
        Ok(())
    }

    /// Rotates the keys whose time has come by themselves, and puts their secrets where their users look. Tells of those that end soon.
    pub async fn tend_keys(&self) {
        let present = SystemTime::now();
        let due: Vec<Arc<Key>> = {
            let mut state = self.state.lock().await;
            state.tell_of_ends(present);
            let keys = state.config.keys.iter();
            keys.filter(|key| state.is_due(key, present))
                .cloned()
                .collect()
        };
        for key in due {
            let (name, Some(file)) = (key.name.as_str(), &key.rotate_to) else {
                continue;
            };
            let mut state = self.state.lock().await;
            let file = Some(Path::new(file));
            match self.rotate(&mut state, name, None, file).await {
                Ok(_) => log::info!("the key {name} has a new secret"),
                Err(error) => {
                    log::error!("the key {name} could not be rotated and goes on: {error}");
                    state.failed.insert(key.name.clone(), Instant::now());
                }
            }
        }
    }

    async fn replace_key(
        &self,
        state: &mut State,
        index: usize,
        key: Key,
    ) -> Result<(), ChangeError> {
        let Some(place) = state.config.keys.get_mut(index) else {
            return Err(ChangeError::Missing(key.name.to_string()));
        };
        let old = std::mem::replace(place, Arc::new(key.clone()));
        let kept = self.keep_key(state, &key).await;
        if let (Err(_), Some(place)) = (&kept, state.config.keys.get_mut(index)) {
            *place = old;
        }
        kept
    }

    async fn keep_key(&self, state: &mut State, key: &Key) -> Result<(), ChangeError> {
        let change = Change::Put {
            kind: "key".into(),
            name: key.name.to_string(),
            gateway: Some(key.gateway.to_string()),
            body: key.value_fields().into(),
        };
        self.keep(state, change).await?;
        self.swap(state);
        Ok(())
    }

    async fn keep(&self, state: &mut State, change: Change) -> Result<(), ChangeError> {
        if self.is_still() {
            return Err(ChangeError::HandingOver);
        }
        let store = self.store.clone();
        // It waits for the disk.
        let done = tokio::task::spawn_blocking(move || store.apply(&[change], None)).await;
        done.map_err(|_| ChangeError::Broken)?
            .map_err(ChangeError::Store)?;
        state.revision += 1;
        Ok(())
    }
}

impl State {
    /// Adds what the store has to what the file says. What cannot be read any more, or is the file's now, is left out and told of; it stays stored.
    pub(super) fn take_stored(&mut self, stored: Vec<crate::store::Resource>) {
        for resource in stored {
            let name = &resource.name;
            match config::read_key(&resource.body, &self.config) {
                Ok(key) if self.find(&key.name).is_some() => {
                    log::warn!("the stored key {name} is not used: the file has one of this name");
                }
                Ok(key) => self.config.keys.push(Arc::new(key)),
                Err(mistakes) => {
                    let first = mistakes.first().map_or("", |mistake| &mistake.message);
                    log::error!("the stored key {name} cannot be used: {first}");
                }
            }
        }
    }

    fn find(&self, name: &Name) -> Option<usize> {
        self.config.keys.iter().position(|key| key.name == *name)
    }

    fn own_key(&self, name: &str) -> Result<(usize, Key), ChangeError> {
        let keys = &self.config.keys;
        let found = keys
            .iter()
            .enumerate()
            .find(|(_, key)| key.name.as_str() == name);
        let (index, key) = found.ok_or_else(|| ChangeError::Missing(name.to_owned()))?;
        match self.of_file.contains(&key.name) {
            true => Err(ChangeError::OfFile(key.name.clone())),
            false => Ok((index, Key::clone(key))),
        }
    }

    /// Whether it is time for a key to be rotated by itself.
    fn is_due(&self, key: &Key, present: SystemTime) -> bool {
        let since = key.rotated_at.map(Moment::time);
        let every = key.rotate_every.zip(since);
        let due = |(every, since): (Duration, SystemTime)| {
            since.checked_add(every).is_some_and(|at| at <= present)
        };
        every.is_some_and(due)
            && key.expires_at.is_none_or(|end| end.time() > present)
            && !self.of_file.contains(&key.name)
            && { self.failed.get(&key.name) }.is_none_or(|at| at.elapsed() >= AGAIN)
    }

    /// A line in the log for every key that ends soon, once.
    fn tell_of_ends(&mut self, present: SystemTime) {
        for key in &self.config.keys {
            let Some(end) = key.expires_at.map(Moment::time) else {
                continue;
            };
            let soon = end
                .checked_sub(key.warn_before)
                .is_none_or(|at| at <= present);
            if soon && self.told.insert((key.name.clone(), end)) {
                let when = Moment::at(end).map_or(String::new(), |end| end.value().to_string());
                let gateway = &key.gateway;
                log::warn!(
                    "the key {} of the gateway {gateway} ends at {when}",
                    key.name
                );
            }
        }
    }
}

fn now() -> Moment {
    Moment::at(SystemTime::now()).unwrap_or(Moment::EPOCH)
}

/// A new secret, and the part of it that may be seen.
fn new_secret() -> (String, Secret<String>) {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let id = hex(&rand::random::<[u8; 6]>());
    let secret = Secret::new(format!("tg_{id}_{}", hex(&rand::random::<[u8; 32]>())));
    (id, secret)
}

/// A secret that is written, but not yet where its users look.
struct Written<'p> {
    to: &'p Path,
    beside: PathBuf,
    kept: bool,
}

impl<'p> Written<'p> {
    /// Writes it beside its place, where only its owner reads it.
    fn beside(to: &'p Path, secret: &Secret<String>) -> io::Result<Self> {
        let mut name = OsString::from(".");
        name.push(to.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        name.push(".new");
        let written = Self {
            to,
            beside: to.with_file_name(name),
            kept: false,
        };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&written.beside)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(secret.expose().as_bytes())?;
        file.sync_all()?;
        Ok(written)
    }

    /// Puts it in its place: whoever reads at this moment gets the old or the new one.
    fn keep(mut self) -> io::Result<()> {
        fs::rename(&self.beside, self.to)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // It opens nothing.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

impl std::fmt::Display for ChangeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ChangeError::Invalid(mistakes) => {
                let told = mistakes
                    .iter()
                    .map(|m| format!("{}: {}", m.path, m.message));
                f.write_str(&told.collect::<Vec<_>>().join("; "))
            }
            ChangeError::Exists(name) => write!(f, "there is already a key \"{name}\""),
            ChangeError::Missing(name) => write!(f, "there is no key \"{name}\""),
            ChangeError::OfFile(name) => write!(
                f,
                "\"{name}\" stands in the configuration file, which alone may change it"
            ),
            ChangeError::Store(error) => error.fmt(f),
            ChangeError::Unwritten(error) => {
                write!(f, "its new secret cannot be written: {error}")
            }
            ChangeError::HandingOver => {
                f.write_str("another process is taking over, which will make changes in a moment")
            }
            ChangeError::Broken => f.write_str("the change could not be made"),
        }
    }
}
