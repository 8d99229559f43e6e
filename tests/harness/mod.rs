//! What tests stand on: a gateway, engines, upstreams that follow a script, and clients that hide nothing.
//!
//! Nothing here sleeps and hopes: what takes time is polled for, with a deadline.

mod admin;
mod api;
mod certificates;
mod client;
mod footprint;
mod gateway;
mod h2_client;
mod h2_frames;
mod h2_upstream;
mod issuer;
pub(crate) mod keda;
mod leaks;
mod metrics;
mod pairs;
mod pebble;
mod process;
mod python;
mod replicas;
mod reply;
mod terminal;
mod tls_upstream;
mod upstream;
mod watch;
mod web;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tollgate_bench::engine::{Engine, EngineConfig, EngineState};

pub(crate) use admin::Admin;
pub(crate) use api::{Api, Ran, bearer, program, program_with, request};
pub(crate) use certificates::{Authority, Issued, Manner, load_example, replace};
pub(crate) use client::{Client, chunked, get, post};
pub(crate) use footprint::Footprint;
pub(crate) use gateway::{Gateway, service};
pub(crate) use h2_client::H2Client;
pub(crate) use h2_frames::{Frame, HEADERS, RESET, RawH2, SETTINGS};
pub(crate) use h2_upstream::{H2Behaviour, H2Upstream};
pub(crate) use issuer::{
    ISSUER, Signer, believer, believer_at, claims, key_set, keys_at, keys_in, unix_seconds,
};
pub(crate) use leaks::learn;
pub(crate) use metrics::Metrics;
pub(crate) use pairs::{WAYS, Way, assert_nothing_held, both, calls_of, decode};
pub(crate) use pebble::{Pebble, Setup};
pub(crate) use process::{PROGRAM, Process, is_running};
pub(crate) use python::{assert_done, python};
pub(crate) use replicas::{engines, processes, scaled, scaling, stands};
pub(crate) use reply::{Piece, Reply};
pub(crate) use terminal::Terminal;
pub(crate) use tls_upstream::TlsUpstream;
pub(crate) use upstream::{Connection, Request, Upstream};
pub(crate) use watch::{Told, Watch};
pub(crate) use web::{Mood, Web};

/// How long anything that should happen may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const CHAT: &str = "/v1/chat/completions";

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs futures from plain test functions; its connections live as long as the process.
pub(crate) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    })
}

/// A port that is free now, outside the range from which the system gives ports to clients.
pub(crate) fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU64> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        use std::hash::{BuildHasher, RandomState};
        AtomicU64::new(RandomState::new().hash_one(std::process::id()))
    });
    loop {
        let port = 12_000 + (next.fetch_add(1, Ordering::Relaxed) % 20_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Where `python` has the openai SDK.
#[track_caller]
pub(crate) fn sdk_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let root = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let folder = target.unwrap_or_else(root).join("venv/bin");
    // Importing it takes a second; where it is takes none.
    let search = "import importlib.util as u, sys; sys.exit(u.find_spec('openai') is None)";
    let has_sdk = Command::new(folder.join("python"))
        .args(["-c", search])
        .output();
    assert!(
        has_sdk.is_ok_and(|output| output.status.success()),
        "the openai SDK is not installed: run tests/sdk/setup.sh"
    );
    folder
}

/// An address nobody listens on.
pub(crate) fn closed_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

pub(crate) fn engine() -> Engine {
    engine_with(|_| ())
}

/// An engine with these changes to the defaults; it keeps what it was asked.
pub(crate) fn engine_with(change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let mut config = EngineConfig {
        record: 100,
        ..EngineConfig::default()
    };
    change(&mut config);
    Engine::start(config).unwrap()
}

/// Asks for the engine's state until it is as wanted.
#[track_caller]
pub(crate) fn engine_state(
    engine: &Engine,
    what: &str,
    wanted: impl Fn(&EngineState) -> bool,
) -> EngineState {
    until(what, || {
        let state = engine.state();
        wanted(&state).then_some(state)
    })
}

/// The engine's URL for HTTP/2 by prior knowledge.
pub(crate) fn h2c(engine: &Engine) -> String {
    format!("h2c://{}", engine.address())
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// A chat request for a model.
pub(crate) fn chat(model: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hello"}}]}}"#)
}

/// A chat request that wants a stream of this many tokens.
pub(crate) fn streamed(model: &str, tokens: usize) -> String {
    format!(
        r#"{{"model":"{model}","stream":true,"max_tokens":{tokens},"messages":[{{"role":"user","content":"go"}}]}}"#
    )
}

/// A chat request of exactly this many bytes, all of them visible.
pub(crate) fn padded(model: &str, length: usize) -> Vec<u8> {
    let head = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":""#);
    let tail = br#""}]}"#;
    let mut body = head.into_bytes();
    assert!(
        body.len() + tail.len() <= length,
        "a chat request is longer"
    );
    let filling = length - body.len() - tail.len();
    body.extend((0..filling).map(|i| b"abcdefghijklmnopqrstuvwxyz0123456789 "[i % 37]));
    body.extend_from_slice(tail);
    body
}

/// Bytes without a pattern that a buffer's length divides.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ length as u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The median of some durations.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

pub(crate) fn unix_nanos() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64
}
