//! What a simulated engine is told before it starts.
//!
//! Plain data with defaults that make an engine as fast as it can be: no waiting, no cache, no
//! limits. The command line and the tests fill the same struct. Nothing here can change while the
//! engine runs; what can (faults) is in `faults`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::transfer::TransferConfig;

/// The settings of one simulated engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where to listen. Port 0 takes a free one; `Engine::address` tells which.
    pub address: SocketAddr,
    /// When set, every reply carries it as `x-sim-engine`.
    pub name: Option<String>,
    /// Model names it serves. `*` accepts any name and echoes it.
    pub models: Vec<String>,
    /// From the moment a request has a running slot to its first token, without prefill.
    pub ttft: Duration,
    /// Between two tokens.
    pub itl: Duration,
    /// Spread of `ttft` and `itl`: 0.2 means ±20 %, drawn from the seed and the request.
    pub jitter: f64,
    /// Tokens produced when the request sets no smaller limit.
    pub tokens: usize,
    /// Requests that produce tokens at the same time; the rest wait in order. 0: no limit.
    pub max_running: usize,
    /// Blocks of the prefix cache. 0: no cache.
    pub cache_blocks: usize,
    /// Tokens in one block of the prefix cache.
    pub block_size: usize,
    /// Uncached prompt tokens computed per second, one prompt at a time. 0: no time at all.
    pub prefill_rate: u64,
    /// Attention's part of prefill, in seconds per token squared: computing u tokens at the end of a prompt of L
    /// takes u / `prefill_rate` + this · u · (L − u / 2).
    pub prefill_quadratic: f64,
    /// Growth of `itl` with each request that runs: 0.02 means 2 %.
    pub batch_slowdown: f64,
    /// Tokens in one event of a stream. The first always goes by itself. 0 is 1.
    pub stream_interval: usize,
    /// All the times above are divided by it: 20 plays a model twenty times as fast.
    pub speed: f64,
    /// Text, identifiers and jitter follow from this and the request's content.
    pub seed: u64,
    /// Worker threads, each with its own runtime. Connections are dealt out in turn.
    pub threads: usize,
    /// Serve TLS (HTTP/1.1 and HTTP/2 by ALPN) instead of plain text.
    pub tls: Option<TlsIdentity>,
    /// How many of the last requests to keep for `Engine::requests`. 0: none.
    pub record: usize,
    /// Numbers in one embedding.
    pub embedding_size: usize,
    /// Longest request body that an API path reads into memory; longer gets 413.
    pub max_body: usize,
    /// Kernel receive buffer of each connection, to make slow reading felt early.
    pub receive_buffer: Option<u32>,
    /// Hold the head of a streamed reply back until the first token. vLLM sends it at once.
    pub late_head: bool,
    /// Share requests with other engines: some prefill, some decode.
    pub transfer: Option<TransferConfig>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            name: None,
            models: vec!["*".to_owned()],
            ttft: Duration::ZERO,
            itl: Duration::ZERO,
            jitter: 0.0,
            tokens: 16,
            max_running: 0,
            cache_blocks: 0,
            block_size: 16,
            prefill_rate: 0,
            prefill_quadratic: 0.0,
            batch_slowdown: 0.0,
            stream_interval: 1,
            speed: 1.0,
            seed: 0,
            threads: 1,
            tls: None,
            record: 0,
            embedding_size: 8,
            max_body: 256 << 20,
            receive_buffer: None,
            late_head: false,
            transfer: None,
        }
    }
}

impl EngineConfig {
    /// Whether a request for this model is served.
    pub(super) fn serves(&self, model: &str) -> bool {
        self.models
            .iter()
            .any(|known| known == "*" || known == model)
    }

    /// The name under which metrics are reported and nameless requests answered.
    pub(super) fn primary_model(&self) -> &str {
        match self.models.first().map(String::as_str) {
            Some(name) if name != "*" => name,
            _ => "sim-model",
        }
    }
}

/// A certificate chain and its private key, both as PEM text.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The chain, leaf first.
    pub certificate: Vec<u8>,
    /// The leaf's private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsIdentity(***)")
    }
}

/// Reads `250ms`, `1.5s`, `20us`, `2m`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a duration"))?;
    let scale = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{text}`: the units are us, ms, s, m, h")),
    };
    Duration::try_from_secs_f64(number * scale).map_err(|_| format!("`{text}` is out of range"))
}

/// Reads `512`, `64KiB`, `2MiB`, `1GiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a size"))?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(format!("`{text}`: the units are B, KiB, MiB, GiB")),
    };
    number
        .checked_shl(shift)
        .filter(|n| n >> shift == number)
        .ok_or(format!("`{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_back() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert!(parse_duration("3 parsecs").is_err());
        assert!(parse_duration("").is_err());
        assert_eq!(parse_size("64KiB"), Ok(65536));
        assert_eq!(parse_size("7"), Ok(7));
        assert!(parse_size("1kb").is_err());
        assert!(parse_size("99999999999999GiB").is_err());
    }

    #[test]
    fn a_star_serves_every_model() {
        let config = EngineConfig::default();
        assert!(config.serves("anything"));
        let config = EngineConfig {
            models: vec!["a".into()],
            ..EngineConfig::default()
        };
        assert!(config.serves("a") && !config.serves("b"));
    }
}
