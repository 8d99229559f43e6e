//! One call of one plugin: bounded in time, and its panic kept from everybody else.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tollgate_sdk::plugin::{Exchange as View, Stage, Step, Verdict};

use crate::snapshot::Link;

/// How a plugin ended.
pub(super) enum Ended {
    Verdict(Verdict),
    /// It panicked or took too long; in words for the operator.
    Broken(&'static str),
}

/// What a call came to as far as it went without waiting.
pub(super) enum Begun<'x> {
    Ended(Ended),
    Waits(Pin<Box<dyn Future<Output = Verdict> + Send + 'x>>),
}

impl Begun<'_> {
    /// How it ends. The wait is boxed: most plugins wait for nobody, and a future without room for it is moved for less.
    pub(super) async fn ended(self, patience: Duration) -> Ended {
        match self {
            Begun::Ended(ended) => ended,
            Begun::Waits(work) => Box::pin(waited(work, patience)).await,
        }
    }
}

/// Calls a stage before the request is sent.
pub(super) fn begin<'x>(link: &'x Link, stage: Stage, x: &'x mut View<'_>) -> Begun<'x> {
    let step = unpanicked(|| match stage {
        Stage::PostRequest => link.plugin.post_request(x),
        _ => link.plugin.pre_request(x),
    });
    match step {
        Some(Step::Done(verdict)) => Begun::Ended(Ended::Verdict(verdict)),
        Some(Step::Wait(work)) => Begun::Waits(work),
        None => Begun::Ended(Ended::Broken("panicked")),
    }
}

/// Tells how long a stage took that began at `now`, which moves on to its end: that is where the next begins.
pub(super) fn tell(link: &Link, now: &mut Instant) {
    let began = std::mem::replace(now, Instant::now());
    link.seconds.observe(now.saturating_duration_since(began));
}

/// What comes of what a plugin waits for.
pub(super) async fn waited(work: impl Future<Output = Verdict>, patience: Duration) -> Ended {
    match timeout(patience, poll_unpanicked(work)).await {
        Ok(Some(verdict)) => Ended::Verdict(verdict),
        Ok(None) => Ended::Broken("panicked"),
        Err(_) => Ended::Broken("took too long"),
    }
}

/// What a call returns, unless it panics.
pub(super) fn unpanicked<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

async fn poll_unpanicked<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match unpanicked(|| work.as_mut().poll(cx)) {
        Some(Poll::Ready(done)) => Poll::Ready(Some(done)),
        Some(Poll::Pending) => Poll::Pending,
        None => Poll::Ready(None),
    })
    .await
}

/// What all of them come to, in their order, when the last has ended.
pub(super) async fn join<F: Future>(mut work: Vec<Pin<Box<F>>>) -> Vec<F::Output> {
    let mut done: Vec<Option<F::Output>> = work.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (work, done) in work.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(output) = work.as_mut().poll(cx)
            {
                *done = Some(output);
            }
        }
        match done.iter().all(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
