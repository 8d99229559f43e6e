//! Connections of the admin API: where they come from, how many there may be, and how long each may take.
//!
//! Whoever is slow must not hold the listener: heads, bodies and the reading of answers have a time, and so many connections are served at once; the
//! others wait to be accepted. Streams of events alone may be read slowly, and are counted apart. The pages are served by HTTP/1; what speaks HTTP/2, by
//! prior knowledge, is KEDA.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::{HeaderValue, Version};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};

use super::http2::{self, Conduct, End};

/// What slow clients may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections of one listener that are served at once.
    pub(super) connections: usize,
    /// For a request's head; also how long a connection may be idle.
    pub(super) head: Duration,
    /// For taking the next piece of an answer.
    pub(super) answer: Duration,
    /// How long an HTTP/2 connection may be idle whose client has been let in.
    pub(super) quiet: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 256,
            head: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            quiet: Duration::from_secs(300),
        }
    }
}

/// What is served, by the version of HTTP.
#[derive(Clone)]
pub(super) struct Sites {
    pub(super) http1: Router,
    pub(super) http2: Router,
}

/// Who asks, as far as the connection tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Over the network.
    Address(SocketAddr),
    /// Over the unix socket, whose mode has let them in.
    Socket {
        /// Whose process it is, if the system tells.
        uid: Option<u32>,
    },
}

/// A connection's answer may be read at leisure, once this is set.
#[derive(Clone, Debug, Default)]
pub(super) struct Leisure(Arc<AtomicBool>);

impl Leisure {
    /// From now on.
    pub(super) fn grant(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Where connections come from.
pub(super) trait Source {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<(Self::Io, Peer)>> + Send;
}

impl Source for TcpListener {
    type Io = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, peer) = self.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, Peer::Address(peer)))
    }
}

impl Source for UnixListener {
    type Io = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.accept().await?;
        let uid = stream.peer_cred().ok().map(|peer| peer.uid());
        Ok((stream, Peer::Socket { uid }))
    }
}

/// Accepts until `over` and then closes its source; whom it has accepted it serves until it is dropped.
pub(super) async fn serve(
    source: impl Source,
    sites: Sites,
    limits: Limits,
    over: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let (closing, closed) = watch::channel(false);
    // They end with this.
    let mut open = JoinSet::new();
    let mut over = pin!(over);
    loop {
        while open.try_join_next().is_some() {}
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, source.next().await)
        };
        let (place, next) = tokio::select! {
            next = next => next,
            () = &mut over => break,
        };
        match next {
            Ok((io, peer)) => {
                let served = converse(io, peer, sites.clone(), limits, closed.clone());
                open.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Too many open files, most likely: some will be closed.
                log::warn!("the admin listener cannot accept: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(source);
    closing.send_replace(true);
    while open.join_next().await.is_some() {}
}

async fn converse<I>(
    io: I,
    peer: Peer,
    sites: Sites,
    limits: Limits,
    closing: watch::Receiver<bool>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let leisure = Leisure::default();
    let io = Timed {
        io,
        leisure: leisure.clone(),
        patience: limits.answer,
        stalled: None,
    };
    let conduct = Conduct::default();
    let theirs = conduct.clone();
    let pages = TowerToHyperService::new(sites.http1);
    let calls = TowerToHyperService::new(sites.http2);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let extensions = request.extensions_mut();
        extensions.insert(peer.clone());
        extensions.insert(leisure.clone());
        extensions.insert(theirs.clone());
        let call = match request.version() {
            Version::HTTP_2 => Some(theirs.begin()),
            _ => None,
        };
        let answer = match call {
            Some(_) => calls.call(with_host(request)),
            None => {
                theirs.speaks_http1();
                pages.call(request)
            }
        };
        async move {
            let answer: Response = answer.await?;
            Ok::<_, Infallible>(match call {
                Some(call) => call.answered(answer),
                None => answer,
            })
        }
    });
    let builder = http2::builder(limits);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        end = conduct.end(limits, closing) => match end {
            End::Cut => return,
            End::Gently => {
                connection.as_mut().graceful_shutdown();
                let last = timeout(limits.answer, connection).await;
                last.unwrap_or_else(|late| Err(late.into()))
            }
        },
    };
    if let Err(error) = ended {
        log::debug!("a connection of the admin listener broke off: {error}");
    }
}

/// Who is asked is said in HTTP/2 beside the header fields.
fn with_host(mut request: Request<Incoming>) -> Request<Incoming> {
    let authority = request.uri().authority();
    let host = authority.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    request
}

/// A connection that breaks when the other side takes nothing for too long.
struct Timed<I> {
    io: I,
    leisure: Leisure,
    patience: Duration,
    /// Since the other side took nothing more.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<I> Timed<I> {
    /// What a write came to, unless it has been pending for too long.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        if self.leisure.0.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Timed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Timed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, pieces);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    /// The preface of HTTP/2, and empty settings.
    const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const SHORT: Limits = Limits {
        connections: 3,
        head: Duration::from_millis(150),
        answer: Duration::from_millis(150),
        quiet: Duration::from_millis(150),
    };

    /// A listener whose one page is a megabyte and more than any socket's buffer.
    async fn start(leisurely: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let page = move |request: Request| async move {
            if leisurely {
                request.extensions().get::<Leisure>().unwrap().grant();
            }
            "x".repeat(32 << 20)
        };
        let router = Router::new()
            .route("/", get(page))
            .route("/small", get(|| async { "small" }));
        let sites = Sites {
            http1: router,
            http2: Router::new(),
        };
        tokio::spawn(async move { serve(listener, sites, SHORT, std::future::pending()).await });
        address
    }

    async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
        let mut all = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut all).await;
        all
    }

    #[tokio::test]
    async fn who_sends_no_head_is_let_go_and_makes_room() {
        let address = start(false).await;
        let mut silent = Vec::new();
        for part in [&b""[..], b"GET /small HTTP/1.1\r\nhost", HTTP2] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(part).await.unwrap();
            silent.push(stream);
        }
        // There is no place left: this one is served once the others are gone.
        let mut fourth = TcpStream::connect(address).await.unwrap();
        fourth
            .write_all(b"GET /small HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let answer = read_all(&mut fourth).await;
        assert!(answer.ends_with(b"small"), "{answer:?}");
        for mut stream in silent {
            let told = read_all(&mut stream).await;
            // In HTTP/2 one begins with settings and is told when it is over.
            assert!(told.is_empty() || told.starts_with(b"\0\0"), "{told:?}");
        }
    }

    /// Reads nothing for much longer than patience lasts, then everything.
    async fn late(address: SocketAddr) -> usize {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(ASK).await.unwrap();
        let start = Instant::now();
        while start.elapsed() < 6 * SHORT.answer {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        read_all(&mut stream).await.len()
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut_off_unless_that_is_its_way() {
        assert!(late(start(false).await).await < 32 << 20);
        assert!(late(start(true).await).await > 32 << 20);
    }
}
