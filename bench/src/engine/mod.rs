//! A simulated inference engine: to a client it is a vLLM that serves OpenAI's API.
//!
//! It produces words instead of thoughts, but it queues, caches prefixes, streams, reports metrics
//! and notices departed clients like the real thing, and misbehaves on demand. It runs on
//! threads of its own inside any process: tests and the demo start as many as they need.
//!
//! A request's way: `worker` accepts → `http1` or `http2` reads it → `exchange`, `prefill` and `generate` serve it, by `call`
//! (what is asked), `cache`, `pace` and `counters` (what it costs), `reply` or `stream` (what is said). Faults
//! come from `plan` and from the request itself. Nothing here knows the gateway.

mod cache;
mod call;
mod chunked;
mod clock;
mod config;
mod control;
mod counters;
mod exchange;
mod faults;
mod fetch;
mod generate;
mod handover;
mod head;
mod http1;
mod http2;
mod io;
mod metrics;
mod pace;
mod peer;
mod plan;
mod prefill;
mod reply;
mod share;
mod shared;
mod stream;
mod text;
mod transfer;
mod worker;

#[cfg(test)]
mod tests;

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub use cache::TOKEN_BYTES;
pub use config::{EngineConfig, TlsIdentity, parse_duration, parse_size};
pub use faults::{After, Cut, Faults, Midway, RetryAfter};
pub use plan::FaultStep;
pub use shared::{EngineState, RecordedRequest};
pub use transfer::{EngineRole, TransferConfig, TransferProtocol, TransferState};

use shared::{Shared, lock};

/// A running engine. Dropping it is its sudden death.
#[derive(Debug)]
pub struct Engine {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Mutex<Option<watch::Sender<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Engine {
    /// Binds and starts serving on threads of its own. When this returns, connections are accepted.
    pub fn start(config: EngineConfig) -> Result<Self> {
        let tls = config.tls.as_ref().map(acceptor).transpose()?;
        let shared = Arc::new(Shared::new(pace::compressed(config)?));
        let (stop, stopped) = watch::channel(());
        let mut threads = Vec::new();
        let address = worker::start(&shared, tls, &stopped, &mut threads)?;
        // Nobody can have asked before: its address is not known yet.
        let _ = shared.address.set(address);
        let (stop, threads) = (Mutex::new(Some(stop)), Mutex::new(threads));
        Ok(Self {
            address,
            shared,
            stop,
            threads,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:1234`, or `https`.
    pub fn url(&self) -> String {
        let scheme = if self.shared.config.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// Its counts at this moment.
    pub fn state(&self) -> EngineState {
        self.shared.state()
    }

    /// Replaces the faults that wait for coming requests.
    pub fn set_faults(&self, steps: impl IntoIterator<Item = FaultStep>) {
        self.shared.plan.replace(
            steps
                .into_iter()
                .filter(|step| step.count != Some(0))
                .collect(),
        );
    }

    /// Removes them: all goes well again.
    pub fn clear_faults(&self) {
        self.shared.plan.replace(Vec::new());
    }

    /// The last requests, oldest first, as many as `EngineConfig::record` or `set_record` keep.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.requests()
    }

    /// Keeps the last `keep` requests from now on; 0 stops recording.
    pub fn set_record(&self, keep: usize) {
        self.shared.set_record(keep);
    }

    /// Clears counts, faults, recorded requests and the idle part of the cache.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// The page `/metrics` would show.
    pub fn metrics(&self) -> String {
        metrics::render(&self.shared)
    }

    /// Closes the listener and every connection at once, as if the process had died. Another engine
    /// can then start on the same address.
    pub fn stop(&self) {
        drop(lock(&self.stop).take());
        for thread in lock(&self.threads).drain(..) {
            // A worker that panicked has closed its sockets too.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn acceptor(identity: &TlsIdentity) -> Result<TlsAcceptor> {
    let invalid = |what: String| Error::new(ErrorKind::InvalidInput, what);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&identity.certificate)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| invalid(format!("certificate: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(&identity.key)
        .map_err(|error| invalid(format!("private key: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| invalid(error.to_string()))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}
