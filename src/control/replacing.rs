//! Targets that others take the place of: with `replace_within` of their upstream they go on until those that came answer.
//!
//! A change that takes targets off an upstream's list registers them beside it, in the same transaction, with a label that says until when. They leave
//! by the road of every change, one for each that answers, those with the least to do first; what they have comes to its end, as at any target that
//! leaves. So whoever comes after this process goes on with it, and a plan shows it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use tollgate_sdk::document::{Document, Json, Node};

use super::{Control, Edit, Source, What};
use crate::config::{Candidate, Model, Registered, ResourceKind, Set, id_of};
use crate::model::{Probe, Role, Target, TargetId, TargetUrl, Upstream};
use crate::snapshot;

/// The label with the moment at which a target leaves at the latest.
const LEAVING: &str = "tollgate.leaving";
/// How often it is looked who may leave.
const LOOK: Duration = Duration::from_millis(100);

/// Until when a target goes on, if others take its place.
fn leaves_at(target: &Target) -> Option<Timestamp> {
    target.labels.get(LEAVING)?.parse().ok()
}

/// Registered targets that others take the place of.
fn leaving(set: &Set) -> impl Iterator<Item = (&Arc<Registered>, Timestamp)> {
    let all = set.all(ResourceKind::Target).iter();
    all.filter_map(|resource| match &resource.model {
        Model::Target(registered) => Some((registered, leaves_at(&registered.target)?)),
        _ => None,
    })
}

fn edit(upstream: &str, id: &TargetId, what: impl FnOnce(String) -> What) -> Edit {
    Edit {
        kind: ResourceKind::Target,
        path: String::new(),
        what: what(format!("{upstream}/{}", id.as_str())),
    }
}

/// What belongs to a change of upstreams' lists: targets that it takes away go on for a while, and those that it brings back need not leave any more.
pub(super) fn edits(candidate: &Candidate<'_>, present: &Set) -> Vec<Edit> {
    let mut edits = Vec::new();
    for (before, after) in candidate.other_upstreams() {
        let name = after.name.as_str();
        let urls: HashSet<&TargetUrl> = after.targets.iter().map(|target| &target.url).collect();
        let left = leaving(present).filter(|(known, _)| known.upstream.as_str() == name);
        for (known, _) in left.filter(|(known, _)| urls.contains(&known.target.url)) {
            edits.push(edit(name, &id_of(&known.target), |name| What::Delete {
                name,
            }));
        }
        edits.extend(going_on(before, &after, &urls, present));
    }
    edits
}

/// The targets of the one list that are not in the other, which is there to replace it.
fn going_on(
    before: &Upstream,
    after: &Upstream,
    urls: &HashSet<&TargetUrl>,
    present: &Set,
) -> Vec<Edit> {
    let Some(until) = after.replace_within.and_then(|limit| {
        let limit = jiff::SignedDuration::try_from(limit).ok()?;
        Timestamp::now().checked_add(limit).ok()
    }) else {
        return Vec::new();
    };
    let name = after.name.as_str();
    let own = |known: &&Arc<Registered>| known.upstream.as_str() == name;
    let registered = present.all(ResourceKind::Target).iter();
    let registered = registered.filter_map(|resource| match &resource.model {
        Model::Target(known) => Some(known),
        _ => None,
    });
    let mut taken: HashSet<TargetId> = after.targets.iter().map(id_of).collect();
    taken.extend(registered.filter(own).map(|known| id_of(&known.target)));
    let mut edits = Vec::new();
    for target in before.targets.iter().filter(|t| !urls.contains(&t.url)) {
        let ids = [id_of(target), TargetId::of(&target.url)];
        let Some(id) = ids.into_iter().find(|id| !taken.contains(id)) else {
            continue;
        };
        taken.insert(id.clone());
        let mut kept = target.clone();
        kept.id = None;
        kept.labels.insert(LEAVING.to_owned(), until.to_string());
        if after.disaggregation.on().is_none() {
            kept.role = Role::Both;
            kept.bootstrap_port = None;
        }
        let mut fields = kept.value_fields();
        fields.retain(|_, value| !value.is_null());
        let node = Node::of(&Json::from(fields));
        edits.push(edit(name, &id, |name| What::Put {
            name: Some(name),
            node,
        }));
    }
    edits
}

impl Control {
    /// Lets targets leave once others have taken their place. Runs until it is dropped.
    pub(super) async fn keep_replacing(self: &Arc<Self>) {
        let mut time = interval(LOOK);
        time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            time.tick().await;
            let edits = match self.is_still() {
                true => Vec::new(),
                false => self.replaced(),
            };
            if edits.is_empty() {
                continue;
            }
            if let Err(why) = self.change_targets(edits, Source::Replacing).await {
                log::warn!("targets that others have taken the place of cannot leave: {why}");
                // It is no use to ask again at once.
                tokio::time::sleep(LOOK * 10).await;
            }
        }
    }

    /// Those that may leave now.
    fn replaced(&self) -> Vec<Edit> {
        let (set, snapshot) = (self.resources(), self.snapshot());
        if set.revision != snapshot.revision {
            // What is known of its targets is not of these.
            return Vec::new();
        }
        let mut by_upstream: HashMap<&str, Vec<(&Target, Timestamp)>> = HashMap::new();
        for (known, until) in leaving(&set) {
            let all = by_upstream.entry(known.upstream.as_str()).or_default();
            all.push((&known.target, until));
        }
        let mut edits = Vec::new();
        for (name, targets) in by_upstream {
            let live = { snapshot.upstreams.iter() }.find(|upstream| *upstream.name == *name);
            let done = live
                .map(|live| may_leave(live, &targets))
                .unwrap_or_default();
            let leave = |target: &&Target| edit(name, &id_of(target), |name| What::Delete { name });
            edits.extend(done.iter().map(leave));
        }
        edits
    }
}

/// Which of the targets that are to leave an upstream may: all whose time is over, and one for each of the others that answers.
fn may_leave<'t>(
    live: &snapshot::Upstream,
    leaving: &[(&'t Target, Timestamp)],
) -> Vec<&'t Target> {
    let urls: HashSet<&TargetUrl> = leaving.iter().map(|(target, _)| &target.url).collect();
    let now = std::time::Instant::now();
    let is_asked = live.health.probe != Probe::Off;
    let starts = |target: &&snapshot::Target| {
        is_asked && target.health.report(now).answers != Some(true) && !urls.contains(&target.url)
    };
    let starting = live.targets.iter().filter(starts).count();
    let work = |target: &Target| {
        let known = { live.targets.iter() }.find(|known| known.url == target.url);
        known.map_or(0, |known| known.state.in_flight())
    };
    let over = Timestamp::now();
    let (mut done, mut waiting): (Vec<_>, Vec<_>) =
        { leaving.iter().copied() }.partition(|(_, until)| *until <= over);
    waiting.sort_by_key(|(target, _)| work(target));
    let spare = waiting.len().saturating_sub(starting);
    done.extend(waiting.into_iter().take(spare));
    done.into_iter().map(|(target, _)| target).collect()
}
