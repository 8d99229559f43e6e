//! Keeps asking targets: a task each, so that one that hangs delays no other.
//!
//! Targets are asked at once, give or take a tenth of the interval, and from then on every 90 to 100 % of it, so
//! that many are not asked at the same moment and none later than promised. Time counts from the start of one check to
//! the start of the next.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::{Error, ErrorType, Result};
use pingora_load_balancing::health_check::HealthCheck;
use tokio::sync::watch::Receiver;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::check::{Place, Tools};
use super::{TargetHealth, Thresholds, Turn};
use crate::model::Health;

/// A target first asked is asked within this.
const FIRST: Duration = Duration::from_secs(1);

/// A target to ask, and where to note what it answers.
#[derive(Clone)]
pub struct Watched {
    /// Its upstream's name: with `target`, its identity.
    pub upstream: Arc<str>,
    /// Its URL.
    pub target: Arc<str>,
    /// How it is asked.
    pub settings: Health,
    /// Where it is.
    pub place: Place,
    /// Where its name leads now; not asked of unix sockets.
    pub address: Arc<dyn Fn() -> Option<SocketAddr> + Send + Sync>,
    /// What is known of it.
    pub health: Arc<TargetHealth>,
}

impl Watched {
    /// Whether whoever asks the one may go on and need not change to the other.
    fn is_as(&self, other: &Watched) -> bool {
        self.settings == other.settings
            && self.place == other.place
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
pub async fn watch<F>(mut sets: Receiver<Arc<[Watched]>>, turned: F)
where
    F: Fn(&Watched, Turn, Option<&str>) + Send + Sync + 'static,
{
    let mut asking = Asking {
        tools: Tools::default(),
        turned: Arc::new(turned),
        tasks: HashMap::new(),
    };
    loop {
        let set = sets.borrow_and_update().clone();
        asking.follow(&set);
        if sets.changed().await.is_err() {
            return;
        }
    }
}

struct Asking<F> {
    tools: Tools,
    turned: Arc<F>,
    tasks: HashMap<(Arc<str>, Arc<str>), Task>,
}

impl<F> Asking<F>
where
    F: Fn(&Watched, Turn, Option<&str>) + Send + Sync + 'static,
{
    fn follow(&mut self, set: &[Watched]) {
        let mut before = std::mem::take(&mut self.tasks);
        for watched in set {
            let identity = (watched.upstream.clone(), watched.target.clone());
            let task = match before.remove(&identity) {
                Some(task) if task.watched.is_as(watched) && !task.handle.is_finished() => task,
                // What it is asked may have changed; what is known of it has not.
                _ => match self.tools.check(&watched.settings, &watched.place) {
                    Some(check) => self.spawn(watched, check),
                    None => continue,
                },
            };
            self.tasks.insert(identity, task);
        }
    }

    fn spawn(&self, watched: &Watched, check: Arc<dyn HealthCheck + Send + Sync>) -> Task {
        let asked = keep_asking(watched.clone(), check, self.turned.clone());
        Task {
            watched: watched.clone(),
            handle: tokio::spawn(asked).abort_handle(),
        }
    }
}

/// Ends with its value.
struct Task {
    watched: Watched,
    handle: AbortHandle,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

async fn keep_asking(
    watched: Watched,
    check: Arc<dyn HealthCheck + Send + Sync>,
    turned: Arc<impl Fn(&Watched, Turn, Option<&str>)>,
) {
    let settings = &watched.settings;
    let thresholds = Thresholds {
        unhealthy_after: settings.unhealthy_after,
        healthy_after: settings.healthy_after,
    };
    sleep(
        settings
            .interval
            .min(FIRST * 10)
            .mul_f64(rand::random::<f64>() * 0.1),
    )
    .await;
    loop {
        let next = Instant::now() + settings.interval.mul_f64(1.0 - rand::random::<f64>() * 0.1);
        let answer = ask(&watched, &*check).await;
        let now = std::time::Instant::now();
        if let Some(turn) = watched.health.probed(answer.is_ok(), &thresholds, now) {
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
