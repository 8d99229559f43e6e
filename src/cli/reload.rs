//! `tollgate reload`: the configuration file, read again by the running process.

use std::process::ExitCode;

use axum::http::Method;
use serde_json::Value;

use super::remote::Remote;

#[derive(clap::Args)]
pub(super) struct Asked {
    #[command(flatten)]
    remote: Remote,
}

#[allow(clippy::print_stdout, reason = "the command's output")]
pub(super) fn run(asked: &Asked) -> ExitCode {
    let answer = match asked.remote.ask(Method::POST, "/v1/reload", None) {
        Ok(answer) => answer,
        Err(message) => {
            eprintln!("tollgate: {message}");
            return ExitCode::FAILURE;
        }
    };
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
        println!("nothing has changed");
    }
    for change in changes {
        println!("{change}");
    }
    for field in lines("after_restart") {
        eprintln!("only a restart brings into force: {field}");
    }
    ExitCode::SUCCESS
}
