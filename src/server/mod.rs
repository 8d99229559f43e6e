//! Putting the process together: listeners, the proxy, the admin listener, signals, draining.
//!
//! The only place that starts threads. Everything with a loop of its own runs in one background service.

mod housekeeping;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pingora_core::listeners::ListenerConfig;
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server, ShutdownSignalWatch, UnixShutdownSignalWatch};
use pingora_core::services::background::background_service;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use self::housekeeping::Housekeeping;
use crate::admin::Socket;
use crate::calls::Calls;
use crate::control::Control;
use crate::model::{AccessLog as Destination, Config, SocketPath, StateStore};
use crate::proxy::{self, Proxy};
use crate::store::{self, Store, StoreError};
use crate::telemetry::{AccessLog, Metrics, access};

pub use pingora_core::server::ShutdownSignal;

/// Why the process could not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listener's address is taken, not ours, or not allowed.
    #[error("cannot listen on {address} ({what}): {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Whose it is: `listener NAME` or `admin`.
        what: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The admin API's unix socket cannot be had.
    #[error("cannot use admin.socket {}: {error}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What is in the way.
        error: std::io::Error,
    },
    /// The access log cannot be opened.
    #[error("cannot open the access log: {0}")]
    AccessLog(std::io::Error),
    /// What is kept cannot be read.
    #[error("cannot use server.state: {0}")]
    Store(StoreError),
    /// No runtime could be started.
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
}

/// What ends a run, and what happens when everything has drained.
pub struct Ending {
    /// Says when to stop, and how.
    pub signal: Box<dyn ShutdownSignalWatch>,
    /// Called once after a graceful stop, when the last exchange has ended before `grace` was over.
    pub drained: Option<fn()>,
}

impl Ending {
    /// Unix signals end the process: SIGTERM drains, SIGINT stops at once.
    pub fn by_signals() -> Ending {
        // Pingora would sleep for the whole of `grace`; who has nothing left to do leaves.
        Ending {
            signal: Box::new(UnixShutdownSignalWatch),
            drained: Some(|| std::process::exit(0)),
        }
    }
}

/// Serves until told to stop. `file` is where the configuration was read from, if it is to be read again.
pub fn run(config: &Config, file: Option<&Path>, ending: Ending) -> Result<(), StartError> {
    install_tls_provider();
    outlive_file_limits();
    check_addresses(config)?;
    let socket = open_socket(config)?;
    let metrics = Arc::new(Metrics::new());
    metrics
        .started
        .set(jiff::Timestamp::now().as_second() as f64);
    let store = open_store(config)?;
    let (access, writer) = AccessLog::open(&destination(config), metrics.access_dropped.clone())
        .map_err(StartError::AccessLog)?;
    let control = Arc::new(start_control(config, file, &metrics, store)?);
    let threads = match config.server.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    };
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config, threads));
    let phases = server.watch_execution_phase();
    server.bootstrap();
    let proxy = Proxy::new(
        control.clone(),
        access,
        config.server.body_memory.bytes(),
        threads,
    );
    let books = control.clone();
    let housekeeping = Housekeeping::new(
        control,
        config,
        socket.clone(),
        phases,
        proxy.open(),
        ending.drained,
    );
    server.add_service(background_service("housekeeping", housekeeping));
    for http2 in [true, false] {
        let mut service = proxy::serve(
            &server.configuration,
            proxy.clone(),
            http2,
            config.server.header_timeout,
        );
        let addresses = config
            .listeners
            .iter()
            .filter(|l| l.http2 == http2)
            .map(|l| l.address);
        let mut any = false;
        for address in addresses {
            service.add_listener(unbuffered(address));
            any = true;
        }
        if any {
            server.add_service(service);
        }
    }
    let writing = writer.map(|writer| std::thread::spawn(move || writer.run()));
    drop(proxy);
    for listener in &config.listeners {
        log::info!("listening on {}", listener.address);
    }
    server.run(RunArgs {
        shutdown_signal: ending.signal,
    });
    drop(writing);
    books.close_books();
    if let Some(socket) = socket {
        socket.remove();
    }
    Ok(())
}

/// Pingora would give every client's connection 64 KiB to read through, also while it waits for its next request. Heads and bodies are read into
/// buffers of their own, which are large enough for few reads.
fn unbuffered(address: SocketAddr) -> ListenerConfig {
    ListenerConfig::tcp(address.to_string()).l4_buffer(L4BufferSettings::default().read(0))
}

fn install_tls_provider() {
    // A second install in one process changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A file that may grow no further (`ulimit -f`) is a write that fails, which is told of. By default it would be the process's end.
fn outlive_file_limits() {
    const SIGXFSZ: i32 = 25;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let handled = runtime.and_then(|runtime| {
        let _inside = runtime.enter();
        // The handler stays for as long as the process; nobody needs to listen.
        signal(SignalKind::from_raw(SIGXFSZ)).map(drop)
    });
    if let Err(error) = handled {
        log::warn!("a limit on the size of files would end the process: {error}");
    }
}

/// Pingora panics on an address it cannot bind; a clear error comes first.
fn check_addresses(config: &Config) -> Result<(), StartError> {
    let listeners = config
        .listeners
        .iter()
        .map(|l| (l.address, format!("listener {}", l.name)));
    let admin = (config.admin.address, "admin".to_owned());
    for (address, what) in listeners.chain([admin]) {
        TcpListener::bind(address).map_err(|error| StartError::Listen {
            address,
            what,
            error,
        })?;
    }
    Ok(())
}

fn open_socket(config: &Config) -> Result<Option<Arc<Socket>>, StartError> {
    let Some(SocketPath(path)) = &config.admin.socket else {
        return Ok(None);
    };
    match Socket::bind(path) {
        Ok(socket) => Ok(Some(Arc::new(socket))),
        Err(error) => Err(StartError::Socket {
            path: path.clone(),
            error,
        }),
    }
}

fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    let server = &config.server;
    match &server.state {
        StateStore::Memory => Ok(Arc::new(store::Memory::default())),
        StateStore::File(path) => {
            let options = store::Options {
                keep_records: server.keep_usage,
                keep_rollups: server.keep_usage_by_hour,
                ..store::Options::default()
            };
            let opened = store::Sqlite::open(path, options);
            Ok(Arc::new(opened.map_err(StartError::Store)?))
        }
    }
}

fn start_control(
    config: &Config,
    file: Option<&Path>,
    metrics: &Arc<Metrics>,
    store: Arc<dyn Store>,
) -> Result<Control, StartError> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let http = Arc::new(Calls::new());
    let started = Control::start(
        config,
        metrics.clone(),
        store,
        http,
        file.map(Path::to_path_buf),
        PATIENCE,
    );
    let control = runtime.block_on(started);
    // A look-up that still hangs must not hold up the start.
    runtime.shutdown_background();
    control.map_err(StartError::Store)
}

fn server_conf(config: &Config, threads: usize) -> ServerConf {
    ServerConf {
        threads,
        grace_period_seconds: Some(config.server.grace.as_secs()),
        graceful_shutdown_timeout_seconds: Some(1),
        upstream_keepalive_pool_size: 512,
        ..ServerConf::default()
    }
}

fn destination(config: &Config) -> access::Destination {
    match &config.log.access {
        Destination::Off => access::Destination::Off,
        Destination::Stdout => access::Destination::Stdout,
        Destination::Path(path) => access::Destination::File(path.clone()),
    }
}
