//! How an HTTP/2 client treats its connection.
//!
//! A stream that is reset no longer counts towards the streams that may be open, so a client that asks and resets, again and again, has any number of
//! requests begun (rapid reset, CVE-2023-44487). So it is counted: a request whose client left before its answer began weighs against the connection, one
//! that was answered weighs for it, and who is too far in debt is cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::Instant;

use super::alarm::{Alarm, Deadline};

/// Requests a client may have left unanswered beyond those that it waited for.
const DEBT: u32 = 100;

/// One connection's.
#[derive(Debug)]
pub(super) struct Conduct {
    connection: Arc<Alarm>,
    debt: AtomicU32,
}

impl Conduct {
    /// `connection`: what ends the connection when it rings.
    pub(super) fn new(connection: Arc<Alarm>) -> Arc<Conduct> {
        Arc::new(Conduct {
            connection,
            debt: AtomicU32::new(0),
        })
    }

    /// A request has ended; `left`: its client did not wait for the answer to begin.
    pub(super) fn ended(&self, left: bool) {
        if !left {
            let less = |debt: u32| debt.checked_sub(1);
            // An error says that there was none.
            let _ = self
                .debt
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            return;
        }
        // Only one of them tells.
        if self.debt.fetch_add(1, Ordering::Relaxed) == DEBT {
            log::warn!(
                "an HTTP/2 connection is cut off: its client resets requests and waits for no answer"
            );
            self.connection.set(Instant::now(), Deadline::Total);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rings(alarm: &Alarm) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let patience = Duration::from_secs(1);
            tokio::time::timeout(patience, alarm.rung()).await.is_ok()
        })
    }

    #[test]
    fn who_leaves_and_never_waits_is_cut_off() {
        let alarm = Alarm::of_stream(None);
        let conduct = Conduct::new(alarm.clone());
        (0..DEBT).for_each(|_| conduct.ended(true));
        assert!(!rings(&alarm));
        conduct.ended(true);
        assert!(rings(&alarm));
    }

    #[test]
    fn who_waits_as_often_is_not() {
        let alarm = Alarm::of_stream(None);
        let conduct = Conduct::new(alarm.clone());
        for _ in 0..DEBT * 20 {
            conduct.ended(true);
            conduct.ended(false);
        }
        assert!(!rings(&alarm));
        // Good conduct is no credit.
        (0..DEBT * 2).for_each(|_| conduct.ended(false));
        (0..=DEBT).for_each(|_| conduct.ended(true));
        assert!(rings(&alarm));
    }
}
