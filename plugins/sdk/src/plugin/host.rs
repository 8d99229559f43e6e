//! What the engine offers its plugins: limits, calls to other servers, and a place for what outlives a revision.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};

use crate::quota::Quota;

/// What the engine offers its plugins. It outlives every revision.
#[derive(Clone)]
pub struct Host {
    /// Limits, counted by identity.
    pub quota: Arc<dyn Quota>,
    /// Calls to other servers.
    pub http: Arc<dyn Http>,
    /// What outlives a revision, by identity.
    pub kept: Arc<Kept>,
    /// What this plugin counts and keeps under: the same for the same entry of the same owner in every revision.
    pub identity: Arc<str>,
}

impl Host {
    /// What this plugin kept in an earlier revision, or what is made now.
    pub fn keep<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        self.kept.keep(&self.identity, make)
    }
}

/// Values by identity, for as long as any revision holds them.
#[derive(Default)]
pub struct Kept {
    // Only locked while a configuration is compiled.
    values: Mutex<Values>,
}

#[derive(Default)]
struct Values {
    by_identity: HashMap<Arc<str>, Weak<dyn Any + Send + Sync>>,
    /// How many were still held when those that are not were forgotten last.
    held: usize,
}

impl Values {
    /// Forgets what nobody holds whenever there are twice as many as there were held: looking at all of them with every new one would cost
    /// their square.
    fn sweep(&mut self) {
        if self.by_identity.len() > 2 * self.held + 16 {
            self.by_identity.retain(|_, value| value.strong_count() > 0);
            self.held = self.by_identity.len();
        }
    }
}

impl Kept {
    /// What is kept under this identity, if it is of this type and anybody still holds it; else what is made now.
    pub fn keep<T: Any + Send + Sync>(
        &self,
        identity: &Arc<str>,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let known = values.by_identity.get(identity).and_then(Weak::upgrade);
        if let Some(Ok(known)) = known.map(|known| known.downcast()) {
            return known;
        }
        let made = Arc::new(make());
        values.sweep();
        let held: Arc<dyn Any + Send + Sync> = made.clone();
        values
            .by_identity
            .insert(identity.clone(), Arc::downgrade(&held));
        made
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

/// What a call comes to.
pub type Called = Pin<Box<dyn Future<Output = Result<Response<Bytes>, CallError>> + Send>>;

/// Calls to other servers, over connections that are kept.
pub trait Http: Send + Sync {
    /// Sends a request whose URI is absolute (`http` or `https`) and reads the answer whole. `patience` bounds everything, `most` the answer's
    /// body in bytes. Redirects are not followed.
    fn call(&self, request: Request<Bytes>, patience: Duration, most: usize) -> Called;
}

/// Reaches nobody: for tests, and where calls are not wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHttp;

impl Http for NoHttp {
    fn call(&self, _: Request<Bytes>, _: Duration, _: usize) -> Called {
        Box::pin(std::future::ready(Err(CallError::Connect)))
    }
}

/// Why a call came to nothing. Says no address: that is for the log of whoever called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The server could not be reached.
    Connect,
    /// It did not answer in time.
    Timeout,
    /// Its answer is larger than what was allowed.
    TooLarge,
    /// What it said is not HTTP, or broke off; or the request could not be sent.
    Broken,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CallError::Connect => "it could not be reached",
            CallError::Timeout => "it did not answer in time",
            CallError::TooLarge => "its answer is too large",
            CallError::Broken => "its answer broke off or is no HTTP",
        })
    }
}

impl std::error::Error for CallError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept_while_anybody_holds_them() {
        let kept = Kept::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = kept.keep(&a, || 1_u32);
        assert_eq!(*kept.keep(&a, || 2_u32), 1);
        assert_eq!(*kept.keep(&b, || 3_u32), 3);
        // Another type under the same identity is another thing.
        assert_eq!(*kept.keep(&a, || "text"), "text");
        drop(first);
        assert_eq!(*kept.keep(&a, || 4_u32), 4);
    }

    #[test]
    fn names_that_come_and_go_are_forgotten() {
        let kept = Kept::default();
        let identity = |n: usize| Arc::from(format!("owner-{n}"));
        let lasting: Vec<Arc<usize>> = (0..10).map(|n| kept.keep(&identity(n), || n)).collect();
        for n in 10..10_000 {
            assert_eq!(*kept.keep(&identity(n), || n), n);
        }
        assert!(kept.values.lock().unwrap().by_identity.len() < 64);
        for (n, value) in lasting.iter().enumerate() {
            assert!(Arc::ptr_eq(value, &kept.keep(&identity(n), || 0)));
        }
    }
}
