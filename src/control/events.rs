//! What happens, for whoever watches: a bounded ring of numbered events, and readers that go along it at their own pace.
//!
//! Announcing takes a lock for a push and never waits for a reader. A reader keeps nothing but a number: who is slower than the ring is long finds the oldest
//! gone, and is told. Numbers begin with the process's start in microseconds since 1970, so that they go on rising over a restart.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use log::Level;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tollgate_sdk::document::FromNode;

use super::{Announced, Control, ReloadError, Reloaded};
use crate::config::{Action, Fate};
use crate::model::{Key, Moment};

/// How many events are kept.
pub const KEPT: usize = 1_024;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Another configuration came into force.
    Change,
    /// The file was read again, with or without success.
    Reload,
    /// A target answers its checks, or no longer does.
    Target,
    /// A target's breaker opened or closed.
    Breaker,
    /// A key ends soon, or left what it usually does.
    Key,
    /// A service is to have more or fewer replicas.
    Scaling,
    /// What is recorded cannot be kept, or can again.
    Store,
    /// A certificate was issued, or could not be had.
    Certificate,
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 8] = [
        EventKind::Change,
        EventKind::Reload,
        EventKind::Target,
        EventKind::Breaker,
        EventKind::Key,
        EventKind::Scaling,
        EventKind::Store,
        EventKind::Certificate,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Change => "change",
            EventKind::Reload => "reload",
            EventKind::Target => "target",
            EventKind::Breaker => "breaker",
            EventKind::Key => "key",
            EventKind::Scaling => "scaling",
            EventKind::Store => "store",
            EventKind::Certificate => "certificate",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its place among all events.
    pub number: u64,
    /// What it is about.
    pub kind: EventKind,
    /// `at`, `message`, and the names of what it concerns.
    pub fields: Map<String, Value>,
}

/// A resource that a change touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Touched {
    /// Its kind: `service`.
    pub kind: String,
    /// Its name; empty for what there is only one of.
    pub name: String,
    /// `created`, `updated` or `deleted`.
    pub action: &'static str,
}

impl Touched {
    /// What became of a resource, unless nothing did.
    pub(super) fn of(fate: &Fate) -> Option<Touched> {
        let action = match fate.action {
            Action::Create => "created",
            Action::Update => "updated",
            Action::Delete => "deleted",
            Action::Unchanged => return None,
        };
        Some(Touched {
            kind: fate.kind.word().to_owned(),
            name: fate.name.to_string(),
            action,
        })
    }

    /// A process-wide table.
    pub(super) fn table(name: &str) -> Touched {
        Touched {
            kind: name.to_owned(),
            name: String::new(),
            action: "updated",
        }
    }
}

impl fmt::Display for Touched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.is_empty() {
            true => write!(f, "{}: {}", self.kind, self.action),
            false => write!(f, "{} {}: {}", self.kind, self.name, self.action),
        }
    }
}

/// The ring.
pub struct Events {
    // Held for a push, or for taking one event: never across an await.
    ring: Mutex<Ring>,
    /// The number of the last event.
    last: watch::Sender<u64>,
}

struct Ring {
    /// The number of the process's first event.
    origin: u64,
    /// The number of the next one.
    next: u64,
    kept: VecDeque<Arc<Event>>,
}

impl Ring {
    /// The number of the oldest event that is kept, or of the next one.
    fn first(&self) -> u64 {
        self.next - self.kept.len() as u64
    }
}

/// What a reader finds next.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// This.
    Event(Arc<Event>),
    /// Events are gone that it has not read.
    Lost {
        /// How many; `None` if they were another process's.
        count: Option<u64>,
        /// After which number it goes on.
        after: u64,
    },
}

/// Somebody's way along the ring.
pub struct Reader {
    events: Arc<Events>,
    news: watch::Receiver<u64>,
    /// The number to be read next.
    next: u64,
    /// Its number comes from nowhere in this ring.
    astray: bool,
}

impl Default for Events {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self::starting_at(since.map_or(1, |since| since.as_micros() as u64))
    }
}

impl Events {
    fn starting_at(origin: u64) -> Events {
        let ring = Ring {
            origin,
            next: origin,
            kept: VecDeque::with_capacity(KEPT),
        };
        Events {
            ring: Mutex::new(ring),
            last: watch::Sender::new(origin - 1),
        }
    }

    /// Says what happened: to whoever watches, and in the log. `names` is an object with the names of what it concerns.
    pub fn announce(&self, level: Level, kind: EventKind, message: &str, names: Value) {
        log::log!(level, "{message}");
        let mut fields = match names {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        fields.insert("at".into(), now().value());
        fields.insert("message".into(), json!(message));
        let mut ring = self.lock();
        let number = ring.next;
        ring.next += 1;
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(Arc::new(Event {
            number,
            kind,
            fields,
        }));
        drop(ring);
        // Two at the same moment may come here in the other order.
        self.last.send_modify(|last| *last = number.max(*last));
    }

    /// Says which configuration is in force now. `by` is `file` or `api`.
    pub fn changed(&self, revision: u64, by: &str, changes: &[Touched]) {
        let message = format!("revision {revision} is in force: {}", told(changes));
        let (first, more) = first(changes);
        let names = json!({"revision": revision, "by": by, "changes": first, "more": more});
        self.announce(Level::Info, EventKind::Change, &message, names);
    }

    /// Says that a key ends soon.
    pub(super) fn tell_of_end(&self, key: &Key, end: SystemTime) {
        let end = Moment::at(end).map_or(Value::Null, |end| end.value());
        let (name, gateway) = (key.name.as_str(), key.gateway.as_str());
        let message = format!("the key {name} of the gateway {gateway} ends at {end}");
        let names = json!({"key": name, "gateway": gateway, "expires_at": end});
        self.announce(Level::Warn, EventKind::Key, &message, names);
    }

    /// Reads from here on, or what came after the event of this number.
    pub fn read(self: &Arc<Self>, after: Option<u64>) -> Reader {
        let news = self.last.subscribe();
        let ring = self.lock();
        let known = ring.origin.saturating_sub(1)..ring.next;
        let (next, astray) = match after {
            None => (ring.next, false),
            Some(after) if known.contains(&after) => (after + 1, false),
            Some(_) => (ring.first(), true),
        };
        drop(ring);
        Reader {
            events: self.clone(),
            news,
            next,
            astray,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// What comes next; waits for it. Dropped while it waits, nothing is lost.
    pub async fn next(&mut self) -> Seen {
        loop {
            self.news.mark_unchanged();
            if let Some(seen) = self.look() {
                return seen;
            }
            if self.news.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn look(&mut self) -> Option<Seen> {
        let ring = self.events.lock();
        let first = ring.first();
        let after = first.saturating_sub(1);
        if std::mem::take(&mut self.astray) {
            self.next = first;
            return Some(Seen::Lost { count: None, after });
        }
        if self.next < first {
            let count = Some(first - self.next);
            self.next = first;
            return Some(Seen::Lost { count, after });
        }
        let index = usize::try_from(self.next - first).ok()?;
        let event = ring.kept.get(index)?.clone();
        self.next += 1;
        Some(Seen::Event(event))
    }
}

impl Control {
    /// What happens.
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// Tells of a change that is in force. The file's reload tells of itself.
    pub(super) fn announce_change(&self, announced: &Announced) {
        let touched: Vec<Touched> = announced.fates.iter().filter_map(Touched::of).collect();
        let source = announced.source.word();
        self.events.changed(announced.revision, source, &touched);
    }

    /// Says what a reload came to.
    pub(super) fn tell_of_reload(&self, done: &Result<Reloaded, ReloadError>) {
        let (level, message, names) = match done {
            Ok(reloaded) => {
                let message = match reloaded.changes.is_empty() {
                    true => "the configuration was read again: nothing has changed".to_owned(),
                    false => format!(
                        "the configuration was read again; revision {}: {}",
                        reloaded.revision,
                        told(&reloaded.changes)
                    ),
                };
                let names = json!({
                    "result": "ok",
                    "revision": reloaded.revision,
                    "changes": first(&reloaded.changes).0,
                    "more": first(&reloaded.changes).1,
                    "after_restart": reloaded.after_restart,
                });
                (Level::Info, message, names)
            }
            Err(error) => {
                let message = format!("the configuration stays as it was: {error}");
                let names = json!({"result": "refused", "revision": self.snapshot().revision});
                (Level::Error, message, names)
            }
        };
        self.book.reloaded(done.is_ok(), &message);
        self.events
            .announce(level, EventKind::Reload, &message, names);
        if let Ok(Reloaded {
            revision, changes, ..
        }) = done
            && !changes.is_empty()
        {
            self.events.changed(*revision, "file", changes);
        }
    }
}

fn told(changes: &[Touched]) -> String {
    let (first, more) = first(changes);
    let mut told: Vec<String> = first.iter().map(Touched::to_string).collect();
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told.join(", ")
}

/// As many as an event names, and how many more there are: a large change must not make a large ring.
fn first(changes: &[Touched]) -> (&[Touched], usize) {
    const NAMED: usize = 32;
    let first = changes.get(..NAMED).unwrap_or(changes);
    (first, changes.len() - first.len())
}

/// The present, as it is shown.
pub(super) fn now() -> Moment {
    Moment::at(SystemTime::now()).unwrap_or(Moment::EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(events: &Events, count: u64) {
        for n in 0..count {
            events.announce(Level::Debug, EventKind::Store, "x", json!({"n": n}));
        }
    }

    fn number(seen: Seen) -> u64 {
        match seen {
            Seen::Event(event) => event.number,
            lost => panic!("{lost:?}"),
        }
    }

    #[tokio::test]
    async fn a_reader_finds_everything_in_order_and_who_resumes_goes_on() {
        let events = Arc::new(Events::starting_at(100));
        let mut reader = events.read(None);
        announce(&events, 3);
        for expected in 100..103 {
            assert_eq!(number(reader.next().await), expected);
        }
        let mut later = events.read(Some(101));
        assert_eq!(number(later.next().await), 102);
        let mut all = events.read(Some(99));
        assert_eq!(number(all.next().await), 100);
    }

    #[tokio::test]
    async fn who_is_slow_loses_the_oldest_and_is_told() {
        let events = Arc::new(Events::starting_at(1));
        let mut reader = events.read(None);
        announce(&events, KEPT as u64 + 5);
        let lost = Seen::Lost {
            count: Some(5),
            after: 5,
        };
        assert_eq!(reader.next().await, lost);
        for expected in 6..=KEPT as u64 + 5 {
            assert_eq!(number(reader.next().await), expected);
        }
    }

    #[tokio::test]
    async fn numbers_of_another_process_are_told_of() {
        let events = Arc::new(Events::starting_at(1_000));
        announce(&events, 2);
        for unknown in [7, 5_000, 998, 1_002, u64::MAX] {
            let mut reader = events.read(Some(unknown));
            let lost = Seen::Lost {
                count: None,
                after: 999,
            };
            assert_eq!(reader.next().await, lost, "{unknown}");
            assert_eq!(number(reader.next().await), 1_000, "{unknown}");
        }
    }

    #[tokio::test]
    async fn many_at_once_each_get_a_number_of_their_own() {
        let events = Arc::new(Events::starting_at(1));
        let mut reader = events.read(None);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| announce(&events, 200));
            }
        });
        for expected in 1..=800 {
            assert_eq!(number(reader.next().await), expected);
        }
        assert_eq!(*events.last.borrow(), 800);
    }
}
