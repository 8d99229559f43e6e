//! The command line: one file per verb.

mod apply;
mod cells;
mod check;
mod convert;
mod delete;
mod demo;
mod documents;
mod ending;
mod foreign;
mod get;
mod key;
mod kind;
mod plan;
mod reload;
mod remote;
mod run;
mod schema;
mod shell;
mod table;
mod terminal;
mod top;
mod upgrade;
mod usage;
mod yaml;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// An inference gateway: a high-performance reverse proxy for language models.
#[derive(Parser)]
#[command(name = "tollgate", version, disable_help_subcommand = true)]
#[command(
    after_help = "Begin with `tollgate demo`, which needs no configuration.\n\nExit codes: 0 done, 1 refused or failed, 2 usage. NO_COLOR is honoured."
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve.
    #[command(
        after_help = "SIGTERM lets open streams finish (server.grace), SIGINT stops at once, SIGHUP reads the file again,\n\
            SIGQUIT hands over to a new process of the program on disk (see `tollgate upgrade`).\n\nExample: tollgate run -c conf/tollgate.toml"
    )]
    Run(run::Asked),
    /// Serve simulated engines, with nothing to configure, and print a request to try.
    #[command(after_help = "Example: tollgate demo")]
    Demo,
    /// Say everything that is wrong with a configuration, with place and remedy. Exit code 1 if anything is.
    #[command(after_help = "Example: tollgate check -c conf/tollgate.toml")]
    Check(File),
    /// Make the gateway's resources as documents say, after showing what that changes.
    #[command(
        after_help = "Documents are native (with `kind`, lists, several in a YAML file, whole configuration files) or those of dstack, TrustGate, \
            CoreWeave and Llumnix. ${NAME} and { file = \"…\" } are filled in here, files relative to their document. All or nothing.\n\n\
            Examples:\n  tollgate apply -f service.yaml\n  tollgate apply -f resources/ -y\n  tollgate get services -o yaml | tollgate apply -f - -y"
    )]
    Apply(Box<apply::Asked>),
    /// Show what `apply` would change.
    #[command(after_help = "Example: tollgate diff -f resources/")]
    Diff(Box<apply::Documents>),
    /// List what a running gateway has.
    #[command(
        after_help = "Examples:\n  tollgate get gateways\n  tollgate get service qwen -o yaml\n  tollgate get targets -w"
    )]
    Get(get::Asked),
    /// Delete resources of a running gateway.
    #[command(
        after_help = "A target that is deleted gets no new request; open ones end.\n\n\
            Examples:\n  tollgate delete service qwen\n  tollgate delete target pool/10.0.0.7:8000 -y\n  tollgate delete -f service.yaml"
    )]
    Delete(Box<delete::Asked>),
    /// Make, list, rotate and revoke API keys of a running gateway.
    #[command(subcommand)]
    #[command(
        after_help = "Example: tollgate key create team-b --gateway main --model 'Qwen/*' --expires 30d"
    )]
    Key(key::Verb),
    /// Make a running gateway read its configuration file again, and say what changed or why not.
    #[command(after_help = "Example: tollgate reload")]
    Reload(reload::Asked),
    /// Watch a running gateway: requests, tokens, time to first token, queues, targets.
    #[command(
        after_help = "Keys: n, r, t, l sort by name, requests, tokens, latency; up and down move through the targets; q ends.\n\n\
            Examples:\n  tollgate top\n  tollgate top --once"
    )]
    Top(top::Asked),
    /// Replace a running gateway by a new process of its program on disk, without losing a connection.
    #[command(
        after_help = "The new process has the old one's arguments and reads the same file. If it does not get ready, the old one goes on.\n\n\
            Example: tollgate upgrade --patience 2m"
    )]
    Upgrade(upgrade::Asked),
    /// Say what was used: requests, tokens and cost, in groups.
    #[command(after_help = "Example: tollgate usage --by model --since 7d")]
    Usage(usage::Asked),
    /// Turn another system's documents into a configuration, and say what became of every field.
    #[command(
        after_help = "The configuration goes to standard output, the report elsewhere. What cannot be honoured is an error.\n\n\
            Example: tollgate convert service.dstack.yml --target chat=http://10.0.0.7:8000 > tollgate.toml"
    )]
    Convert(convert::Asked),
    /// Print the configuration's JSON Schema.
    #[command(after_help = "Example: tollgate schema > tollgate.schema.json")]
    Schema(schema::Asked),
    /// Print a script that completes commands in a shell.
    #[command(after_help = "Example: tollgate completions bash > /etc/bash_completion.d/tollgate")]
    Completions(shell::Completions),
    /// Print or write the manual's pages.
    #[command(after_help = "Example: tollgate man /usr/local/share/man/man1")]
    Man(shell::Man),
    /// Print the version.
    #[command(after_help = "Example: tollgate version")]
    Version,
}

#[derive(clap::Args)]
struct File {
    /// The configuration: TOML, or YAML or JSON of the same shape.
    /// Default: conf/tollgate.toml, else /etc/tollgate/tollgate.toml
    #[arg(short, long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The whole command line, as its documentation is made from.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs one command line.
pub fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Run(asked) => run::run(&asked),
        Verb::Demo => demo::run(),
        Verb::Check(file) => check::run(file.config.as_deref()),
        Verb::Apply(asked) => apply::run(&asked),
        Verb::Diff(asked) => apply::run_diff(&asked),
        Verb::Get(asked) => get::run(&asked),
        Verb::Delete(asked) => delete::run(&asked),
        Verb::Key(verb) => key::run(verb),
        Verb::Reload(asked) => reload::run(&asked),
        Verb::Top(asked) => top::run(&asked),
        Verb::Upgrade(asked) => upgrade::run(&asked),
        Verb::Usage(asked) => usage::run(&asked),
        Verb::Convert(asked) => convert::run(&asked),
        Verb::Schema(asked) => schema::run(&asked),
        Verb::Completions(asked) => shell::completions(&asked, Arguments::command()),
        Verb::Man(asked) => shell::man(&asked, Arguments::command()),
        Verb::Version => version(),
    }
}

fn version() -> ExitCode {
    ending::end(terminal::say(&format!(
        "tollgate {}\n",
        env!("CARGO_PKG_VERSION")
    )))
}
