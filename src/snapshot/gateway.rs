//! A gateway, compiled: what it offers, its rules, models and keys.
//!
//! Of a gateway that has changed, what is dear to make (chains, keys, patterns) is taken over where its own document has not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use serde_json::json;

use super::automatic::Automatic;
use super::models::Models;
use super::registry::Offers;
use super::router::Rule;
use super::{Chain, Gateway, ListedModel, Listing, Offer, Registry, Router, Service, Split};
use crate::auth::{Authority, Keys, Outside};
use crate::model::{self, AuthKind, ModelPattern, PathPattern};
use crate::telemetry::{GatewayMetrics, Metrics, OfferMetrics};
use crate::tls::ServerFiles;

/// What a gateway is made of.
pub(super) struct Own<'c> {
    pub(super) document: &'c Arc<model::Gateway>,
    pub(super) services: Vec<&'c Arc<Service>>,
    pub(super) rules: &'c [&'c Arc<model::Rule>],
    pub(super) keys: &'c [&'c Arc<model::Key>],
}

impl Own<'_> {
    /// Whether a gateway was made of the very same.
    pub(super) fn made(&self, known: &Gateway) -> bool {
        let offers = known.router.offers();
        let offered = || offers.iter().map(|offer| &offer.service);
        Arc::ptr_eq(&known.document, self.document)
            && offers.len() == self.services.len()
            && offered()
                .zip(&self.services)
                .all(|(a, b)| Arc::ptr_eq(a, b))
            && are_same(&known.rules, self.rules)
            && are_same(&known.keys, self.keys)
    }
}

fn are_same<T>(known: &[Arc<T>], now: &[&Arc<T>]) -> bool {
    known.len() == now.len() && known.iter().zip(now).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// Compiles a gateway; `known` is how it was before.
pub(super) fn compile(
    own: &Own<'_>,
    known: Option<&Arc<Gateway>>,
    registry: &Registry,
    metrics: &Arc<Metrics>,
) -> Gateway {
    let document = own.document;
    let name: Arc<str> = document.name.clone().into();
    let known = known.map(|known| &**known);
    let chains = Chains {
        offers: &registry.offers,
        metrics,
    };
    let unchanged = known.filter(|known| Arc::ptr_eq(&known.document, document));
    let chain = match unchanged {
        Some(known) => known.chain.clone(),
        None => chains.of(&document.plugins, &format!("gateway/{name}")),
    };
    let known_keys = known.filter(|known| are_same(&known.keys, own.keys));
    let authority = match unchanged.and(known_keys) {
        Some(known) => known.authority.clone(),
        None => authority(own, &registry.offers).map(Arc::new),
    };
    let key_chains = match known_keys {
        Some(known) => known.key_chains.clone(),
        None => Arc::new(key_chains(own, known, chains)),
    };
    let offered = Offered::of(own, &name, known, metrics);
    let listed = Arc::new(Listing::of(describe_models(own)));
    let automatic = Automatic::of(&offered.offers, &listed, &registry.edition);
    Gateway {
        routing: document.routing.clone(),
        allowed: document.allowed_ips.clone(),
        denied: document.denied_ips.clone(),
        paused: document.status == model::Status::Paused,
        identity: ServerFiles::of_gateway(document).map(|files| registry.tls.identity(files)),
        hsts: document.hsts.and_then(hsts),
        authority,
        open: document.auth.kind() == AuthKind::None,
        key_header: document.auth.header.clone(),
        chain,
        key_chains,
        publishes: own.services.iter().any(|service| service.public),
        listed,
        metrics: GatewayMetrics::of(metrics, &name),
        document: document.clone(),
        rules: own.rules.iter().map(|rule| (*rule).clone()).collect(),
        keys: own.keys.iter().map(|key| (*key).clone()).collect(),
        router: router(own, known, offered, automatic, chains),
        name,
    }
}

/// RFC 6797, section 6.1.
fn hsts(duration: Duration) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("max-age={}", duration.as_secs())).ok()
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

/// The gateway's services in their order, and where they stand by name.
struct Offered {
    offers: Vec<Arc<Offer>>,
    places: HashMap<Arc<str>, usize>,
}

impl Offered {
    fn of(
        own: &Own<'_>,
        gateway: &Arc<str>,
        known: Option<&Gateway>,
        metrics: &Arc<Metrics>,
    ) -> Offered {
        let services = own.services.iter().enumerate();
        let places = services
            .clone()
            .map(|(place, service)| (service.name.clone(), place))
            .collect();
        let mut offered = Offered {
            offers: Vec::with_capacity(own.services.len()),
            places,
        };
        let known = known.map_or(&[][..], |known| known.router.offers());
        for (place, service) in services {
            let fallback = offered.fallback(service, &own.document.fallback);
            let same = |known: &&Arc<Offer>| {
                Arc::ptr_eq(&known.service, service) && known.fallback == fallback
            };
            let offer = match known.get(place).filter(same) {
                Some(known) => known.clone(),
                None => Arc::new(Offer {
                    service: (*service).clone(),
                    metrics: OfferMetrics::of(metrics, gateway, &service.name),
                    fallback,
                }),
            };
            offered.offers.push(offer);
        }
        offered
    }

    /// A service's own list, then the gateway's. A service that this gateway does not offer is passed over, as its author was warned.
    fn fallback(&self, service: &Service, gateway: &[model::Name]) -> Vec<usize> {
        let document = &service.document;
        let names = document.fallback.iter().chain(gateway);
        self.indexes(names.filter(|name| **name != document.name))
    }

    /// Where services of these names stand, each once.
    fn indexes<'n>(&self, names: impl Iterator<Item = &'n model::Name>) -> Vec<usize> {
        let mut list = Vec::new();
        for name in names {
            let index = self.places.get(name.as_str());
            if let Some(index) = index.filter(|index| !list.contains(*index)) {
                list.push(*index);
            }
        }
        list
    }

    fn named(&self, name: &model::Name) -> Option<&Arc<Offer>> {
        self.offers.get(*self.places.get(name.as_str())?)
    }
}

fn weighted(offer: &Arc<Offer>) -> (Arc<Offer>, u64) {
    let weight = offer.service.document.weight;
    (offer.clone(), u64::from(weight))
}

/// A gateway for everybody still knows its keys, if it has any: services and rules may ask for them.
fn authority(own: &Own<'_>, offers: &Offers) -> Option<Authority> {
    let auth = &own.document.auth;
    let keys = own.keys.iter().map(|key| &***key);
    if auth.kind() == AuthKind::None {
        return (!own.keys.is_empty()).then(|| Authority::Keys(Keys::of(keys)));
    }
    let outside = Outside {
        http: offers.http.clone(),
        clock: offers.clock.clone(),
        kept: offers.kept.clone(),
    };
    Authority::of(auth, keys, &outside)
}

/// The limits and budgets of keys, counted by key through all its rotations.
fn key_chains(
    own: &Own<'_>,
    known: Option<&Gateway>,
    chains: Chains<'_>,
) -> HashMap<Arc<str>, Arc<Chain>> {
    let known_chain = |key: &Arc<model::Key>| -> Option<Arc<Chain>> {
        known?.key_chains.get(key.name.as_str()).cloned()
    };
    let known_keys = known.map_or(&[][..], |known| &known.keys);
    let known_keys: HashSet<*const model::Key> = known_keys.iter().map(Arc::as_ptr).collect();
    let limited = own.keys.iter().filter_map(|key| {
        if key.limits.0.is_empty() && key.budget.0.is_none() {
            return None;
        }
        let name: Arc<str> = key.name.clone().into();
        if known_keys.contains(&Arc::as_ptr(key)) {
            return Some((name, known_chain(key)?));
        }
        let budget = key.budget.0.iter().cloned();
        let entries: Vec<model::Plugin> = key.limits.0.iter().cloned().chain(budget).collect();
        let owner = format!("key/{}/{name}", own.document.name);
        Some((name, chains.of(&entries, &owner)))
    });
    limited.collect()
}

fn router(
    own: &Own<'_>,
    known: Option<&Gateway>,
    offered: Offered,
    automatic: Option<Automatic>,
    chains: Chains<'_>,
) -> Router {
    let known_rules = known.map_or(&[][..], |known| known.router.rules());
    let known_rules: HashMap<*const model::Rule, &Rule> = known_rules
        .iter()
        .map(|rule| (ptr::from_ref(&*rule.rule), rule))
        .collect();
    let explicit = own.rules.iter().map(|rule| {
        let known = known_rules.get(&Arc::as_ptr(rule)).copied();
        compile_rule(rule, known, &offered, chains)
    });
    let prefixes = offered.offers.iter().filter_map(prefix_rule);
    let rules: Vec<Rule> = explicit.chain(prefixes).collect();
    let models = compile_models(&offered.offers, automatic);
    let by = own.document.routing.by;
    Router::new(rules, models, by, offered.offers, offered.places)
}

fn compile_rule(
    rule: &Arc<model::Rule>,
    known: Option<&Rule>,
    offered: &Offered,
    chains: Chains<'_>,
) -> Rule {
    let chain = match known {
        Some(known) => known.chain.clone(),
        None if rule.plugins.is_empty() => None,
        None => {
            let owner = format!("rule/{}/{}", rule.gateway, rule.name);
            Some(chains.of(&rule.plugins, &owner))
        }
    };
    let fallback = offered.indexes(rule.fallback.iter());
    let named = rule.services.iter().filter_map(|weighted| {
        let offer = offered.named(&weighted.name)?;
        Some((offer.clone(), u64::from(weighted.weight)))
    });
    let split = match rule.services.is_empty() {
        true => None,
        false => Split::new(named.collect()),
    };
    Rule::new(rule.clone(), known, split, fallback, chain)
}

/// A service's `path_prefix` is a rule that every explicit one precedes.
fn prefix_rule(offer: &Arc<Offer>) -> Option<Rule> {
    let document = &offer.service.document;
    let prefix = document.path_prefix.clone()?;
    let rule = model::Rule {
        name: document.name.clone(),
        description: None,
        labels: BTreeMap::new(),
        gateway: document.name.clone(),
        priority: i32::MIN,
        path: Some(PathPattern::Prefix(prefix)),
        methods: Vec::new(),
        headers: Vec::new(),
        model: None,
        services: Vec::new(),
        strip_path: document.strip_prefix,
        rewrite: None,
        preserve_host: false,
        timeouts: model::PartialTimeouts::default(),
        retry: model::PartialRetry::default(),
        fallback: Vec::new(),
        plugins: Vec::new(),
    };
    let split = Split::new(vec![weighted(offer)]);
    Some(Rule::new(Arc::new(rule), None, split, Vec::new(), None))
}

fn compile_models(offers: &[Arc<Offer>], automatic: Option<Automatic>) -> Models {
    let mut places: HashMap<&ModelPattern, usize> = HashMap::new();
    let mut patterns: Vec<(ModelPattern, Vec<(Arc<Offer>, u64)>)> = Vec::new();
    for offer in offers {
        for pattern in offer.service.document.models.listed() {
            let place = *places.entry(pattern).or_insert(patterns.len());
            match patterns.get_mut(place) {
                Some((_, sharing)) => sharing.push(weighted(offer)),
                None => patterns.push((pattern.clone(), vec![weighted(offer)])),
            }
        }
    }
    Models::new(patterns, automatic)
}

/// The models that documents list, by id. Prefix patterns name no model and are left out.
fn describe_models(own: &Own<'_>) -> BTreeMap<Box<str>, ListedModel> {
    let mut serving: BTreeMap<Box<str>, Vec<Arc<Service>>> = BTreeMap::new();
    for service in &own.services {
        for pattern in service.document.models.listed() {
            let ModelPattern::Exact(id) = pattern else {
                continue;
            };
            let services = serving.entry(id.as_str().into()).or_default();
            services.push((*service).clone());
        }
    }
    let serving = serving.into_iter();
    let models =
        serving.filter_map(|(id, services)| Some((id.clone(), ListedModel::of(&id, services)?)));
    models.collect()
}

impl ListedModel {
    /// As OpenAI's list has it; its owner is the first service's. `None` without services.
    pub(super) fn of(id: &str, services: Vec<Arc<Service>>) -> Option<ListedModel> {
        let owner = services.first()?.document.owner.as_deref();
        let owner = owner.unwrap_or("tollgate");
        let entry = json!({"id": id, "object": "model", "created": 0, "owned_by": owner});
        Some(ListedModel {
            entry: entry.to_string().into(),
            services,
        })
    }
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
