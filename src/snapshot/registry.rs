//! Live state, kept by identity across revisions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tollgate_sdk::plugin::{Host, Http, Kept as KeptByPlugins};
use tollgate_sdk::quota::{Clock, Local, Quota, SystemClock};

use super::Scaled;
use crate::balance::{
    Caches, Demand, Edition, Freed, Prompts, Queue, RetryBudget, Served, TargetState, Tree,
};
use crate::health::TargetHealth;
use crate::tls::Files;

/// What is known of a target: its load and its health.
#[derive(Clone, Debug)]
pub struct Known {
    /// Load, limit, pace, addresses.
    pub state: Arc<TargetState>,
    /// Probes, breaker, cooling.
    pub health: Arc<TargetHealth>,
}

/// What lives as long as a service is configured.
#[derive(Debug, Default)]
pub struct ServiceState {
    /// Where its requests wait.
    pub queue: Arc<Queue>,
    /// Where they wait for a target with room.
    pub room: Arc<Queue>,
    /// What its retries are paid from.
    pub budget: RetryBudget,
    /// How many tokens its engine makes of requests.
    pub prompts: Prompts,
    /// What is asked of it.
    pub demand: Demand,
    /// How its scaling stands, if it is scaled and that was looked at.
    pub scaled: ArcSwapOption<Scaled>,
    /// Told whenever that was looked at again.
    pub decided: Notify,
}

impl ServiceState {
    /// Requests that wait, for a target with room or to be sent again.
    pub fn waiting(&self) -> usize {
        self.room.depth() + self.queue.depth()
    }
}

/// States by identity: a target's upstream and URL, a service's name. What no revision refers to any more is forgotten
/// at the next compile, once its last request has ended.
pub struct Registry {
    // Only locked while a snapshot is compiled.
    kept: Mutex<Kept>,
    /// What plugins are offered.
    pub offers: Offers,
    /// Certificates and keys.
    pub tls: Arc<Files>,
    /// Counts the changes of what engines serve.
    pub edition: Arc<Edition>,
}

/// What plugins are offered, the same in every revision.
#[derive(Clone)]
pub struct Offers {
    /// What limits have counted.
    pub quota: Arc<dyn Quota>,
    /// Calls to other servers.
    pub http: Arc<dyn Http>,
    /// What time it is for whatever is remembered.
    pub clock: Arc<dyn Clock>,
    /// What plugins keep.
    pub kept: Arc<KeptByPlugins>,
}

impl Offers {
    /// For the plugin of this identity.
    pub(super) fn host(&self, identity: Arc<str>) -> Host {
        Host {
            quota: self.quota.clone(),
            http: self.http.clone(),
            kept: self.kept.clone(),
            identity,
        }
    }
}

impl Registry {
    /// With nothing known yet.
    pub fn new(http: Arc<dyn Http>) -> Registry {
        Registry {
            kept: Mutex::default(),
            tls: Arc::default(),
            edition: Arc::default(),
            offers: Offers {
                quota: Arc::new(Local::new()),
                http,
                clock: Arc::new(SystemClock::default()),
                kept: Arc::default(),
            },
        }
    }
}

#[derive(Debug, Default)]
struct Kept {
    targets: HashMap<(Arc<str>, Arc<str>), Known>,
    freed: HashMap<Arc<str>, Arc<Freed>>,
    caches: HashMap<Arc<str>, Arc<Caches>>,
    trees: HashMap<Arc<str>, Arc<Tree>>,
    served: HashMap<Arc<str>, Arc<Served>>,
    services: HashMap<Arc<str>, Arc<ServiceState>>,
}

impl Registry {
    /// What is known of a target, from before or nothing yet.
    pub fn target(&self, upstream: &Arc<str>, url: &Arc<str>) -> Known {
        let mut kept = self.lock();
        let freed = kept.freed.entry(upstream.clone()).or_default().clone();
        let fresh = || Known {
            state: Arc::new(TargetState::new(freed)),
            health: Arc::default(),
        };
        let identity = (upstream.clone(), url.clone());
        kept.targets.entry(identity).or_insert_with(fresh).clone()
    }

    /// What the caches of an upstream's targets are taken to hold.
    pub fn caches(&self, upstream: &Arc<str>) -> Arc<Caches> {
        let mut kept = self.lock();
        kept.caches.entry(upstream.clone()).or_default().clone()
    }

    /// Where an upstream's prompts went.
    pub fn tree(&self, upstream: &Arc<str>) -> Arc<Tree> {
        let mut kept = self.lock();
        kept.trees.entry(upstream.clone()).or_default().clone()
    }

    /// What an upstream's engines served last.
    pub fn served(&self, upstream: &Arc<str>) -> Arc<Served> {
        let mut kept = self.lock();
        kept.served.entry(upstream.clone()).or_default().clone()
    }

    /// Who is told when a place at one of an upstream's targets is given back.
    pub fn freed(&self, upstream: &Arc<str>) -> Arc<Freed> {
        let mut kept = self.lock();
        kept.freed.entry(upstream.clone()).or_default().clone()
    }

    /// A service's state, from before or new.
    pub fn service(&self, name: &Arc<str>) -> Arc<ServiceState> {
        self.lock()
            .services
            .entry(name.clone())
            .or_default()
            .clone()
    }

    /// Forgets what nothing holds any more.
    pub fn sweep(&self) {
        self.tls.sweep();
        let mut kept = self.lock();
        kept.targets
            .retain(|_, known| Arc::strong_count(&known.state) > 1);
        kept.freed.retain(|_, freed| Arc::strong_count(freed) > 1);
        kept.caches
            .retain(|_, caches| Arc::strong_count(caches) > 1);
        kept.trees.retain(|_, tree| Arc::strong_count(tree) > 1);
        kept.served
            .retain(|_, served| Arc::strong_count(served) > 1);
        kept.services
            .retain(|_, state| Arc::strong_count(state) > 1);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use tollgate_sdk::plugin::NoHttp;

    use super::*;

    #[test]
    fn state_is_kept_while_anything_holds_it() {
        let registry = Registry::new(Arc::new(NoHttp));
        let (name, url): (Arc<str>, Arc<str>) = ("u".into(), "http://a".into());
        let first = registry.target(&name, &url);
        registry.sweep();
        assert!(Arc::ptr_eq(
            &first.state,
            &registry.target(&name, &url).state
        ));
        drop(first);
        registry.sweep();
        assert!(registry.lock().targets.is_empty());
        assert!(registry.lock().freed.is_empty());
    }
}
