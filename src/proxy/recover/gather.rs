//! A connection to an upstream on which a request's head waits for its body, so that both leave as one.
//!
//! Pingora flushes a head as soon as it is written. With a body at hand that is one system call too many, and for the upstream a wake-up too
//! many. It owns the head's bytes in between, and nothing else: what is not [held](Gathering::hold) passes.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An upstream's connection.
pub(super) struct Gathering {
    inner: Stream,
    /// What is written now is kept for what comes next.
    holds: AtomicBool,
    held: Vec<u8>,
}

impl Gathering {
    pub(super) fn new(inner: Stream) -> Gathering {
        Gathering {
            inner,
            holds: AtomicBool::new(false),
            held: Vec::new(),
        }
    }

    /// Keeps what is written to `stream` from now on, flushed or not, or sends it with what is written next.
    pub(super) fn hold(stream: &Stream, holds: bool) {
        if let Some(own) = (**stream).as_any().downcast_ref::<Gathering>() {
            own.holds.store(holds, Ordering::Relaxed);
        }
    }

    fn holds(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }

    /// Writes what is held and as much of `buf` as there is room for; returns how much of `buf`.
    fn poll_both(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        while !self.held.is_empty() {
            let both = [IoSlice::new(&self.held), IoSlice::new(buf)];
            let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &both))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_held = written.min(self.held.len());
            self.held.drain(..of_held);
            if written > of_held {
                return Poll::Ready(Ok(written - of_held));
            }
        }
        match buf {
            [] => Poll::Ready(Ok(0)),
            _ => Pin::new(&mut self.inner).poll_write(cx, buf),
        }
    }
}

/// What is held has credentials in it.
impl fmt::Debug for Gathering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathering")
            .field("inner", &self.inner)
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Gathering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.holds() {
            self.held.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        self.poll_both(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.holds() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_both(cx, &[]))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Gathering {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for Gathering {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Gathering {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Gathering {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for Gathering {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for Gathering {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

impl Peek for Gathering {}

#[cfg(test)]
mod tests {
    use pingora_core::protocols::l4::stream::Stream as L4;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A gathering connection, and its other end.
    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let near: Stream = Box::new(L4::from(near.unwrap()));
        (Box::new(Gathering::new(near)), far.unwrap().0)
    }

    async fn read(far: &mut TcpStream) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 16];
        let read = far.read(&mut bytes).await.unwrap();
        bytes.truncate(read);
        bytes
    }

    #[tokio::test]
    async fn what_is_held_leaves_with_what_follows() {
        for length in [1, 20_000] {
            let (mut near, mut far) = pair().await;
            Gathering::hold(&near, true);
            near.write_all(b"head").await.unwrap();
            near.flush().await.unwrap();
            Gathering::hold(&near, false);
            let body = vec![b'b'; length];
            near.write_all(&body).await.unwrap();
            near.flush().await.unwrap();
            // One write, one segment: it is there whole or not at all.
            let read = read(&mut far).await;
            assert_eq!(read, [&b"head"[..], &body].concat());
        }
    }

    #[tokio::test]
    async fn what_is_not_held_leaves_at_once() {
        let (mut near, mut far) = pair().await;
        near.write_all(b"head").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(read(&mut far).await, b"head");
    }

    #[tokio::test]
    async fn what_nothing_follows_leaves_when_it_is_flushed() {
        let (mut near, mut far) = pair().await;
        Gathering::hold(&near, true);
        near.write_all(b"head").await.unwrap();
        Gathering::hold(&near, false);
        near.flush().await.unwrap();
        assert_eq!(read(&mut far).await, b"head");
    }

    /// More than the system takes at once: the rest follows in order.
    #[tokio::test]
    async fn a_slow_reader_gets_everything_in_order() {
        let (mut near, mut far) = pair().await;
        let head: Vec<u8> = (0..9_000_000_u32).map(|n| n as u8).collect();
        let sent = head.clone();
        let sending = tokio::spawn(async move {
            Gathering::hold(&near, true);
            near.write_all(&sent).await.unwrap();
            Gathering::hold(&near, false);
            near.write_all(b"body").await.unwrap();
            near.flush().await.unwrap();
        });
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        sending.await.unwrap();
        assert!(read == [&head[..], b"body"].concat());
    }

    #[tokio::test]
    async fn a_head_that_waits_is_not_shown() {
        let (mut near, _far) = pair().await;
        Gathering::hold(&near, true);
        near.write_all(b"authorization: secret").await.unwrap();
        assert!(!format!("{near:?}").contains("secret"));
    }
}
