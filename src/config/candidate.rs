//! A configuration that is to come: the present one with some resources put or taken away, read and held against the rest.
//!
//! Only what changed is read. Then the checks of a file run over all of it, those that changed last, so that they are blamed for what
//! cannot be true beside what was there. The present configuration is without mistakes, hence every mistake is the change's.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tollgate_sdk::document::{Json, Node, Problem, Quoted, Severity};

use super::check::{Broken, broken_at, check, named_by, nowhere, place, sections, wrong_targets};
use super::fates::{Action, Fate, created, updated};
use super::kept::Kept;
use super::kinds::{Model, ResourceKind};
use super::resource::{self, Identity, Mistake};
use super::sections::Sections;
use super::set::{Owner, Resource, Set};
use super::{certificates, references, trees};
use crate::model::{Name, Upstream};
use crate::tls::ReadPem;

/// Somebody who refers to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The resource that is named: `service a`.
    pub named: String,
    /// Who names it: `rule r1`.
    pub by: String,
}

/// Why a configuration cannot come into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// These mistakes are in it.
    Mistakes(Vec<Mistake>),
    /// Somebody refers to what is to go.
    InUse(Vec<Use>),
}

/// A resource that is put or taken away, and the place of its document.
struct Put {
    prefix: String,
    unchanged: bool,
}

/// Kind and name.
pub(super) type Key = (ResourceKind, Arc<str>);

/// A configuration that is to come.
pub struct Candidate<'b> {
    before: &'b Set,
    set: Set,
    put: BTreeMap<Key, Put>,
    gone: HashSet<Key>,
    broken: Vec<Broken>,
    /// Upstreams that targets with mistakes would join, each with the place of the target's document.
    strays: Vec<(Name, String)>,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

impl<'b> Candidate<'b> {
    /// The present one, with nothing changed yet.
    pub fn new(before: &'b Set) -> Self {
        Self {
            before,
            set: before.clone(),
            put: BTreeMap::new(),
            gone: HashSet::new(),
            broken: Vec::new(),
            strays: Vec::new(),
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Which resource a document is; `given` is what the address says of it. What is wrong with that is kept, as of everything.
    pub fn identify(
        &mut self,
        kind: ResourceKind,
        node: &mut Node,
        given: Option<&str>,
        prefix: &str,
    ) -> Option<Target> {
        let upstream = resource::joined(kind, node, given);
        let identity = resource::identify(kind, node, given);
        let wrong = match identity {
            Ok(identity) => return Some(Target(identity)),
            Err(wrong) => wrong,
        };
        let told = wrong.iter().any(|wrong| wrong.path == "upstream");
        if let Some(upstream) = upstream.filter(|_| !told) {
            self.strays.push((upstream, prefix.to_owned()));
        }
        for wrong in wrong {
            self.refuse(prefix, wrong);
        }
        None
    }

    /// Keeps the other mistakes in a document that does not say which resource it is.
    pub fn refuse_rest(&mut self, kind: ResourceKind, node: Node, prefix: &str) {
        let rest = resource::rest(kind, node.clone(), prefix);
        self.mistakes.extend(rest);
        self.broken.push(Broken {
            kind,
            name: None,
            node,
            prefix: prefix.to_owned(),
        });
    }

    /// Keeps a mistake in the document at `prefix`.
    pub fn refuse(&mut self, prefix: &str, mistake: Mistake) {
        let path = match (prefix, mistake.path.as_str()) {
            ("", path) | (path, "") => path.to_owned(),
            (prefix, path) => format!("{prefix}.{path}"),
        };
        self.mistakes.push(Mistake { path, ..mistake });
    }

    /// Makes or replaces a resource. Whether it is the configuration file's and would differ from what that says: then nothing was done.
    pub fn put(
        &mut self,
        kind: ResourceKind,
        target: &Target,
        mut node: Node,
        prefix: &str,
    ) -> Result<(), OfFile> {
        let name = target.0.name();
        if let Some(first) = self.put.get(&(kind, name.clone())) {
            let message = format!(
                "there is already a {} {} in {}; keep one of them",
                kind.word(),
                Quoted(&name),
                first.prefix
            );
            self.refuse(prefix, Mistake::new("name", message));
            return Ok(());
        }
        let mut put = Put {
            prefix: prefix.to_owned(),
            unchanged: false,
        };
        let old = self.before.get(kind, &name);
        if let Some(old) = old.filter(|old| old.owner == Owner::File) {
            put.unchanged = says_the_same(old, &target.0, &node);
            if !put.unchanged {
                return Err(OfFile);
            }
            self.put.insert((kind, name), put);
            return Ok(());
        }
        if let Some(old) = old {
            trees::keep_secrets(&mut node, &old.typed, &old.secrets);
        }
        match resource::read(kind, &target.0, &node, prefix) {
            Ok(new) => match old {
                Some(old) if old.model == new.model => put.unchanged = true,
                _ => self.set.put(Arc::new(new)),
            },
            Err(mistakes) => {
                self.mistakes.extend(mistakes);
                let (name, upstream) = match &target.0 {
                    Identity::Name(name) => (Some(name.clone()), None),
                    Identity::Target(upstream, _) => (None, Some(upstream)),
                };
                self.broken.push(Broken {
                    kind,
                    name,
                    node,
                    prefix: prefix.to_owned(),
                });
                if let Some(upstream) = upstream {
                    self.strays.push((upstream.clone(), prefix.to_owned()));
                }
            }
        }
        self.put.insert((kind, name), put);
        Ok(())
    }

    /// Takes a resource away, and with it the targets that were registered with it.
    pub fn delete(&mut self, kind: ResourceKind, name: &str) {
        let targets = self.before.all(ResourceKind::Target).iter();
        let joined = targets.filter(|target| match &target.model {
            Model::Target(registered) => {
                let pool = self.before.pool(registered.upstream.as_str());
                pool.is_some_and(|pool| pool.kind() == kind && &*pool.name == name)
            }
            _ => false,
        });
        let joined = joined.map(|target| (ResourceKind::Target, target.name.clone()));
        self.gone.extend(joined);
        self.gone.insert((kind, name.into()));
    }

    /// Upstreams that are there and become others: as they are, and as they are to be.
    pub fn other_upstreams(&self) -> Vec<(&'b Upstream, Arc<Upstream>)> {
        let put = { self.put.iter() }.filter(|(_, put)| !put.unchanged);
        let put = put.filter(|((kind, _), _)| *kind == ResourceKind::Upstream);
        let pair = |((kind, name), _): (&Key, &Put)| {
            let (before, after) = (self.before.get(*kind, name)?, self.set.get(*kind, name)?);
            match (&before.model, &after.model) {
                (Model::Upstream(before), Model::Upstream(after)) => {
                    Some((&**before, after.clone()))
                }
                _ => None,
            }
        };
        put.filter_map(pair).collect()
    }

    /// Whether it would be what is there.
    pub fn is_unchanged(&self) -> bool {
        self.gone.is_empty() && self.put.values().all(|put| put.unchanged)
    }

    /// What an author should look at in what was put.
    pub fn warnings(&self) -> &[Mistake] {
        &self.warnings
    }

    /// The mistakes in what was put, each document by itself.
    pub fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes
    }

    /// Holds everything against everything.
    ///
    /// # Errors
    /// [`Refused`], with all there is to say.
    pub fn check(&mut self) -> Result<(), Refused> {
        self.set.remove(&self.gone);
        self.used()?;
        let problems = self.problems();
        for problem in &problems {
            let Some(told) = self.told(problem) else {
                continue;
            };
            match problem.severity {
                Severity::Error => self.mistakes.push(told),
                Severity::Warning => self.warnings.push(told),
            }
        }
        self.check_targets();
        match self.mistakes.is_empty() {
            true => Ok(()),
            false => Err(Refused::Mistakes(std::mem::take(&mut self.mistakes))),
        }
    }

    /// Looks at the files that are named by what was put; `read` has the text of a file. Waits for the disk.
    ///
    /// # Errors
    /// [`Refused`], with all there is to say.
    pub fn check_files(&mut self, read: &ReadPem<'_>) -> Result<(), Refused> {
        let mut mistakes = Vec::new();
        for ((kind, name), put) in &self.put {
            if put.unchanged || !certificates::concerns(*kind) {
                continue;
            }
            if let Some(resource) = self.set.get(*kind, name) {
                let (wrong, doubtful) =
                    certificates::of(&resource.model, self.set.config(), &put.prefix, read);
                mistakes.extend(wrong);
                self.warnings.extend(doubtful);
            }
        }
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Refused::Mistakes(mistakes)),
        }
    }

    fn sections(&self) -> Sections<'_> {
        sections(&self.set, |kind, r| self.is_put(kind, r), &self.broken)
    }

    fn problems(&self) -> Vec<Problem> {
        check(&self.set, &self.sections(), &self.broken)
    }

    /// Refuses to take away what somebody refers to.
    fn used(&self) -> Result<(), Refused> {
        if self.gone.is_empty() {
            return Ok(());
        }
        let gone = self.gone.iter();
        let gone = gone.map(|(kind, name)| (kind.word(), &**name)).collect();
        let sections = self.sections();
        let set = &self.set;
        let uses = references::to(&gone, &sections, |entry| named_by(set, &self.broken, entry));
        let uses = uses.into_iter().map(|(kind, name, entry)| Use {
            named: format!("{kind} {name}"),
            by: match &entry.name {
                Some(by) => format!("{} {by}", entry.kind),
                None => entry.kind.to_owned(),
            },
        });
        let mut uses: Vec<Use> = uses.collect();
        uses.dedup();
        match uses.is_empty() {
            true => Ok(()),
            false => Err(Refused::InUse(uses)),
        }
    }

    /// A problem as whoever asked for the change finds it; none if it concerns only what was there before.
    fn told(&self, problem: &Problem) -> Option<Mistake> {
        let (kind, index, field) = place(&problem.path)?;
        let list = self.set.all(kind);
        let mut problem = problem.clone();
        problem.path = field.to_owned();
        let prefix = match list.get(index) {
            Some(resource) => match self.put.get(&(kind, resource.name.clone())) {
                Some(put) => put.prefix.clone(),
                None if problem.severity == Severity::Warning => return None,
                None => format!("{}[{}]", kind.word(), resource.name),
            },
            None => broken_at(&self.set, &self.broken, kind, index)?
                .prefix
                .clone(),
        };
        Some(Mistake::of(&problem, &prefix))
    }

    /// Registered targets: whose they are, and that nothing has two names.
    fn check_targets(&mut self) {
        let late = |_: ResourceKind, r: &Resource| self.is_put(ResourceKind::Target, r);
        // One that has mistakes of its own is there for targets to join all the same.
        let is_broken = |upstream: &Name| {
            let mut broken = self.broken.iter();
            broken.any(|broken| broken.name.as_ref() == Some(upstream))
        };
        let mut all = Vec::new();
        for (name, wrong) in wrong_targets(&self.set, is_broken, late) {
            let put = self.put.get(&(ResourceKind::Target, name.clone()));
            let prefix = put.map_or(format!("target[{name}]"), |put| put.prefix.clone());
            all.push((prefix, wrong));
        }
        for (upstream, prefix) in &self.strays {
            if self.set.pool(upstream.as_str()).is_none() && !is_broken(upstream) {
                all.push((prefix.clone(), nowhere(&self.set, upstream)));
            }
        }
        for (prefix, wrong) in all {
            self.refuse(&prefix, wrong);
        }
    }

    fn is_put(&self, kind: ResourceKind, resource: &Resource) -> bool {
        self.put.contains_key(&(kind, resource.name.clone()))
    }

    /// What becomes of every resource that was named.
    pub fn fates(&self) -> Vec<Fate> {
        let put = self.put.iter().map(|((kind, name), put)| {
            let (old, new) = (self.before.get(*kind, name), self.set.get(*kind, name));
            let action = match (old, put.unchanged) {
                (_, true) => Action::Unchanged,
                (Some(_), false) => Action::Update,
                (None, false) => Action::Create,
            };
            let fields = match action {
                Action::Create => new.map(|new| created(new)),
                Action::Update => old.zip(new).map(|(old, new)| updated(old, new)),
                Action::Unchanged | Action::Delete => None,
            };
            Fate {
                kind: *kind,
                name: name.clone(),
                action,
                fields: fields.unwrap_or_default(),
            }
        });
        let mut gone: Vec<&Key> = self.gone.iter().collect();
        gone.sort();
        let gone = gone.into_iter().map(|(kind, name)| Fate {
            kind: *kind,
            name: name.clone(),
            action: Action::Delete,
            fields: Vec::new(),
        });
        put.chain(gone).collect()
    }

    /// What is to be kept, and what is to be forgotten.
    pub fn kept(&self) -> (Vec<Kept>, Vec<Kept>) {
        let gone = { self.gone.iter() }.filter_map(|(kind, name)| self.before.get(*kind, name));
        let mut forget: Vec<Kept> = gone.map(|old| Kept::of(old)).collect();
        let mut keep = Vec::new();
        for (kind, name) in self.changed() {
            let Some(new) = self.set.get(kind, &name).map(|new| Kept::of(new)) else {
                continue;
            };
            let old = self.before.get(kind, &name).map(|old| Kept::of(old));
            // A key is known by its gateway, too.
            forget.extend(old.filter(|old| old.gateway != new.gateway));
            keep.push(new);
        }
        (keep, forget)
    }

    fn changed(&self) -> Vec<Key> {
        let put = self.put.iter().filter(|(_, put)| !put.unchanged);
        put.map(|(key, _)| key.clone()).collect()
    }

    /// The configuration, once it is stored under this revision.
    pub fn finish(mut self, revision: u64) -> Set {
        let changed = self.changed();
        self.set.stamp(&changed, revision);
        self.set.seal(Some(self.before));
        self.set
    }
}

/// Which resource a document is.
pub struct Target(Identity);

impl Target {
    /// The name by which a set knows it.
    pub fn name(&self) -> Arc<str> {
        self.0.name()
    }
}

/// The resource is the configuration file's, which alone may change it.
#[derive(Clone, Copy, Debug)]
pub struct OfFile;

/// Whether a document says what a resource of the file does, with or without its secrets.
fn says_the_same(old: &Resource, identity: &Identity, node: &Node) -> bool {
    let read = resource::read(old.kind(), identity, node, "");
    read.is_ok_and(|new| new.model == old.model) || Json::Object(old.model.fields()) == node.json()
}

/// The document that a merge patch makes of a resource: its fields as they are shown, of those with a default only what was typed or is patched.
pub fn patched(resource: &Resource, patch: &Json) -> Json {
    let typed = resource.typed_fields();
    let mut fields = resource.model.fields();
    fields.retain(|name, _| typed.get(name).is_some() || patch.get(name).is_some());
    let mut document = Json::Object(fields);
    trees::merge(&mut document, patch);
    document
}
