//! Calls of our own to other servers: identity services, key sets, whatever plugins ask.
//!
//! One client for the process, HTTP/1.1 with or without TLS, over connections that are kept for a few seconds. Invariant: whatever a
//! server does, a call ends within its patience, holds no more than it was allowed, and is an answer or a [`CallError`].
//!
//! A kept connection lives in the runtime that made it. When that runtime is gone, or the server closed the connection, a request of
//! which nothing was sent goes once more over a new connection; one that may have been seen fails as [`CallError::Broken`].

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::Scheme;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use tollgate_sdk::plugin::{CallError, Called, Http};

/// How long a connection waits for its next call.
const IDLE: Duration = Duration::from_secs(4);

/// Bytes of an answer's head.
const LARGEST_HEAD: usize = 64 << 10;

/// The client. Cheap to clone; clones share their connections.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    client: Arc<OnceLock<Option<PooledClient>>>,
}

type PooledClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

impl Calls {
    /// A client that trusts the certificate authorities of the system. They are read with the first call.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client that trusts these authorities (PEM) and nobody else.
    ///
    /// # Errors
    /// A sentence.
    pub fn trusting(authorities: &[u8]) -> Result<Self, &'static str> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities) {
            let added = authority.ok().and_then(|found| roots.add(found).ok());
            added.ok_or("it holds something that is no authority's certificate")?;
        }
        if roots.is_empty() {
            return Err("there is no certificate in it");
        }
        let builder = builder().ok_or("TLS cannot be set up")?;
        let tls = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Self {
            client: Arc::new(OnceLock::from(Some(client(tls)))),
        })
    }

    /// The client; missing only if TLS itself cannot be set up.
    fn client(&self) -> Option<PooledClient> {
        let make = || tls().map(client);
        self.client.get_or_init(make).clone()
    }
}

/// A client with these rules for TLS.
fn client(tls: ClientConfig) -> PooledClient {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .http1_max_buf_size(LARGEST_HEAD)
        .build(connector)
}

impl Http for Calls {
    fn call(&self, mut request: Request<Bytes>, patience: Duration, most: usize) -> Called {
        let scheme = request.uri().scheme();
        let ours = scheme == Some(&Scheme::HTTP) || scheme == Some(&Scheme::HTTPS);
        let ours = ours && request.method() != Method::CONNECT;
        let Some(client) = ours.then(|| self.client()).flatten() else {
            return Box::pin(async { Err(CallError::Broken) });
        };
        *request.version_mut() = Version::HTTP_11;
        Box::pin(async move {
            let exchange = async {
                let answer = client.request(request.map(Full::new)).await;
                let answer = answer.map_err(|error| match error.is_connect() {
                    true => CallError::Connect,
                    false => CallError::Broken,
                })?;
                whole(answer, most).await
            };
            let done = tokio::time::timeout(patience, exchange).await;
            done.unwrap_or(Err(CallError::Timeout))
        })
    }
}

/// Reads the body, unless it is or turns out larger than `most`.
async fn whole(
    answer: Response<hyper::body::Incoming>,
    most: usize,
) -> Result<Response<Bytes>, CallError> {
    let (head, mut body) = answer.into_parts();
    let told = hyper::body::Body::size_hint(&body).lower();
    if told > u64::try_from(most).unwrap_or(u64::MAX) {
        return Err(CallError::TooLarge);
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| CallError::Broken)?;
        // Trailers are nobody's concern.
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if piece.len() > most.saturating_sub(read.len()) {
            return Err(CallError::TooLarge);
        }
        read.extend_from_slice(&piece);
    }
    Ok(Response::from_parts(head, read.freeze()))
}

fn builder() -> Option<ConfigBuilder<ClientConfig, WantsVerifier>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().ok()
}

/// TLS that trusts whom the system trusts. With nobody to trust, every call over TLS fails as [`CallError::Connect`].
fn tls() -> Option<ClientConfig> {
    let trusting = builder()?.with_native_roots().or_else(|error| {
        log::warn!(
            "calls over https will fail: there is no certificate authority to trust: {error}"
        );
        let nobody =
            builder().map(|builder| builder.with_root_certificates(RootCertStore::empty()));
        nobody.ok_or(())
    });
    Some(trusting.ok()?.with_no_client_auth())
}
