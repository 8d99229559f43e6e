//! Small servers that can be told how to behave.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::task::JoinHandle;

/// What it answers: a status; 0: nothing at all.
#[derive(Clone, Default)]
pub(super) struct Manner {
    pub(super) status: Arc<AtomicU16>,
    pub(super) asked: Arc<AtomicUsize>,
    pub(super) last: Arc<Mutex<String>>,
}

impl Manner {
    pub(super) fn of(status: u16) -> Manner {
        let manner = Manner::default();
        manner.set(status);
        manner
    }

    pub(super) fn set(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    async fn serve_http(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !is_whole(&request) {
            match stream.read(&mut buffer).await {
                Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
                _ => return,
            }
        }
        *self.last.lock().unwrap() = String::from_utf8_lossy(&request).into_owned();
        self.asked.fetch_add(1, Ordering::SeqCst);
        let status = self.status.load(Ordering::SeqCst);
        if status == 0 {
            return std::future::pending().await;
        }
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\nok");
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.read(&mut buffer).await;
    }

    /// HTTP/2: gRPC health if the status is below 100 (the serving status), else plain answers.
    async fn serve_h2(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Ok(mut connection) = h2::server::handshake(stream).await else {
            return;
        };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            *self.last.lock().unwrap() = format!("{} {}", request.method(), request.uri());
            self.asked.fetch_add(1, Ordering::SeqCst);
            let status = self.status.load(Ordering::SeqCst);
            if status >= 100 {
                let head = http::Response::builder().status(status).body(()).unwrap();
                let _ = respond.send_response(head, true);
                continue;
            }
            let head = http::Response::builder()
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, status as u8]);
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            if let Ok(mut body) = respond.send_response(head, false) {
                let _ = body.send_data(message, false);
                let _ = body.send_trailers(trailers);
            }
        }
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    body.len() >= length.unwrap_or(0)
}

/// What is spoken.
#[derive(Clone)]
pub(super) enum Tongue {
    Http,
    H2c,
    Tls(tokio_rustls::TlsAcceptor),
}

/// Stops when dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(manner: Manner, tongue: Tongue) -> Server {
        Server::start_at("127.0.0.1:0".parse().unwrap(), manner, tongue)
    }

    pub(super) fn start_at(address: SocketAddr, manner: Manner, tongue: Tongue) -> Server {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(64).unwrap();
        Server {
            address: listener.local_addr().unwrap(),
            task: tokio::spawn(accept(listener, manner, tongue)),
        }
    }

    /// Closes the listener and every connection.
    pub(super) async fn stop(mut self) -> SocketAddr {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, manner: Manner, tongue: Tongue) {
    let mut open = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (manner, tongue) = (manner.clone(), tongue.clone());
        open.spawn(async move {
            match tongue {
                Tongue::Http => manner.serve_http(stream).await,
                Tongue::H2c => manner.serve_h2(stream).await,
                Tongue::Tls(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        manner.serve_http(stream).await;
                    }
                }
            }
        });
    }
}

/// HTTP on a unix socket, for as long as the handle lives.
pub(super) fn on_a_path(path: &Path, manner: Manner) -> tokio::task::JoinSet<()> {
    let listener = UnixListener::bind(PathBuf::from(path)).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let manner = manner.clone();
            tokio::spawn(async move { manner.serve_http(stream).await });
        }
    });
    tasks
}

/// A certificate that nobody trusts.
pub(super) fn untrusted() -> tokio_rustls::TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(vec!["engine.internal".to_owned()]).unwrap();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![made.cert.der().clone()], key)
    .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}
