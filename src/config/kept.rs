//! Resources as they are kept from one process to the next, and how they join a file.

use std::collections::HashSet;
use std::sync::Arc;

use tollgate_sdk::document::{Json, Node, Severity};

use super::candidate::Key;
use super::check::{check, place, sections, wrong_targets};
use super::kinds::ResourceKind;
use super::resource::{self, Mistake};
use super::set::{Owner, Resource, Set};

/// A resource as it is kept. It may hold secrets.
#[derive(Clone)]
pub struct Kept {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its name; of a registered target its id.
    pub name: String,
    /// Whose it is: a key's gateway, a target's upstream.
    pub gateway: Option<String>,
    /// The revision of its last change.
    pub revision: u64,
    /// What was typed.
    pub body: Json,
}

impl Kept {
    pub(super) fn of(resource: &Resource) -> Self {
        Self {
            kind: resource.kind(),
            name: resource.model.store_name(),
            gateway: resource.model.store_gateway(),
            revision: resource.revision,
            body: resource.typed.json(),
        }
    }
}

/// Adds to `set`, which is a file's, what the store has. What cannot be used is left out; it stays stored.
///
/// Returns why, resource by resource.
pub fn take_kept(set: &mut Set, stored: Vec<Kept>, before: Option<&Set>) -> Vec<String> {
    let mut told = Vec::new();
    for kept in stored {
        let kind = kept.kind;
        let word = kind.word();
        let name = match (kind, &kept.gateway) {
            (ResourceKind::Target, Some(upstream)) => format!("{upstream}/{}", kept.name),
            _ => kept.name.clone(),
        };
        if set.get(kind, &name).is_some() {
            let one = "the file has one of this name";
            told.push(format!("the stored {word} {name} is not used: {one}"));
            continue;
        }
        let known = before.and_then(|before| before.get(kind, &name));
        let same = known.filter(|r| r.owner == Owner::Api && r.revision == kept.revision);
        if let Some(known) = same {
            set.put(known.clone());
            continue;
        }
        let mut node = Node::of(&kept.body);
        let read = resource::identify(kind, &mut node, Some(&name));
        let read = read.and_then(|identity| resource::read(kind, &identity, &node, ""));
        match read {
            Ok(mut resource) => {
                resource.revision = kept.revision;
                set.put(Arc::new(resource));
            }
            Err(mistakes) => told.push(unusable(kind, &name, mistakes.first())),
        }
    }
    // A file by itself was checked when it was read.
    let any = |kind: &ResourceKind| set.all(*kind).iter().any(|r| r.owner == Owner::Api);
    if ResourceKind::ALL.iter().any(any) {
        told.extend(drop_wrong(set));
    }
    set.seal(before);
    told
}

/// Leaves out of the API's resources what cannot be true beside the rest, until nothing is wrong any more.
fn drop_wrong(set: &mut Set) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let mut wrong: HashSet<Key> = HashSet::new();
        let late = |_: ResourceKind, r: &Resource| r.owner == Owner::Api;
        for problem in check(set, &sections(set, late, &[]), &[]) {
            if problem.severity == Severity::Warning {
                continue;
            }
            let found = place(&problem.path);
            let found = found.and_then(|(kind, index, _)| Some((kind, set.all(kind).get(index)?)));
            let Some((kind, resource)) = found.filter(|(_, r)| r.owner == Owner::Api) else {
                continue;
            };
            if wrong.insert((kind, resource.name.clone())) {
                let mistake = Mistake::of(&problem, "");
                told.push(unusable(kind, &resource.name, Some(&mistake)));
            }
        }
        for (name, mistake) in wrong_targets(set, |_| false, late) {
            told.push(unusable(ResourceKind::Target, &name, Some(&mistake)));
            wrong.insert((ResourceKind::Target, name));
        }
        if wrong.is_empty() {
            return told;
        }
        set.remove(&wrong);
    }
}

fn unusable(kind: ResourceKind, name: &str, first: Option<&Mistake>) -> String {
    let first = first.map_or("", |mistake| mistake.message.as_str());
    format!("the stored {} {name} cannot be used: {first}", kind.word())
}
