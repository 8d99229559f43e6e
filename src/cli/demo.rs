//! `tollgate demo`: everything in one process, nothing to configure.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tollgate_bench::engine::{Engine, EngineConfig};

use crate::config::{self, Format};
use crate::server::{self, Ending, Start};

const ENGINES: usize = 3;
const LARGE: &str = "demo/large";
const SMALL: &str = "demo/small";

/// Two models on three simulated engines behind one gateway.
pub(super) fn run() -> ExitCode {
    let engines: Result<Vec<Engine>, _> = (0..ENGINES).map(|i| Engine::start(engine(i))).collect();
    let engines = match engines {
        Ok(engines) => engines,
        Err(error) => return refuse(&format!("the simulated engines could not start: {error}")),
    };
    let urls: Vec<String> = engines.iter().map(Engine::url).collect();
    let key = key();
    let document = document(&urls, &key);
    let no_file = |file: &str| Err(format!("there is no file {file}"));
    let loaded = match config::parse("demo", &document, Format::Toml, &|_| None, &no_file) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems.to_string()),
    };
    super::run::install_logger(&loaded.config.log);
    if let Some(listener) = loaded.config.listeners.first() {
        let (address, admin) = (listener.address, loaded.config.admin.address);
        std::thread::spawn(move || greet(address, admin, &key));
    }
    match server::run(&loaded.config, Start::default(), Ending::by_signals()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error.to_string()),
    }
}

/// An engine about as fast as a real one, so that streaming is seen to stream.
fn engine(index: usize) -> EngineConfig {
    EngineConfig {
        name: Some(format!("engine-{}", index + 1)),
        ttft: Duration::from_millis(120),
        itl: Duration::from_millis(25),
        jitter: 0.2,
        tokens: 48,
        max_running: 64,
        cache_blocks: 4_000,
        seed: index as u64,
        ..EngineConfig::default()
    }
}

/// Another one with every start.
fn key() -> String {
    let digits: String = (0..4)
        .map(|_| format!("{:016x}", rand::random::<u64>()))
        .collect();
    format!("tg_demo_{digits}")
}

fn document(urls: &[String], key: &str) -> String {
    let quoted: Vec<String> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    let small = quoted.first().cloned().unwrap_or_default();
    let large = quoted.get(1..).unwrap_or_default().join(", ");
    format!(
        r#"
[server]
state = "memory"

[admin]
address = "127.0.0.1:9091"

[log]
level = "warn"
format = "text"
access = "off"

[[listener]]
address = "127.0.0.1:8080"

[[gateway]]
name = "demo"
hosts = ["*"]

[[key]]
name = "demo"
gateway = "demo"
secret = "{key}"

[[service]]
name = "small"
models = ["{SMALL}"]
targets = [{small}]

[[service]]
name = "large"
models = ["{LARGE}"]
targets = [{large}]
"#
    )
}

/// Waits until the gateway accepts, then says what to type.
#[allow(clippy::print_stdout, reason = "the demo talks to a person")]
fn greet(address: SocketAddr, admin: SocketAddr, key: &str) {
    while TcpStream::connect(address).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    println!(
        "Tollgate serves on http://{address}: two models on {ENGINES} simulated engines. Try, in another terminal:

  curl http://{address}/v1/models -H \"Authorization: Bearer {key}\"

  curl http://{address}/v1/chat/completions -H \"Authorization: Bearer {key}\" -H 'Content-Type: application/json' \\
    -d '{{\"model\": \"{LARGE}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'

  curl -N http://{address}/v1/chat/completions -H \"Authorization: Bearer {key}\" -H 'Content-Type: application/json' \\
    -d '{{\"model\": \"{SMALL}\", \"stream\": true, \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'

  curl http://{admin}/metrics

  tollgate usage --by model       (from a checkout: cargo run -q -- usage --by model)

Or with an OpenAI SDK: base_url=\"http://{address}/v1\", api_key=\"{key}\". Ctrl-C ends it."
    );
    if Path::new(config::DEFAULT_PATHS[0]).exists() {
        println!(
            "Next: docs/from-demo-to-production.md, or put your own engines into {} and run `tollgate run`.",
            config::DEFAULT_PATHS[0]
        );
    }
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("tollgate: {message}");
    ExitCode::FAILURE
}
