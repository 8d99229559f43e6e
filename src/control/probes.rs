//! Which targets are probed, and what is told when one turns.

use std::sync::Arc;

use log::Level;
use serde_json::json;

use super::events::{EventKind, Events};
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

/// A target turned: say so, and why if it is down.
pub(super) fn turned(events: &Events, watched: &Watched, turn: Turn, why: Option<&str>) {
    let (upstream, target) = (&*watched.upstream, &*watched.target);
    let (level, word, message) = match turn {
        Turn::WentDown => (
            Level::Warn,
            "down",
            format!(
                "target {target} of upstream {upstream} is down: {}",
                why.unwrap_or_default()
            ),
        ),
        Turn::WentUp => (
            Level::Info,
            "up",
            format!("target {target} of upstream {upstream} is up"),
        ),
        // Those are requests' to tell.
        Turn::Opened | Turn::Closed => return,
    };
    let names = json!({"upstream": upstream, "target": target, "health": word});
    events.announce(level, EventKind::Target, &message, names);
}
