//! Which targets are probed, and what is told when one turns.

use std::sync::Arc;

use crate::health::{Place, Turn, Watched};
use crate::snapshot::{Snapshot, Target, Upstream};

/// The targets of a revision, each once.
pub(super) fn of(snapshot: &Snapshot) -> Arc<[Watched]> {
    let all = snapshot.upstreams.iter().flat_map(|upstream| {
        upstream
            .targets
            .iter()
            .map(move |target| watched(upstream, target))
    });
    all.collect()
}

fn watched(upstream: &Upstream, target: &Target) -> Watched {
    let state = target.state.clone();
    Watched {
        upstream: upstream.name.clone(),
        target: target.label.clone(),
        settings: upstream.health.clone(),
        place: Place {
            url: target.url.clone(),
            authority: target.authority.clone(),
            server_name: target.server_name.clone(),
            verify: upstream.tls.verify,
            http2: upstream.http2,
        },
        address: Arc::new(move || state.address()),
        health: target.health.clone(),
    }
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
