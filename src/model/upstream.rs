//! Upstreams: pools of interchangeable targets.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading};
use tollgate_sdk::secret::Secret;

use super::service::refuse_no_targets;
use super::{Name, Target};

document! {
    /// A pool of interchangeable targets.
    pub struct Upstream (checked) {
        /// Its name.
        #[example = "pool"]
        name: Name,
        /// What it is for.
        #[example = "eight H100"]
        description: Option<String>,
        /// Labels of your own.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// Where requests are sent: URLs, or `{ url = "http://…", weight = 1, labels = { … } }`.
        targets: Vec<Target>,
        /// How a target is picked.
        policy: Policy = Policy::LeastConnections,
        /// The credential sent upstream, as `Authorization: Bearer`; `"${NAME}"` or `{ file = "path" }` keep it out of this file.
        #[example = "${PROVIDER_API_KEY}"]
        api_key: Option<Secret<String>>,
        /// Headers sent upstream with every request.
        headers: Vec<(HeaderName, HeaderValue)> = Vec::new(),
        /// How TLS is spoken to `https` targets.
        tls: UpstreamTls = UpstreamTls::default(),
        /// Whether HTTP/2 is spoken to `https` targets.
        http2: bool = false,
        /// The engine whose metrics are read. Only "none" is supported yet.
        engine: Engine = Engine::None,
        /// How targets are probed. Only "off" is supported yet.
        health: Health = Health::Off,
    }
    later ["breaker", "max_in_flight", "disaggregation"]
}

impl Upstream {
    /// What concerns several fields.
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        if let Some(given) = node.entry("targets") {
            refuse_no_targets(given, at, r);
        }
        self
    }
}

document! {
    /// How a target is picked.
    pub enum Policy ("name") {
        /// Each in turn.
        RoundRobin = "round_robin",
        /// The one with the fewest requests in flight.
        LeastConnections = "least_connections",
    }
    later ["random", "power_of_two", "consistent_hash", "cache_aware"]
}

document! {
    /// How TLS is spoken to targets.
    pub struct UpstreamTls (default) {
        /// Whether the target's certificate must be valid.
        verify: bool = true,
        /// The name the certificate must be for, if not the URL's host.
        #[example = "engine.internal"]
        server_name: Option<String>,
    }
    later ["ca", "certificate", "key"]
}

document! {
    /// The engine behind an upstream.
    pub enum Engine {
        /// Not said.
        None = "none",
    }
    later ["vllm", "sglang", "tgi"]
}

document! {
    /// How targets are probed.
    pub enum Health ("type") {
        /// Not at all.
        Off = "off",
    }
    later ["http", "tcp", "grpc"]
}
