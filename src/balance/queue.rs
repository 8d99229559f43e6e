//! Where requests of one service wait: told to come back later, or for a target with room.
//!
//! Bounded, first come first served. A [`Place`] is taken at arrival and keeps its number for as long as the request
//! waits; a [`Turn`] lets it send. Both are given back on drop, so a client that leaves frees its place at once.
//! Waiting costs a map entry and whatever timer the waiter brings, no thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

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
    due: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A request's place in the queue.
#[derive(Debug)]
pub struct Place {
    queue: Arc<Queue>,
    number: u64,
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
        let mut state = self.lock();
        if state.waiting >= size {
            return None;
        }
        state.waiting += 1;
        state.next += 1;
        Some(Place {
            queue: self.clone(),
            number: state.next,
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
    /// Lets the earliest of those that are due send, as long as there are workers.
    fn dispatch(&mut self) {
        while self.sending < self.workers {
            let Some((_, turn)) = self.due.pop_first() else {
                return;
            };
            // One that left meanwhile takes no turn.
            if turn.send(()).is_ok() {
                self.sending += 1;
            }
        }
    }
}

impl Place {
    /// Waits until it is this request's turn: at most `workers` send at the same time, and of those that are due the
    /// one that came first goes first. The place no longer counts as waiting while the turn is held.
    pub async fn turn(&mut self, workers: usize) -> Turn {
        let called = {
            let mut state = self.queue.lock();
            state.workers = workers.max(1);
            let (call, called) = oneshot::channel();
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
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn first_come_first_served_whatever_becomes_due_first() {
        let queue = Arc::new(Queue::default());
        let mut blocker = queue.enter(9).unwrap();
        let held = blocker.turn(1).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (i, delay) in [30, 10, 20].into_iter().enumerate() {
            let mut place = queue.enter(9).unwrap();
            let order = order.clone();
            tasks.push(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                let _turn = place.turn(1).await;
                order.lock().unwrap().push(i);
            }));
        }
        while queue.lock().due.len() < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
        drop(blocker);
        let state = queue.lock();
        assert_eq!((state.waiting, state.sending, state.due.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_departure_makes_room() {
        let queue = Arc::new(Queue::default());
        let first = queue.enter(2).unwrap();
        let second = queue.enter(2).unwrap();
        assert!(queue.enter(2).is_none());
        drop(first);
        let third = queue.enter(2).unwrap();
        assert_eq!(queue.depth(), 2);
        drop((second, third));
        assert_eq!(queue.depth(), 0);
    }

    #[tokio::test]
    async fn who_leaves_while_due_takes_no_turn() {
        let queue = Arc::new(Queue::default());
        let mut a = queue.enter(9).unwrap();
        let held = a.turn(1).await;
        let mut b = queue.enter(9).unwrap();
        {
            let waiting = b.turn(1);
            tokio::pin!(waiting);
            assert!(
                tokio::time::timeout(Duration::from_millis(5), &mut waiting)
                    .await
                    .is_err()
            );
        }
        drop(held);
        assert_eq!(queue.lock().sending, 0);
        let mut c = queue.enter(9).unwrap();
        let turn = tokio::time::timeout(Duration::from_secs(1), c.turn(1)).await;
        assert!(turn.is_ok());
    }

    #[tokio::test]
    async fn no_more_than_the_workers_send() {
        let queue = Arc::new(Queue::default());
        let most = Arc::new(Mutex::new((0, 0)));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (mut place, most) = (queue.enter(50).unwrap(), most.clone());
                tokio::spawn(async move {
                    let _turn = place.turn(4).await;
                    {
                        let mut most = most.lock().unwrap();
                        most.0 += 1;
                        most.1 = most.1.max(most.0);
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    most.lock().unwrap().0 -= 1;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(most.lock().unwrap().1, 4);
    }
}
