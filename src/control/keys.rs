//! Keys: their secrets, which are made here, rotated, and shown once to whoever made them; and what is done about keys by itself.
//!
//! They are changed by the road of every resource (`change.rs`). Of a secret only the hash is kept.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tollgate_sdk::document::{Document, FromNode, Json, JsonTable, Node, json};
use tollgate_sdk::secret::Secret;

use super::change::Asked;
use super::events::Events;
use super::{ChangeError, Changed, Control, Edit, Expected, Source, What};
use crate::config::{Mistake, Owner, Resource, ResourceKind, Set};
use crate::model::{Key, KeyHash, Moment, Name, Previous};

/// How many secrets of a key live side by side.
const PREVIOUS: usize = 8;
/// After how long a rotation that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// A key, and its secret this once.
#[derive(Debug)]
pub struct Issued {
    /// What the change came to.
    pub changed: Changed,
    /// What its users send.
    pub secret: Secret<String>,
}

/// What is remembered of keys between two looks at them.
#[derive(Default)]
pub(super) struct Tended {
    /// Keys of which it was told that they end soon, and when.
    told: HashSet<(Name, SystemTime)>,
    /// Keys that could not be rotated by themselves, and when that was.
    failed: HashMap<Name, Instant>,
}

/// What a key's secret leaves behind; only the gateway says it.
const OURS: [&str; 4] = ["hash", "id", "previous", "rotated_at"];

/// Puts into a key's document what is not its sender's to say: a secret for a new one, returned this once, and for one that is there what it has.
pub(super) fn prepare(
    node: &mut Node,
    old: Option<&Arc<Key>>,
) -> Result<Option<Secret<String>>, Mistake> {
    let Json::Object(mut body) = node.json() else {
        return Ok(None);
    };
    let secret = body.remove("secret").filter(|given| !given.is_null());
    let hash = body.remove("hash").filter(|hash| !hash.is_null());
    for field in OURS {
        body.remove(field);
    }
    let own = old.map(|old| old.value_fields());
    let made = match (&own, &hash) {
        (Some(own), _) => {
            let traces = OURS.iter().filter_map(|field| own.get_key_value(*field));
            body.extend(traces.map(|(field, value)| (field.clone(), value.clone())));
            None
        }
        (None, Some(hash)) => {
            body.insert("hash".into(), hash.clone());
            body.insert("rotated_at".into(), now().value());
            None
        }
        (None, None) => Some(give_secret(&mut body)),
    };
    *node = Node::of(&body.into());
    let of_own = own.as_ref().and_then(|own| own.get("hash"));
    if secret.is_some() {
        let message = "the gateway makes the secrets of keys; leave it out or, for a new key, give the `hash` of one";
        return Err(Mistake::new("secret", message));
    }
    if own.is_some() && hash.is_some_and(|hash| Some(&hash) != of_own) {
        let message = "the secret of a key changes by a rotation; leave the hash out";
        return Err(Mistake::new("hash", message));
    }
    Ok(made)
}

/// Gives a key a new secret, of which its document gets the traces.
fn give_secret(body: &mut JsonTable) -> Secret<String> {
    let (id, secret) = new_secret();
    let hash = KeyHash::of(secret.expose().as_bytes());
    body.insert("hash".into(), hash.value());
    body.insert("id".into(), json!(id));
    body.insert("rotated_at".into(), now().value());
    secret
}

impl Control {
    /// Gives a key another secret. The old one opens it for `grace` more, if not given for the key's own.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing has changed.
    pub async fn rotate_key(
        self: &Arc<Self>,
        name: &str,
        grace: Option<Duration>,
        expected: Expected,
    ) -> Result<Issued, ChangeError> {
        let (control, name) = (self.clone(), name.to_owned());
        // What is stored must come into force, also when whoever asks for it leaves.
        let done = tokio::spawn(async move {
            let _tended = control.tended.lock().await;
            let rotation = Rotation {
                name: &name,
                grace,
                expected,
                to: None,
                source: Source::Api,
            };
            control.rotate(rotation).await
        });
        done.await.unwrap_or(Err(ChangeError::Broken))
    }

    /// Nothing comes into force that is not there for its users to read. Whoever calls it holds the lock.
    async fn rotate(&self, rotation: Rotation<'_>) -> Result<Issued, ChangeError> {
        let present = self.resources();
        let (old, key) = own_key(&present, rotation.name)?;
        let (body, secret) = rotated(old, key, rotation.grace);
        let written = rotation
            .to
            .map(|to| Written::beside(to, &secret))
            .transpose();
        let written = written.map_err(ChangeError::Unwritten)?;
        let asked = Asked::rotated(&present, rotation.name, body, &rotation.expected)?;
        let changed = self.commit(asked, rotation.source).await?;
        if let Some(Err(error)) = written.map(Written::keep) {
            let now = self.resources();
            let back = Asked::rotated(&now, rotation.name, old.body(), &Expected::Any)?;
            self.commit(back, rotation.source).await?;
            return Err(ChangeError::Unwritten(error));
        }
        Ok(Issued { changed, secret })
    }

    /// Rotates the keys whose time has come by themselves, and puts their secrets where their users look. Tells of those that end soon.
    pub async fn tend_keys(&self) {
        let present = SystemTime::now();
        let due: Vec<Arc<Key>> = {
            let mut tended = self.tended.lock().await;
            let set = self.resources();
            tended.tell_of_ends(&set, present, &self.events);
            let keys = set.all(ResourceKind::Key).iter();
            let due = keys.filter(|key| tended.is_due(key, present));
            due.filter_map(|key| key.model.key().cloned()).collect()
        };
        for key in due {
            let (name, Some(file)) = (key.name.as_str(), &key.rotate_to) else {
                continue;
            };
            let mut tended = self.tended.lock().await;
            let rotation = Rotation {
                name,
                grace: None,
                expected: Expected::Any,
                to: Some(Path::new(file)),
                source: Source::Rotation,
            };
            match self.rotate(rotation).await {
                Ok(_) => log::info!("the key {name} has a new secret"),
                Err(error) => {
                    log::error!("the key {name} could not be rotated and goes on: {error}");
                    tended.failed.insert(key.name.clone(), Instant::now());
                }
            }
        }
    }
}

/// A rotation that is to be made.
struct Rotation<'r> {
    name: &'r str,
    grace: Option<Duration>,
    expected: Expected,
    /// The file that gets the new secret.
    to: Option<&'r Path>,
    source: Source,
}

impl<'p> Asked<'p> {
    /// A key that says this.
    fn rotated(
        present: &'p Set,
        name: &str,
        body: Json,
        expected: &Expected,
    ) -> Result<Self, ChangeError> {
        let edit = Edit {
            kind: ResourceKind::Key,
            path: String::new(),
            what: What::Rotate {
                name: name.to_owned(),
                node: Node::of(&body),
            },
        };
        Self::of(present, vec![edit], expected)
    }
}

fn own_key<'s>(set: &'s Set, name: &str) -> Result<(&'s Resource, &'s Key), ChangeError> {
    let kind = ResourceKind::Key;
    let found = set.get(kind, name);
    let found = found.and_then(|resource| Some((&**resource, &**resource.model.key()?)));
    match found {
        Some((resource, _)) if resource.owner == Owner::File => {
            Err(ChangeError::OfFile(kind, name.to_owned()))
        }
        Some(found) => Ok(found),
        None => Err(ChangeError::Missing(kind, name.to_owned())),
    }
}

/// The document of a key with another secret.
fn rotated(old: &Resource, key: &Key, grace: Option<Duration>) -> (Json, Secret<String>) {
    let present = SystemTime::now();
    let longest = Duration::from_secs(366 * 86_400);
    let until = present + grace.unwrap_or(key.grace).min(longest);
    let mut previous = key.previous.clone();
    previous.retain(|old| old.until.time() > present);
    if let (Some(hash), Some(until)) = (key.hash, Moment::at(until))
        && until.time() > present
    {
        previous.push(Previous { hash, until });
    }
    let spare = previous.len().saturating_sub(PREVIOUS);
    previous.drain(..spare);
    let mut body = match old.body() {
        Json::Object(body) => body,
        _ => JsonTable::new(),
    };
    body.insert("previous".into(), previous.value());
    let secret = give_secret(&mut body);
    (body.into(), secret)
}

impl Tended {
    /// Whether it is time for a key to be rotated by itself.
    fn is_due(&self, resource: &Resource, present: SystemTime) -> bool {
        let Some(key) = resource.model.key() else {
            return false;
        };
        let since = key.rotated_at.map(Moment::time);
        let every = key.rotate_every.zip(since);
        let due = |(every, since): (Duration, SystemTime)| {
            since.checked_add(every).is_some_and(|at| at <= present)
        };
        every.is_some_and(due)
            && key.expires_at.is_none_or(|end| end.time() > present)
            && resource.owner == Owner::Api
            && { self.failed.get(&key.name) }.is_none_or(|at| at.elapsed() >= AGAIN)
    }

    /// A line in the log for every key that ends soon, once.
    fn tell_of_ends(&mut self, set: &Set, present: SystemTime, events: &Events) {
        let keys = set.all(ResourceKind::Key).iter();
        for key in keys.filter_map(|resource| resource.model.key()) {
            let Some(end) = key.expires_at.map(Moment::time) else {
                continue;
            };
            let soon = end
                .checked_sub(key.warn_before)
                .is_none_or(|at| at <= present);
            if soon && self.told.insert((key.name.clone(), end)) {
                events.tell_of_end(key, end);
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
