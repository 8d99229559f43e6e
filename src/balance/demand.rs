//! What is asked of a service, counted as it comes: what scaling goes by, beside the metrics.
//!
//! A request costs one atomic addition. The counts are of what came while the service is scaled: whoever begins to scale it begins at zero, so that
//! what came before its first look is seen, and whoever ends leaves zero behind. Where requests are split all are counted: another service may scale a
//! role of the same upstream.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// One service's demand since it is scaled.
#[derive(Debug, Default)]
pub struct Demand {
    came: AtomicU64,
    refused: AtomicU64,
    undecoded: AtomicU64,
    whole: AtomicU64,
    woken: Notify,
}

/// Requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Those that came, whatever became of them, but for those that a limit turned away.
    pub came: u64,
    /// Those of them that no target could take.
    pub refused: u64,
    /// Those of these that only lacked a target to decode them.
    pub undecoded: u64,
    /// Those that nobody was to prefill for somebody else, where requests are split.
    pub whole: u64,
}

impl Demand {
    /// Counts a request as it comes.
    pub fn came(&self) {
        self.came.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was refused because no target could take it, or only none could `decode` it.
    pub fn refused(&self, decode: bool) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.undecoded.fetch_add(decode.into(), Ordering::Relaxed);
    }

    /// Counts a request that came to be served by one target where others are split.
    pub fn whole(&self) {
        self.whole.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls whoever scales the service: there is somebody to serve, and nobody who does.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Returns once it was called since this last returned.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Forgets what was counted: the service is scaled no longer.
    pub fn clear(&self) {
        for count in [&self.came, &self.refused, &self.undecoded, &self.whole] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// What was counted.
    pub fn asked(&self) -> Asked {
        Asked {
            came: self.came.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            undecoded: self.undecoded.load(Ordering::Relaxed),
            whole: self.whole.load(Ordering::Relaxed),
        }
    }
}
