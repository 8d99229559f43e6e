//! Keeps asking targets: a task each, so that one that hangs delays no other.
//!
//! Targets are asked at once, give or take a tenth of the interval, and from then on every 90 to 100 % of it, so
//! that many are not asked at the same moment and none later than promised. Time counts from the start of one check to
//! the start of the next. Very many new ones are first asked over a longer time, up to their interval; and so many checks are under way at
//! most that there are sockets left for requests.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pingora_core::{Error, ErrorType, Result};
use pingora_load_balancing::health_check::HealthCheck;
use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::check::{Place, Tools};
use super::engine::keep_reading;
use super::kv_events::keep_listening;
use super::{TargetHealth, Thresholds, Turn};
use crate::balance::{Edition, Freed, TargetState};
use crate::model::{Engine, Health, KvEvents};

/// A target first asked is asked within this.
const FIRST: Duration = Duration::from_secs(1);

/// So many new targets are first asked in a second.
const FIRST_A_SECOND: f64 = 2_000.0;

/// So many checks are under way at most.
const AT_ONCE: usize = 1_000;

/// The targets of one upstream. A group that is the very same in the next set is not looked into.
pub type Group = Arc<[Arc<Watched>]>;

/// A target to ask, and where to note what it answers.
#[derive(Clone)]
pub struct Watched {
    /// Its upstream's name: with `target`, its identity.
    pub upstream: Arc<str>,
    /// Its URL.
    pub target: Arc<str>,
    /// How it is asked.
    pub settings: Arc<Health>,
    /// Where it is.
    pub place: Place,
    /// Where its name leads now; not asked of unix sockets.
    pub address: Arc<dyn Fn() -> Option<SocketAddr> + Send + Sync>,
    /// What is known of it.
    pub health: Arc<TargetHealth>,
    /// The engine whose metrics are read.
    pub engine: Engine,
    /// Where it tells of its cache, if it is listened to.
    pub kv_events: Option<Arc<KvEvents>>,
    /// What its engine is asked with: the credential and headers of requests.
    pub headers: Arc<[(HeaderName, HeaderValue)]>,
    /// Where what it tells is noted.
    pub state: Arc<TargetState>,
    /// Who is told when it comes up.
    pub freed: Arc<Freed>,
    /// Counts the changes of what engines serve.
    pub edition: Arc<Edition>,
}

impl Watched {
    /// Whether whoever asks the one may go on and need not change to the other.
    fn is_as(&self, other: &Watched) -> bool {
        self.settings == other.settings
            && self.place == other.place
            && self.engine == other.engine
            && self.headers == other.headers
            && self.kv_events == other.kv_events
            && Arc::ptr_eq(&self.health, &other.health)
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched")
            .field(&self.upstream)
            .field(&self.target)
            .finish()
    }
}

/// Asks the targets of the latest set for as long as it is polled and there may be another set. Targets that are in
/// the next set as they were go on undisturbed. `turned` hears of every turn, after it is noted, and why.
pub async fn watch<F>(mut sets: Receiver<Arc<[Group]>>, turned: F)
where
    F: Fn(&Watched, Turn, Option<&str>) + Send + Sync + 'static,
{
    let mut asking = Asking {
        tools: Tools::default(),
        turned: Arc::new(turned),
        places: Arc::new(Semaphore::new(AT_ONCE)),
        groups: HashMap::new(),
    };
    loop {
        let set = sets.borrow_and_update().clone();
        asking.follow(&set);
        drop(set);
        if sets.changed().await.is_err() {
            return;
        }
    }
}

struct Asking<F> {
    tools: Tools,
    turned: Arc<F>,
    places: Arc<Semaphore>,
    /// By the upstream's name, and how many of this name came before it in the set.
    groups: HashMap<(Arc<str>, usize), Asked>,
}

/// A group, and who asks its targets.
struct Asked {
    group: Group,
    tasks: Vec<Task>,
}

impl<F> Asking<F>
where
    F: Fn(&Watched, Turn, Option<&str>) + Send + Sync + 'static,
{
    fn follow(&mut self, set: &[Group]) {
        let mut before = std::mem::take(&mut self.groups);
        let mut groups = HashMap::with_capacity(set.len());
        let mut fresh = Vec::new();
        for group in set {
            let Some(first) = group.first() else { continue };
            let mut identity = (first.upstream.clone(), 0);
            while groups.contains_key(&identity) {
                identity.1 += 1;
            }
            let asked = match before.remove(&identity) {
                Some(asked) if Arc::ptr_eq(&asked.group, group) => asked,
                known => {
                    let (asked, others) = carry_over(known, group);
                    fresh.extend(others.into_iter().map(|other| (identity.clone(), other)));
                    asked
                }
            };
            groups.insert(identity, asked);
        }
        let many = fresh.len() as f64 / FIRST_A_SECOND;
        for (identity, watched) in fresh {
            let task = self.spawn(watched, many);
            if let (Some(task), Some(asked)) = (task, groups.get_mut(&identity)) {
                asked.tasks.push(task);
            }
        }
        self.groups = groups;
    }

    /// Begins to ask a target, within `many` seconds where that is longer than what one waits anyway.
    fn spawn(&self, watched: Arc<Watched>, many: f64) -> Option<Task> {
        let mut handles = Vec::new();
        if let Some(check) = self.tools.check(&watched.settings, &watched.place) {
            let interval = watched.settings.interval;
            let usual = interval.min(FIRST * 10).mul_f64(0.1);
            let within = usual.max(interval.min(Duration::from_secs_f64(many)));
            let asked = keep_asking(
                watched.clone(),
                check,
                self.turned.clone(),
                self.places.clone(),
                within.mul_f64(rand::random::<f64>()),
            );
            handles.push(tokio::spawn(asked).abort_handle());
        }
        if watched.engine != Engine::None {
            let reading = keep_reading(watched.clone(), self.tools.connector());
            handles.push(tokio::spawn(reading).abort_handle());
        }
        let ranks = watched.kv_events.as_ref().map_or(0, |events| events.ranks);
        watched.state.signals().kv().listen(ranks.into());
        for (rank, events) in (0..ranks).zip(watched.kv_events.iter().cycle()) {
            let listening = keep_listening(watched.clone(), events.clone(), rank);
            handles.push(tokio::spawn(listening).abort_handle());
        }
        (!handles.is_empty()).then_some(Task { watched, handles })
    }
}

/// The tasks that go on for a group, and the targets that need another: what is asked may have changed; what is known of the target has not.
fn carry_over(known: Option<Asked>, group: &Group) -> (Asked, Vec<Arc<Watched>>) {
    let known = known.map(|asked| asked.tasks).unwrap_or_default();
    let mut known: HashMap<Arc<str>, Task> = known
        .into_iter()
        .map(|task| (task.watched.target.clone(), task))
        .collect();
    let (mut tasks, mut fresh) = (Vec::with_capacity(group.len()), Vec::new());
    for watched in &**group {
        match known.remove(&watched.target) {
            Some(task) if task.watched.is_as(watched) && task.goes_on() => {
                tasks.push(task);
            }
            _ => fresh.push(watched.clone()),
        }
    }
    let group = group.clone();
    (Asked { group, tasks }, fresh)
}

/// What is done for one target; ends with this value.
struct Task {
    watched: Arc<Watched>,
    handles: Vec<AbortHandle>,
}

impl Task {
    fn goes_on(&self) -> bool {
        self.handles.iter().all(|handle| !handle.is_finished())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handles.iter().for_each(AbortHandle::abort);
    }
}

async fn keep_asking(
    watched: Arc<Watched>,
    check: Arc<dyn HealthCheck + Send + Sync>,
    turned: Arc<impl Fn(&Watched, Turn, Option<&str>)>,
    places: Arc<Semaphore>,
    first: Duration,
) {
    let settings = &watched.settings;
    let thresholds = Thresholds {
        unhealthy_after: settings.unhealthy_after,
        healthy_after: settings.healthy_after,
    };
    sleep(first).await;
    loop {
        // It is closed only when nobody is asked any more.
        let Ok(place) = places.acquire().await else {
            return;
        };
        let next = Instant::now() + settings.interval.mul_f64(1.0 - rand::random::<f64>() * 0.1);
        let answer = ask(&watched, &*check).await;
        drop(place);
        let now = std::time::Instant::now();
        if let Some(turn) = watched.health.probed(answer.is_ok(), &thresholds, now) {
            if turn == Turn::WentUp {
                watched.freed.tell();
            }
            let why = answer.err().map(|error| error.to_string());
            turned(&watched, turn, why.as_deref());
        }
        sleep_until(next).await;
    }
}

async fn ask(watched: &Watched, check: &(dyn HealthCheck + Send + Sync)) -> Result<()> {
    let target = watched.place.locate((watched.address)())?;
    match timeout(watched.settings.timeout, check.check(&target)).await {
        Ok(answer) => answer,
        Err(_) => Error::e_explain(ErrorType::ReadTimedout, "no answer in time"),
    }
}
