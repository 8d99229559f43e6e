//! Replicas as targets: they join an upstream and leave it by the road of every change. A label says whose they are, so that they are found again by
//! whoever comes after this process.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tollgate_sdk::document::{FromNode, Node};

use super::{Order, Standing};
use crate::config::{Model, Registered, ResourceKind, Set};
use crate::control::{ChangeError, Control, Edit, Source, What};
use crate::model::{Role, Target};

/// The label with the name of the service for which a target was registered.
const OWNER: &str = "tollgate.scaling";
/// The label with the process behind a target.
pub(super) const PROCESS: &str = "tollgate.process";

/// A replica that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replica {
    pub(super) id: String,
    pub(super) url: String,
    /// Where its KV is asked for, if that was said.
    pub(super) bootstrap_port: Option<u16>,
    /// Its process, if that is ours.
    pub(super) process: Option<String>,
}

/// The service for which a target was registered by scaling, if it was.
pub(in crate::scale) fn owner(target: &Target) -> Option<&str> {
    target.labels.get(OWNER).map(String::as_str)
}

/// The targets that were registered by scaling.
pub(in crate::scale) fn registered(set: &Set) -> impl Iterator<Item = &Arc<Registered>> {
    let all = set.all(ResourceKind::Target).iter();
    all.filter_map(|resource| match &resource.model {
        Model::Target(registered) => owner(&registered.target).map(|_| registered),
        _ => None,
    })
}

/// What a target is called.
pub(super) fn id(target: &Target) -> &str {
    target.id.as_ref().map_or("", |id| id.as_str())
}

/// Those of one service, in this upstream.
pub(super) fn of_service<'s>(
    set: &'s Set,
    service: &'s str,
    pool: &'s str,
) -> impl Iterator<Item = &'s Target> {
    let own = registered(set).filter(move |known| known.upstream.as_str() == pool);
    own.map(|known| &known.target)
        .filter(move |target| owner(target) == Some(service))
}

fn edit(pool: &str, id: &str, what: impl FnOnce(String) -> What) -> Edit {
    Edit {
        kind: ResourceKind::Target,
        path: String::new(),
        what: what(format!("{pool}/{id}")),
    }
}

fn join(order: &Order<'_>, replica: &Replica) -> Edit {
    let mut labels = Map::new();
    labels.insert(OWNER.into(), (*order.service.name).into());
    if let Some(process) = &replica.process {
        labels.insert(PROCESS.into(), process.as_str().into());
    }
    let mut target = Map::new();
    target.insert("url".into(), json!(replica.url));
    target.insert("labels".into(), labels.into());
    if order.role() != Role::Both {
        target.insert("role".into(), order.role().value());
    }
    if let Some(port) = replica.bootstrap_port {
        target.insert("bootstrap_port".into(), port.into());
    }
    let target = Value::from(target);
    edit(order.pool(), &replica.id, |name| What::Put {
        name: Some(name),
        node: Node::of(&target),
    })
}

/// Lets a replica join.
pub(super) async fn add(order: &Order<'_>, replica: &Replica) -> Result<(), String> {
    make(order.control, vec![join(order, replica)]).await
}

/// Lets targets leave: what is open at them goes on. It is no mistake that one has left.
pub(in crate::scale) async fn remove(
    control: &Arc<Control>,
    pool: &str,
    ids: &[String],
) -> Result<(), String> {
    let set = control.resources();
    let there = ids.iter().filter(|id| {
        let name = format!("{pool}/{id}");
        set.get(ResourceKind::Target, &name).is_some()
    });
    let leave = |id: &String| edit(pool, id, |name| What::Delete { name });
    make(control, there.map(leave).collect()).await
}

/// Makes the targets of a service these.
pub(super) async fn replace(order: &Order<'_>, replicas: &[Replica]) -> Result<(), String> {
    let set = order.control.resources();
    let known: Vec<&Target> = of_service(&set, &order.service.name, order.pool()).collect();
    let mut edits = Vec::new();
    for target in &known {
        if replicas.iter().all(|replica| replica.id != id(target)) {
            edits.push(edit(order.pool(), id(target), |name| What::Delete { name }));
        }
    }
    for replica in replicas {
        let same = |target: &&Target| {
            id(target) == replica.id
                && target.url.to_string() == replica.url
                && target.role == order.role()
                && target.bootstrap_port == replica.bootstrap_port
        };
        if !known.iter().any(same) {
            edits.push(join(order, replica));
        }
    }
    make(order.control, edits).await
}

/// Takes away the targets of a service whose replicas are no longer followed. Nothing is left once that is done.
pub(super) async fn leave(order: &Order<'_>) -> Standing {
    let none = replace(order, &[]).await;
    Standing {
        draining: u32::from(none.is_err()),
        problem: none.err(),
        ..Standing::default()
    }
}

async fn make(control: &Arc<Control>, edits: Vec<Edit>) -> Result<(), String> {
    if edits.is_empty() {
        return Ok(());
    }
    match control.change_targets(edits, Source::Scaling).await {
        // Somebody else was sooner; the next look finds what is left.
        Ok(_) | Err(ChangeError::Missing(ResourceKind::Target, _)) => Ok(()),
        Err(error) => Err(format!("its targets cannot be changed: {error}")),
    }
}
