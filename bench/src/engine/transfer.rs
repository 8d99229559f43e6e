//! KV that one engine computes and another fetches: what is held, for whom, and what became of it.
//!
//! An engine that prefills registers what it computes under an id and holds it until it is fetched, given up, or its lease runs out. Nothing is
//! fetched twice, and no id is taken twice: both are mistakes of whoever directs the engines, and counted.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::shared::lock;

/// How an engine shares requests with others.
#[derive(Debug, Clone)]
pub struct TransferConfig {
    /// What it speaks with them.
    pub protocol: TransferProtocol,
    /// Its part.
    pub role: EngineRole,
    /// How long what is computed is held for whoever may fetch it, and how long that is waited for.
    pub lease: Duration,
    /// Data-parallel ranks, each an engine of its own to Mooncake.
    pub ranks: u32,
}

impl TransferConfig {
    /// With a lease of 30 seconds and one rank.
    pub fn new(protocol: TransferProtocol, role: EngineRole) -> Self {
        Self {
            protocol,
            role,
            lease: Duration::from_secs(30),
            ranks: 1,
        }
    }
}

/// What engines speak with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferProtocol {
    /// SGLang: rooms.
    Sglang,
    /// vLLM with NIXL: parameters from the prefill's answer.
    Nixl,
    /// vLLM with Mooncake: a transfer id, or parameters from the prefill's answer.
    Mooncake,
    /// vLLM with KVT: the address of the prefill, the request's id.
    Kvt,
}

/// An engine's part in shared requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineRole {
    /// Any, and requests as a whole.
    Both,
    /// Computing prompts.
    Prefill,
    /// Producing tokens.
    Decode,
}

impl FromStr for TransferProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sglang" => Ok(Self::Sglang),
            "nixl" => Ok(Self::Nixl),
            "mooncake" => Ok(Self::Mooncake),
            "kvt" => Ok(Self::Kvt),
            _ => Err("one of sglang, nixl, mooncake, kvt".to_owned()),
        }
    }
}

impl FromStr for EngineRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "both" => Ok(Self::Both),
            "prefill" => Ok(Self::Prefill),
            "decode" => Ok(Self::Decode),
            _ => Err("one of both, prefill, decode".to_owned()),
        }
    }
}

/// What became of what an engine computed for others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TransferState {
    /// Held now.
    pub held: usize,
    /// Fetched.
    pub fetched: u64,
    /// Freed because whoever asked for the prefill left.
    pub freed: u64,
    /// Held until its lease ran out: nobody came.
    pub expired: u64,
    /// Attempts to fetch what is not there, is somebody else's, or was fetched before.
    pub refused: u64,
    /// Ids that came twice; a real engine may crash.
    pub duplicates: u64,
}

/// The store of one engine.
#[derive(Debug)]
pub(super) struct Transfers {
    pub(super) config: TransferConfig,
    /// What this engine is called, anew with every start.
    pub(super) engine: String,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<String, Held>,
    /// Every id there ever was.
    seen: HashSet<String>,
    counts: TransferState,
}

#[derive(Debug)]
struct Held {
    ready: bool,
    /// When its lease ends, once nobody asks for the prefill any more.
    until: Option<Instant>,
}

/// Why something was not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It never was there, or not in time.
    Unknown,
    /// It was there, and is not any more.
    Gone,
    /// Another engine was meant.
    Foreign,
}

impl Transfers {
    pub(super) fn new(config: TransferConfig, engine: String) -> Arc<Self> {
        Arc::new(Self {
            config,
            engine,
            inner: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// The id of the engine at a rank.
    pub(super) fn engine_at(&self, rank: u32) -> String {
        format!("{}_dp{rank}", self.engine)
    }

    /// Takes ids for a prefill that begins. `None`: one of them came before.
    pub(super) fn register(self: &Arc<Self>, ids: Vec<String>) -> Option<Hold> {
        let mut inner = self.lock();
        if ids.iter().any(|id| inner.seen.contains(id)) {
            inner.counts.duplicates += 1;
            return None;
        }
        for id in &ids {
            inner.seen.insert(id.clone());
            let held = Held {
                ready: false,
                until: None,
            };
            inner.held.insert(id.clone(), held);
        }
        drop(inner);
        self.changed.notify_waiters();
        Some(Hold {
            transfers: Arc::clone(self),
            ids,
            stays: false,
        })
    }

    /// Notes an id that an engine which decodes was given. False: it came before.
    pub(super) fn meet(&self, id: &str) -> bool {
        let mut inner = self.lock();
        let new = inner.seen.insert(id.to_owned());
        inner.counts.duplicates += u64::from(!new);
        new
    }

    /// Computes at once what an engine that decodes asks for, and hands it over.
    pub(super) fn compute(&self, id: &str) -> Result<(), Refused> {
        if !self.meet(id) {
            return Err(Refused::Gone);
        }
        self.lock().counts.fetched += 1;
        Ok(())
    }

    /// Hands over what is held under an id. `waits`: also what is still to come.
    pub(super) async fn take(
        &self,
        id: &str,
        engine: Option<&str>,
        waits: bool,
    ) -> Result<(), Refused> {
        let known = |name: &str| (0..self.config.ranks).any(|rank| self.engine_at(rank) == name);
        let taken = match engine.is_none_or(known) {
            false => Err(Refused::Foreign),
            true => match timeout(self.config.lease, self.wait_for(id, waits)).await {
                Ok(taken) => taken,
                Err(_) => Err(Refused::Unknown),
            },
        };
        let mut inner = self.lock();
        match taken {
            Ok(()) => inner.counts.fetched += 1,
            Err(_) => inner.counts.refused += 1,
        }
        taken
    }

    async fn wait_for(&self, id: &str, waits: bool) -> Result<(), Refused> {
        loop {
            let changed = self.changed.notified();
            {
                let mut inner = self.lock();
                match inner.held.get(id).map(|held| held.ready) {
                    Some(true) => {
                        inner.held.remove(id);
                        drop(inner);
                        self.changed.notify_waiters();
                        return Ok(());
                    }
                    None if inner.seen.contains(id) => return Err(Refused::Gone),
                    _ if !waits => return Err(Refused::Unknown),
                    _ => {}
                }
            }
            // What changed in between is seen at the next look: this is no hot path.
            let _ = timeout(Duration::from_millis(5), changed).await;
        }
    }

    pub(super) fn state(&self) -> TransferState {
        let inner = self.lock();
        TransferState {
            held: inner.held.len(),
            ..inner.counts.clone()
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        let mut inner = lock(&self.inner);
        let now = Instant::now();
        let before = inner.held.len();
        let alive = |held: &Held| held.until.is_none_or(|until| until > now);
        inner.held.retain(|_, held| alive(held));
        inner.counts.expired += (before - inner.held.len()) as u64;
        inner
    }
}

/// What a prefill holds while it is asked for; freed with it, unless it stays.
#[derive(Debug)]
pub(super) struct Hold {
    transfers: Arc<Transfers>,
    pub(super) ids: Vec<String>,
    stays: bool,
}

impl Hold {
    /// It is computed.
    pub(super) fn ready(&self) {
        let mut inner = self.transfers.lock();
        for id in &self.ids {
            if let Some(held) = inner.held.get_mut(id) {
                held.ready = true;
            }
        }
        drop(inner);
        self.transfers.changed.notify_waiters();
    }

    /// Waits until all of it was fetched. False: nobody came in time.
    pub(super) async fn fetched(&self) -> bool {
        let fetched = async {
            loop {
                let changed = self.transfers.changed.notified();
                let left = {
                    let inner = self.transfers.lock();
                    self.ids.iter().any(|id| inner.held.contains_key(id))
                };
                if !left {
                    return;
                }
                let _ = timeout(Duration::from_millis(5), changed).await;
            }
        };
        timeout(self.transfers.config.lease, fetched).await.is_ok()
    }

    /// The prefill was answered: it is held on, for as long as the lease says.
    pub(super) fn stay(mut self) {
        self.stays = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = self.transfers.lock();
        let until = Instant::now() + self.transfers.config.lease;
        for id in &self.ids {
            if self.stays {
                if let Some(held) = inner.held.get_mut(id) {
                    held.until = Some(until);
                }
            } else if inner.held.remove(id).is_some() {
                inner.counts.freed += 1;
            }
        }
        drop(inner);
        self.transfers.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(lease: Duration) -> Arc<Transfers> {
        let config = TransferConfig {
            lease,
            ..TransferConfig::new(TransferProtocol::Nixl, EngineRole::Prefill)
        };
        Transfers::new(config, "e".into())
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn what_is_held_is_fetched_once_and_by_whom_it_is_for() {
        let store = store(LONG);
        let hold = store.register(vec!["a".into()]).unwrap();
        assert_eq!(store.take("a", None, false).await, Err(Refused::Unknown));
        hold.ready();
        hold.stay();
        assert_eq!(
            store.take("a", Some("x_dp0"), false).await,
            Err(Refused::Foreign)
        );
        assert_eq!(store.take("b", None, false).await, Err(Refused::Unknown));
        assert_eq!(store.take("a", Some("e_dp0"), false).await, Ok(()));
        assert_eq!(store.take("a", None, true).await, Err(Refused::Gone));
        let state = store.state();
        assert_eq!((state.held, state.fetched, state.refused), (0, 1, 4));
    }

    #[tokio::test]
    async fn what_is_given_up_is_freed_and_what_nobody_fetches_runs_out() {
        let freed = store(LONG);
        drop(freed.register(vec!["a".into(), "b".into()]));
        assert_eq!(freed.state().freed, 2);
        assert_eq!(freed.take("a", None, true).await, Err(Refused::Gone));
        assert!(freed.register(vec!["b".into()]).is_none());
        assert_eq!(freed.state().duplicates, 1);
        let leased = store(Duration::ZERO);
        leased.register(vec!["a".into()]).unwrap().stay();
        let state = leased.state();
        assert_eq!((state.held, state.expired), (0, 1));
    }

    #[tokio::test]
    async fn decode_may_come_first() {
        let store = store(LONG);
        let theirs = Arc::clone(&store);
        let decode = tokio::spawn(async move { theirs.take("a", None, true).await });
        let hold = store.register(vec!["a".into()]).unwrap();
        hold.ready();
        assert!(hold.fetched().await);
        drop(hold);
        assert_eq!(decode.await.unwrap(), Ok(()));
        let state = store.state();
        assert_eq!((state.held, state.fetched, state.freed), (0, 1, 0));
    }
}
