//! `docs/cli.md`: what `--help` says of every verb.

use std::fmt::Write;

use clap::Command;

use super::{MADE, anchor};
use crate::documents::compare;

const HEAD: &str = "\
Verbs that ask a running gateway find its admin listener by `--server` or `$TOLLGATE_SERVER`, and their token by `$TOLLGATE_TOKEN` or `--token-file`. Tables and what can be piped go to
standard output, everything else to standard error. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
";

/// Every verb that is shown, after those it belongs to.
fn verbs(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
    let visible = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    for verb in visible.filter(|verb| verb.get_name() != "help") {
        let path = format!("{path} {}", verb.get_name());
        match verb.has_subcommands() {
            true => verbs(verb, &path, found),
            false => found.push((path, verb.clone())),
        }
    }
}

fn made() -> String {
    let mut tree = tollgate::cli::command()
        .term_width(100)
        .mut_subcommands(|verb| verb.mut_args(|argument| argument.hide_env_values(true)));
    tree.build();
    let mut found = Vec::new();
    verbs(&tree, "tollgate", &mut found);
    let mut out = format!("# Command line\n\n{MADE}\n\n{HEAD}\n");
    for (path, verb) in &found {
        let about = verb
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        let ending = if about.ends_with('.') { "" } else { "." };
        writeln!(out, "- [`{path}`](#{}): {about}{ending}", anchor(path)).unwrap();
    }
    for (path, mut verb) in found {
        let help = verb.render_long_help().to_string();
        let lines: Vec<_> = help.lines().map(str::trim_end).collect();
        let help = lines.join("\n");
        write!(out, "\n## `{path}`\n\n```text\n{}\n```\n", help.trim()).unwrap();
    }
    out
}

#[test]
fn the_page_is_current() {
    compare("docs/cli.md", &made());
}

#[test]
fn the_command_line_is_sound() {
    tollgate::cli::command().debug_assert();
}
