//! Upstreams: pools of interchangeable targets.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading, json};
use tollgate_sdk::secret::Secret;

use super::disaggregation::{check_pair, check_targets};
use super::health::refuse_zero;
use super::{
    Breaker, Disaggregation, FilePath, Health, KvEvents, Name, Policy, Probe, Scheme, Switch,
    Target,
};

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
        /// How a target is picked; "consistent_hash" is written `{ name = "consistent_hash", key = "header:X-Session" }`.
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
        /// The engine behind the targets, whose metrics are read: how much it has to do, how large its cache is, which models it serves.
        engine: Engine = Engine::None,
        /// Where engines tell what enters and leaves their caches, for the policy "cache_aware"; `true` turns it on with the defaults.
        kv_events: Switch<KvEvents> = Switch::Off,
        /// How targets are asked whether they serve: a table, or "http", "tcp", "grpc" or "off" alone.
        health: Health = Health::default(),
        /// When a target that fails requests is left alone; "off" never does.
        breaker: Switch<Breaker> = Switch::On(Breaker::default()),
        /// How many requests each target may have at once, if limited; a target's own limit wins.
        #[example = 64]
        #[range(1..=1000000)]
        max_in_flight: Option<u32>,
        /// How long targets that a change by the admin API takes off the list go on at most, while those that it brings do not answer yet; without it they leave at
        /// once.
        #[example = "5m"]
        replace_within: Option<Duration>,
        /// How requests are split between targets that prefill and targets that decode; "off" splits none.
        disaggregation: Switch<Disaggregation> = Switch::Off,
    }
}

impl Upstream {
    /// An upstream of these targets with everything else at its default.
    pub fn of_targets(name: Name, targets: Vec<Target>) -> Self {
        Self {
            name,
            description: None,
            labels: BTreeMap::new(),
            targets,
            policy: Policy::LeastConnections,
            api_key: None,
            headers: Vec::new(),
            tls: UpstreamTls::default(),
            http2: false,
            engine: Engine::None,
            kv_events: Switch::Off,
            health: Health::default(),
            breaker: Switch::On(Breaker::default()),
            max_in_flight: None,
            replace_within: None,
            disaggregation: Switch::Off,
        }
    }

    /// How many requests one of the targets may have at once, if limited.
    pub fn limit_of(&self, target: &Target) -> Option<u32> {
        target.max_in_flight.or(self.max_in_flight)
    }

    /// What concerns several fields.
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        if let (Some(limit), Some(given)) = (self.replace_within, node.entry("replace_within")) {
            refuse_zero([("replace_within", limit)], node, at, r);
            if self.health.probe == Probe::Off {
                let message = "nobody asks targets whether they answer, as `health` is \"off\"";
                let help = "take it out, or let targets be asked";
                r.error(given.span, &at.field("replace_within"), message, help);
            }
        }
        if let Some(given) = node.entry("targets") {
            let settings = self.disaggregation.on();
            check_targets(&self.targets, settings, given, &at.field("targets"), r);
        }
        if let (Some(_), Some(given)) = (self.kv_events.on(), node.entry("kv_events")) {
            self.check_events(given, &at.field("kv_events"), r);
        }
        if let (Some(settings), Some(given)) =
            (self.disaggregation.on(), node.entry("disaggregation"))
        {
            check_pair(
                &self.targets,
                settings,
                given,
                &at.field("disaggregation"),
                r,
            );
        }
        self
    }

    /// Events of caches are for the policy that goes by caches, and come from hosts.
    fn check_events(&self, given: &Node, at: &At<'_>, r: &mut Reading<'_>) {
        if !matches!(self.policy, Policy::CacheAware(_)) {
            let policy = r.format.field("policy", &json!("cache_aware"));
            let help = format!("take it out, or write: {policy}");
            let message = "only the policy \"cache_aware\" goes by what caches hold";
            r.error(given.span, at, message, help);
        }
        let local = |target: &&Target| target.url.scheme == Scheme::Unix;
        if let Some(target) = self.targets.iter().find(local) {
            let message = format!("the target {} has no host to listen to", target.url);
            let help = "give its engine a port, or take `kv_events` out";
            r.error(given.span, at, message, help);
        }
    }
}

document! {
    /// How TLS is spoken to targets.
    pub struct UpstreamTls (default checked) {
        /// Whether the target's certificate must be valid, and for its name.
        verify: bool = true,
        /// The name the certificate must be for, if not the URL's host.
        #[example = "engine.internal"]
        server_name: Option<String>,
        /// A PEM file with the authorities that may vouch for the target, in place of the system's.
        #[example = "engines.pem"]
        ca: Option<FilePath>,
        /// A PEM file with the lists of certificates that their issuers have revoked; a target that shows one of these gets no request.
        #[example = "engines.crl"]
        crl: Option<FilePath>,
        /// A PEM file with the certificate that is shown to the target, followed by those that vouch for it; needs `key`.
        #[example = "tollgate.pem"]
        certificate: Option<FilePath>,
        /// A PEM file with its private key.
        #[example = "tollgate.key"]
        key: Option<FilePath>,
    }
}

impl UpstreamTls {
    /// What concerns several fields.
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        for (name, other) in [("certificate", "key"), ("key", "certificate")] {
            if let (Some(given), None) = (node.entry(name), node.entry(other)) {
                let message = format!("`{name}` is of no use without `{other}`");
                r.error(
                    given.span,
                    &at.field(name),
                    message,
                    format!("add `{other}`"),
                );
            }
        }
        for (name, message) in [
            (
                "ca",
                "nobody has to vouch for the target, as `verify` is false",
            ),
            (
                "crl",
                "who has a revoked certificate may show any other, as `verify` is false",
            ),
        ] {
            if let (Some(given), false) = (node.entry(name), self.verify) {
                let help = "take it out, or `verify = false`";
                r.warn(given.span, &at.field(name), message, help);
            }
        }
        self
    }
}

document! {
    /// The engine behind an upstream.
    pub enum Engine {
        /// Not said.
        None = "none",
        /// vLLM.
        Vllm = "vllm",
        /// SGLang.
        Sglang = "sglang",
        /// Text Generation Inference.
        Tgi = "tgi",
    }
}
