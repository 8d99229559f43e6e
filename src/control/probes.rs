//! Which targets are probed, and what is told when one turns.

use std::sync::Arc;

use log::Level;
use serde_json::json;

use super::events::{EventKind, Events};
use crate::health::{Group, Turn, Watched};
use crate::snapshot::Snapshot;

/// The targets of a revision, by upstream.
pub(super) fn of(snapshot: &Snapshot) -> Arc<[Group]> {
    let upstreams = snapshot.upstreams.iter();
    upstreams.map(|upstream| upstream.watched.clone()).collect()
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
