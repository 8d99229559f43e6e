//! `tollgate run`: serve.

use std::path::Path;
use std::process::ExitCode;

use super::File;
use crate::config;
use crate::model::{Level, Log, LogFormat};
use crate::server::{self, Ending, Start};
use crate::telemetry::logger;

#[derive(clap::Args)]
pub(super) struct Asked {
    #[command(flatten)]
    file: File,
    /// Take over from the process that listens at `server.upgrade_socket`.
    #[arg(long)]
    upgrade: bool,
}

/// Loads the configuration and serves it until a signal.
pub(super) fn run(asked: &Asked) -> ExitCode {
    let path = asked.file.config.as_deref();
    let path = path.map_or_else(config::default_path, Path::to_path_buf);
    let loaded = match config::load(&path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::FAILURE;
        }
    };
    install_logger(&loaded.config.log);
    if !loaded.warnings.is_empty() {
        eprintln!("{}", loaded.warnings);
    }
    let start = Start {
        file: Some(&path),
        take_over: asked.upgrade,
    };
    match server::run(&loaded.config, start, Ending::by_signals()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollgate: {error}");
            ExitCode::FAILURE
        }
    }
}

pub(super) fn install_logger(log: &Log) {
    let level = match log.level {
        Level::Error => log::LevelFilter::Error,
        Level::Warn => log::LevelFilter::Warn,
        Level::Info => log::LevelFilter::Info,
        Level::Debug => log::LevelFilter::Debug,
        Level::Trace => log::LevelFilter::Trace,
    };
    let format = match log.format {
        LogFormat::Json => logger::Format::Json,
        LogFormat::Text => logger::Format::Text,
    };
    logger::install(level, format);
}
