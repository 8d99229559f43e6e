//! What bounds an HTTP/2 connection of the admin listener: its streams, its heads, and how long it may stand without a call.
//!
//! HTTP/1 connections have their times from hyper, which knows when a head is awaited; of HTTP/2 it knows nothing of the kind. So calls are counted
//! here. Who has been let in once may be idle for longer: KEDA asks every half a minute or so, and connects again at once when it is sent away.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Version;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::watch;
use tokio::time::sleep;

use super::serve::Limits;

/// Calls of one connection at once. More than KEDA's streams may be, so that its questions find room beside them.
const STREAMS: u32 = 512;
/// Bytes of a call's head.
const HEAD: u32 = 16 << 10;
/// Bytes that a client may send of one call, and of all together, before they are read. A message fits.
const WINDOWS: (u32, u32) = (128 << 10, 256 << 10);
/// Streams that were reset and not yet looked at, or reset by us.
const RESETS: usize = 64;
/// How often it is asked whether the other side is still there, and how long it may take to say so.
const ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Calls that a client may have left unanswered beyond those whose answer it waited for (CVE-2023-44487).
const DEBT: usize = 100;

/// Both versions, each within its bounds.
pub(super) fn builder(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(RESETS)
        .keep_alive_interval(ALIVE.0)
        .keep_alive_timeout(ALIVE.1);
    builder
}

/// How a connection is used; shared by its calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Conduct(Arc<watch::Sender<Standing>>);

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Of the first request; none has come before.
    version: Option<Version>,
    /// Calls whose answers are not over.
    open: usize,
    /// Calls that were left unanswered, less those that were not.
    debt: usize,
    /// Somebody who may call does.
    known: bool,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// When the calls that are open are over.
    Gently,
    /// At once.
    Cut,
}

impl Conduct {
    /// HTTP/1 is spoken.
    pub(super) fn speaks_http1(&self) {
        self.0
            .send_if_modified(|standing| standing.version.replace(Version::HTTP_11).is_none());
    }

    /// A call has come.
    pub(super) fn begin(&self) -> Call {
        self.0.send_modify(|standing| {
            standing.version = Some(Version::HTTP_2);
            standing.open += 1;
        });
        Call {
            conduct: self.clone(),
            answered: false,
        }
    }

    /// Who calls may.
    pub(super) fn trust(&self) {
        self.0
            .send_if_modified(|standing| !std::mem::replace(&mut standing.known, true));
    }

    /// Waits until the connection is to end: it has been idle for too long, its client resets what it asks for, or the listener is `closing`. One that
    /// speaks HTTP/1 ends by itself.
    pub(super) async fn end(&self, limits: Limits, mut closing: watch::Receiver<bool>) -> End {
        let mut standing = self.0.subscribe();
        loop {
            let now = *standing.borrow_and_update();
            let is_closing = *closing.borrow_and_update();
            match now.version {
                Some(Version::HTTP_2) if is_closing => return End::Gently,
                Some(Version::HTTP_2) | None => {}
                Some(_) => return pending().await,
            }
            if now.debt > DEBT {
                log::warn!(
                    "a connection of the admin listener is cut off: its client resets calls and waits for no answer"
                );
                return End::Cut;
            }
            let idle = match (now.open, now.known) {
                (0, true) => Some(limits.quiet),
                (0, false) => Some(limits.head),
                _ => None,
            };
            tokio::select! {
                _ = standing.changed() => {}
                () = told(&mut closing) => {}
                () = elapsed(idle) => return End::Gently,
            }
        }
    }
}

async fn told(closing: &mut watch::Receiver<bool>) {
    if closing.changed().await.is_err() {
        pending().await
    }
}

async fn elapsed(patience: Option<Duration>) {
    match patience {
        Some(patience) => sleep(patience).await,
        None => pending().await,
    }
}

/// A call from its head to the end of its answer, however it ends.
#[derive(Debug)]
pub(super) struct Call {
    conduct: Conduct,
    answered: bool,
}

impl Call {
    /// It is over with this answer.
    pub(super) fn answered(mut self, answer: Response) -> Response {
        self.answered = true;
        answer.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _until_its_end = &self;
                frame
            }))
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.conduct.0.send_modify(|standing| {
            standing.open = standing.open.saturating_sub(1);
            standing.debt = match self.answered {
                true => standing.debt.saturating_sub(1),
                false => standing.debt + 1,
            };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Limits = Limits {
        connections: 1,
        head: Duration::from_secs(1),
        answer: Duration::from_secs(1),
        quiet: Duration::from_secs(60),
    };

    /// Whether it ends within so many seconds, of a clock that stands still otherwise.
    async fn ends(conduct: &Conduct, closing: &watch::Receiver<bool>, seconds: u64) -> Option<End> {
        let end = conduct.end(SHORT, closing.clone());
        tokio::time::timeout(Duration::from_secs(seconds), end)
            .await
            .ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_nothing_is_let_go_and_who_has_an_answer_to_come_is_not() {
        let (_close, closing) = watch::channel(false);
        let conduct = Conduct::default();
        assert_eq!(ends(&conduct, &closing, 2).await, Some(End::Gently));
        let call = conduct.begin();
        assert_eq!(ends(&conduct, &closing, 600).await, None);
        let answer = call.answered(Response::new(Body::from("a")));
        assert_eq!(ends(&conduct, &closing, 600).await, None);
        drop(answer);
        assert_eq!(ends(&conduct, &closing, 2).await, Some(End::Gently));
        conduct.trust();
        assert_eq!(ends(&conduct, &closing, 30).await, None);
        assert_eq!(ends(&conduct, &closing, 90).await, Some(End::Gently));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_and_never_waits_is_cut_off() {
        let (_close, closing) = watch::channel(false);
        let conduct = Conduct::default();
        conduct.trust();
        for _ in 0..DEBT * 5 {
            drop(conduct.begin());
            drop(conduct.begin().answered(Response::new(Body::empty())));
        }
        assert_eq!(ends(&conduct, &closing, 1).await, None);
        for _ in 0..=DEBT {
            drop(conduct.begin());
        }
        assert_eq!(ends(&conduct, &closing, 1).await, Some(End::Cut));
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_listener_closes_http1_goes_on() {
        let (close, closing) = watch::channel(false);
        let (old, new) = (Conduct::default(), Conduct::default());
        old.speaks_http1();
        let _call = new.begin();
        assert_eq!(ends(&new, &closing, 600).await, None);
        close.send_replace(true);
        assert_eq!(ends(&old, &closing, 600).await, None);
        assert_eq!(ends(&new, &closing, 1).await, Some(End::Gently));
    }
}
