//! Deadlines that can be moved from anywhere: a connection's, or an HTTP/2 stream's.
//!
//! The exchange and the wrapped connection share one. It also holds what little else they must tell each other.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tollgate_sdk::quota::Standings;

use super::conduct::Conduct;
use super::recover::aside::Parked;

/// It cannot be told how many bytes requests took.
const UNKNOWN: u64 = u64::MAX;

/// Why a deadline was set; tells the answer when it rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Deadline {
    /// The response head did not come in time.
    FirstByte = 1,
    /// The upstream went silent inside a body.
    Idle = 2,
    /// The exchange as a whole took too long.
    Total = 3,
}

/// A deadline that can be moved from anywhere, and remembers that it rang.
#[derive(Debug)]
pub(super) struct Alarm {
    base: Instant,
    /// Microseconds after `base`; 0: none.
    at: AtomicU64,
    cause: AtomicU8,
    rang: AtomicBool,
    /// The request has been read to its end: what else comes is the next.
    pub(super) request_read: AtomicBool,
    /// Nothing that was written stays in a buffer while the exchange waits.
    pub(super) eager: AtomicBool,
    /// An exchange owns the deadline; otherwise the connection waits for a request.
    pub(super) owned: AtomicBool,
    pub(super) header_timeout: Duration,
    /// Bytes of the connection that were given to whoever reads requests.
    given: AtomicU64,
    /// How many of these belong to requests that have begun; [`UNKNOWN`] if that cannot be told.
    claimed: AtomicU64,
    /// How the client of a stream's connection behaves.
    conduct: Option<Arc<Conduct>>,
    /// An exchange on its way from Pingora to the connection's task.
    parked: Mutex<Option<Box<Parked>>>,
    /// What joins the head that is about to be written.
    beside: Mutex<Standings>,
    /// There are some.
    has_beside: AtomicBool,
}

impl Alarm {
    /// Of a connection; `header_timeout`: how long the head of a request may take.
    pub(super) fn new(header_timeout: Duration) -> Arc<Alarm> {
        Arc::new(Self::with(header_timeout, None))
    }

    fn with(header_timeout: Duration, conduct: Option<Arc<Conduct>>) -> Alarm {
        Alarm {
            base: Instant::now(),
            at: AtomicU64::new(0),
            cause: AtomicU8::new(0),
            rang: AtomicBool::new(false),
            request_read: AtomicBool::new(false),
            eager: AtomicBool::new(false),
            owned: AtomicBool::new(false),
            header_timeout,
            given: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            conduct,
            parked: Mutex::default(),
            beside: Mutex::default(),
            has_beside: AtomicBool::new(false),
        }
    }

    /// An alarm without a connection, for an HTTP/2 stream: somebody must await [`Alarm::rung`].
    pub(super) fn of_stream(conduct: Option<Arc<Conduct>>) -> Arc<Alarm> {
        Arc::new(Self::with(Duration::ZERO, conduct))
    }

    /// The request's head is complete: its deadline is over, the exchange sets its own.
    pub(super) fn begin(&self) {
        self.clear();
        self.has_beside.store(false, Ordering::Relaxed);
        self.owned.store(true, Ordering::Relaxed);
    }

    /// The request has been read to its end, or, with `false`, the connection has become a tunnel.
    pub(super) fn set_request_read(&self, read: bool) {
        self.request_read.store(read, Ordering::Relaxed);
    }

    /// From here on the answer is flushed whenever the exchange waits. Pingora flushes bodies of known length only
    /// at their end, which is right for documents and wrong for what is streamed.
    pub(super) fn flush_eagerly(&self) {
        self.eager.store(true, Ordering::Relaxed);
    }

    /// The exchange is over; the connection waits for the next. `left`: its client did not wait for the answer to begin.
    pub(super) fn end(&self, left: bool) {
        if let Some(conduct) = &self.conduct {
            conduct.ended(left);
        }
        self.clear();
        self.eager.store(false, Ordering::Relaxed);
        self.request_read.store(false, Ordering::Relaxed);
        self.owned.store(false, Ordering::Relaxed);
    }

    /// Leaves an exchange to the connection's task.
    pub(super) fn park(&self, parked: Box<Parked>) {
        *self.parking() = Some(parked);
    }

    /// The exchange that was left to the connection's task.
    pub(super) fn parked(&self) -> Option<Box<Parked>> {
        self.parking().take()
    }

    fn parking(&self) -> MutexGuard<'_, Option<Box<Parked>>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What joins the head that is written next. Whoever writes it [takes it back](Self::take_beside) when it is written.
    pub(super) fn put_beside(&self, standings: Standings) {
        *self.beside() = standings;
        self.has_beside.store(true, Ordering::Relaxed);
    }

    /// What nobody has written yet, if there is any.
    pub(super) fn take_beside(&self) -> Option<Standings> {
        // Put and taken by the same task.
        let some = self.has_beside.load(Ordering::Relaxed);
        some.then(|| {
            self.has_beside.store(false, Ordering::Relaxed);
            *self.beside()
        })
    }

    fn beside(&self) -> MutexGuard<'_, Standings> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the connection are read.
    pub(super) fn give(&self, bytes: usize) {
        self.given.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A request has begun that takes so many bytes of them; `None`: nobody knows.
    pub(super) fn claim(&self, bytes: Option<u64>) {
        let known = match (self.claimed.load(Ordering::Relaxed), bytes) {
            (UNKNOWN, _) | (_, None) => UNKNOWN,
            (known, Some(bytes)) => known.saturating_add(bytes),
        };
        self.claimed.store(known, Ordering::Relaxed);
    }

    /// Whether nothing that was read can belong to a request that has not begun. Asked when none is being served.
    pub(super) fn nothing_ahead(&self) -> bool {
        let given = self.given.load(Ordering::Relaxed);
        let claimed = self.claimed.load(Ordering::Relaxed);
        given == claimed
    }

    /// Moves the deadline. It is seen at the latest when the connection is polled next.
    pub(super) fn set(&self, at: Instant, cause: Deadline) {
        let micros = at.saturating_duration_since(self.base).as_micros() as u64;
        self.cause.store(cause as u8, Ordering::Relaxed);
        self.at.store(micros.max(1), Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.at.store(0, Ordering::Relaxed);
    }

    /// Whether it rang since the last call, and for which deadline.
    pub(super) fn take(&self) -> Option<Deadline> {
        if !self.rang.swap(false, Ordering::Relaxed) {
            return None;
        }
        Some(match self.cause.load(Ordering::Relaxed) {
            1 => Deadline::FirstByte,
            2 => Deadline::Idle,
            _ => Deadline::Total,
        })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.at.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(self.base + Duration::from_micros(micros)),
        }
    }

    pub(super) fn ring(&self) {
        self.at.store(0, Ordering::Relaxed);
        self.rang.store(true, Ordering::Relaxed);
    }

    /// Waits until the alarm rings, whoever moves it meanwhile: for an HTTP/2 stream, which has no
    /// connection of its own. Moves are noticed within `GRAIN`.
    pub(super) async fn rung(&self) {
        const GRAIN: Duration = Duration::from_millis(250);
        loop {
            let now = Instant::now();
            match self.deadline() {
                Some(at) if at <= now => {
                    self.ring();
                    return;
                }
                Some(at) => tokio::time::sleep_until(at.min(now + GRAIN)).await,
                None => tokio::time::sleep(GRAIN).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_and_not_claimed_is_ahead() {
        let alarm = Alarm::new(Duration::ZERO);
        assert!(alarm.nothing_ahead());
        alarm.give(100);
        alarm.claim(Some(60));
        assert!(!alarm.nothing_ahead());
        // The second of two that came together, the end of which comes later.
        alarm.claim(Some(60));
        alarm.give(20);
        assert!(alarm.nothing_ahead());
    }

    #[test]
    fn what_is_unknown_stays_so() {
        let alarm = Alarm::new(Duration::ZERO);
        alarm.give(100);
        alarm.claim(None);
        assert!(!alarm.nothing_ahead());
        alarm.give(1);
        assert!(!alarm.nothing_ahead());
        alarm.claim(Some(0));
        assert!(!alarm.nothing_ahead());
    }
}
