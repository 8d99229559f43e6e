//! How everything stands at this moment, gathered for whoever shows it.
//!
//! It waits for nobody: neither for a change that is under way nor for the disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::conditions::{Condition, Found, GatewayState, LastReload, Phase, serving};
use super::{Control, EngineStatus, events, issuing};
use crate::balance::{KvStatus, Names};
use crate::health::BreakerState;
use crate::model::{Certificate, Moment, Role, Scheme};
use crate::snapshot::{Gateway, Scaled, Snapshot, Target, Upstream};
use crate::store::Health;

/// How often gateways' conditions are looked at, and whether the store keeps what it is given.
const LOOK: Duration = Duration::from_millis(250);

/// The whole process.
#[derive(Clone, Debug)]
pub struct Status {
    /// Tollgate's version.
    pub version: &'static str,
    /// The revision in force.
    pub revision: u64,
    /// When the process began.
    pub started_at: Moment,
    /// Whether requests are taken.
    pub ready: bool,
    /// The configuration file, as it was given.
    pub file: Option<String>,
    /// How the file was read the last time since the start.
    pub last_reload: Option<LastReload>,
    /// Every gateway.
    pub gateways: Vec<GatewayStatus>,
    /// Every service.
    pub services: Vec<ServiceStatus>,
    /// Every target of every upstream.
    pub targets: Vec<TargetStatus>,
    /// Every service's queue, if it has one.
    pub queues: Vec<QueueStatus>,
    /// Where state is kept.
    pub store: Health,
}

/// A gateway.
#[derive(Clone, Debug)]
pub struct GatewayStatus {
    /// Its name.
    pub name: Arc<str>,
    /// What it is as a whole.
    pub state: GatewayState,
    /// What holds of it.
    pub conditions: Vec<Condition>,
    /// Names that lead to it, sorted.
    pub hosts: Vec<String>,
    /// The services it offers.
    pub services: Vec<Arc<str>>,
}

/// A service.
#[derive(Clone, Debug)]
pub struct ServiceStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its upstream; its own name for targets given in place.
    pub upstream: Arc<str>,
    /// Requests being served.
    pub in_flight: i64,
    /// Targets it has.
    pub targets: usize,
    /// Those of them that serve.
    pub serving: usize,
    /// The models its engines serve, if it has them from these.
    pub models: Option<Arc<Names>>,
    /// What targets of each role have to do, where requests are split.
    pub roles: Vec<RoleStatus>,
    /// How its scaling stands, if it is scaled.
    pub scaled: Option<Arc<Scaled>>,
}

/// The targets of one role.
#[derive(Clone, Debug)]
pub struct RoleStatus {
    /// The role.
    pub role: Role,
    /// How many there are.
    pub targets: usize,
    /// Those of them that serve.
    pub serving: usize,
    /// Requests at them.
    pub in_flight: usize,
}

/// A target.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    /// Its upstream.
    pub upstream: Arc<str>,
    /// What it is known by: `host:port`, or a socket's path.
    pub id: String,
    /// Where it is.
    pub url: Arc<str>,
    /// Whether it answers when it is asked; `None`: not known.
    pub answers: Option<bool>,
    /// How its breaker stands.
    pub breaker: BreakerState,
    /// Requests at it.
    pub in_flight: usize,
    /// Its part of the traffic.
    pub weight: u32,
    /// How long it is still to be left alone because it said so.
    pub cooling: Option<Duration>,
    /// What its engine says of itself, if it is asked and has answered.
    pub engine: Option<EngineStatus>,
    /// What events tell of its cache, if it is listened to.
    pub kv_events: Option<KvStatus>,
}

/// A service's queue.
#[derive(Clone, Debug)]
pub struct QueueStatus {
    /// The service.
    pub service: Arc<str>,
    /// Requests that were told to come back later, and wait for that.
    pub depth: usize,
    /// Requests that wait for a target with room.
    pub waiting_for_target: usize,
}

impl Control {
    /// How everything stands.
    pub fn status(&self) -> Status {
        let snapshot = self.snapshot();
        let now = Instant::now();
        let targets = snapshot.upstreams.iter();
        let queued = snapshot
            .services
            .iter()
            .filter(|s| s.queue.is_some() || s.scaling().is_some());
        Status {
            version: env!("CARGO_PKG_VERSION"),
            revision: snapshot.revision,
            started_at: self.book.started,
            ready: self.is_ready(),
            file: self.file.as_ref().map(|file| file.display().to_string()),
            last_reload: self.book.last_reload(),
            gateways: self.gateways(&snapshot),
            services: self.services(&snapshot, now),
            targets: targets.flat_map(|upstream| shown(upstream, now)).collect(),
            queues: queued
                .map(|service| QueueStatus {
                    service: service.name.clone(),
                    depth: service.state.queue.depth(),
                    waiting_for_target: service.state.room.depth(),
                })
                .collect(),
            store: self.store.health(),
        }
    }

    fn gateways(&self, snapshot: &Snapshot) -> Vec<GatewayStatus> {
        let mut hosts: HashMap<usize, Vec<String>> = HashMap::new();
        for (name, gateway) in snapshot.hosts.names() {
            hosts.entry(gateway).or_default().push(name);
        }
        self.book.look(
            snapshot,
            |g| self.ordered(g),
            |known| {
                let gateways = snapshot.gateways.iter().enumerate();
                let shown = gateways.filter_map(|(index, gateway)| {
                    let (conditions, state) = known.get(&gateway.name)?;
                    let mut hosts = hosts.remove(&index).unwrap_or_default();
                    hosts.sort();
                    let offers = gateway.router.offers().iter();
                    Some(GatewayStatus {
                        name: gateway.name.clone(),
                        state: *state,
                        conditions: conditions.clone(),
                        hosts,
                        services: offers.map(|offer| offer.service.name.clone()).collect(),
                    })
                });
                shown.collect()
            },
        )
    }

    fn services(&self, snapshot: &Snapshot, now: Instant) -> Vec<ServiceStatus> {
        let in_flight = self.metrics.in_flight_by_service();
        let services = snapshot.services.iter();
        let shown = services.map(|service| ServiceStatus {
            name: service.name.clone(),
            upstream: service.upstream.name.clone(),
            in_flight: in_flight.get(&*service.name).copied().unwrap_or(0),
            targets: service.upstream.targets.len(),
            serving: serving(&service.upstream, now),
            models: { service.document.models.is_auto() }.then(|| service.upstream.models()),
            roles: roles(&service.upstream, now),
            scaled: service
                .scaling()
                .and_then(|_| service.state.scaled.load_full()),
        });
        shown.collect()
    }

    /// What holds of a gateway's certificate, if one is ordered for it.
    fn ordered(&self, gateway: &Gateway) -> Option<Found> {
        let wants = gateway.document.certificate == Certificate::Ordered;
        wants
            .then(|| self.order(&gateway.name))
            .flatten()
            .as_ref()
            .map(issuing::condition)
    }

    /// Whether requests are taken: listeners are up and nothing is draining.
    pub fn is_ready(&self) -> bool {
        self.book.phase() == Phase::Serving
    }

    /// Says that requests are taken now, or no longer.
    pub fn set_ready(&self, ready: bool) {
        self.book.set_ready(ready);
    }

    /// Notes when conditions turn, and tells when the store fails and when it is well again. Runs until it is dropped.
    pub(super) async fn keep_watching(&self) {
        let mut kept = true;
        let mut time = interval(LOOK);
        time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            time.tick().await;
            let ordered = |gateway: &Gateway| self.ordered(gateway);
            self.book.look(&self.snapshot(), ordered, |_| ());
            let health = self.store.health();
            if health.ok != kept {
                kept = health.ok;
                self.events.tell_of_store(&health);
            }
        }
    }
}

/// The targets of an upstream that splits requests, role by role.
pub(super) fn roles(upstream: &Upstream, now: Instant) -> Vec<RoleStatus> {
    if upstream.disaggregation.is_none() {
        return Vec::new();
    }
    let of = |role: Role| {
        let own = upstream.targets.iter().filter(|target| target.role == role);
        let own: Vec<&Target> = own.collect();
        let serves = |target: &&&Target| target.health.standing(now).share().is_some();
        RoleStatus {
            role,
            targets: own.len(),
            serving: own.iter().filter(serves).count(),
            in_flight: own.iter().map(|target| target.state.in_flight()).sum(),
        }
    };
    let all = [Role::Prefill, Role::Decode, Role::Both].map(of);
    { all.into_iter() }
        .filter(|status| status.targets > 0)
        .collect()
}

fn shown(upstream: &Arc<Upstream>, now: Instant) -> impl Iterator<Item = TargetStatus> {
    let weights = upstream.view.iter().map(|target| target.weight);
    let targets = upstream.targets.iter().zip(weights);
    targets.map(move |(target, weight)| {
        let report = target.health.report(now);
        let reachable = target.url.is_local() || target.state.resolved();
        TargetStatus {
            upstream: upstream.name.clone(),
            id: id(target),
            url: target.label.clone(),
            // Whose name leads nowhere cannot be asked.
            answers: if reachable {
                report.answers
            } else {
                Some(false)
            },
            breaker: report.breaker,
            in_flight: target.state.in_flight(),
            weight,
            cooling: report.cooling,
            engine: EngineStatus::of(target, now),
            kv_events: target.state.signals().kv().status(),
        }
    })
}

pub(super) fn id(target: &Target) -> String {
    match target.url.scheme {
        Scheme::Unix => target.url.path.clone(),
        _ => format!("{}:{}", target.url.host, target.url.port),
    }
}

impl events::Events {
    fn tell_of_store(&self, health: &Health) {
        let reason = health.reason.as_deref().unwrap_or_default();
        let (level, message) = match health.ok {
            true => (
                log::Level::Info,
                "the store keeps what it is given again".to_owned(),
            ),
            false => (log::Level::Error, format!("the store fails: {reason}")),
        };
        let names = serde_json::json!({
            "ok": health.ok,
            "reason": health.reason,
            "buffered": health.buffered,
            "dropped": health.dropped,
        });
        self.announce(level, events::EventKind::Store, &message, names);
    }
}
