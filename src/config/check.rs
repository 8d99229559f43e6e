//! The checks of a file over resources that came one by one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tollgate_sdk::document::{At, FromNode, Node, Problem, Quoted, suggest};

use super::kinds::{Model, ResourceKind};
use super::resource::{Mistake, reading};
use super::sections::{Entry, Sections};
use super::set::{Resource, Set, id_of, targets_of};
use super::{conflicts, references};
use crate::model::{Name, Plugin, Target, TargetId, TargetUrl, unfit};

/// A resource whose document has mistakes: there for others to refer to.
pub(super) struct Broken {
    pub(super) kind: ResourceKind,
    /// None if it does not say it, and of targets.
    pub(super) name: Option<Name>,
    pub(super) node: Node,
    pub(super) prefix: String,
}

impl Broken {
    /// The services that its plugins name, as far as those can be read.
    fn named(&self) -> Vec<(usize, String)> {
        let plugins = self.node.entry("plugins").and_then(Node::as_list);
        let read = |(index, node)| {
            let (plugin, _) = reading(|r| Plugin::read(node, &At::ROOT, r));
            Some((index, plugin?))
        };
        let plugins = plugins.unwrap_or_default().iter().enumerate();
        let read: Vec<(usize, Plugin)> = plugins.filter_map(read).collect();
        references::named_by(read.iter().map(|(index, plugin)| (*index, plugin)))
    }
}

/// The resources of a set for the checks, those of a kind for which `is_late` says so after the others.
pub(super) fn sections<'s>(
    set: &'s Set,
    is_late: impl Fn(ResourceKind, &Resource) -> bool,
    broken: &'s [Broken],
) -> Sections<'s> {
    let mut entries = Vec::new();
    for kind in ResourceKind::ALL {
        if kind == ResourceKind::Target {
            continue;
        }
        let own = broken.iter().filter(|broken| broken.kind == kind);
        let names: HashSet<&str> = own
            .filter_map(|broken| Some(broken.name.as_ref()?.as_str()))
            .collect();
        let replaced = |resource: &Resource| names.contains(&*resource.name);
        let list = set.all(kind);
        let entry = |(index, resource): (usize, &'s Arc<Resource>)| Entry {
            kind: kind.word(),
            index,
            node: &resource.typed,
            name: Name::new(&resource.name).ok(),
        };
        let all = || list.iter().enumerate();
        entries.extend(all().filter(|(_, r)| !is_late(kind, r)).map(entry));
        let late = all().filter(|(_, r)| is_late(kind, r) && !replaced(r));
        entries.extend(late.map(entry));
        let broken = broken.iter().filter(|broken| broken.kind == kind);
        entries.extend(broken.enumerate().map(|(index, broken)| Entry {
            kind: kind.word(),
            index: list.len() + index,
            node: &broken.node,
            name: broken.name.clone(),
        }));
    }
    Sections::new(entries, None)
}

/// The checks of a file. What is asked of keys leaves out those that have mistakes.
pub(super) fn check(set: &Set, sections: &Sections<'_>, broken: &[Broken]) -> Vec<Problem> {
    let ((), r) = reading(|r| {
        references::check(sections, r);
        conflicts::check(sections, r);
        let key = |entry: &Entry<'_>| {
            let key = set.all(ResourceKind::Key).get(entry.index)?;
            key.model.key().map(|key| &**key)
        };
        conflicts::secrets(sections, key, r);
        references::of_plugins(sections, |entry| named_by(set, broken, entry), r);
    });
    r.problems
}

/// The services that an entry's plugins name, each with the place of its plugin in the chain.
pub(super) fn named_by(set: &Set, broken: &[Broken], entry: &Entry<'_>) -> Vec<(usize, String)> {
    let Some(kind) = ResourceKind::of(entry.kind) else {
        return Vec::new();
    };
    match set.all(kind).get(entry.index) {
        Some(resource) => references::named_by(resource.model.plugins().iter().enumerate()),
        None => broken_at(set, broken, kind, entry.index).map_or_else(Vec::new, Broken::named),
    }
}

/// The broken one that stands at a place after the resources of its kind.
pub(super) fn broken_at<'b>(
    set: &Set,
    broken: &'b [Broken],
    kind: ResourceKind,
    index: usize,
) -> Option<&'b Broken> {
    let mut own = broken.iter().filter(|broken| broken.kind == kind);
    own.nth(index.checked_sub(set.all(kind).len())?)
}

/// Kind, index and field of a path that a check made: `rule[3].services[0]`.
pub(super) fn place(path: &str) -> Option<(ResourceKind, usize, &str)> {
    let (kind, rest) = path.split_once('[')?;
    let (index, field) = rest.split_once(']')?;
    let field = field.strip_prefix('.').unwrap_or(field);
    Some((ResourceKind::of(kind)?, index.parse().ok()?, field))
}

/// What is wrong with registered targets: whose they are, and that no id and no URL of an upstream is given twice. `is_broken`: an upstream of
/// this name is in no set because its document has mistakes.
pub(super) fn wrong_targets(
    set: &Set,
    is_broken: impl Fn(&Name) -> bool,
    is_late: impl Fn(ResourceKind, &Resource) -> bool,
) -> Vec<(Arc<str>, Mistake)> {
    let mut wrong = Vec::new();
    let mut seen: HashMap<Name, Targets> = HashMap::new();
    let targets = set.all(ResourceKind::Target);
    let late = |resource: &&Arc<Resource>| is_late(ResourceKind::Target, resource);
    let ordered = targets.iter().filter(|r| !late(r));
    for resource in ordered.chain(targets.iter().filter(late)) {
        let Model::Target(registered) = &resource.model else {
            continue;
        };
        let Some(pool) = set.pool(registered.upstream.as_str()) else {
            if !is_broken(&registered.upstream) {
                wrong.push((resource.name.clone(), nowhere(set, &registered.upstream)));
            }
            continue;
        };
        let known = seen.entry(registered.upstream.clone()).or_insert_with(|| {
            let mut known = Targets::default();
            for own in targets_of(&pool.model) {
                known.add(own);
            }
            known
        });
        wrong.extend(
            known
                .add(&registered.target)
                .map(|w| (resource.name.clone(), w)),
        );
        let splits = match &pool.model {
            Model::Upstream(upstream) => upstream.disaggregation.on(),
            _ => None,
        };
        wrong.extend(unfit(&registered.target, splits).into_iter().map(|unfit| {
            let message = format!("{}; {}", unfit.message, unfit.help);
            (resource.name.clone(), Mistake::new(unfit.field, message))
        }));
    }
    wrong
}

/// The targets of one upstream.
#[derive(Default)]
struct Targets {
    ids: HashSet<TargetId>,
    urls: HashMap<TargetUrl, TargetId>,
}

impl Targets {
    fn add(&mut self, target: &Target) -> Option<Mistake> {
        let id = id_of(target);
        if let Some(other) = self.urls.get(&target.url) {
            let other = Quoted(other.as_str());
            let message = format!("the target {other} has this URL already; change that one");
            return Some(Mistake::new("url", message));
        }
        self.urls.insert(target.url.clone(), id.clone());
        let message = "the upstream's own list has a target of this id; choose another";
        (!self.ids.insert(id)).then(|| Mistake::new("id", message))
    }
}

/// That there is no such upstream.
pub(super) fn nowhere(set: &Set, upstream: &Name) -> Mistake {
    let known = set.all(ResourceKind::Upstream).iter();
    let known: Vec<&str> = known.map(|upstream| &*upstream.name).collect();
    let help = suggest(upstream.as_str(), &known, "upstreams");
    let message = format!("there is no upstream {}; {help}", Quoted(upstream.as_str()));
    Mistake::new("upstream", message)
}
