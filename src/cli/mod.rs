//! The command line: one file per verb.

mod check;
mod convert;
mod demo;
mod key;
mod reload;
mod remote;
mod run;
mod schema;
mod table;
mod upgrade;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An inference gateway: a high-performance reverse proxy for language models.
#[derive(Parser)]
#[command(name = "tollgate", version, disable_help_subcommand = true)]
#[command(after_help = "Begin with `tollgate demo`, which needs no configuration.")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve.
    #[command(
        after_help = "SIGTERM lets open streams finish (server.grace), SIGINT stops at once, SIGHUP reads the file again,\nSIGQUIT hands over to a new process of the program on disk (see `tollgate upgrade`)."
    )]
    Run(run::Asked),
    /// Serve simulated engines, with nothing to configure, and print a request to try.
    Demo,
    /// Say everything that is wrong with a configuration, with place and remedy. Exit code 1 if anything is.
    Check(File),
    /// Make, list, rotate and revoke API keys of a running gateway.
    #[command(subcommand)]
    Key(key::Verb),
    /// Make a running gateway read its configuration file again, and say what changed or why not.
    Reload(reload::Asked),
    /// Replace a running gateway by a new process of its program on disk, without losing a connection.
    #[command(
        after_help = "The new process has the old one's arguments and reads the same file. If it does not get ready, the old one goes on."
    )]
    Upgrade(upgrade::Asked),
    /// Say what was used: requests, tokens and cost, in groups.
    Usage(usage::Asked),
    /// Turn another system's documents into a configuration, and say what became of every field.
    #[command(
        after_help = "The configuration goes to standard output, the report elsewhere. What cannot be honoured is an error."
    )]
    Convert(convert::Asked),
    /// Print the configuration's JSON Schema.
    Schema,
    /// Print the version.
    Version,
}

#[derive(clap::Args)]
struct File {
    /// The configuration: TOML, or YAML or JSON of the same shape.
    /// Default: conf/tollgate.toml, else /etc/tollgate/tollgate.toml
    #[arg(short, long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs one command line.
pub fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Run(asked) => run::run(&asked),
        Verb::Demo => demo::run(),
        Verb::Check(file) => check::run(file.config.as_deref()),
        Verb::Key(verb) => key::run(verb),
        Verb::Reload(asked) => reload::run(&asked),
        Verb::Upgrade(asked) => upgrade::run(&asked),
        Verb::Usage(asked) => usage::run(&asked),
        Verb::Convert(asked) => convert::run(asked),
        Verb::Schema => schema::run(),
        Verb::Version => version(),
    }
}

#[allow(clippy::print_stdout, reason = "the command's output")]
fn version() -> ExitCode {
    println!("tollgate {}", env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}
