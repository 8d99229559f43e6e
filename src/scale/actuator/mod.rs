//! Who brings about that there are as many replicas as there should be.

mod exec;
mod http;
mod kubernetes;
mod processes;
mod replica;
mod targets;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::control::Control;
use crate::model::{self, Role};
use crate::snapshot::{Scaled, Service};

pub(super) use processes::Processes;
pub(super) use targets::{owner, registered, remove};

/// What is to be brought about.
pub(super) struct Order<'a> {
    pub(super) control: &'a Arc<Control>,
    /// The service as it is in force, or was before it was taken away.
    pub(super) service: &'a Arc<Service>,
    /// How many replicas the actuator itself is to have: without those that stand in the document.
    pub(super) desired: u32,
    /// Why.
    pub(super) reason: &'a str,
    /// The service is scaled no longer, or by another actuator: what is this process's own ends, and what is others' is left to them.
    pub(super) leaving: bool,
    /// How long a replica may finish what it has.
    pub(super) grace: std::time::Duration,
    /// Another process has taken over: what serves is its business now.
    pub(super) handed_over: bool,
    pub(super) now: Instant,
}

impl Order<'_> {
    /// The upstream that replicas join.
    pub(super) fn pool(&self) -> &str {
        self.service.document.pool_name().as_str()
    }

    /// How many targets the service has now, of the role that is scaled.
    fn targets(&self) -> u32 {
        u32::try_from(self.service.replicas().count()).unwrap_or(u32::MAX)
    }

    /// What replicas do.
    fn role(&self) -> Role {
        self.service
            .scaling()
            .map_or(Role::Both, |scaling| scaling.role)
    }
}

/// How it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Standing {
    pub(super) ready: u32,
    pub(super) starting: u32,
    pub(super) draining: u32,
    /// What is wrong, in words for the operator.
    pub(super) problem: Option<String>,
}

impl Standing {
    /// Whether nothing is left to see to.
    pub(super) fn is_empty(&self) -> bool {
        self.ready == 0 && self.starting == 0 && self.draining == 0
    }

    /// As it is shown.
    pub(super) fn put_into(self, scaled: &mut Scaled) {
        scaled.ready = self.ready;
        scaled.starting = self.starting;
        scaled.draining = self.draining;
        scaled.problem = self.problem;
    }
}

/// A way to have replicas. It is asked once a second, and whenever it says that something has moved.
#[async_trait]
pub(super) trait Actuator: Send {
    /// Comes closer to what is wanted, without waiting for what takes long.
    async fn tend(&mut self, order: &Order<'_>) -> Standing;

    /// Whether it can go on with these settings; if not, another one takes its place once this one has nothing left.
    fn takes(&mut self, settings: &model::Actuator) -> bool;
}

/// The actuator of these settings. `moved` is told when it wants to be asked.
pub(super) fn of(
    settings: &model::Actuator,
    order: &Order<'_>,
    processes: &Arc<Processes>,
    moved: &Arc<Notify>,
) -> Box<dyn Actuator> {
    match settings {
        model::Actuator::None => Box::new(Nobody),
        model::Actuator::Exec(settings) => {
            let processes = processes.clone();
            Box::new(exec::Exec::new(settings, order, processes, moved.clone()))
        }
        model::Actuator::Http(settings) => Box::new(http::Http::new(settings)),
        model::Actuator::Kubernetes(settings) => Box::new(kubernetes::Kubernetes::new(settings)),
    }
}

/// Only the number is told.
struct Nobody;

#[async_trait]
impl Actuator for Nobody {
    async fn tend(&mut self, order: &Order<'_>) -> Standing {
        Standing {
            ready: if order.leaving { 0 } else { order.targets() },
            ..Standing::default()
        }
    }

    fn takes(&mut self, settings: &model::Actuator) -> bool {
        matches!(settings, model::Actuator::None)
    }
}
