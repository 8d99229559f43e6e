//! From the parsed configuration to a [`Snapshot`]. Pure: no I/O, and it cannot fail, since every reference
//! was checked when the document was read; what is missing all the same is left out.
//!
//! What came of the very documents that stand in the configuration now is taken from the revision before instead of being compiled again, if all that
//! it depends on was taken over, too: an upstream depends on its document; a service on its document and its upstream; a gateway on its document, the
//! services it offers in their order, its rules and its keys. So a change costs what it touches, besides one look at every resource.
//!
//! Invariant: nobody can tell such a snapshot from one that was compiled as a whole.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::HeaderValue;

use super::gateway::{self, Own};
use super::hosts::HostEntry;
use super::{
    Bounds, Chain, Gateway, Hosts, Rates, Registry, Service, Snapshot, Upstream, upstream,
};
use crate::model::{self, AuthKind, Config, HostPattern, Pool, ServiceKind};
use crate::telemetry::Metrics;

/// Compiles one revision. Live state comes from the registry by identity, what has not changed from `before`, which is the revision in force: what is
/// compiled is expected to come into force next.
pub fn compile(
    config: &Config,
    revision: u64,
    registry: &Registry,
    metrics: &Arc<Metrics>,
    before: Option<&Snapshot>,
) -> Snapshot {
    let contested = contested(config, before);
    let upstreams = compile_upstreams(config, registry, before, &contested);
    let services = compile_services(config, registry, metrics, before, &contested, &upstreams);
    let gateways = compile_gateways(config, registry, metrics, before, &services);
    let hosts = match before.filter(|before| keep_hosts(&before.gateways, &gateways)) {
        Some(before) => before.hosts.clone(),
        None => Arc::new(hosts(&gateways)),
    };
    registry.sweep();
    let in_place = services
        .iter()
        .filter(|service| matches!(service.document.pool, Pool::Targets(_)))
        .map(|service| service.upstream.clone());
    Snapshot {
        revision,
        bounds: bounds(config, before),
        hosts,
        upstreams: upstreams.into_iter().chain(in_place).collect(),
        gateways,
        services,
    }
}

fn bounds(config: &Config, before: Option<&Snapshot>) -> Arc<Bounds> {
    let server = &config.server;
    let secure = config.listeners.iter().filter(|l| l.tls.is_some());
    let bounds = Bounds {
        trusted_proxies: server.trusted_proxies.clone(),
        max_body: server.max_body.bytes(),
        body_timeout: server.body_timeout,
        https_port: secure
            .map(|l| l.address.port())
            .min_by_key(|port| *port != 443),
    };
    match before.filter(|before| *before.bounds == bounds) {
        Some(before) => before.bounds.clone(),
        None => Arc::new(bounds),
    }
}

/// Resources of a kind as they were compiled before: found by place or, where they have moved, by name.
struct Earlier<'s, T> {
    all: &'s [Arc<T>],
    name: fn(&T) -> &str,
    by_name: OnceCell<HashMap<&'s str, &'s Arc<T>>>,
}

impl<'s, T> Earlier<'s, T> {
    fn of(all: Option<&'s [Arc<T>]>, name: fn(&T) -> &str) -> Self {
        Self {
            all: all.unwrap_or_default(),
            name,
            by_name: OnceCell::new(),
        }
    }

    fn find(&self, place: usize, name: &str) -> Option<&'s Arc<T>> {
        let here = self.all.get(place);
        if let Some(here) = here.filter(|here| (self.name)(here) == name) {
            return Some(here);
        }
        let index = || self.all.iter().map(|t| ((self.name)(t), t)).collect();
        self.by_name.get_or_init(index).get(name).copied()
    }
}

/// Names that an upstream and a service with targets of its own share, now or before. Their targets have one live state, which both of them
/// configure, the service last: they are always compiled, so that this stays so.
fn contested<'c>(config: &'c Config, before: Option<&'c Snapshot>) -> HashSet<&'c str> {
    let known = before.map_or(&[][..], |before| before.named_upstreams());
    let named = config
        .upstreams
        .iter()
        .map(|upstream| upstream.name.as_str());
    let named: HashSet<&str> = named
        .chain(known.iter().map(|known| &*known.name))
        .collect();
    if named.is_empty() {
        return named;
    }
    let earlier = before.map_or(&[][..], |before| &before.services);
    let earlier = earlier.iter().map(|service| &service.document);
    let services = config.services.iter().chain(earlier);
    services
        .filter(|service| matches!(service.pool, Pool::Targets(_)))
        .filter_map(|service| named.get(service.name.as_str()).copied())
        .collect()
}

fn compile_upstreams(
    config: &Config,
    registry: &Registry,
    before: Option<&Snapshot>,
    contested: &HashSet<&str>,
) -> Vec<Arc<Upstream>> {
    let earlier = Earlier::of(before.map(Snapshot::named_upstreams), |known| &known.name);
    let compile = |(place, document): (usize, &Arc<model::Upstream>)| {
        let name = document.name.as_str();
        let same = |known: &&Arc<Upstream>| {
            let of = known.document.as_ref();
            of.is_some_and(|of| Arc::ptr_eq(of, document)) && !contested.contains(name)
        };
        match earlier.find(place, name).filter(same) {
            Some(known) => known.clone(),
            None => upstream::compile(document, Some(document), registry),
        }
    };
    config.upstreams.iter().enumerate().map(compile).collect()
}

fn compile_services(
    config: &Config,
    registry: &Registry,
    metrics: &Arc<Metrics>,
    before: Option<&Snapshot>,
    contested: &HashSet<&str>,
    upstreams: &[Arc<Upstream>],
) -> Vec<Arc<Service>> {
    let by_name = upstreams.iter().map(|upstream| (&*upstream.name, upstream));
    let by_name: HashMap<&str, &Arc<Upstream>> = by_name.collect();
    let earlier = before.map(|before| &*before.services);
    let earlier = Earlier::of(earlier, |known| &known.name);
    let compile = |(place, document): (usize, &Arc<model::Service>)| {
        let known = earlier.find(place, document.name.as_str());
        let known = known.filter(|_| !contested.contains(document.name.as_str()));
        let upstream = match &document.pool {
            Pool::Upstream(name) => (*by_name.get(name.as_str())?).clone(),
            Pool::Targets(targets) => match known.filter(|known| has_same_targets(known, document))
            {
                Some(known) => known.upstream.clone(),
                None => upstream::compile(&in_place(document, targets), None, registry),
            },
        };
        let same = |known: &&Arc<Service>| {
            Arc::ptr_eq(&known.document, document) && Arc::ptr_eq(&known.upstream, &upstream)
        };
        match known.filter(same) {
            Some(known) => Some(known.clone()),
            None => compile_service(document, upstream, registry, metrics),
        }
    };
    let services = config.services.iter().enumerate();
    services.filter_map(compile).collect()
}

/// Whether a service has the targets in place that it had: then nothing about them changes, whatever else does.
fn has_same_targets(known: &Service, document: &model::Service) -> bool {
    let kind = |service: &model::Service| service.kind == ServiceKind::Grpc;
    known.document.pool == document.pool && kind(&known.document) == kind(document)
}

/// Targets given in a service are an upstream of its name with everything at its default.
fn in_place(service: &model::Service, targets: &[model::Target]) -> model::Upstream {
    model::Upstream {
        http2: service.kind == ServiceKind::Grpc,
        ..model::Upstream::of_targets(service.name.clone(), targets.to_vec())
    }
}

fn compile_service(
    document: &Arc<model::Service>,
    upstream: Arc<Upstream>,
    registry: &Registry,
    metrics: &Metrics,
) -> Option<Arc<Service>> {
    let name: Arc<str> = document.name.clone().into();
    let owner = format!("service/{name}");
    let open = |auth: &model::Auth| auth.kind() == AuthKind::None;
    Some(Arc::new(Service {
        header: HeaderValue::from_str(&name).ok()?,
        kind: document.kind,
        chain: Chain::of(&document.plugins, &owner, &registry.offers, metrics),
        rates: (!document.rate_limits.is_empty())
            .then(|| Rates::of(&document.rate_limits, &owner, &registry.offers.quota)),
        public: document.auth.as_ref().is_some_and(open),
        alias: document.model.as_deref().map(Arc::from),
        upstream,
        timeouts: document.timeouts.clone(),
        retry: Arc::new(document.retry.clone()),
        queue: document.queue.on().cloned(),
        state: registry.service(&name),
        document: document.clone(),
        name,
    }))
}

fn compile_gateways(
    config: &Config,
    registry: &Registry,
    metrics: &Arc<Metrics>,
    before: Option<&Snapshot>,
    services: &[Arc<Service>],
) -> Vec<Arc<Gateway>> {
    let offered = Offered::of(services);
    let rules = by_gateway(&config.rules, |rule| &rule.gateway);
    let keys = by_gateway(&config.keys, |key| &key.gateway);
    let earlier = before.map(|before| &*before.gateways);
    let earlier = Earlier::of(earlier, |known| &known.name);
    let compile = |(place, document): (usize, &Arc<model::Gateway>)| {
        let name = document.name.as_str();
        let own = Own {
            document,
            services: offered.by(name),
            rules: rules.get(name).map_or(&[], Vec::as_slice),
            keys: keys.get(name).map_or(&[], Vec::as_slice),
        };
        let known = earlier.find(place, name);
        match known.filter(|known| own.made(known)) {
            Some(known) => known.clone(),
            None => Arc::new(gateway::compile(&own, known, registry, metrics)),
        }
    };
    config.gateways.iter().enumerate().map(compile).collect()
}

/// Services by the gateways that offer them, each list in the order of the configuration.
struct Offered<'s> {
    everywhere: Vec<(usize, &'s Arc<Service>)>,
    by_gateway: HashMap<&'s str, Vec<(usize, &'s Arc<Service>)>>,
}

impl<'s> Offered<'s> {
    fn of(services: &'s [Arc<Service>]) -> Self {
        let mut offered = Self {
            everywhere: Vec::new(),
            by_gateway: HashMap::new(),
        };
        for (place, service) in services.iter().enumerate() {
            let gateways = &service.document.gateways;
            if gateways.is_empty() {
                offered.everywhere.push((place, service));
            }
            for gateway in gateways {
                let list = offered.by_gateway.entry(gateway.as_str()).or_default();
                // A gateway may be named twice.
                if list.last().is_none_or(|(last, _)| *last != place) {
                    list.push((place, service));
                }
            }
        }
        offered
    }

    fn by(&self, gateway: &str) -> Vec<&'s Arc<Service>> {
        let own = self.by_gateway.get(gateway).map_or(&[][..], Vec::as_slice);
        let mut all: Vec<_> = self.everywhere.iter().chain(own).collect();
        if !self.everywhere.is_empty() {
            all.sort_unstable_by_key(|(place, _)| *place);
        }
        all.into_iter().map(|(_, service)| *service).collect()
    }
}

fn by_gateway<T>(all: &[Arc<T>], gateway: fn(&T) -> &model::Name) -> HashMap<&str, Vec<&Arc<T>>> {
    let mut grouped: HashMap<&str, Vec<&Arc<T>>> = HashMap::new();
    for resource in all {
        let list = grouped.entry(gateway(resource).as_str()).or_default();
        list.push(resource);
    }
    grouped
}

/// Whether the same hosts lead to the same places: hosts stand in the gateways' documents, and those of services follow from which are offered.
fn keep_hosts(before: &[Arc<Gateway>], now: &[Arc<Gateway>]) -> bool {
    let same = |(before, now): (&Arc<Gateway>, &Arc<Gateway>)| {
        let document = &now.document;
        Arc::ptr_eq(before, now)
            || (Arc::ptr_eq(&before.document, document) && document.domain.is_none())
    };
    before.len() == now.len() && before.iter().zip(now).all(same)
}

fn hosts(gateways: &[Arc<Gateway>]) -> Hosts {
    let mut hosts = Hosts::default();
    for (index, gateway) in gateways.iter().enumerate() {
        claim_hosts(&mut hosts, gateway, index);
    }
    hosts
}

fn claim_hosts(hosts: &mut Hosts, gateway: &Gateway, index: usize) {
    let document = &gateway.document;
    let entry = HostEntry {
        gateway: index,
        service: None,
    };
    for pattern in &document.hosts {
        match pattern {
            HostPattern::Exact(host) => hosts.claim(host, entry),
            HostPattern::Wildcard(suffix) => hosts.claim(&format!("*.{suffix}"), entry),
            HostPattern::Any => hosts.claim("*", entry),
        }
    }
    if let Some(domain) = &document.domain {
        if let Some(subdomain) = &document.subdomain {
            hosts.claim(&format!("{subdomain}.{domain}"), entry);
        }
        hosts.claim(&format!("gateway.{domain}"), entry);
        for (service, offer) in gateway.router.offers().iter().enumerate() {
            let host = format!("{}.{domain}", offer.service.name);
            let entry = HostEntry {
                service: Some(service),
                ..entry
            };
            hosts.claim(&host, entry);
        }
    }
    if document.default {
        hosts.set_default(entry);
    }
}
