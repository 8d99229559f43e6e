//! Where connections become exchanges: our own types between Pingora's listener and its proxy.
//!
//! Each client connection is wrapped in [`Watched`] before Pingora reads from it. HTTP/2 streams share a connection, so each is raced
//! against an alarm of its own: when that rings, the exchange is dropped and its stream reset.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::listening::Service;
use pingora_proxy::{HttpProxy, http_proxy};

use super::Proxy;
use super::alarm::Alarm;
use super::conduct::Conduct;
use super::connection::Watched;
use super::doorway::Doorway;
use super::secure::{Secure, SecureListener};
use super::waiting::{self, Closing, Waiting};
use crate::tls::Handshake;

tokio::task_local! {
    /// The HTTP/2 stream this task serves.
    static STREAM: Streamed;
}

/// What is known of an HTTP/2 stream beside its request.
#[derive(Clone)]
pub(super) struct Streamed {
    pub(super) alarm: Arc<Alarm>,
    /// The handshake of its connection.
    pub(super) handshake: Option<Arc<Handshake>>,
}

/// The HTTP/2 stream that is being served, for phase 1.
pub(super) fn stream() -> Option<Streamed> {
    STREAM.try_with(Streamed::clone).ok()
}

/// Wraps client connections and hands them on.
pub struct Connections {
    doorway: Doorway,
    proxy: Arc<HttpProxy<Proxy>>,
    /// The same for what has left Pingora.
    own: Proxy,
    closing: Closing,
    http2: bool,
    /// Those that speak TLS; without any, all is plain.
    secure: Option<Secure>,
    header_timeout: Duration,
}

/// Pingora's proxy for one HTTP/2 connection, with its streams watched.
struct Front {
    proxy: Arc<HttpProxy<Proxy>>,
    /// How the client behaves.
    conduct: Arc<Conduct>,
    /// If it speaks TLS.
    handshake: Option<Arc<Handshake>>,
}

/// What is spoken on some listeners.
pub enum Spoken {
    /// HTTP in the clear.
    Plain {
        /// Whether HTTP/2 may be spoken, too.
        http2: bool,
    },
    /// TLS; which versions of HTTP are offered is said by each.
    Tls(Vec<SecureListener>),
}

/// The service that accepts clients and serves them. `announced`: where its listeners are bound at which a proxy says whose a connection is.
pub fn serve(
    conf: &Arc<ServerConf>,
    proxy: Proxy,
    spoken: Spoken,
    announced: Vec<SocketAddr>,
    header_timeout: Duration,
) -> Service<Connections> {
    let doorway = Doorway {
        places: proxy.places.clone(),
        announced,
        control: proxy.control.clone(),
        patience: header_timeout,
        plain: matches!(spoken, Spoken::Plain { .. }),
    };
    let (http2, secure) = match spoken {
        Spoken::Plain { http2 } => (http2, None),
        Spoken::Tls(listeners) => (false, Some(Secure::new(&proxy, listeners, header_timeout))),
    };
    let own = proxy.clone();
    let mut proxy = http_proxy(conf, proxy);
    let mut options = HttpServerOptions::default();
    options.h2c = http2;
    options.h2_idle_timeout = Some(Duration::from_secs(300));
    proxy.server_options = Some(options);
    let mut h2 = H2Options::new();
    h2.max_concurrent_streams(256);
    h2.max_header_list_size(64 * 1024);
    proxy.h2_options = Some(h2);
    Service::new(
        "clients".into(),
        Connections {
            doorway,
            proxy: Arc::new(proxy),
            own,
            closing: Closing::default(),
            http2,
            secure,
            header_timeout,
        },
    )
}

#[async_trait]
impl ServerApp for Connections {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        // A task of its own: Pingora's has room for all that its listeners can do, and would keep it as long as the connection lives.
        tokio::spawn(self.clone().receive(stream, shutdown.clone()));
        None
    }

    /// Nothing yet: Pingora would cut connections whose request is on its way. They end by [`Waiting::close`].
    async fn cleanup(&self) {}
}

impl Connections {
    /// Serves a connection to its end; the option means nothing.
    async fn receive(self: Arc<Self>, stream: Stream, shutdown: ShutdownWatch) -> Option<()> {
        // Held until the connection ends.
        let (stream, _place) = self.doorway.enter(stream).await?;
        let (stream, handshake) = match &self.secure {
            None => (stream, None),
            // Boxed, so that plain connections do not carry it about.
            Some(secure) => Box::pin(secure.accept(stream)).await?,
        };
        let mut watched = Box::new(Watched::new(stream, self.header_timeout, handshake.clone()));
        let mut closed = pin!(self.closing.closed());
        if !waiting::begins(&mut watched, closed.as_mut()).await {
            return None;
        }
        let h2 = watched.speaks_h2(self.http2).await.ok()?;
        if !h2 {
            waiting::serve((&self.proxy, &self.own), closed, watched, &shutdown).await;
            return None;
        }
        let front = Arc::new(Front {
            proxy: self.proxy.clone(),
            conduct: Conduct::new(watched.alarm().clone()),
            handshake,
        });
        ServerApp::process_new(&front, watched, &shutdown)
            .await
            .map(drop)
    }

    /// Those that wait for a request.
    pub fn waiting(&self) -> Waiting {
        Waiting::new(self.closing.clone(), self.proxy.clone())
    }
}

#[async_trait]
impl HttpServerApp for Front {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let alarm = Alarm::of_stream(Some(self.conduct.clone()));
        let stream = Streamed {
            alarm: alarm.clone(),
            handshake: self.handshake.clone(),
        };
        let exchange = STREAM.scope(stream, self.proxy.process_new_http(session, shutdown));
        tokio::select! {
            reused = exchange => reused,
            () = alarm.rung() => None,
        }
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.proxy.server_options()
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }
}
