//! What holds of each gateway, and since when: conditions, kept by the gateway's name from one look to the next.
//!
//! They are looked at several times a second, so that the time of a turn is the turn's and not that of whoever asks.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tollgate_sdk::document::FromNode;

use super::events::now;
use crate::health::Standing;
use crate::model::Moment;
use crate::snapshot::{Gateway, Service, Snapshot, Upstream};

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Serving,
    Draining,
}

/// A condition's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionKind {
    /// Its configuration is in force.
    Accepted,
    /// Listeners take its requests.
    Programmed,
    /// At least one target of each of its services serves.
    TargetsHealthy,
    /// The certificate that is ordered for it is there; only of gateways with `certificate = "acme"`.
    CertificateIssued,
}

impl ConditionKind {
    /// All of them, as they are listed.
    pub const ALL: [ConditionKind; 4] = [
        ConditionKind::Accepted,
        ConditionKind::Programmed,
        ConditionKind::TargetsHealthy,
        ConditionKind::CertificateIssued,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            ConditionKind::Accepted => "Accepted",
            ConditionKind::Programmed => "Programmed",
            ConditionKind::TargetsHealthy => "TargetsHealthy",
            ConditionKind::CertificateIssued => "CertificateIssued",
        }
    }
}

/// Something that holds of a gateway, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What.
    pub kind: ConditionKind,
    /// `None`: not known yet.
    pub holds: Option<bool>,
    /// A word for machines.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// When `holds` turned last.
    pub updated_at: Moment,
}

/// A gateway as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayState {
    /// The process starts, or nobody knows yet how its targets are.
    Creating,
    /// It serves, though maybe not all of its services.
    Ready,
    /// A change of the configuration is on its way.
    Updating,
    /// The process drains.
    Deleting,
    /// None of its services can serve, or the file's last version was refused.
    Error,
}

impl GatewayState {
    /// All of them.
    pub const ALL: [GatewayState; 5] = [
        GatewayState::Creating,
        GatewayState::Ready,
        GatewayState::Updating,
        GatewayState::Deleting,
        GatewayState::Error,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            GatewayState::Creating => "creating",
            GatewayState::Ready => "ready",
            GatewayState::Updating => "updating",
            GatewayState::Deleting => "deleting",
            GatewayState::Error => "error",
        }
    }
}

/// How the file was read the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastReload {
    /// When.
    pub at: Moment,
    /// Whether it is in force.
    pub ok: bool,
    /// What was said of it.
    pub message: String,
}

/// What is remembered from one look to the next.
pub(super) struct Book {
    pub(super) started: Moment,
    phase: AtomicU8,
    changing: AtomicUsize,
    // Both held for a look or a note, never across an await.
    reload: Mutex<Option<LastReload>>,
    known: Mutex<HashMap<Arc<str>, (Vec<Condition>, GatewayState)>>,
}

impl Default for Book {
    fn default() -> Self {
        Book {
            started: now(),
            phase: AtomicU8::new(Phase::Starting as u8),
            changing: AtomicUsize::new(0),
            reload: Mutex::default(),
            known: Mutex::default(),
        }
    }
}

/// A change that is on its way for as long as this lives.
pub(super) struct Changing<'b>(&'b Book);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.changing.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Book {
    /// A change begins.
    pub(super) fn changing(&self) -> Changing<'_> {
        self.changing.fetch_add(1, Ordering::AcqRel);
        Changing(self)
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            1 => Phase::Serving,
            2 => Phase::Draining,
            _ => Phase::Starting,
        }
    }

    /// Requests are taken, or no longer. Who has begun to drain does not serve again.
    pub(super) fn set_ready(&self, ready: bool) {
        let phase = match (ready, self.phase()) {
            (true, Phase::Starting) => Phase::Serving,
            (false, _) => Phase::Draining,
            (true, same) => same,
        };
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(super) fn reloaded(&self, ok: bool, message: &str) {
        let last = LastReload {
            at: now(),
            ok,
            message: message.to_owned(),
        };
        *self.reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    pub(super) fn last_reload(&self) -> Option<LastReload> {
        let last = self.reload.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    /// Looks at every gateway, and tells what was found: the conditions in the order of [`ConditionKind::ALL`]. `ordered` is what holds of a gateway's
    /// certificate, if one is ordered.
    pub(super) fn look<R>(
        &self,
        snapshot: &Snapshot,
        ordered: impl Fn(&Gateway) -> Option<Found>,
        tell: impl FnOnce(&HashMap<Arc<str>, (Vec<Condition>, GatewayState)>) -> R,
    ) -> R {
        let refused = self.last_reload().is_some_and(|last| !last.ok);
        let process = Process {
            phase: self.phase(),
            changing: self.changing.load(Ordering::Acquire) > 0,
            refused,
            revision: snapshot.revision,
        };
        let at = now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > snapshot.gateways.len() {
            let named: std::collections::HashSet<&str> =
                snapshot.gateways.iter().map(|g| &*g.name).collect();
            known.retain(|name, _| named.contains(&**name));
        }
        for gateway in &snapshot.gateways {
            let judged = judge(&process, &Targets::of(gateway), gateway.paused);
            let found: Vec<Found> = judged.into_iter().chain(ordered(gateway)).collect();
            let state = process.state(&found);
            match known.entry(gateway.name.clone()) {
                Entry::Vacant(place) => {
                    let fresh = found.into_iter().map(|found| found.since(at)).collect();
                    place.insert((fresh, state));
                }
                Entry::Occupied(mut place) => {
                    let (before, last) = place.get_mut();
                    *last = state;
                    let mut known = std::mem::take(before).into_iter();
                    before.extend(found.into_iter().map(|found| {
                        let known = known.next().filter(|known| known.holds == found.holds);
                        found.since(known.map_or(at, |known| known.updated_at))
                    }));
                }
            }
        }
        tell(&known)
    }
}

/// What concerns all gateways.
struct Process {
    phase: Phase,
    changing: bool,
    refused: bool,
    revision: u64,
}

/// A condition without its time.
pub(super) struct Found {
    kind: ConditionKind,
    holds: Option<bool>,
    reason: &'static str,
    message: String,
    /// It holds of nothing at all.
    nowhere: bool,
}

impl Found {
    pub(super) fn new(
        kind: ConditionKind,
        holds: Option<bool>,
        reason: &'static str,
        message: String,
    ) -> Found {
        Found {
            kind,
            holds,
            reason,
            message,
            nowhere: false,
        }
    }

    fn since(self, updated_at: Moment) -> Condition {
        Condition {
            kind: self.kind,
            holds: self.holds,
            reason: self.reason,
            message: self.message,
            updated_at,
        }
    }
}

impl Process {
    fn state(&self, found: &[Found]) -> GatewayState {
        let fails = found
            .iter()
            .any(|found| found.holds == Some(false) && found.kind == ConditionKind::Accepted);
        match self.phase {
            Phase::Starting => GatewayState::Creating,
            Phase::Draining => GatewayState::Deleting,
            Phase::Serving if self.changing => GatewayState::Updating,
            Phase::Serving if fails || found.iter().any(|found| found.nowhere) => {
                GatewayState::Error
            }
            Phase::Serving if found.iter().any(|found| found.holds.is_none()) => {
                GatewayState::Creating
            }
            Phase::Serving => GatewayState::Ready,
        }
    }
}

/// How the targets of a gateway's services are.
#[derive(Debug, Default)]
struct Targets {
    services: usize,
    /// Services none of whose targets serves.
    dead: Vec<Arc<str>>,
    /// Services none of whose targets has been asked yet.
    unknown: Vec<Arc<str>>,
    /// Services that have no target until they are asked.
    asleep: Vec<Arc<str>>,
}

impl Targets {
    fn of(gateway: &Gateway) -> Targets {
        let mut targets = Targets::default();
        let now = Instant::now();
        for offer in gateway.router.offers() {
            targets.services += 1;
            if is_asleep(&offer.service) {
                targets.asleep.push(offer.service.name.clone());
                continue;
            }
            match serves(&offer.service, now) {
                Some(true) => {}
                Some(false) => targets.dead.push(offer.service.name.clone()),
                None => targets.unknown.push(offer.service.name.clone()),
            }
        }
        targets
    }
}

/// Whether there is no target because nobody asks.
fn is_asleep(service: &Service) -> bool {
    let may = service.scaling().is_some_and(|scaling| scaling.min == 0);
    may && service.upstream.targets.is_empty()
}

/// Whether any target of a service serves; `None` if nobody knows yet.
fn serves(service: &Service, now: Instant) -> Option<bool> {
    let mut unknown = false;
    for target in &service.upstream.targets {
        match standing(target, now) {
            Some(standing) if standing.share().is_some() => return Some(true),
            Some(Standing::Unchecked) => unknown = true,
            _ => {}
        }
    }
    match unknown {
        true => None,
        false => Some(false),
    }
}

/// How a target stands; `None` while nobody knows its address.
fn standing(target: &crate::snapshot::Target, now: Instant) -> Option<Standing> {
    let reachable = target.url.is_local() || target.state.resolved();
    reachable.then(|| target.health.standing(now))
}

/// How many targets of an upstream serve.
pub(super) fn serving(upstream: &Upstream, now: Instant) -> usize {
    let serving = upstream
        .targets
        .iter()
        .filter(|target| standing(target, now).is_some_and(|s| s.share().is_some()));
    serving.count()
}

fn judge(process: &Process, targets: &Targets, paused: bool) -> [Found; 3] {
    [
        accepted(process),
        programmed(process, paused),
        healthy(targets),
    ]
}

fn accepted(process: &Process) -> Found {
    let revision = process.revision;
    match process.refused {
        false => Found::new(
            ConditionKind::Accepted,
            Some(true),
            "InForce",
            format!("Revision {revision} is in force."),
        ),
        true => Found::new(
            ConditionKind::Accepted,
            Some(false),
            "FileRefused",
            format!(
                "The file's last version was refused, see last_reload; revision {revision} stays in force."
            ),
        ),
    }
}

fn programmed(process: &Process, paused: bool) -> Found {
    let (holds, reason, message) = match process.phase {
        Phase::Starting => (false, "Starting", "The listeners are not all up yet."),
        Phase::Draining => (
            false,
            "Draining",
            "The process ends: it takes no new connections.",
        ),
        Phase::Serving if paused => (
            true,
            "Paused",
            "It is paused: every request is answered with 503.",
        ),
        Phase::Serving => (true, "Listening", "All listeners are up."),
    };
    Found::new(
        ConditionKind::Programmed,
        Some(holds),
        reason,
        message.to_owned(),
    )
}

fn healthy(targets: &Targets) -> Found {
    let kind = ConditionKind::TargetsHealthy;
    if targets.services == 0 {
        let message = "It has no services.".to_owned();
        return Found::new(kind, Some(true), "NoServices", message);
    }
    if !targets.dead.is_empty() {
        let message = format!("No target serves of: {}.", listed(&targets.dead));
        let nowhere = targets.dead.len() == targets.services;
        return Found {
            nowhere,
            ..Found::new(kind, Some(false), "NoTarget", message)
        };
    }
    if !targets.unknown.is_empty() {
        let message = format!(
            "Not asked yet: the targets of {}.",
            listed(&targets.unknown)
        );
        return Found::new(kind, None, "NotAskedYet", message);
    }
    if !targets.asleep.is_empty() {
        let message = format!(
            "Without a target until somebody asks: {}.",
            listed(&targets.asleep)
        );
        return Found::new(kind, Some(true), "Asleep", message);
    }
    let message = "At least one target of each service serves.".to_owned();
    Found::new(kind, Some(true), "TargetsServe", message)
}

/// The first few names.
fn listed(names: &[Arc<str>]) -> String {
    const FEW: usize = 8;
    let first: Vec<&str> = names.iter().take(FEW).map(|name| &**name).collect();
    match names.len().checked_sub(FEW) {
        Some(more @ 1..) => format!("{} and {more} more", first.join(", ")),
        _ => first.join(", "),
    }
}

impl Condition {
    /// As it is written: `True`, `False` or `Unknown`.
    pub fn status(&self) -> &'static str {
        match self.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }

    /// When it turned last, as it is written.
    pub fn updated_at(&self) -> Value {
        self.updated_at.value()
    }
}
