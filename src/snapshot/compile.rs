//! From the parsed configuration to a [`Snapshot`]. Pure: no I/O, and it cannot fail, since every reference
//! was checked when the document was read; what is missing all the same is left out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use serde_json::json;

use super::hosts::HostEntry;
use super::registry::{Known, Offers};
use super::router::{Models, Rule};
use super::{
    Chain, Gateway, Hosts, ListedModel, Offer, Rates, Registry, Router, Service, Snapshot, Split,
    Target, Upstream,
};
use crate::auth::{Authority, Keys, Outside};
use crate::balance::{
    self, ConsistentHash, LeastConnections, Policy, PowerOfTwo, Random, RoundRobin, stable_hash,
};
use crate::model::{
    self, AuthKind, Config, Host, HostPattern, ModelPattern, PathPattern, Pool, Scheme, ServiceKind,
};
use crate::telemetry::{Metrics, OfferMetrics};

/// Compiles one revision. Live state comes from the registry by identity.
pub fn compile(
    config: &Config,
    revision: u64,
    registry: &Registry,
    metrics: &Arc<Metrics>,
) -> Snapshot {
    let upstreams: HashMap<&str, Arc<Upstream>> = config
        .upstreams
        .iter()
        .map(|upstream| {
            (
                upstream.name.as_str(),
                Arc::new(compile_upstream(upstream, registry)),
            )
        })
        .collect();
    let services: Vec<(&model::Service, Arc<Service>)> = config
        .services
        .iter()
        .filter_map(|service| {
            Some((
                &**service,
                compile_service(service, &upstreams, registry, metrics)?,
            ))
        })
        .collect();
    let chains = Chains {
        offers: &registry.offers,
        metrics,
    };
    let mut hosts = Hosts::default();
    let mut gateways = Vec::new();
    for (index, gateway) in config.gateways.iter().enumerate() {
        let mut offered: Vec<_> = services
            .iter()
            .filter(|(service, _)| {
                service.gateways.is_empty() || service.gateways.contains(&gateway.name)
            })
            .map(|(service, compiled)| Offered::new(service, compiled, gateway, metrics))
            .collect();
        name_fallbacks(gateway, &mut offered);
        claim_hosts(&mut hosts, gateway, index, &offered);
        gateways.push(Arc::new(compile_gateway(gateway, &offered, config, chains)));
    }
    registry.sweep();
    let mut all: Vec<Arc<Upstream>> = upstreams.into_values().collect();
    all.extend(
        services
            .iter()
            .filter(|(service, _)| matches!(service.pool, Pool::Targets(_)))
            .map(|(_, compiled)| compiled.upstream.clone()),
    );
    Snapshot {
        revision,
        trusted_proxies: config.server.trusted_proxies.clone(),
        max_body: config.server.max_body.bytes(),
        body_timeout: config.server.body_timeout,
        hosts,
        gateways,
        upstreams: all,
        services: services.into_iter().map(|(_, compiled)| compiled).collect(),
    }
}

struct Offered<'c> {
    document: &'c model::Service,
    offer: Arc<Offer>,
}

impl<'c> Offered<'c> {
    fn new(
        document: &'c model::Service,
        service: &Arc<Service>,
        gateway: &model::Gateway,
        metrics: &Arc<Metrics>,
    ) -> Offered<'c> {
        let names = (gateway.name.clone().into(), service.name.clone());
        let offer = Offer {
            service: service.clone(),
            metrics: OfferMetrics::new(metrics.clone(), names.0, names.1),
            fallback: Vec::new(),
        };
        Offered {
            document,
            offer: Arc::new(offer),
        }
    }

    fn weighted(&self) -> (Arc<Offer>, u64) {
        (self.offer.clone(), u64::from(self.document.weight))
    }
}

/// Each service's own list, then the gateway's. A service that this gateway does not offer is passed over, as its author was warned.
fn name_fallbacks(gateway: &model::Gateway, offered: &mut [Offered<'_>]) {
    let lists: Vec<Vec<usize>> = offered
        .iter()
        .map(|own| {
            let names = own.document.fallback.iter().chain(&gateway.fallback);
            indexes(names.filter(|name| **name != own.document.name), offered)
        })
        .collect();
    for (offered, list) in offered.iter_mut().zip(lists) {
        if let Some(offer) = Arc::get_mut(&mut offered.offer) {
            offer.fallback = list;
        }
    }
}

/// Where services of these names stand, each once.
fn indexes<'n>(
    names: impl Iterator<Item = &'n model::Name>,
    offered: &[Offered<'_>],
) -> Vec<usize> {
    let mut list = Vec::new();
    for name in names {
        let index = offered
            .iter()
            .position(|offered| offered.document.name == *name);
        if let Some(index) = index.filter(|index| !list.contains(index)) {
            list.push(index);
        }
    }
    list
}

fn claim_hosts(hosts: &mut Hosts, gateway: &model::Gateway, index: usize, offered: &[Offered<'_>]) {
    let entry = HostEntry {
        gateway: index,
        service: None,
    };
    for pattern in &gateway.hosts {
        match pattern {
            HostPattern::Exact(host) => hosts.claim(host, entry),
            HostPattern::Wildcard(suffix) => hosts.claim(&format!("*.{suffix}"), entry),
            HostPattern::Any => hosts.claim("*", entry),
        }
    }
    if let Some(domain) = &gateway.domain {
        if let Some(subdomain) = &gateway.subdomain {
            hosts.claim(&format!("{subdomain}.{domain}"), entry);
        }
        hosts.claim(&format!("gateway.{domain}"), entry);
        for (service, offered) in offered.iter().enumerate() {
            let host = format!("{}.{domain}", offered.document.name);
            hosts.claim(
                &host,
                HostEntry {
                    service: Some(service),
                    ..entry
                },
            );
        }
    }
    if gateway.default {
        hosts.set_default(entry);
    }
}

/// What plugins are built with.
#[derive(Clone, Copy)]
struct Chains<'c> {
    offers: &'c Offers,
    metrics: &'c Metrics,
}

impl Chains<'_> {
    fn of(self, entries: &[model::Plugin], owner: &str) -> Arc<Chain> {
        Chain::of(entries, owner, self.offers, self.metrics)
    }
}

fn compile_gateway(
    gateway: &model::Gateway,
    offered: &[Offered<'_>],
    config: &Config,
    chains: Chains<'_>,
) -> Gateway {
    let explicit = config
        .rules
        .iter()
        .filter(|rule| rule.gateway == gateway.name)
        .map(|rule| compile_rule(rule, offered, chains));
    let prefixes = offered
        .iter()
        .filter_map(|offered| prefix_rule(gateway, offered));
    let rules: Vec<Rule> = explicit.chain(prefixes).collect();
    let (models_list, models) = describe_models(offered);
    let offers = offered
        .iter()
        .map(|offered| offered.offer.clone())
        .collect();
    Gateway {
        name: gateway.name.clone().into(),
        routing: gateway.routing.clone(),
        allowed: gateway.allowed_ips.clone(),
        denied: gateway.denied_ips.clone(),
        paused: gateway.status == model::Status::Paused,
        authority: authority(gateway, config, chains.offers),
        open: gateway.auth.kind() == AuthKind::None,
        key_header: gateway.auth.header.clone(),
        chain: chains.of(&gateway.plugins, &format!("gateway/{}", gateway.name)),
        key_chains: key_chains(gateway, config, chains),
        publishes: offered.iter().any(|offered| offered.offer.service.public),
        router: Router::new(rules, compile_models(offered), gateway.routing.by, offers),
        models_list,
        models,
    }
}

/// A gateway for everybody still knows its keys, if it has any: services and rules may ask for them.
fn authority(gateway: &model::Gateway, config: &Config, offers: &Offers) -> Option<Authority> {
    let keys = &config.keys;
    if gateway.auth.kind() == AuthKind::None {
        let any = keys.iter().any(|key| key.gateway == gateway.name);
        return any.then(|| Authority::Keys(Keys::of(&gateway.name, keys)));
    }
    let outside = Outside {
        http: offers.http.clone(),
        clock: offers.clock.clone(),
        kept: offers.kept.clone(),
    };
    Authority::of(&gateway.auth, &gateway.name, keys, &outside)
}

/// The limits and budgets of keys, counted by key through all its rotations.
fn key_chains(
    gateway: &model::Gateway,
    config: &Config,
    chains: Chains<'_>,
) -> HashMap<Arc<str>, Arc<Chain>> {
    let own = config.keys.iter().filter(|key| key.gateway == gateway.name);
    let limited = own.filter_map(|key| {
        let budget = key.budget.0.iter().cloned();
        let entries: Vec<model::Plugin> = key.limits.0.iter().cloned().chain(budget).collect();
        let owner = format!("key/{}/{}", gateway.name, key.name);
        (!entries.is_empty()).then(|| (key.name.clone().into(), chains.of(&entries, &owner)))
    });
    limited.collect()
}

fn compile_rule(rule: &model::Rule, offered: &[Offered<'_>], chains: Chains<'_>) -> Rule {
    let chain = (!rule.plugins.is_empty()).then(|| {
        let owner = format!("rule/{}/{}", rule.gateway, rule.name);
        chains.of(&rule.plugins, &owner)
    });
    let fallback = indexes(rule.fallback.iter(), offered);
    if rule.services.is_empty() {
        return Rule::new(rule.clone(), None, fallback, chain);
    }
    let offers = rule
        .services
        .iter()
        .filter_map(|weighted| {
            let offered = offered
                .iter()
                .find(|offered| offered.document.name == weighted.name)?;
            Some((offered.offer.clone(), u64::from(weighted.weight)))
        })
        .collect();
    Rule::new(rule.clone(), Split::new(offers), fallback, chain)
}

/// A service's `path_prefix` is a rule that every explicit one precedes.
fn prefix_rule(gateway: &model::Gateway, offered: &Offered<'_>) -> Option<Rule> {
    let prefix = offered.document.path_prefix.clone()?;
    let rule = model::Rule {
        name: offered.document.name.clone(),
        description: None,
        labels: BTreeMap::new(),
        gateway: gateway.name.clone(),
        priority: i32::MIN,
        path: Some(PathPattern::Prefix(prefix)),
        methods: Vec::new(),
        headers: Vec::new(),
        model: None,
        services: Vec::new(),
        strip_path: offered.document.strip_prefix,
        rewrite: None,
        preserve_host: false,
        timeouts: model::PartialTimeouts::default(),
        retry: model::PartialRetry::default(),
        fallback: Vec::new(),
        plugins: Vec::new(),
    };
    let split = Split::new(vec![offered.weighted()]);
    Some(Rule::new(rule, split, Vec::new(), None))
}

fn compile_models(offered: &[Offered<'_>]) -> Models {
    let mut patterns: Vec<(ModelPattern, Vec<(Arc<Offer>, u64)>)> = Vec::new();
    for offered in offered {
        for pattern in &offered.document.models {
            match patterns.iter_mut().find(|(known, _)| known == pattern) {
                Some((_, offers)) => offers.push(offered.weighted()),
                None => patterns.push((pattern.clone(), vec![offered.weighted()])),
            }
        }
    }
    Models::new(patterns)
}

/// OpenAI's list of models, and each entry by its id. Prefix patterns name no model and are left out.
fn describe_models(offered: &[Offered<'_>]) -> (Bytes, BTreeMap<Box<str>, ListedModel>) {
    let mut models: BTreeMap<Box<str>, ListedModel> = BTreeMap::new();
    for offered in offered {
        for pattern in &offered.document.models {
            let ModelPattern::Exact(id) = pattern else {
                continue;
            };
            let owner = offered.document.owner.as_deref().unwrap_or("tollgate");
            let listed = models.entry(id.as_str().into()).or_insert_with(|| {
                let entry = json!({"id": id, "object": "model", "created": 0, "owned_by": owner});
                ListedModel {
                    entry: entry.to_string().into(),
                    services: Vec::new(),
                }
            });
            listed.services.push(offered.offer.service.clone());
        }
    }
    (list_models(models.values()), models)
}

/// The answer to `GET /v1/models` with these.
pub fn list_models<'m>(models: impl Iterator<Item = &'m ListedModel>) -> Bytes {
    let mut list = BytesMut::from(&b"{\"object\":\"list\",\"data\":["[..]);
    for (i, model) in models.enumerate() {
        if i > 0 {
            list.put_u8(b',');
        }
        list.put_slice(&model.entry);
    }
    list.put_slice(b"]}");
    list.freeze()
}

fn compile_service(
    service: &model::Service,
    upstreams: &HashMap<&str, Arc<Upstream>>,
    registry: &Registry,
    metrics: &Metrics,
) -> Option<Arc<Service>> {
    let chains = Chains {
        offers: &registry.offers,
        metrics,
    };
    let upstream = match &service.pool {
        Pool::Upstream(name) => upstreams.get(name.as_str())?.clone(),
        Pool::Targets(targets) => Arc::new(compile_upstream(&in_place(service, targets), registry)),
    };
    let owner = format!("service/{}", service.name);
    Some(Arc::new(Service {
        name: service.name.clone().into(),
        header: HeaderValue::from_str(service.name.as_str()).ok()?,
        kind: service.kind,
        chain: chains.of(&service.plugins, &owner),
        rates: (!service.rate_limits.is_empty())
            .then(|| Rates::of(&service.rate_limits, &owner, &registry.offers.quota)),
        public: service
            .auth
            .as_ref()
            .is_some_and(|auth| auth.kind() == AuthKind::None),
        alias: service.model.as_deref().map(Arc::from),
        upstream,
        timeouts: service.timeouts.clone(),
        retry: Arc::new(service.retry.clone()),
        queue: service.queue.on().cloned(),
        state: registry.service(&service.name.clone().into()),
    }))
}

/// Targets given in a service are an upstream of its name with everything at its default.
fn in_place(service: &model::Service, targets: &[model::Target]) -> model::Upstream {
    model::Upstream {
        http2: service.kind == ServiceKind::Grpc,
        ..model::Upstream::of_targets(service.name.clone(), targets.to_vec())
    }
}

fn compile_upstream(upstream: &model::Upstream, registry: &Registry) -> Upstream {
    let name: Arc<str> = upstream.name.clone().into();
    let targets: Vec<Target> = upstream
        .targets
        .iter()
        .map(|target| compile_target(target, &name, upstream, registry))
        .collect();
    let view = targets
        .iter()
        .zip(&upstream.targets)
        .map(|(target, document)| balance::Target {
            weight: document.weight,
            id: stable_hash(target.label.as_bytes()),
            state: target.state.clone(),
        })
        .collect();
    let mut headers = upstream.headers.clone();
    if let Some(key) = &upstream.api_key
        && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
    {
        value.set_sensitive(true);
        headers.insert(0, (AUTHORIZATION, value));
    }
    let policy: Box<dyn Policy> = match &upstream.policy {
        model::Policy::RoundRobin => Box::new(RoundRobin::default()),
        model::Policy::Random => Box::new(Random),
        model::Policy::LeastConnections => Box::new(LeastConnections::default()),
        model::Policy::PowerOfTwo => Box::new(PowerOfTwo),
        model::Policy::ConsistentHash(_) => Box::new(ConsistentHash),
    };
    let affinity = match &upstream.policy {
        model::Policy::ConsistentHash(key) => Some(key.clone()),
        _ => None,
    };
    Upstream {
        name,
        targets,
        view,
        policy,
        affinity,
        health: upstream.health.clone(),
        headers,
        http2: upstream.http2,
        tls: upstream.tls.clone(),
    }
}

fn compile_target(
    target: &model::Target,
    upstream: &Arc<str>,
    settings: &model::Upstream,
    registry: &Registry,
) -> Target {
    let url = &target.url;
    let label: Arc<str> = url.to_string().into();
    let Known { state, health } = registry.target(upstream, &label);
    state.set_limit(settings.limit_of(target).map_or(0, |limit| limit as usize));
    let probed = !matches!(settings.health.probe, model::Probe::Off);
    health.configure(probed, settings.breaker.on(), Instant::now());
    if let Host::Ip(address) = url.host {
        state.set_addresses(vec![(address, url.port).into()]);
    }
    let default_port = match url.scheme {
        Scheme::Https => 443,
        _ => 80,
    };
    let authority = match url.scheme {
        Scheme::Unix => "localhost".to_owned(),
        _ if url.port == default_port => url.host.to_string(),
        _ => format!("{}:{}", url.host, url.port),
    };
    let host = match &url.host {
        Host::Ip(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    };
    Target {
        url: url.clone(),
        label,
        authority: HeaderValue::from_str(&authority)
            .unwrap_or(HeaderValue::from_static("localhost")),
        server_name: settings.tls.server_name.clone().unwrap_or(host),
        state,
        health,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tollgate_sdk::plugin::NoHttp;

    use super::*;
    use crate::config;
    use crate::snapshot::{Decision, Head, ModelName};

    /// An offer of a service of this name, for tests of its neighbours.
    pub(in crate::snapshot) fn offer(name: &str) -> Arc<Offer> {
        let service = Service {
            name: name.into(),
            header: HeaderValue::from_str(name).unwrap(),
            chain: Arc::default(),
            rates: None,
            public: false,
            kind: ServiceKind::Openai,
            alias: None,
            upstream: Arc::new(Upstream {
                name: name.into(),
                targets: Vec::new(),
                view: Vec::new(),
                policy: Box::new(RoundRobin::default()),
                affinity: None,
                health: model::Health::default(),
                headers: Vec::new(),
                http2: false,
                tls: model::UpstreamTls::default(),
            }),
            timeouts: model::Timeouts::default(),
            retry: Arc::default(),
            queue: None,
            state: Arc::default(),
        };
        let metrics = OfferMetrics::new(Arc::new(Metrics::new()), "main".into(), name.into());
        Arc::new(Offer {
            service: Arc::new(service),
            metrics,
            fallback: Vec::new(),
        })
    }

    fn read(toml: &str) -> Config {
        let no_file = |file: &str| Err(file.to_owned());
        config::parse("test", toml, config::Format::Toml, &|_| None, &no_file)
            .unwrap()
            .config
    }

    fn snapshot(toml: &str) -> Snapshot {
        let config = read(toml);
        compile(
            &config,
            1,
            &Registry::new(Arc::new(NoHttp)),
            &Arc::new(Metrics::new()),
        )
    }

    const BASE: &str = r#"
        [[listener]]
        address = "127.0.0.1:8080"
        [[gateway]]
        name = "main"
        hosts = ["*"]
        auth = "none"
        [[service]]
        name = "a"
        models = ["m", "big/*", "big/x*"]
        targets = ["http://127.0.0.1:1"]
        [[service]]
        name = "b"
        type = "http"
        targets = ["http://127.0.0.1:2"]
        path_prefix = "/files"
        [[service]]
        name = "c"
        models = ["big/xy", "*"]
        targets = ["http://127.0.0.1:3"]
    "#;

    fn decide(snapshot: &Snapshot, method: &str, path: &str, model: ModelName<'_>) -> String {
        let headers = http::HeaderMap::new();
        let method = method.parse().unwrap();
        let head = Head {
            who: crate::snapshot::Who::Anybody,
            method: &method,
            path,
            headers: &headers,
            service: None,
        };
        match snapshot.gateways[0].router.decide(head, model) {
            Decision::Route(route) => {
                format!(
                    "{}{}",
                    route.offer.service.name,
                    route.path.map(|p| format!(" {p}")).unwrap_or_default()
                )
            }
            Decision::MethodNotAllowed(allow) => format!("405 {allow}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn models_exact_then_longest_prefix() {
        let s = snapshot(BASE);
        for (model, service) in [
            ("m", "a"),
            ("big/q", "a"),
            ("big/xy", "c"),
            ("big/xz", "a"),
            ("other", "c"),
        ] {
            assert_eq!(
                decide(&s, "POST", "/v1/chat/completions", ModelName::Is(model)),
                service,
                "{model}"
            );
        }
        assert_eq!(
            decide(&s, "POST", "/v1/chat/completions", ModelName::Unread),
            "NeedsModel"
        );
        assert_eq!(decide(&s, "GET", "/v1/x", ModelName::Absent), "NoRoute");
    }

    #[test]
    fn prefixes_are_stripped_and_do_not_match_half_a_segment() {
        let s = snapshot(BASE);
        assert_eq!(decide(&s, "GET", "/files/a/b", ModelName::Unread), "b /a/b");
        assert_eq!(decide(&s, "GET", "/files", ModelName::Unread), "b /");
        assert_eq!(
            decide(&s, "GET", "/filesystem", ModelName::Absent),
            "NoRoute"
        );
        assert_eq!(
            decide(&s, "GET", "/files/../secret", ModelName::Absent),
            "NoRoute"
        );
    }

    #[test]
    fn rules_follow_precedence() {
        let rules = r#"
            [[rule]]
            gateway = "main"
            path = "/r/*"
            services = ["a"]
            [[rule]]
            gateway = "main"
            path = "/r/{id}/x"
            services = ["b"]
            rewrite = "/items/{id}"
            [[rule]]
            gateway = "main"
            path = "/r/1/x"
            methods = ["GET", "PUT"]
            services = ["c"]
            [[rule]]
            gateway = "main"
            path = "/r/long/*"
            strip_path = true
            services = ["b"]
            [[rule]]
            gateway = "main"
            path = "/only"
            methods = ["POST"]
            services = ["a"]
            [[rule]]
            gateway = "main"
            priority = 9
            path = "/r/vip/*"
            model = "gold*"
            services = ["c"]
        "#;
        let s = snapshot(&format!("{BASE}{rules}"));
        let gold = ModelName::Is("gold-1");
        for (method, path, model, want) in [
            ("GET", "/r/1/x", ModelName::Absent, "c"),
            ("POST", "/r/1/x", ModelName::Absent, "b /items/1"),
            ("GET", "/r/2/x", ModelName::Absent, "b /items/2"),
            ("GET", "/r/2/y", ModelName::Absent, "a"),
            ("GET", "/r/long/y/z", ModelName::Absent, "b /y/z"),
            ("GET", "/only", ModelName::Absent, "405 POST"),
            ("POST", "/r/vip/1", gold, "c"),
            ("POST", "/r/vip/1", ModelName::Is("tin"), "a"),
            ("POST", "/r/vip/1", ModelName::Unread, "NeedsModel"),
        ] {
            assert_eq!(decide(&s, method, path, model), want, "{method} {path}");
        }
    }

    #[test]
    fn state_survives_a_change() {
        let registry = Registry::new(Arc::new(NoHttp));
        let metrics = Arc::new(Metrics::new());
        let config = read(BASE);
        let first = compile(&config, 1, &registry, &metrics);
        let second = compile(&config, 2, &registry, &metrics);
        let state = |s: &Snapshot| {
            s.upstreams
                .iter()
                .find(|u| &*u.name == "a")
                .map(|u| u.targets[0].state.clone())
                .unwrap()
        };
        assert!(Arc::ptr_eq(&state(&first), &state(&second)));
    }
}
