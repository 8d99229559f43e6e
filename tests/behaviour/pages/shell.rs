//! One shell for a page, so that what a step sets holds in the next; and what it started in the background ends with it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::harness::until;

/// How long one command may take.
const LONGEST: Duration = Duration::from_secs(60);

pub(super) struct Shell {
    child: Child,
    input: Option<ChildStdin>,
    /// Lines that say how commands ended.
    said: Receiver<String>,
    folder: PathBuf,
    /// What runs in the background, and where its output goes.
    started: Vec<(String, PathBuf)>,
}

/// How a command ended, and what it printed.
pub(super) struct Ran {
    pub(super) status: i32,
    pub(super) printed: String,
}

impl Shell {
    /// Starts one in the folder `work` below `folder`. In `bin` is what comes first on its path.
    pub(super) fn start(folder: &Path, variables: &[(&str, String)]) -> Shell {
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]);
        for name in [
            "http_proxy",
            "HTTP_PROXY",
            "https_proxy",
            "HTTPS_PROXY",
            "TOLLGATE_TOKEN",
        ] {
            command.env_remove(name);
        }
        let mut child = command
            .envs(variables.iter().map(|(name, value)| (*name, value)))
            .current_dir(folder.join("work"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let (to, said) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = to.send(line);
            }
        });
        Shell {
            child,
            input,
            said,
            folder: folder.to_owned(),
            started: Vec::new(),
        }
    }

    /// Has a line done, and gives what it says of it.
    fn ask(&mut self, line: &str) -> Result<String, String> {
        let input = self.input.as_mut().ok_or("the shell has ended")?;
        let written = input.write_all(line.as_bytes());
        written.map_err(|error| format!("the shell has ended: {error}"))?;
        let said = self.said.recv_timeout(LONGEST);
        said.map_err(|why| match why {
            RecvTimeoutError::Timeout => format!("it did not end within {LONGEST:?}"),
            RecvTimeoutError::Disconnected => "it ended the shell".to_owned(),
        })
    }

    /// Runs a command to its end.
    pub(super) fn run(&mut self, command: &str) -> Result<Ran, String> {
        let (script, output) = (self.folder.join("step"), self.folder.join("printed"));
        fs::write(&script, command).unwrap();
        let (script, printed) = (script.display(), output.display());
        let line = format!(". '{script}' >'{printed}' 2>&1 </dev/null; echo $?\n");
        let said = self.ask(&line)?;
        Ok(Ran {
            status: said.trim().parse().map_err(|_| said)?,
            printed: String::from_utf8_lossy(&fs::read(output).unwrap()).into_owned(),
        })
    }

    /// Starts a command in the background; it is there when `ready` says so.
    pub(super) fn start_background(
        &mut self,
        command: &str,
        ready: impl Fn() -> bool,
    ) -> Result<(), String> {
        let number = self.started.len();
        let output = self.folder.join(format!("printed-{number}"));
        let line = format!(
            "{command} >'{}' 2>&1 </dev/null & echo $!\n",
            output.display()
        );
        let id = self.ask(&line)?;
        self.started.push((id.clone(), output.clone()));
        until(command, || (ready() || !runs(&id)).then_some(()));
        match runs(&id) {
            true => Ok(()),
            false => Err(fs::read_to_string(output).unwrap_or_default()),
        }
    }

    /// What was printed in the background.
    pub(super) fn background(&self) -> String {
        let outputs = self.started.iter().map(|(_, output)| output);
        let texts = outputs.map(|output| fs::read_to_string(output).unwrap_or_default());
        texts.collect()
    }
}

/// Whether a process is there and no zombie.
fn runs(id: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = status.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.is_empty() && !state.starts_with('Z')
}

impl Drop for Shell {
    fn drop(&mut self) {
        for (signal, patience) in [("-TERM", 5_000), ("-KILL", 1_000)] {
            let left = || self.started.iter().filter(|(id, _)| runs(id));
            for (id, _) in left() {
                let _ = Command::new("kill").args([signal, id]).status();
            }
            // The shell is their parent: it has to be there until they are gone.
            for _ in 0..patience / 5 {
                if left().count() == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
