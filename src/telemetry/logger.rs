//! Tollgate's own log lines: one backend behind `log`, for our lines and Pingora's alike.
//!
//! Lines go to standard error, as JSON or as text, so that the access log may have standard output to itself.

use std::io::Write;

use env_logger::{Builder, Target, WriteStyle};
use log::{LevelFilter, Record};
use serde_json::{Map, Value};

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line: `time`, `level`, `target`, `message`, and the line's own keys.
    Json,
    /// `2026-01-02T03:04:05Z INFO tollgate: message key=value`.
    Text,
}

/// Installs the backend; later calls only change nothing. `RUST_LOG` overrides `level`.
pub fn install(level: LevelFilter, format: Format) {
    let mut builder = Builder::new();
    // Pingora tells at info what concerns only its authors.
    builder.filter(Some("pingora"), level.min(LevelFilter::Warn));
    for module in [
        "pingora_core",
        "pingora_proxy",
        "pingora_load_balancing",
        "h2",
        "rustls",
        "hyper",
    ] {
        builder.filter(Some(module), level.min(LevelFilter::Warn));
    }
    builder.filter_level(level);
    // Who changed what is not a question of how much is told.
    builder.filter(Some("audit"), level.max(LevelFilter::Info));
    // It takes a pooled connection that closes while it is being asked for to be an error; it just opens another.
    builder.filter(Some("pingora_core::connectors"), LevelFilter::Off);
    if let Ok(directives) = std::env::var("RUST_LOG") {
        builder.parse_filters(&directives);
    }
    builder
        .target(Target::Stderr)
        .write_style(WriteStyle::Never);
    builder.format(move |out, record| match format {
        Format::Json => writeln!(out, "{}", json(record)),
        Format::Text => writeln!(out, "{}", text(record)),
    });
    let _ = builder.try_init();
}

fn json(record: &Record<'_>) -> Value {
    let mut line = Map::new();
    line.insert("time".into(), now().into());
    line.insert(
        "level".into(),
        record.level().as_str().to_ascii_lowercase().into(),
    );
    line.insert("target".into(), record.target().into());
    line.insert("message".into(), record.args().to_string().into());
    let _ = record
        .key_values()
        .visit(&mut Keys(|key: String, value: log::kv::Value<'_>| {
            let shown = || serde_json::to_value(&value).unwrap_or(value.to_string().into());
            line.entry(key).or_insert_with(shown);
        }));
    Value::Object(line)
}

fn text(record: &Record<'_>) -> String {
    let mut line = format!(
        "{} {:5} {}: {}",
        now(),
        record.level(),
        record.target(),
        record.args()
    );
    let _ = record
        .key_values()
        .visit(&mut Keys(|key: String, value: log::kv::Value<'_>| {
            line.push_str(&format!(" {key}={value}"));
        }));
    line
}

/// The time of day, to the millisecond, UTC.
pub fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

struct Keys<F>(F);

impl<'kvs, F: FnMut(String, log::kv::Value<'kvs>)> log::kv::VisitSource<'kvs> for Keys<F> {
    fn visit_pair(
        &mut self,
        key: log::kv::Key<'kvs>,
        value: log::kv::Value<'kvs>,
    ) -> Result<(), log::kv::Error> {
        (self.0)(key.to_string(), value);
        Ok(())
    }
}
