//! Which targets are probed, and what is told when one turns.

use std::sync::Arc;

use crate::health::{Group, Turn, Watched};
use crate::snapshot::Snapshot;

/// The targets of a revision, by upstream.
pub(super) fn of(snapshot: &Snapshot) -> Arc<[Group]> {
    let upstreams = snapshot.upstreams.iter();
    upstreams.map(|upstream| upstream.watched.clone()).collect()
}

/// A target turned: say so.
pub(super) fn turned(watched: &Watched, turn: Turn) {
    let (upstream, target) = (&watched.upstream, &watched.target);
    match turn {
        Turn::WentDown => {
            log::warn!("the target {target} of {upstream} does not answer its checks")
        }
        Turn::WentUp => log::info!("the target {target} of {upstream} is up"),
        Turn::Opened | Turn::Closed => {}
    }
}
