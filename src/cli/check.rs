//! `tollgate check`: every mistake of a configuration at once.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Diagnostics};
use crate::model::{Config, Pool};

/// Reads the file, or the default one, and tells what is wrong with it on standard error; on standard output only that
/// all is well.
pub(super) fn run(path: Option<&Path>) -> ExitCode {
    let path = path.map_or_else(config::default_path, Path::to_owned);
    let written = match config::load(&path) {
        Ok(loaded) => {
            let warned = tell(&loaded.warnings);
            let summary = summary(&loaded.config);
            let told = writeln!(io::stdout(), "{}: ok ({summary})", path.display());
            warned.and(told).map(|()| ExitCode::SUCCESS)
        }
        Err(diagnostics) => tell(&diagnostics).map(|()| ExitCode::FAILURE),
    };
    // Standard output and error may be closed: then the exit code has to say it all.
    written.unwrap_or(ExitCode::FAILURE)
}

fn tell(diagnostics: &Diagnostics) -> io::Result<()> {
    if diagnostics.is_empty() {
        return Ok(());
    }
    let counts = [
        (diagnostics.errors(), "error"),
        (diagnostics.warnings(), "warning"),
    ];
    let counts = counts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| count(*number, what));
    let counts: Vec<_> = counts.collect();
    writeln!(io::stderr(), "{diagnostics}\n{}", counts.join(", "))
}

/// What a configuration holds, in a few words.
fn summary(config: &Config) -> String {
    let pools = config.services.iter().map(|service| match &service.pool {
        Pool::Targets(targets) => targets.len(),
        Pool::Upstream(_) => 0,
    });
    let shared = config
        .upstreams
        .iter()
        .map(|upstream| upstream.targets.len());
    let targets: usize = pools.chain(shared).sum();
    let mut parts = vec![
        count(config.listeners.len(), "listener"),
        count(config.gateways.len(), "gateway"),
        count(config.services.len(), "service"),
    ];
    let more = [
        (config.upstreams.len(), "upstream"),
        (config.rules.len(), "rule"),
    ];
    parts.extend(
        more.iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| count(*number, what)),
    );
    parts.push(count(targets, "target"));
    parts.join(", ")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
