//! The change of processes: what the running one keeps still and tells its successor, and what that goes on from.
//!
//! While a process hands over, nothing that is kept is changed by it: the successor has read it already. Requests are served all the time. What
//! budgets count goes on being shared through the store as long as both live; what other limits have counted is told once, at the
//! moment of the change. What the old process admits after that (the last requests on connections that it has) its windows and
//! buckets alone know.
//!
//! A store that is gone with its process is told whole: its resources before the successor compiles anything, its counters at the change.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tollgate_sdk::quota::Carried;

use super::Control;
use crate::store::{Added, Change, Counter, Resource, Store, StoreError};

/// How long a process that has drained may take to write down what it counted last.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// How far a change of processes has come, as seen by the old one.
pub(super) struct Handover {
    still: AtomicBool,
    done: watch::Sender<bool>,
    asked: Mutex<Option<mpsc::Sender<Asked>>>,
    /// Until when earlier processes may still count.
    others: Mutex<Option<Instant>>,
}

impl Default for Handover {
    fn default() -> Self {
        Self {
            still: AtomicBool::new(false),
            done: watch::channel(false).0,
            asked: Mutex::default(),
            others: Mutex::default(),
        }
    }
}

/// Somebody asks for a new process.
pub struct Asked {
    /// How long that may take to get ready.
    pub patience: Duration,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Upgraded, UpgradeError>>,
}

/// What a change of processes came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// The process that drains.
    pub old: u32,
    /// The process that serves.
    pub new: u32,
    /// The new one's version.
    pub version: String,
    /// Exchanges that live on in the old one.
    pub open: usize,
}

/// Why the process goes on itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// Another upgrade is under way, or the process drains.
    #[error("this process is handing over already")]
    Running,
    /// It cannot be replaced, or not yet.
    #[error("this process cannot be replaced: {0}")]
    Unable(String),
    /// The new one did not get to serve.
    #[error("the old process goes on: {0}")]
    Failed(String),
}

/// What was counted until the moment of the change.
#[derive(Default, Serialize, Deserialize)]
pub struct Counted {
    /// What budgets have, if the store is gone with its process.
    budgets: Vec<Counter>,
    recent: Vec<Carried>,
    /// How long earlier processes may go on counting, in milliseconds.
    others: u64,
}

impl Control {
    /// From now on nothing that is kept is changed here; `false` if that is so already. Waits for the change that is being made, so it is
    /// for threads that may wait.
    pub fn keep_still(&self) -> bool {
        if self.handover.still.swap(true, Ordering::AcqRel) {
            return false;
        }
        drop(self.tended.blocking_lock());
        true
    }

    /// The process goes on after all.
    pub fn go_on(&self) {
        self.handover.still.store(false, Ordering::Release);
    }

    /// Whether what is kept stays as it is, because another process takes over.
    pub fn is_still(&self) -> bool {
        self.handover.still.load(Ordering::Acquire)
    }

    /// Another process serves now.
    pub fn set_handed_over(&self) {
        self.handover.done.send_replace(true);
    }

    /// Whether another process serves.
    pub fn is_handed_over(&self) -> bool {
        *self.handover.done.borrow()
    }

    /// Waits until another process serves.
    pub async fn handed_over(&self) {
        let mut done = self.handover.done.subscribe();
        // Its sender lives as long as this.
        let _ = done.wait_for(|done| *done).await;
    }

    /// Asks for a new process, and waits until it serves.
    ///
    /// # Errors
    /// [`UpgradeError`]; then this one goes on.
    pub async fn upgrade(&self, patience: Duration) -> Result<Upgraded, UpgradeError> {
        let (answer, answered) = oneshot::channel();
        let asked = lock(&self.handover.asked).clone();
        let nobody = || UpgradeError::Unable("it was not started by `tollgate run`".to_owned());
        let asked = asked.ok_or_else(nobody)?;
        let sent = asked.send(Asked { patience, answer }).await;
        sent.map_err(|_| UpgradeError::Running)?;
        answered.await.unwrap_or(Err(UpgradeError::Running))
    }

    /// Where [`upgrade`](Self::upgrade) is heard.
    pub fn hear_upgrades(&self) -> mpsc::Receiver<Asked> {
        let (sender, receiver) = mpsc::channel(8);
        *lock(&self.handover.asked) = Some(sender);
        receiver
    }

    /// What a successor does not find in the store: the revision and resources.
    pub fn unshared(&self) -> (u64, Vec<Resource>) {
        self.store.unshared().unwrap_or_default()
    }

    /// What was counted, for a successor; `grace` is how long this process may go on after the change. It waits for the disk.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn counted(&self, grace: Duration) -> Result<Counted, StoreError> {
        self.write_budgets()?;
        let budgets = match self.store.unshared() {
            None => Vec::new(),
            Some(_) => self.store.counters()?,
        };
        let others = (grace + AFTERWARDS).max(self.others_count_for().unwrap_or_default());
        Ok(Counted {
            budgets,
            recent: self.registry.offers.quota.recent(),
            others: u64::try_from(others.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Goes on from what a predecessor counted. Before the first request; it waits for the disk.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn go_on_from(&self, counted: &Counted) -> Result<(), StoreError> {
        let added = counted.budgets.iter().map(|counter| Added {
            limit: counter.limit.clone(),
            who: counter.who.clone(),
            period: counter.period,
            by: i64::try_from(counter.used).unwrap_or(i64::MAX),
        });
        let added: Vec<Added> = added.collect();
        if !added.is_empty() {
            self.store.count(&added)?;
        }
        self.catch_up()?;
        self.registry.offers.quota.resume(&counted.recent);
        let others = Instant::now().checked_add(Duration::from_millis(counted.others));
        *lock(&self.handover.others) = others;
        Ok(())
    }

    /// How long earlier processes may still count what this one should know.
    pub(super) fn others_count_for(&self) -> Option<Duration> {
        let until = (*lock(&self.handover.others))?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

/// Puts what a predecessor's store had, at `revision`, into one that is new.
///
/// # Errors
/// When it cannot be kept.
pub fn inherit(
    store: &dyn Store,
    revision: u64,
    resources: Vec<Resource>,
) -> Result<(), StoreError> {
    if revision > store.revision()? {
        store.advance(revision)?;
    }
    let changes = resources.into_iter().map(|resource| Change::Put {
        kind: resource.kind,
        name: resource.name,
        gateway: resource.gateway,
        body: resource.body,
    });
    store.apply(&changes.collect::<Vec<_>>(), None).map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
