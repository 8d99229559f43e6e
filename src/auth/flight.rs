//! Work that several wait for, done once.
//!
//! It runs as a task of its own, so that it goes on when whoever began it leaves. Invariant: who waits is always told something; if the
//! task dies with its runtime, that nothing came of it.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::sync::watch;

/// Work under way. Clones wait for the same.
#[derive(Clone, Debug)]
pub(super) struct Flight<T>(watch::Receiver<Option<T>>);

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Begins the work on the current runtime; `None` outside of one.
    pub(super) fn begin(work: impl Future<Output = T> + Send + 'static) -> Option<Self> {
        let runtime = Handle::try_current().ok()?;
        let (done, waiting) = watch::channel(None);
        runtime.spawn(async move {
            let _ = done.send(Some(work.await));
        });
        Some(Self(waiting))
    }

    /// Whether it has ended, one way or another.
    pub(super) fn is_over(&self) -> bool {
        self.0.borrow().is_some() || self.0.has_changed().is_err()
    }

    /// What came of it; `None` if its task died.
    pub(super) async fn wait(mut self) -> Option<T> {
        let done = self.0.wait_for(Option::is_some).await.ok()?;
        done.clone()
    }
}
