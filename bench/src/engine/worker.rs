//! Worker threads: each has one single-threaded runtime and the connections dealt to it.
//!
//! The first worker owns the listener and deals connections out in turn, so load is even however few
//! connections there are. When the stop signal comes, a worker drops its runtime, and with it every
//! socket: to a client the engine has died.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::counters::Counters;
use super::io::{Io, Rewound};
use super::shared::Shared;
use super::{http1, http2};

/// What every task of one worker thread can reach.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<Counters>,
}

type Sockets = UnboundedReceiver<std::net::TcpStream>;

/// Binds, starts the threads and returns the bound address.
pub(super) fn start(
    shared: &Arc<Shared>,
    tls: Option<TlsAcceptor>,
    stop: &watch::Receiver<()>,
    threads: &mut Vec<std::thread::JoinHandle<()>>,
) -> io::Result<SocketAddr> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        bind(shared)?
    };
    let address = listener.local_addr()?;
    let (mut deals, mut others) = (Vec::new(), Vec::new());
    for counters in shared.counters.iter().skip(1) {
        let (deal, sockets) = unbounded_channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        deals.push(deal);
        others.push((runtime, sockets, Arc::clone(counters)));
    }
    let worker = |counters| Worker {
        shared: Arc::clone(shared),
        counters,
    };
    let first = worker(shared.counters.first().cloned().unwrap_or_default());
    let accepting = accept(first, listener, deals, tls.clone());
    threads.push(spawn(0, runtime, stop.clone(), accepting)?);
    for (k, (runtime, sockets, counters)) in others.into_iter().enumerate() {
        let taking = take(worker(counters), sockets, tls.clone());
        threads.push(spawn(k + 1, runtime, stop.clone(), taking)?);
    }
    Ok(address)
}

fn bind(shared: &Shared) -> io::Result<TcpListener> {
    let address = shared.config.address;
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // An engine that restarts takes its old port although old connections still fade away.
    socket.set_reuseaddr(true)?;
    if let Some(size) = shared.config.receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    socket.bind(address)?;
    socket.listen(4096)
}

fn spawn(
    k: usize,
    runtime: Runtime,
    mut stop: watch::Receiver<()>,
    work: impl Future<Output = ()> + Send + 'static,
) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("engine-{k}"))
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    // Told, or the engine is gone: either way the end.
                    _ = stop.changed() => {}
                    () = work => {}
                }
            });
        })
}

/// The first worker: accepts, keeps every n-th connection and deals the others out.
async fn accept(
    worker: Worker,
    listener: TcpListener,
    deals: Vec<UnboundedSender<std::net::TcpStream>>,
    tls: Option<TlsAcceptor>,
) {
    for turn in (0..=deals.len()).cycle() {
        let socket = loop {
            match listener.accept().await {
                Ok((socket, _)) => break socket,
                // Out of descriptors: others must close first.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        match turn.checked_sub(1).and_then(|k| deals.get(k)) {
            None => open(&worker, socket, tls.clone()),
            Some(deal) => {
                if let Ok(socket) = socket.into_std() {
                    // Fails only when that worker has stopped, and then this one stops too.
                    let _ = deal.send(socket);
                }
            }
        }
    }
}

/// Every other worker.
async fn take(worker: Worker, mut sockets: Sockets, tls: Option<TlsAcceptor>) {
    while let Some(socket) = sockets.recv().await {
        if let Ok(socket) = TcpStream::from_std(socket) {
            open(&worker, socket, tls.clone());
        }
    }
}

fn open(worker: &Worker, socket: TcpStream, tls: Option<TlsAcceptor>) {
    worker
        .counters
        .connections
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    // Without it replies are merely later.
    let _ = socket.set_nodelay(true);
    let worker = worker.clone();
    tokio::spawn(async move {
        let Some(tls) = tls else {
            if let Some(rewound) = http1::run(worker.clone(), Io::Plain(socket)).await {
                http2::run(worker, rewound).await;
            }
            return;
        };
        let Ok(stream) = tls.accept(socket).await else {
            return;
        };
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = Io::Tls(Box::new(stream));
        if h2 {
            http2::run(
                worker,
                Rewound {
                    first: Bytes::new(),
                    io,
                },
            )
            .await;
        } else {
            http1::run(worker, io).await;
        }
    });
}
