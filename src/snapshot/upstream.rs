//! Upstreams and their targets, compiled: settings from the document, live state from the registry by identity.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use http::header::AUTHORIZATION;

use super::registry::Known;
use super::{Disaggregation, Ranks, Registry, Target, Upstream};
use crate::balance::{
    self, CacheAware, ConsistentHash, LeastConnections, Policy, PowerOfTwo, PrefixHash, Random,
    RoundRobin, SglangCacheAware, stable_hash,
};
use crate::health::{Place, Watched};
use crate::model::{self, Host, Scheme};
use crate::tls::{ClientFiles, Credentials};

/// Compiles one upstream; `document` is what it came from, if it has one of its own.
pub(super) fn compile(
    upstream: &model::Upstream,
    document: Option<&Arc<model::Upstream>>,
    registry: &Registry,
) -> Arc<Upstream> {
    let name: Arc<str> = upstream.name.clone().into();
    let health = Arc::new(upstream.health.clone());
    let files = ClientFiles::of(&upstream.tls);
    let credentials = files.map(|files| registry.tls.credentials(files));
    let targets: Vec<Target> = upstream
        .targets
        .iter()
        .map(|target| compile_target(target, &name, upstream, registry))
        .collect();
    let view: Vec<_> = targets
        .iter()
        .zip(&upstream.targets)
        .map(|(target, document)| balance::Target {
            weight: document.weight,
            id: stable_hash(target.label.as_bytes()),
            state: target.state.clone(),
        })
        .collect();
    let affinity = match &upstream.policy {
        model::Policy::ConsistentHash(key) => Some(key.clone()),
        _ => None,
    };
    let headers: Arc<[_]> = headers(upstream).into();
    let kv_events = upstream.kv_events.on().cloned().map(Arc::new);
    let watched = targets
        .iter()
        .map(|target| {
            let credentials = credentials.clone();
            let asked = Watched {
                headers: headers.clone(),
                kv_events: kv_events.clone(),
                edition: registry.edition.clone(),
                ..watched(target, &name, upstream, &health, credentials)
            };
            Arc::new(asked)
        })
        .collect();
    Arc::new(Upstream {
        document: document.cloned(),
        watched,
        policy: policy(upstream, &name, &view, &targets, registry),
        affinity,
        targets,
        view,
        freed: registry.freed(&name),
        disaggregation: upstream.disaggregation.on().map(Disaggregation::of),
        health,
        headers,
        served: registry.served(&name),
        http2: upstream.http2,
        verify: upstream.tls.verify,
        credentials,
        name,
    })
}

fn policy(
    upstream: &model::Upstream,
    name: &Arc<str>,
    view: &[balance::Target],
    targets: &[Target],
    registry: &Registry,
) -> Box<dyn Policy> {
    match &upstream.policy {
        model::Policy::RoundRobin => Box::new(RoundRobin::default()),
        model::Policy::Random => Box::new(Random),
        model::Policy::LeastConnections => Box::new(LeastConnections::default()),
        model::Policy::PowerOfTwo => Box::new(PowerOfTwo),
        model::Policy::ConsistentHash(_) => Box::new(ConsistentHash),
        model::Policy::CacheAware(settings) => {
            let names = targets.iter().map(|target| target.label.clone());
            let caches = registry.caches(name);
            Box::new(CacheAware::new(settings.clone(), caches, names))
        }
        model::Policy::PrefixHash(settings) => Box::new(PrefixHash {
            bytes: settings.prefix as usize,
        }),
        model::Policy::SglangCacheAware(settings) => {
            let names = view.iter().map(|target| target.id).collect();
            let tree = registry.tree(name);
            Box::new(SglangCacheAware::new(settings.clone(), tree, names))
        }
    }
}

/// The credential before what else is sent.
fn headers(upstream: &model::Upstream) -> Vec<(http::HeaderName, HeaderValue)> {
    let mut headers = upstream.headers.clone();
    if let Some(key) = &upstream.api_key
        && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
    {
        value.set_sensitive(true);
        headers.insert(0, (AUTHORIZATION, value));
    }
    headers
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
        role: target.role,
        bootstrap_port: target.bootstrap_port,
        ranks: Ranks::default(),
    }
}

fn watched(
    target: &Target,
    upstream: &Arc<str>,
    settings: &model::Upstream,
    health: &Arc<model::Health>,
    credentials: Option<Arc<Credentials>>,
) -> Watched {
    let state = target.state.clone();
    Watched {
        upstream: upstream.clone(),
        target: target.label.clone(),
        settings: health.clone(),
        place: Place {
            url: target.url.clone(),
            authority: target.authority.clone(),
            server_name: target.server_name.clone(),
            verify: settings.tls.verify,
            credentials,
            http2: settings.http2,
        },
        address: Arc::new(move || -> Option<SocketAddr> { state.address() }),
        health: target.health.clone(),
        engine: settings.engine,
        state: target.state.clone(),
        freed: target.state.freed().clone(),
        kv_events: None,
        headers: Arc::new([]),
        edition: Arc::default(),
    }
}
