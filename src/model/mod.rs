//! The resources as parsed truth: what the rest of the engine reads, never the text it came from.
//!
//! Every type is declared once by `tollgate_sdk::document!`: its reading, its defaults, its schema and the list of its
//! fields come from that declaration and cannot drift apart. A value of these types is well formed by itself; that names
//! refer to something is checked by `config`, which alone makes a [`Config`] from a document.

mod acme;
mod actuator;
mod auth;
mod disaggregation;
mod gateway;
mod health;
mod key;
mod key_limits;
mod kv_events;
mod listener;
mod models;
mod name;
mod pattern;
mod plugin;
mod policy;
mod process;
mod queue;
mod rate_limit;
mod retry;
mod rule;
mod scaling;
mod service;
mod switch;
mod target;
mod tls;
mod upstream;

use std::sync::Arc;

use tollgate_sdk::document;
use tollgate_sdk::document::{Document, Field, Json};

pub use acme::{Acme, Directory, Proof, UntilIssued};
pub use actuator::{Actuator, Exec, Kubernetes, Ports, Webhook, fill};
pub use auth::{AskBy, Auth, AuthBy, AuthKind, Claims, HttpAuth, JwtAuth, KeySource, WebUrl};
pub use disaggregation::{Disaggregation, KvProtocol, unfit};
pub use gateway::{By, Gateway, Routing, Status};
pub use health::{Breaker, Health, HttpProbe, HttpStatus, Probe};
pub use key::{Key, KeyHash, Moment, Previous, Priority};
pub use key_limits::{KeyBudget, KeyLimits};
pub use kv_events::KvEvents;
pub use listener::Listener;
pub use models::Models;
pub use name::Name;
pub use pattern::{HostPattern, PathPattern, Rewrite, RewritePiece, Segment};
pub use plugin::{OnError, Plugin, PluginSettings};
pub use policy::{CacheAware, HashKey, Policy, PrefixHash, SglangCacheAware};
pub use process::{
    AccessLog, Admin, FilePath, Level, Log, LogFormat, Server, SocketPath, StateStore,
};
pub use queue::{Queue, RetryLimit};
pub use rate_limit::{RateKey, RateLimit};
pub use retry::{PartialRetry, Retry, RetryOn};
pub use rule::{HeaderMatch, PartialTimeouts, Rule, Weighted};
pub use scaling::{Hold, Scaling, ScalingMetric};
pub use service::{Pool, Service, ServiceKind, Timeouts};
pub use switch::Switch;
pub use target::{Host, Role, Scheme, Target, TargetId, TargetUrl};
pub use tls::{Certificate, CertificateFiles, ClientCertificate, ListenerTls};
pub use tollgate_sdk::llm::ModelPattern;
pub use upstream::{Engine, Upstream, UpstreamTls};

document! {
    /// The configuration of one process.
    pub struct Config (default) {
        /// The process as a whole.
        server: Server = Server::default(),
        /// The admin listener: metrics, health, the admin API.
        admin: Admin = Admin::default(),
        /// What is logged, and where to.
        log: Log = Log::default(),
        /// Where certificates are ordered.
        acme: Acme = Acme::default(),
        /// Addresses that accept connections.
        #[written = "listener"]
        listeners: Vec<Listener> = Vec::new(),
        /// Tenants: sets of hosts with their own rules and services.
        #[written = "gateway"]
        gateways: Vec<Arc<Gateway>> = Vec::new(),
        /// What is offered.
        #[written = "service"]
        services: Vec<Arc<Service>> = Vec::new(),
        /// Pools of interchangeable targets that services share.
        #[written = "upstream"]
        upstreams: Vec<Arc<Upstream>> = Vec::new(),
        /// Explicit routing, tried before the model's name.
        #[written = "rule"]
        rules: Vec<Arc<Rule>> = Vec::new(),
        /// Credentials of the gateways' users.
        #[written = "key"]
        keys: Vec<Arc<Key>> = Vec::new(),
    }
}

/// A kind of resource, for whoever serves, lists or documents them all alike.
pub struct Kind {
    /// The name in the file, the API and the command line: `service`.
    pub name: &'static str,
    /// Its JSON Schema.
    pub schema: fn() -> Json,
    /// Its fields.
    pub fields: fn() -> Vec<Field>,
    /// Names of fields a later version will accept.
    pub later: fn() -> Vec<&'static str>,
    /// Its doc comment.
    pub doc: fn() -> String,
}

impl Kind {
    const fn of<T: Document>(name: &'static str) -> Self {
        Self {
            name,
            schema: T::schema,
            fields: T::fields,
            later: T::later,
            doc: T::doc,
        }
    }
}

/// The process-wide tables.
pub const TABLES: [Kind; 4] = [
    Kind::of::<Server>("server"),
    Kind::of::<Admin>("admin"),
    Kind::of::<Log>("log"),
    Kind::of::<Acme>("acme"),
];

/// Every kind of resource, in the order of a file.
pub const KINDS: [Kind; 6] = [
    Kind::of::<Listener>("listener"),
    Kind::of::<Gateway>("gateway"),
    Kind::of::<Service>("service"),
    Kind::of::<Upstream>("upstream"),
    Kind::of::<Rule>("rule"),
    Kind::of::<Key>("key"),
];
