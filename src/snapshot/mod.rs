//! The configuration in force, compiled: immutable, shared, swapped as a whole.
//!
//! A request takes one [`Snapshot`] at its start and sees nothing else until its end. What lives longer than a
//! revision (load, addresses) hangs on the targets' states, which the [`Registry`] keeps by identity. What a change does not touch is shared with the
//! revision before. Compiling does no I/O.

mod automatic;
mod chain;
mod compile;
mod disaggregation;
mod gateway;
mod hosts;
mod models;
mod paths;
mod rates;
mod registry;
mod router;
mod rules;
mod scaled;
mod split;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::auth::Authority;
use crate::balance;
use crate::health::{TargetHealth, Watched};
use crate::model;
use crate::telemetry::{GatewayMetrics, OfferMetrics, Owned};
use crate::tls::{Credentials, Identity};

pub use chain::{Chain, Link};
pub use compile::compile;
pub use disaggregation::{Disaggregation, Ranks};
pub use gateway::list_models;
pub use hosts::{HostEntry, Hosts, without_port};
pub use paths::join_target_path;
pub use rates::Rates;
pub use registry::{Registry, ServiceState};
pub use router::{Decision, Head, ModelName, Route, Router, Who, model_in_path};
pub use scaled::Scaled;
pub use split::Split;

/// One compiled revision.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every change.
    pub revision: u64,
    /// What every request is held to.
    pub bounds: Arc<Bounds>,
    /// Which gateway a host belongs to.
    pub hosts: Arc<Hosts>,
    /// All gateways.
    pub gateways: Vec<Arc<Gateway>>,
    /// All upstreams: the named ones, then those in place.
    pub upstreams: Vec<Arc<Upstream>>,
    /// All services.
    pub services: Vec<Arc<Service>>,
}

impl Snapshot {
    /// A service as a gateway offers it.
    pub fn offer(&self, gateway: &str, service: &str) -> Option<&Arc<Offer>> {
        let gateway = self.gateways.iter().find(|known| *known.name == *gateway)?;
        let mut offers = gateway.router.offers().iter();
        offers.find(|offer| *offer.service.name == *service)
    }

    fn named_upstreams(&self) -> &[Arc<Upstream>] {
        let named = self
            .upstreams
            .partition_point(|upstream| upstream.document.is_some());
        self.upstreams.get(..named).unwrap_or_default()
    }
}

/// What every request is held to, whichever gateway it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// Peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Largest request body, bytes.
    pub max_body: u64,
    /// How long a request body may take to arrive.
    pub body_timeout: Duration,
    /// The port to which those are sent who are to speak TLS: that of a listener that does, 443 if one has it.
    pub https_port: Option<u16>,
}

/// A tenant: hosts, rules and services.
pub struct Gateway {
    /// Its name.
    pub name: Arc<str>,
    /// What it was compiled from, beside its services.
    pub document: Arc<model::Gateway>,
    rules: Vec<Arc<model::Rule>>,
    keys: Vec<Arc<model::Key>>,
    /// What is counted of requests that reach no service.
    pub metrics: Owned<GatewayMetrics>,
    /// Where requests name their model.
    pub routing: model::Routing,
    /// Addresses that may ask; empty: all.
    pub allowed: Vec<IpNet>,
    /// Addresses that may not.
    pub denied: Vec<IpNet>,
    /// Refuses everything with 503.
    pub paused: bool,
    /// What clients are shown that ask for one of its hosts.
    pub identity: Option<Arc<Identity>>,
    /// What is said of how long to insist on TLS.
    pub hsts: Option<HeaderValue>,
    /// Who decides who asks, if anybody does.
    pub authority: Option<Arc<Authority>>,
    /// Everybody may use it, also who is not known.
    pub open: bool,
    /// A header for keys besides the usual ones.
    pub key_header: Option<HeaderName>,
    /// What every request passes before it is routed.
    pub chain: Arc<Chain>,
    /// What the requests of a key pass before that, by the key's id; none for keys without limits.
    pub key_chains: Arc<HashMap<Arc<str>, Arc<Chain>>>,
    /// Some of its services are for everybody although it has keys.
    pub publishes: bool,
    /// Rules and models.
    pub router: Router,
    /// The models that documents list.
    listed: Arc<Listing>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gateway").field(&self.name).finish()
    }
}

/// Models as they are listed.
#[derive(Debug)]
pub struct Listing {
    /// The answer to `GET /v1/models`.
    pub all: Bytes,
    /// The answers to `GET /v1/models/{id}`, by id, and who serves them.
    pub models: BTreeMap<Box<str>, ListedModel>,
}

/// A model as it is listed.
#[derive(Clone, Debug)]
pub struct ListedModel {
    /// Its entry.
    pub entry: Bytes,
    /// The services that serve it.
    pub services: Vec<Arc<Service>>,
}

impl Gateway {
    /// Its models, those that engines serve among them.
    pub fn listing(&self) -> Arc<Listing> {
        let automatic = self.router.automatic();
        automatic.map_or_else(|| self.listed.clone(), |automatic| automatic.listing())
    }

    /// Whether clients must show a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        let required = self.document.client_certificate == model::ClientCertificate::Required;
        required && self.document.client_ca.is_some()
    }

    /// Whether a client at this address may ask.
    pub fn admits(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let covers = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
        !covers(&self.denied) && (self.allowed.is_empty() || covers(&self.allowed))
    }
}

/// A service as one gateway offers it.
pub struct Offer {
    /// What is offered.
    pub service: Arc<Service>,
    /// Where it is counted.
    pub metrics: Owned<OfferMetrics>,
    /// Who serves when it cannot: indexes of the gateway's offers, the service's list before the gateway's.
    pub fallback: Vec<usize>,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Offer").field(&self.service.name).finish()
    }
}

/// Something offered: a model, or any HTTP interface.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: Arc<str>,
    /// What it was compiled from.
    pub document: Arc<model::Service>,
    /// Its name as a header value.
    pub header: HeaderValue,
    /// What it speaks.
    pub kind: model::ServiceKind,
    /// What its requests pass.
    pub chain: Arc<Chain>,
    /// How many may come.
    pub rates: Option<Rates>,
    /// It is for everybody, also in a gateway with keys.
    pub public: bool,
    /// The model name sent upstream instead of the client's.
    pub alias: Option<Arc<str>>,
    /// Where it is served.
    pub upstream: Arc<Upstream>,
    /// How long things may take.
    pub timeouts: model::Timeouts,
    /// What is tried again, and how often.
    pub retry: Arc<model::Retry>,
    /// Whether and how requests wait.
    pub queue: Option<model::Queue>,
    /// Its queue and retry budget.
    pub state: Arc<ServiceState>,
}

impl Service {
    /// Whether request bodies are read before they are forwarded. Others stream both ways.
    pub fn buffers(&self) -> bool {
        matches!(
            self.kind,
            model::ServiceKind::Openai | model::ServiceKind::Graphql
        )
    }

    /// How many targets serve it, if that follows from what is asked.
    pub fn scaling(&self) -> Option<&model::Scaling> {
        self.document.scaling.on()
    }

    /// Whether what is asked of it may scale something: itself, or a role of its upstream.
    pub fn counts_demand(&self) -> bool {
        self.scaling().is_some() || self.upstream.disaggregation.is_some()
    }

    /// The targets that scaling counts: those of its role.
    pub fn replicas(&self) -> impl Iterator<Item = &Target> {
        let scaling = self.scaling();
        let counts = move |target: &&Target| scaling.is_none_or(|s| s.concerns(target.role));
        self.upstream.targets.iter().filter(counts)
    }

    /// Whether bodies are requests for tokens, to be metered.
    pub fn meters(&self) -> bool {
        self.kind == model::ServiceKind::Openai
    }
}

/// Interchangeable targets.
#[derive(Debug)]
pub struct Upstream {
    /// Its name; for targets given in place, the service's.
    pub name: Arc<str>,
    /// What it was compiled from; none of its own for targets given in place.
    pub document: Option<Arc<model::Upstream>>,
    /// The targets.
    pub targets: Vec<Target>,
    /// The targets as a policy sees them, in the same order.
    pub view: Vec<balance::Target>,
    /// Who is told when one of them gives a place back, comes up or joins.
    pub freed: Arc<balance::Freed>,
    /// How one is picked.
    pub policy: Box<dyn balance::Policy>,
    /// What of a request ties it to others, for policies with affinity.
    pub affinity: Option<model::HashKey>,
    /// How requests are split between targets, if they are.
    pub disaggregation: Option<Disaggregation>,
    /// How its targets are probed.
    pub health: Arc<model::Health>,
    /// The targets as probes see them, in the same order.
    pub watched: Arc<[Arc<Watched>]>,
    /// Credential and other headers added to requests.
    pub headers: Arc<[(HeaderName, HeaderValue)]>,
    /// What its engines served when that was known last.
    pub served: Arc<balance::Served>,
    /// Speak HTTP/2.
    pub http2: bool,
    /// Whether targets must have a certificate for their name.
    pub verify: bool,
    /// What connections to them take along.
    pub credentials: Option<Arc<Credentials>>,
}

impl Upstream {
    /// The models that its engines serve, as far as they ever told.
    pub fn models(&self) -> Arc<balance::Names> {
        let signals = self.targets.iter().map(|target| target.state.signals());
        self.served.by(signals.map(|signals| signals.listed()))
    }

    /// Whether any target is spoken to in HTTP/2.
    pub fn speaks_h2(&self) -> bool {
        self.http2
            || self
                .targets
                .iter()
                .any(|t| t.url.scheme == model::Scheme::H2c)
    }
}

impl Target {
    /// Whether its engine listed this model last.
    pub fn lists(&self, model: &str) -> bool {
        self.state.signals().listed().has(model)
    }
}

/// One address.
#[derive(Debug)]
pub struct Target {
    /// As configured.
    pub url: model::TargetUrl,
    /// The URL as written, for metrics and status.
    pub label: Arc<str>,
    /// `Host` for requests.
    pub authority: HeaderValue,
    /// Name for TLS: SNI, and what the certificate must say.
    pub server_name: String,
    /// Live state.
    pub state: Arc<balance::TargetState>,
    /// How it stands.
    pub health: Arc<TargetHealth>,
    /// What it does for split requests.
    pub role: model::Role,
    /// Where its KV is asked for, if that must be told.
    pub bootstrap_port: Option<u16>,
    /// The engines behind it, for protocols that tell them apart.
    pub ranks: Ranks,
}
