//! Where requests of one service wait: told to come back later, or for a target with room.
//!
//! Bounded. A [`Place`] is taken at arrival and keeps its number for as long as the request
//! waits; a [`Turn`] lets it send. Who goes next is [`order`]'s to say: first come first served among those that say nothing of themselves. Both are given back on drop, so a client that leaves frees its place at once.
//! Waiting costs a map entry and whatever timer the waiter brings, no thread.

mod order;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::oneshot;

pub use self::order::Claim;
use self::order::{Order, Rank};

/// One service's queue. Its bounds are arguments, since they may change while requests wait.
#[derive(Debug, Default)]
pub struct Queue {
    // Held for a look at two maps, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    waiting: usize,
    sending: usize,
    workers: usize,
    /// Those whose delay is over, by arrival.
    due: BTreeMap<u64, Call>,
    order: Order,
}

/// How one that is due is called.
#[derive(Debug)]
struct Call {
    claim: Claim,
    since: Instant,
    turn: oneshot::Sender<()>,
}

/// A request's place in the queue.
#[derive(Debug)]
pub struct Place {
    queue: Arc<Queue>,
    number: u64,
    claim: Claim,
    since: Instant,
    counted: bool,
}

/// Leave to send. Others wait for it to be dropped.
#[derive(Debug)]
pub struct Turn {
    queue: Arc<Queue>,
}

impl Queue {
    /// Requests that wait now.
    pub fn depth(&self) -> usize {
        self.lock().waiting
    }

    /// Takes a place, unless `size` are taken.
    pub fn enter(self: &Arc<Self>, size: usize) -> Option<Place> {
        self.enter_as(size, Claim::default())
    }

    /// The same, for a request that says who it is.
    pub fn enter_as(self: &Arc<Self>, size: usize, claim: Claim) -> Option<Place> {
        let mut state = self.lock();
        if state.waiting >= size {
            return None;
        }
        state.waiting += 1;
        state.next += 1;
        Some(Place {
            queue: self.clone(),
            number: state.next,
            claim,
            since: Instant::now(),
            counted: true,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Lets the first of those that are due send, as long as there are workers.
    fn dispatch(&mut self) {
        while self.sending < self.workers {
            let first = self.first(Instant::now()).map(|(number, _)| number);
            let Some(call) = first.and_then(|number| self.due.remove(&number)) else {
                return;
            };
            // One that left meanwhile takes no turn.
            if call.turn.send(()).is_ok() {
                self.sending += 1;
            }
        }
    }

    /// Who is next of those that are due.
    fn first(&self, now: Instant) -> Option<(u64, Rank)> {
        let due = self.due.iter();
        let ranked = due.map(|(number, call)| {
            let waited = now.saturating_duration_since(call.since);
            (*number, self.order.rank(&call.claim, waited, *number))
        });
        ranked.min_by(|(_, a), (_, b)| a.total_cmp(b))
    }
}

impl Place {
    /// Waits until it is this request's turn: at most `workers` send at the same time, and of those that are due the
    /// first by their order goes first. The place no longer counts as waiting while the turn is held.
    pub async fn turn(&mut self, workers: usize) -> Turn {
        let called = {
            let mut state = self.queue.lock();
            state.workers = workers.max(1);
            let (call, called) = oneshot::channel();
            let call = Call {
                claim: self.claim.clone(),
                since: self.since,
                turn: call,
            };
            state.due.insert(self.number, call);
            state.dispatch();
            called
        };
        let mut due = Due {
            place: self,
            called: Some(called),
        };
        if let Some(called) = &mut due.called {
            // The sender is only dropped unsent by `Due` itself.
            let _ = called.await;
        }
        due.called = None;
        drop(due);
        let mut state = self.queue.lock();
        state.waiting = state.waiting.saturating_sub(usize::from(self.counted));
        self.counted = false;
        Turn {
            queue: self.queue.clone(),
        }
    }

    /// Whether another that is due goes before this one by now.
    pub fn is_outranked(&self) -> bool {
        let state = self.queue.lock();
        let now = Instant::now();
        let waited = now.saturating_duration_since(self.since);
        let own = state.order.rank(&self.claim, waited, self.number);
        let first = state.first(now);
        first.is_some_and(|(_, rank)| rank.total_cmp(&own).is_lt())
    }

    /// It is served: what it takes is its owner's.
    pub fn served(&self) {
        self.queue.lock().order.served(&self.claim);
    }

    /// Waits again, with the old number: who was told to come back does not go to the end.
    pub fn again(&mut self) {
        if !self.counted {
            self.queue.lock().waiting += 1;
            self.counted = true;
        }
    }
}

/// A place whose turn has been called for and not come. Cancelled, it must not keep a turn that came in the
/// same instant.
struct Due<'p> {
    place: &'p Place,
    called: Option<oneshot::Receiver<()>>,
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        let Some(mut called) = self.called.take() else {
            return;
        };
        let mut state = self.place.queue.lock();
        state.due.remove(&self.place.number);
        called.close();
        if called.try_recv().is_ok() {
            state.sending -= 1;
            state.dispatch();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.waiting = state.waiting.saturating_sub(usize::from(self.counted));
        if state.waiting == 0 && state.due.is_empty() {
            // Nobody waits, so nobody has had more than another.
            state.order = Order::default();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.sending = state.sending.saturating_sub(1);
        state.dispatch();
    }
}

#[cfg(test)]
mod tests;
