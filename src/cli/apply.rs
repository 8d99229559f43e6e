//! `tollgate apply` and `tollgate diff`: documents become the gateway's resources, after a look at what that changes.
//!
//! The gateway plans and applies; all or nothing. What is applied is the plan that was shown: its revision goes along, and if somebody
//! else changed something in between, the new plan is shown first.

use std::process::ExitCode;

use axum::http::{Method, StatusCode};
use serde_json::Value;

use super::documents::{Files, Given};
use super::ending::{Ended, end};
use super::plan::Plan;
use super::remote::{Api, Remote};
use super::table::columns;
use super::terminal::{Paint, agrees, can_ask, plain, say};

/// How often in a row others may be faster.
const ATTEMPTS: usize = 5;

#[derive(clap::Args)]
pub(super) struct Asked {
    #[command(flatten)]
    documents: Documents,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args)]
pub(super) struct Documents {
    #[command(flatten)]
    files: Files,
    /// How the plan or what was done is shown.
    #[arg(short, long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

pub(super) fn run(asked: &Asked) -> ExitCode {
    end(match asked.dry_run {
        true => diff(&asked.documents),
        false => apply(&asked.documents, asked.yes),
    })
}

pub(super) fn run_diff(asked: &Documents) -> ExitCode {
    end(diff(asked))
}

fn diff(asked: &Documents) -> Result<(), Ended> {
    let given = asked.read()?;
    let plan = asked.plan(&asked.remote.open()?, &given)?;
    match asked.output {
        Output::Json => say(&format!("{:#}\n", plan.answer())),
        Output::Table => say(&plan.show(Paint::of_stdout())),
    }
}

fn apply(asked: &Documents, yes: bool) -> Result<(), Ended> {
    if !yes {
        may_ask(asked.files.read_stdin())?;
    }
    let given = asked.read()?;
    let api = asked.remote.open()?;
    let mut plan = asked.plan(&api, &given)?;
    for attempt in 1.. {
        asked.show(&plan)?;
        if plan.size() == 0 {
            eprintln!("nothing to change");
            return asked.tell(&plan);
        }
        if !yes && !agrees(&question(plan.size())) {
            return Err("nothing was changed".into());
        }
        match api.ask_if(
            Method::POST,
            "/v1/apply",
            Some(&given.body()),
            plan.revision(),
        ) {
            Ok(answer) => return asked.tell(&Plan::of(answer)),
            Err(refused) if refused.status == Some(StatusCode::PRECONDITION_FAILED) => {
                eprintln!(
                    "Somebody else has changed something since this plan was made; nothing of it was applied."
                );
                if attempt == ATTEMPTS {
                    break;
                }
                plan = asked.plan(&api, &given)?;
            }
            Err(refused) => return Err(given.tell(&refused)),
        }
    }
    Err("others change the configuration all the time; try again".into())
}

/// Whether a person can be asked.
///
/// # Errors
/// Why not, and what to do then.
pub(super) fn may_ask(stdin_is_taken: bool) -> Result<(), Ended> {
    let why = match (stdin_is_taken, can_ask()) {
        (true, _) => "standard input holds the documents, so that nobody can be asked",
        (false, false) => "standard input is no terminal, so that nobody can be asked",
        (false, true) => return Ok(()),
    };
    Err(Ended::Misused(format!(
        "{why}: give -y to change without a question, or look first with `tollgate diff`"
    )))
}

fn question(changes: usize) -> String {
    match changes {
        1 => "Apply this change?".to_owned(),
        several => format!("Apply these {several} changes?"),
    }
}

impl Documents {
    fn read(&self) -> Result<Given, Ended> {
        if self.files.files.is_empty() {
            let help =
                "-f is missing: name a document, a folder of documents, or - for standard input";
            return Err(Ended::Misused(help.into()));
        }
        self.files.read()
    }

    fn plan(&self, api: &Api, given: &Given) -> Result<Plan, Ended> {
        let plan = api.ask(Method::POST, "/v1/plan", Some(&given.body()));
        let plan = Plan::of(plan.map_err(|refused| given.tell(&refused))?);
        for warning in plan.warnings() {
            eprintln!("{warning}");
        }
        Ok(plan)
    }

    /// Shows a plan before it is applied. Programs get only what was done in the end.
    fn show(&self, plan: &Plan) -> Result<(), Ended> {
        match self.output {
            Output::Json => Ok(()),
            Output::Table => say(&plan.show(Paint::of_stdout())),
        }
    }

    fn tell(&self, done: &Plan) -> Result<(), Ended> {
        if self.output == Output::Json {
            return say(&format!("{:#}\n", done.answer()));
        }
        let secrets = done.secrets();
        if !secrets.is_empty() {
            let rows = secrets
                .iter()
                .map(|(name, secret)| vec![plain(name).into(), plain(secret).into()]);
            let rows: Vec<Vec<String>> = rows.collect();
            say(&format!("\n{}", columns(&["KEY", "SECRET"], &[], &rows)))?;
            eprintln!("These secrets are shown this once; keep them now.");
        }
        if done.size() > 0 {
            let revision = done.answer().get("revision").unwrap_or(&Value::Null);
            eprintln!("applied: revision {revision}");
        }
        Ok(())
    }
}
