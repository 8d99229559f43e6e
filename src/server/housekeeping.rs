//! Everything with a loop of its own, in one background service: the admin listener, name resolution,
//! readiness, draining.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::server::{ExecutionPhase, ShutdownWatch};
use pingora_core::services::background::BackgroundService;
use tokio::net::TcpListener;
use tokio::sync::broadcast::Receiver;
use tokio::sync::{oneshot, watch};

use super::admin_socket::AdminSocket;
use super::pid_file;
use super::upgrade::Predecessor;
use crate::admin::{self, Tokens};
use crate::control::Control;
use crate::proxy::Waiting;
use crate::scale::Scaling;
use crate::telemetry::supervisor;

/// How long nothing must be open before connections that wait for a request are closed: as long as a client's next request may be on its way to a
/// process that stops.
const QUIET: Duration = Duration::from_millis(500);

/// What is looked after, and what with.
pub(super) struct Housekeeping {
    pub(super) control: Arc<Control>,
    pub(super) scaling: Arc<Scaling>,
    /// How many services of [`accepting`](Self::accepting) there are.
    pub(super) services: usize,
    /// Counts those that accept.
    pub(super) accepting: watch::Receiver<usize>,
    pub(super) admin_socket: AdminSocket,
    pub(super) tokens: Tokens,
    pub(super) pid_file: Option<PathBuf>,
    /// Exchanges that have not ended.
    pub(super) open: Arc<AtomicUsize>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) drained: Option<fn()>,
    pub(super) once: Once,
}

/// What is taken when the service starts.
#[derive(Default)]
pub(super) struct Once(Mutex<Option<Beginning>>);

pub(super) struct Beginning {
    pub(super) phases: Receiver<ExecutionPhase>,
    pub(super) admin: std::net::TcpListener,
    pub(super) predecessor: Option<Predecessor>,
}

impl Once {
    pub(super) fn new(beginning: Beginning) -> Once {
        Once(Mutex::new(Some(beginning)))
    }

    fn take(&self) -> Option<Beginning> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Housekeeping {
    /// Ready once every listener is accepted on.
    async fn become_ready(&self, predecessor: Option<Predecessor>, told: oneshot::Sender<()>) {
        let mut accepting = self.accepting.clone();
        // Its sender lives as long as the services.
        let _ = accepting.wait_for(|count| *count >= self.services).await;
        self.control.set_ready(true);
        // Who asks for it may have gone.
        let _ = told.send(());
        if let Some(path) = &self.pid_file
            && let Err(error) = pid_file::write(path)
        {
            log::error!("server.pid_file cannot be written: {error}");
        }
        let succeeds = predecessor.is_some();
        if let Some(predecessor) = predecessor
            && let Err(error) = predecessor.serving()
        {
            // It has seen that it is replaced, or is gone.
            log::warn!("the old process could not be told: {error}");
        }
        match succeeds {
            true => supervisor::took_over(),
            false => supervisor::ready(),
        }
        log::info!("ready");
        if succeeds {
            // The file may have changed since it was read, and the old one no longer looks.
            let _ = self.control.reload().await;
        }
    }

    /// `ready`: when a predecessor, which answers until then, is replaced.
    async fn serve_admin(
        &self,
        listener: std::net::TcpListener,
        ready: Option<oneshot::Receiver<()>>,
    ) {
        if let Some(ready) = ready {
            let _ = ready.await;
            if let Err(error) = self.admin_socket.replace() {
                log::error!("admin.socket cannot be taken over: {error}");
            }
        }
        let control = self.control.clone();
        let serve = async {
            let listener = TcpListener::from_std(listener)?;
            let socket = self.admin_socket.get();
            // Then the new process accepts; connections that are open here go on.
            let over = self.control.handed_over();
            admin::serve(listener, socket, self.tokens.clone(), control, over).await
        };
        if let Err(error) = serve.await {
            log::error!("the admin listener failed: {error}");
        }
    }

    async fn follow(&self, mut phases: Receiver<ExecutionPhase>) {
        while let Ok(phase) = phases.recv().await {
            match phase {
                // After a change of processes the gateway is as ready as before.
                ExecutionPhase::GracefulTerminate | ExecutionPhase::ShutdownStarted => {
                    self.control.set_ready(self.control.is_handed_over());
                }
                ExecutionPhase::ShutdownGracePeriod => self.drain().await,
                _ => {}
            }
        }
    }

    /// Ends the process when nothing is left to do.
    async fn drain(&self) {
        let Some(drained) = self.drained else { return };
        let mut since = Instant::now();
        while since.elapsed() < QUIET {
            if self.open.load(Ordering::Acquire) > 0 {
                since = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for waiting in &self.waiting {
            waiting.close().await;
        }
        // What had come by then is served.
        tokio::time::sleep(Duration::from_millis(20)).await;
        while self.open.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let scaling = self.scaling.clone();
        let _ = tokio::task::spawn_blocking(move || scaling.end()).await;
        self.control.clone().settle().await;
        // The access log's writer flushes within 200 ms.
        tokio::time::sleep(Duration::from_millis(250)).await;
        log::info!("drained");
        self.admin_socket.remove();
        if let Some(path) = &self.pid_file {
            pid_file::remove(path);
        }
        drained();
    }

    /// Says that the process is alive, as often as its manager wants to hear it.
    async fn show_life(&self) {
        let Some(every) = supervisor::watchdog() else {
            return;
        };
        loop {
            supervisor::alive();
            tokio::time::sleep(every).await;
        }
    }
}

#[async_trait]
impl BackgroundService for Housekeeping {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let Some(beginning) = self.once.take() else {
            return;
        };
        let (told, ready) = oneshot::channel();
        let replaced = { beginning.predecessor.as_ref() }.map(|_| ready);
        // None of them ends before the process does, but for what is handed over.
        tokio::join!(
            self.serve_admin(beginning.admin, replaced),
            self.become_ready(beginning.predecessor, told),
            self.control.keep_resolving(),
            self.control.keep_probing(),
            self.control.keep_books(),
            self.scaling.keep_scaling(),
            self.control.keep_reloading(),
            self.control.keep_certificates(),
            self.control.keep_issuing(),
            self.follow(beginning.phases),
            self.show_life(),
        );
    }
}
