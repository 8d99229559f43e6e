//! Tokens that an identity service knows: it is asked once, and its answer holds for a while.
//!
//! Of what is remembered, "yes" and "no" have room of their own, so that no flood of bad tokens pushes out a good one. Invariants: of one
//! token there is one call under way, of all tokens at most [`MOST_CALLS`]; while the service is down known tokens go on and unknown
//! ones are refused without waiting, but for one call at a time that finds out whether it is back.

#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use tokio::sync::Semaphore;
use tollgate_sdk::document::FromText;

use super::flight::Flight;
use super::remembered::Remembered;
use super::{Key, Outside, Unusable, is_presentable, nanoseconds};
use crate::model::{HttpAuth, KeyHash};
use wire::Reading;

/// Calls under way at once.
const MOST_CALLS: usize = 64;

/// Tokens that are being asked for or wait for that.
const MOST_WAITING: usize = 1024;

/// Bytes of an answer's body.
const LARGEST_ANSWER: usize = 64 << 10;

/// How long nobody asks again after a call that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest a "no" holds.
const LONGEST_NO: Duration = Duration::from_secs(10);

/// An identity service, and what it said of tokens.
pub struct Introspection {
    settings: HttpAuth,
    outside: Outside,
    memory: Arc<Memory>,
}

/// What outlives a revision: with other durations it is still what the service said.
#[derive(Default)]
struct Memory {
    allowed: Remembered<Allowed>,
    refused: Remembered<Refused>,
    flights: Mutex<HashMap<KeyHash, Flight<Answer>>>,
    calls: Calls,
    /// While the service is down, when it is asked again; 0 while it is up. In the clock's nanoseconds.
    resumes: AtomicU64,
}

struct Calls(Semaphore);

impl Default for Calls {
    fn default() -> Self {
        Self(Semaphore::new(MOST_CALLS))
    }
}

type Answer = Result<Arc<Key>, Unusable>;

struct Allowed {
    key: Arc<Key>,
    /// When the service was asked.
    asked: u64,
    /// Not refreshed in the background before this.
    rests_until: u64,
}

struct Refused {
    why: Unusable,
    until: u64,
}

/// What is remembered of a token.
enum Recalled {
    Allowed(Arc<Key>),
    /// Allowed, and it is time to ask again in the background.
    Due(Arc<Key>),
    Refused(Unusable),
    Nothing,
}

/// Whether the service may be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// It is up.
    Ask,
    /// It was down, and this call finds out whether it still is.
    Probe,
    /// It is down.
    Wait,
}

impl Introspection {
    /// The service of these settings, with what it said before under others that do not change what it says.
    pub fn new(settings: &HttpAuth, outside: &Outside) -> Arc<Self> {
        let mut what = format!("{:?} {:?}", settings.url, settings.method).into_bytes();
        for (name, value) in &settings.headers {
            what.extend_from_slice(name.as_str().as_bytes());
            what.extend_from_slice(&(value.len() as u64).to_be_bytes());
            what.extend_from_slice(value.as_bytes());
        }
        let identity = format!("auth/http/{}", KeyHash::of(&what).to_text()).into();
        Arc::new(Self {
            settings: settings.clone(),
            outside: outside.clone(),
            memory: outside.kept.keep(&identity, Memory::default),
        })
    }

    /// What is known of this token without waiting; `None` if the service must be [asked](Self::ask).
    pub fn known(self: &Arc<Self>, token: &[u8], now: SystemTime) -> Option<Answer> {
        if !is_presentable(token) {
            return Some(Err(Unusable::Unknown));
        }
        let (hash, time) = (KeyHash::of(token), self.outside.clock.now());
        match self.recall(&hash, time, now) {
            Recalled::Allowed(key) => Some(Ok(key)),
            Recalled::Due(key) => {
                let _ = self.fly(hash, token, now);
                Some(Ok(key))
            }
            Recalled::Refused(why) => Some(Err(why)),
            Recalled::Nothing => {
                let waits = time < self.memory.resumes.load(Ordering::Acquire);
                waits.then_some(Err(Unusable::Unavailable))
            }
        }
    }

    /// Asks the service, unless it is being asked for this token already: then waits for the same answer.
    ///
    /// # Errors
    /// [`Unusable`]; that it is [unavailable](Unusable::Unavailable) if it does not answer or nothing can be made of what it says.
    pub async fn ask(self: &Arc<Self>, token: &[u8], now: SystemTime) -> Answer {
        if !is_presentable(token) {
            return Err(Unusable::Unknown);
        }
        let hash = KeyHash::of(token);
        let answer = match self.fly(hash, token, now) {
            Ok(flight) => flight.wait().await.unwrap_or(Err(Unusable::Unavailable)),
            Err(known) => known,
        };
        match answer {
            Err(Unusable::Unavailable) => self.lasting(&hash, now).ok_or(Unusable::Unavailable),
            answer => answer,
        }
    }

    fn recall(&self, hash: &KeyHash, time: u64, now: SystemTime) -> Recalled {
        let memory = &self.memory;
        let refused = memory
            .refused
            .with(hash, |no| (time < no.until).then_some(no.why));
        let refused = refused.flatten();
        let troubled =
            refused == Some(Unusable::Unavailable) || memory.resumes.load(Ordering::Acquire) != 0;
        let cache = nanoseconds(self.settings.cache);
        let allowed = memory.allowed.with(hash, |yes| {
            let age = time.saturating_sub(yes.asked);
            if yes.key.has_ended(|| now) || age >= self.lasts(troubled) {
                return None;
            }
            if age < cache / 5 * 4 || time < yes.rests_until {
                return Some(Recalled::Allowed(yes.key.clone()));
            }
            yes.rests_until = time.saturating_add(nanoseconds(PAUSE));
            Some(Recalled::Due(yes.key.clone()))
        });
        let refused = || refused.map_or(Recalled::Nothing, Recalled::Refused);
        allowed.flatten().unwrap_or_else(refused)
    }

    /// A "yes" that still holds when the service says nothing.
    fn lasting(&self, hash: &KeyHash, now: SystemTime) -> Option<Arc<Key>> {
        let time = self.outside.clock.now();
        let lasts = self.lasts(true);
        let lasting = self.memory.allowed.with(hash, |yes| {
            let holds = time.saturating_sub(yes.asked) < lasts && !yes.key.has_ended(|| now);
            holds.then(|| yes.key.clone())
        });
        lasting.flatten()
    }

    /// For how long a "yes" holds, in nanoseconds.
    fn lasts(&self, troubled: bool) -> u64 {
        let stale = if troubled {
            self.settings.stale
        } else {
            Duration::ZERO
        };
        nanoseconds(self.settings.cache.saturating_add(stale))
    }

    /// The call under way for this token, begun if there is none; or what can be said without.
    fn fly(
        self: &Arc<Self>,
        hash: KeyHash,
        token: &[u8],
        now: SystemTime,
    ) -> Result<Flight<Answer>, Answer> {
        let mut flights = self.memory.flights();
        if let Some(flight) = flights.get(&hash).filter(|flight| !flight.is_over()) {
            return Ok(flight.clone());
        }
        // The call that somebody saw under way may just have ended.
        let time = self.outside.clock.now();
        match self.recall(&hash, time, now) {
            Recalled::Allowed(key) if !self.is_due(&hash, time) => return Err(Ok(key)),
            Recalled::Refused(why) => return Err(Err(why)),
            _ => {}
        }
        if flights.len() >= MOST_WAITING {
            flights.retain(|_, flight| !flight.is_over());
        }
        let leave = match flights.len() < MOST_WAITING {
            true => self.leave(time),
            false => Leave::Wait,
        };
        let request = wire::request(&self.settings, token).ok_or(Err(Unusable::Unknown))?;
        if leave == Leave::Wait {
            return Err(Err(Unusable::Unavailable));
        }
        let this = self.clone();
        let work = async move {
            let answer = this.call(hash, request, leave, now).await;
            this.memory.flights().remove(&hash);
            answer
        };
        let flight = Flight::begin(work).ok_or(Err(Unusable::Unavailable))?;
        flights.insert(hash, flight.clone());
        Ok(flight)
    }

    /// Whether a "yes" is old enough to be asked for again.
    fn is_due(&self, hash: &KeyHash, time: u64) -> bool {
        let early = nanoseconds(self.settings.cache) / 5 * 4;
        let due = |yes: &mut Allowed| time.saturating_sub(yes.asked) >= early;
        self.memory.allowed.with(hash, due).unwrap_or(true)
    }

    /// Whether a call may begin. Of many that would be the first after a pause, one may.
    fn leave(&self, time: u64) -> Leave {
        let resumes = self.memory.resumes.load(Ordering::Acquire);
        if resumes == 0 {
            return Leave::Ask;
        }
        // Whoever probes and never comes back is replaced then.
        let patience = self
            .settings
            .timeout
            .saturating_mul(2)
            .saturating_add(PAUSE);
        let until = time.saturating_add(nanoseconds(patience));
        let first = || {
            let (done, lost) = (Ordering::AcqRel, Ordering::Acquire);
            self.memory
                .resumes
                .compare_exchange(resumes, until, done, lost)
        };
        match time >= resumes && first().is_ok() {
            true => Leave::Probe,
            false => Leave::Wait,
        }
    }

    /// One call, and what becomes of what is remembered.
    async fn call(
        &self,
        hash: KeyHash,
        request: Request<Bytes>,
        leave: Leave,
        now: SystemTime,
    ) -> Answer {
        let timeout = self.settings.timeout;
        let turn = tokio::time::timeout(timeout, self.memory.calls.0.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Unusable::Unavailable);
        };
        let clock = &self.outside.clock;
        // It may have gone down while this call waited for its turn.
        let down = self.memory.resumes.load(Ordering::Acquire) != 0;
        if leave == Leave::Ask && down {
            return Err(Unusable::Unavailable);
        }
        let asked = clock.now();
        let answer = self
            .outside
            .http
            .call(request, timeout, LARGEST_ANSWER)
            .await;
        let read = match &answer {
            Ok(answer) => wire::read(&self.settings, answer, &hash, now),
            Err(error) => Reading::Down(error.to_string()),
        };
        let time = clock.now();
        let refuse = |why: Unusable, holds: Duration| {
            let until = time.saturating_add(nanoseconds(holds));
            self.memory.refused.put(hash, Refused { why, until });
            Err(why)
        };
        match read {
            Reading::Down(why) => {
                self.is_down(time, &why);
                Err(Unusable::Unavailable)
            }
            Reading::Odd => {
                self.is_up();
                refuse(Unusable::Unavailable, PAUSE)
            }
            Reading::Denied(why) => {
                self.is_up();
                self.memory.allowed.forget(&hash);
                refuse(why, self.settings.cache.min(LONGEST_NO))
            }
            Reading::Allowed(key) => {
                self.is_up();
                let key = Arc::new(*key);
                self.memory.refused.forget(&hash);
                let yes = Allowed {
                    key: key.clone(),
                    asked,
                    rests_until: 0,
                };
                self.memory.allowed.put(hash, yes);
                Ok(key)
            }
        }
    }

    fn is_down(&self, time: u64, why: &str) {
        let resumes = time.saturating_add(nanoseconds(PAUSE)).max(1);
        if self.memory.resumes.swap(resumes, Ordering::AcqRel) == 0 {
            let service = self.settings.url.authority();
            log::warn!("the identity service {service} is down, known tokens go on: {why}");
        }
    }

    fn is_up(&self) {
        if self.memory.resumes.swap(0, Ordering::AcqRel) != 0 {
            let service = self.settings.url.authority();
            log::info!("the identity service {service} is back");
        }
    }
}

impl Memory {
    fn flights(&self) -> MutexGuard<'_, HashMap<KeyHash, Flight<Answer>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Introspection")
            .field(&self.settings.url)
            .finish()
    }
}
