//! Replicas that are processes of this machine, started by a command.
//!
//! A replica becomes a target when it serves. One that is to end leaves the upstream first, gets nothing new, and is told to end when it has had nothing
//! to do for a moment, or after `grace`. One that ends by itself, or does not come to serve, is followed by another after a pause that doubles. Whoever
//! comes after this process finds replicas by their targets' labels and goes on with those that live.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::processes::{Process, Processes};
use super::replica::{Replica, State, Words};
use super::targets::{self, PROCESS};
use super::{Actuator, Order, Standing};
use crate::balance::TargetState;
use crate::model;

/// How long one must have had nothing before it ends: a request may be on its way to it still.
const QUIET: Duration = Duration::from_secs(1);
/// The pause after a first failure, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Who has served for so long has not failed to start.
const SOUND: Duration = Duration::from_secs(60);

pub(super) struct Exec {
    settings: model::Exec,
    service: String,
    replicas: Vec<Replica>,
    processes: Arc<Processes>,
    moved: Arc<Notify>,
    /// Failures in a row, and until when nothing is started because of them.
    failures: u32,
    paused: Option<Instant>,
    problem: Option<String>,
    /// Targets of replicas that are gone.
    gone: Vec<String>,
}

impl Exec {
    pub(super) fn new(
        settings: &model::Exec,
        order: &Order<'_>,
        processes: Arc<Processes>,
        moved: Arc<Notify>,
    ) -> Exec {
        let mut exec = Exec {
            settings: settings.clone(),
            service: order.service.name.to_string(),
            replicas: Vec::new(),
            processes,
            moved,
            failures: 0,
            paused: None,
            problem: None,
            gone: Vec::new(),
        };
        exec.adopt(order);
        exec
    }

    /// Goes on with the replicas that another process left.
    fn adopt(&mut self, order: &Order<'_>) {
        let set = order.control.resources();
        for target in targets::of_service(&set, &self.service, order.pool()) {
            let url = target.url.to_string();
            let process = target.labels.get(PROCESS);
            let process = process.and_then(|text| Process::from_text(text));
            let ports = self.settings.ports.iter().enumerate();
            let words = ports.map(|(number, port)| (number, self.words(number, port)));
            let own = { words }.find(|(_, words)| words.id == targets::id(target));
            match (process, own) {
                (Some(process), Some((number, words)))
                    if process.lives() && process.bears(&words.mark()) =>
                {
                    log::info!("replica {} of service {} lives on", words.id, self.service);
                    self.processes.put(process, true);
                    let replica = Replica::adopt(&words, url, number, process);
                    self.replicas.push(replica);
                }
                _ => self.gone.push(targets::id(target).to_owned()),
            }
        }
    }

    fn words(&self, number: usize, port: u16) -> Words {
        Words::new(&self.service, number, port)
    }

    fn words_of(&self, replica: &Replica) -> Words {
        let port = self.settings.ports.iter().nth(replica.number);
        self.words(replica.number, port.unwrap_or_default())
    }

    /// Sees to each replica by itself.
    async fn look(&mut self, order: &Order<'_>) {
        for mut replica in std::mem::take(&mut self.replicas) {
            let life = replica.life();
            if let Some(how) = life.ended {
                self.processes.remove(replica.process);
                self.ended(&replica, &how, order.now);
                continue;
            }
            let (words, age) = (self.words_of(&replica), order.now - replica.born);
            match &mut replica.state {
                State::Starting if order.handed_over => {
                    replica.end(&self.settings, &words, order.now);
                }
                State::Ready { .. } if order.handed_over => {
                    // It lives on, and is another process's from now on.
                    self.processes.remove(replica.process);
                    continue;
                }
                State::Starting if life.ready => self.join(&mut replica, order).await,
                State::Starting if age > self.settings.start_timeout => {
                    let took = self.settings.start_timeout.as_secs();
                    let why = format!("replica {} does not serve after {took} s", replica.id);
                    self.failed(why, order.now);
                    replica.kill(order.now);
                }
                State::Draining { since, quiet, load } => {
                    let busy = load.as_ref().map_or(0, |load| load.in_flight());
                    if busy > 0 {
                        *quiet = None;
                    }
                    let quiet = match busy {
                        0 => Some(*quiet.get_or_insert(order.now)),
                        _ => None,
                    };
                    let is_done = quiet.is_some_and(|quiet| order.now - quiet >= QUIET);
                    let is_over = order.now - *since > order.grace;
                    if is_over && !is_done {
                        let id = &replica.id;
                        log::warn!(
                            "replica {id} ends with {busy} requests open: its grace is over"
                        );
                    }
                    if is_done || is_over {
                        replica.end(&self.settings, &words, order.now);
                    }
                }
                State::Ending {
                    since,
                    killed: false,
                } if order.now - *since > self.settings.stop_timeout => {
                    log::warn!("replica {} does not end, and is killed", replica.id);
                    replica.kill(order.now);
                }
                _ => {}
            }
            self.replicas.push(replica);
        }
        if !self.gone.is_empty() && !order.handed_over {
            match targets::remove(order.control, order.pool(), &self.gone).await {
                Ok(()) => self.gone.clear(),
                Err(problem) => self.problem = Some(problem),
            }
        }
    }

    /// Its process has ended, whether it was to or not.
    fn ended(&mut self, replica: &Replica, how: &str, now: Instant) {
        let id = &replica.id;
        match replica.state {
            State::Ending { .. } => log::info!("replica {id} has ended"),
            State::Draining { .. } => log::warn!("replica {id} ended while it drained ({how})"),
            State::Ready { since } => {
                if now - since > SOUND {
                    self.failures = 0;
                }
                self.gone.push(id.clone());
                self.failed(format!("replica {id} ended by itself ({how})"), now);
            }
            State::Starting => {
                self.failed(format!("replica {id} ended before it served ({how})"), now);
            }
        }
    }

    /// Starts nothing for a while.
    fn failed(&mut self, why: String, now: Instant) {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.paused = Some(now + pause);
        log::warn!(
            "service {}: {why}; the next is started in {} s",
            self.service,
            pause.as_secs()
        );
        self.problem = Some(why);
    }

    /// It serves: it becomes a target.
    async fn join(&mut self, replica: &mut Replica, order: &Order<'_>) {
        let joining = targets::Replica {
            id: replica.id.clone(),
            url: replica.url.clone(),
            bootstrap_port: None,
            process: Some(replica.process.to_text()),
        };
        let joined = targets::add(order, &joining).await;
        match joined {
            Ok(()) => {
                let took = (order.now - replica.born).as_secs_f64();
                if let State::Starting = replica.state {
                    log::info!("replica {} serves after {took:.1} s", replica.id);
                }
                replica.state = State::Ready { since: order.now };
                self.processes.put(replica.process, true);
                self.problem = None;
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// More are wanted: first those that were to end, then new ones.
    async fn grow(&mut self, mut lacking: u32, order: &Order<'_>) {
        for mut replica in std::mem::take(&mut self.replicas) {
            if lacking > 0 && matches!(replica.state, State::Draining { .. }) {
                log::info!("replica {} is wanted again", replica.id);
                self.join(&mut replica, order).await;
                lacking -= 1;
            }
            self.replicas.push(replica);
        }
        let is_paused = self.paused.is_some_and(|until| order.now < until);
        while lacking > 0 && !is_paused {
            lacking -= 1;
            let Some((number, port)) = self.free_port() else {
                let ports = &self.settings.ports;
                let why = format!("none of the {} ports is free", ports.count());
                return self.failed(why, order.now);
            };
            let words = self.words(number, port);
            match Replica::start(&self.settings, &words, number, &self.moved) {
                Ok(replica) => {
                    log::info!("replica {} of service {} starts", words.id, self.service);
                    self.processes.put(replica.process, false);
                    self.replicas.push(replica);
                }
                Err(error) => {
                    let why = format!("the start command cannot be run: {error}");
                    return self.failed(why, order.now);
                }
            }
        }
    }

    fn free_port(&self) -> Option<(usize, u16)> {
        let taken = |number: usize| self.replicas.iter().any(|known| known.number == number);
        let mut free = { self.settings.ports.iter().enumerate() }.filter(|(n, _)| !taken(*n));
        // Somebody else may have it.
        free.find(|(_, port)| TcpListener::bind(("127.0.0.1", *port)).is_ok())
    }

    /// Fewer are wanted: first those that do not serve yet, then those with the least to do.
    async fn shrink(&mut self, mut spare: u32, order: &Order<'_>) {
        let mut victims: Vec<(usize, usize)> = Vec::new();
        for (index, replica) in self.replicas.iter().enumerate() {
            match replica.state {
                State::Starting => victims.push((0, index)),
                State::Ready { .. } => {
                    let load = load(order, &replica.url);
                    victims.push((1 + load.map_or(0, |load| load.in_flight()), index));
                }
                _ => {}
            }
        }
        // Of several alike the youngest ends.
        victims.sort_by_key(|(work, index)| (*work, usize::MAX - index));
        for (_, index) in victims {
            if spare == 0 {
                return;
            }
            spare -= 1;
            let Some(replica) = self.replicas.get(index) else {
                continue;
            };
            let (words, id) = (self.words_of(replica), replica.id.clone());
            let load = load(order, &replica.url);
            if let State::Ready { .. } = replica.state {
                let left = targets::remove(order.control, order.pool(), std::slice::from_ref(&id));
                if let Err(problem) = left.await {
                    self.problem = Some(problem);
                    return;
                }
            }
            let Some(replica) = self.replicas.get_mut(index) else {
                continue;
            };
            match replica.state {
                State::Starting => replica.end(&self.settings, &words, order.now),
                _ => {
                    log::info!("replica {id} drains");
                    self.processes.put(replica.process, false);
                    replica.state = State::Draining {
                        since: order.now,
                        quiet: None,
                        load,
                    };
                }
            }
        }
    }

    fn standing(&self) -> Standing {
        let mut standing = Standing {
            problem: self.problem.clone(),
            ..Standing::default()
        };
        for replica in &self.replicas {
            match replica.state {
                State::Starting => standing.starting += 1,
                State::Ready { .. } => standing.ready += 1,
                State::Draining { .. } | State::Ending { .. } => standing.draining += 1,
            }
        }
        standing
    }
}

/// What a target has to do now.
fn load(order: &Order<'_>, url: &str) -> Option<Arc<TargetState>> {
    let snapshot = order.control.snapshot();
    let mut upstreams = snapshot.upstreams.iter();
    let upstream = upstreams.find(|known| *known.name == *order.pool())?;
    let target = { upstream.targets.iter() }.find(|target| *target.label == *url)?;
    Some(target.state.clone())
}

#[async_trait]
impl Actuator for Exec {
    async fn tend(&mut self, order: &Order<'_>) -> Standing {
        self.look(order).await;
        if !order.handed_over {
            let before = self.standing();
            let there = before.ready + before.starting;
            if there < order.desired {
                self.grow(order.desired - there, order).await;
            } else {
                self.shrink(there - order.desired, order).await;
            }
        }
        self.standing()
    }

    fn takes(&mut self, settings: &model::Actuator) -> bool {
        let model::Actuator::Exec(settings) = settings else {
            return false;
        };
        if settings.ports == self.settings.ports {
            // What runs goes on as it was started.
            self.settings = model::Exec::clone(settings);
            return true;
        }
        false
    }
}
