//! How one target stands: what probes, requests and its own word say of it, summed up.
//!
//! Everything is told what time it is, so that tests decide it. A target with nothing against it costs one atomic load
//! to judge and none to praise; a short lock is taken only when something is, or was, wrong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::breaker::{Breaker, Pass, State};
use crate::model;

/// How long a target that came back takes to get its whole share, growing evenly from [`FIRST_SHARE`].
const SLOW_START: Duration = Duration::from_secs(10);
/// What it starts with.
const FIRST_SHARE: f32 = 0.1;

/// Whether a target can be trusted with a request. Where several things are wrong, the worst is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    /// Nothing is known against it.
    Up,
    /// It came back a short while ago and takes this share of its weight.
    Starting(f32),
    /// It failed, and may be tried by one request at a time; `busy`: one is trying it.
    HalfOpen {
        /// Whether its one place is taken.
        busy: bool,
    },
    /// It is new and has not been asked yet: for when nothing better is there.
    Unchecked,
    /// It told us to wait.
    Cooling {
        /// Until then.
        until: Instant,
    },
    /// It failed too often, and is left alone.
    Open {
        /// Until then, unless it is reached sooner.
        until: Instant,
    },
    /// It does not answer when asked.
    Down,
}

impl Standing {
    /// The share of its weight with which it takes part in a pick; `None` when it does not.
    pub fn share(self) -> Option<f32> {
        match self {
            Standing::Up => Some(1.0),
            Standing::Starting(share) => Some(share),
            Standing::HalfOpen { busy: false } => Some(FIRST_SHARE),
            _ => None,
        }
    }

    /// Lower is better; then sooner is.
    fn rank(self) -> (u8, Option<Instant>) {
        match self {
            Standing::Up => (0, None),
            Standing::Starting(_) => (1, None),
            Standing::HalfOpen { busy: false } => (2, None),
            Standing::Unchecked => (3, None),
            Standing::HalfOpen { busy: true } => (4, None),
            Standing::Cooling { until } => (5, Some(until)),
            Standing::Open { until } => (6, Some(until)),
            Standing::Down => (7, None),
        }
    }
}

/// The one to try when nobody is to be trusted; any one of those that are equally bad.
pub fn least_bad(standings: impl IntoIterator<Item = (usize, Standing)>) -> Option<usize> {
    let mut best = None;
    let mut equals = 0u32;
    for (index, standing) in standings {
        let rank = standing.rank();
        match &best {
            Some((_, least)) if rank > *least => continue,
            Some((_, least)) if rank == *least => equals += 1,
            _ => equals = 1,
        }
        // The n-th of equals replaces those before it once in n times: each is as likely.
        if equals == 1 || rand::random_range(0..equals) == 0 {
            best = Some((index, rank));
        }
    }
    best.map(|(index, _)| index)
}

/// How many answers in a row turn a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures until it is down.
    pub unhealthy_after: u32,
    /// Successes until a target that was down is up.
    pub healthy_after: u32,
}

/// What changed, for the log and whoever waits for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It answers again, or for the first time.
    WentUp,
    /// It does not answer.
    WentDown,
    /// Its breaker opened.
    Opened,
    /// Its breaker closed.
    Closed,
}

/// What went wrong with a request at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection came about.
    Connect,
    /// The connection broke.
    Reset,
    /// Nothing came in time.
    Timeout,
    /// It did not speak the protocol.
    Protocol,
    /// It answered with this status. Only those from 500 on count.
    Status(u16),
}

impl Failure {
    fn counts(self) -> bool {
        !matches!(self, Failure::Status(status) if status < 500)
    }

    fn is_of_reach(self) -> bool {
        matches!(self, Failure::Connect | Failure::Reset)
    }
}

/// A breaker's state, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It admits everybody.
    Closed,
    /// It admits one at a time.
    HalfOpen,
    /// It admits nobody.
    Open,
}

impl From<State> for BreakerState {
    fn from(state: State) -> Self {
        match state {
            State::Closed => BreakerState::Closed,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        }
    }
}

/// What is known of a target, one by one, for whoever wants to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether it answers when it is asked; `None` if it is not asked, or was not yet.
    pub answers: Option<bool>,
    /// How its breaker stands.
    pub breaker: BreakerState,
    /// How long it is still to be left alone because it said so.
    pub cooling: Option<Duration>,
}

/// All that is known of a target's health.
#[derive(Debug)]
pub struct TargetHealth {
    /// The breaker's epoch plus one while nothing at all is wrong; 0 when the lock must be taken to say.
    calm: AtomicU64,
    // Held for a few comparisons, never across an await.
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    probes: Probes,
    /// Answers in a row against the present verdict of the probes; before there is one, the last that agree.
    run: u32,
    /// Whether the last one was good.
    said: bool,
    breaker: Breaker,
    cooling: Option<Instant>,
    /// Since when it is back.
    back: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Probes {
    /// It is not probed, and trusted.
    Off,
    Unchecked,
    Up,
    Down,
}

impl Default for TargetHealth {
    /// Not probed, never broken.
    fn default() -> Self {
        let known = Known {
            probes: Probes::Off,
            run: 0,
            said: false,
            breaker: Breaker::default(),
            cooling: None,
            back: None,
        };
        TargetHealth {
            calm: AtomicU64::new(1),
            known: Mutex::new(known),
        }
    }
}

impl TargetHealth {
    /// Says whether the target is probed from now on, and when its breaker opens (`None`: never). What is known stays as far
    /// as it still means something.
    pub fn configure(&self, probed: bool, breaker: Option<&model::Breaker>, now: Instant) {
        let mut known = self.lock();
        known.probes = match (probed, known.probes) {
            (false, _) => Probes::Off,
            (true, Probes::Off) => Probes::Unchecked,
            (true, probes) => probes,
        };
        if !probed {
            known.run = 0;
        }
        known.breaker.configure(breaker);
        self.judge(&mut known, now);
    }

    /// How the target stands.
    pub fn standing(&self, now: Instant) -> Standing {
        if self.calm.load(Ordering::Acquire) != 0 {
            return Standing::Up;
        }
        self.judge(&mut self.lock(), now)
    }

    /// How its breaker stands.
    pub fn breaker(&self, now: Instant) -> BreakerState {
        if self.calm.load(Ordering::Acquire) != 0 {
            return BreakerState::Closed;
        }
        self.lock().breaker.state(now).into()
    }

    /// What is known of it, one by one.
    pub fn report(&self, now: Instant) -> Report {
        let mut known = self.lock();
        Report {
            answers: match known.probes {
                Probes::Up => Some(true),
                Probes::Down => Some(false),
                Probes::Off | Probes::Unchecked => None,
            },
            breaker: known.breaker.state(now).into(),
            cooling: known
                .cooling
                .map(|until| until.saturating_duration_since(now))
                .filter(|left| !left.is_zero()),
        }
    }

    /// Learns what a probe found. A new target is up after as many good answers in a row as one that was down. One that is reached
    /// again, after requests could not reach it, may be tried without waiting for its breaker's time.
    pub fn probed(&self, ok: bool, thresholds: &Thresholds, now: Instant) -> Option<Turn> {
        let mut known = self.lock();
        let run = match (known.probes, ok) {
            // A probe that was under way when probing was turned off.
            (Probes::Off, _) => return None,
            (Probes::Up, true) | (Probes::Down, false) => 0,
            // Which way a new one turns is open.
            (Probes::Unchecked, _) if known.said != ok => 1,
            _ => known.run.saturating_add(1),
        };
        let (needed, turn) = match ok {
            true => (thresholds.healthy_after, Turn::WentUp),
            false => (thresholds.unhealthy_after, Turn::WentDown),
        };
        let turn = (run > 0 && run >= needed).then_some(turn);
        known.run = if turn.is_some() { 0 } else { run };
        known.said = ok;
        match turn {
            Some(Turn::WentUp) => {
                let recovered = known.probes == Probes::Down;
                if recovered {
                    known.back = Some(now);
                }
                known.breaker.reached(recovered, now);
                known.probes = Probes::Up;
            }
            Some(_) => known.probes = Probes::Down,
            None if ok => known.breaker.reached(false, now),
            None => {}
        }
        self.judge(&mut known, now);
        turn
    }

    /// Lets a request try the target, unless its breaker is open, or half-open and busy.
    pub fn enter(self: &Arc<Self>, now: Instant) -> Option<Ticket> {
        if let Some(epoch) = self.calm.load(Ordering::Acquire).checked_sub(1) {
            let pass = Pass {
                epoch,
                trial: false,
            };
            return Some(self.ticket(pass));
        }
        let pass = self.lock().breaker.enter(now)?;
        Some(self.ticket(pass))
    }

    /// Lets a request try the target whatever its breaker says: for when nothing better is left. Its success counts as
    /// much as any other's.
    pub fn enter_anyway(self: &Arc<Self>, now: Instant) -> Ticket {
        let pass = self.lock().breaker.enter_anyway(now);
        self.ticket(pass)
    }

    /// The target told us to wait. Everybody does; of several times the latest counts.
    pub fn cool(&self, until: Instant) {
        let mut known = self.lock();
        known.cooling = known.cooling.max(Some(until));
        self.calm.store(0, Ordering::Release);
    }

    fn ticket(self: &Arc<Self>, pass: Pass) -> Ticket {
        Ticket {
            health: self.clone(),
            pass,
            settled: false,
        }
    }

    /// Sums up, and notes whether there is nothing to sum up until something happens.
    fn judge(&self, known: &mut Known, now: Instant) -> Standing {
        let standing = known.standing(now);
        let calm = match standing {
            Standing::Up => known.breaker.epoch() + 1,
            _ => 0,
        };
        self.calm.store(calm, Ordering::Release);
        standing
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Known {
    fn standing(&mut self, now: Instant) -> Standing {
        let breaker = self.breaker.state(now);
        self.cooling = self.cooling.filter(|until| *until > now);
        let awake = |back: &Instant| now.saturating_duration_since(*back);
        self.back = self.back.filter(|back| awake(back) < SLOW_START);
        match (self.probes, breaker, self.cooling) {
            (Probes::Down, _, _) => Standing::Down,
            (_, State::Open { until }, _) => Standing::Open { until },
            (_, _, Some(until)) => Standing::Cooling { until },
            (_, State::HalfOpen { busy }, _) => Standing::HalfOpen { busy },
            (Probes::Unchecked, State::Closed, None) => Standing::Unchecked,
            (Probes::Up | Probes::Off, State::Closed, None) => match &self.back {
                Some(back) => {
                    let part = awake(back).as_secs_f32() / SLOW_START.as_secs_f32();
                    Standing::Starting(FIRST_SHARE + (1.0 - FIRST_SHARE) * part)
                }
                None => Standing::Up,
            },
        }
    }
}

/// One request's leave to try a target. Dropped without a verdict it says nothing, which is right for what the client
/// did and for 429; a half-open breaker's place is free again either way.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    health: Arc<TargetHealth>,
    pass: Pass,
    settled: bool,
}

impl Ticket {
    /// The target answered. What fails later, in the midst of its answer, may still be told.
    pub fn succeeded(&mut self, now: Instant) -> Option<Turn> {
        let calm = self.health.calm.load(Ordering::Acquire);
        if self.settled || calm == self.pass.epoch + 1 {
            return None;
        }
        let mut known = self.health.lock();
        let closed = known.breaker.succeeded(self.pass);
        if closed {
            known.back = Some(now);
            // From here on it is a request like any other.
            self.pass = Pass {
                epoch: known.breaker.epoch(),
                trial: false,
            };
            self.health.judge(&mut known, now);
        }
        closed.then_some(Turn::Closed)
    }

    /// The request failed at the target. Counts once; a status below 500 not at all.
    pub fn failed(&mut self, failure: Failure, now: Instant) -> Option<Turn> {
        if self.settled || !failure.counts() {
            return None;
        }
        self.settled = true;
        let mut known = self.health.lock();
        let opened = known.breaker.failed(self.pass, failure.is_of_reach(), now);
        if opened {
            self.health.judge(&mut known, now);
        }
        opened.then_some(Turn::Opened)
    }

    /// Whether it is the one request that tries a half-open target.
    pub fn is_trial(&self) -> bool {
        self.pass.trial
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.pass.trial {
            self.health.lock().breaker.left(self.pass);
        }
    }
}
