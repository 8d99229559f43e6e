//! `tollgate-engine`: the simulated inference engine as a program.
//!
//! Reads the command line into an `EngineConfig`, serves until interrupted, and owns nothing else.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tollgate_bench::engine::{
    Engine, EngineConfig, EngineRole, FaultStep, Faults, TlsIdentity, TransferConfig,
    TransferProtocol, parse_duration, parse_size,
};

/// A simulated inference engine that speaks OpenAI's API like vLLM does.
///
/// Without options it answers at once, as fast as it can. Durations are written 250ms, 1.5s, 2m.
#[derive(Debug, Parser)]
#[command(name = "tollgate-engine", version)]
struct Arguments {
    /// Where to listen; port 0 takes a free one
    #[arg(short, long, default_value = "127.0.0.1:8000")]
    address: SocketAddr,
    /// Model name to serve; repeat for more. `*` accepts any name
    #[arg(short, long = "model", value_name = "NAME", default_value = "*")]
    models: Vec<String>,
    /// Name sent with every reply as x-sim-engine
    #[arg(long)]
    name: Option<String>,
    /// Time to the first token
    #[arg(long, default_value = "0ms", value_parser = parse_duration, value_name = "TIME")]
    ttft: Duration,
    /// Time between tokens
    #[arg(long, default_value = "0ms", value_parser = parse_duration, value_name = "TIME")]
    itl: Duration,
    /// Spread of both times: 0.2 means ±20 %
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    jitter: f64,
    /// Tokens in a reply, unless the request's limit is smaller
    #[arg(long, default_value_t = 16, value_name = "N")]
    tokens: usize,
    /// Requests that run at the same time; others wait in order. 0: no limit
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_running: usize,
    /// Blocks of the prefix cache. 0: no cache
    #[arg(long, default_value_t = 0, value_name = "N")]
    cache_blocks: usize,
    /// Tokens in one block
    #[arg(long, default_value_t = 16, value_name = "N")]
    block_size: usize,
    /// Uncached prompt tokens computed per second. 0: at once
    #[arg(long, default_value_t = 0, value_name = "N")]
    prefill_rate: u64,
    /// Attention's part of prefill, seconds per token squared: u new tokens of L take u / rate + this * u * (L - u/2)
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    prefill_quadratic: f64,
    /// Growth of the time between tokens with each request that runs: 0.02 means 2 %
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    batch_slowdown: f64,
    /// Tokens in one event of a stream; the first always goes by itself
    #[arg(long, default_value_t = 1, value_name = "N")]
    stream_interval: usize,
    /// Divide all these times by it: 20 plays a model twenty times as fast
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    speed: f64,
    /// Hold a stream's head back until its first token
    #[arg(long)]
    late_head: bool,
    /// Texts, identifiers and jitter follow from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Worker threads
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: usize,
    /// Certificate chain in PEM; serves TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Keep the last N requests for GET /sim/requests
    #[arg(long, default_value_t = 0, value_name = "N")]
    record: usize,
    /// Numbers in an embedding
    #[arg(long, default_value_t = 8, value_name = "N")]
    embedding_size: usize,
    /// Longest request body kept in memory
    #[arg(long, default_value = "256MiB", value_parser = parse_size, value_name = "SIZE")]
    max_body: u64,
    /// Kernel receive buffer per connection
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    receive_buffer: Option<u64>,
    /// Share requests with other engines that speak this: sglang, nixl, mooncake or kvt
    #[arg(long, value_name = "PROTOCOL")]
    kv: Option<TransferProtocol>,
    /// Its part in shared requests: both, prefill or decode
    #[arg(long, default_value = "both", requires = "kv")]
    role: EngineRole,
    /// How long what it computed is held for another to fetch
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    kv_lease: Duration,
    /// Faults for every request, in the words of x-sim: `status=503, delay=1s`
    #[arg(long, value_name = "LIST")]
    faults: Option<Faults>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere left to tell, should this fail.
            let _ = writeln!(io::stderr(), "tollgate-engine: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    let faults = arguments.faults.clone();
    let engine = Engine::start(settings(arguments)?)?;
    engine.set_faults(faults.map(FaultStep::always));
    writeln!(io::stdout(), "listening on {}", engine.url())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    })
}

fn signal(kind: tokio::signal::unix::SignalKind) -> io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(kind)
}

fn settings(arguments: Arguments) -> io::Result<EngineConfig> {
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsIdentity {
            certificate: read(certificate)?,
            key: read(key)?,
        }),
        _ => None,
    };
    Ok(EngineConfig {
        address: arguments.address,
        name: arguments.name,
        models: arguments.models,
        ttft: arguments.ttft,
        itl: arguments.itl,
        jitter: arguments.jitter,
        tokens: arguments.tokens,
        max_running: arguments.max_running,
        cache_blocks: arguments.cache_blocks,
        block_size: arguments.block_size,
        prefill_rate: arguments.prefill_rate,
        prefill_quadratic: arguments.prefill_quadratic,
        batch_slowdown: arguments.batch_slowdown,
        stream_interval: arguments.stream_interval,
        speed: arguments.speed,
        seed: arguments.seed,
        threads: arguments.threads,
        tls,
        record: arguments.record,
        embedding_size: arguments.embedding_size,
        max_body: usize::try_from(arguments.max_body).unwrap_or(usize::MAX),
        receive_buffer: arguments
            .receive_buffer
            .map(|size| u32::try_from(size).unwrap_or(u32::MAX)),
        late_head: arguments.late_head,
        transfer: arguments.kv.map(|protocol| TransferConfig {
            lease: arguments.kv_lease,
            ..TransferConfig::new(protocol, arguments.role)
        }),
    })
}
