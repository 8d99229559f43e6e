//! `tollgate completions` and `tollgate man`: what shells and readers know of the command line, from the command line itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

use super::ending::{Ended, end};
use super::terminal::say;

#[derive(clap::Args)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

#[derive(clap::Args)]
pub(super) struct Man {
    /// The folder that gets a page for each verb; without it, the page of tollgate itself goes to standard output.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub(super) fn completions(asked: &Completions, mut command: Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut command, "tollgate", &mut script);
    end(say(&String::from_utf8_lossy(&script)))
}

pub(super) fn man(asked: &Man, command: Command) -> ExitCode {
    end(match &asked.folder {
        None => page(command),
        Some(folder) => pages(folder, command),
    })
}

fn page(command: Command) -> Result<(), Ended> {
    let mut page = Vec::new();
    let written = clap_mangen::Man::new(command).render(&mut page);
    written.map_err(|error| error.to_string())?;
    say(&String::from_utf8_lossy(&page))
}

fn pages(folder: &Path, command: Command) -> Result<(), Ended> {
    let shown = folder.display();
    let made = std::fs::create_dir_all(folder);
    let made = made.and_then(|()| clap_mangen::generate_to(command, folder));
    made.map_err(|error| format!("{shown}: {error}"))?;
    eprintln!("the pages are in {shown}: man -l {shown}/tollgate.1");
    Ok(())
}
