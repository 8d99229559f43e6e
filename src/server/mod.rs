//! Putting the process together: listeners, the proxy, the admin listener, signals, draining.
//!
//! The only place that starts threads. Everything with a loop of its own runs in one background service.

mod admin_socket;
mod clients;
mod housekeeping;
mod pid_file;
mod signals;
mod sockets;
mod upgrade;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pingora_core::listeners::ListenerConfig;
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server, ShutdownSignalWatch};
use pingora_core::services::background::background_service;
use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::admin_socket::AdminSocket;
use self::clients::Clients;
use self::housekeeping::{Beginning, Housekeeping, Once};
use self::signals::Signals;
use self::sockets::Sockets;
use self::upgrade::{Old, Predecessor, Program, door};
use crate::admin::Tokens;
use crate::calls::Calls;
use crate::control::{self, Control};
use crate::model::{AccessLog as Destination, Config, Listener, StateStore};
use crate::proxy::{self, Connections, Most, Proxy, SecureListener, Spoken};
use crate::scale::Scaling;
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
    /// A listener's certificate cannot be read any more; why was logged.
    #[error("listener {0} has no certificate to show; the log says why")]
    Certificate(String),
    /// The access log cannot be opened.
    #[error("cannot open the access log: {0}")]
    AccessLog(std::io::Error),
    /// What is kept cannot be read.
    #[error("cannot use server.state: {0}")]
    Store(StoreError),
    /// `server.upgrade_socket` cannot be listened on.
    #[error("cannot listen at server.upgrade_socket: {0}")]
    Door(std::io::Error),
    /// The process that was to be taken over from is not there, or did not give way.
    #[error("cannot take over: {0}")]
    Upgrade(String),
    /// No runtime could be started.
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
}

/// What ends a run, and what happens when everything has drained.
pub struct Ending {
    /// Says when to stop, and how; `None`: Unix signals do.
    pub signal: Option<Box<dyn ShutdownSignalWatch>>,
    /// Called once after a graceful stop, when the last exchange has ended before `grace` was over.
    pub drained: Option<fn()>,
}

impl Ending {
    /// Unix signals end the process: SIGTERM drains, SIGINT stops at once, SIGQUIT hands over to a new one.
    pub fn by_signals() -> Ending {
        // Pingora would sleep for the whole of `grace`; who has nothing left to do leaves.
        Ending {
            signal: None,
            drained: Some(|| std::process::exit(0)),
        }
    }
}

/// How a run begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start<'a> {
    /// Where the configuration was read from, if it is to be read again.
    pub file: Option<&'a Path>,
    /// Whether to take over from the process that listens at `server.upgrade_socket`.
    pub take_over: bool,
}

/// Serves until told to stop.
pub fn run(config: &Config, start: Start<'_>, ending: Ending) -> Result<(), StartError> {
    // Asked early: later the file may have been replaced.
    let program = start.file.map(|_| Program::this()).transpose();
    let program = program.map_err(StartError::Runtime)?;
    install_tls_provider();
    outlive_file_limits();
    let files = raise_open_files();
    let mut predecessor = find_predecessor(config, start)?;
    let sockets = Sockets::open(config, &mut predecessor)?;
    let admin_socket = AdminSocket::of(&config.admin);
    if predecessor.is_none() {
        admin_socket.open()?;
    }
    let metrics = Arc::new(Metrics::new());
    metrics
        .started
        .set(jiff::Timestamp::now().as_second() as f64);
    let store = open_store(config)?;
    if let Some(predecessor) = &mut predecessor {
        let (revision, resources) = predecessor.resources();
        control::inherit(&*store, revision, resources).map_err(StartError::Store)?;
    }
    let (access, writer) = AccessLog::open(&destination(config), metrics.access_dropped.clone())
        .map_err(StartError::AccessLog)?;
    let control = Arc::new(start_control(config, start.file, &metrics, store)?);
    for listener in &config.listeners {
        let identity = control.listener_identity(listener);
        if identity.is_some_and(|identity| identity.leaf().is_none()) {
            return Err(StartError::Certificate(listener.name.to_string()));
        }
    }
    let body_memory = config.server.body_memory.bytes();
    let most = most(config, files);
    let proxy = Proxy::new(control.clone(), access, body_memory, most, threads(config));
    let first = predecessor.is_none();
    if let Some(predecessor) = &mut predecessor {
        predecessor.take_over(&control)?;
    }
    let shutdown_signal = match ending.signal {
        Some(signal) => signal,
        None => {
            let copies = sockets.copies().map_err(StartError::Runtime)?;
            let grace = config.server.grace;
            let old = Old::new(control.clone(), copies, proxy.open(), grace, program);
            Box::new(Signals::new(Arc::new(old), open_door(config, first)?))
        }
    };
    let writing = writer.map(|writer| std::thread::spawn(move || writer.run()));
    let scaling = Arc::new(Scaling::new(control.clone()));
    let server = server(
        config,
        sockets,
        proxy,
        predecessor,
        &scaling,
        admin_socket.clone(),
        ending.drained,
    );
    for listener in &config.listeners {
        let how = if listener.tls.is_some() {
            " with TLS"
        } else {
            ""
        };
        log::info!("listening on {}{how}", listener.address);
    }
    server.run(RunArgs { shutdown_signal });
    drop(writing);
    scaling.end();
    control.close_books();
    admin_socket.remove();
    if let Some(path) = &config.server.pid_file {
        pid_file::remove(&path.0);
    }
    Ok(())
}

/// Pingora's server with all that runs in it.
fn server(
    config: &Config,
    sockets: Sockets,
    proxy: Proxy,
    predecessor: Option<Predecessor>,
    scaling: &Arc<Scaling>,
    admin_socket: AdminSocket,
    drained: Option<fn()>,
) -> Server {
    let control = scaling.control();
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    let phases = server.watch_execution_phase();
    server.bootstrap();
    let (accepting, accepted) = watch::channel(0);
    let Sockets { listeners, admin } = sockets;
    let mut waiting = Vec::new();
    let listeners = config.listeners.iter().zip(listeners);
    let (secure, plain): (Vec<_>, Vec<_>) = listeners.partition(|(l, _)| l.tls.is_some());
    let (any, http1): (Vec<_>, Vec<_>) = plain.into_iter().partition(|(l, _)| l.http2);
    for (spoken, listeners) in [
        (Spoken::Plain { http2: true }, any),
        (Spoken::Plain { http2: false }, http1),
        (Spoken::Tls(secured(&secure, control)), secure),
    ] {
        if listeners.is_empty() {
            continue;
        }
        let header_timeout = config.server.header_timeout;
        let conf = &server.configuration;
        let announced = { listeners.iter() }.filter(|(listener, _)| listener.proxy_protocol);
        let announced = announced.map(|(_, bound)| bound_at(bound)).collect();
        let mut service = proxy::serve(conf, proxy.clone(), spoken, announced, header_timeout);
        for (listener, _) in &listeners {
            service.add_listener(unbuffered(listener.address));
        }
        waiting.extend(service.app_logic().map(Connections::waiting));
        let sockets = listeners.into_iter().map(|(_, socket)| socket).collect();
        server.add_service(Clients::new(service, sockets, accepting.clone()));
    }
    let housekeeping = Housekeeping {
        control: control.clone(),
        scaling: scaling.clone(),
        services: waiting.len(),
        accepting: accepted,
        admin_socket,
        tokens: Tokens {
            admin: config.admin.token.clone(),
            scaler: config.admin.scaler_token.clone(),
        },
        pid_file: config.server.pid_file.clone().map(|path| path.0),
        open: proxy.open(),
        waiting,
        drained,
        once: Once::new(Beginning {
            phases,
            admin: admin.1,
            predecessor,
        }),
    };
    server.add_service(background_service("housekeeping", housekeeping));
    server
}

/// Where a socket is bound. A port that was left to the system is known by now.
fn bound_at((address, socket): &(SocketAddr, TcpListener)) -> SocketAddr {
    socket.local_addr().unwrap_or(*address)
}

/// What is spoken on listeners that speak TLS.
fn secured(
    listeners: &[(&Listener, (SocketAddr, TcpListener))],
    control: &Control,
) -> Vec<SecureListener> {
    let secured = listeners.iter().map(|(listener, bound)| SecureListener {
        address: bound_at(bound),
        http2: listener.http2,
        identity: control.listener_identity(listener),
    });
    secured.collect()
}

fn find_predecessor(config: &Config, start: Start<'_>) -> Result<Option<Predecessor>, StartError> {
    let socket = config.server.upgrade_socket.as_ref();
    match (start.take_over, socket) {
        (true, None) => Err(StartError::Upgrade(
            "server.upgrade_socket says where to find the process, and is not set".to_owned(),
        )),
        (true, Some(path)) => Predecessor::find(Some(&path.0)),
        (false, _) => Predecessor::find(None),
    }
}

fn open_door(config: &Config, first: bool) -> Result<Option<UnixListener>, StartError> {
    let path = config.server.upgrade_socket.as_ref();
    let door = path.map(|path| door::open(&path.0, first));
    door.transpose().map_err(StartError::Door)
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

/// A connection of a client may need another to an upstream.
fn most(config: &Config, files: usize) -> Most {
    Most {
        all: match config.server.max_connections {
            0 => files / 2,
            most => most,
        },
        from_one: config.server.max_connections_per_address,
    }
}

/// As many open files as the system allows: each connection is one, and what a shell allows by default is soon used up. Returns how many may be open.
fn raise_open_files() -> usize {
    const ENOUGH: u64 = 1 << 20;
    let mut limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if limit.current.is_some_and(|current| current < allowed) {
        limit.current = Some(allowed);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            log::warn!("the limit of open files cannot be raised: {error}");
        }
    }
    let current = getrlimit(Resource::Nofile).current;
    match current {
        Some(few) if few < 8192 => log::warn!(
            "{few} open files are allowed, so that few connections can be open at once: raise the limit (LimitNOFILE=, ulimit -Hn)"
        ),
        Some(current) => log::info!("{current} open files are allowed"),
        None => {}
    }
    { current }
        .and_then(|current| usize::try_from(current).ok())
        .unwrap_or(usize::MAX)
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

/// How many threads serve requests.
fn threads(config: &Config) -> usize {
    match config.server.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    }
}

fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: threads(config),
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
