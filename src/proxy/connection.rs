//! A client's connection, watched.
//!
//! Pingora gives a proxied exchange one read timeout for the upstream and lets nobody interrupt it from
//! outside; Tollgate promises four different deadlines (`first_byte`, `idle`, `total`, and `header_timeout` while
//! a request is being read). But an exchange that waits for its upstream always polls its client's connection too, to learn
//! that the client left. So the deadline lives there: [`Watched`] wraps the client's stream, and while a read is
//! pending it also looks at the connection's [`Alarm`]. When the alarm rings, the pending read fails, Pingora ends
//! the exchange, and `error_while_proxy` tells a rung alarm from a client that left.
//!
//! Between requests there is no exchange, and nothing of Pingora's either: [`Watched::poll_begins`] reads what comes first.
//!
//! HTTP/2 streams share one connection, so their alarm is raced against the whole exchange instead (see `front.rs`).
//! Cost: two relaxed loads when a read is pending; a timer is armed at most once per exchange, and seldom that.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::alarm::{Alarm, Deadline};
use super::beside::Held;
use crate::tls::Handshake;

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much Pingora reads to see whether the client is still there.
const PROBE: usize = 1;
/// Bytes of following requests that are kept while one is served.
const STASH: usize = 16 * 1024;
/// How long a connection is kept on which no request begins.
pub(super) const KEPT: Duration = Duration::from_secs(60);
/// Bytes that are read at once of a request that begins, as many as Pingora takes at first.
const BEGINNING: usize = 4096;

/// What the connection is doing, as far as deadlines care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests, or before the first.
    Quiet,
    /// Bytes of a request head have come, the head is not complete.
    Head,
    /// An exchange owns the alarm, or HTTP/2 is spoken.
    Exchange,
}

/// A client's stream with an alarm.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Stream,
    alarm: Arc<Alarm>,
    /// And who is woken by it.
    timer: Option<(Pin<Box<Sleep>>, Waker)>,
    peeked: BytesMut,
    phase: Phase,
    refused: bool,
    /// Something was written and not flushed.
    unflushed: bool,
    /// And not even passed on.
    held: Held,
    /// How TLS began, if it is spoken.
    handshake: Option<Arc<Handshake>>,
}

impl Watched {
    pub(super) fn new(
        inner: Stream,
        header_timeout: Duration,
        handshake: Option<Arc<Handshake>>,
    ) -> Watched {
        Watched {
            inner,
            alarm: Alarm::new(header_timeout),
            timer: None,
            peeked: BytesMut::new(),
            phase: Phase::Quiet,
            refused: false,
            unflushed: false,
            held: Held::default(),
            handshake,
        }
    }

    /// The connection that `stream` is, if it is one of ours.
    pub(super) fn of(stream: &Stream) -> Option<&Watched> {
        (**stream).as_any().downcast_ref::<Watched>()
    }

    /// What ends the connection when it rings.
    pub(super) fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// How TLS began, if it is spoken.
    pub(super) fn handshake(&self) -> Option<&Arc<Handshake>> {
        self.handshake.as_ref()
    }

    /// Whether the client speaks HTTP/2: it agreed to in its TLS handshake or, without TLS and if `clear` allows it,
    /// begins with the preface.
    pub(super) async fn speaks_h2(&mut self, clear: bool) -> io::Result<bool> {
        let h2 = if self.inner.get_ssl_digest().is_some() {
            matches!(self.inner.selected_alpn_proto(), Some(ALPN::H2))
        } else if clear {
            let mut begin = [0; H2_PREFACE.len()];
            self.try_peek(&mut begin).await?;
            begin == H2_PREFACE
        } else {
            false
        };
        if h2 {
            // Streams come and go on it; none of them is what the connection waits for.
            self.alarm.begin();
        }
        Ok(h2)
    }

    fn sync_phase(&mut self) {
        match (self.alarm.owned.load(Ordering::Relaxed), self.phase) {
            (true, _) => self.phase = Phase::Exchange,
            (false, Phase::Exchange) => self.phase = Phase::Quiet,
            _ => {}
        }
    }

    /// The next request begins (`true`), or there will be none: the client has gone, or took longer than [`KEPT`].
    pub(super) fn poll_begins(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.peeked.is_empty() {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => {
                    if self.alarm.deadline().is_none() {
                        self.alarm.set(Instant::now() + KEPT, Deadline::Idle);
                    }
                    return self.poll_alarm(cx).map(|_| false);
                }
            }
        }
        self.alarm.clear();
        self.phase = Phase::Head;
        Poll::Ready(true)
    }

    /// What has come of a request that begins.
    pub(super) fn take_beginning(&mut self) -> BytesMut {
        self.alarm.give(self.peeked.len());
        std::mem::take(&mut self.peeked)
    }

    /// No request is being served any more.
    pub(super) fn rest(&mut self) {
        self.alarm.clear();
        self.phase = Phase::Quiet;
    }

    /// More of what has begun; who is slow hears of it.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self.poll_fill(cx) {
            Poll::Pending => self.poll_waiting(cx).map_ok(|()| 0),
            read => read,
        }
    }

    /// Reads into what is kept here, which takes memory only once something has come; how many bytes.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [const { MaybeUninit::uninit() }; BEGINNING];
        let mut buf = ReadBuf::uninit(&mut bytes);
        let read = Pin::new(&mut self.inner).poll_read(cx, &mut buf);
        self.peeked.extend_from_slice(buf.filled());
        read.map_ok(|()| buf.filled().len())
    }

    /// Pingora asks whether the client is still there. Bytes are no answer to that: they are its next request, and wait
    /// here for their turn.
    fn poll_probe(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.peeked.len() < STASH {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(gone) => return Poll::Ready(gone.map(drop)),
                Poll::Pending => break,
            }
        }
        self.poll_waiting(cx)
    }

    /// Nothing to read: time to flush what streams, and to look at the clock.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed && self.alarm.eager.load(Ordering::Relaxed) {
            // An error shows at the next write.
            let _ = Pin::new(&mut *self).poll_flush(cx);
        }
        if self.phase == Phase::Head && self.alarm.deadline().is_none() && !self.refused {
            let end = Instant::now() + self.alarm.header_timeout;
            self.alarm.set(end, Deadline::Total);
        }
        self.poll_alarm(cx)
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(at) = self.alarm.deadline() else {
            return Poll::Pending;
        };
        if let Some((timer, waker)) = &self.timer {
            // An earlier wake-up than needed is kept: it costs one look, arming anew costs the timer's lock.
            if timer.deadline() <= at && !timer.is_elapsed() && waker.will_wake(cx.waker()) {
                return Poll::Pending;
            }
        }
        loop {
            if at <= Instant::now() {
                return self.rings(cx);
            }
            let waker = cx.waker().clone();
            let (timer, known) = self
                .timer
                .get_or_insert_with(|| (Box::pin(tokio::time::sleep_until(at)), waker.clone()));
            *known = waker;
            if timer.is_elapsed() || timer.deadline() > at {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Watched { inner, held, .. } = self;
        held.poll_rest(inner, cx)
    }

    fn rings(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alarm.ring();
        if self.phase == Phase::Head && !self.refused {
            // No request, no exchange, no phase file: the answer to a slow head is written here.
            self.refused = true;
            let _ = Pin::new(&mut self.inner).poll_write(cx, super::reply::SLOW_HEAD);
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "deadline")))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.sync_phase();
        if self.phase == Phase::Exchange
            && buf.remaining() == PROBE
            && self.alarm.request_read.load(Ordering::Relaxed)
        {
            return self.poll_probe(cx);
        }
        if !self.peeked.is_empty() {
            let n = self.peeked.len().min(buf.remaining());
            let (now, later) = self.peeked.split_at(n);
            buf.put_slice(now);
            self.alarm.give(n);
            match later.is_empty() {
                // A connection that waits keeps no memory for what has been read.
                true => self.peeked = BytesMut::new(),
                false => self.peeked.advance(n),
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(result) => {
                let read = buf.filled().len().saturating_sub(before);
                self.alarm.give(read);
                if self.phase == Phase::Quiet && read > 0 {
                    // Its clock starts when more has to be waited for, which is seldom.
                    self.phase = Phase::Head;
                }
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_waiting(cx),
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        ready!(self.poll_held(cx))?;
        match self.alarm.take_beside() {
            None => Pin::new(&mut self.inner).poll_write(cx, buf),
            Some(standings) => {
                let Watched { inner, held, .. } = &mut *self;
                held.poll_write(inner, cx, buf, &standings)
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.unflushed &= flushed.is_pending();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Watched {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for Watched {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Watched {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Watched {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for Watched {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for Watched {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

#[async_trait]
impl Peek for Watched {
    /// Looks for HTTP/2's preface, and stops at the first byte that differs: a short HTTP/1 request
    /// must not wait for bytes that never come.
    async fn try_peek(&mut self, out: &mut [u8]) -> io::Result<bool> {
        out.fill(0);
        while self.peeked.len() < out.len()
            && H2_PREFACE.starts_with(
                self.peeked
                    .get(..self.peeked.len().min(H2_PREFACE.len()))
                    .unwrap_or_default(),
            )
        {
            if std::future::poll_fn(|cx| self.poll_more(cx)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        for (to, from) in out.iter_mut().zip(self.peeked.iter()) {
            *to = *from;
        }
        Ok(true)
    }
}
