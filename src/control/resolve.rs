//! Host names of targets, resolved in the background: no request ever waits for a name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Control;
use crate::balance::TargetState;
use crate::model::Host;
use crate::snapshot::{Snapshot, Target, Upstream};

/// How often names are looked up again; the system's resolver keeps its own cache.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often while a name never resolved.
const IMPATIENT: Duration = Duration::from_secs(1);
/// For one look-up in the background.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many are looked up at once: each takes a thread while it lasts.
const AT_ONCE: usize = 64;

/// Names and ports, each with all targets that are there.
type Names = HashMap<(String, u16), Vec<Arc<TargetState>>>;

/// Looks every name up. What takes longer than `patience` is left to the background.
pub(super) async fn all(snapshot: &Snapshot, patience: Duration) {
    let names = names(targets(&snapshot.upstreams), |_| true);
    let _ = timeout(patience, look_up(names, patience)).await;
}

/// Looks up the names that never were, of upstreams that are not in the revision before as they are: nobody's change waits for another's names.
pub(super) async fn new(snapshot: &Snapshot, before: &Snapshot, patience: Duration) {
    let names = {
        let known: HashSet<*const Upstream> = before.upstreams.iter().map(Arc::as_ptr).collect();
        let fresh = snapshot.upstreams.iter();
        let fresh = fresh.filter(|upstream| !known.contains(&Arc::as_ptr(upstream)));
        names(targets(fresh), |state| !state.resolved())
    };
    let _ = timeout(patience, look_up(names, patience)).await;
}

fn targets<'s>(
    upstreams: impl IntoIterator<Item = &'s Arc<Upstream>>,
) -> impl Iterator<Item = &'s Target> {
    upstreams.into_iter().flat_map(|upstream| &upstream.targets)
}

fn names<'s>(
    targets: impl Iterator<Item = &'s Target>,
    wanted: impl Fn(&TargetState) -> bool,
) -> Names {
    let mut names = Names::new();
    for target in targets {
        if let Host::Name(name) = &target.url.host
            && !name.is_empty()
            && wanted(&target.state)
        {
            let place = (name.clone(), target.url.port);
            names.entry(place).or_default().push(target.state.clone());
        }
    }
    names
}

async fn look_up(names: Names, patience: Duration) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut lookups = JoinSet::new();
    for ((name, port), states) in names {
        // It is never closed.
        let place = places.clone().acquire_owned().await;
        lookups.spawn(async move {
            one(&name, port, &states, patience).await;
            drop(place);
        });
        while lookups.try_join_next().is_some() {}
    }
    lookups.join_all().await;
}

async fn one(name: &str, port: u16, states: &[Arc<TargetState>], patience: Duration) {
    let known = states.iter().all(|state| state.resolved());
    match timeout(patience, lookup_host((name, port))).await {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.collect();
            for state in states {
                state.set_addresses(found.clone());
            }
        }
        Ok(Err(error)) if !known => {
            log::warn!("the target's name {name} does not resolve: {error}")
        }
        Err(_) if !known => {
            log::warn!("the target's name {name} does not resolve in time")
        }
        // The last known addresses stay.
        _ => {}
    }
}

/// All names now and then, and more often those that never resolved.
pub(super) async fn forever(control: &Control) {
    let mut last = Instant::now();
    loop {
        sleep(IMPATIENT).await;
        let snapshot = control.snapshot();
        let every = last.elapsed() >= INTERVAL;
        if every {
            last = Instant::now();
        }
        let wanted = |state: &TargetState| every || !state.resolved();
        let names = names(targets(&snapshot.upstreams), wanted);
        drop(snapshot);
        look_up(names, PATIENCE).await;
    }
}
