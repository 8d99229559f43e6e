//! Who needs a certificate, and the orders for them: one at a time for each gateway, a few at once.
//!
//! What is there goes on being shown whatever becomes of an order. Nothing is ordered over what is kept and cannot be opened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::IntCounterVec;
use tokio::time::timeout;

use super::Challenges;
use super::account::Accounts;
use super::kept::{Found, KeptCertificate, Rows};
use super::order::{self, Failure, FailureKind};
use super::seal::Seal;
use super::standing::{Held, Record, Standing, wait};
use crate::model::{Acme, UntilIssued};
use crate::store::Store;
use crate::tls::{Files, Issued};

/// Orders under way at once.
const AT_ONCE: usize = 4;
/// How long one may take as a whole.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often what cannot be opened is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How often an order is made again at once that failed for a nonce only.
const NONCES: u32 = 3;

/// A gateway that wants a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The gateway.
    pub gateway: Arc<str>,
    /// The names it is to be for, sorted.
    pub names: Arc<[String]>,
    /// What stands in the way, as the configuration is.
    pub obstacle: Option<String>,
}

/// Orders certificates, keeps them, and shows them.
pub struct Issuer {
    files: Arc<Files>,
    store: Arc<dyn Store>,
    challenges: Arc<Challenges>,
    accounts: Accounts,
    orders: IntCounterVec,
    // Held for a look or a note, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    settings: Option<Acme>,
    records: HashMap<Arc<str>, Record>,
}

/// An order that is to be made; until it is dropped no other is made for its gateway.
pub struct Job {
    issuer: Arc<Issuer>,
    gateway: Arc<str>,
    names: Arc<[String]>,
    acme: Acme,
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(record) = self.issuer.lock().records.get_mut(&self.gateway) {
            record.under_way = false;
        }
    }
}

/// What an order came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The gateway.
    pub gateway: Arc<str>,
    /// The names it was for.
    pub names: Arc<[String]>,
    /// Until when the certificate is good, in seconds after 1970; or why there is none, and when it is tried again.
    pub result: Result<i64, (String, SystemTime)>,
}

impl Issuer {
    /// With nothing known yet. `orders` counts by `result`.
    pub fn new(files: Arc<Files>, store: Arc<dyn Store>, orders: IntCounterVec) -> Self {
        Self {
            files,
            store,
            challenges: Arc::default(),
            accounts: Accounts::default(),
            orders,
            state: Mutex::default(),
        }
    }

    /// Whether anybody wanted a certificate when it was looked last.
    pub fn is_busy(&self) -> bool {
        !self.lock().records.is_empty()
    }

    /// The answers to challenges that are under way.
    pub fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// How a gateway's order stands; `None` of those that want no certificate.
    pub fn standing(&self, gateway: &str) -> Option<Standing> {
        let state = self.lock();
        let directory = state.settings.as_ref()?.directory.as_str();
        Some(state.records.get(gateway)?.standing(directory))
    }

    /// Takes note of who wants a certificate, and shows those that are kept. Waits for the disk only if somebody is new or something has changed.
    pub fn look(&self, wanted: &[Wanted], acme: &Acme) {
        let now = SystemTime::now();
        let mut state = self.lock();
        let State { settings, records } = &mut *state;
        let changed = settings.as_ref() != Some(acme);
        if changed {
            *settings = Some(acme.clone());
        }
        let named: HashMap<&str, &Wanted> = wanted.iter().map(|w| (&*w.gateway, w)).collect();
        records.retain(|name, _| named.contains_key(&**name));
        let mut fresh = Vec::new();
        for Wanted {
            gateway,
            names,
            obstacle,
        } in wanted
        {
            let known = records.get(gateway);
            let again = known.is_none_or(|record| {
                let due = record.not_before.is_none_or(|at| at <= now);
                changed || (record.locked.is_some() && due)
            });
            if again {
                fresh.push(gateway.clone());
            }
            let new = || Record::new(names.clone());
            let record = records.entry(gateway.clone()).or_insert_with(new);
            if changed || record.names != *names {
                // Somebody may have mended what was wrong.
                record.names.clone_from(names);
                record.failed = None;
                record.failures = 0;
                record.not_before = None;
            }
            record.obstacle.clone_from(obstacle);
        }
        drop(state);
        for gateway in fresh {
            self.recall(&gateway, acme);
        }
        self.stand_in(wanted, acme);
    }

    /// Forgets kept certificates that have ended and that nobody wants. Waits for the disk.
    pub fn tidy(&self, acme: &Acme) {
        let seal = seal(acme);
        let wanted: Vec<Arc<str>> = self.lock().records.keys().cloned().collect();
        let is_wanted = |name: &str| wanted.iter().any(|wanted| **wanted == *name);
        if let Err(error) = self.rows(seal.as_ref()).forget_ended(is_wanted) {
            log::warn!("certificates that have ended are still kept: {error}");
        }
    }

    /// The orders that are due, but for so many that are under way.
    pub fn due(self: &Arc<Self>, under_way: usize) -> Vec<Job> {
        let now = SystemTime::now();
        let mut state = self.lock();
        let State { settings, records } = &mut *state;
        let Some(acme) = settings else {
            return Vec::new();
        };
        let directory = acme.directory.as_str();
        let due = records
            .iter_mut()
            .filter(|(_, record)| record.is_due(directory, now));
        let due = due.take(AT_ONCE.saturating_sub(under_way));
        let jobs = due.map(|(gateway, record)| {
            record.under_way = true;
            Job {
                issuer: self.clone(),
                gateway: gateway.clone(),
                names: record.names.clone(),
                acme: acme.clone(),
            }
        });
        jobs.collect()
    }

    /// Shows what is kept for a gateway.
    fn recall(&self, gateway: &Arc<str>, acme: &Acme) {
        let seal = seal(acme);
        let found = self.rows(seal.as_ref()).certificate(gateway);
        let (locked, held) = match found {
            Ok(Found::Nothing) => (None, None),
            Ok(Found::Locked(why)) => (Some(why), None),
            Ok(Found::Kept(kept)) => (None, Some(kept)),
            Err(error) => (Some(error.to_string()), None),
        };
        let ended =
            |kept: &KeptCertificate| kept.issued.leaf().untimely(SystemTime::now()).is_some();
        let held = held.filter(|kept| !ended(kept));
        {
            let mut state = self.lock();
            let Some(record) = state.records.get_mut(gateway) else {
                return;
            };
            if let Some(why) = &locked {
                if record.locked.is_none() {
                    log::error!("gateway {gateway}: {why}");
                }
                record.not_before = SystemTime::now().checked_add(LOOK_AGAIN);
            } else if record.locked.is_some() {
                record.not_before = None;
            }
            record.locked = locked;
        }
        if let Some(kept) = held {
            self.show(gateway, kept);
        }
    }

    fn show(&self, gateway: &Arc<str>, kept: KeptCertificate) {
        let held = Held::new(Arc::new(kept.issued.clone()), kept.directory);
        if let Some(record) = self.lock().records.get_mut(gateway) {
            record.certificate = Some(held);
        }
        self.files.issue(gateway, kept.issued);
    }

    /// Shows certificates that vouch for themselves where that is wished, and takes them away where it is not.
    fn stand_in(&self, wanted: &[Wanted], acme: &Acme) {
        for Wanted { gateway, names, .. } in wanted {
            let shown = self.files.issued(gateway);
            match (&shown, acme.until_issued) {
                (None, UntilIssued::SelfSigned) => {}
                (Some(shown), UntilIssued::SelfSigned)
                    if shown.is_own() && !shown.covers(names) => {}
                (Some(shown), UntilIssued::Refuse) if shown.is_own() => {
                    self.files.withdraw(gateway);
                    continue;
                }
                _ => continue,
            }
            if let Some(own) = Issued::own(names) {
                self.files.issue(gateway, own);
            }
        }
    }

    fn rows<'s>(&'s self, seal: Option<&'s Seal>) -> Rows<'s> {
        Rows {
            store: &*self.store,
            seal,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// Makes the order; `None` if none was needed after all.
    pub async fn carry_out(self) -> Option<Outcome> {
        if self.is_there_already().await {
            return None;
        }
        let ordered = timeout(PATIENCE, self.order());
        let ordered = ordered.await.unwrap_or_else(|_| {
            let why = format!(
                "the order took longer than {} minutes",
                PATIENCE.as_secs() / 60
            );
            Err((Failure::new(why), None))
        });
        let result = match ordered {
            Ok(issued) => Ok(self.keep(issued).await),
            Err((failure, away)) => Err(self.give_up(failure, away)),
        };
        Some(Outcome {
            gateway: self.gateway.clone(),
            names: self.names.clone(),
            result,
        })
    }

    /// Whether another process has ordered it meanwhile; then that is shown.
    async fn is_there_already(&self) -> bool {
        let (issuer, acme) = (self.issuer.clone(), self.acme.clone());
        let gateway = self.gateway.clone();
        let read = tokio::task::spawn_blocking(move || {
            let seal = seal(&acme);
            issuer.rows(seal.as_ref()).certificate(&gateway)
        });
        let Ok(Ok(Found::Kept(kept))) = read.await else {
            return false;
        };
        let directory = self.acme.directory.as_str();
        let held = Held::new(Arc::new(kept.issued.clone()), kept.directory.clone());
        let is_good = held.is_good(&self.names, directory, SystemTime::now());
        if is_good {
            self.issuer.show(&self.gateway, kept);
        }
        is_good
    }

    /// With a failure, how long the authority asked us to stay away.
    async fn order(&self) -> Result<Issued, (Failure, Option<Duration>)> {
        let Issuer {
            files,
            store,
            accounts,
            challenges,
            ..
        } = &*self.issuer;
        let mut tries = 0;
        loop {
            tries += 1;
            let (account, away) = accounts.enter(&self.acme, files, store).await;
            let account = account.map_err(|failure| (failure, away.told()))?;
            let placed = order::place(&account, &self.names, &self.acme.challenge, challenges);
            match placed.await {
                Err(failure) if failure.kind == FailureKind::Nonce && tries < NONCES => {}
                Err(failure) => {
                    if failure.kind == FailureKind::NoAccount {
                        accounts.forget(self.acme.directory.as_str()).await;
                    }
                    return Err((failure, away.told()));
                }
                Ok(issued) => return Ok(issued),
            }
        }
    }

    /// Keeps and shows what was issued; until when it is good.
    async fn keep(&self, issued: Issued) -> i64 {
        let until = issued.leaf().not_after;
        let kept = KeptCertificate {
            issued,
            directory: self.acme.directory.as_str().to_owned(),
        };
        let (issuer, acme) = (self.issuer.clone(), self.acme.clone());
        let gateway = self.gateway.clone();
        let done = tokio::task::spawn_blocking(move || {
            let seal = seal(&acme);
            if let Err(error) = issuer.rows(seal.as_ref()).keep_certificate(&gateway, &kept) {
                log::error!(
                    "the certificate of the gateway {gateway} is in force and could not be kept: {error}"
                );
            }
            issuer.show(&gateway, kept);
        });
        // It is one of ours, and panics on nothing.
        let _ = done.await;
        if let Some(record) = self.issuer.lock().records.get_mut(&self.gateway) {
            record.failed = None;
            record.failures = 0;
            record.not_before = None;
        }
        self.count("ok");
        until
    }

    /// Notes a failure; why, and when it is tried again.
    fn give_up(&self, failure: Failure, away: Option<Duration>) -> (String, SystemTime) {
        self.count(match failure.kind {
            FailureKind::RateLimited => "rate_limited",
            _ => "failed",
        });
        let mut state = self.issuer.lock();
        let record = state.records.get_mut(&self.gateway);
        let failures = record.as_ref().map_or(1, |record| record.failures + 1);
        let wait = wait(self.acme.backoff, failures, rand::random(), away);
        let now = SystemTime::now();
        let next = now
            .checked_add(wait)
            .unwrap_or(now + Duration::from_secs(86_400));
        if let Some(record) = record {
            record.failures = failures;
            record.failed = Some(failure.why.clone());
            record.not_before = Some(next);
        }
        (failure.why, next)
    }

    fn count(&self, result: &str) {
        self.issuer.orders.with_label_values(&[result]).inc();
    }
}

/// What seals rows, if anything does.
pub(super) fn seal(acme: &Acme) -> Option<Seal> {
    Seal::new(acme.encryption_key.as_ref()?)
}
