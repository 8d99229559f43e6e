//! Word that capacity was given back, for whoever waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Shared by all targets of an upstream. Giving capacity back costs one load while nobody waits.
///
/// Everybody who waits is woken, since not everybody can use what was freed. Who has a queue lets only its head wait
/// here.
///
/// No wake-up is lost: a waiter is counted before it looks for a place, and who gives a place back does that
/// before it looks for waiters, both in one total order (`SeqCst`), so one of them sees the other. What happens
/// between looking and waiting is caught by the count of times something was freed.
#[derive(Debug, Default)]
pub struct Freed {
    waiting: AtomicUsize,
    times: AtomicU64,
    notify: Notify,
}

impl Freed {
    /// Counts as waiting from now on. Look for a place after this, then await [`Waiting::freed`], and so on.
    pub fn waiting(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting {
            seen: self.times.load(Ordering::SeqCst),
            freed: self.clone(),
        }
    }

    /// How many wait.
    pub fn waiters(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Tells whoever waits to look again: a place was given back, a limit raised, or a target came up.
    pub fn tell(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.times.fetch_add(1, Ordering::SeqCst);
            self.notify.notify_waiters();
        }
    }
}

/// One who waits; counted while it lives.
#[derive(Debug)]
pub struct Waiting {
    freed: Arc<Freed>,
    seen: u64,
}

impl Waiting {
    /// Returns when something was freed since this last returned, at once if that is so already. Cancel safe.
    pub async fn freed(&mut self) {
        loop {
            // Hears everything from its creation on, so nothing falls between the look and the wait.
            let told = self.freed.notify.notified();
            let times = self.freed.times.load(Ordering::SeqCst);
            if times != self.seen {
                self.seen = times;
                return;
            }
            told.await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.freed.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::balance::TargetState;

    #[tokio::test]
    async fn what_was_freed_before_the_wait_is_not_missed() {
        let freed = Arc::new(Freed::default());
        let state = Arc::new(TargetState::new(freed.clone()));
        let guard = state.try_hold().unwrap();
        let mut waiting = freed.waiting();
        drop(guard);
        timeout(Duration::from_secs(5), waiting.freed())
            .await
            .unwrap();
        // Once heard, it is not heard again.
        let again = timeout(Duration::from_millis(20), waiting.freed()).await;
        assert!(again.is_err());
        drop(waiting);
        assert_eq!(freed.waiters(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_thousand_wait_for_two_places_and_none_is_forgotten() {
        let freed = Arc::new(Freed::default());
        let state = Arc::new(TargetState::new(freed.clone()));
        state.set_limit(2);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let (freed, state) = (freed.clone(), state.clone());
            tasks.spawn(async move {
                let mut waiting = freed.waiting();
                loop {
                    if let Some(guard) = state.try_hold() {
                        drop(waiting);
                        tokio::task::yield_now().await;
                        return drop(guard);
                    }
                    waiting.freed().await;
                }
            });
        }
        timeout(Duration::from_secs(60), tasks.join_all())
            .await
            .expect("all served");
        assert_eq!((state.in_flight(), freed.waiters()), (0, 0));
    }
}
