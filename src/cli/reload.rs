//! `tollgate reload`: the configuration file, read again by the running process.

use std::process::ExitCode;

use axum::http::Method;
use serde_json::Value;

use super::ending::{Ended, end};
use super::remote::Remote;
use super::terminal::say;

#[derive(clap::Args)]
pub(super) struct Asked {
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(asked: &Asked) -> ExitCode {
    end(reload(asked))
}

fn reload(asked: &Asked) -> Result<(), Ended> {
    let answer = asked.remote.ask(Method::POST, "/v1/reload", None)?;
    let lines = |name: &str| -> Vec<String> {
        let list = answer.get(name).and_then(Value::as_array);
        let texts = list.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    if let Some(warnings) = answer.get("warnings").and_then(Value::as_str)
        && !warnings.is_empty()
    {
        eprintln!("{warnings}");
    }
    let changes = lines("changes");
    if changes.is_empty() {
        say("nothing has changed\n")?;
    }
    for change in changes {
        say(&format!("{change}\n"))?;
    }
    for field in lines("after_restart") {
        eprintln!("only a restart brings into force: {field}");
    }
    Ok(())
}
