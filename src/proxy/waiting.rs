//! HTTP/1 connections between requests.
//!
//! Pingora waits for a request inside the future that serves it, which takes some 14 KB. So a connection waits here, with nothing but its stream, until the
//! first bytes of a request have come; then it is Pingora's until the request has been served. What Pingora carries from one request to the next goes along.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;

use super::Proxy;
use super::alarm::Alarm;
use super::connection::{KEPT, Watched};

/// Tells connections that wait that they are to be closed.
#[derive(Clone)]
pub(super) struct Closing(watch::Sender<bool>);

impl Default for Closing {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Closing {
    /// Done when connections are to be closed. One for each connection: to poll it again costs less than to make another.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut told = self.0.subscribe();
        async move {
            // Nobody is left to tell: closed as well.
            let _ = told.wait_for(|closed| *closed).await;
        }
    }
}

/// A service's connections that wait for a request.
pub struct Waiting {
    closing: Closing,
    proxy: Arc<HttpProxy<Proxy>>,
}

impl Waiting {
    pub(super) fn new(closing: Closing, proxy: Arc<HttpProxy<Proxy>>) -> Waiting {
        Waiting { closing, proxy }
    }

    /// Closes them, and whatever comes to wait from now on. What has already come of a request is still served.
    pub async fn close(&self) {
        self.closing.0.send_replace(true);
        self.proxy.http_cleanup().await;
    }
}

/// Whether a request begins; otherwise the connection is to be closed.
pub(super) async fn begins(
    watched: &mut Watched,
    mut closed: Pin<&mut (impl Future<Output = ()> + Send)>,
) -> bool {
    watched.rest();
    poll_fn(|cx| {
        // What has come is looked at first.
        match watched.poll_begins(cx) {
            Poll::Pending => closed.as_mut().poll(cx).map(|()| false),
            begun => begun,
        }
    })
    .await
}

/// Serves one request after the other. The first has begun.
pub(super) async fn serve(
    (proxy, own): (&Arc<HttpProxy<Proxy>>, &Proxy),
    mut closed: Pin<&mut (impl Future<Output = ()> + Send)>,
    mut watched: Box<Watched>,
    shutdown: &ShutdownWatch,
) {
    let alarm = watched.alarm().clone();
    let parking = Parking(&alarm);
    let mut beginning = watched.take_beginning();
    let mut stream: Stream = watched;
    let mut settings = None;
    loop {
        let mut reused = one(proxy, stream, beginning, settings, shutdown).await;
        if let Some(parked) = parking.0.parked() {
            reused = Box::pin(own.take_up(parked)).await;
        }
        let Some(reused) = reused else { return };
        (stream, settings) = reused.consume();
        beginning = BytesMut::new();
        // What Pingora has read of the next request is in its settings, and nobody else sees it.
        if !alarm.nothing_ahead() {
            continue;
        }
        let Ok(mut watched) = stream.into_any().downcast::<Watched>() else {
            return;
        };
        if !begins(&mut watched, closed.as_mut()).await {
            return;
        }
        beginning = watched.take_beginning();
        stream = watched;
    }
}

/// Where an exchange that has left Pingora is for a moment. It holds the connection, which holds the alarm: should that moment end in a panic, somebody
/// must undo the knot.
struct Parking<'a>(&'a Alarm);

impl Drop for Parking<'_> {
    fn drop(&mut self) {
        drop(self.0.parked());
    }
}

/// Serves one request. No `async fn`: a session, which is large, would have its place in the future of the connection.
fn one<'s>(
    proxy: &'s Arc<HttpProxy<Proxy>>,
    stream: Stream,
    beginning: BytesMut,
    settings: Option<HttpPersistentSettings>,
    shutdown: &'s ShutdownWatch,
) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 's>> {
    let mut session = ServerSession::new_http1(stream);
    match settings {
        Some(settings) => settings.apply_to_session(&mut session),
        None => session.set_keepalive((!*shutdown.borrow()).then_some(KEPT.as_secs())),
    }
    if !beginning.is_empty() {
        // As what came before its time: as many bytes as there are, where Pingora would take 4 KiB to read into, for as long as the request lives.
        session.set_pipelined_prefix(beginning);
    }
    proxy.process_new_http(session, shutdown)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::Instant;

    use super::*;

    fn connection() -> (DuplexStream, Watched) {
        let (client, ours) = tokio::io::duplex(64 * 1024);
        let watched = Watched::new(Box::new(ours), Duration::from_secs(10), None);
        (client, watched)
    }

    #[tokio::test(start_paused = true)]
    async fn what_begins_a_request_is_kept_for_it() {
        let ((mut client, mut watched), closing) = (connection(), Closing::default());
        let mut closed = pin!(closing.closed());
        let sent = vec![b'x'; 10_000];
        client.write_all(&sent).await.unwrap();
        assert!(begins(&mut watched, closed.as_mut()).await);
        // Also where it is closed now.
        closing.0.send_replace(true);
        assert!(begins(&mut watched, closed.as_mut()).await);
        let mut read = vec![0; sent.len()];
        watched.read_exact(&mut read).await.unwrap();
        assert_eq!(read, sent);
        watched.alarm().claim(Some(sent.len() as u64));
        assert!(watched.alarm().nothing_ahead());
        assert!(!begins(&mut watched, closed).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_not_kept_for_ever() {
        let ((mut client, mut watched), closing) = (connection(), Closing::default());
        let mut closed = pin!(closing.closed());
        for _ in 0..3 {
            let start = Instant::now();
            let (begun, ()) = tokio::join!(begins(&mut watched, closed.as_mut()), async {
                tokio::time::sleep(KEPT - Duration::from_secs(1)).await;
                client.write_all(b"G").await.unwrap();
            });
            assert!(begun, "{:?}", start.elapsed());
            assert_eq!(watched.read_u8().await.unwrap(), b'G');
        }
        let start = Instant::now();
        assert!(!begins(&mut watched, closed).await);
        let took = start.elapsed();
        assert!(
            took >= KEPT && took < KEPT + Duration::from_secs(1),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_are_closed() {
        let ((client, mut watched), closing) = (connection(), Closing::default());
        let mut closed = pin!(closing.closed());
        let (begun, ()) = tokio::join!(begins(&mut watched, closed.as_mut()), async {
            tokio::task::yield_now().await;
            closing.0.send_replace(true);
        });
        assert!(!begun);
        // And those that come to wait later.
        let mut late = pin!(closing.closed());
        let (_client, mut watched) = connection();
        assert!(!begins(&mut watched, late.as_mut()).await);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_is_not_waited_for() {
        let ((client, mut watched), closing) = (connection(), Closing::default());
        drop(client);
        assert!(!begins(&mut watched, pin!(closing.closed())).await);
    }
}
