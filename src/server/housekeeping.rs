//! Everything with a loop of its own, in one background service: the admin listener, name resolution,
//! readiness, draining.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ExecutionPhase, ShutdownWatch};
use pingora_core::services::background::BackgroundService;
use tokio::net::TcpStream;
use tokio::sync::broadcast::Receiver;
use tollgate_sdk::secret::Secret;

use crate::admin::{self, Socket};
use crate::control::Control;
use crate::model::Config;

pub(super) struct Housekeeping {
    control: Arc<Control>,
    listeners: Vec<SocketAddr>,
    admin: SocketAddr,
    socket: Option<Arc<Socket>>,
    token: Option<Secret<String>>,
    // Taken once, when the service starts.
    phases: Mutex<Option<Receiver<ExecutionPhase>>>,
    open: Arc<AtomicUsize>,
    drained: Option<fn()>,
}

impl Housekeeping {
    pub(super) fn new(
        control: Arc<Control>,
        config: &Config,
        socket: Option<Arc<Socket>>,
        phases: Receiver<ExecutionPhase>,
        open: Arc<AtomicUsize>,
        drained: Option<fn()>,
    ) -> Housekeeping {
        Housekeeping {
            control,
            listeners: config
                .listeners
                .iter()
                .map(|listener| listener.address)
                .collect(),
            admin: config.admin.address,
            socket,
            token: config.admin.token.clone(),
            phases: Mutex::new(Some(phases)),
            open,
            drained,
        }
    }

    /// Ready once every listener accepts.
    async fn become_ready(&self) {
        for address in &self.listeners {
            while TcpStream::connect(reachable(*address)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        self.control.set_ready(true);
        log::info!("ready");
    }

    async fn follow(&self, mut phases: Receiver<ExecutionPhase>) {
        while let Ok(phase) = phases.recv().await {
            match phase {
                ExecutionPhase::GracefulTerminate | ExecutionPhase::ShutdownStarted => {
                    self.control.set_ready(false);
                }
                ExecutionPhase::ShutdownGracePeriod => self.drain().await,
                _ => {}
            }
        }
    }

    async fn drain(&self) {
        let Some(drained) = self.drained else { return };
        while self.open.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.control.clone().settle().await;
        // The access log's writer flushes within 200 ms.
        tokio::time::sleep(Duration::from_millis(300)).await;
        if let Some(socket) = &self.socket {
            socket.remove();
        }
        log::info!("drained");
        drained();
    }
}

#[async_trait]
impl BackgroundService for Housekeeping {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let phases = self
            .phases
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take();
        let follow = async {
            match phases {
                Some(phases) => self.follow(phases).await,
                None => std::future::pending().await,
            }
        };
        let admin = async {
            if let Err(error) = admin::serve(
                self.admin,
                self.socket.as_deref(),
                self.token.clone(),
                self.control.clone(),
            )
            .await
            {
                log::error!("the admin listener on {} failed: {error}", self.admin);
            }
        };
        // None of them ends before the process does.
        tokio::join!(
            admin,
            self.become_ready(),
            self.control.keep_resolving(),
            self.control.keep_probing(),
            self.control.keep_books(),
            self.control.keep_reloading(),
            follow
        );
    }
}

/// Where a listener on every interface can be reached.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
