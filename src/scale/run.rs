//! The loop: a task for each service that is scaled, which lives as long as the service is, whatever else changes.
//!
//! A process that hands over decides nothing any more, but lets its replicas that drain come to their end. A service that is scaled no longer loses its
//! replicas as it would one too many of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::Level;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::actuator::{self, Actuator, Order, Processes, Standing};
use super::decide::{Memory, decide};
use super::reading::{Offered, Reading};
use super::signals::Signals;
use crate::config::targets_of;
use crate::control::Control;
use crate::control::events::EventKind;
use crate::model;
use crate::snapshot::{Scaled, Service, Snapshot};

/// How often services are measured and decided on.
const TURN: Duration = Duration::from_secs(1);
/// How often it is looked whether other services are scaled.
const LOOK: Duration = Duration::from_millis(100);

/// All services that are scaled.
pub struct Scaling {
    control: Arc<Control>,
    processes: Arc<Processes>,
}

impl Scaling {
    /// Of the services of this configuration.
    pub fn new(control: Arc<Control>) -> Scaling {
        Scaling {
            control,
            processes: Arc::default(),
        }
    }

    /// What is in force.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Scales services from the moment at which the process serves. Runs until it is dropped.
    pub async fn keep_scaling(&self) {
        while !self.control.is_ready() {
            sleep(LOOK).await;
        }
        let mut tasks: HashMap<Arc<str>, Task> = HashMap::new();
        let mut revision = None;
        loop {
            let snapshot = self.control.snapshot();
            let is_over = tasks.values().any(|task| task.0.is_finished());
            if revision != Some(snapshot.revision) || is_over {
                revision = Some(snapshot.revision);
                tasks.retain(|_, task| !task.0.is_finished());
                let scaled = snapshot.services.iter().filter(|s| s.scaling().is_some());
                let scaled: Vec<&Arc<Service>> = scaled.collect();
                for service in &scaled {
                    let begin = || Task(tokio::spawn(self.tending(service).run()));
                    tasks.entry(service.name.clone()).or_insert_with(begin);
                }
                self.sweep(&scaled, &tasks).await;
            }
            sleep(LOOK).await;
        }
    }

    /// Ends the replicas that end with this process, if no other has taken over. Waits for that.
    pub fn end(&self) {
        self.processes.end(self.control.is_handed_over());
    }

    fn tending(&self, service: &Arc<Service>) -> Tending {
        Tending {
            control: self.control.clone(),
            processes: self.processes.clone(),
            moved: Arc::default(),
            service: service.clone(),
            offered: Vec::new(),
            revision: None,
            signals: Signals::default(),
            memory: None,
            actuator: None,
            leaving: false,
            began: Instant::now(),
        }
    }

    /// Takes away the targets of services that are scaled no longer and that nobody tends: another process left them.
    async fn sweep(&self, scaled: &[&Arc<Service>], tasks: &HashMap<Arc<str>, Task>) {
        if self.control.is_still() {
            return;
        }
        let names: HashSet<&str> = scaled.iter().map(|service| &*service.name).collect();
        let set = self.control.resources();
        let strays = actuator::registered(&set).filter(|known| {
            let owner = actuator::owner(&known.target).unwrap_or_default();
            !names.contains(owner) && !tasks.contains_key(owner)
        });
        let strays: Vec<_> = strays.cloned().collect();
        for stray in strays {
            let id = stray.target.id.as_ref();
            let id = id.map(|id| id.as_str().to_owned());
            let ids: Vec<String> = id.into_iter().collect();
            if let Err(why) = actuator::remove(&self.control, stray.upstream.as_str(), &ids).await {
                log::warn!("a target that scaling left: {why}");
            }
        }
    }
}

/// Ends with its value.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One service.
struct Tending {
    control: Arc<Control>,
    processes: Arc<Processes>,
    /// Told when the actuator wants to be asked.
    moved: Arc<Notify>,
    service: Arc<Service>,
    /// Whose requests count.
    offered: Vec<Offered>,
    /// The revision they are of.
    revision: Option<u64>,
    signals: Signals,
    memory: Option<Memory>,
    actuator: Option<Box<dyn Actuator>>,
    /// The service is scaled no longer.
    leaving: bool,
    began: Instant,
}

impl Tending {
    async fn run(mut self) {
        let mut time = interval(TURN);
        time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let service = self.service.clone();
            tokio::select! {
                _ = time.tick() => {}
                () = service.state.demand.woken() => {}
                () = self.moved.notified() => {}
            }
            if self.processes.is_over() {
                return;
            }
            if self.control.is_still() && !self.control.is_handed_over() {
                // It is not known yet which process decides.
                continue;
            }
            self.follow();
            let standing = self.turn().await;
            if self.leaving && standing.is_empty() {
                self.service.state.scaled.store(None);
                self.service.state.decided.notify_waiters();
                self.service.state.demand.clear();
                return;
            }
        }
    }

    /// Takes notice of another revision.
    fn follow(&mut self) {
        let snapshot = self.control.snapshot();
        if self.revision == Some(snapshot.revision) {
            return;
        }
        self.revision = Some(snapshot.revision);
        let mut services = snapshot.services.iter();
        let now = services.find(|known| known.name == self.service.name);
        let now = now.filter(|service| service.scaling().is_some());
        self.leaving = now.is_none();
        if let Some(service) = now {
            if !Arc::ptr_eq(&self.service.state, &service.state) {
                // It was taken away and configured anew: it is counted from the beginning.
                self.signals = Signals::default();
            }
            self.service = service.clone();
            self.offered = offered(&snapshot, service);
        }
    }

    /// Measures, decides, and has done what was decided.
    async fn turn(&mut self) -> Standing {
        let service = self.service.clone();
        let Some(scaling) = service.scaling() else {
            return Standing::default();
        };
        let handed_over = self.control.is_handed_over();
        let now = Instant::now();
        let before = service.state.scaled.load_full();
        let ready = before.as_ref().map_or(0, |before| before.ready);
        let since = now - self.began;
        let reading = Reading::of(&service, &self.offered, now);
        self.signals.add(reading, since, scaling);
        let measured = self.signals.measure(scaling, ready);
        let fixed = self.fixed();
        let mut order = Order {
            control: &self.control,
            service: &service,
            desired: 0,
            reason: "the service is scaled no longer",
            leaving: self.leaving,
            grace: scaling.grace,
            handed_over,
            now,
        };
        let others = self.actuator.as_mut();
        if others.is_none_or(|present| !present.takes(&scaling.actuator)) {
            let next = actuator::of(&scaling.actuator, &order, &self.processes, &self.moved);
            if let Some(mut old) = self.actuator.replace(next) {
                // Another actuator is another way to have replicas: those of the old one go.
                let control = self.control.clone();
                let last = Leaving::of(control, service.clone(), scaling.grace);
                tokio::spawn(async move { last.run(&mut *old).await });
            }
        }
        let memory = self.memory.get_or_insert_with(|| {
            let found = u32::try_from(service.replicas().count()).unwrap_or(u32::MAX);
            Memory::beginning(found.min(scaling.max), "so many were found")
        });
        let from = memory.desired();
        let decision = decide(scaling, &measured, memory, since);
        if !self.leaving {
            order.desired = decision.desired.saturating_sub(fixed);
            order.reason = &decision.reason;
        }
        if decision.changed && !self.leaving && !handed_over {
            tell(
                &self.control,
                &service,
                from,
                decision.desired,
                &decision.reason,
            );
        }
        let Some(actuator) = &mut self.actuator else {
            return Standing::default();
        };
        let standing = actuator.tend(&order).await;
        let changed_at = before.as_ref().filter(|_| !decision.changed);
        let changed_at = changed_at.map_or_else(SystemTime::now, |before| before.changed_at);
        let mut scaled = Scaled {
            desired: decision.desired,
            ready: 0,
            starting: 0,
            draining: 0,
            reason: decision.reason,
            changed_at,
            metric: scaling.metric.word(),
            measured: measured.value,
            problem: None,
        };
        standing.clone().put_into(&mut scaled);
        if !matches!(scaling.actuator, model::Actuator::None) {
            scaled.ready += fixed;
        }
        service.state.scaled.store(Some(Arc::new(scaled)));
        service.state.decided.notify_waiters();
        standing
    }

    /// How many replicas stand in the document, and are always there.
    fn fixed(&self) -> u32 {
        let set = self.control.resources();
        let pool = set.pool(self.service.document.pool_name().as_str());
        let scaling = self.service.scaling();
        let counts = |target: &&model::Target| scaling.is_none_or(|s| s.concerns(target.role));
        let fixed = pool.map_or(0, |pool| {
            targets_of(&pool.model).iter().filter(counts).count()
        });
        u32::try_from(fixed).unwrap_or(u32::MAX)
    }
}

/// Whose requests count for a service that is scaled: its own, and where one role is scaled those of all services of the upstream.
fn offered(snapshot: &Snapshot, scaled: &Service) -> Vec<Offered> {
    let role = scaled
        .scaling()
        .is_some_and(|s| s.role != model::Role::Both);
    let counts = |service: &&Arc<Service>| {
        service.name == scaled.name || role && service.upstream.name == scaled.upstream.name
    };
    let counted = snapshot.services.iter().filter(counts);
    let offered = counted.map(|service| {
        let of = |gateway: &Arc<crate::snapshot::Gateway>| {
            let mut offers = gateway.router.offers().iter();
            { offers.find(|offer| offer.service.name == service.name) }.cloned()
        };
        Offered {
            service: service.clone(),
            offers: snapshot.gateways.iter().filter_map(of).collect(),
        }
    });
    offered.collect()
}

fn tell(control: &Control, service: &Service, from: u32, to: u32, reason: &str) {
    let name = &service.name;
    let message = format!("service {name} is to have {to} replicas instead of {from}: {reason}");
    let names = json!({"service": &**name, "from": from, "to": to, "reason": reason});
    let events = control.events();
    events.announce(Level::Info, EventKind::Scaling, &message, names);
}

/// An actuator that another one has taken the place of.
struct Leaving {
    control: Arc<Control>,
    service: Arc<Service>,
    grace: Duration,
}

impl Leaving {
    fn of(control: Arc<Control>, service: Arc<Service>, grace: Duration) -> Leaving {
        Leaving {
            control,
            service,
            grace,
        }
    }

    /// Until it has nothing left.
    async fn run(self, actuator: &mut dyn Actuator) {
        loop {
            let order = Order {
                control: &self.control,
                service: &self.service,
                desired: 0,
                reason: "the service has another actuator",
                leaving: true,
                grace: self.grace,
                handed_over: self.control.is_handed_over(),
                now: Instant::now(),
            };
            if actuator.tend(&order).await.is_empty() {
                return;
            }
            sleep(TURN).await;
        }
    }
}
