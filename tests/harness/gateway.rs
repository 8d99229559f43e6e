//! The real gateway in this process, on free ports, stopped when dropped.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::thread::JoinHandle;
use std::time::Instant;

use pingora_core::server::ShutdownSignalWatch;
use tokio::sync::Notify;
use tollgate::config::{self, Format};
use tollgate::model::{Config, StateStore};
use tollgate::server::{self, Ending, ShutdownSignal, Start, StartError};

use super::{
    Api, Client, H2Client, Metrics, PATIENCE, Reply, Watch, free_port, get, leaks, runtime, until,
};

/// Panics on the gateway's own threads since the process started.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A running gateway.
pub(crate) struct Gateway {
    address: SocketAddr,
    admin: SocketAddr,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<Result<(), StartError>>>,
    panics: usize,
}

struct Stopped(Arc<Notify>);

#[async_trait::async_trait]
impl ShutdownSignalWatch for Stopped {
    async fn recv(&self) -> ShutdownSignal {
        self.0.notified().await;
        ShutdownSignal::FastShutdown
    }
}

/// One service by its model name, as TOML.
pub(crate) fn service(name: &str, model: &str, target: &str) -> String {
    format!("[[service]]\nname = \"{name}\"\nmodels = [\"{model}\"]\ntargets = [\"{target}\"]\n")
}

impl Gateway {
    /// Starts with this TOML. Where it says nothing of them, it gets a free listener and admin address, a gateway
    /// `main` for every host, and no access log. `$LISTENER` and `$ADMIN` stand for the free addresses.
    pub(crate) fn start(toml: &str) -> Gateway {
        for _ in 0..20 {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let config = parse(&complete(toml, address, admin));
            if let Some(gateway) = Self::try_start(config, address, admin) {
                return gateway;
            }
        }
        panic!("found no free ports");
    }

    /// Starts with a configuration made elsewhere: its first listener and its admin listener move to free ports.
    pub(crate) fn start_config(mut config: Config) -> Gateway {
        for _ in 0..20 {
            for listener in &mut config.listeners {
                listener.address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            }
            config.admin.address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            config.log.access = tollgate::model::AccessLog::Off;
            config.server.state = StateStore::Memory;
            let address = config.listeners.first().unwrap().address;
            if let Some(gateway) = Self::try_start(config.clone(), address, config.admin.address) {
                return gateway;
            }
        }
        panic!("found no free ports");
    }

    /// `None`: somebody took an address meanwhile.
    fn try_start(config: Config, address: SocketAddr, admin: SocketAddr) -> Option<Gateway> {
        watch_panics();
        leaks::watch();
        let stop = Arc::new(Notify::new());
        let signal = Stopped(stop.clone());
        let run = move || {
            let ending = Ending {
                signal: Some(Box::new(signal)),
                drained: None,
            };
            server::run(&config, Start::default(), ending)
        };
        let thread = std::thread::Builder::new()
            .name("gateway".into())
            .spawn(run)
            .unwrap();
        let mut gateway = Gateway {
            address,
            admin,
            stop,
            thread: Some(thread),
            panics: PANICS.load(Ordering::SeqCst),
        };
        let start = Instant::now();
        loop {
            if gateway.thread.as_ref().unwrap().is_finished() {
                return match gateway.thread.take().unwrap().join() {
                    Ok(Err(StartError::Listen { .. })) => None,
                    other => panic!("the gateway ended at once: {other:?}"),
                };
            }
            if gateway.is_ready() {
                return Some(gateway);
            }
            assert!(start.elapsed() < PATIENCE, "the gateway does not get ready");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    fn is_ready(&self) -> bool {
        let Ok(mut client) = Client::try_connect(self.admin) else {
            return false;
        };
        client.send(get("/readyz", ""));
        client.try_reply().is_ok_and(|reply| reply.status == 200)
    }

    /// The metrics, unless it is gone.
    fn try_metrics(&self) -> Option<String> {
        let mut client = Client::try_connect(self.admin).ok()?;
        client.try_send(&get("/metrics", "")).ok()?;
        client.try_reply().ok().map(|reply| reply.text())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn h2(&self) -> H2Client {
        runtime().block_on(H2Client::connect(self.address))
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// An HTTP/2 connection to the admin listener.
    pub(crate) fn admin_h2(&self) -> H2Client {
        runtime().block_on(H2Client::connect(self.admin))
    }

    /// A page of the admin listener.
    pub(crate) fn admin(&self, path: &str) -> Reply {
        let mut client = Client::connect(self.admin);
        client.send(get(path, ""));
        client.reply()
    }

    /// A connection to the admin listener.
    pub(crate) fn admin_client(&self) -> Client {
        Client::connect(self.admin)
    }

    /// Begins to watch what happens.
    pub(crate) fn watch(&self) -> Watch {
        Watch::open(self.admin, "")
    }

    pub(crate) fn api(&self) -> Api {
        Api::new(self.admin)
    }

    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::read(&self.admin("/metrics").text())
    }

    /// Waits until a metric, added up over the series with these labels, is as wanted.
    #[track_caller]
    pub(crate) fn wait_for(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        wanted: impl Fn(f64) -> bool,
    ) -> f64 {
        until(name, || {
            let value = self.metrics().sum(name, labels);
            wanted(value).then_some(value)
        })
    }

    /// All load that is accounted has been given back.
    #[track_caller]
    pub(crate) fn assert_gauges_zero(&self) {
        const GAUGES: [&str; 3] = [
            "tollgate_in_flight",
            "tollgate_target_in_flight",
            "tollgate_body_memory_bytes",
        ];
        let mut last = Vec::new();
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let metrics = self.metrics();
            last = GAUGES
                .iter()
                .map(|name| (*name, metrics.sum(name, &[])))
                .collect();
            if last.iter().all(|(_, value)| *value == 0.0) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("load was not given back: {last:?}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(page) = self.try_metrics() {
            leaks::search("/metrics", &page);
        }
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                leaks::assert_none();
                assert!(matches!(ended, Ok(Ok(()))), "the gateway failed: {ended:?}");
                let panics = PANICS.load(Ordering::SeqCst) - self.panics;
                assert_eq!(panics, 0, "the gateway panicked; see above");
            }
        }
    }
}

fn parse(text: &str) -> Config {
    leaks::learn_from(text);
    let read_file = |path: &str| config::read_secret(std::path::Path::new(path));
    match config::parse("test.toml", text, Format::Toml, &|_| None, &read_file) {
        Ok(loaded) => loaded.config,
        Err(diagnostics) => panic!("{diagnostics}"),
    }
}

pub(super) fn complete(toml: &str, address: SocketAddr, admin: SocketAddr) -> String {
    let mut text = toml
        .replace("$LISTENER", &address.to_string())
        .replace("$ADMIN", &admin.to_string());
    let mut add = |table: &str, content: &str| {
        if !text.contains(table) {
            text.push_str(&format!("\n{table}\n{content}\n"));
        }
    };
    add("[admin]", &format!("address = \"{admin}\""));
    add("[log]", "access = \"off\"");
    // The default is a file of the folder, which tests share.
    add("[server]", "");
    add("[[listener]]", &format!("address = \"{address}\""));
    add(
        "[[gateway]]",
        "name = \"main\"\nhosts = [\"*\"]\nauth = \"none\"",
    );
    if !text.contains("\nstate = ") {
        text = text.replacen("[server]", "[server]\nstate = \"memory\"", 1);
    }
    text
}

/// A panic on a thread of the gateway is caught by its runtime: without this nobody would notice.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            if info.payload_as_str() == Some("a fault was injected") {
                // A plugin of a test was told to.
                return;
            }
            if ["gateway", "clients", "housekeeping"].contains(&name) {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }));
    });
}
