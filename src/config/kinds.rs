//! The kinds of resources that can be changed one by one, and what was read of one, whatever its kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use tollgate_sdk::document::{
    At, Document, FromNode, FromText, Json, JsonTable, Node, Reading, json,
};

use crate::model::{Config, Gateway, Key, Name, Plugin, Rule, Service, Target, TargetId, Upstream};

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A tenant.
    Gateway,
    /// What is offered.
    Service,
    /// A pool of targets.
    Upstream,
    /// Explicit routing.
    Rule,
    /// A credential.
    Key,
    /// A target that was registered beside those of an upstream, or of a service's own.
    Target,
}

impl ResourceKind {
    /// Every kind, in the order of a file.
    pub const ALL: [ResourceKind; 6] = [
        Self::Gateway,
        Self::Service,
        Self::Upstream,
        Self::Rule,
        Self::Key,
        Self::Target,
    ];

    /// The word for it: `service`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Service => "service",
            Self::Upstream => "upstream",
            Self::Rule => "rule",
            Self::Key => "key",
            Self::Target => "target",
        }
    }

    /// The kind of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// A target that was registered.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    /// The upstream, or the service whose own targets it joins.
    pub upstream: Name,
    /// The target; its id is given.
    pub target: Target,
}

/// What a resource says.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    /// A gateway.
    Gateway(Arc<Gateway>),
    /// A service.
    Service(Arc<Service>),
    /// An upstream.
    Upstream(Arc<Upstream>),
    /// A rule.
    Rule(Arc<Rule>),
    /// A key.
    Key(Arc<Key>),
    /// A registered target.
    Target(Arc<Registered>),
}

impl Model {
    /// Everything that a configuration holds of these kinds, in its order.
    pub(super) fn all(config: &Config) -> impl Iterator<Item = Model> {
        let gateways = config.gateways.iter().cloned().map(Model::Gateway);
        let services = config.services.iter().cloned().map(Model::Service);
        let upstreams = config.upstreams.iter().cloned().map(Model::Upstream);
        let rules = config.rules.iter().cloned().map(Model::Rule);
        let keys = config.keys.iter().cloned().map(Model::Key);
        gateways
            .chain(services)
            .chain(upstreams)
            .chain(rules)
            .chain(keys)
    }

    /// Reads a resource; of a registered target, `node` is the target, and `whose` its upstream.
    pub(super) fn read(
        kind: ResourceKind,
        node: &Node,
        whose: Option<(&Name, &TargetId)>,
        r: &mut Reading<'_>,
    ) -> Option<Self> {
        let at = &At::ROOT;
        Some(match kind {
            ResourceKind::Gateway => Self::Gateway(FromNode::read(node, at, r)?),
            ResourceKind::Service => Self::Service(FromNode::read(node, at, r)?),
            ResourceKind::Upstream => Self::Upstream(FromNode::read(node, at, r)?),
            ResourceKind::Rule => Self::Rule(FromNode::read(node, at, r)?),
            ResourceKind::Key => Self::Key(FromNode::read(node, at, r)?),
            ResourceKind::Target => {
                let mut target = <Target as FromNode>::read(node, at, r)?;
                let (upstream, id) = whose?;
                target.id = Some(id.clone());
                let upstream = upstream.clone();
                Self::Target(Arc::new(Registered { upstream, target }))
            }
        })
    }

    /// Its kind.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::Gateway(_) => ResourceKind::Gateway,
            Self::Service(_) => ResourceKind::Service,
            Self::Upstream(_) => ResourceKind::Upstream,
            Self::Rule(_) => ResourceKind::Rule,
            Self::Key(_) => ResourceKind::Key,
            Self::Target(_) => ResourceKind::Target,
        }
    }

    /// Its name; a target's is `upstream/id`.
    pub(super) fn name(&self) -> Arc<str> {
        match self {
            Self::Gateway(gateway) => gateway.name.clone().into(),
            Self::Service(service) => service.name.clone().into(),
            Self::Upstream(upstream) => upstream.name.clone().into(),
            Self::Rule(rule) => rule.name.clone().into(),
            Self::Key(key) => key.name.clone().into(),
            Self::Target(registered) => {
                let id = registered.target.id.as_ref().map_or("", TargetId::as_str);
                format!("{}/{id}", registered.upstream).into()
            }
        }
    }

    /// Its fields as a user may see them: without secrets, and of a key not even the hashes.
    pub fn fields(&self) -> JsonTable {
        match self {
            Self::Gateway(gateway) => gateway.value_fields(),
            Self::Service(service) => service.value_fields(),
            Self::Upstream(upstream) => upstream.value_fields(),
            Self::Rule(rule) => rule.value_fields(),
            Self::Key(key) => key_fields(key),
            Self::Target(registered) => {
                let mut fields = registered.target.value_fields();
                fields.insert("upstream".into(), registered.upstream.value());
                fields
            }
        }
    }

    /// The gateway that the store keeps it under.
    pub(super) fn store_gateway(&self) -> Option<String> {
        match self {
            Self::Key(key) => Some(key.gateway.to_string()),
            Self::Target(registered) => Some(registered.upstream.to_string()),
            _ => None,
        }
    }

    /// The name that the store keeps it under.
    pub(super) fn store_name(&self) -> String {
        match self {
            Self::Target(registered) => {
                let id = registered.target.id.as_ref();
                id.map(FromText::to_text).unwrap_or_default()
            }
            other => other.name().to_string(),
        }
    }

    /// Its chain of plugins.
    pub(super) fn plugins(&self) -> &[Plugin] {
        match self {
            Self::Gateway(gateway) => &gateway.plugins,
            Self::Service(service) => &service.plugins,
            Self::Rule(rule) => &rule.plugins,
            Self::Upstream(_) | Self::Key(_) | Self::Target(_) => &[],
        }
    }

    /// Its labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Gateway(gateway) => &gateway.labels,
            Self::Service(service) => &service.labels,
            Self::Upstream(upstream) => &upstream.labels,
            Self::Rule(rule) => &rule.labels,
            Self::Key(key) => &key.labels,
            Self::Target(registered) => &registered.target.labels,
        }
    }

    /// The key, if it is one.
    pub fn key(&self) -> Option<&Arc<Key>> {
        match self {
            Self::Key(key) => Some(key),
            _ => None,
        }
    }
}

fn key_fields(key: &Key) -> JsonTable {
    let mut fields = key.value_fields();
    fields.remove("hash");
    let previous = key.previous.iter();
    let until: Vec<Json> = previous
        .map(|previous| json!({"until": previous.until.value()}))
        .collect();
    fields.insert("previous".into(), until.into());
    let end = key.expires_at.map(|end| end.value()).unwrap_or_default();
    fields.insert("expires_at".into(), end);
    fields
}
