//! `tollgate-load`: a closed loop of clients that measures what a client of a model sees.
//!
//! Each connection sends a request, reads the whole answer and sends the next. Where wrk tells only when an
//! answer was complete, this tells when it began and how its chunks were spaced. Results are one line of
//! JSON. It ends when its time is over or its number of requests is reached, never in the middle of an answer.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate_bench::answer::Answer;
use tollgate_bench::engine::parse_duration;

/// Clients that send requests one after the other and measure the answers.
#[derive(Debug, Parser)]
#[command(name = "tollgate-load", version)]
struct Arguments {
    /// Where to send requests
    #[arg(short, long)]
    address: SocketAddr,
    /// File with the request's JSON body
    #[arg(short, long, value_name = "FILE")]
    body: PathBuf,
    /// Path to send it to
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    /// API key, sent as `Authorization: Bearer`
    #[arg(long)]
    key: Option<String>,
    /// Value of the header x-sim, which tells the simulated engine how to answer
    #[arg(long, value_name = "LIST")]
    sim: Option<String>,
    /// Connections, each with one request at a time
    #[arg(short, long, default_value_t = 128, value_name = "N")]
    connections: u32,
    /// How long to start new requests
    #[arg(short, long, default_value = "5s", value_parser = parse_duration, value_name = "TIME")]
    duration: Duration,
    /// Stop after so many requests
    #[arg(short = 'n', long, value_name = "N")]
    requests: Option<u64>,
    /// Answers must be whole event streams
    #[arg(long)]
    stream: bool,
    /// Connections start within this time, so that their streams are out of step
    #[arg(long, default_value = "0ms", value_parser = parse_duration, value_name = "TIME")]
    spread: Duration,
    /// Give up on an answer that takes longer
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    patience: Duration,
}

struct Job {
    address: SocketAddr,
    request: Vec<u8>,
    stream: bool,
    patience: Duration,
    until: Instant,
    left: AtomicU64,
}

/// What was measured, in microseconds.
#[derive(Default)]
struct Tally {
    failed: u64,
    failure: Option<String>,
    events: u64,
    whole: Vec<u32>,
    first: Vec<u32>,
    gaps: Vec<u32>,
}

#[derive(Serialize)]
struct Report {
    requests: usize,
    failed: u64,
    failure: Option<String>,
    /// Server-sent events in all answers.
    events: u64,
    seconds: f64,
    /// Until the answer was complete, microseconds.
    latency: Spread,
    /// Until the first byte of its body.
    first_byte: Spread,
    /// Between arrivals of parts of a body.
    gap: Spread,
}

#[derive(Serialize)]
struct Spread {
    p50: u32,
    p99: u32,
    max: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere left to tell, should this fail.
            let _ = writeln!(io::stderr(), "tollgate-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let start = Instant::now();
    let job = Arc::new(Job {
        address: arguments.address,
        request: request(arguments)?,
        stream: arguments.stream,
        patience: arguments.patience,
        until: start + arguments.duration,
        left: AtomicU64::new(arguments.requests.unwrap_or(u64::MAX)),
    });
    let tally = runtime.block_on(load(job, arguments.connections, arguments.spread));
    let report = report(tally, start.elapsed());
    writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    match report.failure {
        Some(failure) => Err(io::Error::other(format!(
            "{} requests failed, the last with: {failure}",
            report.failed
        ))),
        None => Ok(()),
    }
}

fn request(arguments: &Arguments) -> io::Result<Vec<u8>> {
    let body = std::fs::read(&arguments.body)?;
    let Arguments { address, path, .. } = arguments;
    let mut request = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\n");
    request += "User-Agent: tollgate-load\r\nAccept: */*\r\nContent-Type: application/json\r\n";
    if let Some(key) = &arguments.key {
        request += &format!("Authorization: Bearer {key}\r\n");
    }
    if let Some(sim) = &arguments.sim {
        request += &format!("X-Sim: {sim}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n", body.len());
    let mut request = request.into_bytes();
    request.extend_from_slice(&body);
    Ok(request)
}

async fn load(job: Arc<Job>, connections: u32, spread: Duration) -> Tally {
    let clients: Vec<_> = (0..connections)
        .map(|i| tokio::spawn(client(job.clone(), spread * i / connections)))
        .collect();
    let mut sum = Tally::default();
    for client in clients {
        match client.await {
            Ok(tally) => sum.add(tally),
            Err(error) => sum.fail(error.to_string()),
        }
    }
    sum
}

async fn client(job: Arc<Job>, delay: Duration) -> Tally {
    const TOO_MANY: u64 = 20;
    tokio::time::sleep(delay).await;
    let mut tally = Tally::default();
    let mut connection = None;
    while job.takes_another() && tally.failed < TOO_MANY {
        let exchange = exchange(&job, &mut tally, connection.take());
        match tokio::time::timeout(job.patience, exchange).await {
            Ok(Ok(kept)) => connection = kept,
            Ok(Err(error)) => tally.fail(error),
            Err(_) => tally.fail("no whole answer in time".into()),
        }
    }
    tally
}

/// One request with its answer; the connection, if it can be used again.
async fn exchange(
    job: &Job,
    tally: &mut Tally,
    connection: Option<TcpStream>,
) -> Result<Option<TcpStream>, String> {
    let text = |error: io::Error| error.to_string();
    let mut connection = match connection {
        Some(connection) => connection,
        None => {
            let connection = TcpStream::connect(job.address).await.map_err(text)?;
            connection.set_nodelay(true).map_err(text)?;
            connection
        }
    };
    let start = Instant::now();
    connection.write_all(&job.request).await.map_err(text)?;
    let mut answer = Answer::default();
    let mut last = None;
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = connection.read(&mut buffer).await.map_err(text)?;
        if read == 0 {
            return Err("the connection broke inside an answer".into());
        }
        let now = Instant::now();
        let progress = answer.push(buffer.get(..read).unwrap_or_default())?;
        if progress.payload > 0 {
            match last.replace(now) {
                None => tally.first.push(micros(now - start)),
                Some(last) => tally.gaps.push(micros(now - last)),
            }
        }
        if !progress.ended {
            continue;
        }
        if answer.status != 200 {
            return Err(format!("status {}", answer.status));
        }
        if job.stream && !answer.is_whole_stream() {
            return Err("a stream without its end".into());
        }
        tally.whole.push(micros(now - start));
        tally.events += answer.events;
        return Ok((!answer.closes).then_some(connection));
    }
}

impl Job {
    fn takes_another(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        Instant::now() < self.until
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
                .is_ok()
    }
}

impl Tally {
    fn fail(&mut self, failure: String) {
        self.failed += 1;
        self.failure = Some(failure);
    }

    fn add(&mut self, other: Tally) {
        self.failed += other.failed;
        self.failure = other.failure.or(self.failure.take());
        self.events += other.events;
        self.whole.extend(other.whole);
        self.first.extend(other.first);
        self.gaps.extend(other.gaps);
    }
}

fn report(tally: Tally, elapsed: Duration) -> Report {
    Report {
        requests: tally.whole.len(),
        failed: tally.failed,
        failure: tally.failure,
        events: tally.events,
        seconds: elapsed.as_secs_f64(),
        latency: spread(tally.whole),
        first_byte: spread(tally.first),
        gap: spread(tally.gaps),
    }
}

fn spread(mut values: Vec<u32>) -> Spread {
    values.sort_unstable();
    let at = |percent: usize| {
        let rank = (values.len() * percent / 100).min(values.len().saturating_sub(1));
        values.get(rank).copied().unwrap_or_default()
    };
    Spread {
        p50: at(50),
        p99: at(99),
        max: values.last().copied().unwrap_or_default(),
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
