//! Host names of targets, resolved in the background: no request ever waits for a name.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Control;
use crate::balance::TargetState;
use crate::model::Host;
use crate::snapshot::Snapshot;

/// How often names are looked up again; the system's resolver keeps its own cache.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often while a name never resolved.
const IMPATIENT: Duration = Duration::from_secs(1);
/// For one look-up in the background.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks every name up, all at the same time.
pub(super) async fn all(snapshot: &Snapshot, patience: Duration) {
    look_up(snapshot, patience, |_| true).await;
}

/// Looks up the names that never were.
pub(super) async fn new(snapshot: &Snapshot, patience: Duration) {
    look_up(snapshot, patience, |state| !state.resolved()).await;
}

async fn look_up(snapshot: &Snapshot, patience: Duration, wanted: impl Fn(&TargetState) -> bool) {
    let mut lookups = JoinSet::new();
    for target in snapshot
        .upstreams
        .iter()
        .flat_map(|upstream| &upstream.targets)
    {
        if let Host::Name(name) = &target.url.host
            && !name.is_empty()
            && wanted(&target.state)
        {
            lookups.spawn(one(
                name.clone(),
                target.url.port,
                target.state.clone(),
                patience,
            ));
        }
    }
    lookups.join_all().await;
}

async fn one(name: String, port: u16, state: Arc<TargetState>, patience: Duration) {
    match timeout(patience, lookup_host((name.as_str(), port))).await {
        Ok(Ok(found)) => state.set_addresses(found.collect()),
        Ok(Err(error)) if !state.resolved() => {
            log::warn!("the target's name {name} does not resolve: {error}")
        }
        Err(_) if !state.resolved() => {
            log::warn!("the target's name {name} does not resolve in time")
        }
        // The last known addresses stay.
        _ => {}
    }
}

pub(super) async fn forever(control: &Control) {
    loop {
        let snapshot = control.snapshot();
        let missing = snapshot
            .upstreams
            .iter()
            .flat_map(|upstream| &upstream.targets)
            .any(|target| !target.url.is_local() && !target.state.resolved());
        tokio::time::sleep(if missing { IMPATIENT } else { INTERVAL }).await;
        all(&control.snapshot(), PATIENCE).await;
    }
}
