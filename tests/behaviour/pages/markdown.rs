//! What a page has a reader do, step by step. CONTRIBUTING.md says how blocks are written.

use std::fmt::Write;
use std::process::Command;

/// One thing to do, and the line of the page where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) line: usize,
    pub(super) what: What,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A file is written, or lengthened.
    File {
        name: String,
        text: String,
        added: bool,
    },
    /// A command is run; its output is compared if some is shown.
    Command { text: String, shown: Vec<String> },
    /// A program for Python is run.
    Python(String),
}

/// A fenced block.
struct Block {
    /// The line of its first line.
    line: usize,
    info: String,
    lines: Vec<String>,
}

/// The steps of a page, or what is wrong with how it is written.
pub(super) fn steps(page: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for block in blocks(page)? {
        let line = block.line;
        let (language, rest) = block.info.split_once(' ').unwrap_or((&block.info, ""));
        let text = block.lines.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        });
        let named = ["title", "append"].map(|attribute| {
            let value = rest.strip_prefix(&format!("{attribute}=\""))?;
            value.strip_suffix('"').map(str::to_owned)
        });
        match (language, named) {
            (_, [Some(name), _]) => steps.push(file(line, name, text, false)),
            (_, [_, Some(name)]) => steps.push(file(line, name, text, true)),
            _ if !rest.is_empty() => return Err(format!("{line}: what is `{rest}`?")),
            ("sh", _) => commands(line, &block.lines, &mut steps),
            ("console", _) => session(line, &block.lines, &mut steps)?,
            ("python", _) => steps.push(Step {
                line,
                what: What::Python(text),
            }),
            // To look at. What can be read as a document is.
            ("toml", _) => match text.parse::<toml::Table>() {
                Ok(_) => {}
                Err(error) => return Err(format!("{line}: {error}")),
            },
            ("json" | "yaml" | "text", _) => {}
            (language, _) => return Err(format!("{line}: what is a block of `{language}`?")),
        }
    }
    Ok(steps)
}

fn file(line: usize, name: String, text: String, added: bool) -> Step {
    let what = What::File { name, text, added };
    Step { line, what }
}

fn blocks(page: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (at, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.lines.push(line.to_owned()),
            (None, Some(info)) => {
                open = Some(Block {
                    line: at + 2,
                    info: info.trim().to_owned(),
                    lines: Vec::new(),
                });
            }
            (None, None) => {}
        }
    }
    match open {
        Some(block) => Err(format!("{}: the block has no end", block.line)),
        None => Ok(blocks),
    }
}

/// Each line is a command, unless the one before goes on.
fn commands(line: usize, lines: &[String], steps: &mut Vec<Step>) {
    let mut text = String::new();
    let mut begun = line;
    for (at, part) in lines.iter().enumerate() {
        if text.is_empty() {
            if part.trim().is_empty() || part.starts_with('#') {
                continue;
            }
            begun = line + at;
        }
        text += part;
        text.push('\n');
        if !goes_on(&text) {
            let shown = Vec::new();
            let text = std::mem::take(&mut text);
            steps.push(Step {
                line: begun,
                what: What::Command { text, shown },
            });
        }
    }
}

/// Lines that begin with `$ ` are commands, the others what the command before prints.
fn session(line: usize, lines: &[String], steps: &mut Vec<Step>) -> Result<(), String> {
    let mut open = false;
    for (at, part) in lines.iter().enumerate() {
        let last = steps.last_mut().filter(|step| step.line >= line);
        match (part.strip_prefix("$ "), last) {
            (_, Some(step)) if open => {
                let What::Command { text, .. } = &mut step.what else {
                    continue;
                };
                *text += part;
                text.push('\n');
                open = goes_on(text);
            }
            (Some(command), _) => {
                let text = format!("{command}\n");
                open = goes_on(&text);
                let shown = Vec::new();
                steps.push(Step {
                    line: line + at,
                    what: What::Command { text, shown },
                });
            }
            (None, Some(step)) => {
                if let What::Command { shown, .. } = &mut step.what {
                    shown.push(part.clone());
                }
            }
            (None, None) => return Err(format!("{}: no command prints this", line + at)),
        }
    }
    Ok(())
}

/// Whether a command is not complete yet: it ends in a backslash, or the shell expects more.
fn goes_on(text: &str) -> bool {
    let checked = Command::new("bash")
        .args(["-n", "-c", text])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&checked.stderr);
    text.ends_with("\\\n")
        || told.contains("unexpected end of file")
        || told.contains("unexpected EOF")
}

#[test]
fn pages_are_read() {
    let page = "# A\n```toml title=\"a.toml\"\nx = 1\n```\n```sh\n# about it\nls \\\n  -l\npwd &\nfor i in 1; do\n  x\ndone\n```\n```console\n$ cat a\none\n…\n$ true\n```\n";
    let steps = steps(page).unwrap();
    let lines: Vec<_> = steps.iter().map(|step| step.line).collect();
    assert_eq!(lines, [3, 7, 9, 10, 15, 18]);
    let command = |text: &str, shown: &[&str]| What::Command {
        text: text.to_owned(),
        shown: shown.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(steps[1].what, command("ls \\\n  -l\n", &[]));
    assert_eq!(steps[3].what, command("for i in 1; do\n  x\ndone\n", &[]));
    assert_eq!(steps[4].what, command("cat a\n", &["one", "…"]));
    for wrong in [
        "```rust\n```\n",
        "```toml\nx = \n```\n",
        "```sh\n",
        "```console\nx\n```\n",
    ] {
        assert!(self::steps(wrong).is_err(), "{wrong}");
    }
}
