//! `tollgate-bare`: Pingora with nothing on top, the yardstick of `make bench`.
//!
//! A proxy to one upstream with the peer options, the pool, the allocator and the number of threads that
//! Tollgate has, and none of its work: what Tollgate costs more than this is Tollgate's own.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use pingora_core::Result;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::TcpKeepalive;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Bare Pingora in front of one upstream.
#[derive(Debug, Parser)]
#[command(name = "tollgate-bare", version)]
struct Arguments {
    /// Where to listen
    #[arg(short, long, default_value = "127.0.0.1:8081")]
    address: SocketAddr,
    /// Where to send every request
    #[arg(short, long, default_value = "127.0.0.1:8000")]
    upstream: SocketAddr,
    /// Threads that serve requests
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: usize,
}

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut Self::CTX) -> Result<Box<HttpPeer>> {
        // The options are those of Tollgate's src/proxy/peer.rs.
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        let options = &mut peer.options;
        options.connection_timeout = Some(Duration::from_secs(2));
        options.total_connection_timeout = Some(Duration::from_secs(2));
        options.write_timeout = Some(Duration::from_secs(60));
        options.idle_timeout = Some(Duration::from_secs(4));
        options.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_secs(15),
            interval: Duration::from_secs(5),
            count: 3,
            user_timeout: Duration::from_secs(30),
        });
        options.max_h2_streams = 128;
        Ok(Box::new(peer))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A second install in one process changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let conf = ServerConf {
        threads: arguments.threads,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        upstream_keepalive_pool_size: 512,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let bare = Bare {
        upstream: arguments.upstream,
    };
    let mut service = http_proxy_service(&server.configuration, bare);
    service.add_tcp(&arguments.address.to_string());
    server.add_service(service);
    server.run_forever()
}
