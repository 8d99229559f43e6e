//! The one road of a change: candidate → checked → stored → compiled → warmed → swapped → announced, one at a time.
//!
//! A change of the API, a key that rotates by itself and the file's reload all go by it. Nothing has happened unless all of it has; what was answered
//! is in force and on the disk.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tollgate_sdk::document::{Json, Node};
use tollgate_sdk::secret::Secret;

use super::{Control, keys, replacing};
use crate::config::{
    Candidate, Fate, Kept, Mistake, OfFile, Owner, Refused, ResourceKind, Set, Target, Use, patched,
};
use crate::store::{self, Store, StoreError};
use crate::tls::Files;

/// How long names of new targets may take to resolve before a change comes into force all the same.
const PATIENCE: Duration = Duration::from_secs(3);

/// One thing to be done.
pub struct Edit {
    /// The kind of the resource.
    pub kind: ResourceKind,
    /// Where its document stands: what paths of mistakes begin with.
    pub path: String,
    /// What is done.
    pub what: What,
}

/// What is done to a resource. A registered target's name is `upstream/id`.
pub enum What {
    /// It is made; there must be none of its name.
    Create(Node),
    /// It is made or replaced.
    Put {
        /// The name in the address, if there is one.
        name: Option<String>,
        /// What it says.
        node: Node,
    },
    /// Some of its fields are changed: a merge patch (RFC 7396).
    Patch {
        /// Its name.
        name: String,
        /// The patch.
        patch: Json,
    },
    /// A key gets another secret: its document is the gateway's own.
    Rotate {
        /// Its name.
        name: String,
        /// What it says.
        node: Node,
    },
    /// It is taken away.
    Delete {
        /// Its name.
        name: String,
    },
}

/// What whoever asks for a change takes to be the present state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Anything.
    #[default]
    Any,
    /// The resource is there.
    There,
    /// One of these is the configuration's revision or, of a change of one resource, that resource's.
    Revisions(Vec<u64>),
}

/// Who made a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The admin API.
    Api,
    /// A key that rotated by itself.
    Rotation,
    /// A service that is scaled.
    Scaling,
    /// Targets that others have taken the place of.
    Replacing,
}

impl Source {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Rotation => "rotation",
            Self::Scaling => "scaling",
            Self::Replacing => "replacing",
        }
    }
}

/// A change that is in force.
#[derive(Clone, Debug)]
pub struct Announced {
    /// Who made it.
    pub source: Source,
    /// The revision before it.
    pub before: u64,
    /// The revision in force.
    pub revision: u64,
    /// What became of each resource that was named.
    pub fates: Vec<Fate>,
}

/// What a change came to.
#[derive(Debug)]
pub struct Changed {
    /// The change. If it changes nothing, its revision is the one there was.
    pub announced: Arc<Announced>,
    /// The configuration with it.
    pub resources: Arc<Set>,
    /// Secrets of keys that were made, by name, this once.
    pub secrets: HashMap<Arc<str>, Secret<String>>,
    /// What an author should look at.
    pub warnings: Vec<Mistake>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// What was given is wrong.
    #[error("{}", listed(.0))]
    Invalid(Vec<Mistake>),
    /// There is one of this name already.
    #[error("there is already a {} \"{}\"", .0.word(), .1)]
    Exists(ResourceKind, String),
    /// There is none of this name.
    #[error("there is no {} \"{}\"", .0.word(), .1)]
    Missing(ResourceKind, String),
    /// It is the configuration file's.
    #[error("the {} \"{}\" stands in the configuration file, which alone may change it", .0.word(), .1)]
    OfFile(ResourceKind, String),
    /// A target stands in its upstream's own list.
    #[error("the target \"{1}\" stands in the list of {0}: change that")]
    Listed(String, String),
    /// Others refer to it.
    #[error("it is in use: {}; take it out there first", uses(.0))]
    InUse(Vec<Use>),
    /// Somebody else changed something meanwhile.
    #[error("the configuration is at revision {now}, not at the one expected: read it again")]
    Stale {
        /// The present revision.
        now: u64,
    },
    /// It could not be stored.
    #[error("{0}")]
    Store(StoreError),
    /// Its secret could not be put where its users look.
    #[error("its new secret cannot be written: {0}")]
    Unwritten(std::io::Error),
    /// Another process is about to take over: it will make changes, in a moment.
    #[error("another process is taking over, which will make changes in a moment")]
    HandingOver,
    /// The change broke down.
    #[error("the change could not be made")]
    Broken,
}

fn listed(mistakes: &[Mistake]) -> String {
    let told = { mistakes.iter() }.map(|m| format!("{}: {}", m.path, m.message));
    told.collect::<Vec<_>>().join("; ")
}

fn uses(uses: &[Use]) -> String {
    let told = { uses.iter() }.map(|found| format!("{} names {}", found.by, found.named));
    told.collect::<Vec<_>>().join(", ")
}

impl Control {
    /// Makes a change, all of it or nothing. It comes to its end also when whoever asks for it leaves: what is stored must come into force.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing has changed.
    pub async fn change(
        self: &Arc<Self>,
        edits: Vec<Edit>,
        expected: Expected,
    ) -> Result<Changed, ChangeError> {
        self.change_beside(edits, Vec::new(), expected).await
    }

    /// The same, and in the same transaction something that is kept beside the resources, of kinds that are none of theirs.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing has changed.
    pub async fn change_beside(
        self: &Arc<Self>,
        edits: Vec<Edit>,
        beside: Vec<store::Change>,
        expected: Expected,
    ) -> Result<Changed, ChangeError> {
        self.make(edits, beside, expected, Source::Api).await
    }

    /// Targets join and leave by themselves, for this reason.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing has changed.
    pub async fn change_targets(
        self: &Arc<Self>,
        edits: Vec<Edit>,
        source: Source,
    ) -> Result<Changed, ChangeError> {
        self.make(edits, Vec::new(), Expected::Any, source).await
    }

    async fn make(
        self: &Arc<Self>,
        edits: Vec<Edit>,
        beside: Vec<store::Change>,
        expected: Expected,
        source: Source,
    ) -> Result<Changed, ChangeError> {
        let control = self.clone();
        let done = tokio::spawn(async move {
            // Held to the end: one change at a time.
            let _tended = control.tended.lock().await;
            let present = control.resources();
            let asked = Asked::of(&present, edits, &expected)?;
            let mut asked = asked.with_files(&control.registry.tls)?;
            asked.beside = beside;
            control.commit(asked, source).await
        });
        done.await.unwrap_or(Err(ChangeError::Broken))
    }

    /// What a change would come to. Nothing is stored and no secret is made.
    ///
    /// # Errors
    /// [`ChangeError`], as of the change itself.
    pub fn plan(&self, edits: Vec<Edit>, expected: &Expected) -> Result<Changed, ChangeError> {
        let present = self.resources();
        let asked = Asked::of(&present, edits, expected)?;
        let asked = asked.with_files(&self.registry.tls)?;
        Ok(Changed {
            announced: asked.announced(Source::Api, present.revision),
            warnings: asked.candidate.warnings().to_vec(),
            resources: present.clone(),
            secrets: HashMap::new(),
        })
    }

    /// The mistakes in documents, each by itself: for when there are others that are no resources, so that who refers to what cannot be told.
    pub fn mistakes(&self, edits: Vec<Edit>) -> Vec<Mistake> {
        let present = self.resources();
        let mut asked = Asked::begin(&present);
        for edit in edits {
            // Whose a resource is does not matter here.
            let _ = asked.add(edit);
        }
        asked.candidate.into_mistakes()
    }

    /// Stores a candidate and brings it into force. Whoever calls it holds the lock.
    pub(super) async fn commit(
        &self,
        asked: Asked<'_>,
        source: Source,
    ) -> Result<Changed, ChangeError> {
        let Asked {
            candidate,
            secrets,
            present,
            beside,
        } = &asked;
        let warnings = candidate.warnings().to_vec();
        if candidate.is_unchanged() && beside.is_empty() {
            return Ok(Changed {
                announced: asked.announced(source, present.revision),
                resources: self.resources(),
                secrets: HashMap::new(),
                warnings,
            });
        }
        if self.is_still() {
            return Err(ChangeError::HandingOver);
        }
        let changes = [changes(candidate.kept()), beside.clone()].concat();
        let (store, least) = (self.store.clone(), present.revision);
        // It waits for the disk.
        let stored = tokio::task::spawn_blocking(move || keep(&*store, &changes, least)).await;
        let revision = stored.map_err(|_| ChangeError::Broken)?;
        let revision = revision.map_err(ChangeError::Store)?;
        let announced = asked.announced(source, revision);
        let secrets = secrets.clone();
        self.bring(asked.candidate.finish(revision), PATIENCE).await;
        self.announce_change(&announced);
        Ok(Changed {
            announced,
            resources: self.resources(),
            secrets,
            warnings,
        })
    }
}

/// What is asked for, read and checked.
pub(super) struct Asked<'p> {
    present: &'p Set,
    candidate: Candidate<'p>,
    secrets: HashMap<Arc<str>, Secret<String>>,
    /// What is kept beside them.
    beside: Vec<store::Change>,
}

impl<'p> Asked<'p> {
    fn begin(present: &'p Set) -> Self {
        Asked {
            present,
            candidate: Candidate::new(present),
            secrets: HashMap::new(),
            beside: Vec::new(),
        }
    }

    pub(super) fn of(
        present: &'p Set,
        edits: Vec<Edit>,
        expected: &Expected,
    ) -> Result<Self, ChangeError> {
        let mut asked = Self::begin(present);
        expect(present, &edits, expected)?;
        for edit in edits {
            asked.add(edit)?;
        }
        for edit in replacing::edits(&asked.candidate, present) {
            asked.add(edit)?;
        }
        asked.candidate.check().map_err(refusal)?;
        Ok(asked)
    }

    /// Looks at the files that it names. Waits for the disk.
    fn with_files(mut self, files: &Files) -> Result<Self, ChangeError> {
        let read = |path: &Path| files.read(path);
        self.candidate.check_files(&read).map_err(refusal)?;
        Ok(self)
    }

    fn add(&mut self, edit: Edit) -> Result<(), ChangeError> {
        let Edit { kind, path, what } = edit;
        match what {
            What::Create(node) => self.put(kind, None, node, &path, true),
            What::Put { name, node } => self.put(kind, name.as_deref(), node, &path, false),
            What::Patch { name, patch } => {
                let Some(old) = self.present.get(kind, &name) else {
                    return Err(ChangeError::Missing(kind, name));
                };
                if old.owner == Owner::File {
                    return Err(ChangeError::OfFile(kind, name));
                }
                let node = Node::of(&patched(old, &patch));
                self.put(kind, Some(&name), node, &path, false)
            }
            What::Rotate { name, mut node } => {
                let target = self.candidate.identify(kind, &mut node, Some(&name), &path);
                let put = target.map(|target| self.candidate.put(kind, &target, node, &path));
                put.unwrap_or(Ok(()))
                    .map_err(|OfFile| ChangeError::OfFile(kind, name))
            }
            What::Delete { name } => match self.present.get(kind, &name) {
                Some(old) if old.owner == Owner::File => Err(ChangeError::OfFile(kind, name)),
                Some(_) => {
                    self.candidate.delete(kind, &name);
                    Ok(())
                }
                None => Err(ChangeError::Missing(kind, name)),
            },
        }
    }

    fn put(
        &mut self,
        kind: ResourceKind,
        given: Option<&str>,
        mut node: Node,
        path: &str,
        new: bool,
    ) -> Result<(), ChangeError> {
        let target = self.candidate.identify(kind, &mut node, given, path);
        let name = target.as_ref().map(Target::name);
        let old = { name.as_deref() }.and_then(|name| self.present.get(kind, name));
        if let (true, Some(old)) = (new, old) {
            return Err(ChangeError::Exists(kind, old.name.to_string()));
        }
        if kind == ResourceKind::Key {
            match keys::prepare(&mut node, old.and_then(|old| old.model.key())) {
                Ok(secret) => self.secrets.extend(name.clone().zip(secret)),
                Err(wrong) => self.candidate.refuse(path, wrong),
            }
        }
        let (Some(target), Some(name)) = (target, name) else {
            self.candidate.refuse_rest(kind, node, path);
            return Ok(());
        };
        let put = self.candidate.put(kind, &target, node, path);
        put.map_err(|OfFile| ChangeError::OfFile(kind, name.to_string()))
    }

    fn announced(&self, source: Source, revision: u64) -> Arc<Announced> {
        Arc::new(Announced {
            source,
            before: self.present.revision,
            revision,
            fates: self.candidate.fates(),
        })
    }
}

fn refusal(refused: Refused) -> ChangeError {
    match refused {
        Refused::Mistakes(mistakes) => ChangeError::Invalid(mistakes),
        Refused::InUse(uses) => ChangeError::InUse(uses),
    }
}

/// Whether the present state is what was expected.
fn expect(present: &Set, edits: &[Edit], expected: &Expected) -> Result<(), ChangeError> {
    let one = match edits {
        [edit] => match &edit.what {
            What::Patch { name, .. } | What::Rotate { name, .. } | What::Delete { name } => {
                Some((edit.kind, name))
            }
            What::Put { name, .. } => name.as_ref().map(|name| (edit.kind, name)),
            What::Create(_) => None,
        },
        _ => None,
    };
    let one = one.map(|(kind, name)| present.get(kind, name));
    let holds = match expected {
        Expected::Any => true,
        Expected::There => one.is_none_or(|resource| resource.is_some()),
        Expected::Revisions(revisions) => {
            let own = one.flatten().map(|resource| resource.revision);
            revisions.contains(&present.revision) || own.is_some_and(|own| revisions.contains(&own))
        }
    };
    match holds {
        true => Ok(()),
        false => Err(ChangeError::Stale {
            now: present.revision,
        }),
    }
}

fn changes((keep, forget): (Vec<Kept>, Vec<Kept>)) -> Vec<store::Change> {
    let forget = forget.into_iter().map(|kept| store::Change::Delete {
        kind: kept.kind.word().to_owned(),
        name: kept.name,
        gateway: kept.gateway,
    });
    let keep = keep.into_iter().map(|kept| store::Change::Put {
        kind: kept.kind.word().to_owned(),
        name: kept.name,
        gateway: kept.gateway,
        body: kept.body,
    });
    forget.chain(keep).collect()
}

/// Stores changes under a revision after `least`, which is in force.
fn keep(store: &dyn Store, changes: &[store::Change], least: u64) -> Result<u64, StoreError> {
    if store.revision()? < least {
        // A revision came into force while the disk was not there.
        store.advance(least)?;
    }
    store.apply(changes, None)
}

/// Everything that is kept.
pub(super) fn kept(store: &dyn Store) -> Result<Vec<Kept>, StoreError> {
    let mut all = Vec::new();
    for kind in ResourceKind::ALL {
        let stored = store.list(kind.word())?.into_iter();
        all.extend(stored.map(|resource| Kept {
            kind,
            name: resource.name,
            gateway: resource.gateway,
            revision: resource.revision,
            body: resource.body,
        }));
    }
    Ok(all)
}
