//! The resources of a configuration one by one: what each says, what was typed for it, whose it is and when it was last changed.
//!
//! A [`Set`] is never changed: a [`Candidate`](super::Candidate) makes another from it, which shares with it whatever stayed the same, down to the
//! `Arc`s of the [`Config`] that is compiled. Those of the file come first, in its order; then those of the API by name, so that
//! a restart finds the same order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tollgate_sdk::document::{Json, Node, Span};

use super::kinds::{Model, ResourceKind};
use crate::model::{Config, Pool, Service, Target, TargetId, Upstream};

/// Who may change a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The configuration file alone.
    File,
    /// The admin API.
    Api,
}

impl Owner {
    /// The word for it: `file`.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
        }
    }
}

/// One resource.
#[derive(Clone)]
pub struct Resource {
    /// Its name; a registered target's is `upstream/id`.
    pub name: Arc<str>,
    /// What it says.
    pub model: Model,
    /// Whose it is.
    pub owner: Owner,
    /// The configuration's revision when it was last changed; of one of the file, at the earliest the one with which the process began.
    pub revision: u64,
    /// What was typed, with its secrets; of one of the file only what checks look at.
    pub(super) typed: Node,
    /// Where in it secrets stand.
    pub(super) secrets: Arc<[Span]>,
}

/// What was typed may hold a secret.
impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, owner, .. } = self;
        write!(f, "{} {name} ({})", self.model.kind().word(), owner.word())
    }
}

/// The fields that checks between resources look at.
const COMPARED: [&str; 19] = [
    "name",
    "gateway",
    "gateways",
    "hosts",
    "subdomain",
    "domain",
    "default",
    "type",
    "models",
    "path_prefix",
    "upstream",
    "engine",
    "services",
    "rules",
    "fallback",
    "rate_limits",
    "plugins",
    "scaling",
    "disaggregation",
];

impl Resource {
    fn of_file(model: Model, revision: u64) -> Self {
        let mut fields = model.fields();
        fields.retain(|name, _| COMPARED.contains(&name.as_str()));
        Self {
            name: model.name(),
            typed: Node::of(&fields.into()),
            secrets: Arc::default(),
            model,
            owner: Owner::File,
            revision,
        }
    }

    /// Its kind.
    pub fn kind(&self) -> ResourceKind {
        self.model.kind()
    }

    /// What was typed, with its secrets.
    pub fn body(&self) -> Json {
        self.typed.json()
    }

    /// What was typed, without its secrets.
    pub(super) fn typed_fields(&self) -> Json {
        self.typed.json_without(&self.secrets)
    }
}

/// Only its size: there may be many.
impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count: usize = self.lists.iter().map(|list| list.resources.len()).sum();
        write!(f, "{count} resources at revision {}", self.revision)
    }
}

/// The resources of a kind.
#[derive(Clone, Default)]
struct List {
    resources: Vec<Arc<Resource>>,
    places: HashMap<Arc<str>, usize>,
}

/// An upstream or a service with the targets that were registered beside its own.
#[derive(Clone)]
struct Joined {
    base: Arc<Resource>,
    own: Vec<Arc<Resource>>,
    model: Model,
}

/// Every resource there is.
#[derive(Clone)]
pub struct Set {
    /// The configuration's revision.
    pub revision: u64,
    lists: [List; ResourceKind::ALL.len()],
    joined: HashMap<(ResourceKind, Arc<str>), Joined>,
    config: Arc<Config>,
}

impl Set {
    /// What a file says. What is the same in `before` is shared with it.
    pub fn of_file(config: &Config, revision: u64, before: Option<&Set>) -> Set {
        let mut set = Set {
            revision,
            lists: Default::default(),
            joined: HashMap::new(),
            config: Arc::new(config.clone()),
        };
        for model in Model::all(config) {
            let known = before.and_then(|before| before.get(model.kind(), &model.name()));
            let same = known.filter(|known| known.owner == Owner::File && known.model == model);
            set.put(match same {
                Some(known) => known.clone(),
                None => Arc::new(Resource::of_file(model, revision)),
            });
        }
        set
    }

    /// The resources of a kind, those of the file first.
    pub fn all(&self, kind: ResourceKind) -> &[Arc<Resource>] {
        &self.list(kind).resources
    }

    /// One resource.
    pub fn get(&self, kind: ResourceKind, name: &str) -> Option<&Arc<Resource>> {
        let list = self.list(kind);
        list.resources.get(*list.places.get(name)?)
    }

    /// What is to be compiled.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    fn list(&self, kind: ResourceKind) -> &List {
        let [gateways, services, upstreams, rules, keys, targets] = &self.lists;
        match kind {
            ResourceKind::Gateway => gateways,
            ResourceKind::Service => services,
            ResourceKind::Upstream => upstreams,
            ResourceKind::Rule => rules,
            ResourceKind::Key => keys,
            ResourceKind::Target => targets,
        }
    }

    fn list_mut(&mut self, kind: ResourceKind) -> &mut List {
        let [gateways, services, upstreams, rules, keys, targets] = &mut self.lists;
        match kind {
            ResourceKind::Gateway => gateways,
            ResourceKind::Service => services,
            ResourceKind::Upstream => upstreams,
            ResourceKind::Rule => rules,
            ResourceKind::Key => keys,
            ResourceKind::Target => targets,
        }
    }

    /// Adds a resource, or puts it in the place of the one of its name.
    pub(super) fn put(&mut self, resource: Arc<Resource>) {
        let list = self.list_mut(resource.kind());
        let place = list.places.get(&resource.name);
        match place.and_then(|place| list.resources.get_mut(*place)) {
            Some(old) => *old = resource,
            None => {
                let place = list.resources.len();
                list.places.insert(resource.name.clone(), place);
                list.resources.push(resource);
            }
        }
    }

    /// Takes resources away.
    pub(super) fn remove(&mut self, gone: &HashSet<(ResourceKind, Arc<str>)>) {
        let kinds: HashSet<ResourceKind> = gone.iter().map(|(kind, _)| *kind).collect();
        for kind in kinds {
            let list = self.list_mut(kind);
            let stays = |r: &Arc<Resource>| !gone.contains(&(kind, r.name.clone()));
            list.resources.retain(stays);
            list.number();
        }
    }

    /// Says when these were changed.
    pub(super) fn stamp(&mut self, changed: &[(ResourceKind, Arc<str>)], revision: u64) {
        self.revision = revision;
        for (kind, name) in changed {
            let list = self.list_mut(*kind);
            let place = list.places.get(name).copied();
            if let Some(resource) = place.and_then(|place| list.resources.get_mut(place)) {
                Arc::make_mut(resource).revision = revision;
            }
        }
    }

    /// Puts another revision in the place of the one that a file was read for.
    pub fn renumber(&mut self, revision: u64) {
        let was = std::mem::replace(&mut self.revision, revision);
        if was == revision {
            return;
        }
        for list in &mut self.lists {
            let new = list.resources.iter_mut();
            for resource in new.filter(|r| r.owner == Owner::File && r.revision == was) {
                Arc::make_mut(resource).revision = revision;
            }
        }
    }

    /// Brings the configuration that is compiled up to date. What is the same in `before` is shared with it.
    pub(super) fn seal(&mut self, before: Option<&Set>) {
        for list in &mut self.lists {
            list.sort();
        }
        self.joined = self.join(before);
        let models = |kind| {
            self.all(kind)
                .iter()
                .map(|resource| self.effective(resource))
        };
        let mut config = Config::clone(&self.config);
        config.gateways = models(ResourceKind::Gateway)
            .filter_map(|model| match model {
                Model::Gateway(gateway) => Some(gateway.clone()),
                _ => None,
            })
            .collect();
        config.services = models(ResourceKind::Service)
            .filter_map(|model| match model {
                Model::Service(service) => Some(service.clone()),
                _ => None,
            })
            .collect();
        config.upstreams = models(ResourceKind::Upstream)
            .filter_map(|model| match model {
                Model::Upstream(upstream) => Some(upstream.clone()),
                _ => None,
            })
            .collect();
        config.rules = models(ResourceKind::Rule)
            .filter_map(|model| match model {
                Model::Rule(rule) => Some(rule.clone()),
                _ => None,
            })
            .collect();
        let keys = models(ResourceKind::Key);
        config.keys = keys.filter_map(|model| model.key().cloned()).collect();
        self.config = Arc::new(config);
    }

    /// What a resource says together with the targets that joined it.
    pub fn effective<'s>(&'s self, resource: &'s Arc<Resource>) -> &'s Model {
        let joined = self.joined.get(&(resource.kind(), resource.name.clone()));
        joined.map_or(&resource.model, |joined| &joined.model)
    }

    fn join(&self, before: Option<&Set>) -> HashMap<(ResourceKind, Arc<str>), Joined> {
        let mut own: HashMap<(ResourceKind, Arc<str>), Vec<Arc<Resource>>> = HashMap::new();
        for target in self.all(ResourceKind::Target) {
            let Model::Target(registered) = &target.model else {
                continue;
            };
            if let Some(base) = self.pool(registered.upstream.as_str()) {
                let identity = (base.kind(), base.name.clone());
                own.entry(identity).or_default().push(target.clone());
            }
        }
        let join = |((kind, name), own): ((ResourceKind, Arc<str>), Vec<Arc<Resource>>)| {
            let base = self.get(kind, &name)?.clone();
            let known = before.and_then(|before| before.joined.get(&(kind, name.clone())));
            let same = known.filter(|known| {
                Arc::ptr_eq(&known.base, &base)
                    && known.own.len() == own.len()
                    && known.own.iter().zip(&own).all(|(a, b)| Arc::ptr_eq(a, b))
            });
            let joined = match same {
                Some(known) => known.clone(),
                None => Joined {
                    model: with_targets(&base.model, &own),
                    base,
                    own,
                },
            };
            Some(((kind, name), joined))
        };
        own.into_iter().filter_map(join).collect()
    }

    /// The upstream of this name, or else the service of this name that has targets of its own.
    pub fn pool(&self, name: &str) -> Option<&Arc<Resource>> {
        let own = |service: &&Arc<Resource>| match &service.model {
            Model::Service(service) => matches!(service.pool, Pool::Targets(_)),
            _ => false,
        };
        self.get(ResourceKind::Upstream, name)
            .or_else(|| self.get(ResourceKind::Service, name).filter(own))
    }
}

impl List {
    fn number(&mut self) {
        let names = self.resources.iter().enumerate();
        self.places = names.map(|(place, r)| (r.name.clone(), place)).collect();
    }

    /// Those of the file stay as they are; the others follow by name.
    fn sort(&mut self) {
        let key = |r: &Arc<Resource>| match r.owner {
            Owner::File => (Owner::File, None),
            Owner::Api => (Owner::Api, Some(r.name.clone())),
        };
        if !self.resources.is_sorted_by_key(key) {
            self.resources.sort_by_cached_key(key);
            self.number();
        }
    }
}

/// The targets that a resource has of its own.
pub fn targets_of(model: &Model) -> &[Target] {
    match model {
        Model::Upstream(upstream) => &upstream.targets,
        Model::Service(service) => match &service.pool {
            Pool::Targets(targets) => targets,
            Pool::Upstream(_) => &[],
        },
        _ => &[],
    }
}

/// What a target is called.
pub fn id_of(target: &Target) -> TargetId {
    let given = target.id.clone();
    given.unwrap_or_else(|| TargetId::of(&target.url))
}

fn with_targets(base: &Model, own: &[Arc<Resource>]) -> Model {
    let more = own.iter().filter_map(|resource| match &resource.model {
        Model::Target(registered) => Some(registered.target.clone()),
        _ => None,
    });
    let targets: Vec<Target> = targets_of(base).iter().cloned().chain(more).collect();
    match base {
        Model::Upstream(upstream) => Model::Upstream(Arc::new(Upstream {
            targets,
            ..Upstream::clone(upstream)
        })),
        Model::Service(service) => Model::Service(Arc::new(Service {
            pool: Pool::Targets(targets),
            ..Service::clone(service)
        })),
        other => other.clone(),
    }
}
