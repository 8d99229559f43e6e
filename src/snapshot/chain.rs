//! Plugin chains, compiled: built once per revision, shared by all requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, IntCounter};
use tollgate_sdk::plugin::{Built, Host, Needs};

use super::Registry;
use crate::model::{self, OnError};
use crate::telemetry::Metrics;

/// The plugins of one owner (a gateway, a service, a rule), in their order.
#[derive(Debug, Default)]
pub struct Chain {
    /// Those that are enabled.
    pub links: Vec<Link>,
    /// What any of them needs.
    pub needs: Needs,
}

/// A plugin in its place.
pub struct Link {
    /// Its name.
    pub name: &'static str,
    /// Itself.
    pub plugin: Built,
    /// What becomes of a request when it breaks down.
    pub on_error: OnError,
    /// How long it may take.
    pub timeout: Duration,
    /// How long it took.
    pub seconds: Histogram,
    /// How often it broke down.
    pub errors: IntCounter,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.name).finish()
    }
}

impl Chain {
    /// Builds the plugins of an owner; `owner` names it, so that what they count is found again in the next revision.
    pub(super) fn of(
        entries: &[model::Plugin],
        owner: &str,
        registry: &Registry,
        metrics: &Metrics,
    ) -> Arc<Chain> {
        let mut enabled: Vec<&model::Plugin> = entries.iter().filter(|e| e.enabled).collect();
        enabled.sort_by_key(|entry| entry.priority);
        let mut links: Vec<Link> = Vec::with_capacity(enabled.len());
        for entry in enabled {
            let kind = tollgate_plugins::BUILTINS
                .iter()
                .find(|kind| kind.name == entry.name);
            let (Some(kind), Some(settings)) = (kind, entry.settings.settings()) else {
                continue;
            };
            let nth = links.iter().filter(|link| link.name == kind.name).count();
            let host = Host {
                quota: registry.quota.clone(),
                http: registry.http.clone(),
                kept: registry.plugins.clone(),
                identity: format!("{owner}/{}/{nth}", kind.name).into(),
            };
            links.push(Link {
                name: kind.name,
                plugin: settings.build(&host),
                on_error: entry.on_error,
                timeout: entry.timeout,
                seconds: metrics.plugin_seconds.with_label_values(&[kind.name]),
                errors: metrics.plugin_errors.with_label_values(&[kind.name]),
            });
        }
        let needs = links.iter().fold(Needs::default(), |needs, link| {
            needs.or(link.plugin.needs())
        });
        Arc::new(Chain { links, needs })
    }
}
