//! `tollgate-replay`: plays a trace of requests through whatever listens, and measures what clients see.
//!
//! An open loop: each request is sent when it is due, whatever became of those before it, and its time to first token is
//! counted from then. The result is one line of JSON in the model's time; lateness of our own is told, too, because from
//! a few milliseconds on it is the machine that is measured and not the model.

mod body;
mod client;
mod schedule;
mod synthetic;
mod tally;
mod trace;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tokio::task::JoinSet;

use self::client::Connections;
use self::schedule::{Arrival, Pace, schedule};
use self::synthetic::Kind;
use self::tally::{Report, Sample};

/// Failures after which nothing more is sent.
const TOO_MANY: u64 = 20;

/// Plays a trace and measures times to first token.
#[derive(Debug, Parser)]
#[command(name = "tollgate-replay", version)]
struct Arguments {
    /// Where to send requests
    #[arg(short, long)]
    address: SocketAddr,
    /// A file in Mooncake's format, or one that is made up: unique, hot, bursts
    #[arg(short, long, value_name = "FILE")]
    trace: String,
    /// The first so many requests; of a made-up trace 4000 unless said
    #[arg(short = 'n', long, value_name = "N")]
    requests: Option<usize>,
    /// Model to ask for
    #[arg(short, long, default_value = "replay", value_name = "NAME", value_parser = plain)]
    model: String,
    /// Requests come so many times as often
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = above_zero)]
    rate: f64,
    /// Time goes so many times as fast; the engines are told the same
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = above_zero)]
    speed: f64,
    /// Each request comes up to so many milliseconds of the trace later
    #[arg(long, default_value_t = 0.0, value_name = "MS", value_parser = zero_or_more)]
    jitter: f64,
    /// Of the jitter, and of a made-up trace
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Give up on an answer after so many seconds of the trace
    #[arg(long, default_value_t = 3600.0, value_name = "SECONDS", value_parser = above_zero)]
    patience: f64,
}

fn above_zero(text: &str) -> Result<f64, String> {
    zero_or_more(text).and_then(|value| match value > 0.0 {
        true => Ok(value),
        false => Err("it must be above 0".to_owned()),
    })
}

fn zero_or_more(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    match (0.0..=1e9).contains(&value) {
        true => Ok(value),
        false => Err("it must be between 0 and a billion".to_owned()),
    }
}

/// A name that needs no escaping.
fn plain(text: &str) -> Result<String, String> {
    match text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_./:".contains(c))
    {
        true => Ok(text.to_owned()),
        false => Err("letters, digits and -_./: only".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere left to tell, should this fail.
            let _ = writeln!(io::stderr(), "tollgate-replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let lines = match Kind::from_str(&arguments.trace, false) {
        Ok(kind) => synthetic::trace(kind, arguments.requests.unwrap_or(4000), arguments.seed),
        Err(_) => trace::read(Path::new(&arguments.trace))?,
    };
    let pace = Pace {
        rate: arguments.rate,
        speed: arguments.speed,
        jitter: arguments.jitter,
        seed: arguments.seed,
    };
    let arrivals = schedule(lines, pace, arguments.requests.unwrap_or(usize::MAX));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(play(arguments, arrivals));
    writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    match report.failure {
        Some(failure) => Err(io::Error::other(format!(
            "{} requests failed, the last with: {failure}",
            report.failed
        ))),
        None => Ok(()),
    }
}

/// Everything that was answered, and what was not.
#[derive(Default)]
struct Outcome {
    samples: Vec<Sample>,
    failed: u64,
    failure: Option<String>,
}

impl Outcome {
    fn take(&mut self, result: Result<Result<Sample, String>, tokio::task::JoinError>) {
        match result {
            Ok(Ok(sample)) => self.samples.push(sample),
            Ok(Err(failure)) => self.fail(failure),
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn fail(&mut self, failure: String) {
        self.failed += 1;
        self.failure = Some(failure);
    }
}

async fn play(arguments: &Arguments, arrivals: Vec<Arrival>) -> Report {
    let patience = Duration::from_secs_f64(arguments.patience / arguments.speed);
    let connections = Arc::new(Connections::new(arguments.address, patience));
    let (mut open, mut outcome) = (JoinSet::new(), Outcome::default());
    let start = Instant::now();
    for arrival in arrivals {
        // Made before it is due, so that making it delays nothing.
        let request = body::request(&arrival.line, arguments.address, &arguments.model);
        let due = start + arrival.due;
        tokio::time::sleep_until(due.into()).await;
        open.spawn(ask(connections.clone(), request, due));
        while let Some(result) = open.try_join_next() {
            outcome.take(result);
        }
        if outcome.failed >= TOO_MANY {
            break;
        }
    }
    while let Some(result) = open.join_next().await {
        outcome.take(result);
    }
    Report {
        failed: outcome.failed,
        failure: outcome.failure,
        ..Report::of(&outcome.samples, arguments.speed, start.elapsed())
    }
}

async fn ask(
    connections: Arc<Connections>,
    request: Vec<u8>,
    due: Instant,
) -> Result<Sample, String> {
    let late = due.elapsed();
    let seen = connections.ask(&request).await?;
    Ok(Sample {
        first: seen.first.saturating_duration_since(due),
        whole: seen.ended.saturating_duration_since(due),
        late,
        prompt_tokens: seen.usage.prompt_tokens,
        cached_tokens: seen.usage.cached(),
        output_tokens: seen.usage.completion_tokens,
    })
}
