//! `tollgate key`: API keys of a running gateway.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use axum::http::Method;
use clap::{Subcommand, ValueEnum};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use tollgate_sdk::document::{FromNode, FromText};

use super::cells::{NUMBERS, cells};
use super::ending::{Ended, end};
use super::kind::Kind;
use super::remote::Remote;
use super::table::columns_within;
use super::terminal::{say, width};
use crate::model::Moment;

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Make a key. Its secret is shown this once.
    #[command(
        after_help = "Example: tollgate key create team-b --gateway main --model 'Qwen/*' --expires 30d"
    )]
    Create(Box<Create>),
    /// List the keys.
    #[command(after_help = "Example: tollgate key list -o json")]
    List {
        #[command(flatten)]
        remote: Remote,
        /// How they are shown.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Give a key another secret, shown this once. The old one goes on for a while.
    #[command(after_help = "Example: tollgate key rotate team-b --grace 1h")]
    Rotate {
        /// The key.
        name: String,
        /// For how long the old secret goes on; without a word, what the key says (`grace`, an hour if not set).
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        grace: Option<Duration>,
        #[command(flatten)]
        remote: Remote,
        /// How the new secret is shown.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Take a key away, with all its secrets, at once.
    #[command(after_help = "Example: tollgate key revoke team-b")]
    Revoke {
        /// The key.
        name: String,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(clap::Args)]
pub(super) struct Create {
    /// Its name.
    name: String,
    /// The gateway it opens.
    #[arg(long)]
    gateway: String,
    /// A model it may ask for, `Qwen/*` for all that begin so; may be repeated. Without a word, all.
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// A service it may use; may be repeated. Without a word, all.
    #[arg(long = "service", value_name = "SERVICE")]
    services: Vec<String>,
    /// A rule it may go by; may be repeated. Without a word, all.
    #[arg(long = "rule", value_name = "RULE")]
    rules: Vec<String>,
    /// After how long it ends: 30d, 12h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Option<Duration>,
    /// For how long an old secret goes on after a rotation.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    grace: Option<Duration>,
    /// How often it gets another secret by itself; needs --rotate-to.
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "rotate_to")]
    rotate_every: Option<Duration>,
    /// The file, on the gateway's machine, that gets each new secret.
    #[arg(long, value_name = "FILE", requires = "rotate_every")]
    rotate_to: Option<String>,
    /// Its limits, as JSON: '{"global":{"limit":100,"window":"1m"}}'.
    #[arg(long, value_name = "JSON", value_parser = document)]
    limits: Option<Value>,
    /// Its budget, as JSON: the settings of the plugin `budget`.
    #[arg(long, value_name = "JSON", value_parser = document)]
    budget: Option<Value>,
    #[command(flatten)]
    remote: Remote,
    /// How it is shown.
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    let read = Duration::from_text(text);
    read.map_err(|wrong| format!("{}, for example 30d, 12h or 90s", wrong.message))
}

fn document(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

pub(super) fn run(verb: Verb) -> ExitCode {
    let done = match verb {
        Verb::Create(create) => make(&create),
        Verb::List { remote, output } => list(&remote, output),
        Verb::Rotate {
            name,
            grace,
            remote,
            output,
        } => rotate(&name, grace, &remote, output),
        Verb::Revoke { name, remote } => revoke(&name, &remote),
    };
    end(done)
}

fn make(asked: &Create) -> Result<(), Ended> {
    let mut body = Map::new();
    body.insert("name".into(), json!(asked.name));
    body.insert("gateway".into(), json!(asked.gateway));
    let lists = [
        ("models", &asked.models),
        ("services", &asked.services),
        ("rules", &asked.rules),
    ];
    for (field, names) in lists {
        if !names.is_empty() {
            body.insert(field.into(), json!(names));
        }
    }
    if let Some(after) = asked.expires {
        let end = SystemTime::now().checked_add(after).and_then(Moment::at);
        let end = end.ok_or("--expires: too far away")?;
        body.insert("expires_at".into(), end.value());
    }
    let durations = [("grace", asked.grace), ("rotate_every", asked.rotate_every)];
    for (field, value) in durations {
        if let Some(value) = value {
            body.insert(field.into(), json!(value.to_text()));
        }
    }
    if let Some(file) = &asked.rotate_to {
        body.insert("rotate_to".into(), json!(file));
    }
    for (field, value) in [("limits", &asked.limits), ("budget", &asked.budget)] {
        if let Some(value) = value {
            body.insert(field.into(), value.clone());
        }
    }
    let key = asked
        .remote
        .ask(Method::POST, "/v1/keys", Some(&body.into()))?;
    show_secret(&key, asked.output)
}

fn rotate(
    name: &str,
    grace: Option<Duration>,
    remote: &Remote,
    output: Output,
) -> Result<(), Ended> {
    let body = grace.map(|grace| json!({"grace": grace.to_text()}));
    let path = format!("/v1/keys/{}/rotate", escaped(name));
    let key = remote.ask(Method::POST, &path, body.as_ref())?;
    show_secret(&key, output)
}

fn revoke(name: &str, remote: &Remote) -> Result<(), Ended> {
    remote.ask(Method::DELETE, &format!("/v1/keys/{}", escaped(name)), None)?;
    eprintln!("the key {name} opens nothing any more");
    Ok(())
}

fn list(remote: &Remote, output: Output) -> Result<(), Ended> {
    let answer = remote.ask(Method::GET, "/v1/keys", None)?;
    let items = answer.get("items").cloned().unwrap_or_default();
    if output == Output::Json {
        return say(&format!("{items:#}\n"));
    }
    let items = items.as_array().map_or(&[][..], Vec::as_slice);
    let (heads, rows) = cells(Kind::Key, items, false);
    say(&columns_within(&heads, &NUMBERS, &rows, width()))
}

/// The secret alone goes to standard output, so that it can be piped; what is said about it does not.
fn show_secret(key: &Value, output: Output) -> Result<(), Ended> {
    let field = |name: &str| key.get(name).cloned().unwrap_or_default();
    if output == Output::Json {
        let shown = json!({
            "name": field("name"),
            "id": field("id"),
            "secret": field("secret"),
            "expires_at": field("expires_at"),
        });
        return say(&format!("{shown:#}\n"));
    }
    let secret = field("secret");
    say(&format!("{}\n", secret.as_str().unwrap_or_default()))?;
    let name = field("name");
    eprintln!(
        "This is the secret of the key {}. It is shown this once; keep it now.",
        name.as_str().unwrap_or_default()
    );
    Ok(())
}

fn escaped(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}
