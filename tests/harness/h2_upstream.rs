//! An HTTP/2 upstream (prior knowledge) with a few ways to behave.

use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::{Issued, runtime};

/// What it does with every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum H2Behaviour {
    /// Sends its head at once and every part of the body back as it comes, then trailers.
    Echo,
    /// Never answers.
    Stall,
    /// Sends a head and one event, then nothing.
    StallMidway,
    /// Sends a head and one event, then resets the stream.
    ResetMidway,
}

/// It runs until dropped.
pub(crate) struct H2Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    accepting: tokio::task::AbortHandle,
}

#[derive(Default)]
struct Seen {
    heads: Vec<Request<()>>,
    resets: Vec<Instant>,
}

impl H2Upstream {
    pub(crate) fn start(behaviour: H2Behaviour) -> H2Upstream {
        Self::listen(behaviour, None)
    }

    /// Over TLS, with this certificate.
    pub(crate) fn secure(behaviour: H2Behaviour, shown: &Issued) -> H2Upstream {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_no_client_auth();
        let config = builder.with_single_cert(vec![shown.der()], shown.private());
        let mut config = config.unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::listen(behaviour, Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn listen(behaviour: H2Behaviour, secure: Option<TlsAcceptor>) -> H2Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let theirs = seen.clone();
        let _inside = runtime().enter();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let task = runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = theirs.clone();
                stream.set_nodelay(true).unwrap();
                let secure = secure.clone();
                tokio::spawn(async move {
                    match secure {
                        None => connection(stream, behaviour, seen).await,
                        Some(secure) => {
                            // Who does not like the certificate leaves.
                            if let Ok(stream) = secure.accept(stream).await {
                                connection(stream, behaviour, seen).await;
                            }
                        }
                    }
                });
            }
        });
        H2Upstream {
            address,
            seen,
            accepting: task.abort_handle(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }

    /// Its URL where it speaks TLS, at `host`, which leads to this machine.
    pub(crate) fn secure_url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }

    pub(crate) fn heads(&self) -> Vec<Request<()>> {
        let seen = self.seen.lock().unwrap();
        let copy = |head: &Request<()>| {
            let mut request = Request::new(());
            *request.method_mut() = head.method().clone();
            *request.uri_mut() = head.uri().clone();
            *request.headers_mut() = head.headers().clone();
            request
        };
        seen.heads.iter().map(copy).collect()
    }

    /// When streams were reset by the other side.
    pub(crate) fn resets(&self) -> Vec<Instant> {
        self.seen.lock().unwrap().resets.clone()
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    behaviour: H2Behaviour,
    seen: Arc<Mutex<Seen>>,
) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(exchange(request, respond, behaviour, seen.clone()));
    }
}

async fn exchange(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    behaviour: H2Behaviour,
    seen: Arc<Mutex<Seen>>,
) {
    let (parts, mut body) = request.into_parts();
    seen.lock()
        .unwrap()
        .heads
        .push(Request::from_parts(parts, ()));
    if behaviour == H2Behaviour::Stall {
        let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
        seen.lock().unwrap().resets.push(Instant::now());
        return;
    }
    let mut head = Response::new(());
    let kind = match behaviour {
        H2Behaviour::Echo => "application/grpc",
        _ => "text/event-stream",
    };
    head.headers_mut()
        .insert("content-type", HeaderValue::from_static(kind));
    let Ok(mut send) = respond.send_response(head, false) else {
        return;
    };
    if behaviour != H2Behaviour::Echo {
        let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\"}}]}\n\n";
        let _ = send.send_data(event.into(), false);
        // The event must be on its way before the stream is reset.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if behaviour == H2Behaviour::ResetMidway {
            send.send_reset(Reason::INTERNAL_ERROR);
            return;
        }
        let _ = poll_fn(|cx| send.poll_reset(cx)).await;
        seen.lock().unwrap().resets.push(Instant::now());
        return;
    }
    while let Some(data) = body.data().await {
        let Ok(data) = data else {
            seen.lock().unwrap().resets.push(Instant::now());
            return;
        };
        let _ = body.flow_control().release_capacity(data.len());
        let _ = send.send_data(data, false);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("grpc-message", HeaderValue::from_static("done"));
    let _ = send.send_trailers(trailers);
}
