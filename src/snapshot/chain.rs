//! Plugin chains, compiled: built once per revision, shared by all requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tollgate_sdk::plugin::{Built, Charge, Host, Kind, Needs, Stage};
use tollgate_sdk::quota::Quota;

use super::registry::Offers;
use crate::model::{self, OnError};
use crate::telemetry::{Metrics, Times};

/// The plugins of one owner (a gateway, a key, a service, a rule), in their order.
#[derive(Debug, Default)]
pub struct Chain {
    /// Those that are enabled.
    pub links: Vec<Link>,
    /// What any of them needs.
    pub needs: Needs,
    /// Some of them may wait before the request is sent, or run together.
    pub waits: bool,
}

/// A plugin in its place.
pub struct Link {
    /// Its name.
    pub name: &'static str,
    /// Itself.
    pub plugin: Built,
    /// Limits that are counted in its place.
    pub charges: Arc<[Charge]>,
    /// Where they are counted.
    pub quota: Arc<dyn Quota>,
    /// Lower ones run first.
    pub priority: u16,
    /// How many run together from here on, itself included.
    pub together: usize,
    /// The stages it runs in.
    pub stages: Stages,
    /// One of them comes after `pre_request`.
    pub later: bool,
    /// What it needs in those.
    pub needs: Needs,
    /// What becomes of a request when it breaks down.
    pub on_error: OnError,
    /// How long it may take.
    pub timeout: Duration,
    /// How long it took.
    pub seconds: Arc<Times>,
    /// How often it broke down.
    pub errors: IntCounter,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.name).finish()
    }
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages(u8);

impl Stages {
    /// These.
    pub fn of(stages: &[Stage]) -> Stages {
        Stages(stages.iter().fold(0, |set, stage| set | 1 << *stage as u8))
    }

    /// Whether this is one of them.
    pub fn has(self, stage: Stage) -> bool {
        self.0 & (1 << stage as u8) != 0
    }
}

impl Chain {
    /// Whether any of them reads the request's body, or is told of it.
    pub fn reads(&self) -> bool {
        self.needs.request_body || self.needs.request_peek
    }

    /// Builds the plugins of an owner; `owner` names it, so that what they count is found again in the next revision.
    pub(super) fn of(
        entries: &[model::Plugin],
        owner: &str,
        offers: &Offers,
        metrics: &Metrics,
    ) -> Arc<Chain> {
        let mut enabled: Vec<&model::Plugin> = entries.iter().filter(|e| e.enabled).collect();
        // Those that run together stand together, before their equals.
        enabled.sort_by_key(|entry| (entry.priority, !entry.parallel));
        let mut links: Vec<Link> = Vec::with_capacity(enabled.len());
        let mut parallel: Vec<Option<u16>> = Vec::with_capacity(enabled.len());
        for entry in enabled {
            let kind = tollgate_plugins::BUILTINS
                .iter()
                .find(|kind| kind.name == entry.name);
            let (Some(kind), Some(settings)) = (kind, entry.settings.settings()) else {
                continue;
            };
            let nth = links.iter().filter(|link| link.name == kind.name).count();
            let host = offers.host(format!("{owner}/{}/{nth}", kind.name).into());
            let plugin = settings.build_at(&host, entry.stage);
            let mut link = Link::new(kind, plugin, host, entry, metrics);
            if let Some(patience) = settings.patience() {
                // Its own limit comes first: then it can say what was late.
                link.timeout = link.timeout.max(patience + Duration::from_secs(1));
            }
            parallel.push(entry.parallel.then_some(entry.priority));
            links.push(link);
        }
        for (at, link) in links.iter_mut().enumerate() {
            // Those of the same priority that say so, if it says so itself.
            let same = |other: &&Option<u16>| {
                other.is_some() && **other == parallel.get(at).copied().flatten()
            };
            link.together = { parallel.iter().skip(at) }.take_while(same).count().max(1);
        }
        let needs = links
            .iter()
            .fold(Needs::default(), |needs, link| needs.or(link.needs));
        let waits = needs.waiting || links.iter().any(|link| link.together > 1);
        Arc::new(Chain {
            links,
            needs,
            waits,
        })
    }
}

impl Link {
    fn new(
        kind: &Kind,
        plugin: Built,
        host: Host,
        entry: &model::Plugin,
        metrics: &Metrics,
    ) -> Link {
        let stages = match entry.stage.filter(|_| kind.apart) {
            Some(stage) => Stages::of(&[stage]),
            None => Stages::of(kind.stages),
        };
        let charges = plugin.charges();
        let mut wanted = plugin.needs();
        wanted.request_peek |= charges.iter().any(Charge::reads_body);
        let asks = stages.has(Stage::PreRequest) || stages.has(Stage::PostRequest);
        let answers = stages.has(Stage::PreResponse);
        Link {
            name: kind.name,
            plugin,
            charges,
            quota: host.quota,
            priority: entry.priority,
            together: 1,
            stages,
            later: stages != Stages::of(&[Stage::PreRequest]),
            needs: Needs {
                request_body: wanted.request_body && asks,
                request_peek: wanted.request_peek && asks,
                chunks: wanted.chunks && answers,
                response_body: wanted.response_body && answers,
                waiting: wanted.waiting && asks,
            },
            on_error: entry.on_error,
            timeout: entry.timeout,
            seconds: metrics.plugin_seconds.of(kind.name),
            errors: metrics.plugin_errors.with_label_values(&[kind.name]),
        }
    }
}
